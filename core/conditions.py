"""Conditions of a model file: intervals, values, `missing` and `not_applicable`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

MISSING = "missing"
NOT_APPLICABLE = "not_applicable"

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf"
_INTERVAL = re.compile(rf"([\[(])\s*({_NUMBER})\s*,\s*({_NUMBER})\s*([\])])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of numbers, kept as `low <= x < high`: a bound open or closed the other way is moved by one ulp."""

    text: str
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value < self.high


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of one feature: any of the intervals, any of the values, or being missing."""

    intervals: tuple[Interval, ...] = ()
    values: tuple[str, ...] = ()
    missing: bool = False
    not_applicable: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Alternatives, each a set of feature conditions that must hold together.

    An alternative may also ask for a required characteristic of some categories to be missing.
    """

    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Alternative:
    terms: tuple[tuple[str, Condition], ...] = ()
    required_missing: tuple[str, ...] = field(default=())


def parse_interval(text: str) -> Interval | str:
    """The interval a text writes, or what is wrong with it."""
    match = _INTERVAL.fullmatch(text.strip())
    if match is None:
        return f'"{text}" is not an interval such as "[0, 2.5)" or "(-inf, 0]"'
    opening, low_text, high_text, closing = match.groups()
    low, high = float(low_text), float(high_text)
    if (math.isinf(low) and (opening == "[" or low > 0)) or (math.isinf(high) and (closing == "]" or high < 0)):
        return f'"{text}" must be open where it is infinite'
    if any(math.isinf(float(t)) and "inf" not in t for t in (low_text, high_text)):
        return f'"{text}" has a bound that is not finite'
    if opening == "(" and not math.isinf(low):
        low = math.nextafter(low, math.inf)
    if closing == "]":
        high = math.nextafter(high, math.inf)
    if low >= high:
        return f'"{text}" is empty'
    return Interval(text.strip(), low, high)


def parse_condition(texts: list[str], values: tuple[str, ...] | None) -> Condition | str:
    """The condition that a list of texts writes, for a feature with these values (None: a number)."""
    intervals: list[Interval] = []
    named: list[str] = []
    missing = not_applicable = False
    for text in texts:
        if text == MISSING:
            missing = True
        elif text == NOT_APPLICABLE:
            not_applicable = True
        elif values is None:
            interval = parse_interval(text)
            if isinstance(interval, str):
                return interval
            intervals.append(interval)
        elif not values or text.removeprefix("=") in values:  # without values the feature itself is at fault, and told
            named.append(text.removeprefix("="))
        else:
            return f'"{text}" is not a value of this feature (one of {", ".join(values)})'
    return Condition(tuple(intervals), tuple(named), missing, not_applicable)
