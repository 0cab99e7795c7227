"""A model flattened into the arrays that the compiled core works on."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.conditions import Condition, Rule
from core.model import CATEGORIES, DECISIONS, LEVELS, Characteristic, Feature, Model


@dataclass(slots=True)
class LinePlan:
    """One characteristic; the fields are those of kernel.Line."""

    feature: int
    is_category: bool
    first_bound: int
    n_bounds: int
    first_bin: int
    n_bins: int
    first_attribute: int
    missing: int
    not_applicable: int
    rule: int
    chosen: bool
    category: int
    required: bool
    group: int
    best: int
    worst: int


@dataclass(slots=True)
class CardPlan:
    """The arrays of kernel.Card, named alike."""

    n_features: int
    base: int
    bands: list[int]
    decisions: list[int]
    lines: list[LinePlan] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    attribute_of: list[int] = field(default_factory=list)
    points_of: list[tuple[int, bool]] = field(default_factory=list)
    rules: list[tuple[int, int]] = field(default_factory=list)
    alternatives: list[tuple[int, int, int]] = field(default_factory=list)
    terms: list[tuple[int, bool, int, int, int]] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    floors: list[tuple[int, int, int]] = field(default_factory=list)
    overrides: list[tuple[int, int, int]] = field(default_factory=list)
    groups: list[tuple[int, int]] = field(default_factory=list)


def card_plan(model: Model) -> CardPlan:
    """The plan of a sound model."""
    builder = _Builder(model)
    for c in model.characteristics:
        builder.add_line(c)
    for category in model.categories:
        for floor in category.floors:
            builder.plan.floors.append((CATEGORIES.index(floor.category), floor.points, LEVELS.index(floor.level)))
    for override in model.overrides:
        rule = builder.rule(override.when)
        builder.plan.overrides.append((rule, LEVELS.index(override.floor), DECISIONS.index(override.decision)))
    return builder.plan


class _Builder:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.column = {name: place for place, name in enumerate(model.features)}
        self.group_names = sorted({c.exclusive for c in model.characteristics if c.exclusive})
        self.plan = CardPlan(
            n_features=len(model.features),
            base=model.base,
            bands=[mark for _, mark in model.bands],
            decisions=[DECISIONS.index(model.decisions[level]) for level in LEVELS],
        )
        for name in self.group_names:
            members = [c for c in model.characteristics if c.exclusive == name]
            self.plan.groups.append((min(c.best for c in members), max(c.worst for c in members)))

    def add_line(self, c: Characteristic) -> None:
        plan, feature = self.plan, self.model.features[c.feature]
        first_bound, first_bin, first_attribute = len(plan.bounds), len(plan.attribute_of), len(plan.points_of)
        plan.points_of.extend((a.points, a.missing) for a in c.attributes)
        if feature.values is None:
            self._add_intervals(c)
        else:
            at = {value: place for place, a in enumerate(c.attributes) for value in a.condition.values}
            plan.attribute_of.extend(at[value] for value in feature.values)
        rule = c.chosen_when or c.not_applicable_when
        plan.lines.append(
            LinePlan(
                feature=self.column[c.feature],
                is_category=feature.values is not None,
                first_bound=first_bound,
                n_bounds=len(plan.bounds) - first_bound,
                first_bin=first_bin,
                n_bins=len(plan.attribute_of) - first_bin,
                first_attribute=first_attribute,
                missing=next(place for place, a in enumerate(c.attributes) if a.condition.missing),
                not_applicable=next((place for place, a in enumerate(c.attributes) if a.condition.not_applicable), -1),
                rule=self.rule(rule) if rule is not None else -1,
                chosen=c.chosen_when is not None,
                category=CATEGORIES.index(c.category),
                required=c.required,
                group=self.group_names.index(c.exclusive) if c.exclusive else -1,
                best=c.best,
                worst=c.worst,
            )
        )

    def _add_intervals(self, c: Characteristic) -> None:
        ordered = sorted((i.low, place) for place, a in enumerate(c.attributes) for i in a.condition.intervals)
        self.plan.bounds.extend(low for low, _ in ordered[1:])
        self.plan.attribute_of.extend(place for _, place in ordered)

    def rule(self, rule: Rule) -> int:
        first = len(self.plan.alternatives)
        for alternative in rule.alternatives:
            first_term = len(self.plan.terms)
            for name, condition in alternative.terms:
                self.plan.terms.append(self._term(name, condition))
            required = sum(1 << CATEGORIES.index(category) for category in alternative.required_missing)
            self.plan.alternatives.append((first_term, len(alternative.terms), required))
        self.plan.rules.append((first, len(rule.alternatives)))
        return len(self.plan.rules) - 1

    def _term(self, name: str, condition: Condition) -> tuple[int, bool, int, int, int]:
        first, codes = add_condition(condition, self.model.features[name], self.plan.intervals)
        return (self.column[name], condition.missing, first, len(condition.intervals), codes)


def add_condition(condition: Condition, feature: Feature, intervals: list[tuple[float, float]]) -> tuple[int, int]:
    """Append a condition's intervals; its first interval's place and the bit mask of its values."""
    first = len(intervals)
    intervals.extend((interval.low, interval.high) for interval in condition.intervals)
    return first, sum(1 << (feature.values or ()).index(value) for value in condition.values)
