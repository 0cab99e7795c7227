"""Lists to screen against: a small one, and a real one where the shared data is there."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from core.entities import Entity, Identifier
from core.matches import Match, Query
from core.names import NameIndex
from core.normal import prepare

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the lists in {SHARED} are not part of the project")

ACME = Entity(
    "e-1",
    "Company",
    "sanction",
    ("Acme Trading GmbH", "Acme Handel"),
    weak_names=("The Falcon",),
    countries=("DE", "AT"),
    identifiers=(Identifier("registration", "HRB 12345", "DE"), Identifier("lei", "529900T8BM49AURSDO55")),
    programmes=("TEST",),
    addresses=("Hauptstrasse 1, Berlin",),
)
MARIA = Entity("e-2", "Person", "pep", ("Maria Musterfrau",), countries=("PL",), birth_dates=("1970-03-02", "1971"))
OTHER_MARIA = Entity("e-3", "Person", "sanction", ("MUSTERFRAU, Maria",), birth_dates=("1980-01",))
PLANT = Entity("e-4", "Organization", "other", ("Завод № 5 ООО", "Plant No. 5 LLC"))
SILENT = Entity("e-5", "LegalEntity", "other", ("☃",))
ENTITIES = [ACME, MARIA, OTHER_MARIA, PLANT, SILENT]


def index_of(*entities: Entity) -> NameIndex:
    return NameIndex(NameIndex.build(entities))


def company(name: str) -> Entity:
    return Entity(name, "Company", "sanction", (name,))


def asked(*names: str, person: bool | None = False, **more: object) -> Query:
    return Query(tuple(prepare(name, None) for name in names), person, **more)  # type: ignore[arg-type]


def found(index: NameIndex, query: Query, cutoff: float = 0.75, limit: int = 10) -> list[tuple[str, float]]:
    return [(index.entity(match.entity).id, match.score) for match in index.search(query, cutoff, limit)]


def only(index: NameIndex, query: Query, cutoff: float = 0.5) -> Match:
    (match,) = index.search(query, cutoff, 10)
    return match


def ofac() -> list[Entity]:
    """Names and aliases of the SDN list."""
    folder = SHARED / "ofac"
    aliases: dict[str, list[str]] = {}
    for row in _rows(folder / "alt.csv"):
        aliases.setdefault(row[0], []).append(row[3])
    return [
        Entity(
            row[0],
            "Person" if row[2].strip() == "individual" else "Organization",
            "sanction",
            (row[1], *aliases.get(row[0], ())),
        )
        for row in _rows(folder / "sdn.csv")
    ]


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="latin-1", newline="") as file:
        return [row for row in csv.reader(file) if len(row) > 3]
