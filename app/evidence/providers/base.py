"""What a provider is: what it is asked, what it may answer, and how it may fail."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from app import wire
from app.facts import NO_FACTS, ExternalFacts

MatchKind = Literal["sanction", "pep", "other"]


class Match(Struct, frozen=True, array_like=True):
    """Somebody on a list who may be the one asked for.

    subject: pointer to the name in the profile.  score: 0 to 1, of the provider's own making.
    equal: what is the same of both: `name`, `birth_date`, `registration_number`, `lei`, `vat_number`.
    provider: by what name the settings know it.
    """

    subject: str
    entity_id: str
    caption: str
    schema: str
    score: float
    kind: MatchKind
    datasets: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    provider: str = ""

    @property
    def is_confirmed(self) -> bool:
        """Whether it is certainly the same one: an identifier, or the name with the full date of birth or the
        registration number. A name, even with the country and a score of 1, is not enough."""
        equal = set(self.equal)
        return bool(equal & {"lei", "vat_number"}) or (
            "name" in equal and bool(equal & {"birth_date", "registration_number"})
        )


class Provided(Struct, frozen=True, array_like=True):
    """What one provider told of one business. Whatever the status is but `ok`, there are no facts and no matches.

    `not_screened` says that nobody was asked, because the profile lacks what the provider needs: nothing failed, and
    nothing is known.
    """

    status: wire.EvidenceStatus
    facts: ExternalFacts = NO_FACTS
    version: str | None = None
    fetched_at: str | None = None
    matches: tuple[Match, ...] = ()


NOT_ASKED = Provided("not_screened")


class ProviderFailed(Exception):
    """A provider that did not answer as it should. `reason` names no one: nothing of the profile or the answer."""

    status: wire.EvidenceStatus = "unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Late(ProviderFailed):
    """No answer in time."""

    status = "timeout"


class Unavailable(ProviderFailed):
    """It is not there, or not able or willing to answer anybody."""


class Dropped(Unavailable):
    """The same in a way that may be over with the next call."""


class Declined(ProviderFailed):
    """It answers, but not this question."""


class Absurd(ProviderFailed):
    """What it answers cannot be."""

    status = "invalid"


class Provider(Protocol):
    """One external source of evidence.

    needs: paths of the profile without which it cannot be asked.
    """

    name: str
    needs: frozenset[str]

    def key(self, profile: wire.Profile) -> bytes | None:
        """A digest of all that the answer depends on: how it is asked, and what is asked. None where a need lacks."""
        ...

    async def gather(self, profile: wire.Profile, deadline: float) -> Provided:
        """What it tells. deadline: the loop's time by which an answer is of use.

        Raises ProviderFailed.
        """
        ...
