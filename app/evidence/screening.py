"""Screening one profile against the lists in force: who is looked for, what resembles them, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from app import wire
from app.evidence.base import ScreeningFacts
from app.evidence.loaded import Loaded, LoadedList
from core.entities import Entity, Identifier
from core.names import Match, Query, digest_of, explain, prepare

MOST_HITS = 20
BENEFICIAL_PCT = 25.0
HALF_PCT = 50.0
"""From which share on a party owns, by the OFAC rule of 50 percent."""

_SAME_COUNTRY = {"UK": "GB", "EL": "GR"}


class Subject(NamedTuple):
    """Somebody who is looked for. pointer: into the profile.  names: the name, then aliases.

    person: None where that is not known.  share_pct: of an owner; 100 of the business itself, None where it is not
    known or means nothing.
    """

    pointer: str
    names: tuple[str, ...]
    person: bool | None
    country: str | None
    birth_date: str | None
    identifiers: tuple[tuple[str, str], ...]
    share_pct: float | None = None
    is_owner: bool = False
    is_director: bool = False

    @property
    def asked(self) -> tuple[object, ...]:
        """All that decides what is found."""
        return self[1:6]


class Found(NamedTuple):
    """One entry that resembles a subject."""

    subject: Subject
    listed: LoadedList
    match: Match
    confirmed: bool

    @property
    def entity(self) -> Entity:
        return self.listed.index.entity(self.match.entity)

    @property
    def kind(self) -> str:
        return self.entity.kind

    @property
    def entity_id(self) -> str:
        return self.entity.id

    @property
    def digest(self) -> bytes:
        """Of what the entry says, as far as screening depends on it."""
        return digest_of(self.entity)


def subjects(profile: wire.Profile) -> Iterator[Subject]:
    """Whom a screening looks for: the business, then its owners, then its directors."""
    business = profile.business
    yield Subject(
        "/business/name",
        (business.name, *(business.aliases or ())),
        False,
        business.jurisdiction,
        None,
        _identifiers(business.registration_number, business.lei, business.vat_number),
    )
    ownership = profile.ownership
    if ownership is None:
        return
    for place, owner in enumerate(ownership.owners or ()):
        yield Subject(
            f"/ownership/owners/{place}",
            (owner.name,),
            _is_person(owner.kind),
            owner.country,
            None if owner.birth_date is None else owner.birth_date.isoformat(),
            _identifiers(owner.registration_number, owner.lei, None),
            owner.share_pct,
            is_owner=True,
        )
    for place, director in enumerate(ownership.directors or ()):
        yield Subject(
            f"/ownership/directors/{place}",
            (director.name,),
            True,
            director.country,
            None if director.birth_date is None else director.birth_date.isoformat(),
            (),
            is_director=True,
        )


def search(subject: Subject, loaded: Loaded) -> tuple[Found, ...]:
    """What resembles a subject, in all lists; remembered for as long as the lists stay the same."""
    matches = loaded.recall(subject.asked)
    if matches is None:
        query = _query(subject)
        matches = tuple(
            (listed, match)
            for listed in loaded.lists
            for match in listed.index.search(query, loaded.threshold, MOST_HITS)
        )
        loaded.remember(subject.asked, matches)
    return tuple([Found(subject, listed, match, is_confirmed(subject, match)) for listed, match in matches])


def is_confirmed(subject: Subject, match: Match) -> bool:
    """Whether a match is more than a name.

    An identifier that is unique in the world, or within a country that agrees; or an equal name with the full birth
    date. Anything else may be a namesake.
    """
    if match.is_identifier:
        return match.is_global_identifier or match.country_agrees is True or match.is_exact_name
    return match.is_exact_name and match.birth_date_agrees and subject.person is not False


def facts(found: Iterable[Found], everyone: Sequence[Subject], complete: bool) -> ScreeningFacts:
    """What the model may read. found: without what people set aside.  complete: all required lists are in force, and
    fresh."""
    sanctions = [one for one in found if one.kind == "sanction"]
    peps = [one for one in found if one.kind == "pep" and _is_near(one.subject)]
    confirmed = [one for one in sanctions if one.confirmed]
    status: wire.ScreeningStatus
    if confirmed:
        status = "confirmed"
    elif sanctions:
        status = "potential"
    else:
        status = "clear" if complete else "not_screened"
    return ScreeningFacts(
        status,
        any(not (one.subject.is_owner or one.subject.is_director) for one in confirmed),
        _share([one.subject for one in confirmed if one.subject.is_owner], everyone),
        any(one.confirmed for one in peps),
        any(not one.confirmed for one in peps),
    )


def hits(found: Iterable[Found], set_aside: dict[tuple[str, str], str]) -> list[wire.Hit]:
    """For people, best first and what was set aside last. set_aside: by list and entry, the id of the disposition."""
    ordered = sorted(
        found,
        key=lambda one: (
            not one.confirmed,
            not one.confirmed and (one.listed.name, one.entity_id) in set_aside,
            -one.match.score,
            one.subject.pointer,
            one.entity_id,
        ),
    )
    return [
        wire.Hit(
            subject=one.subject.pointer,
            list=one.listed.name,
            list_version=one.listed.version,
            kind=one.entity.kind,
            entity_id=one.entity_id,
            entity_digest=one.digest.hex(),
            matched_name=one.match.name,
            score=one.match.score,
            explanation=explain(one.match),
            confirmed=one.confirmed,
            disposition_id=None if one.confirmed else set_aside.get((one.listed.name, one.entity_id)),
        )
        for one in ordered[:MOST_HITS]
    ]


def country(code: str | None) -> str | None:
    """The country of a code as a profile holds it: `US-DE` is one of US."""
    if code is None:
        return None
    alone = code.partition("-")[0]
    return _SAME_COUNTRY.get(alone, alone)


def _query(subject: Subject) -> Query:
    schema = {True: "Person", False: "Organization", None: None}[subject.person]
    where = country(subject.country)
    return Query(
        names=tuple([prepare(name, schema) for name in dict.fromkeys(subject.names)]),
        person=subject.person,
        countries=() if where is None else (where,),
        birth_date=subject.birth_date,
        identifiers=tuple([Identifier(kind, value, where) for kind, value in subject.identifiers]),  # type: ignore[arg-type]
    )


def _is_person(kind: wire.OwnerKind | None) -> bool | None:
    return {"person": True, "company": False, "state": False}.get(kind or "")


def _identifiers(registration: str | None, lei: str | None, vat: str | None) -> tuple[tuple[str, str], ...]:
    found = (("registration", registration), ("lei", lei), ("vat", vat))
    return tuple([(kind, value) for kind, value in found if value is not None])


def _is_near(subject: Subject) -> bool:
    """Whether a politically exposed person so close to the business matters: a beneficial owner or a director."""
    if subject.is_owner:
        return subject.share_pct is None or subject.share_pct >= BENEFICIAL_PCT
    return subject.is_director


def _share(owners: Iterable[Subject], everyone: Sequence[Subject]) -> float | None:
    if not any(subject.is_owner for subject in everyone):
        return None
    shares = {owner.pointer: owner.share_pct for owner in owners}
    known = sum([share for share in shares.values() if share is not None])
    return None if None in shares.values() and known < HALF_PCT else known
