"""Watchlist screening. Until lists can be loaded, nothing is screened, and every answer says so."""

from __future__ import annotations

from app import wire
from app.evidence.base import Findings, Gathered, gathered

NOT_SCREENED = gathered(
    Findings(), wire.Screening("not_screened"), [wire.Evidence(source="watchlist", status="not_screened")]
)


class Watchlist:
    """The source that screens names against lists; without a list it never pretends a `clear`."""

    async def gather(self, profile: wire.Profile) -> Gathered:
        return NOT_SCREENED
