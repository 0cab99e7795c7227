"""A card of financial ratios: their bins, weights, coefficients and points, fitted and applied.

The method is a scorecard of weights of evidence (Siddiqi, "Credit Risk Scorecards", 2006), held to what a reader
expects:

1. A ratio is cut at its twentieths, the cuts rounded to readable numbers; neighbours are pooled until the failure rate
   moves in the direction stated beforehand, each bin has its share of companies, and few bins are left.
2. A bin's weight of evidence is taken after adding `PRIOR_COMPANIES` average companies to it.
3. A logistic regression gives each ratio one coefficient, pulled toward their mean and kept between a least and a
   greatest share of all points. The zone of the Z'' model takes part with its fixed points.
4. Points are coefficient times weight of evidence above the ratio's best bin, scaled so that the worst bins add up to
   the ratios' budget, in hundredths.

A missing ratio is not fitted: which companies leave a field out differs from one source of statements to the next. It
has the most points of any bin that is not adverse, and at least `MISSING_SHARE` of the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from companies import Amounts, Column, Labels
from formulas import distress_points, evaluate
from numpy.typing import NDArray
from ratios import Ratio

PRE_BINS = 20
LEAST_SHARE = 0.05
MOST_BINS = 6
LEAST_STEP = 0.25  # weights of evidence of neighbouring bins differ by at least this
PRIOR_COMPANIES = 60.0
ADVERSE_WEIGHT = float(np.log(1.5))  # a bin is adverse when the odds of failure are half as high again as the average
MISSING_SHARE = 0.4

RATIO_BUDGET = 2125  # hundredths
LEAST_RATIO_SHARE = 0.03
MOST_RATIO_SHARE = 0.1
SHRINKAGE = 30.0


@dataclass(frozen=True)
class Binned:
    """Bounds b (k - 1,) of bins [b[i-1], b[i]), and the weight of evidence of each bin (k,)."""

    bounds: Column
    weights: Column

    @property
    def span(self) -> float:
        return float(self.weights.max() - self.weights.min())


@dataclass(frozen=True)
class Scored:
    """A ratio's bins with their points in hundredths."""

    ratio: Ratio
    binned: Binned
    points: NDArray[np.int64]
    missing: int

    @property
    def adverse(self) -> list[bool]:
        return [bool(weight > ADVERSE_WEIGHT) for weight in self.binned.weights]

    def of(self, values: Column) -> NDArray[np.int64]:
        """The points of each company."""
        place = np.searchsorted(self.binned.bounds, values, side="right")
        return np.where(np.isnan(values), self.missing, self.points[place])


def _log_odds(share: Column) -> Column:
    return np.asarray(np.log(share / (1.0 - share)))


def _readable(value: float) -> float:
    """Two significant digits, and none below the hundredth's half."""
    rounded = float(f"{value:.2g}")
    return round(round(rounded / 0.005) * 0.005, 3)


def bin_ratio(values: Column, failed: Labels, rising: bool) -> Binned:
    """Monotone bins of one ratio by pooling neighbours of its twentieths; missing values take no part."""
    known = ~np.isnan(values)
    cuts = np.quantile(values[known], np.linspace(0.0, 1.0, PRE_BINS + 1)[1:-1])
    bounds = sorted({_readable(cut) for cut in cuts} - {float("inf")})
    place = np.searchsorted(bounds, values[known], side="right")
    count = np.bincount(place, minlength=len(bounds) + 1).astype(float)
    bad = np.bincount(place, failed[known], minlength=len(bounds) + 1).astype(float)
    average = float(failed.mean())
    sign = 1.0 if rising else -1.0

    def weights() -> Column:
        share = (np.asarray(bad) + PRIOR_COMPANIES * average) / (np.asarray(count) + PRIOR_COMPANIES)
        return _log_odds(share) - float(_log_odds(np.asarray(average)))

    least = LEAST_SHARE * len(failed)
    while len(count) > 2:
        steps = sign * np.diff(weights())
        small = np.minimum(count[:-1], count[1:]) < least
        wrong = steps < 0.0
        near = (steps < LEAST_STEP) | (len(count) > MOST_BINS)
        if not (small | wrong | near).any():
            break
        # Pool a wrong step first, then a small bin with its nearest neighbour, then the nearest pair.
        urgency = np.where(wrong, 0, np.where(small, 1, np.where(near, 2, 3)))
        at = int(np.lexsort((steps, urgency))[0])
        count = np.concatenate((count[:at], [count[at] + count[at + 1]], count[at + 2 :]))
        bad = np.concatenate((bad[:at], [bad[at] + bad[at + 1]], bad[at + 2 :]))
        del bounds[at]
    return Binned(np.asarray(bounds), weights())


def missing_weight(binned: Binned) -> float:
    """The weight of evidence of a missing ratio, by the rule stated above."""
    best = float(binned.weights.min())
    plain = binned.weights[binned.weights <= ADVERSE_WEIGHT]
    highest = float(plain.max()) if len(plain) else best
    return max(highest, best + MISSING_SHARE * binned.span)


def weigh(values: Column, binned: Binned) -> Column:
    """The weight of evidence of each company's bin above the best bin."""
    place = np.searchsorted(binned.bounds, values, side="right")
    best = float(binned.weights.min())
    return np.where(np.isnan(values), missing_weight(binned), binned.weights[place]) - best


def coefficients(weighed: NDArray[np.float64], distress: Column, spans: Column, failed: Labels) -> Column:
    """Penalised logistic regression; each coefficient times its span keeps to its bounds of the sum of all.

    weighed: (n, k). distress: (n,) points of the zone, whose coefficient follows from the sum of all, so that zone and
    ratios keep the shares they have in the model.
    """
    found = np.full(weighed.shape[1], 0.2)
    for _ in range(12):
        total = float(found @ spans)
        offset = distress * (total / RATIO_BUDGET)
        low = LEAST_RATIO_SHARE * total / spans
        high = MOST_RATIO_SHARE * total / spans
        found = _logistic(weighed, offset, failed, np.clip(found, low, high), low, high)
    return found


def _logistic(
    x: NDArray[np.float64], offset: Column, failed: Labels, start: Column, low: Column, high: Column
) -> Column:
    """Newton steps, each solved by coordinate descent within the bounds."""
    found, intercept = start.copy(), -4.0
    for _ in range(25):
        share = 1.0 / (1.0 + np.exp(-np.clip(intercept + offset + x @ found, -30.0, 30.0)))
        curve = np.maximum(share * (1.0 - share), 1e-9)
        gradient = x.T @ (failed - share) - SHRINKAGE * (found - found.mean())
        curvature = (x * curve[:, None]).T @ x + SHRINKAGE * np.eye(x.shape[1])
        cross, own = x.T @ curve, float(curve.sum())
        slope = float((failed - share).sum())
        step, shift = np.zeros(x.shape[1]), 0.0
        for _ in range(30):
            shift = (slope - float(cross @ step)) / own
            for j in range(x.shape[1]):
                rest = gradient[j] - cross[j] * shift - float(curvature[j] @ step)
                wanted = found[j] + step[j] + rest / curvature[j, j]
                step[j] = min(max(wanted, low[j]), high[j]) - found[j]
        found, intercept = found + step, intercept + shift
        if float(np.abs(step).max()) < 1e-5:
            break
    return found


def hundredths(exact: Column, budget: int) -> NDArray[np.int64]:
    """Whole numbers that add up to the budget, each next to its exact value (largest remainders)."""
    floor = np.floor(exact).astype(np.int64)
    order = np.argsort(floor - exact, kind="stable")
    floor[order[: budget - int(floor.sum())]] += 1
    return floor


def fit(ratios: Sequence[Ratio], amounts: Amounts, failed: Labels) -> list[Scored]:
    """Bins, weights, coefficients and points from these companies alone."""
    columns = [evaluate(ratio.formula, amounts) for ratio in ratios]
    binned = [
        bin_ratio(column, failed, ratio.direction == "rising") for ratio, column in zip(ratios, columns, strict=True)
    ]
    weighed = np.stack([weigh(column, one) for column, one in zip(columns, binned, strict=True)], axis=1)
    spans = np.array([one.span for one in binned])
    found = coefficients(weighed, distress_points(amounts).astype(float), spans, failed)
    scale = RATIO_BUDGET / float(found @ spans)
    worst = hundredths(found * spans * scale, RATIO_BUDGET)
    return [_scored(ratio, one, int(most)) for ratio, one, most in zip(ratios, binned, worst, strict=True)]


def _scored(ratio: Ratio, binned: Binned, worst: int) -> Scored:
    unit = worst / binned.span if binned.span > 0.0 else 0.0
    best = float(binned.weights.min())
    points = np.rint((binned.weights - best) * unit).astype(np.int64)
    return Scored(ratio, binned, points, round((missing_weight(binned) - best) * unit))


def score(card: Sequence[Scored], amounts: Amounts) -> Column:
    """The hundredths of the ratios and the distress zone together, of each company."""
    total = distress_points(amounts)
    for scored in card:
        total = total + scored.of(evaluate(scored.ratio.formula, amounts))
    return total.astype(float)
