"""What a formula of the model file and the zone of the Z'' model come to for each company."""

from __future__ import annotations

import ast

import numpy as np
from companies import Amounts, Column
from numpy.typing import NDArray

DISTRESS_BOUNDS = (1.1, 2.6)
DISTRESS_POINTS = (400, 80, 0)
DISTRESS_MISSING = 160


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
