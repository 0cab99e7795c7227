"""Rates of requests as settings and keys write them: `100/s burst 200`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import ceil
from types import MappingProxyType
from typing import NamedTuple

from app.settings.kinds import Kind, Malformed, quoted

MOST_PER_S = 1_000_000
UNLIMITED = "unlimited"

_RATE = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)/(s|min|h)(?:\s+burst\s+([0-9]{1,7}))?")
_TIER = re.compile(r"([a-z][a-z0-9_-]{0,31})\s+(.+)")
_UNITS_S = {"s": 1, "min": 60, "h": 3600}
_PARTS = 1000
"""Of a request, the finest that a text can give."""


class Rate(NamedTuple):
    """per_s: requests a second in the long run.  burst: how many may come at once after a pause."""

    per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """How long an empty bucket takes to fill."""
        return self.burst / self.per_s


def parse_rate(text: str) -> Rate | None:
    """The rate of `100/s burst 200`, `30/min` or `unlimited` (None). Without a burst it is one second's worth, or 1.

    Raises Malformed.
    """
    text = " ".join(text.split())
    if text == UNLIMITED:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise Malformed(f"{quoted(text)} is not a rate")
    # One division of whole numbers, so that texts of the same rate give the same number.
    per_s = int(Decimal(match[1]) * _PARTS) / (_UNITS_S[match[2]] * _PARTS)
    burst = int(match[3]) if match[3] else max(1, ceil(per_s))
    if not 0 < per_s <= MOST_PER_S or not 1 <= burst <= MOST_PER_S:
        raise Malformed(f"{quoted(text)} is out of range")
    return Rate(per_s, burst)


def show_rate(rate: Rate | None) -> str:
    """The text that reads as the same rate. Raises ValueError for a rate that `parse_rate` never gives."""
    if rate is None:
        return UNLIMITED
    for unit, seconds in _UNITS_S.items():
        parts = round(rate.per_s * seconds * _PARTS)
        if parts > 0 and parts / (seconds * _PARTS) == rate.per_s:
            return f"{Decimal(parts) / _PARTS:f}/{unit} burst {rate.burst}"
    raise ValueError(f"no text gives {rate.per_s} requests a second")


def _parse_tiers(text: str) -> Mapping[str, Rate | None]:
    tiers: dict[str, Rate | None] = {}
    for part in text.split(","):
        match = _TIER.fullmatch(part.strip())
        if match is None:
            raise Malformed(f"{quoted(part.strip())} is not a tier's name and its rate")
        if match[1] in tiers:
            raise Malformed(f"the tier {match[1]} stands there twice")
        tiers[match[1]] = parse_rate(match[2])
    return MappingProxyType(tiers)


def _show_tiers(tiers: Mapping[str, Rate | None]) -> str:
    return ", ".join(f"{name} {show_rate(rate)}" for name, rate in tiers.items())


_RIGHT = "a rate such as 100/s burst 200 or 30/min, or unlimited"
RATE = Kind(parse_rate, show_rate, _RIGHT)
TIERS = Kind(_parse_tiers, _show_tiers, f"names with their rates, such as standard 100/s burst 200, own {UNLIMITED}")
