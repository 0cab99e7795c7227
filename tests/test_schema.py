"""Whatever the API's own description allows or forbids, the service answers as described and never fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from service import HOST, Service, example, serving

schema = schemathesis.pytest.from_fixture("api")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("described")) as running:
        running.client().recorded(example("healthy-manufacturer"))
        yield running


@pytest.fixture(scope="module")
def api(described: Service) -> Any:
    return schemathesis.openapi.from_url(f"http://{HOST}:{described.port}/openapi.json")


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_answers_as_it_is_described(case: Any) -> None:
    case.call_and_validate()
