"""Axes: where a value lies between the ends of one, and which values are written beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil, floor, log10
from typing import NamedTuple

from app.loadtest.figures import clock, number

CLOCK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
LONG_AXIS = 3.5
"""How many powers of ten a logarithmic axis may span for their doubles and fivefolds to be written too."""

Text = Callable[[float], str]


class Axis(NamedTuple):
    """low, high: what lies at its ends, logarithms where `is_log`.  ticks: value and text."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1; what lies beyond an end, at the end."""
        if self.is_log:
            value = log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def linear(values: Iterable[float], text: Text = number, at_least: float = 0.0, *, whole: bool = False) -> Axis:
    """From 0 to a round number above all values. at_least: reached in any case.  whole: no tick between units."""
    most = max([*values, at_least]) or 1.0
    rough = most / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, float(ceil(step)))
    count = ceil(most / step - 1e-9)
    return Axis(0.0, step * count, False, tuple((step * i, text(step * i)) for i in range(count + 1)))


def logarithmic(values: Iterable[float], text: Text = number, longest: float = LONG_AXIS) -> Axis:
    """From a power of ten, or its double or fivefold, below all values that are above 0 to one above them. longest: as
    LONG_AXIS."""
    above = [value for value in values if value > 0] or [1.0]
    powers = range(floor(log10(min(above))) - 1, ceil(log10(max(above))) + 2)
    marks = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    low = max(mark for mark in marks if mark <= min(above) * 1.0001)
    high = min(mark for mark in marks if mark >= max(above) * 0.9999 and mark > low)
    if high / low < 10:
        low, high = max(mark for mark in marks if mark < low), min(mark for mark in marks if mark > high)
    is_long = log10(high / low) > longest
    shown = [mark for mark in marks if low <= mark <= high and (not is_long or f"{mark:e}".startswith("1.0"))]
    return Axis(log10(low), log10(high), True, tuple((mark, text(mark)) for mark in shown))


def clocked(until_s: float) -> Axis:
    """From the start of a run to its end."""
    until_s = max(until_s, 1.0)
    step = next((s for s in CLOCK_STEPS_S if until_s / s <= 6), CLOCK_STEPS_S[-1])
    return Axis(0.0, until_s, False, tuple((at, clock(at)) for at in range(0, floor(until_s) + 1, step)))


def percentiles(count: int) -> Axis:
    """Of per cent, as far apart as there are nines in them, up to what so many values can tell."""
    nines = max(1.0, log10(max(count, 1)))
    marks = [50.0, *(round(100 - 10.0 ** (2 - power), 9) for power in range(1, floor(nines) + 1))]
    return Axis(0.0, nines, False, tuple((nines_of(mark), f"{mark:g}") for mark in marks))


def nines_of(value: float) -> float:
    """A percentile on that axis."""
    return -log10(max(1 - value / 100, 1e-12))
