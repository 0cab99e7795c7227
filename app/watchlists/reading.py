"""Reading a list: its files in, entities out, with what was left out and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from app.watchlists.formats.registry import chosen
from app.watchlists.limits import Limits
from app.watchlists.party import Reading
from app.watchlists.refusal import ListRefused, shown
from app.watchlists.tally import Note
from app.watchlists.text import head
from core.entities import Entity, ListKind

SHRUNK = 0.5

PathLike = str | os.PathLike[str]


class ReadList(Struct, frozen=True):
    """A list as it was read.

    format: its name in the registry of formats.  entries: those in the files, taken or not.  published: the list's own
    date, `2026-02-27`, where it tells one.  notes: what was left out or cut.
    """

    format: str
    entities: list[Entity]
    entries: int
    published: str | None = None
    notes: tuple[Note, ...] = ()

    def sentences(self) -> list[str]:
        """The notes as a command says them."""
        return [note.sentence(self.entries) for note in self.notes]


def read(
    paths: PathLike | Sequence[PathLike],
    *,
    format: str | None = None,
    kind: ListKind | None = None,
    limits: Limits | None = None,
) -> ReadList:
    """Read one list from its file or files.

    format: a name of the registry; without one, the content tells it.  kind: of every entity; without one, as the list
    says.  Blocks: 9,000 entries take about half a second. Raises ListRefused with what is wrong, and where.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not given:
        raise ListRefused("no file was named")
    limits = limits or Limits()
    heads = [head(path, limits) for path in given]
    made = chosen(format, heads)
    reading = Reading(limits, kind)
    entities = list(_once(made.entities(heads, reading), reading))
    if not entities:
        left_out = "; ".join(note.sentence(reading.entries) for note in reading.tally.notes())
        raise ListRefused(
            f"no entry could be taken from it: {left_out}" if left_out else "holds no entry",
            ", ".join(path.name for path in given),
        )
    return ReadList(made.name, entities, reading.entries, reading.published, reading.tally.notes())


def _once(entities: Iterator[Entity], reading: Reading) -> Iterator[Entity]:
    """Each entity once. Raises ListRefused for two different ones of one id: a hit could not say which it means."""
    seen: dict[str, Entity] = {}
    for entity in entities:
        first = seen.setdefault(entity.id, entity)
        if first is entity:
            yield entity
        elif first == entity:
            reading.tally.add("repeated", entity.id)
        else:
            raise ListRefused(
                f"two entries have the id {shown(entity.id)} and differ "
                f"({shown(first.names[0])}, {shown(entity.names[0])}); an id must be one entry's alone"
            )


def check_plausible(new: ReadList, known_entities: int | None, minimum: int) -> None:
    """Refuse a list that can hardly be whole.

    known_entities: of the list in use, None where there is none.  minimum: fewer are no list of this source. Raises
    ListRefused; who knows better does not call this.
    """
    count = len(new.entities)
    if count < minimum:
        raise ListRefused(
            f"the list has {count:,} entities; fewer than {minimum:,} are not plausible for this source. "
            "Look at the file, and force the update if it is right"
        )
    if known_entities is not None and count < SHRUNK * known_entities:
        raise ListRefused(
            f"the list has {count:,} entities, less than half of the {known_entities:,} in use. "
            "Look at the file, and force the update if it is right"
        )
