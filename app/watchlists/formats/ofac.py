"""OFAC's SDN list in its own CSV form: entries, aliases, addresses, and what of the remarks did not fit.

Four files without headers, told apart by their number of columns and joined by the entry's number; `-0-` is null.
Source: OFAC, "Specially Designated Nationals list: data formats" (dat_spec.txt). Names of persons come as "LAST, First"
and are turned round; aliases in the remarks, in quotes, are those that OFAC calls weak.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.watchlists.formats import ofac_remarks
from app.watchlists.formats.base import Format, Objection
from app.watchlists.party import Party, Reading, joined
from app.watchlists.refusal import ListRefused, shown
from app.watchlists.text import Head, Row, rows, width_refusal
from core.entities import Entity, EntitySchema

ENTRIES, ALIASES, ADDRESSES, COMMENTS = "sdn.csv", "alt.csv", "add.csv", "sdn_comments.csv"
COLUMNS = {ENTRIES: 12, ALIASES: 5, ADDRESSES: 6, COMMENTS: 2}
REMARKS_CHARS = 1000
MOST_ORPHANS = 0.01

_FILE_OF = {columns: name for name, columns in COLUMNS.items()}
_SCHEMATA: dict[str, EntitySchema] = {"individual": "Person", "vessel": "Vessel", "aircraft": "Airplane"}
_NULL = "-0-"


def _role(head: Head) -> str:
    """Which of the files this is, by its first row; `` where it is none."""
    try:
        cells = next(csv.reader([head.first_line]), [])
    except csv.Error:
        return ""
    return _FILE_OF.get(len(cells), "") if cells and cells[0].strip().isdecimal() else ""


def _objection(heads: Sequence[Head]) -> Objection:
    roles = [_role(head) for head in heads]
    if ENTRIES not in roles:
        return f"has no row of {COLUMNS[ENTRIES]} columns that begins with a number on its first line"
    for head, role in zip(heads, roles, strict=True):
        if not role:
            return f"has rows of 12, 5, 6 or 2 columns that begin with a number, and {head.path.name} has not"
    return "" if len(set(roles)) == len(roles) else f"has one file of each kind, not {', '.join(sorted(roles))}"


def _entities(heads: Sequence[Head], reading: Reading) -> Iterator[Entity]:
    paths = _complete({_role(head): head.path for head in heads})
    aliases = _by_entry(paths[ALIASES], COLUMNS[ALIASES], reading)
    addresses = _by_entry(paths[ADDRESSES], COLUMNS[ADDRESSES], reading)
    comments = _by_entry(paths[COMMENTS], COLUMNS[COMMENTS], reading) if COMMENTS in paths else {}
    rows_beside = sum(map(len, aliases.values())) + sum(map(len, addresses.values()))
    for row in _rows(paths[ENTRIES], COLUMNS[ENTRIES], reading):
        where = f"{paths[ENTRIES].name}, line {row.line}"
        reading.entry(where)
        cells = [_value(cell) for cell in row.cells]
        number = cells[0]
        party = Party(number, _SCHEMATA.get(cells[2].lower(), "Organization"), "sanction")
        turned = party.schema == "Person"
        party.names = [_name(text, turned) for text in (cells[1], *(row[3] for row in aliases.pop(number, ())))]
        party.programmes = [part.strip(" []") for part in cells[3].split("] [")]
        party.countries.append(cells[9])
        for address in addresses.pop(number, ()):
            party.addresses.append(joined(*address[2:5]))
            party.countries.append(address[4])
        more = "".join(comment[1] for comment in comments.pop(number, ()))
        remarks = row.cells[11].strip()
        if not more and len(remarks) >= REMARKS_CHARS:
            reading.tally.add("incomplete_remarks", number)
            remarks = remarks.rpartition(";")[0]
        ofac_remarks.read(_value(remarks) + more, party, turned)
        entity = party.entity(reading, where)
        if entity is not None:
            yield entity
    _check_orphans({ALIASES: aliases, ADDRESSES: addresses}, rows_beside, reading)


def _complete(paths: dict[str, Path]) -> dict[str, Path]:
    """The paths given, and those of files beside the entries. Raises ListRefused where one that matters is missing."""
    folder = paths[ENTRIES].parent
    beside = {name: folder / spelt for name in COLUMNS for spelt in (name.upper(), name) if (folder / spelt).is_file()}
    complete = beside | paths
    missing = [name for name in (ALIASES, ADDRESSES) if name not in complete]
    if missing:
        raise ListRefused(
            f"{' and '.join(missing)} neither given nor beside it: without them the list has no aliases or addresses; "
            f"put {ENTRIES}, {ALIASES} and {ADDRESSES} of one date into one folder",
            str(paths[ENTRIES]),
        )
    return complete


def _rows(path: Path, width: int, reading: Reading) -> Iterator[Row]:
    for row in rows(path, reading.limits):
        if len(row.cells) != width:
            raise width_refusal(path, row, width)
        if not row.cells[0].strip().isdecimal():
            raise ListRefused(
                f"the row begins with {shown(row.cells[0])}, not with the number of an entry",
                f"{path.name}, line {row.line}",
            )
        yield row


def _by_entry(path: Path, width: int, reading: Reading) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for row in _rows(path, width, reading):
        found.setdefault(row.cells[0].strip(), []).append([_value(cell) for cell in row.cells])
    return found


def _check_orphans(left: dict[str, dict[str, list[list[str]]]], rows_beside: int, reading: Reading) -> None:
    """Rows of entries that are not there are counted; many of them show that the files are not of one list."""
    orphans = 0
    for name, of_entries in left.items():
        for number, found in of_entries.items():
            orphans += len(found)
            reading.tally.add("orphans", f"{name}: {number}", len(found))
    if orphans > MOST_ORPHANS * rows_beside:
        raise ListRefused(
            f"{orphans:,} of {rows_beside:,} aliases and addresses belong to entries that are not in {ENTRIES}: "
            "the files are of different dates, or one is cut off; fetch them again together",
            ", ".join(COLUMNS),
        )


def _value(text: str) -> str:
    text = text.strip()
    return "" if text == _NULL else text


def _name(text: str, turned: bool) -> str:
    """A name; of a person given as "LAST, First" or "LAST, First, Jr.", in the order of speech."""
    if not turned:
        return text
    last, _, first = text.partition(",")
    first, _, suffix = first.partition(",")
    return " ".join((first.strip(), last.strip(), suffix.strip()))


FORMAT = Format("ofac-csv", "OFAC's SDN list as CSV (sdn.csv, alt.csv, add.csv)", _objection, _entities)
