"""What all tests share: the profile of generated examples, and a running service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from service import Client, Service, serving

settings.register_profile("kyb", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("kyb")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that many tests record in; none may rely on it being empty."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    caller = Client(service.port)
    yield caller
    caller.close()
