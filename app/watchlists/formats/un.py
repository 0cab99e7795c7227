"""The United Nations Security Council's consolidated list, XML.

A person's name is its up to four parts in their order. Aliases of quality "Low" are weak, "Good", "a.k.a." and "f.k.a."
are not. Several names in one element stand apart by semicolons. Source: the list's schema (resources/xsd/en/ there).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from app.watchlists.formats.base import Format, Objection, one_file
from app.watchlists.markup import Element, entries, root
from app.watchlists.party import Party, Reading, joined
from app.watchlists.text import Head
from core.entities import Entity, IdentifierKind

ROOT = "CONSOLIDATED_LIST"

_ENTRIES = frozenset({"INDIVIDUAL", "ENTITY"})
_NAME_PARTS = ("FIRST_NAME", "SECOND_NAME", "THIRD_NAME", "FOURTH_NAME")
_ADDRESS_PARTS = ("STREET", "CITY", "STATE_PROVINCE", "ZIP_CODE", "COUNTRY")
_GROUP = re.compile(r"\(([^()]*;[^()]*)\)")  # "name in its script (one spelling; another spelling)"
_SCRIPT_NOTE = re.compile(r"\(original script\)", re.IGNORECASE)
_PASSPORT = re.compile(r"pass?[ae]?port", re.IGNORECASE)
_FISCAL = re.compile(r"fiscal|\btax\b", re.IGNORECASE)
_NO_IDENTITY = re.compile(r"birth|driv|voter|student|ration|military|serviceman|other", re.IGNORECASE)


def _objection(heads: Sequence[Head]) -> Objection:
    name, _ = root(heads[0])
    return one_file(heads) or ("" if name == ROOT else f"has <{ROOT}> as its root element")


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    path = heads[0].path
    for element in entries(path, reading.limits, _ENTRIES):
        if element.name not in _ENTRIES:
            reading.published_at(element.get("dateGenerated"))
            continue
        where = f"{path.name}, line {element.line}"
        reading.entry(where)
        entity = _party(element).entity(reading, where)
        if entity is not None:
            yield entity


def _party(element: Element) -> Party:
    person = element.name == "INDIVIDUAL"
    # The reference number (QDi.123) is what the committees and their notices cite; it is permanent.
    entry_id = element.value("REFERENCE_NUMBER") or element.value("DATAID")
    party = Party(entry_id, "Person" if person else "Organization", "sanction")
    parts = " ".join(element.value(part) for part in _NAME_PARTS)
    party.names.extend(_names(parts, slashes=not person))
    party.names.extend(_names(element.value("NAME_ORIGINAL_SCRIPT")))
    party.programmes.append(element.value("UN_LIST_TYPE"))
    for alias in element.all(f"{element.name}_ALIAS"):
        weak = alias.value("QUALITY").lower() == "low"
        (party.weak_names if weak else party.names).extend(_names(alias.value("ALIAS_NAME")))
        party.birth_dates.append(_told(alias.value("DATE_OF_BIRTH")))
    for nationality in element.all("NATIONALITY"):
        party.countries.extend(_told(value.text) for value in nationality.all("VALUE"))
    for address in element.all(f"{element.name}_ADDRESS"):
        party.addresses.append(joined(*(_told(address.value(part)) for part in _ADDRESS_PARTS)))
        party.countries.append(_told(address.value("COUNTRY")))
    for birth in element.all("INDIVIDUAL_DATE_OF_BIRTH"):
        party.birth_dates.append(_birth_date(birth))
    for document in element.all("INDIVIDUAL_DOCUMENT"):
        country = document.value("ISSUING_COUNTRY") or document.value("COUNTRY_OF_ISSUE")
        party.identifiers.append((_document_kind(document), document.value("NUMBER"), _told(country)))
    return party


def _names(text: str, slashes: bool = False) -> Iterable[str]:
    """The names in one element. slashes: names of entities also stand apart by " / "."""
    text = _SCRIPT_NOTE.sub("", text)
    outside = _GROUP.sub(";", text)
    yield from (outside.replace(" / ", ";") if slashes else outside).split(";")
    for group in _GROUP.findall(text):
        yield from group.split(";")


def _birth_date(birth: Element) -> str:
    """One date as words that say how exact it is."""
    kind = birth.value("TYPE_OF_DATE").upper()
    if birth.value("FROM_YEAR"):
        return f"{birth.value('FROM_YEAR')} to {birth.value('TO_YEAR')}"
    date = birth.value("DATE") or birth.value("YEAR")
    if not date and kind == "EXACT":
        return birth.value("NOTE")
    return f"circa {date}" if date and kind == "APPROXIMATELY" else date


def _document_kind(document: Element) -> IdentifierKind:
    words = document.value("TYPE_OF_DOCUMENT")
    closer = document.value("TYPE_OF_DOCUMENT2")
    if _PASSPORT.search(words) or _PASSPORT.search(closer):
        return "passport"
    if _FISCAL.search(closer):
        return "tax"
    return "other" if _NO_IDENTITY.search(closer) else "national_id"


def _told(text: str) -> str:
    """A value, `` where the list writes that it is not available."""
    return "" if text.strip().lower() in ("na", "n/a") else text.strip()


FORMAT = Format("un-xml", "the United Nations consolidated list as XML", _objection, _entities)
