"""The generic cell rate algorithm: of each bucket, how many requests it owes until it is full again.

Source: ITU-T I.371, the continuous-state leaky bucket, which grants what virtual scheduling grants. It counts requests
rather than time, so that what is taken at one moment adds up exactly, and a clock that is set back locks nobody out.
"""

from __future__ import annotations

from math import ceil

from app.settings.rates import Rate

Standing = tuple[int, int]
"""How many requests of cost 1 a bucket has now, and after how many seconds it is full."""

TOLERANCE = 1e-6
"""Requests. What rounding may take from a bucket in its life is far less, and never costs a caller one request."""


def drained(owed: float, elapsed_s: float, rate: Rate) -> float:
    """What a bucket owes after that time; a time that runs backwards changes nothing."""
    if elapsed_s > 0:
        owed -= elapsed_s * rate.per_s
        return owed if owed > 0 else 0.0
    return owed


def wait_s(owed: float, rate: Rate, cost: int) -> float:
    """How long a request of this cost has to wait; 0 where the bucket has enough for it now.

    More than a bucket holds is let through from a full bucket, which then owes the rest.
    """
    missing = owed + min(cost, rate.burst) - rate.burst
    return missing / rate.per_s if missing > TOLERANCE else 0.0


def standing(owed: float, rate: Rate) -> Standing:
    """What a caller is told of a bucket that owes so much."""
    per_s, burst = rate
    if owed <= TOLERANCE:
        return burst, 0
    left = burst - owed + TOLERANCE
    return int(left) if left > 0 else 0, ceil((owed - TOLERANCE) / per_s)
