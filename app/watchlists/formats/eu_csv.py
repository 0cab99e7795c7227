"""The EU's consolidated list of financial sanctions, CSV version 1.1: one row for each name, address, date of birth,
number and citizenship, apart by semicolons, with a header.

Rows of one entry are put together by `Entity_LogicalId`. This form does not say which names are weak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.watchlists.formats import eu
from app.watchlists.formats.base import Format, Objection, one_file
from app.watchlists.party import Party, Reading
from app.watchlists.refusal import ListRefused
from app.watchlists.text import Head, Record, records
from core.entities import Entity

ID, NAME = "Entity_LogicalId", "NameAlias_WholeName"
DELIMITER = ";"

_ADDRESS_PARTS = ("Street", "PoBox", "ZipCode", "City", "Region", "Place", "CountryDescription")


def _columns(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(DELIMITER)]


def _objection(heads: Sequence[Head]) -> Objection:
    columns = _columns(heads[0].first_line)
    known = ID in columns and NAME in columns
    return one_file(heads) or ("" if known else f"has the columns {ID} and {NAME}, apart by semicolons")


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    parties: dict[str, tuple[Party, str]] = {}
    for record in records(heads[0].path, reading.limits, DELIMITER):
        entry_id = record[ID]
        if entry_id not in parties:
            reading.entry(record.where)
            if not entry_id:
                raise ListRefused(f"the column {ID} is empty", record.where)
            codes = record.group("Entity", "SubjectType", "SubjectType_ClassificationCode")
            parties[entry_id] = Party(entry_id, eu.schema(*codes), "sanction"), record.where
            reading.published_at(_iso(record["fileGenerationDate"]))
        _add(record, parties[entry_id][0])
    for party, where in parties.values():
        entity = party.entity(reading, where)
        if entity is not None:
            yield entity


def _add(record: Record, party: Party) -> None:
    name = record[NAME] or " ".join(record.group("NameAlias", "FirstName", "MiddleName", "LastName"))
    (party.weak_names if record["NameAlias_Strong"].lower() == "false" else party.names).append(name)
    party.programmes.append(record["Entity_Regulation_Programme"])
    place = ("CountryIso2Code", "CountryDescription")
    party.countries.append(eu.country(*record.group("Citizenship", *place)))
    party.countries.append(eu.country(*record.group("Address", *place)))
    party.addresses.append(eu.address(record.group("Address", *_ADDRESS_PARTS)))
    if eu.is_gregorian(record["BirthDate_CalendarType"]):
        parts = ("BirthDate", "Year", "Month", "Day", "YearRangeFrom", "YearRangeTo", "Circa")
        party.birth_dates += eu.birth_dates(*record.group("BirthDate", *parts))
    number = record["Identification_Number"] or record["Identification_LatinNumber"]
    kind = eu.identifier_kind(record["Identification_TypeCode"])
    party.identifiers.append((kind, number, eu.country(*record.group("Identification", *place))))


def _iso(date: str) -> str:
    """`05/08/2026` as `2026-08-05`; other forms as they are."""
    parts = date.split("/")
    return "-".join(reversed(parts)) if len(parts) == 3 else date


FORMAT = Format("eu-csv", "the EU's consolidated list of financial sanctions as CSV", _objection, _entities)
