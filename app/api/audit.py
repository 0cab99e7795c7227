"""The tenant's own audit trail: what was done, and the signed checkpoints that an outsider may keep as an anchor.

Reading a page is no act of its own: whoever follows the trail would only ever read that they read it. Taking the whole
of it away is one, and is noted where that is done, by the export of the command line.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct as Layout
from time import perf_counter
from typing import Any

import msgspec

from app import ids, wire
from app.edge.gate import Answer
from app.edge.request import Request
from app.errors import ParameterRefused
from app.queries import AuditQuery, CheckpointQuery, parse_query
from app.store.base import StoreUnavailable
from app.store.chain import AuditEntry
from app.store.trail import Checkpoint, Position, Trail

SLICE_S = 0.002
"""How long the writing of an answer may hold the event loop before it lets other requests through."""
FILL_S = 0.5
"""How long a page that came short is filled up."""

_POSITION = Layout(">Q16sQ")
_NUMBER = Layout(">Q")
_LAST = (1 << 63) - 1
_ID_BYTES = 16
_encode = msgspec.json.Encoder().encode


class AuditTrail:
    """The endpoints under /v1/audit."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    async def list(self, request: Request) -> Answer:
        """Entries newest first, a page at a time."""
        query = parse_query(request.query, AuditQuery)
        found, ends = await self._found(request.principal.tenant_id, query)
        page = found[: query.limit]
        cursor = _entry_cursor(page[-1]) if len(found) > query.limit or not ends else None
        parts = []
        slice_end = perf_counter() + SLICE_S
        for entry in page:
            # An entry of a group commit has a thousand subjects.
            parts.append(_encode(_shown(entry)))
            if perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        return Answer(200, b'{"items":[' + b",".join(parts) + b'],"next_cursor":' + _encode(cursor) + b"}")

    async def _found(self, tenant_id: str, query: AuditQuery) -> tuple[Sequence[AuditEntry], bool]:
        """One more than the page holds, where there are as many; and whether the trail is known to end there.

        The trail may give fewer than there are. Then it is asked again, but a search that takes long goes on with the
        next page.
        """
        before = None if query.cursor is None else _entry_position(query.cursor)
        found = await self._more(tenant_id, query, before, query.limit + 1)
        ends = not found
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(FILL_S):
                while not ends and len(found) <= query.limit:
                    last = Position(found[-1].at_ms, found[-1].segment, found[-1].number)
                    some = await self._more(tenant_id, query, last, query.limit + 1 - len(found))
                    found, ends = [*found, *some], not some
        return found, ends

    async def _more(
        self, tenant_id: str, query: AuditQuery, before: Position | None, limit: int
    ) -> Sequence[AuditEntry]:
        return await self._trail.entries(
            tenant_id,
            act=query.act,
            actor=query.actor,
            assessment=None if query.assessment is None else _assessment(query.assessment),
            since_ms=query.from_ms,
            before_ms=query.to_ms,
            before=before,
            limit=limit,
        )

    async def checkpoints(self, request: Request) -> Answer:
        """Newest first, a page at a time."""
        query = parse_query(request.query, CheckpointQuery)
        tenant_id = request.principal.tenant_id
        if query.cursor is None:
            newest = await self._trail.last_checkpoint(tenant_id)
            end = 1 if newest is None else newest.number + 1
        else:
            end = _number(query.cursor)
        # They are numbered without gaps: those of the page are found by their numbers.
        after = max(end - 1 - query.limit, 0)
        found = await self._trail.checkpoints(tenant_id, after=after, limit=query.limit) if end > 1 else []
        items = [_checkpoint(one) for one in reversed(found) if one.number < end]
        cursor = _cursor(_NUMBER.pack(after + 1)) if after else None
        return Answer(200, _encode(wire.CheckpointList(items, cursor)))


def _shown(entry: AuditEntry) -> wire.AuditEntry:
    segment = ids.text(entry.segment)
    return wire.AuditEntry(
        id=f"{segment}-{entry.number}",
        segment=segment,
        number=entry.number,
        at=ids.instant(entry.at_ms),
        act=entry.act,
        actor=entry.actor,
        # To the letter: the hash is of these bytes.
        detail=msgspec.Raw(entry.detail),
        subjects=[
            ids.text(entry.subjects[start : start + _ID_BYTES]) for start in range(0, len(entry.subjects), _ID_BYTES)
        ],
        previous=entry.previous.hex(),
        hash=entry.hash.hex(),
    )


def _checkpoint(checkpoint: Checkpoint) -> wire.Checkpoint:
    return wire.Checkpoint(
        number=checkpoint.number,
        at=ids.instant(checkpoint.at_ms),
        entries=checkpoint.entries,
        heads=[wire.SegmentHead(ids.text(head.segment), head.number, head.hash.hex()) for head in checkpoint.heads],
        previous=checkpoint.previous.hex(),
        hash=checkpoint.hash.hex(),
        mac=checkpoint.mac.hex(),
    )


def _assessment(text: str) -> bytes:
    try:
        return ids.parse(text)
    except ValueError as error:
        raise ParameterRefused([wire.Fault("/query/assessment", str(error))]) from None


def _entry_cursor(entry: AuditEntry) -> str:
    return _cursor(_POSITION.pack(entry.at_ms, entry.segment, entry.number))


def _entry_position(cursor: str) -> Position:
    at_ms, segment, number = _unpacked(_POSITION, cursor)
    if max(at_ms, number) > _LAST:
        raise _wrong_cursor()
    return Position(at_ms, segment, number)


def _number(cursor: str) -> int:
    """The number before which the page of checkpoints ends."""
    number: int = _unpacked(_NUMBER, cursor)[0]
    if not 1 <= number <= _LAST:
        raise _wrong_cursor()
    return number


def _cursor(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def _unpacked(layout: Layout, cursor: str) -> tuple[Any, ...]:
    try:
        packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (BinasciiError, ValueError):
        packed = b""
    if len(packed) != layout.size:
        raise _wrong_cursor()
    return layout.unpack(packed)


def _wrong_cursor() -> ParameterRefused:
    return ParameterRefused([wire.Fault("/query/cursor", "expected the `next_cursor` of the page before, unchanged")])
