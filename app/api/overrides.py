"""What people decide over assessments: ask for it, approve it, read it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app import ids, wire
from app.edge.gate import JSON_TYPE, Answer
from app.edge.request import Request
from app.errors import NotFound, clipped
from app.overrides import Overrides, after
from app.profiles import read_body
from app.queries import Query, parse_query
from app.store.access import StoredOverride

_encode = msgspec.json.Encoder().encode


class OverridesOf:
    """The endpoints under /v1/assessments/{id}/overrides."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides

    async def create(self, request: Request) -> Answer:
        """Decide over an assessment: 201 where that took effect, 202 where it waits for a second key."""
        parse_query(request.query, Query)
        assessment_id = _id(request, "id", "assessment")
        sent = read_body(request.body, wire.OverrideRequest)
        made = await self._overrides.decide(
            request.principal.tenant_id,
            assessment_id,
            level=None if sent.level is None else wire.LEVELS.index(sent.level),
            decision=None if sent.decision is None else wire.DECISIONS.index(sent.decision),
            reason=sent.reason,
            actor=request.principal.key_id,
        )
        path = f"/v1/assessments/{ids.text(assessment_id)}/overrides/{ids.text(made.id)}"
        location = (b"location", path.encode("ascii"))
        return Answer(202 if made.state == "pending" else 201, _encode(shown(made)), (JSON_TYPE, location))

    async def list(self, request: Request) -> Answer:
        """All of an assessment, oldest first."""
        parse_query(request.query, Query)
        found = await self._overrides.of(request.principal.tenant_id, _id(request, "id", "assessment"))
        return Answer(200, _encode(wire.OverrideList([shown(override, found) for override in found])))

    async def read(self, request: Request) -> Answer:
        """One of them."""
        parse_query(request.query, Query)
        override_id = _id(request, "override_id", "override")
        found = await self._overrides.of(request.principal.tenant_id, _id(request, "id", "assessment"))
        for override in found:
            if override.id == override_id:
                return Answer(200, _encode(shown(override, found)))
        raise NotFound(f"override {ids.text(override_id)} of this assessment")

    async def approve(self, request: Request) -> Answer:
        """Have a pending one take effect."""
        parse_query(request.query, Query)
        approved = await self._overrides.approve(
            request.principal.tenant_id,
            _id(request, "id", "assessment"),
            _id(request, "override_id", "override"),
            request.principal.key_id,
        )
        return Answer(200, _encode(shown(approved)))


def shown(override: StoredOverride, known: Sequence[StoredOverride] = ()) -> wire.Override:
    """An override as answers show it. known: all of its assessment."""
    return wire.Override(
        id=ids.text(override.id),
        assessment_id=ids.text(override.assessment_id),
        created_at=ids.instant(ids.time_ms(override.id)),
        level=wire.LEVELS[override.level],
        decision=wire.DECISIONS[override.decision],
        reason=override.reason,
        actor=override.actor,
        state=override.state,
        approver=override.approver,
        approved_at=None if override.approved_ms is None else ids.instant(override.approved_ms),
        void=override.state == "pending" and bool(after(override, known)),
    )


def _id(request: Request, name: str, what: str) -> bytes:
    """An id of the path. Raises NotFound for what is none: nothing bears it."""
    text = request.path_params[name]
    try:
        return ids.parse(text)
    except ValueError:
        raise NotFound(f"{what} {clipped(text)}") from None
