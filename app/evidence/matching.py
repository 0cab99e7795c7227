"""Screening alone, in the words of FollowTheMoney: a schema and properties in, scored entities out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from app.evidence.loaded import LoadedList
from app.evidence.screening import SCHEMAS
from app.watchlists.countries import table
from app.watchlists.formats.ftm import COUNTRIES, IDENTIFIERS, NAME_PARTS, NAMES, combined_names
from app.yente import Explanation, Result
from core.entities import Entity, Identifier, IdentifierKind
from core.matches import Match, Part, Query, explain
from core.normal import prepare

_PERSON: dict[str, bool | None] = {"Person": True, "LegalEntity": None, "Thing": None}
_PROPERTIES: dict[IdentifierKind, str] = {
    "registration": "registrationNumber",
    "lei": "leiCode",
    "vat": "vatCode",
    "tax": "taxNumber",
    "passport": "passportNumber",
    "national_id": "idNumber",
    "imo": "imoNumber",
    "bic": "swiftBic",
    "other": "idNumber",
}
_TOPICS = {"sanction": "sanction", "pep": "role.pep"}
MOST_VALUES = 100
LONGEST_VALUE = 512


def query_of(schema: str, properties: dict[str, Any]) -> Query | None:
    """What is searched for; None where nothing names it. Properties that say nothing here are passed over."""
    told = _values(properties, (*NAMES, "weakAlias"))
    if schema == "Person":
        told += combined_names([_values(properties, (part,)) for part in NAME_PARTS])
    names = list(dict.fromkeys(told))[:MOST_VALUES]
    # A person's own; of anything else it may be of any register.
    id_number: IdentifierKind = "national_id" if schema == "Person" else "other"
    countries = tuple(dict.fromkeys(filter(None, map(table().code, _values(properties, COUNTRIES)))))
    identifiers = [
        Identifier(kind, value, countries[0] if countries else None)
        for name, kind in (*IDENTIFIERS.items(), ("idNumber", id_number))
        for value in _values(properties, (name,))
    ]
    if not names and not identifiers:
        return None
    person = _PERSON.get(schema, False)
    return Query(
        names=tuple([prepare(name, SCHEMAS[person]) for name in names]),
        person=person,
        countries=countries,
        birth_date=next(iter(_values(properties, ("birthDate",))), None),
        identifiers=tuple(identifiers),
    )


def found(query: Query, lists: Iterable[LoadedList], cutoff: float, limit: int) -> list[tuple[LoadedList, Match]]:
    """The entries of all lists that resemble the query, best first."""
    matches = [(one, match) for one in lists for match in one.index.search(query, cutoff, limit)]
    matches.sort(key=lambda pair: -pair[1].score)
    return matches[:limit]


def result(listed: LoadedList, match: Match, threshold: float) -> Result:
    """An entry as the answer shows it."""
    entity = listed.index.entity(match.entity)
    explanations = {"name": Explanation(match.score, match.name), **_explanations(match)}
    return Result(
        id=entity.id,
        caption=entity.names[0] if entity.names else match.name,
        schema=entity.schema,
        properties=properties_of(entity),
        datasets=[listed.name],
        referents=[],
        target=True,
        first_seen=None,
        last_seen=None,
        last_change=None,
        score=match.score,
        features={kind: told.score for kind, told in explanations.items()},
        explanations=explanations,
        match=match.score >= threshold,
    )


def properties_of(entity: Entity) -> dict[str, list[str]]:
    """An entry's properties, those that it has."""
    told: dict[str, Sequence[str]] = {
        "name": entity.names[:1],
        "alias": entity.names[1:],
        "weakAlias": entity.weak_names,
        "country": [code.lower() for code in entity.countries],
        "birthDate": entity.birth_dates,
        "address": entity.addresses,
        "program": entity.programmes,
        "topics": [_TOPICS[entity.kind]] if entity.kind in _TOPICS else [],
    }
    for identifier in entity.identifiers:
        name = _PROPERTIES[identifier.kind]
        told[name] = [*told.get(name, ()), identifier.value]
    return {name: list(values) for name, values in told.items() if values}


def _explanations(match: Match) -> dict[str, Explanation]:
    """By what kind of piece: the greatest effect of one, and all of them in words."""
    kinds: dict[str, list[Part]] = {}
    for part in match.parts:
        kinds.setdefault(part.kind, []).append(part)
    return {
        kind: Explanation(max([part.effect for part in parts], key=abs), explain(replace(match, parts=tuple(parts))))
        for kind, parts in kinds.items()
    }


def _values(properties: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The texts of properties, which may stand alone or in a list."""
    values: list[str] = []
    for name in names:
        held = properties.get(name)
        for value in held[:MOST_VALUES] if isinstance(held, list) else [held]:
            if isinstance(value, str | int) and not isinstance(value, bool) and (text := str(value).strip()):
                values.append(text[:LONGEST_VALUE])
    return values[:MOST_VALUES]
