"""The model: what a model file says, typed. core.loader makes one of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.conditions import Condition, Rule
from core.document import Mapping, Sequence, Text
from core.formula import Formula
from core.ratios import MODELS

LEVELS = ("low", "medium", "high", "critical")
DECISIONS = ("approve", "review", "decline")
CATEGORIES = ("financial", "operational", "compliance", "geographic", "ownership", "industry", "reputational")
DISTRESS_CHOICES = (*MODELS[:4], "none")
FLAG_VALUES = ("false", "true")
INDUSTRY_SCHEMES = ("nace", "naics", "sic", "isic", "mcc")
HUNDREDTHS = 100
MAX_SCORE = 100 * HUNDREDTHS


class ModelRefused(Exception):
    """A model file with faults; all of them, each with its line."""

    def __init__(self, name: str, faults: list[str]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n  ".join((f"{name}: {count}", *faults)))
        self.name = name
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Table:
    """A dated fact of the model. Which of the last six are filled depends on `kind`."""

    name: str
    kind: str
    source: str
    as_of: str
    codes: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_of: dict[str, str] = field(default_factory=dict)
    default: str = ""
    groups: tuple[str, ...] = ()
    schemes: dict[str, dict[str, str]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    line: int = 1


@dataclass(frozen=True, slots=True)
class Feature:
    """A number (values is None), or a category with its values in order."""

    name: str
    kind: str
    values: tuple[str, ...] | None
    of: tuple[str, ...] = ()
    where: tuple[tuple[str, Condition], ...] = ()
    table: str = ""
    unknown_below: str = ""
    formula: Formula | None = None
    distress: str = ""
    of_industry: bool = False
    line: int = 1

    @property
    def is_flag(self) -> bool:
        return self.values == FLAG_VALUES


@dataclass(frozen=True, slots=True)
class Attribute:
    """One bin: its condition, its points in hundredths, its reason code and message."""

    condition: Condition
    label: str
    points: int
    code: str
    message: str
    adverse: bool
    unknown: bool
    line: int

    @property
    def missing(self) -> bool:
        """Whether this attribute counts as missing for completeness and range."""
        return self.unknown or self.condition.missing


@dataclass(frozen=True, slots=True)
class Characteristic:
    name: str
    title: str
    category: str
    feature: str
    required: bool
    direction: str
    attributes: tuple[Attribute, ...]
    not_applicable_when: Rule | None
    exclusive: str
    chosen_when: Rule | None
    line: int

    @property
    def best(self) -> int:
        return min((a.points for a in self.attributes if not a.condition.not_applicable), default=0)

    @property
    def worst(self) -> int:
        return max((a.points for a in self.attributes if not a.condition.not_applicable), default=0)


@dataclass(frozen=True, slots=True)
class Floor:
    """A category's points that reach `points` lift the level to at least `level`."""

    category: str
    points: int
    level: str
    code: str
    message: str
    line: int


@dataclass(frozen=True, slots=True)
class CategoryInfo:
    name: str
    title: str
    floors: tuple[Floor, ...]


@dataclass(frozen=True, slots=True)
class Override:
    code: str
    when: Rule
    floor: str
    decision: str
    legal: bool
    message: str
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Screening:
    """From which score on, 0 to 1, a listed name is a potential match."""

    threshold: float


DEFAULT_SCREENING = Screening(threshold=0.8)
"""Of models that say nothing of it."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model version. `sha256` is of the file's bytes and names the version for ever."""

    id: str
    version: str
    title: str
    released: str
    base: int
    bands: tuple[tuple[str, int], ...]
    decisions: dict[str, str]
    required_lists: tuple[str, ...]
    screening: Screening
    categories: tuple[CategoryInfo, ...]
    tables: dict[str, Table]
    features: dict[str, Feature]
    characteristics: tuple[Characteristic, ...]
    overrides: tuple[Override, ...]
    text: bytes
    sha256: bytes

    @property
    def key(self) -> str:
        return f"{self.id}@{self.version}"

    def spans(self, category: str | None = None) -> list[tuple[int, int]]:
        """(best, worst) points of each characteristic, an exclusive group standing once."""
        alone = [c for c in self.characteristics if not c.exclusive and category in (None, c.category)]
        return [*((c.best, c.worst) for c in alone), *self.group_spans(category)]

    def group_spans(self, category: str | None = None) -> list[tuple[int, int]]:
        """(best, worst) points of each exclusive group."""
        groups: dict[str, tuple[int, int]] = {}
        for c in self.characteristics:
            if c.exclusive and category in (None, c.category):
                best, worst = groups.get(c.exclusive, (c.best, c.worst))
                groups[c.exclusive] = (min(best, c.best), max(worst, c.worst))
        return list(groups.values())


_NUMBERS = frozenset({"points", "from", "base", "threshold"})
_FLAGS = frozenset({"adverse", "unknown", "required", "legal"})
_RULES = frozenset({"when", "where", "chosen_when", "not_applicable_when"})


def definition(tree: Any, key: str = "") -> Any:
    """A model file's tree for JSON: points as numbers, switches as booleans, all else as the text that it is."""
    if isinstance(tree, Mapping):
        if key in _RULES:  # features by name, which may be called anything
            return {k: definition(v, key) for k, v in tree.items()}
        return {k: definition(v, "value" if key == "values" else k) for k, v in tree.items()}
    if isinstance(tree, Sequence):
        return [definition(item, key) for item in tree]
    if isinstance(tree, Text):
        if key in _NUMBERS or key == "value":
            return float(tree)
        if key in _FLAGS:
            return tree == "true"
        return str(tree)
    return tree
