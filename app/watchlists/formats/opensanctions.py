"""OpenSanctions' simplified table of targets, `targets.simple.csv`: one row an entity.

Several values of a column stand apart by semicolons, those that hold one, or a quote, in quotes of their own. Numbers
come without their kind; only those whose form tells it get one. Source: www.opensanctions.org/docs/bulk/csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

from app.watchlists.formats.base import Format, Objection, one_file
from app.watchlists.formats.schemata import SCHEMATA
from app.watchlists.party import Party, Reading
from app.watchlists.refusal import shown
from app.watchlists.text import Head, records
from core.entities import Entity, IdentifierKind

COLUMNS = ("id", "schema", "name", "aliases", "birth_date", "countries", "addresses", "identifiers", "sanctions")

_LEI = re.compile(r"[A-Z0-9]{18}[0-9]{2}")
_IMO = re.compile(r"(?:IMO ?)(\d{7})")


def _objection(heads: Sequence[Head]) -> Objection:
    columns = {cell.strip().strip('"') for cell in heads[0].first_line.split(",")}
    missing = [column for column in COLUMNS if column not in columns]
    return one_file(heads) or (f"has a header, and the column {missing[0]} in it" if missing else "")


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    for record in records(heads[0].path, reading.limits):
        reading.entry(record.where)
        reading.published_at(record["last_seen"])
        schema = SCHEMATA.get(record["schema"])
        if schema is None:
            reading.tally.add("no_party", shown(record["schema"]))
            continue
        party = Party(record["id"], schema, "sanction" if record["sanctions"] else "other")
        party.names = [record["name"], *_values(record["aliases"])]
        party.birth_dates = _values(record["birth_date"])
        party.countries = _values(record["countries"])
        party.addresses = _values(record["addresses"])
        party.identifiers = [(*_identifier(text.strip()), "") for text in _values(record["identifiers"])]
        party.programmes = _values(record["program_ids"])
        entity = party.entity(reading, record.where)
        if entity is not None:
            yield entity


def _values(cell: str) -> list[str]:
    """The values of a cell: a row of CSV within it."""
    if '"' not in cell:
        return cell.split(";")
    return next(csv.reader([" ".join(cell.split())], delimiter=";"), [])


def _identifier(text: str) -> tuple[IdentifierKind, str]:
    if _LEI.fullmatch(text) and _is_lei(text):
        return "lei", text
    imo = _IMO.fullmatch(text)
    return ("imo", imo[1]) if imo else ("other", text)


def _is_lei(text: str) -> bool:
    """Whether the check digits are right (ISO 17442: letters as 10 to 35, the number modulo 97 is 1)."""
    return int("".join(str(int(letter, 36)) for letter in text)) % 97 == 1


FORMAT = Format("opensanctions-csv", "OpenSanctions' targets.simple.csv", _objection, _entities)
