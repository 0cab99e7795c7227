"""What a format is to those who read lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from app.watchlists.party import Reading
from app.watchlists.text import Head
from core.entities import Entity

Objection = str
"""Why files are not of a format, in words that follow its name; `` where they are."""


class Format(Struct, frozen=True):
    """One format of lists.

    objection: looks at the beginnings of the files of one list.  entities: reads them; the names of files are theirs.
    """

    name: str
    title: str
    objection: Callable[[Sequence[Head]], Objection]
    entities: Callable[[Sequence[Head], Reading], Iterator[Entity]]


def one_file(heads: Sequence[Head]) -> Objection:
    """The objection of formats that are one file."""
    return "" if len(heads) == 1 else f"is one file, not {len(heads)}"
