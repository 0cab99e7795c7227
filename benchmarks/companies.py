"""Companies with a known outcome, rebuilt from the ratios of a published file, and measures of how a score ranks them.

A file of the Polish companies bankruptcy data (UCI 365; Zieba, Tomczak and Tomczak, "Ensemble boosted trees with
synthetic features generation in application to bankruptcy prediction", Expert Systems with Applications 58, 2016,
CC BY 4.0) holds 64 ratios and the outcome of each company. The statement behind the ratios is recovered from them:
total assets from the logarithm (base 10, thousands of zloty), everything else from its ratio to a known amount.
What the file calls gross profit is profit before tax. `?` is a missing ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Labels = NDArray[np.int64]
Amounts = dict[str, Column]
Reading = Callable[["Ratios", Amounts], Column]

RATIOS = 64
DAYS = 365.0
NEVER_NEGATIVE = (
    "total_assets",
    "current_assets",
    "fixed_assets",
    "receivables",
    "inventories",
    "current_liabilities",
    "total_liabilities",
)


class Ratios:
    """The ratios of n companies: `r[21]` is the column that the source calls Attr21, missing as NaN."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        self.table = table

    def __getitem__(self, number: int) -> Column:
        return self.table[:, number - 1]

    def __len__(self) -> int:
        return len(self.table)


def read_arff(path: Path) -> tuple[Ratios, Labels]:
    """The ratios (n, 64) and the outcomes (n,), 1 = failed. Raises ValueError on a row of another width."""
    rows: list[list[float]] = []
    in_data = False
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("%"):
            continue
        if not in_data:
            in_data = line.lower() == "@data"
            continue
        cells = line.split(",")
        if len(cells) != RATIOS + 1:
            raise ValueError(f"{path}:{number}: {len(cells)} cells, expected {RATIOS + 1}")
        rows.append([float("nan") if cell.strip() == "?" else float(cell) for cell in cells])
    table = np.array(rows, dtype=np.float64).reshape(len(rows), RATIOS + 1)
    return Ratios(table[:, :RATIOS]), table[:, RATIOS].astype(np.int64)


def _first_known(*columns: Column) -> Column:
    """Of each row the first finite value; NaN where there is none."""
    known = np.full(len(columns[0]), np.nan)
    for column in columns:
        known = np.where(np.isnan(known) & np.isfinite(column), column, known)
    return known


# How each amount is read. An amount may be recoverable from several ratios, which agree for most companies only;
# the first reading is the one used, the others are for testing that nothing rests on the choice.
READINGS: dict[str, dict[str, Reading]] = {
    "total_assets": {"attr29": lambda r, a: 1000.0 * 10.0 ** r[29]},
    "current_liabilities": {"attr51": lambda r, a: r[51] * a["total_assets"]},
    "total_liabilities": {"attr2": lambda r, a: r[2] * a["total_assets"]},
    "current_assets": {"attr3": lambda r, a: r[3] * a["total_assets"] + a["current_liabilities"]},
    "revenue": {
        "attr63": lambda r, a: _first_known(r[63] * a["current_liabilities"], r[18] / r[19] * a["total_assets"]),
        "attr19": lambda r, a: r[18] / r[19] * a["total_assets"],
        "attr23": lambda r, a: r[1] / r[23] * a["total_assets"],
        "attr36": lambda r, a: r[36] * a["total_assets"],
        "attr9": lambda r, a: r[9] * a["total_assets"],
    },
    "retained_earnings": {"attr6": lambda r, a: r[6] * a["total_assets"]},
    "net_income": {"attr1": lambda r, a: r[1] * a["total_assets"]},
    "ebt": {"attr18": lambda r, a: r[18] * a["total_assets"]},
    "ebit": {
        "attr7": lambda r, a: r[7] * a["total_assets"],
        "attr11": lambda r, a: r[11] * a["total_assets"],
        "attr14": lambda r, a: r[14] * a["total_assets"],
        "attr22": lambda r, a: r[22] * a["total_assets"],
    },
    "interest_expense": {
        "attr11": lambda r, a: (r[11] - r[18]) * a["total_assets"],
        "attr27": lambda r, a: r[22] / r[27] * a["total_assets"],
        "attr31": lambda r, a: (r[31] - r[19]) * a["revenue"],
        "attr14": lambda r, a: (r[14] - r[18]) * a["total_assets"],
    },
    "depreciation": {
        "attr13": lambda r, a: (r[13] - r[19]) * a["revenue"],
        "attr16": lambda r, a: r[16] * a["total_liabilities"] - a["ebt"],
        "attr26": lambda r, a: r[26] * a["total_liabilities"] - a["net_income"],
        "attr48": lambda r, a: (r[22] - r[48]) * a["total_assets"],
    },
    "cost_of_sales": {
        "attr56": lambda r, a: (1.0 - r[56]) * a["revenue"],
        "attr32": lambda r, a: DAYS * a["current_liabilities"] / r[32],
        "attr52": lambda r, a: a["current_liabilities"] / r[52],
        "attr47": lambda r, a: r[20] * a["revenue"] / r[47],
        "attr58": lambda r, a: r[58] * a["revenue"],
    },
    "inventories": {
        "attr20": lambda r, a: r[20] / DAYS * a["revenue"],
        "attr60": lambda r, a: np.where(np.isnan(r[60]), 0.0, a["revenue"] / r[60]),
        "attr46": lambda r, a: a["current_assets"] - r[46] * a["current_liabilities"],
    },
    "receivables": {
        "attr44": lambda r, a: r[44] / DAYS * a["revenue"],
        "attr61": lambda r, a: a["revenue"] / r[61],
    },
    "cash": {
        "attr40": lambda r, a: r[40] * a["current_liabilities"],
        "attr30": lambda r, a: a["total_liabilities"] - r[30] * a["revenue"],
    },
    "fixed_assets": {"attr64": lambda r, a: a["revenue"] / r[64]},
    "prior_revenue": {"attr21": lambda r, a: a["revenue"] / r[21]},
}


def rebuild(ratios: Ratios, readings: Mapping[str, str] | None = None) -> Amounts:
    """Each amount in zloty, one column per field of a statement, NaN = missing; `prior_revenue` is last year's.

    readings: field -> name of the reading to use instead of the first. Amounts that cannot be negative are missing
    where the ratios make them so.
    """
    chosen = readings or {}
    amounts: Amounts = {}
    with np.errstate(all="ignore"):
        for field, ways in READINGS.items():
            column = ways[chosen.get(field, next(iter(ways)))](ratios, amounts)
            amounts[field] = np.where(np.isfinite(column), column, np.nan)
    for field in NEVER_NEGATIVE:
        amounts[field] = np.where(amounts[field] < 0.0, np.nan, amounts[field])
    return amounts


def _statement(amounts: Amounts, row: int, fields: Sequence[str]) -> dict[str, float]:
    known = {field: float(amounts[field][row]) for field in fields}
    return {field: round(value, 2) for field, value in known.items() if value == value}


def profiles(amounts: Amounts) -> list[dict[str, Any]]:
    """One profile per company, as a caller of the batch endpoint would send it."""
    current = [field for field in READINGS if field != "prior_revenue"]
    made: list[dict[str, Any]] = []
    for row in range(len(amounts["total_assets"])):
        financials: dict[str, Any] = {"currency": "PLN", "listed": False, "manufacturer": False}
        financials["current"] = _statement(amounts, row, current)
        revenue = _statement(amounts, row, ["prior_revenue"])
        financials["prior"] = {"revenue": revenue["prior_revenue"]} if revenue else None
        business = {"id": f"company-{row + 1}", "name": f"Company {row + 1}", "jurisdiction": "PL"}
        made.append({"business": business, "financials": financials})
    return made


def load(path: Path) -> tuple[list[dict[str, Any]], Labels]:
    """The profiles and outcomes (1 = failed) of a file."""
    ratios, failed = read_arff(path)
    return profiles(rebuild(ratios)), failed


def auc(scores: Column, failed: Labels) -> float:
    """The share of pairs (failed, surviving) in which the failed company scores higher; ties count half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[place]
    bad = int(failed.sum())
    good = len(failed) - bad
    return float((rank[failed == 1].sum() - bad * (bad + 1) / 2.0) / (bad * good))


def gini(scores: Column, failed: Labels) -> float:
    """2 AUC - 1."""
    return 2.0 * auc(scores, failed) - 1.0


def ks(scores: Column, failed: Labels) -> float:
    """Kolmogorov-Smirnov: the widest gap between the score distributions of failed and surviving companies."""
    values = np.unique(scores)
    bad = np.searchsorted(np.sort(scores[failed == 1]), values, side="right") / max(int((failed == 1).sum()), 1)
    good = np.searchsorted(np.sort(scores[failed == 0]), values, side="right") / max(int((failed == 0).sum()), 1)
    return float(np.abs(bad - good).max())


def failure_rates(levels: Sequence[str], failed: Labels) -> dict[str, tuple[int, float]]:
    """Level -> how many companies have it, and the share of them that failed."""
    named = np.asarray(levels)
    return {
        str(level): (int((named == level).sum()), float(failed[named == level].mean())) for level in np.unique(named)
    }
