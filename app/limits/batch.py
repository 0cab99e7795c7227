"""What several callers want of their buckets at a time, as the script takes it and as it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.limits import script
from app.limits.allowance import Allowance, Bucket, Taken
from app.limits.gcra import standing, wait_s
from app.limits.script import Outcome, Run

Take = tuple[Allowance, int]
"""Whose, and at what cost."""


class Batch:
    """Takes in the order they came. buckets: of all, each once.  groups, runs: as app.limits.script has them.

    What wants the same one after the other is counted together, and nothing overtakes anything: where two share a
    bucket, the first gets it.
    """

    __slots__ = ("buckets", "groups", "runs")

    def __init__(self, takes: Sequence[Take]) -> None:
        self.buckets: list[Bucket] = []
        self.groups: list[list[int]] = []
        self.runs: list[Run] = []
        # By key: a bucket whose rate was just changed is still one.
        places: dict[bytes, int] = {}
        numbers: dict[Allowance, int] = {}
        for take, times in _runs(takes):
            allowance, cost = take
            number = numbers.get(allowance)
            if number is None:
                number = numbers[allowance] = len(numbers) + 1
                group = []
                for bucket in allowance.buckets:
                    place = places.get(bucket.key)
                    if place is None:
                        self.buckets.append(bucket)
                        place = places[bucket.key] = len(self.buckets)
                    group.append(place)
                self.groups.append(group)
            self.runs.append((number, cost, times))

    @property
    def keys(self) -> list[bytes]:
        return [bucket.key for bucket in self.buckets]

    def asked(self) -> bytes:
        """The script's argument."""
        return script.asked([bucket.rate for bucket in self.buckets], self.groups, self.runs)

    def taken(self, outcome: Outcome) -> list[Taken]:
        """What each take is answered, in their order."""
        granted, owed = outcome
        standings = [standing(owing, bucket.rate) for owing, bucket in zip(owed, self.buckets, strict=True)]
        told = [[standings[place - 1] for place in group] for group in self.groups]
        taken: list[Taken] = []
        for (number, cost, times), count in zip(self.runs, granted, strict=True):
            if count:
                taken += [Taken(True, 0.0, told[number - 1])] * count
            if count < times:
                taken += [Taken(False, self._wait_s(number, cost, owed), told[number - 1])] * (times - count)
        return taken

    def _wait_s(self, number: int, cost: int, owed: Sequence[float]) -> float:
        places = self.groups[number - 1]
        return max([wait_s(owed[place - 1], self.buckets[place - 1].rate, cost) for place in places])


def _runs(takes: Sequence[Take]) -> Iterator[tuple[Take, int]]:
    """Each take with how many there are of it one after the other."""
    last, times = takes[0], 0
    for take in takes:
        if take == last:
            times += 1
        else:
            yield last, times
            last, times = take, 1
    yield last, times
