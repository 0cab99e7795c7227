"""The entries of one tenant's trail, read again segment by segment: their hashes, their links, and what signed
checkpoints say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from app.audit.held import HoldingsCheck
from app.audit.report import Faults, Kind
from app.store.chain import GENESIS, AuditEntry, entry_hash
from app.store.trail import Trail

ENTRIES_A_PAGE = 200
BELOW_ALL = -(2**63)
"""Below any number that a database holds, those that nobody should have written included."""


class Proof(Struct, frozen=True):
    """What a checkpoint says of an entry."""

    hash: bytes
    checkpoint: int


class Place(Struct):
    """How far a segment was read.

    number: of the last entry.  after: where reading goes on.  hashes: any of which the next may be linked to, none
    where that is not known.  covered: by the checkpoints read.  proven: the last entry that is as a checkpoint says,
    and which one.  missing_by: the checkpoint that covers entries beyond the end of the segment.
    """

    number: int = 0
    after: int = BELOW_ALL
    hashes: tuple[bytes, ...] = (GENESIS,)
    covered: int = 0
    proven: tuple[int, int] | None = None
    is_restamped: bool = False
    missing_by: int | None = None


class EntryCheck:
    """Reads each segment once, in as many steps as it takes. `places` by segment; `entries` counts what was read.

    holdings: compares what the entries tell with what is on record, None for not.
    """

    def __init__(self, trail: Trail, faults: Faults, tenant_id: str, holdings: HoldingsCheck | None) -> None:
        self._trail = trail
        self._faults = faults
        self._tenant_id = tenant_id
        self._holdings = holdings
        self.places: dict[bytes, Place] = {}
        self.entries = 0

    def place(self, segment: bytes) -> Place:
        return self.places.setdefault(segment, Place())

    async def read(self, segment: bytes, proofs: Mapping[int, Proof]) -> None:
        """Read a segment on to the last entry that checkpoints tell of. proofs: by number of the entry."""
        place, until = self.place(segment), max(proofs)
        await self._read(segment, place, proofs, until)
        if place.number < until and place.missing_by is None:
            place.missing_by = proofs[until].checkpoint

    async def finish(self, segment: bytes) -> None:
        """Read a segment on to its end."""
        await self._read(segment, self.place(segment), {}, None)

    async def again(self, see: Callable[[AuditEntry], None]) -> None:
        """Have all entries seen once more, and nothing said of them."""
        for segment in await self._trail.segments(self._tenant_id):
            after = BELOW_ALL
            while page := await self._trail.segment(self._tenant_id, segment, after=after, limit=ENTRIES_A_PAGE):
                for entry in page:
                    see(entry)
                after = page[-1].number

    def tell_missing(self) -> None:
        """Name the entries that checkpoints cover and that are missing at the ends of their segments."""
        for segment, place in self.places.items():
            if place.missing_by is None or place.number >= place.covered:
                continue
            first = place.number + 1
            kind: Kind = "segment.deleted" if first == 1 else "trail.truncated"
            detail = f"{_missing(first, place.covered)} at its end, and checkpoint {place.missing_by} covers them"
            self._faults.add(kind, self._tenant_id, detail, segment=segment, entry=first)

    async def _read(self, segment: bytes, place: Place, proofs: Mapping[int, Proof], until: int | None) -> None:
        while until is None or place.number < until:
            page = await self._trail.segment(self._tenant_id, segment, after=place.after, limit=ENTRIES_A_PAGE)
            if not page:
                return
            for entry in page:
                if entry.number > place.number + 1:
                    self._tell_gap(place, entry)
                if until is not None and entry.number > until:
                    return
                is_whole = self._check(place, entry)
                if entry.number in proofs:
                    self._compare(place, entry, proofs[entry.number])
                if is_whole and self._holdings is not None:
                    await self._holdings.add(entry)

    def _check(self, place: Place, entry: AuditEntry) -> bool:
        """Whether the next entry of a segment is what it should be, as far as it tells itself."""
        true = entry_hash(
            self._tenant_id,
            entry.segment,
            entry.number,
            entry.at_ms,
            entry.act,
            entry.actor,
            entry.detail,
            entry.subjects,
            entry.previous,
        )
        is_whole = False
        if entry.number != place.number + 1:
            self._fault("entry.edited", entry, "entries count from 1")
        elif true != entry.hash:
            self._fault("entry.edited", entry, "it does not hash to its own hash")
        elif place.hashes and entry.previous not in place.hashes:
            self._fault("entry.unlinked", entry, "the entry before it is not the one that it names")
        else:
            is_whole = True
        place.number, place.after = max(entry.number, 0), entry.number
        # Where one of its hashes was edited, the next is linked to the other.
        place.hashes = (entry.hash, true)
        self.entries += 1
        return is_whole

    def _compare(self, place: Place, entry: AuditEntry, proof: Proof) -> None:
        if proof.hash in place.hashes:
            place.proven = (entry.number, proof.checkpoint)
        elif not place.is_restamped:
            # What follows is linked to it, so it would only be said again.
            place.is_restamped = True
            since = "from the beginning of the segment"
            if place.proven is not None:
                since = f"after entry {place.proven[0]}, which is as checkpoint {place.proven[1]} says,"
            detail = f"it is not the entry that checkpoint {proof.checkpoint} says: {since} something was written anew"
            self._fault("entry.restamped", entry, detail)

    def _tell_gap(self, place: Place, entry: AuditEntry) -> None:
        """Name the entries missing before this one, and go on as if they had been read."""
        first, last = place.number + 1, entry.number - 1
        detail = f"{_missing(first, last)}, and entry {entry.number} is there"
        self._faults.add("entry.deleted", self._tenant_id, detail, segment=entry.segment, entry=first)
        place.number = place.after = last
        place.hashes = ()

    def _fault(self, kind: Kind, entry: AuditEntry, detail: str) -> None:
        self._faults.add(kind, self._tenant_id, detail, segment=entry.segment, entry=entry.number)


def _missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"the entries {first} to {last} are missing"
