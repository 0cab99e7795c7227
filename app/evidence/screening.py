"""Screening one profile against the lists in force: who is looked for, what resembles them, and what that means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from app import wire
from app.evidence.base import ScreeningFacts
from app.evidence.loaded import Asked, Loaded, LoadedList, Matches
from app.evidence.providers.base import Match as ExternalMatch
from core.entities import EntitySchema, Identifier, digest_of, identifier_value
from core.matches import Match, Query, explain
from core.normal import prepare

MOST_HITS = 20
BENEFICIAL_PCT = 25.0
HALF_PCT = 50.0
"""From which share on a party owns, by the OFAC rule of 50 percent."""
BUSINESS = "/business/name"
OWNERS = "/ownership/owners/"
DIRECTORS = "/ownership/directors/"
DIGEST_BYTES = 16
SCHEMAS: dict[bool | None, EntitySchema | None] = {True: "Person", False: "Organization", None: None}
"""How the names of persons, and of others, are prepared."""

_SAME_COUNTRY = {"UK": "GB", "EL": "GR"}
_NO_ORGANISATION = ("Person", "Vessel", "Airplane")
_IS_PERSON = {"person": True, "company": False, "state": False}
"""Of an owner's kind; a trust is as often named after a person as after a company."""


class Subject(NamedTuple):
    """Somebody who is looked for. pointer: into the profile.  names: the name, then aliases.

    person: None where that is not known.  share_pct: of an owner, None where it is not known or means nothing.
    """

    pointer: str
    names: tuple[str, ...]
    person: bool | None
    country: str | None
    birth_date: str | None
    identifiers: tuple[tuple[str, str], ...]
    share_pct: float | None = None

    @property
    def is_owner(self) -> bool:
        return self.pointer.startswith(OWNERS)


Party = tuple[Asked, wire.Business | wire.Owner | wire.Director, int]
"""One of a profile, before anybody is looked for: all that decides what is found, what is told, and its place among
owners or directors."""


def parties(profile: wire.Profile) -> list[Party]:
    """Whom a screening looks for: the business, then its owners, then its directors."""
    # PERF: benchmarks/test_service.py::test_request: every profile comes by here, and most end here, with nobody found.
    # What is told is not read any further, and parties of different kinds have keys of different shapes.
    business = profile.business
    aliases = business.aliases
    found: list[Party] = [
        (
            (
                business.name,
                tuple(aliases) if aliases else (),
                business.jurisdiction,
                business.registration_number,
                business.lei,
                business.vat_number,
            ),
            business,
            0,
        )
    ]
    ownership = profile.ownership
    if ownership is not None:
        for place, owner in enumerate(ownership.owners or ()):
            asked = (owner.name, owner.kind, owner.country, owner.birth_date, owner.registration_number, owner.lei)
            found.append((asked, owner, place))
        for place, director in enumerate(ownership.directors or ()):
            found.append(((director.name, director.country, director.birth_date), director, place))
    return found


def subject_of(party: Party) -> Subject:
    """The party as somebody who is looked for."""
    _, told, place = party
    if isinstance(told, wire.Business):
        names = (told.name, *(told.aliases or ()))
        numbers = _identifiers(told.registration_number, told.lei, told.vat_number)
        return Subject(BUSINESS, names, False, told.jurisdiction, None, numbers)
    born = None if told.birth_date is None else told.birth_date.isoformat()
    if isinstance(told, wire.Owner):
        person, numbers = _IS_PERSON.get(told.kind or ""), _identifiers(told.registration_number, told.lei, None)
        pointer = f"{OWNERS}{place}/name"
        return Subject(pointer, (told.name,), person, told.country, born, numbers, told.share_pct)
    return Subject(f"{DIRECTORS}{place}/name", (told.name,), True, told.country, born, ())


def subjects(profile: wire.Profile) -> list[Subject]:
    """Everybody who is looked for."""
    return [subject_of(party) for party in parties(profile)]


def search(party: Party, loaded: Loaded) -> Matches:
    """What resembles a party, in all lists; remembered for as long as the lists stay the same, but for one without a
    name, of whom it is to be seen each time that nobody could be found."""
    matches = loaded.recall(party[0])
    if matches is None:
        query = query_of(subject_of(party))
        matches = tuple(
            [
                (listed, match)
                for listed in loaded.lists
                for match in listed.index.search(query, loaded.threshold, MOST_HITS)
            ]
        )
        if has_name(party):
            loaded.remember(party[0], matches)
    return matches


def has_name(party: Party) -> bool:
    """Whether its name holds anything that can be compared: a letter or a digit."""
    return any(map(str.isalnum, party[1].name))


def query_of(subject: Subject) -> Query:
    """The subject as the name index takes it."""
    where = country(subject.country)
    return Query(
        names=tuple([prepare(name, SCHEMAS[subject.person]) for name in dict.fromkeys(subject.names)]),
        person=subject.person,
        countries=() if where is None else (where,),
        birth_date=subject.birth_date,
        identifiers=tuple([Identifier(kind, value, where) for kind, value in subject.identifiers]),  # type: ignore[arg-type]
    )


def hit(subject: Subject, listed: LoadedList, match: Match) -> wire.Hit:
    """An entry of a list that resembles a subject."""
    entity = listed.index.entity(match.entity)
    return wire.Hit(
        subject=subject.pointer,
        list=listed.name,
        list_version=listed.version,
        kind=entity.kind,
        entity_id=entity.id,
        entity_digest=digest_of(entity)[:DIGEST_BYTES].hex(),
        matched_name=match.name,
        score=match.score,
        explanation=explain(match),
        confirmed=is_confirmed(subject, match, entity.schema),
    )


def external_hit(match: ExternalMatch, version: str | None) -> wire.Hit:
    """An entry that a provider found."""
    said = f"{match.entity_id}\0{match.caption}\0{match.kind}\0{','.join(sorted(match.topics))}"
    equal = f"; equal: {', '.join(match.equal)}" if match.equal else ""
    datasets = f" of {', '.join(match.datasets)}" if match.datasets else ""
    return wire.Hit(
        subject=match.subject,
        list=match.provider,
        list_version=version or "",
        kind=match.kind,
        entity_id=match.entity_id,
        entity_digest=sha256(said.encode()).digest()[:DIGEST_BYTES].hex(),
        matched_name=match.caption,
        score=match.score,
        explanation=f"{match.schema}{datasets} as {match.provider} tells{equal}",
        confirmed=match.is_confirmed,
    )


def is_confirmed(subject: Subject, match: Match, schema: EntitySchema) -> bool:
    """Whether a match is more than a name.

    An identifier that is one party's alone in the world, or in a country that agrees, or beside an equal name; or an
    equal name with the full birth date. Anything else may be a namesake: also who is no organisation and has a number,
    of whatever kind, that is a business's registration number.
    """
    if match.is_identifier:
        agrees = match.country_agrees is True and not (subject.person is False and schema in _NO_ORGANISATION)
        return _is_global(subject, match) or agrees or match.is_exact_name
    return match.is_exact_name and match.birth_date_agrees and subject.person is not False


def _is_global(subject: Subject, match: Match) -> bool:
    """Whether the identifier that is the same is one party's alone in the world: an LEI, or a VAT number, which begins
    with its country."""
    same = {part.label for part in match.parts if part.kind == "identifier"}
    return any(kind in ("lei", "vat") and identifier_value(value) in same for kind, value in subject.identifiers)


def facts(counted: Iterable[wire.Hit], everyone: Sequence[Subject], complete: bool) -> ScreeningFacts:
    """What the model may read. counted: hits without those that people set aside.  complete: all required lists are in
    force, and fresh. Entries that are neither a sanction nor a PEP are shown and decide nothing."""
    by_pointer = {subject.pointer: subject for subject in everyone}
    sanctions: list[wire.Hit] = []
    peps: list[wire.Hit] = []
    for one in counted:
        if one.kind == "sanction":
            sanctions.append(one)
        elif one.kind == "pep" and _is_near(by_pointer.get(one.subject)):
            peps.append(one)
    confirmed = {one.subject for one in sanctions if one.confirmed}
    status: wire.ScreeningStatus
    if confirmed:
        status = "confirmed"
    elif sanctions:
        status = "potential"
    else:
        status = "clear" if complete else "not_screened"
    return ScreeningFacts(
        status,
        BUSINESS in confirmed,
        _share(confirmed, everyone),
        any(one.confirmed for one in peps),
        any(not one.confirmed for one in peps),
    )


def best(hits: Iterable[wire.Hit]) -> list[wire.Hit]:
    """Those that are shown: best first, and what was set aside last."""
    ordered = sorted(
        hits,
        key=lambda one: (not one.confirmed, one.disposition_id is not None, -one.score, one.subject, one.entity_id),
    )
    return ordered[:MOST_HITS]


def country(code: str | None) -> str | None:
    """The country of a code as a profile holds it: `US-DE` is one of US."""
    if code is None:
        return None
    alone = code.partition("-")[0]
    return _SAME_COUNTRY.get(alone, alone)


def _identifiers(registration: str | None, lei: str | None, vat: str | None) -> tuple[tuple[str, str], ...]:
    found = (("registration", registration), ("lei", lei), ("vat", vat))
    return tuple([(kind, value) for kind, value in found if value is not None])


def _is_near(subject: Subject | None) -> bool:
    """Whether somebody politically exposed is so close to the business that it matters: as a beneficial owner or a
    director. None, a subject that nobody asked for, is taken for near."""
    if subject is None:
        return True
    if subject.is_owner:
        return subject.share_pct is None or subject.share_pct >= BENEFICIAL_PCT
    return subject.pointer != BUSINESS


def _share(confirmed: Iterable[str], everyone: Sequence[Subject]) -> float | None:
    """The share that owners under sanctions hold together; None without any owner, or where one's is not known."""
    owners = {subject.pointer: subject.share_pct for subject in everyone if subject.is_owner}
    if not owners:
        return None
    shares = [owners[pointer] for pointer in confirmed if pointer in owners]
    known = sum([share for share in shares if share is not None])
    return None if None in shares and known < HALF_PCT else known
