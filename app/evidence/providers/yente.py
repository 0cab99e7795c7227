"""A provider that screens names as yente does: POST /match/{dataset}, one query for each name.

Source of the shapes: yente's own response types (opensanctions/yente, yente/data/common.py); the schemata are those of
FollowTheMoney.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from app import wire
from app.evidence.providers.answers import read_json
from app.evidence.providers.base import Absurd, Match, MatchKind, Provided
from app.evidence.providers.client import Client, Request
from app.evidence.providers.http_json import described, digest, sent_headers, trusted
from app.facts import NO_FACTS
from app.ids import instant, now_ms
from app.settings.providers import Yente

Line = Annotated[str, Meta(min_length=1, max_length=1024)]
Word = Annotated[str, Meta(max_length=256)]
Texts = Annotated[list[Annotated[str, Meta(max_length=65_536)]], Meta(max_length=10_000)]


class Properties(Struct, frozen=True):
    """The properties of an entity that say whether it is the one asked for."""

    name: Texts = []
    alias: Texts = []
    birthDate: Texts = []
    registrationNumber: Texts = []
    leiCode: Texts = []
    vatCode: Texts = []
    topics: Annotated[list[Word], Meta(max_length=1000)] = []


class Result(Struct, frozen=True):
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    caption: Line
    schema: Annotated[str, Meta(min_length=1, max_length=64)]
    score: Annotated[float, Meta(ge=0, le=1)]
    properties: Properties
    datasets: Annotated[list[Word], Meta(max_length=1000)] = []


class Response(Struct, frozen=True):
    results: list[Result]
    status: int = 200


class Responses(Struct, frozen=True):
    responses: dict[str, Response]


class Subject(Struct, frozen=True):
    """Somebody whom the profile names, and the query for them. pointer: of the name."""

    pointer: str
    schema: str
    properties: dict[str, list[str]]


_decoder = msgspec.json.Decoder(Responses)

_OWNER_SCHEMA = {"person": "Person", "company": "Company", "state": "Organization"}
_ALIASES = {"uk": "gb", "el": "gr"}
_EQUAL = (("birth_date", "birthDate"), ("registration_number", "registrationNumber"), ("lei", "leiCode"),
          ("vat_number", "vatCode"))  # fmt: skip


class YenteProvider:
    """Screens the business, its owners and its directors."""

    def __init__(self, settings: Yente, client: Client) -> None:
        self.name = settings.name
        self.needs = frozenset(("business.name",))
        self._settings = settings
        self._client = client
        self._tls = trusted(settings)
        self._headers = sent_headers(settings, True)
        self._described = described(settings)
        query = f"limit={settings.limit}&threshold={settings.threshold:g}"
        if settings.algorithm:
            query += f"&algorithm={settings.algorithm}"
        self._url = f"{settings.url}/match/{settings.dataset}?{query}"

    def key(self, profile: wire.Profile) -> bytes | None:
        found = digest(self._described, *self._requests(subjects(profile)))
        # The pointers stand in no request, and in every match.
        return sha256(found + "\n".join(s.pointer for s in subjects(profile)).encode()).digest()

    async def gather(self, profile: wire.Profile, deadline: float) -> Provided:
        asked = subjects(profile)
        matches: list[Match] = []
        for first, request in zip(range(0, len(asked), self._settings.batch), self._requests(asked), strict=True):
            body = await self._client.ask(request)
            assert body is not None
            answers = read_json(body, _decoder).responses
            for place, subject in enumerate(asked[first : first + self._settings.batch]):
                response = answers.get(f"q{place}")
                if response is None or response.status != 200:
                    raise Absurd("a name that was asked for was not answered")
                matches.extend(self._matches(subject, response.results))
        return Provided("ok", NO_FACTS, None, instant(now_ms()), tuple(matches))

    def _requests(self, asked: list[Subject]) -> Iterator[Request]:
        settings = self._settings
        for first in range(0, len(asked), settings.batch):
            queries = {
                f"q{place}": {"schema": subject.schema, "properties": subject.properties}
                for place, subject in enumerate(asked[first : first + settings.batch])
            }
            body = msgspec.json.encode({"queries": queries})
            yield Request("POST", self._url, self._headers, body, settings.max_bytes, self._tls)

    def _matches(self, subject: Subject, results: Iterable[Result]) -> Iterator[Match]:
        for result in results:
            if result.score < self._settings.threshold:
                continue
            yield Match(
                subject.pointer,
                result.id,
                result.caption,
                result.schema,
                result.score,
                _kind(result.properties.topics),
                tuple(result.datasets),
                tuple(result.properties.topics),
                tuple(_equal(subject, result)),
                self._settings.name,
            )


def subjects(profile: wire.Profile) -> list[Subject]:
    """Everyone whom the profile names: the business, then owners, then directors."""
    business, ownership = profile.business, profile.ownership
    found = [
        _subject(
            "/business/name",
            "Company",
            name=[business.name, *(business.aliases or ())],
            jurisdiction=[_country(business.jurisdiction)],
            registrationNumber=[business.registration_number],
            leiCode=[business.lei],
            vatCode=[business.vat_number],
            incorporationDate=[business.incorporated_on and business.incorporated_on.isoformat()],
        )
    ]
    if ownership is None:
        return found
    for place, owner in enumerate(ownership.owners or ()):
        # A trust, or an owner of whom no kind is told, may be listed as anything.
        schema = _OWNER_SCHEMA.get(owner.kind or "", "Person" if owner.birth_date else "LegalEntity")
        born = owner.birth_date.isoformat() if owner.birth_date and schema == "Person" else None
        found.append(
            _subject(
                f"/ownership/owners/{place}/name",
                schema,
                name=[owner.name],
                country=[_country(owner.country)],
                birthDate=[born],
                registrationNumber=[owner.registration_number],
                leiCode=[owner.lei],
            )
        )
    for place, director in enumerate(ownership.directors or ()):
        found.append(
            _subject(
                f"/ownership/directors/{place}/name",
                "Person" if director.birth_date else "LegalEntity",
                name=[director.name],
                country=[_country(director.country)],
                birthDate=[director.birth_date and director.birth_date.isoformat()],
            )
        )
    return found


def _subject(pointer: str, schema: str, **properties: list[Any]) -> Subject:
    given = {name: [value for value in values if value] for name, values in properties.items()}
    return Subject(pointer, schema, {name: values for name, values in given.items() if values})


def _country(code: str | None) -> str | None:
    """ISO 3166-1 alpha-2 in lower case, as FollowTheMoney has it; of a subdivision its country."""
    if code is None:
        return None
    country = code.partition("-")[0].lower()
    return _ALIASES.get(country, country)


def _kind(topics: list[str]) -> MatchKind:
    if "sanction" in topics:
        return "sanction"
    return "pep" if "role.pep" in topics else "other"


def _equal(subject: Subject, result: Result) -> Iterator[str]:
    asked, found = subject.properties, result.properties
    names = {_plain(name) for name in (result.caption, *found.name, *found.alias)}
    if any(_plain(name) in names for name in asked["name"]):
        yield "name"
    for equal, name in _EQUAL:
        given = {_code(value) for value in asked.get(name, ())}
        # What is asked for is a full date, so that no year alone is ever equal to it.
        if given & {_code(value) for value in getattr(found, name)} - {""}:
            yield equal


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _code(text: str) -> str:
    return "".join(character for character in text.upper() if character.isalnum())
