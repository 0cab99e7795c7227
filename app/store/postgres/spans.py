"""The spans that rows are put into: stretches of the index by business.

A span is wide enough that few are to be looked through, and narrow enough that the pages of the newest stay in memory.
"""

from __future__ import annotations

from app import ids

SPAN_ROWS = 200_000
"""Rows that one process puts into a span before it starts the next of the day."""
DAY_SPANS = 4096
"""Spans of a day: they begin with the day's number times this."""
DAY_MS = 86_400_000
_LAST_DAY = 2**31 // DAY_SPANS - 1


class Spans:
    """Numbers the spans of one process's rows, as they come."""

    __slots__ = ("_day", "_rows")

    def __init__(self) -> None:
        self._day = 0
        self._rows = 0

    def of(self, id: bytes) -> int:
        """The span of a row with this id, which is counted."""
        day = span_of_day(id)
        if day != self._day:
            self._day, self._rows = day, 0
        self._rows += 1
        return day + min(self._rows // SPAN_ROWS, DAY_SPANS - 1)


def span_of_day(id: bytes) -> int:
    """The first span of the day of an id."""
    return min(ids.time_ms(id) // DAY_MS, _LAST_DAY) * DAY_SPANS
