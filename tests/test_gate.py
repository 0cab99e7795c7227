"""The outermost layer, for what cannot be seen from outside."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from app.edge.admission import Admission
from app.edge.authentication import Anyone
from app.edge.gate import Answer, Gate, Route
from app.edge.rates import Rates
from app.edge.request import Bodies, Request
from app.errors import ProblemTable, Unavailable
from app.limits.limiter import Limiter
from app.resilience.batcher import Batcher
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


class Batched:
    """Routes whose every endpoint waits for a batch that fails, with one error for all of it."""

    def __init__(self) -> None:
        self._batcher: Batcher[int, None] = Batcher(self._send)

    async def _send(self, items: list[int]) -> list[None]:
        await asyncio.sleep(0)
        try:
            raise ConnectionError("reset")
        except ConnectionError as error:
            raise Unavailable("The database does not answer.") from error

    def find(self, request: Request) -> Any:
        async def endpoint(request: Request) -> Answer:
            await self._batcher.submit(len(request.path))
            return Answer(200, b"")

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


@pytest.mark.parametrize("routes", [Away, Batched])
def test_nothing_of_a_request_that_failed_waits_for_the_collector(routes: Callable[[], Any]) -> None:
    async def scenario() -> None:
        gate = made(routes())
        await ask(gate, 1)
        gc.collect()
        gc.disable()
        await asyncio.gather(*[ask(gate, 10) for _ in range(10)])

    try:
        asyncio.run(scenario())
        assert [one for one in gc.get_objects() if isinstance(one, Request)] == []
    finally:
        gc.enable()
