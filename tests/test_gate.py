"""The outermost layer, for what cannot be seen from outside."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import pytest

from app.edge.admission import Admission
from app.edge.authentication import Anyone
from app.edge.gate import Answer, Gate, Route
from app.edge.rates import Rates
from app.edge.request import Bodies, Request
from app.errors import ProblemTable, Unavailable
from app.limits.limiter import Limiter
from app.store.trail import Act
from app.telemetry.cells import Cells
from app.telemetry.log import json_line, told_of
from app.telemetry.meters import Meters
from app.telemetry.traffic import Traffic


class Away:
    """Routes whose every endpoint is away."""

    def find(self, request: Request) -> Any:
        async def endpoint(request: Request) -> Answer:
            raise Unavailable("The database does not answer.")

        return Route(endpoint, None, None, 0, ())


class Broken:
    """Routes whose every endpoint has a fault, and an exception that quotes what was sent."""

    def find(self, request: Request) -> Any:
        async def endpoint(request: Request) -> Answer:
            raise ValueError("Acme Trading GmbH is no number")

        return Route(endpoint, None, None, 0, ())


async def nothing() -> None:
    """Starts and stops nothing."""


def unheard(act: Act, sample: object) -> None:
    """Nobody hears of acts here."""


async def ask(gate: Gate, times: int, status: int = 503) -> None:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/assessments",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", status) == status

    for _ in range(times):
        await gate(scope, asyncio.sleep, send)  # type: ignore[arg-type]


def made(routes: Any) -> Gate:
    """A gate before these routes."""
    rates = Rates(Limiter(None, 1))
    guard = Anyone("default")
    admission, traffic = Admission(1, 1, 1.0), Traffic(Meters(Cells()))
    return Gate(routes, ProblemTable(), guard, rates, Bodies(1.0), admission, traffic, unheard, (), nothing, nothing)


def test_each_request_of_an_outage_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        asyncio.run(ask(made(Away()), 500))
    told = [json.loads(json_line(told_of(record))) for record in caplog.records]
    assert len(told) == 500
    assert {(one["event"], one["status"], one["error"]) for one in told} == {("request_failed", 503, "Unavailable")}
    assert told[0]["reason"] == "The database does not answer."
    assert "stack" not in told[0]


def test_of_what_nobody_expected_the_log_has_the_place_and_not_the_words(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        asyncio.run(ask(made(Broken()), 1, 500))
    [record] = caplog.records
    line = json_line(told_of(record))
    told = json.loads(line)
    assert (told["event"], told["status"], told["error"]) == ("request_failed", 500, "ValueError")
    assert any("endpoint" in frame for frame in told["stack"])
    assert b"Acme" not in line


def test_nothing_of_a_request_that_failed_waits_for_the_collector() -> None:
    gate = made(Away())
    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask(gate, 10))
        assert [one for one in gc.get_objects() if isinstance(one, Request)] == []
    finally:
        gc.enable()
