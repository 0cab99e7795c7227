"""Times in microseconds, counted in buckets that are never wider than a hundredth of what is in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

SUB_BITS = 7
LONGEST_US = 1 << 27
"""Two minutes; whatever takes longer is counted as so much."""
N_BUCKETS = ((27 - SUB_BITS) << SUB_BITS) + (2 << SUB_BITS)


def bucket(value_us: int) -> int:
    """The bucket of a time, 0 or more. Source: HdrHistogram, a linear scale within each power of two."""
    shift = max(0, min(value_us, LONGEST_US).bit_length() - SUB_BITS - 1)
    return (shift << SUB_BITS) + (min(value_us, LONGEST_US) >> shift)


def middle_us(place: int) -> float:
    """The time in the middle of a bucket."""
    shift = max(0, (place >> SUB_BITS) - 1)
    low = (place - (shift << SUB_BITS)) << shift
    return low + ((1 << shift) - 1) / 2


class Histogram:
    """Counts of times. `count`, `sum_us`, `most_us`: of all that were added."""

    __slots__ = ("_counts", "count", "most_us", "sum_us")

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * N_BUCKETS))
        self.count = 0
        self.sum_us = 0
        self.most_us = 0

    def add(self, value_us: int) -> None:
        """Count a time, 0 or more."""
        # PERF: benchmarks/loadtest.py. One of these for each answer.
        shift = value_us.bit_length() - 8
        if shift <= 0:
            self._counts[value_us] += 1
        elif value_us < LONGEST_US:
            self._counts[(shift << 7) + (value_us >> shift)] += 1
        else:
            self._counts[bucket(value_us)] += 1
        self.count += 1
        self.sum_us += value_us
        if value_us > self.most_us:
            self.most_us = value_us

    def merge(self, other: Histogram) -> None:
        """Add all that another one counted."""
        counts = self._counts
        for place, count in other.filled():
            counts[place] += count
        self.count += other.count
        self.sum_us += other.sum_us
        self.most_us = max(self.most_us, other.most_us)

    def filled(self) -> Iterator[tuple[int, int]]:
        """Buckets with something in them, and how much, ascending."""
        return ((place, count) for place, count in enumerate(self._counts) if count)

    def percentile_us(self, percent: float) -> float:
        """The time that so many per cent do not exceed, to a hundredth; 0 where nothing was counted."""
        wanted = self.count * percent / 100
        seen = 0
        for place, count in self.filled():
            seen += count
            if seen >= wanted:
                return min(middle_us(place), float(self.most_us))
        return float(self.most_us)

    @property
    def mean_us(self) -> float:
        """The mean time; 0 where nothing was counted."""
        return self.sum_us / self.count if self.count else 0.0

    def packed(self) -> tuple[int, int, int, list[tuple[int, int]]]:
        """All of it, to be sent to another process."""
        return self.count, self.sum_us, self.most_us, list(self.filled())

    @staticmethod
    def unpacked(count: int, sum_us: int, most_us: int, filled: Iterable[tuple[int, int]]) -> Histogram:
        """What was packed."""
        made = Histogram()
        made.count, made.sum_us, made.most_us = count, sum_us, most_us
        for place, number in filled:
            made._counts[place] = number
        return made
