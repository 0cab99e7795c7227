"""What does not depend on any record: health, the API's description and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

from app import wire
from app.edge.gate import JSON_TYPE, Answer, Endpoint
from app.edge.request import Request
from app.evidence.lists import ListsInForce
from app.faults import Query, parse_query
from app.resilience.breaker import Breaker


def health(version: str, breakers: Sequence[Breaker], lists: ListsInForce) -> Endpoint:
    """The endpoint that says that this process answers, how it finds its neighbours, and what is to be seen to."""

    async def endpoint(request: Request) -> Answer:
        parse_query(request.query, Query)
        found = wire.Health("ok", version, {breaker.name: breaker.state for breaker in breakers}, lists.warnings)
        return Answer(200, msgspec.json.encode(found), (JSON_TYPE,))

    return endpoint


async def problem(request: Request) -> Answer:
    """Where a problem's `type` leads: its entry on the reference page."""
    place = f"/docs#problem-{request.path_params['slug']}"
    return Answer(302, b"", ((b"location", quote(place, safe="/#").encode("ascii")),))


def fixed(answers: Mapping[str, Answer], name: str) -> Endpoint:
    """An endpoint with one answer, which is put there under its name when the service starts."""

    async def endpoint(request: Request) -> Answer:
        parse_query(request.query, Query)
        return answers[name]

    return endpoint
