"""The checks of a model as a whole: those that need more than one of its parts. Each fault names the line to change."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise

from core.conditions import Rule
from core.document import Faults
from core.model import (
    CATEGORIES,
    HUNDREDTHS,
    INDUSTRY_SCHEMES,
    LEVELS,
    MAX_SCORE,
    Attribute,
    Characteristic,
    Feature,
    Floor,
    Model,
    Table,
)

LARGEST_SHARE = 1 / 3

# What the compiled core has room for: bits of one mask, and places in its arrays.
MAX_VALUES = 63
MAX_ATTRIBUTES = 255
MAX_CHARACTERISTICS = 512
MAX_RULES = 64

_COUNTRY = re.compile(r"[A-Z]{2}")
_PREFIX = re.compile(r"[0-9]{1,6}")


def check(model: Model, faults: Faults) -> None:
    """Add every fault of the whole to `faults`."""
    _check_names(model, faults)
    _check_sizes(model, faults)
    _check_bands(model, faults)
    _check_tables(model, faults)
    _check_features(model, faults)
    for c in model.characteristics:
        feature = model.features.get(c.feature)
        if feature is not None:
            where = f"characteristics[{c.name}]"
            _check_cover(c, feature, where, faults)
            _check_missing(c, where, faults)
            _check_direction(c, feature, where, faults)
            _check_not_applicable(c, where, faults)
    _check_groups(model, faults)
    _check_sums(model, faults)
    _check_floors(model, faults)


def _shown(points: int) -> str:
    return f"{points / HUNDREDTHS:g}"


def _check_names(model: Model, faults: Faults) -> None:
    names: dict[str, int] = {}
    for c in model.characteristics:
        if c.name in names:
            faults.add(c.line, f"characteristics[{c.name}]", f"the name stands twice (first on line {names[c.name]})")
        names.setdefault(c.name, c.line)
    codes: dict[str, str] = {}
    coded = [(a.code, f"characteristics[{c.name}]", a.line) for c in model.characteristics for a in c.attributes]
    coded += [(o.code, f"overrides[{o.code}]", o.line) for o in model.overrides]
    coded += [(f.code, f"categories[{k.name}]", f.line) for k in model.categories for f in k.floors]
    for code, where, line in coded:
        if code and code in codes:
            faults.add(line, where, f"the code {code} stands twice (also in {codes[code]})")
        codes.setdefault(code, where)
    listed = [k.name for k in model.categories]
    if sorted(listed) != sorted(CATEGORIES):
        faults.add(1, "categories", f"must hold each of {', '.join(CATEGORIES)} once")


def _check_sizes(model: Model, faults: Faults) -> None:
    floors = sum(len(category.floors) for category in model.categories)
    groups = len({c.exclusive for c in model.characteristics if c.exclusive})
    for what, count, most in (
        ("characteristics", len(model.characteristics), MAX_CHARACTERISTICS),
        ("overrides", len(model.overrides), MAX_RULES),
        ("floors", floors, MAX_RULES),
        ("exclusive groups", groups, MAX_RULES),
    ):
        if count > most:
            faults.add(1, what, f"there are {count}, and at most {most} are possible")
    if not model.characteristics:
        faults.add(1, "characteristics", "there is none")
    for c in model.characteristics:
        if len(c.attributes) > MAX_ATTRIBUTES:
            faults.add(c.line, f"characteristics[{c.name}]", f"has more than {MAX_ATTRIBUTES} attributes")
    for feature in model.features.values():
        if feature.values is not None and len(feature.values) > MAX_VALUES:
            faults.add(feature.line, f"features.{feature.name}", f"has more than {MAX_VALUES} values")


def _check_bands(model: Model, faults: Faults) -> None:
    if [level for level, _ in model.bands] != list(LEVELS):
        faults.add(1, "bands", f"must hold {', '.join(LEVELS)} in this order")
        return
    marks = [mark for _, mark in model.bands]
    if marks[0] != 0:
        faults.add(1, "bands[low]", "must begin at 0")
    if any(low >= high for low, high in pairwise(marks)):
        faults.add(1, "bands", "each level must begin above the one before")


def _check_tables(model: Model, faults: Faults) -> None:
    for kind in ("countries", "industries"):
        found = [t.name for t in model.tables.values() if t.kind == kind]
        if found != [kind]:
            faults.add(1, "tables", f"there must be exactly one table of kind {kind}, named {kind}")
    countries, industries = model.tables.get("countries"), model.tables.get("industries")
    if countries is not None:
        _check_countries(countries, faults)
    if industries is not None:
        _check_industries(industries, faults)
    if countries is None or industries is None:
        return
    known = {*countries.codes, *industries.groups}
    for table in model.tables.values():
        where = f"tables.{table.name}"
        _check_once("class", table.classes, table, faults)
        if table.kind == "classes" and not table.classes:
            faults.add(table.line, f"{where}.classes", "there is none")
        for code in (*table.class_of, *(table.codes if table.kind == "set" else ())):
            if code not in known:
                faults.add(table.line, where, f'"{code}" is neither a country nor an industry group')


def _check_countries(table: Table, faults: Faults) -> None:
    where = f"tables.{table.name}"
    _check_once("code", table.codes, table, faults)
    for code in (*table.codes, *table.aliases, *table.withdrawn):
        if not _COUNTRY.fullmatch(code):
            faults.add(table.line, where, f'"{code}" is not two capital letters')
    for alias, code in table.aliases.items():
        if code not in table.codes:
            faults.add(table.line, f"{where}.aliases", f'"{code}" is not one of the codes')
        if alias in table.codes:
            faults.add(table.line, f"{where}.aliases", f'"{alias}" is one of the codes itself')
    for code in table.withdrawn:
        if code in table.codes or code in table.aliases:
            faults.add(table.line, f"{where}.withdrawn", f'"{code}" is one of the codes or aliases')


def _check_industries(table: Table, faults: Faults) -> None:
    _check_once("group", table.groups, table, faults)
    for scheme, prefixes in table.schemes.items():
        where = f"tables.{table.name}.schemes.{scheme}"
        if scheme not in INDUSTRY_SCHEMES:
            faults.add(table.line, where, f"unknown scheme (one of {', '.join(INDUSTRY_SCHEMES)})")
        for prefix in prefixes:
            if not _PREFIX.fullmatch(prefix):
                faults.add(table.line, where, f'"{prefix}" is not a prefix of one to six digits')
    lacking = [scheme for scheme in INDUSTRY_SCHEMES if scheme not in table.schemes]
    if lacking:
        faults.add(table.line, f"tables.{table.name}.schemes", f"no codes for {', '.join(lacking)}")


def _check_once(what: str, values: Iterable[str], table: Table, faults: Faults) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            faults.add(table.line, f"tables.{table.name}", f'the {what} "{value}" stands twice')
        seen.add(value)


def _check_features(model: Model, faults: Faults) -> None:
    """A table must speak of what a feature looks up in it: of countries or of industry groups."""
    countries, industries = model.tables.get("countries"), model.tables.get("industries")
    if countries is None or industries is None:
        return
    for feature in model.features.values():
        table = model.tables.get(feature.table)
        if table is None:
            continue
        names, what = (industries.groups, "industries") if feature.of_industry else (countries.codes, "countries")
        where, listed = f"features.{feature.name}", table.class_of or table.codes
        strange = [code for code in listed if code not in names]
        if strange:
            faults.add(feature.line, where, f'the table {table.name} is not of {what}: it holds "{strange[0]}"')
        elif table.kind == "classes" and not table.default:
            lacking = [name for name in names if name not in listed]
            if lacking:
                message = f"the table {table.name} has no default, and no class for {', '.join(lacking)}"
                faults.add(feature.line, where, message)


def _check_cover(c: Characteristic, feature: Feature, where: str, faults: Faults) -> None:
    for a in c.attributes:
        others = bool(a.condition.intervals or a.condition.values)
        if a.condition.not_applicable and (others or a.condition.missing):
            faults.add(a.line, where, "`not_applicable` must be an attribute of its own")
        if a.condition.missing and others and not a.unknown:
            faults.add(a.line, where, "`missing` must be an attribute of its own, or one that says `unknown: true`")
    if feature.values is not None:
        seen: set[str] = set()
        for a in c.attributes:
            for value in a.condition.values:
                if value in seen:
                    faults.add(a.line, where, f'the value "{value}" stands in two attributes')
                seen.add(value)
        lacking = [value for value in feature.values if value not in seen]
        if lacking:
            faults.add(c.line, where, f"no attribute for {', '.join(lacking)}")
        return
    intervals = sorted((i for a in c.attributes for i in a.condition.intervals), key=lambda i: i.low)
    if not intervals:
        faults.add(c.line, where, "no attribute with an interval")
        return
    if intervals[0].low != -math.inf or intervals[-1].high != math.inf:
        faults.add(c.line, where, "the intervals must begin at -inf and end at inf")
    for left, right in pairwise(intervals):
        if left.high < right.low:
            faults.add(c.line, where, f"a gap between {left.text} and {right.text}")
        elif left.high > right.low:
            faults.add(c.line, where, f"{left.text} and {right.text} overlap")


def _check_missing(c: Characteristic, where: str, faults: Faults) -> None:
    missing = [a for a in c.attributes if a.condition.missing]
    if len(missing) != 1:
        faults.add(c.line, where, f"must have exactly one `missing` attribute, not {len(missing)}")
    known = [a for a in c.attributes if not a.missing and not a.condition.not_applicable]
    benign = max((a.points for a in known if not a.adverse), default=None)
    if benign is None:
        faults.add(c.line, where, "every attribute is adverse; at least one must not be")
        return
    for a in c.attributes:
        if not a.missing:
            continue
        if a.points < benign:
            message = (
                f"has {_shown(a.points)} points, fewer than the {_shown(benign)} of an attribute that is not adverse"
            )
            faults.add(a.line, where, f"{a.label} {message}")
        if c.required and a.points < c.worst:
            message = f"the feature is required, so {a.label} must have the most points ({_shown(c.worst)})"
            faults.add(a.line, where, message)


def _check_direction(c: Characteristic, feature: Feature, where: str, faults: Faults) -> None:
    if not c.direction:
        return
    if feature.values is not None:
        faults.add(c.line, where, "a direction belongs to a number, and this feature is a category")
        return
    ordered = sorted(((i.low, a) for a in c.attributes for i in a.condition.intervals), key=lambda pair: pair[0])
    sign = 1 if c.direction == "rising" else -1
    for (_, left), (_, right) in pairwise(ordered):
        if sign * (right.points - left.points) < 0:
            faults.add(right.line, where, f"points must be {c.direction}, but {_against(left, right)}")


def _against(left: Attribute, right: Attribute) -> str:
    return f"{left.label} has {_shown(left.points)} and {right.label} has {_shown(right.points)}"


def _check_not_applicable(c: Characteristic, where: str, faults: Faults) -> None:
    attributes = [a for a in c.attributes if a.condition.not_applicable]
    wanted = c.not_applicable_when is not None or bool(c.exclusive)
    if len(attributes) != (1 if wanted else 0):
        needed = "exactly one" if wanted else "no"
        belongs = "(it goes with not_applicable_when or exclusive)"
        faults.add(c.line, where, f"must have {needed} `not_applicable` attribute {belongs}")
    for a in attributes:
        if c.exclusive and a.points:
            faults.add(a.line, where, "a characteristic that is not chosen has 0 points")
        elif a.points > c.worst:
            faults.add(a.line, where, f"not_applicable has more points than the worst attribute ({_shown(c.worst)})")


def _check_groups(model: Model, faults: Faults) -> None:
    """Of an exclusive group exactly one is chosen: its rules share out the values of one category."""
    groups: dict[str, list[Characteristic]] = {}
    for c in model.characteristics:
        if c.exclusive and c.chosen_when is not None:
            groups.setdefault(c.exclusive, []).append(c)
    for name, members in groups.items():
        line, where = members[0].line, f"exclusive group {name}"
        if len({c.category for c in members}) > 1:
            faults.add(line, where, "must stand in one category")
        deciding = {feature for c in members if c.chosen_when for feature in _deciding(c.chosen_when)}
        feature = model.features.get(deciding.pop()) if len(deciding) == 1 else None
        if feature is None or feature.values is None:
            faults.add(
                line, where, "every chosen_when must ask for values of one and the same category, and nothing else"
            )
            continue
        chosen = [value for c in members if c.chosen_when for value in _values_of(c.chosen_when)]
        wanted = [*feature.values, *(() if feature.kind == "distress_choice" else ("missing",))]
        for value in wanted:
            if chosen.count(value) != 1:
                count = "none of them" if value not in chosen else "more than one of them"
                faults.add(line, where, f"where {feature.name} is {value}, {count} is chosen; it must be exactly one")


def _deciding(rule: Rule) -> list[str]:
    """The features a rule asks for; an alternative that asks for several at once counts as one of its own."""
    return [" and ".join(name for name, _ in alternative.terms) for alternative in rule.alternatives]


def _values_of(rule: Rule) -> list[str]:
    """The values, `missing` among them, for which a rule over one category holds; each once."""
    conditions = [condition for alternative in rule.alternatives for _, condition in alternative.terms]
    values = {value for condition in conditions for value in condition.values}
    return sorted(values | {"missing" for condition in conditions if condition.missing})


def _check_sums(model: Model, faults: Faults) -> None:
    spans = model.spans()
    reachable = [
        (min(a.points for a in c.attributes), max(a.points for a in c.attributes))
        for c in model.characteristics
        if c.attributes and not c.exclusive
    ]
    groups = model.group_spans()
    lowest = model.base + sum(best for best, _ in (*reachable, *groups))
    highest = model.base + sum(worst for _, worst in (*reachable, *groups))
    if lowest < 0 or highest > MAX_SCORE:
        message = f"the score can run from {_shown(lowest)} to {_shown(highest)}; it must stay within 0 to 100"
        faults.add(1, "characteristics", message)
    if model.bands and highest < model.bands[-1][1]:
        top, mark = model.bands[-1]
        message = f"begins at {_shown(mark)}, but no profile can score above {_shown(highest)}"
        faults.add(1, f"bands[{top}]", message)
    total = sum(worst - best for best, worst in spans)
    for c in model.characteristics:
        if total and (c.worst - c.best) > total * LARGEST_SHARE:
            share = 100 * (c.worst - c.best) / total
            message = f"holds {share:.0f} % of all points; no single one may hold more than a third"
            faults.add(c.line, f"characteristics[{c.name}]", message)


def _check_floors(model: Model, faults: Faults) -> None:
    for category in model.categories:
        where = f"categories[{category.name}]"
        highest = sum(worst for _, worst in model.spans(category.name))
        for floor in category.floors:
            if floor.points > highest:
                message = f"{floor.code} begins at {_shown(floor.points)}, above the category's {_shown(highest)}"
                faults.add(floor.line, where, message)
        for left, right in pairwise(sorted(category.floors, key=lambda floor: floor.points)):
            if left.points == right.points or _rank(left) >= _rank(right):
                message = f"{right.code} must begin at more points than {left.code} and lift to a higher level"
                faults.add(right.line, where, message)


def _rank(floor: Floor) -> int:
    return LEVELS.index(floor.level) if floor.level in LEVELS else -1
