"""What a reader left out or changed: counted by reason, with a few examples, so that nothing goes missing unsaid."""

from __future__ import annotations

from msgspec import Struct

EXAMPLES = 5

REASONS = {
    "no_name": "entries had no usable name and were left out",
    "no_party": "entries are nobody that could be screened against and were left out",
    "not_target": "entries are connected with targets but none themselves, and were left out",
    "repeated": "entries stood in the list twice, word for word, and were taken once",
    "orphans": "aliases, addresses or remarks belong to an entry that is not in the list",
    "unknown_country": "mentions of a country could not be read as one",
    "unknown_date": "dates of birth could not be read",
    "cut": "names or other values were longer than is kept and were cut",
    "incomplete_remarks": "entries had remarks that the list itself breaks off; their last piece was left out",
}
"""Every reason, with the words that say it after a number."""


class Note(Struct, frozen=True):
    """One reason.  count: how often.  examples: some of the places or values, no two the same."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()

    def sentence(self, entries: int) -> str:
        """As a command says it: `3 of 8,976 entries had no usable name and were left out (36, 173, 306)`."""
        words = REASONS[self.reason]
        number = f"{self.count:,} of {entries:,}" if words.startswith("entries") else f"{self.count:,}"
        examples = ", ".join(self.examples) + (", ..." if self.count > len(self.examples) else "")
        return f"{number} {words}" + (f" ({examples})" if self.examples else "")


class Tally:
    """Counts while a list is read."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, dict[str, None]] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + count
        examples = self._examples.setdefault(reason, {})
        if len(examples) < EXAMPLES:
            examples.setdefault(example)

    def count(self, reason: str) -> int:
        return self._counts.get(reason, 0)

    def notes(self) -> tuple[Note, ...]:
        """In the order of REASONS."""
        return tuple(
            Note(reason, self._counts[reason], tuple(self._examples[reason]))
            for reason in REASONS
            if reason in self._counts
        )
