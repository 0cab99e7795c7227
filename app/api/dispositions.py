"""Hits that people set aside: make one, list them, read one, end one."""

from __future__ import annotations

import msgspec

from app import ids, wire
from app.api.cursors import id_cursor, id_position
from app.dispositions import Namesakes
from app.edge.gate import JSON_TYPE, Answer
from app.edge.request import Request
from app.profiles import read_body
from app.queries import DispositionQuery, Query, parse_query
from app.store.lists import Disposition

_encode = msgspec.json.Encoder().encode


class DispositionsOf:
    """The endpoints under /v1/dispositions."""

    def __init__(self, namesakes: Namesakes) -> None:
        self._namesakes = namesakes

    async def create(self, request: Request) -> Answer:
        """Set a potential hit aside."""
        parse_query(request.query, Query)
        asked = read_body(request.body, wire.DispositionRequest)
        made = await self._namesakes.set_aside(request.principal.tenant_id, asked, request.principal.key_id)
        location = (b"location", b"/v1/dispositions/" + ids.text(made.id).encode("ascii"))
        return Answer(201, _encode(shown(made)), (JSON_TYPE, location))

    async def list(self, request: Request) -> Answer:
        """Newest first, a page at a time."""
        query = parse_query(request.query, DispositionQuery)
        found = await self._namesakes.page(
            request.principal.tenant_id,
            business_id=query.business_id,
            before_id=None if query.cursor is None else id_position(query.cursor),
            limit=query.limit + 1,
        )
        page = found[: query.limit]
        cursor = id_cursor(page[-1].id) if len(found) > query.limit else None
        return Answer(200, _encode(wire.DispositionList([shown(one) for one in page], cursor)))

    async def read(self, request: Request) -> Answer:
        """One of them."""
        parse_query(request.query, Query)
        found = await self._namesakes.find(request.principal.tenant_id, request.path_params["id"])
        return Answer(200, _encode(shown(found)))

    async def end(self, request: Request) -> Answer:
        """Take one back; again, and nothing changes."""
        parse_query(request.query, Query)
        principal = request.principal
        ended = await self._namesakes.end(principal.tenant_id, request.path_params["id"], principal.key_id)
        return Answer(200, _encode(shown(ended)))


def shown(one: Disposition) -> wire.Disposition:
    """A disposition as answers show it."""
    return wire.Disposition(
        id=ids.text(one.id),
        created_at=ids.instant(ids.time_ms(one.id)),
        business_id=one.business_id,
        assessment_id=ids.text(one.assessment_id),
        subject=one.subject,
        list=one.list,
        entity_id=one.entity_id,
        matched_name=one.matched_name,
        reason=one.reason,
        actor=one.actor,
        ended_at=None if one.ended_ms is None else ids.instant(one.ended_ms),
        ended_by=one.ended_by,
    )
