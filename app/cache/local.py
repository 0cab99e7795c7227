"""The tier in this process: the values used last, within bounds of number, bytes and time."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, Final

Key = tuple[str, str, bytes]
"""Name of the cache, tenant, key within it."""

ENTRY_BYTES = 384
"""What an entry takes besides its value: key, places in the tables, time."""
LARGEST_SHARE = 8
"""A value larger than this part of all bytes would push out too much that is used."""


class Missing(Enum):
    """Says that nothing is known of a key, which is not the same as knowing that there is no value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Flight:
    """A load that began while its key was as it is now. Overtaken, its value is out of date before it arrives."""

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        self.key = key


class Local:
    """Bounded in entries and bytes; the entry used longest ago makes room.

    max_bytes: of the values, as `put` is told, and ENTRY_BYTES for each. One larger than an eighth of it is not kept.
    jitter: the share of its time by which an entry may go early, so that what came together does not go together.
    clock: seconds, never going back.  random: 0 to 1.
    ttl_limit_s: no entry put from now on stays longer; whoever cannot hear of changes lowers it.
    `size_bytes`, `hits`, `misses`, `evictions`: for want of room; what ran out of time is not counted there.

    # Design: `drop` and `clear` also overtake the flights of what they forget, because a load that began before may
    have read what no longer holds. A flight that was overtaken lands nowhere, and the next asker starts another.
    """

    __slots__ = (
        "_clock",
        "_entries",
        "_flights",
        "_jitter",
        "_largest_bytes",
        "_max_bytes",
        "_max_entries",
        "_random",
        "evictions",
        "hits",
        "misses",
        "size_bytes",
        "ttl_limit_s",
    )

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        *,
        jitter: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if bound < 1:
                raise ValueError(f"{name} must be at least 1, not {bound!r}")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be at least 0 and below 1, not {jitter!r}")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._largest_bytes = max_bytes // LARGEST_SHARE
        self._jitter = jitter
        self._clock = clock
        self._random = random
        self._entries: OrderedDict[Key, tuple[object, float, int]] = OrderedDict()
        self._flights: dict[Key, Flight] = {}
        self.size_bytes = 0
        self.ttl_limit_s = inf
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    @property
    def entries(self) -> int:
        """Entries held, those that ran out of time and were not asked for since included."""
        return len(self._entries)

    @property
    def flying(self) -> int:
        """Flights under way and not overtaken."""
        return len(self._flights)

    def get(self, key: Key) -> Any:
        """The value, or MISSING."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return MISSING
        value, end, _ = entry
        if end <= self._clock():
            self._forget(key)
            self.misses += 1
            return MISSING
        self._entries.move_to_end(key)
        self.hits += 1
        return value

    def put(self, key: Key, value: object, size_bytes: int, ttl_s: float) -> None:
        """Keep the value for ttl_s seconds or somewhat less, in place of what was there; overtakes the key's flight."""
        if self._flights:
            self._flights.pop(key, None)
        entries = self._entries
        old = entries.pop(key, None)
        if old is not None:
            self.size_bytes -= old[2]
        size_bytes += ENTRY_BYTES
        if size_bytes > self._largest_bytes:
            return
        if ttl_s > self.ttl_limit_s:
            ttl_s = self.ttl_limit_s
        if ttl_s <= 0:
            return
        entries[key] = value, self._clock() + ttl_s * (1 - self._jitter * self._random()), size_bytes
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes or len(entries) > self._max_entries:
            self.size_bytes -= entries.popitem(last=False)[1][2]
            self.evictions += 1

    def drop(self, key: Key) -> None:
        """Forget the key and overtake its flight."""
        self._forget(key)
        self._flights.pop(key, None)

    def clear(self) -> None:
        """Forget everything and overtake all flights."""
        self._entries.clear()
        self._flights.clear()
        self.size_bytes = 0

    def flight(self, key: Key) -> Flight:
        """The flight under way for the key, or else a new one; it has to `land` or be given up with `abandon`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key)
        return flight

    def is_current(self, flight: Flight) -> bool:
        """Whether nothing has overtaken the flight."""
        return self._flights.get(flight.key) is flight

    def land(self, flight: Flight, value: object, size_bytes: int, ttl_s: float) -> None:
        """Keep what the flight brought, unless it was overtaken."""
        if self.is_current(flight):
            self.put(flight.key, value, size_bytes, ttl_s)

    def abandon(self, flight: Flight) -> None:
        """End a flight that brings nothing."""
        if self.is_current(flight):
            del self._flights[flight.key]

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry[2]
