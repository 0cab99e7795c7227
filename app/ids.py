"""Time-ordered identifiers: UUID version 7 (RFC 9562, section 5.7) as 16 bytes.

The first 48 bits are Unix time in milliseconds, so the order of the bytes is the order of creation.
"""

from __future__ import annotations

import datetime as dt
import os
import struct
import time
import weakref
from collections.abc import Callable, Iterator

_HALVES = struct.Struct(">QQ")
_DRAWN = 256
_TAILS = struct.Struct(f">{_DRAWN}Q")
_VERSION = 0x7000
_COUNTER_END = 0x8000
_VARIANT = 1 << 63
_TAIL = (1 << 62) - 1
_TIME_MS_END = 1 << 48

_EPOCH = dt.datetime(1970, 1, 1)
_MS = dt.timedelta(milliseconds=1)
_CALENDAR_MS = ((dt.datetime.min - _EPOCH) // _MS, (dt.datetime.max - _EPOCH) // _MS)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def instant(time_ms: int) -> str:
    """A time as it is told: RFC 3339, UTC, to the millisecond. What lies beyond the calendar is its first or last.

    time_ms: Unix time in milliseconds, of any size: a record that somebody altered is told too.
    """
    first_ms, last_ms = _CALENDAR_MS
    moment = _EPOCH + min(max(time_ms, first_ms), last_ms) * _MS
    return f"{moment.isoformat(timespec='milliseconds')}Z"


class Uuid7:
    """Makes ids that rise strictly within the process, also when the clock stands still or goes back.

    clock: Unix time in ms. Within one ms a 12-bit counter rises from a random start (method 1 of section 6.2); when it
    is used up, time is borrowed from the next ms. 62 random bits keep processes apart. For use from one thread.
    """

    __slots__ = ("__weakref__", "_clock", "_counter", "_tails", "_time_ms")

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._time_ms = 0
        self._counter = _COUNTER_END
        self._tails: Iterator[int] = iter(())
        # A forked child must not go on with the random bits of its parent.
        os.register_at_fork(after_in_child=_forget(weakref.ref(self)))

    def new(self) -> bytes:
        """The next id."""
        tail = next(self._tails, None)
        if tail is None:
            self._tails = iter(_TAILS.unpack(os.urandom(_TAILS.size)))
            tail = next(self._tails)
        time_ms = self._clock()
        if time_ms > self._time_ms:
            self._time_ms = time_ms
            # The top bit of the counter starts at 0, which leaves at least 2048 ids in this ms.
            self._counter = counter = _VERSION | (tail & 0x7FF)
        else:
            self._counter = counter = self._counter + 1
            if counter >= _COUNTER_END:
                self._time_ms += 1
                self._counter = counter = _VERSION
        return _HALVES.pack(self._time_ms << 16 | counter, _VARIANT | tail >> 2)


def _forget(generator: weakref.ref[Uuid7]) -> Callable[[], None]:
    def forget() -> None:
        alive = generator()
        if alive is not None:
            alive._tails = iter(())

    return forget


def text(id: bytes) -> str:
    """The canonical form: 36 characters, lowercase, hyphenated. id: 16 bytes."""
    # Pairs of bytes already apart leave four slices to take instead of five.
    pairs = id.hex("-", 2)
    return f"{pairs[:4]}{pairs[5:29]}{pairs[30:34]}{pairs[35:]}"


def parse(text: str) -> bytes:
    """The 16 bytes of an id in its canonical form, upper or lower case. Raises ValueError on anything else."""
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        try:
            id = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            id = b""
        if len(id) == 16:
            return id
    raise ValueError(
        "an id is 32 hexadecimal digits in groups of 8-4-4-4-12, such as 01932c07-209c-7c4f-8d5e-8f2f5a3b9e10"
    )


def time_ms(id: bytes) -> int:
    """When the id was made, Unix time in milliseconds."""
    return int.from_bytes(id[:6], "big")


def floor(time_ms: int) -> bytes:
    """The lowest id of a millisecond. Raises ValueError outside 0 to 2**48 - 1."""
    return _HALVES.pack(_checked(time_ms) << 16 | _VERSION, _VARIANT)


def ceiling(time_ms: int) -> bytes:
    """The highest id of a millisecond. Raises ValueError outside 0 to 2**48 - 1."""
    return _HALVES.pack(_checked(time_ms) << 16 | _COUNTER_END - 1, _VARIANT | _TAIL)


def _checked(time_ms: int) -> int:
    if not 0 <= time_ms < _TIME_MS_END:
        raise ValueError(f"{time_ms} ms is not a time that an id can hold: it must be 0 to {_TIME_MS_END - 1}")
    return time_ms
