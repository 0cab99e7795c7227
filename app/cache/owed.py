"""What Redis could not be told to forget, kept until it can."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple


class Invalidation(NamedTuple):
    """keys: to delete.  channel, message: whom to tell, and what."""

    keys: tuple[bytes, ...]
    channel: bytes
    message: bytes


class Owed:
    """Invalidations in the order they came in, the same one once.

    limit: of keys; beyond it the oldest are given up.  `keys`: how many there are in all, `dropped`: were given up.
    """

    __slots__ = ("_limit", "_serial", "_serials", "dropped", "keys")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._serials: OrderedDict[Invalidation, int] = OrderedDict()
        self._serial = 0
        self.keys = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._serials)

    def add(self, invalidation: Invalidation) -> None:
        if self._serials.pop(invalidation, None) is None:
            self.keys += len(invalidation.keys)
        self._serial += 1
        self._serials[invalidation] = self._serial
        while self.keys > self._limit:
            given_up, _ = self._serials.popitem(last=False)
            self.keys -= len(given_up.keys)
            self.dropped += len(given_up.keys)

    def oldest(self, count: int, keys: int) -> dict[Invalidation, int]:
        """At most so many of the oldest, and beyond the first at most so many keys; each with a number for `settle`."""
        found: dict[Invalidation, int] = {}
        for invalidation, serial in islice(self._serials.items(), count):
            keys -= len(invalidation.keys)
            if found and keys < 0:
                break
            found[invalidation] = serial
        return found

    def settle(self, done: Mapping[Invalidation, int]) -> None:
        """Strike off what was found by `oldest` and is done; what came in again meanwhile is owed again."""
        for invalidation, serial in done.items():
            if self._serials.get(invalidation) == serial:
                del self._serials[invalidation]
                self.keys -= len(invalidation.keys)

    def postpone(self, found: Mapping[Invalidation, int]) -> None:
        """Put what was found by `oldest` and is still owed behind all the rest."""
        for invalidation, serial in found.items():
            if self._serials.get(invalidation) == serial:
                self._serials.move_to_end(invalidation)
