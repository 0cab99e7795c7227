"""How fast something is in multiples of a yardstick that is timed beside it, and whether it was faster before.

A ratio is the yardstick's time ÷ the time of what is measured, so that more is faster. It outlives a change of the
clock rate or a busy neighbour, which both sides feel; another processor may move it by itself, which is why each
baseline says what it was measured on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
from msgspec import Struct

FILE = Path(__file__).with_name("baselines.json")
TOLERANCE = 0.15
"""A ratio may fall by so much."""
ATTEMPTS = 4
"""So often a ratio that is too low is measured before it counts. What has become slower stays so; a neighbour goes."""
PASSES = 5
"""Of a baseline, each in a process of its own."""
SPREAD = 0.25
"""So far apart, as a share of their median, the passes of a baseline may lie."""

Measure = Callable[[], float]


class Baseline(Struct, frozen=True):
    """ratio: the median of the passes.  least, most: of them.  yardstick: what it is in multiples of.  revision: of the
    sources."""

    yardstick: str
    ratio: float
    least: float
    most: float
    date: str
    cpu: str
    python: str
    revision: str

    @property
    def spread(self) -> float:
        """How far the passes lie apart, as a share of the ratio."""
        return (self.most - self.least) / self.ratio


class Verdict(Struct, frozen=True):
    """A ratio beside its baseline. ratio: the best of the attempts.  change: a share, below 0 where it has fallen."""

    ratio: float
    change: float
    attempts: int

    @property
    def has_fallen(self) -> bool:
        """By more than may be."""
        return _is_low(self.change)


class Yardstick(Struct, frozen=True):
    """What a ratio is in multiples of. name: in words.  run: without arguments.  per: how many units one call is."""

    name: str
    run: Callable[[], Any]
    per: float = 1.0


class Turns:
    """Something and a yardstick that take turns. per: units of the yardstick's that one call of it is.  timer: seconds,
    by default of CPU, which a busy neighbour takes little of."""

    def __init__(
        self, subject: Callable[[], Any], yardstick: Yardstick, per: float, timer: Measure = time.process_time
    ) -> None:
        self.subject = subject
        self.yardstick = yardstick
        self._scale = per / yardstick.per
        self._timer = timer
        self._beside: list[float] = []

    def pace(self) -> None:
        """Time the yardstick once; to be done before each round."""
        self._beside.append(self._timed(self.yardstick.run))

    def ratio(self, measured: Sequence[float]) -> float:
        """Of the last rounds, as many as were measured, which a last turn of the yardstick ends."""
        self.pace()
        beside, self._beside = self._beside[-len(measured) - 1 :], []
        return ratio(beside, measured) * self._scale

    def _timed(self, call: Callable[[], Any]) -> float:
        started = self._timer()
        call()
        return self._timer() - started


def load(file: Path = FILE) -> dict[str, Baseline]:
    """By name; none where there is no file."""
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Baseline]) if file.exists() else {}


def keep(name: str, baseline: Baseline, file: Path = FILE) -> None:
    """Put one in the place of what it was before; the others stay."""
    kept = load(file) | {name: baseline}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(kept.items())))) + b"\n")


def ratio(yardsticks: Sequence[float], measured: Sequence[float]) -> float:
    """The median over all rounds of a round's own ratio.

    yardsticks: one more than there are rounds, for each round lies between two, and is held against their mean: a
    machine that grows steadily slower changes nothing.
    """
    between = (mean(yardsticks[place : place + 2]) for place in range(len(measured)))
    return median(beside / own for beside, own in zip(between, measured, strict=True))


def judged(before: float, first: float, again: Measure) -> Verdict:
    """Hold a ratio against its baseline. again: measures it once more."""
    best, attempts = first, 1
    while _is_low(best / before - 1) and attempts < ATTEMPTS:
        best, attempts = max(best, again()), attempts + 1
    return Verdict(best, best / before - 1, attempts)


def _is_low(change: float) -> bool:
    return change < -TOLERANCE


def explained(name: str, verdict: Verdict, baseline: Baseline, cpu: str, python: str) -> str:
    """Why a ratio is too low, as the check says it."""
    text = (
        f"{name} has become slower: {verdict.ratio:.4g} of {baseline.yardstick}, {-verdict.change:.0%} below the "
        f"{baseline.ratio:.4g} of {baseline.date} ({baseline.revision}); more than {TOLERANCE:.0%} in each of "
        f"{verdict.attempts} attempts"
    )
    if (cpu, python) != (baseline.cpu, baseline.python):
        text += f". That was {baseline.cpu} with Python {baseline.python}; this is {cpu} with {python}"
    return text
