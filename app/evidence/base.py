"""The evidence protocol: what a source answers, and what of it the model may read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from app import wire
from app.facts import ExternalFacts


class ScreeningFacts(Struct, frozen=True, array_like=True, gc=False):
    """The part of a screening that features may read. None where nothing was screened.

    sanctioned_share_pct: share (percent) held together by owners with a confirmed sanctions match; None where the share
    of one is not known and those known do not reach half.
    pep_found: a beneficial owner or director bears a confirmed PEP match.  pep_potential: the same, of a match that
    nobody has confirmed or set aside.
    """

    status: wire.ScreeningStatus = "not_screened"
    business_confirmed: bool | None = None
    sanctioned_share_pct: float | None = None
    pep_found: bool | None = None
    pep_potential: bool | None = None


class Findings(Struct, frozen=True, array_like=True, gc=False):
    """All evidence of one assessment: the root of the paths `evidence.*` in a model file."""

    screening: ScreeningFacts = ScreeningFacts()
    external: ExternalFacts | None = None


class Gathered(Struct, frozen=True):
    """What was found out about one profile: for the model, and as JSON for the answer and the record.

    screening: a wire.Screening.  evidence: the members of a list of wire.Evidence, without its brackets, that are this
    assessment's own.  against: under which digest the store keeps those members that tell which lists were screened
    against, b"" for none, and `against_rows` the members.
    degraded: a source that should have answered failed.
    """

    findings: Findings
    screening: bytes
    evidence: bytes
    degraded: bool = False
    against: bytes = b""
    against_rows: bytes = b""

    @property
    def evidence_rows(self) -> bytes:
        """The whole list."""
        return b"[%s]" % b",".join(filter(None, (self.against_rows, self.evidence)))

    @property
    def own_rows(self) -> bytes:
        """What of it a record holds: the members that are its own, or, with nothing `against`, the whole list."""
        return self.evidence if self.against else b"[%s]" % self.evidence


class Source(Protocol):
    """One way of finding something out. A source never raises for its own failure: its status says it."""

    async def gather(self, tenant_id: str, profile: wire.Profile) -> Gathered:
        """Evidence for one profile. Raises StoreUnavailable where what people decided about it cannot be read."""
        ...

    async def gather_each(self, tenant_id: str, profiles: Sequence[wire.Profile]) -> list[Gathered]:
        """The same for each of many; other requests get their turn in between."""
        ...


def members(evidence: Sequence[wire.Evidence]) -> bytes:
    """Evidence as members of a JSON list."""
    return msgspec.json.encode(evidence)[1:-1]


NOT_SCREENED = Gathered(
    Findings(),
    msgspec.json.encode(wire.Screening("not_screened")),
    members([wire.Evidence("watchlist", "not_screened")]),
)
"""Where there are no lists at all, such as in a command without a database."""
