"""What a verification found: how much was looked at, and every fault with its place."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from app import ids

Kind = Literal[
    "entry.edited",
    "entry.deleted",
    "entry.unlinked",
    "entry.unreadable",
    "entry.restamped",
    "trail.truncated",
    "segment.deleted",
    "checkpoint.edited",
    "checkpoint.forged",
    "checkpoint.deleted",
    "checkpoint.unlinked",
    "checkpoint.miscounted",
    "checkpoint.unreadable",
    "checkpoint.replaced",
    "heads.edited",
    "trail.missing",
    "assessment.altered",
    "assessment.untold",
    "assessment.missing",
    "override.altered",
    "override.untold",
    "override.missing",
    "key.altered",
    "key.untold",
    "key.missing",
    "disposition.altered",
    "disposition.untold",
    "disposition.missing",
    "list.altered",
    "list.untold",
    "key.wrong",
]
"""What can be wrong.

`entry.edited`: it does not hash to its own hash.  `entry.unlinked`: one before it was replaced.  `entry.restamped`: it
is whole in itself, and not what a signed checkpoint says.  `trail.truncated`: a segment ends before what a checkpoint
covers.  `checkpoint.forged`: its signature is not of this key.  `checkpoint.miscounted`: its numbers do not follow from
those before it.  `checkpoint.replaced`: it is not the one that was kept outside.  `heads.edited`: the table of covered
heads is not what the checkpoints say.  `trail.missing`: a tenant has something on record and no trail at all.
`*.altered`: it is not as the trail tells.  `*.untold`: it is there, and the trail does not tell of it.  `*.missing`:
the trail tells of it and not of its end, and it is not there.  `key.wrong`: no signature is right, so it is likely the
signing key that is not; the others of `key` are API keys.
"""
TRAIL = ("entry.", "segment.", "trail.")
"""How kinds begin that leave a trail without some of its entries."""

MOST_OF_A_KIND = 100


class Fault(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong.

    tenant_id: None where it is of no trail alone.  segment: UUID.  entry, checkpoint: numbers, of the first of several.
    """

    kind: Kind
    tenant_id: str | None
    detail: str
    segment: str | None = None
    entry: int | None = None
    checkpoint: int | None = None

    def __str__(self) -> str:
        place = []
        if self.tenant_id is not None:
            place.append(f"tenant {self.tenant_id}" if self.tenant_id else "the service's own trail")
        if self.checkpoint is not None:
            place.append(f"checkpoint {self.checkpoint}")
        if self.segment is not None:
            place.append(f"segment {self.segment}")
        if self.entry is not None:
            place.append(f"entry {self.entry}")
        return ": ".join(filter(None, (self.kind, ", ".join(place), self.detail)))


class Assessments(Struct):
    """How many assessments the trail names.

    proven: are as they were recorded, those without their erased input included.  erased: of them, by the leaf that was
    kept in its place.  missing: are no longer there, those lost included.  unproven: are there, but were recorded
    together with missing ones, so that nothing tells.  altered: are not as they were recorded, or one of them is not.
    untold: are there, and no entry tells of them.  lost: are not there, and no entry tells that they were dropped.
    """

    proven: int = 0
    erased: int = 0
    missing: int = 0
    unproven: int = 0
    altered: int = 0
    untold: int = 0
    lost: int = 0


class TrailReport(Struct):
    """One tenant's trail. after: entries that no checkpoint covers yet.  checkpoint, checkpoint_ms: the last one.
    anchored: whether a checkpoint of it that was kept outside was there to compare with.  assessments: None where they
    were not looked at."""

    tenant_id: str
    segments: int = 0
    entries: int = 0
    after: int = 0
    checkpoints: int = 0
    checkpoint: int | None = None
    checkpoint_ms: int | None = None
    anchored: bool = False
    assessments: Assessments | None = None


class Report(Struct):
    """All that was verified. intact: no fault was found.  anchored: and a checkpoint that was kept outside was there to
    compare with for every trail that has any: else its end may be cut off, and nothing would show it.
    anchors: how many there were.  more: faults that are not listed, since there are many of their kind."""

    intact: bool
    anchored: bool
    anchors: int
    trails: list[TrailReport]
    faults: list[Fault]
    more: int


class Faults:
    """Collects faults, at most MOST_OF_A_KIND of each kind in full. `damaged`: tenants whose trail lacks entries."""

    __slots__ = ("_counts", "damaged", "found")

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.damaged: set[str | None] = set()
        self._counts: dict[Kind, int] = {}

    @property
    def more(self) -> int:
        """How many are not in `found`."""
        return sum(max(0, count - MOST_OF_A_KIND) for count in self._counts.values())

    def add(
        self,
        kind: Kind,
        tenant_id: str | None,
        detail: str,
        *,
        segment: bytes | None = None,
        entry: int | None = None,
        checkpoint: int | None = None,
    ) -> None:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if kind.startswith(TRAIL):
            self.damaged.add(tenant_id)
        if count <= MOST_OF_A_KIND:
            named = None if segment is None else ids.text(segment)
            self.found.append(Fault(kind, tenant_id, detail, named, entry, checkpoint))

    def drop(self, kind: Kind) -> None:
        """Take back all of a kind."""
        self._counts.pop(kind, None)
        self.found = [fault for fault in self.found if fault.kind != kind]
