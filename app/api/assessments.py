"""Assessments: assess one or many, read back, list, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from time import perf_counter
from typing import TypeVar

import msgspec

from app import ids, wire
from app.api.cursors import id_cursor, id_position
from app.api.tags import names
from app.assess import SLICE_S, Assessor, Keyed, check_same
from app.edge.gate import JSON_TYPE, Answer
from app.edge.rates import Rates
from app.edge.request import Request
from app.errors import NotFound, ProblemTable, clipped
from app.profiles import read_batch, read_profile
from app.queries import AssessQuery, ListQuery, Query, ReadQuery, idempotency_key, parse_query
from app.records import Answer as Assessment
from app.records import Recorded, Records
from app.resilience.deadline import Deadline
from app.resilience.turns import ShortTurns
from app.store.base import Row
from app.store.trail import Act, act
from core.model import DECISIONS, LEVELS

_encode = msgspec.json.Encoder().encode
_OK = (JSON_TYPE,)
REPEATED = (b"idempotent-replayed", b"true")
_LAST_ID = b"\xff" * 16

Q = TypeVar("Q", bound=Query)


class Assessments:
    """The endpoints under /v1/assessments.

    enter: has an act in the audit trail before its answer is given.
    """

    def __init__(
        self,
        assessor: Assessor,
        records: Records,
        rates: Rates,
        problems: ProblemTable,
        deadline: Deadline,
        enter: Callable[[Act], Awaitable[None]],
    ) -> None:
        self._assessor = assessor
        self._records = records
        self._rates = rates
        self._problems = problems
        self._deadline = deadline
        self._enter = enter
        self._short_turns = ShortTurns()

    async def create(self, request: Request) -> Answer:
        """Assess one business and record it."""
        query = parse_query(request.query, AssessQuery)
        key = _key(request, query)
        return await self._deadline.run(self._created(request, query, key))

    async def _created(self, request: Request, query: AssessQuery, key: str | None) -> Answer:
        body, principal = request.body, request.principal
        keyed = None if key is None else _keyed(key, request, query, body)
        reply = await self._assessor.assess(
            principal.tenant_id,
            read_profile(body),
            body,
            full=query.explain == "full",
            dry_run=query.dry_run,
            keyed=keyed,
            actor=principal.key_id,
        )
        if reply.id is None:
            return Answer(200, reply.body, _OK)
        location = (b"location", b"/v1/assessments/" + ids.text(reply.id).encode("ascii"))
        if reply.repeated:
            return Answer(201, reply.body, (JSON_TYPE, location, REPEATED))
        return Answer(201, reply.body, (JSON_TYPE, location))

    async def read(self, request: Request) -> Answer:
        """One recorded assessment, with a strong ETag: of the record, which never changes, and of its override."""
        query = parse_query(request.query, ReadQuery)
        recorded = await self._recorded(request)
        etag = _etag(recorded.row, query.explain)
        if request.if_none_match is not None and names(request.if_none_match, etag):
            return Answer(304, b"", ((b"etag", etag),))
        body = await self._records.rendered(recorded, query.explain == "full")
        return Answer(200, body, (JSON_TYPE, (b"etag", etag)))

    async def list(self, request: Request) -> Answer:
        """Newest first, a page at a time."""
        query = parse_query(request.query, ListQuery)
        rows = await self._records.page(
            request.principal.tenant_id,
            business_id=query.business_id,
            level=None if query.level is None else LEVELS.index(query.level),
            decision=None if query.decision is None else DECISIONS.index(query.decision),
            since_id=None if query.from_ms is None else _floor(query.from_ms),
            before_id=_earliest(query.to_ms, query.cursor),
            limit=query.limit + 1,
        )
        items = [(await self._records.restored(row)).render(False) for row in rows[: query.limit]]
        cursor = id_cursor(rows[query.limit - 1].id) if len(rows) > query.limit else None
        if items:
            caller = request.principal
            await self._enter(act(caller.tenant_id, "assessment.exported", caller.key_id, assessments=len(items)))
        return Answer(200, b'{"items":[' + b",".join(items) + b'],"next_cursor":' + _encode(cursor) + b"}", _OK)

    async def batch(self, request: Request) -> Answer:
        """Assess up to a thousand; one bad item fails alone."""
        query = parse_query(request.query, AssessQuery)
        key = _key(request, query)
        # The deadline bounds what is waited for. A batch that is at work, and lets others through, is not late.
        with self._short_turns:
            return await self._batched(request, query, key)

    async def _batched(self, request: Request, query: AssessQuery, key: str | None) -> Answer:
        body, tenant_id, actor = request.body, request.principal.tenant_id, request.principal.key_id
        items = read_batch(body)
        await self._rates.charge(request, len(items))
        full = query.explain == "full"
        scored = await self._assessor.score_batch(tenant_id, items, dry_run=query.dry_run)
        own_id = request.id.decode("ascii")
        if key is None:
            outcomes = scored.outcomes if query.dry_run else await self._assessor.record_each(scored, actor=actor)
            return Answer(200, await self._rendered(outcomes, own_id, full), _OK)
        answer = await self._rendered(scored.outcomes, own_id, full)
        keyed = _keyed(key, request, query, body)
        earlier = await self._assessor.record_together(tenant_id, scored, keyed, full, answer, actor=actor)
        if earlier is None:
            return Answer(200, answer, _OK)
        outcomes = await self._assessor.repeat_batch(earlier, items)
        answer = await self._rendered(outcomes, earlier.request_id, earlier.explain == 1)
        check_same(earlier, answer)
        return Answer(200, answer, (JSON_TYPE, REPEATED))

    async def _rendered(self, outcomes: Sequence[Assessment | Exception], request_id: str, full: bool) -> bytes:
        """The answer of a batch, in slices that let other requests through."""
        parts = [b'{"items":[']
        slice_end = perf_counter() + SLICE_S
        for index, outcome in enumerate(outcomes):
            comma = b"," if index else b""
            if isinstance(outcome, Assessment):
                status = 200 if outcome.id is None else 201
                parts.append(b'%s{"index":%d,"status":%d,"assessment":' % (comma, index, status))
                parts.append(outcome.render(full))
            else:
                problem = self._problems.problem(outcome, request_id)
                parts.append(b'%s{"index":%d,"status":%d,"problem":' % (comma, index, problem.status))
                parts.append(_encode(problem))
            parts.append(b"}")
            if perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        # Joined once: an answer can have 16 MB.
        parts.append(b"]}")
        return b"".join(parts)

    async def replay(self, request: Request) -> Answer:
        """Score the stored input again and compare."""
        parse_query(request.query, Query)
        recorded = await self._recorded(request)
        told = await self._records.replay(recorded.row)
        caller, subjects = request.principal, (recorded.row.id,)
        await self._enter(
            act(caller.tenant_id, "assessment.replayed", caller.key_id, subjects, identical=told.identical)
        )
        return Answer(200, _encode(told), _OK)

    async def _recorded(self, request: Request) -> Recorded:
        text = request.path_params["id"]
        try:
            found = await self._records.find(request.principal.tenant_id, ids.parse(text))
        except ValueError:
            found = None
        if found is None:
            raise NotFound(f"assessment {clipped(text)}")
        return found


def _key(request: Request, query: AssessQuery) -> str | None:
    """The Idempotency-Key, which a dry run does without."""
    told = None if query.dry_run else request.idempotency_key
    return None if told is None else idempotency_key(told)


def _keyed(key: str, request: Request, query: AssessQuery, body: bytes) -> Keyed:
    # One spelling for all that ask for the same: the default of a parameter that is absent counts as given.
    asked = f"{request.path}?explain={query.explain}\n".encode()
    return Keyed(key, sha256(asked + body).digest(), request.id.decode("ascii"))


def _etag(row: Row, explain: wire.Explain) -> bytes:
    override = b"" if row.override_id is None else b"-" + row.override_id.hex().encode("ascii")
    return b'"%s-%s%s"' % (row.id.hex().encode("ascii"), explain.encode("ascii"), override)


def _earliest(to_ms: int | None, cursor: str | None) -> bytes | None:
    """The id before which the page begins: the sooner of the end asked for and the cursor's."""
    ends = [] if to_ms is None else [_floor(to_ms)]
    if cursor is not None:
        ends.append(id_position(cursor))
    return min(ends, default=None)


def _floor(time_ms: int) -> bytes:
    """The least id of a time; times outside of what ids can hold are clamped."""
    return ids.floor(min(max(time_ms, 0), (1 << 48) - 1))
