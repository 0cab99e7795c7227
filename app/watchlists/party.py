"""One entry of a list on its way to becoming an entity: as its reader found it, then cleaned, without repetitions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from app.watchlists.countries import table
from app.watchlists.dates import birth_dates
from app.watchlists.limits import Limits
from app.watchlists.refusal import ListRefused, shown
from app.watchlists.tally import Tally
from core.entities import Entity, EntitySchema, Identifier, IdentifierKind, ListKind

LONGEST_ID = 255
_JOINERS = "\u200c\u200d"  # without which words of Persian and of Indian scripts are others
_DIGIT = re.compile(r"\d")

Value = TypeVar("Value", bound=Hashable)


class Reading:
    """What the reading of one list shares: limits, the kind asked for, what is counted, and the list's own date.

    kind: of every entry, None = as the list says.  published: `2026-02-27`, set by a reader that finds it.
    entries: those read so far, taken or not.
    """

    def __init__(self, limits: Limits, kind: ListKind | None) -> None:
        self.limits = limits
        self.kind = kind
        self.tally = Tally()
        self.published: str | None = None
        self.entries = 0
        self.countries = table()

    def entry(self, where: str) -> None:
        """Count one entry. Raises ListRefused beyond the limit."""
        self.entries += 1
        if self.entries > self.limits.entities:
            raise ListRefused(f"the list has more than {self.limits.entities:,} entries", where)

    def published_at(self, text: str) -> None:
        """Take the list's date from a text that begins with it: the latest of those given."""
        dates = birth_dates(text.strip()[:10])
        if dates and len(dates[0]) == 10 and dates[0] > (self.published or ""):
            self.published = dates[0]


class Party:
    """What a reader gathers of one entry, in the list's own words. A reader sets and appends as it goes along."""

    __slots__ = (
        "addresses",
        "birth_dates",
        "countries",
        "id",
        "identifiers",
        "kind",
        "names",
        "programmes",
        "schema",
        "weak_names",
    )

    def __init__(self, entry_id: str, schema: EntitySchema, kind: ListKind) -> None:
        self.id = entry_id
        self.schema = schema
        self.kind = kind
        self.names: list[str] = []
        self.weak_names: list[str] = []
        self.countries: list[str] = []
        self.birth_dates: list[str] = []
        self.identifiers: list[tuple[IdentifierKind, str, str]] = []  # kind, number, country or ``
        self.programmes: list[str] = []
        self.addresses: list[str] = []

    def entity(self, reading: Reading, where: str) -> Entity | None:
        """The entity, or None where no name is left of it, which is counted.

        Where the list calls all its names weak, they are all the names it has. Raises ListRefused for an entry without
        an id or with more values than one entry can have.
        """
        entry_id = clean(self.id)
        if not entry_id or len(entry_id) > LONGEST_ID:
            what = f"an id of {len(entry_id):,} characters" if entry_id else "no id"
            raise ListRefused(f"the entry has {what}; it must have one of at most {LONGEST_ID}", where)
        self._bound(reading, where)
        names = tuple(_unique(_names(self.names, reading, entry_id)))
        weak_names = tuple(name for name in _unique(_names(self.weak_names, reading, entry_id)) if name not in names)
        if not names:
            names, weak_names = weak_names, ()
        if not names:
            reading.tally.add("no_name", entry_id)
            return None
        return Entity(
            id=entry_id,
            schema=self.schema,
            kind=reading.kind or self.kind,
            names=names,
            weak_names=weak_names,
            countries=tuple(_unique(self._countries(reading))),
            birth_dates=tuple(_unique(self._birth_dates(reading))),
            identifiers=tuple(_unique(self._identifiers(reading, entry_id))),
            programmes=tuple(_unique(_values(self.programmes, reading, entry_id))),
            addresses=tuple(_unique(_values(self.addresses, reading, entry_id))),
        )

    def _bound(self, reading: Reading, where: str) -> None:
        fields = (self.names, self.weak_names, self.countries, self.birth_dates, self.programmes, self.addresses)
        count = sum(map(len, fields)) + len(self.identifiers)
        if count > reading.limits.entry_values:
            raise ListRefused(
                f"the entry {shown(self.id)} has {count:,} values; at most {reading.limits.entry_values:,} are read",
                where,
            )

    def _countries(self, reading: Reading) -> Iterator[str]:
        for text in self.countries:
            code = reading.countries.code(text)
            if code:
                yield code
            elif code is None:
                reading.tally.add("unknown_country", shown(clean(text)))

    def _birth_dates(self, reading: Reading) -> Iterator[str]:
        for text in self.birth_dates:
            dates = birth_dates(text)
            if not dates and text.strip():
                reading.tally.add("unknown_date", shown(clean(text)))
            yield from dates

    def _identifiers(self, reading: Reading, entry_id: str) -> Iterator[Identifier]:
        for kind, text, country in self.identifiers:
            if kind == "national_id" and self.schema != "Person":
                kind = "other"  # of a business it is a number of some register, in some countries of the only one
            for number in _values([text], reading, entry_id):
                if _DIGIT.search(number) or kind == "bic":
                    yield Identifier(kind, number, reading.countries.code(country) or None if country else None)


def clean(text: str) -> str:
    """A value on one line, without the characters that show nothing."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    shown_only = "".join(
        letter for letter in text if letter in _JOINERS or not unicodedata.category(letter).startswith("C")
    )
    return " ".join(shown_only.split())


def joined(*parts: str) -> str:
    """The parts of an address as one line."""
    return ", ".join(part for part in map(clean, parts) if part)


def _names(texts: Iterable[str], reading: Reading, entry_id: str) -> Iterator[str]:
    for name in _values(texts, reading, entry_id):
        if any(map(str.isalnum, name)):
            yield name


def _values(texts: Iterable[str], reading: Reading, entry_id: str) -> Iterator[str]:
    longest = reading.limits.text_chars
    for text in texts:
        value = clean(text)
        if len(value) > longest:
            reading.tally.add("cut", entry_id)
            value = value[:longest].rstrip()
        if value:
            yield value


def _unique(values: Iterable[Value]) -> Iterable[Value]:
    return dict.fromkeys(values)
