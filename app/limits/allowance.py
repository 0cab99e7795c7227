"""How much one caller may ask for, and what they are told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.limits.gcra import Standing
from app.settings.rates import Rate

Fields = tuple[tuple[bytes, bytes], ...]
"""Names and values of header fields."""

ADVANCE_SHARE = 0.002
"""The part of a bucket that one process may hold ahead of its callers."""
ADVANCE_S = 0.1
"""And no more than the bucket gains in this time."""


class Bucket(NamedTuple):
    """name: as callers are told of it, None where they are not.  key: what it is kept under, the same everywhere."""

    name: str | None
    key: bytes
    rate: Rate


class Allowance:
    """The buckets that one caller's requests are taken from: from all of them or from none. Compared by identity.

    advance: how many requests at most may be taken ahead of being asked for; 0 for small buckets, where each counts.
    policy: what the RateLimit-Policy field says of them, empty where callers are told nothing.  forms: of the members
    of the RateLimit field, with the places of their buckets.
    """

    __slots__ = ("advance", "buckets", "forms", "policy", "policy_field")

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        if not buckets:
            raise ValueError("an allowance without buckets would refuse nothing: that is None")
        told = [(place, bucket) for place, bucket in enumerate(buckets) if bucket.name is not None]
        self.buckets = tuple(buckets)
        self.advance = min([int(min(ADVANCE_SHARE * b.rate.burst, ADVANCE_S * b.rate.per_s)) for b in buckets])
        self.forms = tuple([(place, f'"{bucket.name}";r=%d;t=%d'.encode("ascii")) for place, bucket in told])
        self.policy = ", ".join([_policy(bucket) for _, bucket in told]).encode("ascii")
        self.policy_field = (b"ratelimit-policy", self.policy)

    def rate(self, name: str) -> Rate | None:
        """The rate of the bucket that is told by this name; None where there is none."""
        return next((bucket.rate for bucket in self.buckets if bucket.name == name), None)


class Taken(NamedTuple):
    """granted: whether the request may go on.  wait_s: if not, when the same may.  standings: of each bucket after it,
    None where that is not known here."""

    granted: bool
    wait_s: float
    standings: Sequence[Standing | None]


def fields(allowance: Allowance, taken: Taken) -> Fields:
    """The RateLimit-Policy and RateLimit fields of an answer (draft-ietf-httpapi-ratelimit-headers-10)."""
    if not allowance.policy:
        return ()
    standings = taken.standings
    if not taken.granted:
        # A refusal names one time: that of its Retry-After.
        wait_s = max(1, math.ceil(taken.wait_s))
        standings = [known and (known[0], min(known[1], wait_s)) for known in standings]
    if taken.granted and len(allowance.forms) == 1:
        [(place, form)] = allowance.forms
        standing = standings[place]
        return (allowance.policy_field, (b"ratelimit", form % standing)) if standing else (allowance.policy_field,)
    left = b", ".join([form % standing for place, form in allowance.forms if (standing := standings[place])])
    return (allowance.policy_field, (b"ratelimit", left)) if left else (allowance.policy_field,)


def _policy(bucket: Bucket) -> str:
    return f'"{bucket.name}";q={bucket.rate.burst};w={math.ceil(bucket.rate.window_s)}'
