"""What the processes of the generator told, second by second, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.loadtest.histogram import Histogram, middle_us
from app.loadtest.process import Told, histogram
from app.loadtest.results import Percentiles, Route
from app.loadtest.users import REFUSED

OPEN_SECONDS = 30
"""How many of the last seconds are kept ready to be added to; the rest are packed."""

LATE_MS = 100.0
"""A generator that is later than this with a hundredth of its requests measures itself."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, int, list[tuple[int, int]]]).decode


class Moment:
    """All that was intended in one second.

    failed: those errors that are the service's: lost, late, or a status of 500 and above.  cpu: cores of all processes
    of the generator, and cpu_most of the busiest.  too_late: requests that the generator sent later than LATE_MS.
    """

    def __init__(self) -> None:
        self.users = 0
        self.connections = 0
        self.intended = 0
        self.answered = 0
        self.errors = 0
        self.failed = 0
        self.late_p99_ms = 0.0
        self.too_late = 0
        self.cpu = 0.0
        self.cpu_most = 0.0
        self._times: Histogram | bytes = Histogram()

    @property
    def times(self) -> Histogram:
        """Of what was answered."""
        if isinstance(self._times, bytes):
            return Histogram.unpacked(*_decode(self._times))
        return self._times

    def add_times(self, other: Histogram) -> None:
        """Count further answers."""
        times = self.times
        times.merge(other)
        self._times = times

    def pack(self) -> None:
        """Take less room."""
        if isinstance(self._times, Histogram):
            self._times = _encode(self._times.packed())


class Collected:
    """One scenario. seconds: how many it has at most; what is intended a moment later belongs to the last of them."""

    def __init__(self, seconds: int) -> None:
        self.moments: list[Moment] = []
        self.statuses: dict[str, Counter[int]] = {}
        self.reasons: dict[str, Counter[str]] = {}
        self.times: dict[str, Histogram] = {}
        self._seconds = seconds

    @property
    def intended(self) -> int:
        """Requests."""
        return sum(moment.intended for moment in self.moments)

    def add(self, told: Told) -> None:
        """Take what one process told of one second, which may be told again with what came later."""
        place = max(0, min(told.second, self._seconds - 1))
        while len(self.moments) <= place:
            self.moments.append(Moment())
            if len(self.moments) > OPEN_SECONDS:
                self.moments[-OPEN_SECONDS - 1].pack()
        moment = self.moments[place]
        if told.second == place:
            # What is told of it later has none of these.
            moment.users += told.users
            moment.connections += told.connections
            moment.cpu += told.cpu
            moment.cpu_most = max(moment.cpu_most, told.cpu)
        moment.intended += told.intended
        for kind, status, count in told.answers:
            self.statuses.setdefault(kind, Counter())[status] += count
            moment.answered += count * (status < REFUSED)
            moment.errors += count * (status >= REFUSED)
            moment.failed += count * (status >= 500)
        for kind, why, count in told.errors:
            self.reasons.setdefault(kind, Counter())[why] += count
            moment.errors += count
            moment.failed += count
        for kind, packed in told.times.items():
            times = histogram(packed)
            self.times.setdefault(kind, Histogram()).merge(times)
            moment.add_times(times)
        late = histogram(told.late)
        if late.count:
            moment.too_late += sum(count for place, count in late.filled() if middle_us(place) > LATE_MS * 1000)
            moment.late_p99_ms = max(moment.late_p99_ms, late.percentile_us(99) / 1000)

    def whole(self) -> Histogram:
        """The times of all answers."""
        return merged(self.times.values())

    def routes(self) -> list[Route]:
        """By kind, the most frequent first."""
        kinds = self.statuses.keys() | self.reasons.keys()
        found = [
            Route(
                kind,
                percentiles(self.times.get(kind, Histogram())),
                {str(status): count for status, count in sorted(self.statuses.get(kind, Counter()).items())},
                dict(self.reasons.get(kind, Counter()).most_common()),
            )
            for kind in kinds
        ]
        return sorted(found, key=lambda route: (-sum(route.statuses.values()), route.kind))


def merged(given: Iterable[Histogram]) -> Histogram:
    """All of them in one."""
    found = Histogram()
    for one in given:
        found.merge(one)
    return found


def percentiles(times: Histogram) -> Percentiles:
    """In milliseconds."""

    def at(percent: float) -> float:
        return round(times.percentile_us(percent) / 1000, 3)

    return Percentiles(
        times.count,
        round(times.mean_us / 1000, 3),
        at(50),
        at(90),
        at(95),
        at(99),
        at(99.9),
        round(times.most_us / 1000, 3),
    )


def bars(times: Histogram) -> list[tuple[float, int]]:
    """Milliseconds and how many took so long, ascending."""
    return [(round(middle_us(place) / 1000, 4), count) for place, count in times.filled()]


def summed(moments: Sequence[Moment], name: str) -> Any:
    """The sum of one of their counts."""
    return sum(getattr(moment, name) for moment in moments)
