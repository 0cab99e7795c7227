"""The evidence protocol: what a source answers, and what of it the model may read."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Struct

from app import wire
from app.facts import ExternalFacts


class ScreeningFacts(Struct, frozen=True, array_like=True, gc=False):
    """The part of a screening that features may read. None where nothing was screened.

    sanctioned_share_pct: share (percent) held together by owners with a confirmed sanctions match.
    pep_found: a beneficial owner or director bears a confirmed PEP match.
    """

    status: wire.ScreeningStatus = "not_screened"
    business_confirmed: bool | None = None
    sanctioned_share_pct: float | None = None
    pep_found: bool | None = None


class Findings(Struct, frozen=True, array_like=True, gc=False):
    """All evidence of one assessment: the root of the paths `evidence.*` in a model file."""

    screening: ScreeningFacts = ScreeningFacts()
    external: ExternalFacts | None = None


class Gathered(Struct, frozen=True):
    """What was found out about one profile: for the model, and as JSON for the answer and the record.

    screening: a wire.Screening.  evidence: a list of wire.Evidence.
    degraded: a source that should have answered failed.
    """

    findings: Findings
    screening: bytes
    evidence: bytes
    degraded: bool = False


class Source(Protocol):
    """One way of finding something out. A source never raises for its own failure: its status says it."""

    async def gather(self, profile: wire.Profile) -> Gathered:
        """Evidence for one profile."""
        ...


def gathered(
    findings: Findings, screening: wire.Screening, evidence: list[wire.Evidence], degraded: bool = False
) -> Gathered:
    """Findings with their JSON."""
    return Gathered(findings, msgspec.json.encode(screening), msgspec.json.encode(evidence), degraded)
