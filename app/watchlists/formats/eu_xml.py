"""The EU's consolidated list of financial sanctions, XML (FSD export, version 1.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.watchlists.formats import eu
from app.watchlists.formats.base import Format, Objection, one_file
from app.watchlists.markup import Element, entries, root
from app.watchlists.party import Party, Reading
from app.watchlists.text import Head
from core.entities import Entity

ROOT, ENTRY = "export", "sanctionEntity"
NAMESPACE = "http://eu.europa.ec/fpi/fsd/export"

_ADDRESS_PARTS = ("street", "poBox", "zipCode", "city", "region", "place", "countryDescription")


def _objection(heads: Sequence[Head]) -> Objection:
    name, attributes = root(heads[0])
    known = name == ROOT and (NAMESPACE in attributes or f"<{ENTRY}" in heads[0].text)
    return one_file(heads) or ("" if known else f"has <{ROOT}> of {NAMESPACE} as its root element")


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    path = heads[0].path
    for element in entries(path, reading.limits, frozenset({ENTRY})):
        if element.name != ENTRY:
            reading.published_at(element.get("generationDate"))
            continue
        where = f"{path.name}, line {element.line}"
        reading.entry(where)
        entity = _party(element).entity(reading, where)
        if entity is not None:
            yield entity


def _party(element: Element) -> Party:
    codes = [subject.get(code) for subject in element.all("subjectType") for code in ("code", "classificationCode")]
    party = Party(element.get("logicalId") or element.get("euReferenceNumber"), eu.schema(*codes), "sanction")
    for alias in element.all("nameAlias"):
        weak = alias.get("strong").lower() == "false"
        (party.weak_names if weak else party.names).append(alias.get("wholeName") or _name_of_parts(alias))
    for regulation in element.all("regulation"):
        party.programmes.append(regulation.get("programme"))
    for citizenship in element.all("citizenship"):
        party.countries.append(_country(citizenship))
    for address in element.all("address"):
        party.addresses.append(eu.address([address.get(part) for part in _ADDRESS_PARTS]))
        party.countries.append(_country(address))
    for birth in element.all("birthdate"):
        get = birth.get
        if eu.is_gregorian(get("calendarType")):
            party.birth_dates += eu.birth_dates(
                get("birthdate"),
                get("year"),
                get("monthOfYear"),
                get("dayOfMonth"),
                get("yearRangeFrom"),
                get("yearRangeTo"),
                get("circa"),
            )
    for document in element.all("identification"):
        number = document.get("number") or document.get("latinNumber")
        kind = eu.identifier_kind(document.get("identificationTypeCode"))
        party.identifiers.append((kind, number, _country(document)))
    return party


def _name_of_parts(alias: Element) -> str:
    return " ".join(alias.get(part) for part in ("firstName", "middleName", "lastName"))


def _country(place: Element) -> str:
    return eu.country(place.get("countryIso2Code"), place.get("countryDescription"))


FORMAT = Format("eu-xml", "the EU's consolidated list of financial sanctions as XML", _objection, _entities)
