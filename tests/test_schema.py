"""Whatever the API's own description allows or forbids, the service answers as described and never fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from service import HOST, KEY, Client, Service, example, serving, unique

from app import queries
from app.api.operations import OPERATIONS

Route = tuple[str, str]

EXAMPLES = 25

# The generator leaves the description itself out; what measures for up to a minute is asked by tests/test_debug.py.
MEASURING = ("/debug/pprof/heap", "/debug/pprof/profile")
ROUTES = {(o.method.upper(), o.path): o for o in OPERATIONS if o.path not in ("/openapi.json", *MEASURING)}
CASES = [(route, GenerationMode.POSITIVE) for route in ROUTES] + [
    (route, GenerationMode.NEGATIVE)
    for route, operation in ROUTES.items()
    if operation.body is not None or operation.query is not queries.Query
]

ASSESS, BATCH, LIST = ("POST", "/v1/assessments"), ("POST", "/v1/assessments/batch"), ("GET", "/v1/assessments")
EXCLUDED: dict[tuple[Route, GenerationMode], list[Any]] = {
    # The schema is not all: countries, dates that lie ahead, cursors. What it allows may be refused with 422.
    (ASSESS, GenerationMode.POSITIVE): [positive_data_acceptance],
    (LIST, GenerationMode.POSITIVE): [positive_data_acceptance],
    # A time to come, networks, rates; a level or a decision; cursors and the ids of assessments.
    (("POST", "/v1/keys"), GenerationMode.POSITIVE): [positive_data_acceptance],
    (("POST", "/v1/assessments/{id}/overrides"), GenerationMode.POSITIVE): [positive_data_acceptance],
    (("GET", "/v1/audit"), GenerationMode.POSITIVE): [positive_data_acceptance],
    (("GET", "/v1/dispositions"), GenerationMode.POSITIVE): [positive_data_acceptance],
    (("GET", "/v1/audit/checkpoints"), GenerationMode.POSITIVE): [positive_data_acceptance],
    # Of what is ignored, nothing is described: neither that keys stand once, nor that no text holds NUL.
    (("POST", "/match/{dataset}"), GenerationMode.POSITIVE): [positive_data_acceptance],
    # A wrong item fails alone, inside an answer of 200.
    (BATCH, GenerationMode.NEGATIVE): [negative_data_rejection],
}


TOO_STRICT = ("positive_data_acceptance", "negative_data_rejection")
"""What the schema allows may be refused, as above; a wrong item of a batch fails alone, and a dry run does not look at
an Idempotency-Key."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # Each case is sent again without a key and with a wrong one, and nobody is to be told to slow down.
    with serving(tmp_path_factory.mktemp("described"), "auth:\n  failures: unlimited\n") as running:
        running.client().recorded(example("healthy-manufacturer"))
        yield running


@pytest.fixture(scope="module")
def operations(described: Service) -> dict[Route, Any]:
    schema: Any = schemathesis.openapi.from_url(f"http://{HOST}:{described.port}/openapi.json")
    found = [operation.ok() for operation in schema.get_all_operations()]
    return {(operation.method.upper(), operation.path): operation for operation in found}


@pytest.mark.parametrize(
    ("route", "mode"), CASES, ids=lambda value: value.value if isinstance(value, GenerationMode) else " ".join(value)
)
def test_an_operation_answers_as_it_is_described(
    described: Service, operations: dict[Route, Any], route: Route, mode: GenerationMode
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[route].as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and "Idempotency-Key" in (case.headers or {}):
            # Two cases that draw the same key are not one request repeated.
            case.headers["Idempotency-Key"] = unique("key")
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=EXCLUDED.get((route, mode), []))

    each()
    alive = Client(described.port)
    assert alive.get("/health").status == 200
    alive.close()


@pytest.mark.slow
def test_nothing_that_schemathesis_thinks_of_is_answered_otherwise(described: Service) -> None:
    """Its examples, its corner cases, and operations one after the other, each asking for what the one before made."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"http://{HOST}:{described.port}/openapi.json",
            "--phases", "examples,coverage,stateful", "--checks", "all", "--exclude-checks", ",".join(TOO_STRICT),
            *(option for path in MEASURING for option in ("--exclude-path", path)),
            "-H", f"X-API-Key: {KEY}", "--max-examples", "40", "--seed", "1", "--no-color",
            "--warnings", "off",
        ],
        capture_output=True, text=True, cwd=described.folder, timeout=300, check=False,
    )  # fmt: skip
    assert "No issues found" in done.stdout, done.stdout[-6000:]
    assert done.returncode == 0
    assert described.process.poll() is None


def test_the_description_served_holds_every_operation(operations: dict[Route, Any]) -> None:
    assert set(operations) == set(ROUTES) | {("GET", path) for path in MEASURING}
