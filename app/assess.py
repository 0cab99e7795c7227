"""The pipeline: evidence, features and score, record. The only place that knows all steps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from hashlib import sha256
from time import perf_counter, time
from typing import Any

import msgspec
from msgspec import Struct

from app import wire
from app.errors import Conflict, ProfileRefused, Refusal
from app.evidence.base import Findings, Gathered, Source
from app.ids import Uuid7
from app.profiles import read_item
from app.registry import ModelUnknown, Registry
from app.resilience.deadline import Deadline
from app.store.base import Added, Row, Store
from core import ENGINE_VERSION
from core.model import ModelRefused
from core.scorer import Assessed, RecordDamaged, Scorer
from core.validity import ProfileInvalid

DAY_S = 86_400
EPOCH_ORDINAL = dt.date(1970, 1, 1).toordinal()

SLICE_S = 0.002
"""How long a batch may hold the event loop before it lets other requests through."""
MAX_SLICE = 64


class Record(Struct, frozen=True, array_like=True, gc=False):
    """What is kept of a result beside its input. engine: core.ENGINE_VERSION then.  result: core's compact record."""

    engine: int
    result: bytes
    findings: Findings
    screening: bytes
    evidence: bytes
    degraded: bool


_encode_record = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(Record).decode
_encode_json = msgspec.json.Encoder().encode
_decode_profile = msgspec.json.Decoder(wire.Profile).decode


class Answer(Struct, frozen=True, gc=False):
    """One assessed business: everything that its answer is rendered from. id: None where nothing was recorded.

    replayed: an earlier answer under the same Idempotency-Key.
    """

    id: bytes | None
    business_id: bytes
    assessed: Assessed
    gathered: Gathered
    replayed: bool = False

    def render(self, full: bool) -> bytes:
        """The answer as JSON. full: with every characteristic, else the top reasons."""
        found = self.gathered
        return self.assessed.render(self.id, self.business_id, full, found.screening, found.evidence, found.degraded)


class Assessor:
    """Assesses profiles and reads assessments back.

    today: the proleptic ordinal of the day (UTC) that ages are counted to.
    commit_timeout_s: how long a commit is waited for.  item_limit_bytes: the most that one item of a batch may hold.
    """

    def __init__(
        self,
        registry: Registry,
        source: Source,
        store: Store,
        ids: Uuid7,
        *,
        commit_timeout_s: float,
        item_limit_bytes: int,
        today: Callable[[], int] | None = None,
    ) -> None:
        self.registry = registry
        self.source = source
        self.store = store
        self.ids = ids
        self._commit = Deadline(commit_timeout_s)
        self._item_limit_bytes = item_limit_bytes
        self._today = today or _today

    async def assess(
        self, tenant_id: str, profile: wire.Profile, body: bytes, *, dry_run: bool, key: str | None
    ) -> Answer:
        """Assess one profile and record it, unless it is a dry run. body: the profile as sent.

        Raises ProfileRefused, KeyReused, and what the store raises.
        """
        gathered = await self.source.gather(profile)
        try:
            assessed = self.registry.active.assess(profile, gathered.findings, self._today())
        except ProfileInvalid as invalid:
            raise _refused(invalid) from None
        if dry_run:
            return Answer(None, _encode_json(profile.business.id), assessed, gathered)
        row = self._row(tenant_id, profile, body, assessed, gathered, key)
        added = await self._commit.run(self.store.add(row))
        if added.existing is not None:
            return await self.restored(added.existing, replayed=True)
        return Answer(row.id, _encode_json(profile.business.id), assessed, gathered)

    async def assess_batch(self, tenant_id: str, items: Sequence[bytes], *, dry_run: bool) -> list[Answer | Exception]:
        """The answer or refusal of each item, once all are recorded; one that fails, fails alone.

        Other requests get their turn between two slices.
        """
        outcomes: list[Answer | Exception] = []
        rows: list[Row] = []
        place = 0
        while place < len(items):
            outcome, recorded, place = await self._assess_slice(tenant_id, items, place, dry_run)
            outcomes.extend(outcome)
            rows.extend(recorded)
            await asyncio.sleep(0)
        if rows:
            added = iter(await self._commit.run(self.store.add_many(rows)))
            outcomes = [_settled(o, added) if isinstance(o, Answer) else o for o in outcomes]
        return outcomes

    async def _assess_slice(
        self, tenant_id: str, items: Sequence[bytes], place: int, dry_run: bool
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
        found = [await self.source.gather(profile) for profile in profiles]
        scored = self.registry.active.assess_many(profiles, [g.findings for g in found], self._today())
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
                rows.append(self._row(tenant_id, profile, items[index], assessed, gathered, None))
                row_id = rows[-1].id
            outcomes.append(Answer(row_id, _encode_json(profile.business.id), assessed, gathered))
        return outcomes, rows, place

    def _row(
        self,
        tenant_id: str,
        profile: wire.Profile,
        body: bytes,
        assessed: Assessed,
        gathered: Gathered,
        key: str | None,
    ) -> Row:
        record = Record(
            ENGINE_VERSION,
            assessed.record(),
            gathered.findings,
            gathered.screening,
            gathered.evidence,
            gathered.degraded,
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
            key,
            None if key is None else sha256(body).digest(),
        )

    async def restored(self, row: Row, *, replayed: bool = False) -> Answer:
        """The answer that a row records. Raises Conflict for a row that this service cannot read."""
        scorer, record = await self._opened(row)
        gathered = Gathered(record.findings, record.screening, record.evidence, record.degraded)
        return Answer(row.id, _encode_json(row.business_id), _restore(scorer, record), gathered, replayed)

    async def replay(self, row: Row) -> wire.Replay:
        """Score the stored input and evidence again under the stored model, as of the stored day, and compare."""
        scorer, record = await self._opened(row)
        recorded = _restore(scorer, record)
        try:
            profile = _decode_profile(row.input)
            again = scorer.assess(profile, record.findings, recorded.as_of)
        except (msgspec.MsgspecError, ProfileInvalid) as error:
            raise Conflict(
                f"The stored input is no longer a valid profile, so it cannot be scored again: {error}"
            ) from None
        if again.record() == record.result:
            return wire.Replay(identical=True)
        told = (record.screening, record.evidence, record.degraded)
        before = msgspec.json.decode(recorded.render(row.id, _encode_json(row.business_id), True, *told))
        after = msgspec.json.decode(again.render(row.id, _encode_json(profile.business.id), True, *told))
        return wire.Replay(identical=False, differences=list(differences(before, after)))

    async def _opened(self, row: Row) -> tuple[Scorer, Record]:
        try:
            scorer = await self.registry.scorer(row.model_sha256, self.store)
        except (ModelUnknown, ModelRefused) as error:
            raise Conflict(f"The model of this assessment cannot be loaded: {error}") from None
        try:
            return scorer, _decode_record(row.record)
        except msgspec.MsgspecError as error:
            raise Conflict(
                f"The record of this assessment cannot be read by this version of the service: {error}"
            ) from None


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


def _today() -> int:
    """The proleptic ordinal of today (UTC)."""
    return int(time()) // DAY_S + EPOCH_ORDINAL


def _restore(scorer: Scorer, record: Record) -> Assessed:
    try:
        return scorer.restore(record.result)
    except RecordDamaged as damaged:
        raise Conflict(
            f"The record of this assessment cannot be read by this version of the service: {damaged}"
        ) from None


def _settled(answer: Answer, added: Any) -> Answer | Exception:
    outcome: Added | BaseException = next(added)
    if isinstance(outcome, Exception):
        return outcome
    return answer


def _refused(invalid: ProfileInvalid, at: str = "") -> ProfileRefused:
    return ProfileRefused([wire.Fault(at + pointer, detail) for pointer, detail in invalid.faults])
