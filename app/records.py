"""Recorded assessments: what is kept of one, how it is found, rendered again, and scored again."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from app import wire
from app.cache.local import MISSING
from app.cache.tiers import Cache
from app.errors import Conflict
from app.evidence.base import Findings, Gathered
from app.ids import text
from app.registry import ModelUnknown, Registry
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.resilience.singleflight import SingleFlight
from app.store.base import Row, Store, StoreUnavailable
from app.store.lists import Lists
from core.model import ModelRefused
from core.scorer import Assessed, RecordDamaged, Scorer
from core.validity import ProfileInvalid

Found = TypeVar("Found")

RENDERER_VERSION = 1
"""Of the code that makes an answer's bytes of a record. A change of these bytes is a new version."""
MOST_AGAINST = 4096
"""How many sets of lists are remembered: each list that is looked after makes a new one."""


class Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What is kept of a result beside its input. engine: core.ENGINE_VERSION then.  result: core's compact record.

    evidence: a JSON list, or where there is `against` its members alone: what stands before them is kept once for all
    assessments under that digest, since it changes only with the lists.
    What a later version added would change what the rest means: such a record is refused, not half read.
    """

    engine: int
    result: bytes
    findings: Findings
    screening: bytes
    evidence: bytes
    degraded: bool
    against: bytes = b""


_decode_record = msgspec.msgpack.Decoder(Record).decode
_encode_row = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(Row).decode
_encode_json = msgspec.json.Encoder().encode
_decode_profile = msgspec.json.Decoder(wire.Profile).decode


class Answer(Struct, frozen=True, gc=False):
    """One assessed business: everything that its answer is rendered from.

    id: None where nothing was recorded.  effective: the JSON of what a person decided, None where nobody did.
    """

    id: bytes | None
    business_id: bytes
    assessed: Assessed
    gathered: Gathered
    effective: bytes | None = None

    def render(self, full: bool) -> bytes:
        """The answer as JSON. full: with every characteristic, else the top reasons."""
        found = self.gathered
        return self.assessed.render(
            self.id, self.business_id, full, found.screening, found.evidence_rows, found.degraded, self.effective
        )


class Recorded:
    """A row with the answers that were already rendered from it."""

    __slots__ = ("full", "row", "top")

    def __init__(self, row: Row, top: bytes | None = None, full: bytes | None = None) -> None:
        self.row = row
        self.top = top
        self.full = full

    @staticmethod
    def encoded(recorded: Recorded) -> bytes:
        """Its row as bytes."""
        return _encode_row(recorded.row)

    @staticmethod
    def decoded(data: bytes) -> Recorded:
        """Raises msgspec.MsgspecError."""
        return Recorded(_decode_row(data))

    @staticmethod
    def size_bytes(recorded: Recorded) -> int:
        """About what it takes in memory with an answer of the usual size, whether that is rendered yet or not."""
        row = recorded.row
        return len(row.input or b"") + len(row.record) + 4096


class Records:
    """Reads recorded assessments, from the cache where they are there.

    timeout_s: how long the database is waited for.
    """

    def __init__(
        self, registry: Registry, store: Store, lists: Lists, cache: Cache[Recorded], timeout_s: float
    ) -> None:
        self._registry = registry
        self._store = store
        self._lists = lists
        self._cache = cache
        self._deadline = Deadline(timeout_s)
        self._against: dict[bytes, bytes] = {}
        self._flights: SingleFlight[bytes, bytes] = SingleFlight()

    async def find(self, tenant_id: str, id: bytes) -> Recorded | None:
        """The tenant's assessment. Raises StoreUnavailable where the cache does not have it."""
        found = self._cache.peek(tenant_id, id)
        if found is not MISSING:
            return found

        async def load() -> Recorded | None:
            row = await self._bounded(self._store.get(tenant_id, id))
            return None if row is None else Recorded(row)

        # Redis may have been waited for before the database: together no longer than for the database alone.
        return await self._bounded(self._cache.get(tenant_id, id, load))

    def keep(self, recorded: Recorded) -> None:
        """Have it at hand for the reads that follow."""
        self._cache.keep(recorded.row.tenant_id, recorded.row.id, recorded)

    def know(self, digest: bytes, rows: bytes) -> None:
        """Have at hand what assessments are screened against; `Gathered.against` and its rows."""
        if digest not in self._against:
            if len(self._against) >= MOST_AGAINST:
                self._against.clear()
            self._against[digest] = rows

    async def forget(self, tenant_id: str, id: bytes) -> bool:
        """Have every process read it anew, once its row has changed; False where Redis could not be told."""
        return await self._cache.invalidate(tenant_id, (id,))

    async def each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """The tenant's assessments from the database, in order."""
        return await self._bounded(self._store.get_each(tenant_id, ids))

    async def page(self, tenant_id: str, **filters: Any) -> list[Row]:
        """As `Store.page`."""
        return await self._bounded(self._store.page(tenant_id, **filters))

    async def rendered(self, recorded: Recorded, full: bool) -> bytes:
        """The answer's JSON, with what is in force. Raises Conflict for a record that this service cannot read."""
        body = recorded.full if full else recorded.top
        if body is None:
            body = (await self.restored(recorded.row)).render(full)
            if full:
                recorded.full = body
            else:
                recorded.top = body
        return body

    async def restored(self, row: Row, *, as_recorded: bool = False) -> Answer:
        """The answer that a row records, with what a person decided since, or as it was first given (`as_recorded`).

        Raises Conflict for a row that this service cannot read.
        """
        scorer, record = await self._opened(row)
        gathered = await self._gathered(record)
        effective = None if as_recorded else _effective(row)
        return Answer(row.id, _encode_json(row.business_id), _restored(scorer, record), gathered, effective)

    async def replay(self, row: Row) -> wire.Replay:
        """Score the stored input and evidence again under the stored model, as of the stored day, and compare."""
        if row.input is None:
            raise Conflict("The input of this assessment was erased, so it cannot be scored again.")
        scorer, record = await self._opened(row)
        recorded = _restored(scorer, record)
        try:
            profile = _decode_profile(row.input)
            again = scorer.assess(profile, record.findings, recorded.as_of)
        except (msgspec.MsgspecError, ProfileInvalid) as error:
            raise Conflict(
                f"The stored input is no longer a valid profile, so it cannot be scored again: {error}"
            ) from None
        if again.record() == record.result:
            return wire.Replay(identical=True)
        gathered = await self._gathered(record)
        told = (record.screening, gathered.evidence_rows, record.degraded)
        before = msgspec.json.decode(recorded.render(row.id, _encode_json(row.business_id), True, *told))
        after = msgspec.json.decode(again.render(row.id, _encode_json(profile.business.id), True, *told))
        return wire.Replay(identical=False, differences=list(differences(before, after)))

    async def _opened(self, row: Row) -> tuple[Scorer, Record]:
        try:
            scorer = await self._registry.scorer(row.model_sha256, self._store)
        except (ModelUnknown, ModelRefused) as error:
            raise Conflict(f"The model of this assessment cannot be loaded: {error}") from None
        return scorer, _decoded(row)

    async def _gathered(self, record: Record) -> Gathered:
        """What was found out then. Raises Conflict where the store has lost what it was screened against."""
        if not record.against:
            return Gathered(record.findings, record.screening, record.evidence[1:-1], record.degraded)
        rows = self._against.get(record.against)
        if rows is None:
            # Once, however many ask: after a start, or a change of a list, everybody does.
            rows = await self._flights.run(record.against, partial(self._load_against, record.against))
        return Gathered(record.findings, record.screening, record.evidence, record.degraded, record.against, rows)

    async def _load_against(self, digest: bytes) -> bytes:
        rows = await self._bounded(self._lists.screened_against(digest))
        if rows is None:
            raise Conflict("Which watchlists this assessment was screened against is no longer on record.")
        self.know(digest, rows)
        return rows

    async def _bounded(self, read: Awaitable[Found]) -> Found:
        try:
            return await self._deadline.run(read)
        except DeadlineExceeded as late:
            raise StoreUnavailable(f"the database did not answer within {late.timeout_s:g} s") from None


def differences(before: Any, after: Any, pointer: str = "") -> list[wire.Difference]:
    """Where two answers differ, leaf by leaf; reasons are compared by characteristic, not by rank."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        pairs = [(f"{pointer}/{name}", before.get(name), after.get(name)) for name in names]
    elif isinstance(before, list) and isinstance(after, list) and all(_named(x) for x in (*before, *after)):
        return differences({_named(x): x for x in before}, {_named(x): x for x in after}, pointer)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(f"{pointer}/{i}", b, a) for i, (b, a) in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [wire.Difference(pointer, before, after)]
    return [difference for at, b, a in pairs for difference in differences(b, a, at)]


def _named(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    return str(item.get("characteristic") or item.get("code") or item.get("name") or item.get("model") or "")


def _effective(row: Row) -> bytes | None:
    """The JSON of the override in force, if there is one."""
    if row.override_id is None:
        return None
    return _encode_json(wire.Effective(wire.LEVELS[row.level], wire.DECISIONS[row.decision], text(row.override_id)))


def screening_of(row: Row) -> bytes:
    """The JSON of the screening that a row records. Raises Conflict for a row that cannot be read."""
    return _decoded(row).screening


def _decoded(row: Row) -> Record:
    try:
        return _decode_record(row.record)
    except msgspec.MsgspecError as error:
        raise _unreadable(error) from None


def _restored(scorer: Scorer, record: Record) -> Assessed:
    try:
        return scorer.restore(record.result)
    except RecordDamaged as damaged:
        raise _unreadable(damaged) from None


def _unreadable(error: Exception) -> Conflict:
    return Conflict(f"The record of this assessment cannot be read by this version of the service: {error}")
