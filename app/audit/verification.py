"""Whether the audit trail is whole: every hash computed again, every signature, every checkpoint's head in its place.

# Design: checkpoints are read in order, a page at a time, and for each page every segment that it names is read on to
the last of its heads. So each entry is read once, and what is kept is one place for each segment, each key, override
and erased assessment, and each ten minutes of the trail.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

from app.audit.anchors import Anchor
from app.audit.checkpoints import checkpoint_hash, signature
from app.audit.entries import BELOW_ALL, EntryCheck, Proof
from app.audit.held import HoldingsCheck
from app.audit.report import Faults, Kind, Report, TrailReport
from app.store.chain import GENESIS
from app.store.holdings import Holdings
from app.store.trail import SYSTEM_TENANT, Checkpoint, Trail

CHECKPOINTS_A_PAGE = 500
UNREADABLE_IN_A_ROW = 3
LAG_ATTEMPTS = 20
LAG_PAUSE_S = 0.25


async def verify(
    trail: Trail,
    signing_key: bytes,
    holdings: Holdings | None,
    *,
    tenant_id: str | None = None,
    anchors: Sequence[Anchor] = (),
) -> Report:
    """Look at every entry and checkpoint of a tenant, or of all.

    holdings: what is on record, to be compared with what the trail tells, None for not.  anchors: checkpoints that were
    kept outside of the database; without any, a trail whose last ones were cut off with all they cover looks whole.
    Raises StoreUnavailable.
    """
    faults = Faults()
    signatures = _Signatures(signing_key)
    # Before the trails: what is on record by now is told of by then.
    holders = set() if holdings is None else {*await holdings.holders()}
    if holdings is not None and await holdings.lists():
        holders.add(SYSTEM_TENANT)
    if tenant_id is None:
        tenants = sorted({*await trail.trails(), *holders, *(anchor.tenant_id for anchor in anchors)})
    else:
        tenants = [tenant_id]
    anchors = [anchor for anchor in anchors if anchor.tenant_id in tenants]
    trails = []
    for one in tenants:
        kept = [anchor for anchor in anchors if anchor.tenant_id == one]
        check = None if holdings is None else HoldingsCheck(holdings, faults, one)
        verification = _Verification(trail, signatures, check, faults, one, kept)
        trails.append(await verification.run(is_holder=one in holders))
    if signatures.wrong and not signatures.right:
        faults.drop("checkpoint.forged")
        faults.add(
            "key.wrong",
            tenant_id,
            f"none of the {signatures.wrong} checkpoints was signed with this key: it looks like the wrong "
            "AUDIT_SIGNING_KEY. If it is the right one, all of them were forged",
        )
    anchored = bool(anchors) and all(one.anchored or not one.checkpoints for one in trails)
    return Report(not faults.found, anchored, len(anchors), trails, faults.found, faults.more)


class _Signatures:
    """The signing key, and how many checkpoints were signed with it or with another."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.right = 0
        self.wrong = 0

    def signed(self, hashes: Iterable[bytes], mac: bytes) -> bytes | None:
        """Which of the hashes was signed."""
        for hash in hashes:
            if hmac.compare_digest(signature(self._key, hash), mac):
                self.right += 1
                return hash
        self.wrong += 1
        return None


class _Verification:
    """Of one tenant's trail."""

    def __init__(
        self,
        trail: Trail,
        signatures: _Signatures,
        holdings: HoldingsCheck | None,
        faults: Faults,
        tenant_id: str,
        anchors: Iterable[Anchor],
    ) -> None:
        self._trail = trail
        self._signatures = signatures
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._anchors: dict[int, list[bytes]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.number, []).append(anchor.hash)
        self._read = EntryCheck(trail, faults, tenant_id, holdings)
        # Of the checkpoint that was read last:
        self._number = 0
        self._after = BELOW_ALL
        self._hashes: tuple[bytes, ...] = (GENESIS,)
        self._entries = 0
        self._is_sound = True
        self._report = TrailReport(tenant_id, anchored=bool(self._anchors))

    async def run(self, *, is_holder: bool) -> TrailReport:
        """is_holder: something is on record of the tenant."""
        await self._catch_up()
        segments = await self._trail.segments(self._tenant_id)
        if is_holder and not segments and not self._number:
            detail = "something of this tenant is on record, and there is no trail that tells of it"
            self._faults.add("trail.missing", self._tenant_id, detail)
            self._holdings = None
        await self._compare_covered(sorted({*segments, *self._read.places}))
        if missed := max(self._anchors, default=0):
            self._fault_missing(self._number + 1, missed, "the last one that was kept outside is not there")
        await self._read_on()
        self._read.tell_missing()
        if self._holdings is not None:
            await self._holdings.finish(self._read_on, self._read.again)
            self._report.assessments = self._holdings.counts
        places = self._read.places.values()
        self._report.segments, self._report.entries = len(places), self._read.entries
        self._report.after = sum(max(0, place.number - place.covered) for place in places)
        return self._report

    async def _read_on(self) -> None:
        """Read every segment to its end, behind what checkpoints cover, too."""
        for segment in await self._trail.segments(self._tenant_id):
            await self._read.finish(segment)

    async def _catch_up(self) -> None:
        """Read all checkpoints; a server for reads may be a moment behind the one that takes the writes."""
        last = None
        # One that cannot be read is told of when its turn comes.
        with suppress(ValueError):
            last = await self._trail.last_checkpoint(self._tenant_id)
        for _ in range(LAG_ATTEMPTS):
            await self._read_checkpoints()
            if last is None or self._number >= last.number or not self._is_sound:
                return
            await asyncio.sleep(LAG_PAUSE_S)

    async def _read_checkpoints(self) -> None:
        """Read on from the last checkpoint that was read, and the entries that the new ones cover."""
        async for page in self._pages():
            proofs: dict[bytes, dict[int, Proof]] = {}
            for checkpoint in page:
                if self._check(checkpoint):
                    for head in checkpoint.heads:
                        proofs.setdefault(head.segment, {})[head.number] = Proof(head.hash, checkpoint.number)
            for segment, found in proofs.items():
                await self._read.read(segment, found)

    async def _pages(self) -> AsyncIterator[list[Checkpoint]]:
        limit, unreadable = CHECKPOINTS_A_PAGE, 0
        while True:
            try:
                page = await self._trail.checkpoints(self._tenant_id, after=self._after, limit=limit)
            except ValueError as error:
                # It hides the others of its page: these are read one by one, and its number is the next, most likely.
                if limit == 1:
                    unreadable += 1
                    self._skip_unreadable(error)
                if unreadable == UNREADABLE_IN_A_ROW:
                    # What comes behind is not known, so nothing kept outside can be missed in it.
                    self._anchors.clear()
                    return
                limit = 1
                continue
            if not page:
                return
            limit, unreadable = CHECKPOINTS_A_PAGE, 0
            yield page

    def _skip_unreadable(self, error: ValueError) -> None:
        number = self._number + 1
        self._fault("checkpoint.unreadable", f"its heads cannot be read: {error}", number)
        self._anchors.pop(number, None)
        self._number = self._after = number
        self._hashes = ()

    def _check(self, checkpoint: Checkpoint) -> bool:
        """Whether what it says of heads can be used."""
        number, was_sound = checkpoint.number, self._is_sound
        true = checkpoint_hash(
            self._tenant_id, number, checkpoint.at_ms, checkpoint.entries, checkpoint.heads, checkpoint.previous
        )
        signed = self._signatures.signed({true, checkpoint.hash}, checkpoint.mac)
        if number < 1:
            self._fault("checkpoint.edited", "checkpoints count from 1", number)
        elif number > self._number + 1:
            self._fault_missing(self._number + 1, number - 1, "there is a gap in their numbers")
            self._hashes = ()
        if true != checkpoint.hash:
            self._fault("checkpoint.edited", "it does not hash to its own hash", number)
        elif signed is None:
            self._fault("checkpoint.forged", "it was not signed with this key", number)
        elif self._hashes and checkpoint.previous not in self._hashes:
            self._fault("checkpoint.unlinked", "the checkpoint before it is not the one that it names", number)
        self._number, self._after = max(number, 0), number
        # Where one of its hashes was edited, the next is linked to the other.
        self._hashes = (true, checkpoint.hash)
        for hash in self._anchors.pop(number, ()):
            if hash not in self._hashes:
                self._fault("checkpoint.replaced", "it is not the one that was kept outside", number)
        self._report.checkpoints += 1
        self._report.checkpoint, self._report.checkpoint_ms = number, checkpoint.at_ms
        is_usable = true in (signed, checkpoint.hash)
        if is_usable:
            self._cover(checkpoint, compare=was_sound and self._is_sound)
        return is_usable

    def _cover(self, checkpoint: Checkpoint, *, compare: bool) -> None:
        """Take note of what the checkpoint covers. compare: whether it says so itself."""
        is_forward = bool(checkpoint.heads)
        for head in checkpoint.heads:
            place = self._read.place(head.segment)
            self._entries += head.number - place.covered
            is_forward &= head.number > place.covered
            place.covered = max(place.covered, head.number)
        # After another fault the sum would only say once more that something is missing.
        if compare and not (is_forward and checkpoint.entries == self._entries):
            detail = f"it counts {checkpoint.entries} entries, and its heads with those before it make {self._entries}"
            self._fault("checkpoint.miscounted", detail, checkpoint.number)

    async def _compare_covered(self, segments: Iterable[bytes]) -> None:
        """Compare what the checkpoints cover with the table that says it."""
        for segment in segments:
            if not self._is_sound:
                return
            told, covered = await self._trail.head_number(self._tenant_id, segment), self._covered(segment)
            if told > covered:
                # Checkpoints may have been made since they were read.
                await self._catch_up()
                if told > (left := self._covered(segment)):
                    detail = (
                        f"the table of covered heads says {told}, and what is left of the checkpoints covers {left}: "
                        "the last of them were cut off"
                    )
                    self._faults.add("checkpoint.deleted", self._tenant_id, detail, segment=segment)
            elif told < covered:
                detail = f"the table of covered heads says {told}, and the checkpoints say {covered}"
                self._faults.add("heads.edited", self._tenant_id, detail, segment=segment)

    def _covered(self, segment: bytes) -> int:
        place = self._read.places.get(segment)
        return place.covered if place else 0

    def _fault_missing(self, first: int, last: int, detail: str) -> None:
        named = f"checkpoint {first} is missing" if first == last else f"the checkpoints {first} to {last} are missing"
        self._fault("checkpoint.deleted", f"{named}: {detail}", first)

    def _fault(self, kind: Kind, detail: str, checkpoint: int) -> None:
        self._is_sound = False
        self._faults.add(kind, self._tenant_id, detail, checkpoint=checkpoint)
