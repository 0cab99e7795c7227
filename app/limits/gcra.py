"""The generic cell rate algorithm: a token bucket that keeps one number, the time at which the bucket is full again.

Source: ITU-T I.371, the virtual scheduling algorithm. Times are microseconds of whatever clock the caller keeps.
"""

from __future__ import annotations

from app.settings.rates import Rate

SECOND_US = 1_000_000.0


def wait_us(full_at_us: float, now_us: float, rate: Rate, cost: int) -> float:
    """How long a request of this cost has to wait; 0 where the bucket has enough for it now.

    More than a bucket holds is let through from a full bucket, which then owes the rest.
    """
    return max(0.0, full_at_us - now_us + (min(cost, rate.burst) - rate.burst) * rate.interval_us)


def charged(full_at_us: float, now_us: float, rate: Rate, cost: int) -> float:
    """When the bucket is full again after it gave so much."""
    return max(full_at_us, now_us) + cost * rate.interval_us


def remaining(full_at_us: float, now_us: float, rate: Rate) -> int:
    """How many requests of cost 1 the bucket has left now."""
    return max(0, int((rate.window_us - max(0.0, full_at_us - now_us)) / rate.interval_us + 1e-6))
