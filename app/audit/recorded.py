"""Whether assessments are still as they were when the trail entered them: their Merkle roots, computed again."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec
from msgspec import Struct

from app import ids
from app.audit.balance import ATTEMPTS, IDS_A_CALL, split
from app.audit.report import Assessments, Faults
from app.store.base import Row
from app.store.chain import AuditEntry, erased_hash, leaf, merkle_root
from app.store.holdings import Holdings
from app.store.keeping import ERASED
from app.store.trail import RECORDED


class _Detail(Struct, frozen=True):
    """Of an entry of recorded assessments. root: hexadecimal."""

    actors: list[tuple[str, int]]
    root: str


class _Rows(Struct, frozen=True):
    """Of an entry of erased assessments: what is left of each, hexadecimal."""

    rows: list[str]


_decode = msgspec.json.Decoder(_Detail).decode
_decode_rows = msgspec.json.Decoder(_Rows).decode


class _Group(Struct, frozen=True):
    """The assessments of one entry."""

    entry: AuditEntry
    ids: list[bytes]
    root: bytes


class RecordedCheck:
    """Looks at the assessments of a tenant's entries, a few hundred at a time. What is kept is one place for each that
    was erased. see_row: told of each assessment that is there."""

    __slots__ = (
        "_erased",
        "_faults",
        "_groups",
        "_holdings",
        "_see_row",
        "_seen_erased",
        "_tenant_id",
        "_waiting",
        "counts",
    )

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str, see_row: Callable[[Row], None]) -> None:
        self.counts = Assessments()
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._see_row = see_row
        self._groups: list[_Group] = []
        self._waiting = 0
        # What is left of those that were erased: by the acts, and those that look it.
        self._erased: dict[bytes, bytes] = {}
        self._seen_erased: set[bytes] = set()

    @property
    def erased(self) -> Collection[bytes]:
        """The assessments whose erasure the entries told of."""
        return self._erased.keys()

    async def see(self, entry: AuditEntry) -> None:
        """Have an entry's assessments looked at. Raises ValueError where it does not say what its act says."""
        if entry.act == ERASED:
            found, left = split(entry.subjects), _decode_rows(entry.detail).rows
            for id, told in zip(found, left, strict=True):
                self._erased[id] = bytes.fromhex(told)
        if entry.act != RECORDED:
            return
        group = _group(entry)
        self._groups.append(group)
        self._waiting += len(group.ids)
        if self._waiting >= IDS_A_CALL:
            await self.look()

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> None:
        """Look at what waits, and at what was erased. read_on: has what was entered meanwhile seen."""
        await self.look()
        wrong: Collection[bytes] = self._seen_erased
        for attempt in range(ATTEMPTS):
            if attempt:
                await read_on()
                await self.look()
            wrong = await self._erased_otherwise({*self._seen_erased, *self._erased})
            if not wrong:
                return
        self.counts.altered += len(wrong)
        for id in sorted(wrong):
            why = (
                "is not what was left when it was erased"
                if id in self._erased
                else "looks erased, and no entry tells that it was"
            )
            self._faults.add("assessment.altered", self._tenant_id, f"the assessment {ids.text(id)} {why}")

    async def _erased_otherwise(self, wanted: Collection[bytes]) -> set[bytes]:
        """Those of the assessments that are not as an erasure left them, and are there."""
        wrong = set()
        order = sorted(wanted)
        for start in range(0, len(order), IDS_A_CALL):
            for row in await self._holdings.get_each(self._tenant_id, order[start : start + IDS_A_CALL]):
                if row is not None and (row.business_id is not None or _left(row) != self._erased.get(row.id)):
                    wrong.add(row.id)
        return wrong

    async def look(self) -> None:
        """Look at the assessments of the entries that wait."""
        groups, self._groups, self._waiting = self._groups, [], 0
        wanted = [id for group in groups for id in group.ids]
        leaves: list[bytes | None] = []
        erased: list[bool] = []
        for start in range(0, len(wanted), IDS_A_CALL):
            for row in await self._holdings.get_each(self._tenant_id, wanted[start : start + IDS_A_CALL]):
                if row is not None:
                    self._see_row(row)
                    if row.input is None:
                        self._seen_erased.add(row.id)
                leaves.append(None if row is None else _leaf(row))
                erased.append(row is not None and row.input is None)
        start = 0
        for group in groups:
            end = start + len(group.ids)
            self._compare(group, leaves[start:end], sum(erased[start:end]))
            start = end

    def _compare(self, group: _Group, leaves: Sequence[bytes | None], erased: int) -> None:
        there = [one for one in leaves if one is not None]
        if len(there) < len(leaves):
            self.counts.missing += len(leaves) - len(there)
            self.counts.unproven += len(there)
        elif merkle_root(there) == group.root:
            self.counts.proven += len(there)
            self.counts.erased += erased
        else:
            self.counts.altered += len(there)
            entry = group.entry
            self._faults.add(
                "assessment.altered", self._tenant_id, _told(group), segment=entry.segment, entry=entry.number
            )


def _group(entry: AuditEntry) -> _Group:
    """Raises ValueError where the entry does not say what its act says."""
    detail = _decode(entry.detail)
    found = split(entry.subjects)
    told = sum(count for _, count in detail.actors)
    if not found or told != len(found):
        raise ValueError(f"it names {len(found)} assessments and counts {told}")
    return _Group(entry, found, bytes.fromhex(detail.root))


def _leaf(row: Row) -> bytes:
    """The leaf of a row. One that was kept counts only where what it was made of was erased."""
    if row.input is not None and row.leaf is not None:
        row = msgspec.structs.replace(row, leaf=None)
    try:
        return leaf(row)
    except struct.error:
        # A number that no assessment has.
        return b""


def _left(row: Row) -> bytes:
    """What is left of an erased row."""
    try:
        return erased_hash(row)
    except struct.error:
        return b""


def _told(group: _Group) -> str:
    first = ids.text(group.ids[0])
    if len(group.ids) == 1:
        return f"the assessment {first} is not as it was recorded"
    return (
        f"of the {len(group.ids)} assessments from {first} to {ids.text(group.ids[-1])}, recorded together, "
        "at least one is not as it was recorded"
    )
