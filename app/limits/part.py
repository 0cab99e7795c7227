"""The part of every bucket that one process grants by itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.limits import gcra
from app.limits.allowance import Bucket, Taken
from app.settings.rates import Rate

MOST_KEPT = 100_000


class Part:
    """The part of every bucket that one of so many processes grants by itself, exactly by its own clock.

    processes: each has its share of rate and burst, of the latter one request at least.
    most: buckets kept; the one not used for longest makes room, and is full when it is used again.
    """

    __slots__ = ("_levels", "_most", "_processes")

    def __init__(self, processes: int, most: int = MOST_KEPT) -> None:
        self._processes = processes
        self._most = most
        self._levels: OrderedDict[bytes, _Level] = OrderedDict()

    def divide(self, processes: int) -> None:
        """From now on, be one of so many."""
        if processes != self._processes:
            self._processes = processes
            for level in self._levels.values():
                level.share(level.whole, processes)

    def take(self, buckets: Sequence[Bucket], cost: int, now_s: float) -> Taken:
        """Take a request of this cost from every bucket, or from none. It tells how this process's part stands."""
        if len(buckets) == 1:
            # PERF: benchmarks/test_service.py::test_edge: most callers have one bucket, and nothing has to be gathered.
            level = self._level(buckets[0], now_s)
            if level.owed + cost > level.rate.burst and (wait_s := gcra.wait_s(level.owed, level.rate, cost)):
                return Taken(False, wait_s, [gcra.standing(level.owed, level.rate)])
            level.owed += cost
            return Taken(True, 0.0, [gcra.standing(level.owed, level.rate)])
        levels: list[_Level] = []
        wait_s = 0.0
        # PERF: loops and not comprehensions, and what is plainly there is not asked for (benchmarks/limits.py).
        for bucket in buckets:
            level = self._level(bucket, now_s)
            levels.append(level)
            if level.owed + cost > level.rate.burst:
                wait_s = max(wait_s, gcra.wait_s(level.owed, level.rate, cost))
        standings: list[gcra.Standing | None] = []
        for level in levels:
            if not wait_s:
                level.owed += cost
            standings.append(gcra.standing(level.owed, level.rate))
        return Taken(not wait_s, wait_s, standings)

    def give_back(self, buckets: Sequence[Bucket], cost: int, now_s: float) -> None:
        """Have a request of this cost taken from them not taken."""
        for bucket in buckets:
            level = self._level(bucket, now_s)
            level.owed = max(0.0, level.owed - cost)

    def wait_s(self, buckets: Sequence[Bucket], cost: int, now_s: float) -> float:
        """How long a request of this cost would have to wait now."""
        levels = [level for bucket in buckets if (level := self._levels.get(bucket.key)) is not None]
        return max([level.wait_s(cost, now_s) for level in levels], default=0.0)

    def standings(self, buckets: Sequence[Bucket], now_s: float) -> list[gcra.Standing | None]:
        """How this process's part of each stands; None for those that nobody took from yet."""
        levels = [self._levels.get(bucket.key) for bucket in buckets]
        return [None if one is None else gcra.standing(one.owed_at(now_s), one.rate) for one in levels]

    def _level(self, bucket: Bucket, now_s: float) -> _Level:
        """The bucket's level, as it is now."""
        _, key, rate = bucket
        level = self._levels.get(key)
        if level is None:
            level = self._levels[key] = _Level(rate, self._processes, now_s)
            if len(self._levels) > self._most:
                self._levels.popitem(last=False)
            return level
        self._levels.move_to_end(key)
        elapsed_s = now_s - level.at_s
        level.at_s = now_s
        if level.owed:
            level.owed = gcra.drained(level.owed, elapsed_s, level.rate)
        if level.whole is not rate:
            level.share(rate, self._processes)
        return level


class _Level:
    """What one bucket owed at a time. whole: the bucket's rate.  rate: this process's part of it."""

    __slots__ = ("at_s", "owed", "rate", "whole")

    def __init__(self, rate: Rate, processes: int, now_s: float) -> None:
        self.owed = 0.0
        self.at_s = now_s
        self.share(rate, processes)

    def share(self, whole: Rate, processes: int) -> None:
        self.whole = whole
        self.rate = Rate(whole.per_s / processes, max(1, whole.burst // processes))

    def wait_s(self, cost: int, now_s: float) -> float:
        return gcra.wait_s(self.owed_at(now_s), self.rate, cost)

    def owed_at(self, now_s: float) -> float:
        return gcra.drained(self.owed, now_s - self.at_s, self.rate)
