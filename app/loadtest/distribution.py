"""How latencies are distributed: every percentile up to the worst answer, and how many answers took how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import floor, log10

from app.loadtest.charts import Chart, Line, Span, absent, drawn
from app.loadtest.figures import milliseconds, percent
from app.loadtest.overtime import bounds, named
from app.loadtest.results import Scenario
from app.loadtest.scales import Axis, linear, logarithmic, nines_of, percentiles

APART = 0.003
"""How far apart along the width the points of the plot are at least."""
PER_DECADE = 20
LABEL = 0.14
"""The part of the width that the name of a percentile takes on a phone."""

Counts = Sequence[tuple[float, int]]


def charts(scenario: Scenario, name: str, earlier: Scenario | None) -> Iterator[str]:
    """Both charts. earlier: a run of the same scenario, drawn beside this one."""
    if not sum(count for _, count in scenario.histogram):
        why = "No request was answered."
        yield absent("Latency by percentile", why)
        yield absent("Distribution of latency", why)
        return
    yield _percentiles(scenario, name, earlier)
    yield _bars(scenario, name)


def _percentiles(scenario: Scenario, name: str, earlier: Scenario | None) -> str:
    x = percentiles(sum(count for _, count in scenario.histogram))
    curve = _curve(scenario.histogram, x)
    at = [place for place, _ in curve]
    lines = [Line("this run", "blue", [value for _, value in curve])]
    if earlier and sum(count for _, count in earlier.histogram):
        before = _curve(earlier.histogram, x)
        lines.append(Line("earlier run", "ink dotted", [_read(before, place) for place in at]))
    levels = bounds(scenario)
    values = [value for line in lines for value in line.values if value is not None]
    y = logarithmic([*values, *(level.value for level in levels)], milliseconds)
    moments = [percent(100 - 100 * 10.0**-place, 4) for place in at]
    told = "per cent of answers that took no longer, both axes logarithmic"
    chart = Chart(f"{name}-percentiles", "Latency by percentile", told, x, y, at, moments, lines, milliseconds)
    return drawn(chart._replace(levels=levels))


def _curve(counts: Counts, x: Axis) -> list[tuple[float, float]]:
    """Places on the axis of percentiles, and the latency at each."""
    total = sum(count for _, count in counts)
    filled = [(value, count) for value, count in counts if count]
    points = [(0.0, filled[0][0])]
    seen = 0
    for value, count in filled:
        seen += count
        place = x.high if seen == total else min(nines_of(100 * seen / total), x.high)
        if place - points[-1][0] >= APART * x.high:
            points.append((place, value))
        else:
            # The slower of two that cannot be told apart.
            points[-1] = (points[-1][0], value)
    return points


def _read(curve: Sequence[tuple[float, float]], place: float) -> float:
    return next((value for at, value in curve if at >= place), curve[-1][1])


def _bars(scenario: Scenario, name: str) -> str:
    shares: Counter[int] = Counter()
    total = sum(count for _, count in scenario.histogram)
    for value, count in scenario.histogram:
        shares[floor(log10(max(value, 0.001)) * PER_DECADE)] += count
    filled = [place for place, count in shares.items() if count]
    low, high = min(filled) - 1, max(filled) + 2
    places = range(low, high)
    at = [10 ** ((place + 0.5) / PER_DECADE) for place in places]
    ends = [10 ** (place / PER_DECADE) for place in (low, high)]
    moments = [
        f"{milliseconds(10 ** (p / PER_DECADE))} to {milliseconds(10 ** ((p + 1) / PER_DECADE))}" for p in places
    ]
    lines = [Line("of the answers", "blue", [100 * shares[place] / total for place in places])]
    y = linear([value or 0.0 for value in lines[0].values], percent)
    told = "share of all answers by latency, logarithmic"
    x = logarithmic(ends, milliseconds, 0.9)
    chart = Chart(f"{name}-histogram", "Distribution of latency", told, x, y, at, moments, lines, percent)
    return drawn(chart._replace(spans=_typical(scenario, x), bars=True))


def _typical(scenario: Scenario, x: Axis) -> list[Span]:
    """The percentiles, but for those that lie too near the one before to be read."""
    spans: list[Span] = []
    for field in ("p50", "p95", "p99", "p999"):
        value: float = getattr(scenario.latency, field)
        if value > 0 and (not spans or x.place(value) - x.place(spans[-1].start) >= LABEL):
            spans.append(Span(value, value, named(field), "percentile"))
    return spans
