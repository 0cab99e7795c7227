"""How well a card ranks companies that failed: in cross-validation, in sample and under stress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from companies import READINGS, Amounts, Column, Labels, auc, gini, ks
from formulas import distress_points, evaluate, z_double_prime
from numpy.typing import NDArray
from ratios import RATIOS, Ratio
from scorecard import Binned, Scored, fit, score

SEED = 20160101
FOLDS = 10


def rows(amounts: Amounts, keep: NDArray[np.bool_]) -> Amounts:
    return {field: column[keep] for field, column in amounts.items()}


def folds(failed: Labels, seed: int = SEED) -> NDArray[np.int64]:
    """The fold of each company, failed and surviving dealt out separately."""
    generator = np.random.default_rng(seed)
    fold = np.zeros(len(failed), dtype=np.int64)
    for outcome in (0, 1):
        members = generator.permutation(np.flatnonzero(failed == outcome))
        fold[members] = np.arange(len(members)) % FOLDS
    return fold


def cross_validate(ratios: Sequence[Ratio], amounts: Amounts, failed: Labels, seed: int = SEED) -> Column:
    """The score of each company by the card fitted without its fold; bins, weights and coefficients all anew."""
    fold = folds(failed, seed)
    scores = np.zeros(len(failed))
    for held in range(FOLDS):
        out = fold == held
        card = fit(ratios, rows(amounts, ~out), failed[~out])
        scores[out] = score(card, rows(amounts, out))
    return scores


def information_value(values: Column, binned: Binned, failed: Labels) -> float:
    """Sum over bins of (share of the failed - share of the surviving) times the log of their quotient."""
    known = ~np.isnan(values)
    place = np.searchsorted(binned.bounds, values[known], side="right")
    size = len(binned.weights)
    bad = np.bincount(place, failed[known], minlength=size) + 0.5
    good = np.bincount(place, 1 - failed[known], minlength=size) + 0.5
    bad, good = bad / bad.sum(), good / good.sum()
    return float(((bad - good) * np.log(bad / good)).sum())


def _measures(scores: Column, failed: Labels) -> str:
    return f"AUC {auc(scores, failed):.4f}  Gini {gini(scores, failed):.4f}  KS {ks(scores, failed):.4f}"


def report(card: Sequence[Scored], amounts: Amounts, failed: Labels) -> None:
    """Ranking in cross-validation and in sample, then each ratio's information value, own AUC and worst points."""
    print(f"{len(failed)} companies, {int(failed.sum())} failed")
    print(f"{FOLDS}-fold cross-validation  {_measures(cross_validate(RATIOS, amounts, failed), failed)}")
    print(f"in sample, as shipped     {_measures(score(card, amounts), failed)}")
    print(f"zone of Z'' alone         {_measures(distress_points(amounts).astype(float), failed)}")
    print(f"\n{'ratio':34} {'IV':>6} {'AUC':>6} {'worst':>6} {'missing':>8}  bounds")
    for scored in card:
        values = evaluate(scored.ratio.formula, amounts)
        value = information_value(values, scored.binned, failed)
        alone = auc(scored.of(values).astype(float), failed)
        bounds = " ".join(f"{bound:g}" for bound in scored.binned.bounds)
        worst, missing = scored.points.max() / 100, int(np.isnan(values).sum())
        print(f"{scored.ratio.name:34} {value:6.3f} {alone:6.3f} {worst:6.2f} {missing:8d}  {bounds}")


def other_readings() -> list[Mapping[str, str]]:
    """Every other reading of one amount, and of every two amounts together."""
    single = [{field: way} for field, ways in READINGS.items() for way in list(ways)[1:]]
    return [*single, *(left | right for left, right in product(single, single) if min(left) < min(right))]


def stress(card: Sequence[Scored], amounts: Amounts, failed: Labels, other: Sequence[Amounts]) -> None:
    """What is left of the ranking where the statements are read otherwise, thinner, or of another kind of company."""
    whole = score(card, amounts)
    read = [auc(score(card, one), failed) for one in other]
    print(f"other readings of the file ({len(read)}): AUC least {min(read):.4f}, median {float(np.median(read)):.4f}")
    seeds = [auc(cross_validate(RATIOS, amounts, failed, seed), failed) for seed in range(5)]
    print(f"cross-validation dealt otherwise (5): AUC least {min(seeds):.4f}, most {max(seeds):.4f}")
    for field in READINGS:
        without = amounts | {field: np.full(len(failed), np.nan)}
        print(f"no company gives {field:20} AUC {auc(score(card, without), failed):.4f}")
    for name, split in _splits(amounts).items():
        across = [_trained_on(part, ~part, amounts, failed) for part in (split, ~split)]
        within = [auc(whole[part], failed[part]) for part in (split, ~split)]
        print(f"{name:20} fitted on the other half {across[1]:.4f} {across[0]:.4f}", end=", ")
        print(f"shipped {within[0]:.4f} {within[1]:.4f}")
    print(f"distress thinned so that Z'' has AUC .689: {_thinned(whole, amounts, failed):.4f}")


def _splits(amounts: Amounts) -> dict[str, NDArray[np.bool_]]:
    columns = {
        "small or large": amounts["total_assets"],
        "few or many sales": evaluate("revenue / total_assets", amounts),
        "profit low or high": evaluate("ebt / total_assets", amounts),
    }
    return {name: column < float(np.nanmedian(column)) for name, column in columns.items()}


def _trained_on(part: NDArray[np.bool_], tested: NDArray[np.bool_], amounts: Amounts, failed: Labels) -> float:
    card = fit(RATIOS, rows(amounts, part), failed[part])
    return auc(score(card, rows(amounts, tested)), failed[tested])


def _thinned(scores: Column, amounts: Amounts, failed: Labels, target: float = 0.689) -> float:
    """AUC after drawing failed companies so that Z'' ranks as it does years before failure; mean of ten draws."""
    value = z_double_prime(amounts)
    risk = -np.where(np.isnan(value), np.nanmedian(value), value)
    place = np.argsort(np.argsort(risk)) / len(risk)
    bad, good = np.flatnonzero(failed == 1), np.flatnonzero(failed == 0)
    generator = np.random.default_rng(SEED)
    found: list[float] = []
    for _ in range(10):
        tilt = 0.0
        draw = np.concatenate((good, bad))
        while auc(risk[draw], failed[draw]) > target and tilt < 20.0:
            tilt += 0.1
            chance = np.exp(-tilt * place[bad])
            drawn = generator.choice(bad, size=len(bad), p=chance / chance.sum())
            draw = np.concatenate((good, drawn))
        found.append(auc(scores[draw], failed[draw]))
    return float(np.mean(found))
