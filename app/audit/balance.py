"""Whether just those assessments are on record that the trail tells of: those recorded, without those dropped.

# Design: ids are summed up by the ten minutes that they were made in, hashed under a key that is drawn for each
# verification: nobody can choose ids whose sum is that of others. So memory grows with the time that the trail spans
# and not with the assessments, and entries come in any order. Ids are looked at one by one only of ten minutes whose
# sums differ: of this moment, to which others add, and of what is at fault.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b

from msgspec import Struct

from app import ids
from app.audit.report import Faults
from app.store.chain import AuditEntry
from app.store.holdings import Holdings
from app.store.keeping import GONE
from app.store.trail import RECORDED

ID_BYTES = 16
SPAN_MS = 600_000
IDS_A_PAGE = 5_000
IDS_A_CALL = 256
SPANS_AT_ONCE = 16
NAMED_SPANS = 100
"""Of so many spans at fault each assessment is named; of the others the time."""
ATTEMPTS = 3

See = Callable[[AuditEntry], None]
_END_MS = 1 << 48


class _Told(Struct):
    """What entries tell of the ids of some spans."""

    recorded: set[bytes]
    gone: set[bytes]
    twice: set[bytes]

    def see(self, entry: AuditEntry, spans: Sequence[int]) -> None:
        for id in split(entry.subjects):
            if _span(id) not in spans:
                continue
            if entry.act == GONE:
                self.gone.add(id)
            elif id in self.recorded:
                self.twice.add(id)
            else:
                self.recorded.add(id)


class Balance:
    """Of one tenant's assessments. Entries are seen first, each once; then `finish` looks at what is on record."""

    __slots__ = ("_faults", "_holdings", "_key", "_late", "_spans", "_tenant_id", "_there", "_told")

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str) -> None:
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._key = secrets.token_bytes(32)
        self._told: dict[int, int] = {}
        self._there: dict[int, int] = {}
        # What was entered since the ids of these spans were looked at.
        self._spans: Sequence[int] = ()
        self._late = _Told(set(), set(), set())

    def see(self, entry: AuditEntry) -> None:
        """Take note of the assessments that the entry tells were recorded or dropped. Raises ValueError."""
        if entry.act not in (RECORDED, GONE):
            return
        _sum(self._told, self._key, split(entry.subjects), -1 if entry.act == GONE else 1)
        if self._spans:
            self._late.see(entry, self._spans)

    async def finish(
        self, read_on: Callable[[], Awaitable[None]], read_again: Callable[[See], Awaitable[None]]
    ) -> tuple[int, int]:
        """Compare them: how many are there that no entry tells of, and how many are not there.

        read_on: has what was entered meanwhile seen.  read_again: has all entries seen by something else.
        """
        async for page in self._pages(bytes(ID_BYTES), b"\xff" * ID_BYTES):
            _sum(self._there, self._key, page, 1)
        uneven = sorted(
            span for span in {*self._told, *self._there} if self._told.get(span, 0) != self._there.get(span, 0)
        )
        for _ in range(ATTEMPTS):
            uneven = [
                span
                for start in range(0, len(uneven), SPANS_AT_ONCE)
                for span in await self._still_uneven(uneven[start : start + SPANS_AT_ONCE], read_on)
            ]
        for span in uneven[NAMED_SPANS:]:
            since, until = ids.instant(span * SPAN_MS), ids.instant((span + 1) * SPAN_MS)
            detail = f"of the assessments made from {since} to {until} others are there than the trail tells of"
            self._faults.add("assessment.untold", self._tenant_id, detail)
        return await self._name(uneven[:NAMED_SPANS], read_on, read_again) if uneven else (0, 0)

    async def _still_uneven(self, spans: Sequence[int], read_on: Callable[[], Awaitable[None]]) -> list[int]:
        """Those of the spans whose sums differ also where what is there is read first, and what was entered since is
        told apart."""
        there = await self._look(spans)
        await read_on()
        late, self._spans = self._late, ()
        uneven = []
        for span in spans:
            known: dict[int, int] = {}
            _sum(known, self._key, (there[span] | {id for id in late.recorded if _span(id) == span}) - late.gone, 1)
            if known.get(span, 0) != self._told.get(span, 0):
                uneven.append(span)
        return uneven

    async def _look(self, spans: Sequence[int]) -> dict[int, set[bytes]]:
        """The ids of the spans that are on record. From now on it is kept what is entered of them."""
        self._spans, self._late = spans, _Told(set(), set(), set())
        there: dict[int, set[bytes]] = {}
        for span in spans:
            first, last = _edge(span), _before(_edge(span + 1))
            there[span] = {id async for page in self._pages(first, last) for id in page}
        return there

    async def _name(
        self,
        spans: Sequence[int],
        read_on: Callable[[], Awaitable[None]],
        read_again: Callable[[See], Awaitable[None]],
    ) -> tuple[int, int]:
        """Name what is wrong in these spans."""
        there = {id for found in (await self._look(spans)).values() for id in found}
        told = _Told(set(), set(), set())

        def see(entry: AuditEntry) -> None:
            if entry.act in (RECORDED, GONE) and len(entry.subjects) % ID_BYTES == 0:
                told.see(entry, spans)

        await read_again(see)
        kept = told.recorded - told.gone
        # What was recorded or dropped after it was looked at is told by a second look.
        untold = await self._of_these(there - kept, on_record=True)
        missing = await self._of_these(kept - there, on_record=False)
        await read_on()
        missing = [id for id in missing if id not in self._late.gone]
        untold = [id for id in untold if id not in self._late.recorded]
        self._spans = ()
        if self._tenant_id in self._faults.damaged:
            self._sum_up(untold, missing)
            return len(untold), len(missing)
        for id in untold:
            was = (
                "was dropped, says the trail, and is there" if id in told.gone else "is there, and no entry tells of it"
            )
            self._faults.add("assessment.untold", self._tenant_id, f"the assessment {ids.text(id)} {was}")
        for id in missing:
            detail = f"the assessment {ids.text(id)} is not there, and no entry tells that it was dropped"
            self._faults.add("assessment.missing", self._tenant_id, detail)
        for id in sorted(told.twice):
            detail = f"more than one entry tells that the assessment {ids.text(id)} was recorded"
            self._faults.add("assessment.untold", self._tenant_id, detail)
        return len(untold), len(missing)

    def _sum_up(self, untold: Sequence[bytes], missing: Sequence[bytes]) -> None:
        """Where entries are missing, much of this follows from that."""
        if untold:
            detail = f"{_counted(untold)} on record, and no entry that is left tells of it; the first is"
            self._faults.add("assessment.untold", self._tenant_id, f"{detail} {ids.text(untold[0])}")
        if missing:
            detail = f"{_counted(missing)} not there, and no entry that is left tells why; the first is"
            self._faults.add("assessment.missing", self._tenant_id, f"{detail} {ids.text(missing[0])}")

    async def _of_these(self, wanted: set[bytes], *, on_record: bool) -> list[bytes]:
        """Those that are on record, or are not, as asked for; in order."""
        found: list[bytes] = []
        order = sorted(wanted)
        for start in range(0, len(order), IDS_A_CALL):
            some = order[start : start + IDS_A_CALL]
            rows = await self._holdings.get_each(self._tenant_id, some)
            found += [id for id, row in zip(some, rows, strict=True) if (row is not None) == on_record]
        return found

    async def _pages(self, first: bytes, last: bytes) -> AsyncIterator[list[bytes]]:
        while first <= last:
            page = await self._holdings.assessment_ids(self._tenant_id, first=first, last=last, limit=IDS_A_PAGE)
            if page:
                yield page
            if len(page) < IDS_A_PAGE or page[-1] == last:
                return
            first = (int.from_bytes(page[-1], "big") + 1).to_bytes(ID_BYTES, "big")


def split(packed: bytes) -> list[bytes]:
    """The ids that an entry's subjects are made of. Raises ValueError where they are none."""
    if len(packed) % ID_BYTES:
        raise ValueError(f"its subjects have {len(packed)} bytes, and an id has {ID_BYTES}")
    return [packed[start : start + ID_BYTES] for start in range(0, len(packed), ID_BYTES)]


def _counted(found: Sequence[bytes]) -> str:
    return "1 assessment is" if len(found) == 1 else f"{len(found)} assessments are"


def _sum(sums: dict[int, int], key: bytes, found: Iterable[bytes], sign: int) -> None:
    for id in found:
        span = _span(id)
        term = int.from_bytes(blake2b(id, key=key, digest_size=16).digest(), "big")
        sums[span] = sums.get(span, 0) + sign * term


def _span(id: bytes) -> int:
    return ids.time_ms(id) // SPAN_MS


def _edge(span: int) -> bytes:
    """The least 16 bytes of a span's ids."""
    return (min(span * SPAN_MS, _END_MS) << 80).to_bytes(ID_BYTES + 1, "big")[-ID_BYTES:]


def _before(id: bytes) -> bytes:
    """The 16 bytes before those; before the least stand the greatest."""
    return ((int.from_bytes(id, "big") - 1) % (1 << 128)).to_bytes(ID_BYTES, "big")
