"""What does not depend on any record: the API's description and its page."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from app.api.tags import names
from app.edge.gate import Answer, Endpoint
from app.edge.headers import Fixed
from app.edge.request import Request
from app.queries import Query, parse_query


async def problem(request: Request) -> Answer:
    """Where a problem's `type` leads: its entry on the reference page."""
    place = f"/docs#problem-{request.path_params['slug']}"
    return Answer(302, b"", ((b"location", quote(place, safe="/#").encode("ascii")),))


class Kept(NamedTuple):
    """An answer that is the same until the service ends, and a tag that says whether a copy of it still holds."""

    answer: Answer
    etag: bytes


def tagged(body: bytes, headers: Fixed, told: bytes) -> Kept:
    """told: what the answer says as far as that matters to who keeps it, the same wherever the same is said."""
    etag = b'W/"%s"' % sha256(told).hexdigest()[:32].encode("ascii")
    return Kept(Answer(200, body, (*headers, (b"etag", etag))), etag)


def fixed(answers: Mapping[str, Kept], name: str) -> Endpoint:
    """An endpoint with one answer, which is put there under its name when the service starts."""

    async def endpoint(request: Request) -> Answer:
        parse_query(request.query, Query)
        answer, etag = answers[name]
        known = request.if_none_match
        return Answer(304, b"", ((b"etag", etag),)) if known is not None and names(known, etag) else answer

    return endpoint
