"""The outermost layer, for what cannot be seen from outside."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from app.edge.admission import Admission
from app.edge.authentication import Anyone
from app.edge.gate import QUIET_S, Answer, Gate, Route
from app.edge.rates import Rates
from app.edge.request import Bodies, Request
from app.errors import ProblemTable, Unavailable
from app.limits.limiter import Limiter
from app.store.trail import Act
from app.telemetry.cells import Cells
from app.telemetry.meters import Meters
from app.telemetry.traffic import Traffic


class Away:
    """Routes whose every endpoint is away."""

    def find(self, request: Request) -> Any:
        async def endpoint(request: Request) -> Answer:
            raise Unavailable("The database does not answer.")

        return Route(endpoint, None, None, 0, ())


async def nothing() -> None:
    """Starts and stops nothing."""


def unheard(act: Act, sample: object) -> None:
    """Nobody hears of acts here."""


async def ask(gate: Gate, times: int) -> None:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/assessments",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 503) == 503

    for _ in range(times):
        await gate(scope, asyncio.sleep, send)  # type: ignore[arg-type]


def test_an_outage_is_logged_once_a_second_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("app.edge.gate.time.monotonic", lambda: now)
    rates = Rates(Limiter(None, 1))
    guard = Anyone("default")
    admission, traffic = Admission(1, 1, 1.0), Traffic(Meters(Cells()))
    gate = Gate(
        Away(), ProblemTable(), guard, rates, Bodies(1.0), admission, traffic, unheard, (), nothing, nothing
    )  # fmt: skip
    with caplog.at_level(logging.ERROR):
        asyncio.run(ask(gate, 500))
        assert len(caplog.records) == 1
        now += QUIET_S
        asyncio.run(ask(gate, 2))
    assert len(caplog.records) == 2
    assert "The database does not answer" in caplog.messages[0]
    assert "499 more" in caplog.messages[1]
