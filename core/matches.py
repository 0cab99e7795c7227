"""What is screened, what was found, and why."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from core.entities import Identifier
from core.normal import Name

DEFAULT_CUTOFF = 0.75
"""The score from which two names are taken for one: best F1 on labelled pairs, for persons and organisations alike."""

PartKind = Literal[
    "equal",
    "similar",
    "left_over",
    "left_over_listed",
    "numbers",
    "whole",
    "weak_name",
    "country",
    "birth_date",
    "identifier",
]


class Query(Struct, frozen=True):
    """One party to look for.

    names: its name and aliases.  person: how names are compared; None = both ways, the better counts.
    countries: ISO 3166-1 alpha-2.  birth_date: `1970-03-02`, `1970-03` or `1970`.
    """

    names: tuple[Name, ...]
    person: bool | None
    countries: tuple[str, ...] = ()
    birth_date: str | None = None
    identifiers: tuple[Identifier, ...] = ()


class Part(Struct, frozen=True):
    """One piece of a score.

    label: the words, `asked~listed` where they are not equal; the country; the date; the identifier.
    effect: of words, how alike they are, 0 to 1, and 0 for what is left over; of the names as a whole the same; of an
    identifier the score that it gives at least; of all else what the score gained or lost.
    weight: of the words in the comparison, 1 = a full word; 0 where there are none.
    """

    kind: PartKind
    label: str
    effect: float
    weight: float = 0.0


class Match(Struct, frozen=True):
    """A listed entity that may be the one asked for.

    entity: its ordinal in the index.  score: 0 to 1, four digits.  name: the listed name that matched best, as the
    list writes it.  query_name: place of the name that it matched, in Query.names.  is_exact_name: the same words,
    whatever their order, legal forms and spellings folded.  is_identifier: an identifier is the same.
    birth_date_agrees: both full dates are the same.  country_agrees: None where one side tells none.
    """

    entity: int
    score: float
    name: str
    query_name: int
    parts: tuple[Part, ...]
    is_exact_name: bool
    is_identifier: bool
    birth_date_agrees: bool
    country_agrees: bool | None


def explain(match: Match) -> str:
    """One line that names every part: `acme~acne 0.87; trading = trading; left over: gmbh; country DE agrees +0.02`."""
    return "; ".join(filter(None, (_phrase(part) for part in match.parts)))


def _phrase(part: Part) -> str:
    match part.kind:
        case "equal":
            return f"{part.label} = {part.label}"
        case "similar":
            return f"{part.label} {part.effect:.2f}"
        case "left_over":
            return f"left over: {part.label}"
        case "left_over_listed":
            return f"left over in the list: {part.label}"
        case "numbers":
            return f"numbers differ {part.effect:+.2f}"
        case "whole":
            return f"as a whole {part.effect:.2f}"
        case "weak_name":
            return f"the list calls the name weak {part.effect:+.2f}"
        case "country":
            return f"country {part.label} {'agrees' if part.effect > 0 else 'differs'} {part.effect:+.2f}"
        case "birth_date":
            return f"birth date {part.label} {'agrees' if part.effect > 0 else 'differs'} {part.effect:+.2f}"
        case "identifier":
            return f"identifier {part.label} is the same"
