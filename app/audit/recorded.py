"""Whether assessments are still as they were when the trail entered them: their Merkle roots, computed again."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct

from app import ids
from app.audit.overridden import IDS_A_CALL, OverrideCheck, Rows
from app.audit.report import Assessments, Faults, Kind
from app.store.base import Row
from app.store.chain import AuditEntry, leaf, merkle_root
from app.store.trail import RECORDED

ID_BYTES = 16


class _Detail(Struct, frozen=True):
    """Of an entry of recorded assessments. root: hexadecimal."""

    actors: list[tuple[str, int]]
    root: str


_decode = msgspec.json.Decoder(_Detail).decode


class _Group(Struct, frozen=True):
    """The assessments of one entry."""

    entry: AuditEntry
    ids: list[bytes]
    root: bytes


class RecordedCheck:
    """Looks at the assessments of a tenant's entries, a few hundred at a time."""

    __slots__ = ("_faults", "_groups", "_overrides", "_rows", "_waiting", "counts")

    def __init__(self, rows: Rows, faults: Faults, tenant_id: str) -> None:
        self.counts = Assessments()
        self._rows = rows
        self._overrides = OverrideCheck(rows, faults, tenant_id)
        self._faults = faults
        self._groups: list[_Group] = []
        self._waiting = 0

    async def add(self, entry: AuditEntry) -> None:
        """Have an entry's assessments looked at; entries of acts that change none are passed over."""
        try:
            self._overrides.see_entry(entry)
            if entry.act != RECORDED:
                return
            group = _group(entry)
        except ValueError as error:
            self._fault("entry.unreadable", entry, f"its assessments cannot be told: {error}")
            return
        self._groups.append(group)
        self._waiting += len(group.ids)
        if self._waiting >= IDS_A_CALL:
            await self._look()

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> None:
        """Look at what waits, and at what people decided since. read_on: reads what was entered meanwhile."""
        await self._look()
        self.counts.altered += await self._overrides.finish(read_on)
        await self._look()

    async def _look(self) -> None:
        groups, self._groups, self._waiting = self._groups, [], 0
        if not groups:
            return
        tenant_id = groups[0].entry.tenant_id
        wanted = [id for group in groups for id in group.ids]
        leaves: list[bytes | None] = []
        erased: list[bool] = []
        for start in range(0, len(wanted), IDS_A_CALL):
            for row in await self._rows(tenant_id, wanted[start : start + IDS_A_CALL]):
                if row is not None:
                    self._overrides.see_row(row)
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
            self._fault("assessment.altered", group.entry, _told(group))

    def _fault(self, kind: Kind, entry: AuditEntry, detail: str) -> None:
        self._faults.add(kind, entry.tenant_id, detail, segment=entry.segment, entry=entry.number)


def _group(entry: AuditEntry) -> _Group:
    """Raises ValueError where the entry does not say what its act says."""
    detail = _decode(entry.detail)
    found = [entry.subjects[start : start + ID_BYTES] for start in range(0, len(entry.subjects), ID_BYTES)]
    told = sum(count for _, count in detail.actors)
    if not found or len(found[-1]) != ID_BYTES or told != len(found):
        raise ValueError(f"it names {len(entry.subjects) / ID_BYTES:g} and counts {told}")
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


def _told(group: _Group) -> str:
    first = ids.text(group.ids[0])
    if len(group.ids) == 1:
        return f"the assessment {first} is not as it was recorded"
    return (
        f"of the {len(group.ids)} assessments from {first} to {ids.text(group.ids[-1])}, recorded together, "
        "at least one is not as it was recorded"
    )
