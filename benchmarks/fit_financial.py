"""Fits the points of the financial ratios of the default scorecard on companies with a known outcome.

    python benchmarks/fit_financial.py 5year.arff                         the ranking, cross-validated and in sample
    python benchmarks/fit_financial.py 5year.arff --stress                also on other readings, with fields left out
    python benchmarks/fit_financial.py 5year.arff --yaml characteristics  the fragment for the model file, or features

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
The companies: UCI 365, Zieba, Tomczak and Tomczak 2016, see companies.py.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from companies import READINGS, Amounts, Column, Labels, auc, gini, ks, read_arff, rebuild
from numpy.typing import NDArray

SEED = 20160101
FOLDS = 10

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

DISTRESS_BOUNDS = (1.1, 2.6)
DISTRESS_POINTS = (400, 80, 0)
DISTRESS_MISSING = 160


@dataclass(frozen=True)
class Ratio:
    """One characteristic: its formula, which way risk moves with it, and the words of its reasons."""

    name: str
    title: str
    formula: str
    direction: str  # of the points as the ratio rises
    code: str
    subject: str  # with {} where the range stands
    weak: str  # what an adverse value means
    strong: str  # what the best bin means


def _falling(name: str, title: str, formula: str, code: str, subject: str, weak: str, strong: str) -> Ratio:
    return Ratio(name, title, formula, "falling", code, subject, weak, strong)


def _rising(name: str, title: str, formula: str, code: str, subject: str, weak: str, strong: str) -> Ratio:
    return Ratio(name, title, formula, "rising", code, subject, weak, strong)


# Each divides by an amount that a working company has, so that no debt, no stock or no interest is a value, not a gap.
RATIOS = (
    # liquidity
    _falling(
        "current_ratio",
        "Current assets to current liabilities",
        "current_assets / current_liabilities",
        "CURRENT",
        "Current assets are {} of current liabilities",
        "so debts due within the year may not be met from assets due within the year",
        "a comfortable cover of the debts due within the year",
    ),
    _falling(
        "quick_ratio",
        "Current assets without inventories to current liabilities",
        "(current_assets - inventories) / current_liabilities",
        "QUICK",
        "Current assets without inventories are {} of current liabilities",
        "so meeting short-term debt depends on selling stock",
        "so short-term debt can be met with little reliance on selling stock",
    ),
    _falling(
        "cash_ratio",
        "Cash to current liabilities",
        "cash / current_liabilities",
        "CASH",
        "Cash and short-term securities are {} of current liabilities",
        "which leaves hardly any reserve for bills that fall due",
        "a solid reserve for bills that fall due",
    ),
    _falling(
        "liquid_assets_to_revenue",
        "Cash and receivables to revenue",
        "(cash + receivables) / revenue",
        "LIQUID",
        "Cash and receivables are {} of a year's revenue",
        "so little money is at hand or on its way for the size of the business",
        "enough money at hand or on its way for the size of the business",
    ),
    # leverage
    _rising(
        "liabilities_to_assets",
        "Total liabilities to total assets",
        "total_liabilities / total_assets",
        "LEVERAGE",
        "Total liabilities are {} of total assets",
        "which leaves a thin cushion of equity, or none, against losses",
        "which leaves a thick cushion of equity against losses",
    ),
    _falling(
        "retained_earnings_to_assets",
        "Retained earnings to total assets",
        "retained_earnings / total_assets",
        "RETAINED",
        "Retained earnings are {} of total assets",
        "which means that past losses have not been made good",
        "which shows that past profits were kept in the company",
    ),
    # coverage
    _falling(
        "cash_flow_to_liabilities",
        "Net income and depreciation to total liabilities",
        "(net_income + depreciation) / total_liabilities",
        "DEBT_COVER",
        "Net income before depreciation is {} of total liabilities",
        "too little to pay the debts down from earnings",
        "enough to pay the debts down from earnings within a few years",
    ),
    _falling(
        "cash_flow_to_current_liabilities",
        "Pre-tax profit and depreciation to current liabilities",
        "(ebt + depreciation) / current_liabilities",
        "SHORT_DEBT_COVER",
        "Pre-tax profit before depreciation is {} of current liabilities",
        "too little to carry the debts due within the year",
        "a good part of what falls due within the year",
    ),
    _rising(
        "interest_to_revenue",
        "Interest expense to revenue",
        "interest_expense / revenue",
        "INTEREST",
        "Interest expense is {} of revenue",
        "a heavy burden should sales or rates turn",
        "a light burden or none",
    ),
    # turnover
    _rising(
        "current_liabilities_to_revenue",
        "Current liabilities to revenue",
        "current_liabilities / revenue",
        "PAYMENT",
        "Current liabilities are {} of a year's revenue",
        "which suggests that bills are paid late",
        "which suggests that bills are paid promptly",
    ),
    _rising(
        "operating_cycle",
        "Receivables and inventories to revenue",
        "(receivables + inventories) / revenue",
        "CYCLE",
        "Receivables and inventories are {} of a year's revenue",
        "so money stays tied up in unpaid invoices and unsold stock",
        "so invoices and stock turn into money in reasonable time",
    ),
    # margin and return
    _falling(
        "gross_margin",
        "Gross margin",
        "(revenue - cost_of_sales) / revenue",
        "GROSS_MARGIN",
        "The margin of revenue over cost of sales is {} of revenue",
        "so sales do not carry their own cost",
        "which leaves room for overheads and setbacks",
    ),
    _falling(
        "cash_flow_margin",
        "Pre-tax profit and depreciation to revenue",
        "(ebt + depreciation) / revenue",
        "CASH_MARGIN",
        "Pre-tax profit before depreciation is {} of revenue",
        "so the business consumes money as it trades",
        "so the business brings in money as it trades",
    ),
    _falling(
        "return_on_assets",
        "Net income to total assets",
        "net_income / total_assets",
        "RETURN",
        "Net income is {} of total assets",
        "so the assets earn a loss",
        "a healthy profit on the assets employed",
    ),
    # growth
    _falling(
        "revenue_growth",
        "Revenue to last year's revenue",
        "revenue / prior.revenue",
        "GROWTH",
        "Revenue is {} of last year's",
        "a marked loss of business",
        "a growing business",
    ),
    _falling(
        "revenue_change_to_assets",
        "Change of revenue to total assets",
        "(revenue - prior.revenue) / total_assets",
        "REVENUE_CHANGE",
        "The change of revenue against last year is {} of total assets",
        "so assets built for a larger business now have less to do",
        "so the assets carry visibly more business than a year ago",
    ),
    # investment
    _falling(
        "depreciation_to_assets",
        "Depreciation to total assets",
        "depreciation / total_assets",
        "DEPRECIATION_ASSETS",
        "Depreciation is {} of total assets",
        "which means few productive assets, or wear that the accounts do not show",
        "as expected of a company with productive assets",
    ),
    _falling(
        "depreciation_to_revenue",
        "Depreciation to revenue",
        "depreciation / revenue",
        "DEPRECIATION_REVENUE",
        "Depreciation is {} of revenue",
        "which means sales made with hardly any equipment, or wear that the accounts do not show",
        "as expected of a company that trades with its own equipment",
    ),
)


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


def evaluate(formula: str, amounts: Amounts) -> Column:
    """A formula of the model file: a missing field or a denominator that is not positive makes it missing."""
    with np.errstate(all="ignore"):
        return _value(ast.parse(formula.replace("prior.", "prior_"), mode="eval").body, amounts)


def _value(node: ast.expr, amounts: Amounts) -> Column:
    match node:
        case ast.Name(id=field):
            return amounts[field]
        case ast.Constant(value=float() | int() as number):
            return np.asarray(float(number))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, amounts) + _value(right, amounts)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left, amounts) - _value(right, amounts)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, amounts) * _value(right, amounts)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            below = _value(right, amounts)
            return np.where(below > 0.0, _value(left, amounts) / below, np.nan)
    raise ValueError(f"not part of a formula: {ast.unparse(node)}")


def z_double_prime(amounts: Amounts) -> Column:
    """Altman's Z'' (1995)."""
    working_capital = evaluate("(current_assets - current_liabilities) / total_assets", amounts)
    retained = evaluate("retained_earnings / total_assets", amounts)
    ebit = evaluate("ebit / total_assets", amounts)
    equity = evaluate("(total_assets - total_liabilities) / total_liabilities", amounts)
    return 6.56 * working_capital + 3.26 * retained + 6.72 * ebit + 1.05 * equity


def distress_points(amounts: Amounts) -> NDArray[np.int64]:
    """The points of the zone of Z'' in hundredths: below 1.1 distress, above 2.6 safe."""
    value = z_double_prime(amounts)
    low, high = DISTRESS_BOUNDS
    distress, grey, safe = DISTRESS_POINTS
    zone = np.where(value < low, distress, np.where(value > high, safe, grey))
    return np.where(np.isnan(value), DISTRESS_MISSING, zone)


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


# The names of a ratio's bins, worst first: of the adverse ones, and of the others by how many there are.
ADVERSE_GRADES = ("CRITICAL", "EXTREMELY_POOR", "VERY_POOR", "POOR")
GRADES = {
    1: ("GOOD",),
    2: ("FAIR", "GOOD"),
    3: ("WEAK", "FAIR", "GOOD"),
    4: ("WEAK", "FAIR", "GOOD", "STRONG"),
    5: ("WEAK", "FAIR", "SOUND", "GOOD", "STRONG"),
    6: ("WEAK", "FAIR", "SOUND", "GOOD", "VERY_GOOD", "STRONG"),
}
FIELD_WORDS = {"prior_revenue": "last year's revenue", "ebt": "profit before tax"}


def _percent(bound: float) -> str:
    return f"{100.0 * bound:.6g} %"


def _range_words(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{_percent(low)} or more" if low is not None else f"below {_percent(high or 0.0)}"
    return f"at least {_percent(low)} and below {_percent(high)}"


def _needs(formula: str) -> str:
    """The fields of a formula in words, the denominator's above zero."""
    above, below = (_fields(part) for part in formula.split(" / "))
    words = [FIELD_WORDS.get(name, name.replace("_", " ")) for name in above if name not in below]
    words += [f"a positive figure for {FIELD_WORDS.get(name, name.replace('_', ' '))}" for name in below]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _fields(expression: str) -> list[str]:
    tree = ast.parse(expression.replace("prior.", "prior_"), mode="eval")
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _attribute(when: str, points: int, adverse: bool, code: str, message: str) -> str:
    mark = "adverse: true, " if adverse else ""
    return f'      - {{when: {when}, points: {points / 100:.2f}, {mark}code: FIN_{code}, message: "{message}"}}'


def grades(scored: Scored) -> list[str]:
    """The names of the bins in the order of their bounds."""
    adverse = sum(scored.adverse)
    worst_first = [*ADVERSE_GRADES[len(ADVERSE_GRADES) - adverse :], *GRADES[len(scored.points) - adverse]]
    return worst_first if scored.ratio.direction == "falling" else worst_first[::-1]


def attributes(scored: Scored) -> Iterator[str]:
    """The attribute lines of one characteristic, in the order of its bounds, missing last."""
    ratio, names = scored.ratio, grades(scored)
    bounds = [None, *scored.binned.bounds.tolist(), None]
    for at, points in enumerate(scored.points.tolist()):
        low, high = bounds[at], bounds[at + 1]
        when = f'"{"(-inf" if low is None else f"[{low:g}"}, {"inf" if high is None else f"{high:g}"})"'
        meaning = ratio.weak if scored.adverse[at] else ratio.strong if points == 0 else ""
        message = ratio.subject.format(_range_words(low, high)) + (f", {meaning}." if meaning else ".")
        yield _attribute(when, points, scored.adverse[at], f"{ratio.code}_{names[at]}", message)
    missing = f"{ratio.title} is not known: it takes {_needs(ratio.formula)}."
    yield _attribute("missing", scored.missing, False, f"{ratio.code}_MISSING", missing)


def features_yaml(ratios: Sequence[Ratio]) -> str:
    return "\n".join(f'  {ratio.name}: {{kind: ratio, formula: "{ratio.formula}"}}' for ratio in ratios)


def characteristics_yaml(card: Sequence[Scored]) -> str:
    lines: list[str] = []
    for scored in card:
        ratio = scored.ratio
        lines += [f"  - name: {ratio.name}", f"    title: {ratio.title}", "    category: financial"]
        lines += [f"    feature: {ratio.name}", f"    direction: {ratio.direction}", "    attributes:"]
        lines += attributes(scored)
    return "\n".join(lines)


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the points of the financial ratios.")
    parser.add_argument("arff", type=Path, help="a file of the Polish companies bankruptcy data (UCI 365)")
    parser.add_argument("--yaml", choices=("features", "characteristics"), help="print this fragment of the model file")
    parser.add_argument("--stress", action="store_true", help="how much of the ranking rests on what")
    options = parser.parse_args()
    ratios, failed = read_arff(options.arff)
    amounts = rebuild(ratios)
    if options.yaml == "features":
        print(features_yaml(RATIOS))
        return
    card = fit(RATIOS, amounts, failed)
    if options.yaml == "characteristics":
        print(characteristics_yaml(card))
        return
    report(card, amounts, failed)
    if options.stress:
        stress(card, amounts, failed, [rebuild(ratios, one) for one in other_readings()])


if __name__ == "__main__":
    main()
