"""Counting and timing: a metric's series as cells of this process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal, NamedTuple

from app.telemetry.cells import Cells

Kind = Literal["counter", "gauge", "histogram"]
Over = Literal["sum", "max", "min"]


class Metric(NamedTuple):
    """What a number means. labels: names, in order.  bounds: of a histogram's buckets, ascending, without infinity.

    over: how the gauges of a pod's processes become one.  Counters and histograms are sums over all, those that ended
    too.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    over: Over = "sum"

    @property
    def n_cells(self) -> int:
        """Of each series: of a histogram one for each bucket, the last without bound, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Histogram:
    """The series of one histogram with given labels."""

    __slots__ = ("_bounds", "_first", "_numbers", "_sum")

    def __init__(self, cells: Cells, metric: Metric, labels: tuple[str, ...]) -> None:
        self._numbers = cells.numbers
        self._bounds = metric.bounds
        self._first = cells.reserve(metric.name, labels, metric.n_cells)
        self._sum = self._first + metric.n_cells - 1

    def observe(self, value: float) -> None:
        """Count a value in the bucket of the least bound that it does not exceed."""
        numbers = self._numbers
        numbers[self._first + bisect_left(self._bounds, value)] += 1.0
        numbers[self._sum] += value


class Counter:
    """The series of one counter with given labels, or of a gauge."""

    __slots__ = ("_first", "_numbers")

    def __init__(self, cells: Cells, metric: Metric, labels: tuple[str, ...]) -> None:
        self._numbers = cells.numbers
        self._first = cells.reserve(metric.name, labels, metric.n_cells)

    def add(self, value: float = 1.0) -> None:
        """Count."""
        self._numbers[self._first] += value

    def set(self, value: float) -> None:
        """Take over a number that is counted elsewhere in this process; of a gauge, NaN for one that is not there."""
        self._numbers[self._first] = value


class Meters:
    """Hands out series; asked for the same one twice, it gives the same.

    cells: where this process keeps its numbers.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self._histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}
        self._counters: dict[tuple[str, tuple[str, ...]], Counter] = {}
        self._polled: list[Callable[[], None]] = []

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """Where values of these labels are observed."""
        found = self._histograms.get((metric.name, labels))
        if found is None:
            _check(metric, labels, metric.kind == "histogram")
            found = self._histograms[metric.name, labels] = Histogram(self.cells, metric, labels)
        return found

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """Where what has these labels is counted, or a gauge of them set."""
        found = self._counters.get((metric.name, labels))
        if found is None:
            _check(metric, labels, metric.kind != "histogram")
            found = self._counters[metric.name, labels] = Counter(self.cells, metric, labels)
        return found

    def reserve(self, metric: Metric, *labels: str) -> int:
        """The first cell of a series that is written elsewhere, such as by compiled code."""
        _check(metric, labels, True)
        return self.cells.reserve(metric.name, labels, metric.n_cells)

    def poll(self, take: Callable[[], None]) -> None:
        """Have `take` called at each refresh, to set what is counted elsewhere."""
        self._polled.append(take)

    def refresh(self) -> None:
        """Set all that is polled as it is now."""
        for take in self._polled:
            take()


def _check(metric: Metric, labels: tuple[str, ...], fits: bool) -> None:
    if not fits or len(labels) != len(metric.labels):
        raise ValueError(f"{metric.name} is a {metric.kind} with the labels {metric.labels}, not {labels}")
