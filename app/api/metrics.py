"""The metrics of all processes of the pod, as Prometheus reads them."""

from __future__ import annotations

import asyncio

from app.edge.gate import Answer
from app.edge.request import Request
from app.queries import Query, parse_query
from app.telemetry.exposition import Exposition
from app.telemetry.meters import Meters


class Metrics:
    """The endpoint /metrics."""

    def __init__(self, meters: Meters, exposition: Exposition) -> None:
        self._meters = meters
        self._exposition = exposition

    async def read(self, request: Request) -> Answer:
        """All metrics, in the text format that the Accept header prefers."""
        parse_query(request.query, Query)
        self._meters.refresh()
        accept = request.headers.get(b"accept", b"").decode("latin-1")
        # The text is made while requests go on.
        text, media_type = await asyncio.to_thread(self._exposition.text, accept)
        return Answer(200, text, ((b"content-type", media_type.encode("ascii")),))
