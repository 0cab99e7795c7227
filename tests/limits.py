"""What the tests of rate limits share: a clock, allowances, and the plain token bucket that all of them are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import strategies as st

from app.limits.allowance import Allowance, Bucket
from app.settings.rates import Rate

HOURLY = 1 / 3600
"""Requests a second of a bucket that gets none back while a test runs."""

UNDECIDED = Fraction(2, 1_000_000)
"""Requests by which a bucket may be short where rounding, and not the rule, decides."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bucket(key: str = "one", per_s: float = HOURLY, burst: int = 5, name: str | None = None) -> Bucket:
    return Bucket(name, b"kyb:limit:" + key.encode(), Rate(per_s, burst))


def allowance(*buckets: Bucket) -> Allowance:
    return Allowance(buckets or (bucket(),))


@dataclass
class TokenBucket:
    """A bucket that starts full, gets rate.per_s tokens a second up to rate.burst, and may owe tokens. Exact."""

    rate: Rate
    tokens: Fraction = field(init=False)
    at_us: int = 0

    def __post_init__(self) -> None:
        self.tokens = Fraction(self.rate.burst)

    def fill(self, now_us: int) -> None:
        gained = Fraction(now_us - self.at_us, 1_000_000) * Fraction(self.rate.per_s)
        self.tokens = min(Fraction(self.rate.burst), self.tokens + gained)
        self.at_us = now_us

    def short_of(self, cost: int) -> Fraction:
        """Tokens missing for a request of this cost, which never needs more than the bucket holds."""
        return min(cost, self.rate.burst) - self.tokens


class Oracle:
    """Token buckets by their keys, and what they grant."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, TokenBucket] = {}

    def check(self, buckets: Sequence[Bucket], cost: int, now_us: int, granted: bool) -> None:
        """A request was granted or refused: that must be right, and is taken into account."""
        kept = [self._buckets.setdefault(one.key, TokenBucket(one.rate)) for one in buckets]
        for one in kept:
            one.fill(now_us)
        missing = max(one.short_of(cost) for one in kept)
        if missing <= 0:
            assert granted, f"refused with {float(-missing)} to spare"
        elif missing > UNDECIDED:
            assert not granted, f"granted with {float(missing)} missing"
        if granted:
            for one in kept:
                one.tokens -= cost

    def owed(self, one: Bucket) -> float:
        """What a bucket owed when it was last asked."""
        kept = self._buckets[one.key]
        return float(kept.rate.burst - kept.tokens)


RATES = st.builds(
    Rate,
    st.sampled_from([1 / 3600, 0.5, 1.0, 3.0, 10 / 3, 7.3, 200.0, 2000.0, 999_999.5, 1_000_000.0]),
    st.sampled_from([1, 2, 3, 10, 400, 1_000_000]),
)
PAUSES_US = st.one_of(
    st.sampled_from([0, 0, 1, 999_999, 1_000_000]), st.integers(0, 3_000_000), st.integers(0, 10_000_000_000)
)
COSTS = st.one_of(st.just(1), st.integers(1, 12), st.sampled_from([399, 400, 401, 1000]))
WHERE = st.sampled_from([(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2), (2, 1, 0)])
"""Which of three buckets a request is taken from."""


@st.composite
def three_buckets(draw: st.DrawFn) -> tuple[Bucket, Bucket, Bucket]:
    return tuple(Bucket(None, b"kyb:limit:%d" % number, draw(RATES)) for number in range(3))  # type: ignore[return-value]
