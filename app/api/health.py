"""Whether the service is well, for balancers, orchestrators and people."""

from __future__ import annotations

import msgspec

from app import wire
from app.edge.gate import JSON_TYPE, Answer
from app.edge.request import Request
from app.health import ServiceHealth
from app.queries import Query, parse_query

_encode = msgspec.json.Encoder().encode
_ALIVE = _encode(wire.Liveness("alive"))


class HealthOf:
    """The endpoints below /health."""

    def __init__(self, health: ServiceHealth) -> None:
        self._health = health

    async def brief(self, request: Request) -> Answer:
        """One word and the version."""
        parse_query(request.query, Query)
        return Answer(200, _encode(self._health.brief()), (JSON_TYPE,))

    async def live(self, request: Request) -> Answer:
        """That this process runs its event loop: whoever reads it knows."""
        parse_query(request.query, Query)
        return Answer(200, _ALIVE, (JSON_TYPE,))

    async def ready(self, request: Request) -> Answer:
        """Whether requests should come here."""
        parse_query(request.query, Query)
        found = self._health.readiness()
        return Answer(200 if found.status == "ready" else 503, _encode(found), (JSON_TYPE,))

    async def detailed(self, request: Request) -> Answer:
        """Every component."""
        parse_query(request.query, Query)
        return Answer(200, _encode(await self._health.detailed()), (JSON_TYPE,))
