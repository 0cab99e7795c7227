"""FollowTheMoney entities, one JSON object a line: the form for lists of one's own, and of OpenSanctions' full exports.

Source: followthemoney.tech (schemata and properties); OpenSanctions' topics. Every property is a list of texts; an
address may also be an entity within the entity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import Any

import msgspec
from msgspec import Struct

from app.watchlists.formats.base import Format, Objection, one_file
from app.watchlists.formats.schemata import SCHEMATA
from app.watchlists.party import Party, Reading
from app.watchlists.refusal import ListRefused, shown
from app.watchlists.text import Head, lines
from core.entities import Entity, IdentifierKind, ListKind

NAMES = ("name", "alias", "previousName")
COUNTRIES = ("country", "nationality", "citizenship", "jurisdiction", "mainCountry", "flag")
NAME_PARTS = ("firstName", "secondName", "middleName", "fatherName", "lastName")
MOST_COMBINED = 50
IDENTIFIERS: dict[str, IdentifierKind] = {
    "registrationNumber": "registration",
    "ogrnCode": "registration",
    "uscCode": "registration",
    "leiCode": "lei",
    "vatCode": "vat",
    "innCode": "tax",
    "taxNumber": "tax",
    "passportNumber": "passport",
    "socialSecurityNumber": "national_id",
    "imoNumber": "imo",
    "swiftBic": "bic",
    "bikCode": "other",
    "dunsCode": "other",
    "mmsi": "other",
    "okpoCode": "other",
    "serialNumber": "other",
}
_FULL_ADDRESS = ("full", "name")


class _Nested(Struct):
    """An entity that stands in place of a reference to it."""

    properties: dict[str, list[Any]] = {}


class _Line(Struct):
    id: str
    schema: str
    properties: dict[str, list[str | _Nested]]
    target: bool | None = None
    last_seen: str | None = None


_DECODER = msgspec.json.Decoder(_Line)


def combined_names(parts: Sequence[Sequence[str]]) -> list[str]:
    """The names that a person's parts make, by NAME_PARTS: each first with each last name, what stands between them in
    all ways it is given and without it; where there is no first name the last names alone. At most MOST_COMBINED."""
    *before, lasts = parts
    firsts, *between = before
    if not firsts:
        return list(lasts[:MOST_COMBINED])
    chosen = product(firsts, *((*values, "") for values in between), lasts or ("",))
    return [" ".join(filter(None, words)) for words in islice(chosen, MOST_COMBINED)]


def _objection(heads: Sequence[Head]) -> Objection:
    line = heads[0].first_line
    known = line.startswith("{") and '"schema"' in line and '"properties"' in line
    return one_file(heads) or ("" if known else 'has one object a line, with "id", "schema" and "properties"')


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    path = heads[0].path
    for number, text in enumerate(lines(path, reading.limits), start=1):
        if not text.strip():
            continue
        where = f"{path.name}, line {number}"
        reading.entry(where)
        line = _decoded(text, where)
        reading.published_at(line.last_seen or "")
        schema = SCHEMATA.get(line.schema)
        topics = _texts(line, "topics")
        if schema is None:
            reading.tally.add("no_party", shown(line.schema))
        elif line.target is False and not topics:
            reading.tally.add("not_target", shown(line.id))
        else:
            party = Party(line.id, schema, _kind(topics))
            _fill(party, line)
            entity = party.entity(reading, where)
            if entity is not None:
                yield entity


def _decoded(text: str, where: str) -> _Line:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ListRefused("the line is nested too deeply", where) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ListRefused(f"the line is not an entity of FollowTheMoney: {error}", where) from None


def _fill(party: Party, line: _Line) -> None:
    for name in NAMES:
        party.names += _texts(line, name)
    if party.schema == "Person" and not party.names:
        party.names = combined_names([_texts(line, part) for part in NAME_PARTS])
    party.weak_names = _texts(line, "weakAlias")
    for country in COUNTRIES:
        party.countries += _texts(line, country)
    party.birth_dates = _texts(line, "birthDate")
    party.programmes = [*_texts(line, "programId"), *_texts(line, "program")]
    party.addresses = _texts(line, "address")
    for nested in line.properties.get("addressEntity", ()):
        if isinstance(nested, _Nested):
            full = next((nested.properties[name] for name in _FULL_ADDRESS if nested.properties.get(name)), [])
            party.addresses += [text for text in full if isinstance(text, str)]
            party.countries += [text for text in nested.properties.get("country", ()) if isinstance(text, str)]
    for name, kind in IDENTIFIERS.items():
        party.identifiers += [(kind, number, "") for number in _texts(line, name)]
    # An idNumber is a person's own; of anything else it may be of any register.
    kind = "national_id" if party.schema == "Person" else "other"
    party.identifiers += [(kind, number, "") for number in _texts(line, "idNumber")]


def _texts(line: _Line, name: str) -> list[str]:
    return [value for value in line.properties.get(name, ()) if isinstance(value, str)]


def _kind(topics: Sequence[str]) -> ListKind:
    """What an entity is listed for. Counter-sanctions are measures of listed states against those who list them."""
    if any(topic == "sanction" or (topic.startswith("sanction.") and topic != "sanction.counter") for topic in topics):
        return "sanction"
    return "pep" if "role.pep" in topics else "other"


FORMAT = Format("ftm-json", "FollowTheMoney entities as lines of JSON", _objection, _entities)
