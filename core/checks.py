"""The checks of a model as a whole: those that need more than one of its parts. Each fault names the line to change."""

from __future__ import annotations

import math

from core.document import Faults
from core.model import CATEGORIES, HUNDREDTHS, LEVELS, MAX_SCORE, Attribute, Characteristic, Feature, Model

LARGEST_SHARE = 1 / 3
MAX_VALUES = 63


def check(model: Model, faults: Faults) -> None:
    """Add every fault of the whole to `faults`."""
    _check_names(model, faults)
    _check_bands(model, faults)
    _check_tables(model, faults)
    for c in model.characteristics:
        feature = model.features.get(c.feature)
        if feature is not None:
            where = f"characteristics[{c.name}]"
            _check_cover(c, feature, where, faults)
            _check_missing(c, where, faults)
            _check_direction(c, feature, where, faults)
            _check_not_applicable(c, where, faults)
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
    coded += [(o.code, f"overrides[{o.code}]", 1) for o in model.overrides]
    coded += [(f.code, f"categories[{k.name}]", 1) for k in model.categories for f in k.floors]
    for code, where, line in coded:
        if code and code in codes:
            faults.add(line, where, f"the code {code} stands twice (also in {codes[code]})")
        codes.setdefault(code, where)
    listed = [k.name for k in model.categories]
    if sorted(listed) != sorted(CATEGORIES):
        faults.add(1, "categories", f"must hold each of {', '.join(CATEGORIES)} once")


def _check_bands(model: Model, faults: Faults) -> None:
    if [level for level, _ in model.bands] != list(LEVELS):
        faults.add(1, "bands", f"must hold {', '.join(LEVELS)} in this order")
        return
    marks = [mark for _, mark in model.bands]
    if marks[0] != 0:
        faults.add(1, "bands[low]", "must begin at 0")
    if any(low >= high for low, high in zip(marks, marks[1:], strict=False)):
        faults.add(1, "bands", "each level must begin above the one before")


def _check_tables(model: Model, faults: Faults) -> None:
    for kind in ("countries", "industries"):
        found = [t.name for t in model.tables.values() if t.kind == kind]
        if found != [kind]:
            faults.add(1, "tables", f"there must be exactly one table of kind {kind}, named {kind}")
    countries, industries = model.tables.get("countries"), model.tables.get("industries")
    if countries is None or industries is None:
        return
    known = {*countries.codes, *industries.groups}
    for table in model.tables.values():
        for code in (*table.class_of, *(table.codes if table.kind == "set" else ()), *table.aliases.values()):
            if code not in known:
                faults.add(1, f"tables.{table.name}", f'"{code}" is neither a country nor an industry group')
        if table.kind == "classes" and not table.default:
            groups = set(industries.groups)
            lacking = sorted((groups if groups & set(table.class_of) else set(countries.codes)) - set(table.class_of))
            if lacking:
                faults.add(1, f"tables.{table.name}", f"there is no default, and no class for {', '.join(lacking)}")


def _check_cover(c: Characteristic, feature: Feature, where: str, faults: Faults) -> None:
    if feature.values is not None:
        if len(feature.values) > MAX_VALUES:
            faults.add(c.line, where, f"the feature has more than {MAX_VALUES} values")
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
    for left, right in zip(intervals, intervals[1:], strict=False):
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
            faults.add(
                a.line, where, f"{a.label} has {_shown(a.points)} points, fewer than the {_shown(benign)} of an attribute that is not adverse"
            )
        if c.required and a.points < c.worst:
            faults.add(a.line, where, f"the feature is required, so {a.label} must have the most points ({_shown(c.worst)})")


def _check_direction(c: Characteristic, feature: Feature, where: str, faults: Faults) -> None:
    if not c.direction:
        return
    if feature.values is not None:
        faults.add(c.line, where, "a direction belongs to a number, and this feature is a category")
        return
    ordered = sorted(((i.low, a) for a in c.attributes for i in a.condition.intervals), key=lambda pair: pair[0])
    sign = 1 if c.direction == "rising" else -1
    for (_, left), (_, right) in zip(ordered, ordered[1:], strict=False):
        if sign * (right.points - left.points) < 0:
            faults.add(right.line, where, f"points must be {c.direction}, but {_against(left, right)}")


def _against(left: Attribute, right: Attribute) -> str:
    return f"{left.label} has {_shown(left.points)} and {right.label} has {_shown(right.points)}"


def _check_not_applicable(c: Characteristic, where: str, faults: Faults) -> None:
    attributes = [a for a in c.attributes if a.condition.not_applicable]
    wanted = c.not_applicable_when is not None or bool(c.exclusive)
    if len(attributes) != (1 if wanted else 0):
        needed = "exactly one" if wanted else "no"
        faults.add(c.line, where, f"must have {needed} `not_applicable` attribute (it goes with not_applicable_when or exclusive)")
    if c.exclusive and any(a.points for a in attributes):
        faults.add(c.line, where, "a characteristic that is not chosen has 0 points")


def _check_sums(model: Model, faults: Faults) -> None:
    spans = model.spans()
    lowest = model.base + sum(best for best, _ in spans)
    highest = model.base + sum(worst for _, worst in spans)
    if lowest < 0 or highest > MAX_SCORE:
        faults.add(1, "characteristics", f"the score can run from {_shown(lowest)} to {_shown(highest)}; it must stay within 0 to 100")
    if model.bands and highest < model.bands[-1][1]:
        top, mark = model.bands[-1]
        faults.add(1, f"bands[{top}]", f"begins at {_shown(mark)}, but no profile can score above {_shown(highest)}")
    total = sum(worst - best for best, worst in spans)
    for c in model.characteristics:
        if total and (c.worst - c.best) > total * LARGEST_SHARE:
            share = 100 * (c.worst - c.best) / total
            faults.add(c.line, f"characteristics[{c.name}]", f"holds {share:.0f} % of all points; no single one may hold more than a third")
    for name in {c.exclusive for c in model.characteristics if c.exclusive}:
        if len({c.category for c in model.characteristics if c.exclusive == name}) > 1:
            faults.add(1, "characteristics", f"the exclusive group {name} must stand in one category")


def _check_floors(model: Model, faults: Faults) -> None:
    for category in model.categories:
        highest = sum(worst for _, worst in model.spans(category.name))
        for floor in category.floors:
            if floor.points > highest:
                faults.add(1, f"categories[{category.name}]", f"{floor.code} begins at {_shown(floor.points)}, above the category's {_shown(highest)}")
