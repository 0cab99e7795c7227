"""What does not depend on any record: the API's description and its page."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from app.edge.gate import Answer, Endpoint
from app.edge.request import Request
from app.faults import Query, parse_query


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
