"""The pipeline: evidence, features and score, record. The only place that knows all steps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from hashlib import sha256
from time import perf_counter, time

import msgspec
from msgspec import Struct

from app import wire
from app.errors import Conflict, ProfileRefused, Refusal
from app.evidence.base import Gathered, Source
from app.ids import Uuid7, now_ms, text
from app.profiles import read_item
from app.records import RENDERER_VERSION, Answer, Record, Recorded, Records
from app.registry import Registry
from app.resilience.deadline import Deadline
from app.store.base import Receipt, Row, Store
from app.telemetry.course import DECODE, GATHER, RECORD, SCORE, current
from app.telemetry.outcomes import Outcomes
from core import ENGINE_VERSION
from core.scorer import Assessed
from core.validity import ProfileInvalid

DAY_S = 86_400
EPOCH_ORDINAL = dt.date(1970, 1, 1).toordinal()

SLICE_S = 0.002
"""How long a batch may hold the event loop before it lets other requests through."""
MAX_SLICE = 64

_encode_record = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


class Keyed(Struct, frozen=True):
    """The idempotency of a request. fingerprint: SHA-256 of route, query and body.  request_id: its own."""

    key: str
    fingerprint: bytes
    request_id: str


class Reply(Struct, frozen=True):
    """The JSON of an assessed business. id: None where nothing was recorded.  repeated: it was answered before."""

    id: bytes | None
    body: bytes
    repeated: bool = False


class Scored(Struct, frozen=True):
    """A batch that is not recorded yet: the answer or refusal of each item, and the rows of those to be recorded."""

    outcomes: list[Answer | Exception]
    rows: list[Row]
    as_of: int


class Assessor:
    """Assesses profiles and reads assessments back.

    outcomes: counts what they came to.
    today: the proleptic ordinal of the day (UTC) that ages are counted to.
    commit_timeout_s, batch_timeout_s: how long the commit of one row, or of a batch, is waited for.
    item_limit_bytes: the most that one item of a batch may hold.
    """

    def __init__(
        self,
        registry: Registry,
        source: Source,
        store: Store,
        records: Records,
        ids: Uuid7,
        outcomes: Outcomes,
        *,
        commit_timeout_s: float,
        batch_timeout_s: float,
        item_limit_bytes: int,
        today: Callable[[], int] | None = None,
    ) -> None:
        self.registry = registry
        self.source = source
        self.store = store
        self.records = records
        self.ids = ids
        self.outcomes = outcomes
        self._commit = Deadline(commit_timeout_s)
        self._batch_commit = Deadline(batch_timeout_s)
        self._item_limit_bytes = item_limit_bytes
        self._today = today or _today

    async def assess(
        self,
        tenant_id: str,
        profile: wire.Profile,
        body: bytes,
        *,
        full: bool,
        dry_run: bool,
        keyed: Keyed | None,
        actor: str,
    ) -> Reply:
        """Assess one profile and record it, unless it is a dry run. body: the profile as sent.  actor: who asks.

        profile: best handed over without keeping it, since it is let go before the record is waited for.
        Raises ProfileRefused, Conflict, and what the store raises.
        """
        marks = current.get().marks
        marks[DECODE] = perf_counter()
        gathered = await self.source.gather(tenant_id, profile)
        marks[GATHER] = perf_counter()
        as_of = self._today()
        try:
            assessed = self.registry.active.assess(profile, gathered.findings, as_of)
        except ProfileInvalid as invalid:
            raise _refused(invalid) from None
        marks[SCORE] = perf_counter()
        business_id = _encode_json(profile.business.id)
        if dry_run:
            self.outcomes.dry_run(assessed)
            return Reply(None, Answer(None, business_id, assessed, gathered).render(full))
        row = self._row(tenant_id, profile, body, assessed, gathered)
        told = Answer(row.id, business_id, assessed, gathered).render(full)
        receipt = None
        if keyed is not None:
            receipt = self._receipt(tenant_id, keyed, 201, (row.id,), full, told, as_of)
        # PERF: until the commit others are assessed. What the profile took is theirs then while the caches of the
        # processor still hold it, and need not be fetched from memory to be freed (benchmarks/README.md).
        del profile, gathered
        earlier = await self._commit.run(self.store.add((row,), receipt, actor=actor))
        marks[RECORD] = perf_counter()
        if earlier is not None:
            return await self._repeat(earlier)
        self.outcomes.recorded(assessed)
        self.records.keep(Recorded(row, None, told) if full else Recorded(row, told))
        return Reply(row.id, told)

    async def _repeat(self, receipt: Receipt) -> Reply:
        """The answer of an earlier request, from its record."""
        [id] = receipt.ids
        assert id is not None
        found = await self.records.find(receipt.tenant_id, id)
        if found is None:
            raise Conflict(f"This request was answered before with assessment {text(id)}, which is no longer kept.")
        body = await self._first_told(found, receipt.explain == 1)
        check_same(receipt, body)
        return Reply(id, body, repeated=True)

    async def _first_told(self, recorded: Recorded, full: bool) -> bytes:
        """An answer as it was first given, whatever a person decided since."""
        if recorded.row.override_id is None:
            return await self.records.rendered(recorded, full)
        return (await self.records.restored(recorded.row, as_recorded=True)).render(full)

    async def score_batch(
        self, tenant_id: str, items: Sequence[bytes], *, dry_run: bool, as_of: int | None = None
    ) -> Scored:
        """Score each item; one that is refused, is refused alone. Nothing is recorded yet, nor ever of a dry run.

        Other requests get their turn between two slices. as_of: the day, today without it.
        """
        day = self._today() if as_of is None else as_of
        outcomes: list[Answer | Exception] = []
        rows: list[Row] = []
        place = 0
        marks = current.get().marks
        marks[DECODE] = marks[GATHER] = perf_counter()
        while place < len(items):
            outcome, made, place = await self._score_slice(tenant_id, items, place, day, dry_run)
            outcomes.extend(outcome)
            rows.extend(made)
            await asyncio.sleep(0)
        marks[SCORE] = perf_counter()
        return Scored(outcomes, rows, day)

    async def record_each(self, scored: Scored, *, actor: str) -> list[Answer | Exception]:
        """Record the rows of a batch; the outcomes as they are after that. One that fails, fails alone."""
        errors = iter(await self._batch_commit.run(self.store.add_each(scored.rows, actor=actor)))
        current.get().marks[RECORD] = perf_counter()
        outcomes = [_settled(o, next(errors)) if isinstance(o, Answer) else o for o in scored.outcomes]
        self._count(outcomes)
        return outcomes

    async def record_together(
        self, tenant_id: str, scored: Scored, keyed: Keyed, full: bool, body: bytes, *, actor: str
    ) -> Receipt | None:
        """Record a batch under its key, all of it or nothing; the receipt of the same request from before, if any."""
        ids = tuple([outcome.id if isinstance(outcome, Answer) else None for outcome in scored.outcomes])
        receipt = self._receipt(tenant_id, keyed, 200, ids, full, body, scored.as_of)
        earlier = await self._batch_commit.run(self.store.add(scored.rows, receipt, actor=actor))
        current.get().marks[RECORD] = perf_counter()
        if earlier is None:
            self._count(scored.outcomes)
        return earlier

    def _count(self, outcomes: Sequence[Answer | Exception]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self.outcomes.recorded(outcome.assessed)

    async def repeat_batch(self, receipt: Receipt, items: Sequence[bytes]) -> list[Answer | Exception]:
        """The outcomes of an earlier batch of the same items: those recorded from their records, the others as they are
        refused again. Raises Conflict where a record is no longer kept."""
        kept = [id for id in receipt.ids if id is not None]
        rows = dict(zip(kept, await self.records.each(receipt.tenant_id, kept), strict=True))
        outcomes = (await self.score_batch(receipt.tenant_id, items, dry_run=True, as_of=receipt.as_of)).outcomes
        for place, id in enumerate(receipt.ids):
            if id is not None:
                row = rows[id]
                if row is None:
                    raise Conflict(f"This batch was answered before, and its assessment {text(id)} is no longer kept.")
                outcomes[place] = await self.records.restored(row, as_recorded=True)
        return outcomes

    async def _score_slice(
        self, tenant_id: str, items: Sequence[bytes], place: int, as_of: int, dry_run: bool
    ) -> tuple[list[Answer | Exception], list[Row], int]:
        """As many items as fit in the time of a slice: read, then scored together with the GIL released."""
        started = perf_counter()
        read: list[wire.Profile | Exception] = []
        first = place
        while place < len(items) and len(read) < MAX_SLICE:
            try:
                read.append(read_item(items[place], place, self._item_limit_bytes))
            except Refusal as refusal:
                read.append(refusal)
            place += 1
            if perf_counter() - started > SLICE_S:
                break
        profiles = [profile for profile in read if isinstance(profile, wire.Profile)]
        gathering = perf_counter()
        found = await self.source.gather_each(tenant_id, profiles)
        # A batch gathers and scores by turns: told as if it had gathered first.
        current.get().marks[GATHER] += perf_counter() - gathering
        scored = self.registry.active.assess_many(profiles, [g.findings for g in found], as_of)
        triples = iter(zip(profiles, found, scored, strict=True))
        outcomes: list[Answer | Exception] = []
        rows: list[Row] = []
        for index, item in enumerate(read, first):
            if isinstance(item, Exception):
                outcomes.append(item)
                continue
            profile, gathered, assessed = next(triples)
            if isinstance(assessed, ProfileInvalid):
                outcomes.append(_refused(assessed, f"/items/{index}"))
                continue
            row_id = None
            if not dry_run:
                rows.append(self._row(tenant_id, profile, items[index], assessed, gathered))
                row_id = rows[-1].id
            outcomes.append(Answer(row_id, _encode_json(profile.business.id), assessed, gathered))
        return outcomes, rows, place

    def _row(self, tenant_id: str, profile: wire.Profile, body: bytes, assessed: Assessed, gathered: Gathered) -> Row:
        self.records.know(gathered.against, gathered.against_rows)
        record = Record(
            ENGINE_VERSION,
            assessed.record(),
            gathered.findings,
            gathered.screening,
            gathered.own_rows,
            gathered.degraded,
            gathered.against,
        )
        return Row(
            tenant_id,
            self.ids.new(),
            profile.business.id,
            assessed.level,
            assessed.decision,
            assessed.score,
            self.registry.active.model.sha256,
            body,
            _encode_record(record),
        )

    def _receipt(
        self,
        tenant_id: str,
        keyed: Keyed,
        status: int,
        ids: tuple[bytes | None, ...],
        full: bool,
        body: bytes,
        as_of: int,
    ) -> Receipt:
        return Receipt(
            tenant_id,
            keyed.key,
            keyed.fingerprint,
            status,
            ids,
            int(full),
            RENDERER_VERSION,
            sha256(body).digest(),
            keyed.request_id,
            as_of,
            now_ms(),
        )


def check_same(receipt: Receipt, body: bytes) -> None:
    """Raises Conflict where an answer rendered again is not the one that was given."""
    if sha256(body).digest() != receipt.answer_sha256:
        raise Conflict(
            "This request was answered before, and that answer cannot be given again byte for byte: its records were "
            "erased since, or this version of the service writes answers differently. Read the assessments by id."
        )


def _today() -> int:
    """The proleptic ordinal of today (UTC)."""
    return int(time()) // DAY_S + EPOCH_ORDINAL


def _settled(answer: Answer, error: BaseException | None) -> Answer | Exception:
    return error if isinstance(error, Exception) else answer


def _refused(invalid: ProfileInvalid, at: str = "") -> ProfileRefused:
    return ProfileRefused([wire.Fault(at + pointer, detail) for pointer, detail in invalid.faults])
