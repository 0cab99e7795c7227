"""The language of a model file: what intervals and formulas say, and that points run in the direction a line names."""

from __future__ import annotations

import math
from array import array

import msgspec
import pytest
from shipped import NO_FINDINGS, TODAY, model, scorer

from app import wire
from core.conditions import parse_interval
from core.formula import FormulaError, parse
from core.kernel import conclude_row
from core.model import Characteristic

# ---------------------------------------------------------------- intervals and formulas


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[1, 2)", (1.0, math.nextafter(2, 0)), (2.0, math.nextafter(1, 0))),
        ("(1, 2]", (math.nextafter(1, 2), 2.0), (1.0, math.nextafter(2, 3))),
        ("[1, 1]", (1.0,), (math.nextafter(1, 0), math.nextafter(1, 2))),
        ("(-inf, 0)", (-1e308, -5e-324), (0.0,)),
        ("( -1.5e3 ,+.5 )", (0.0,), (-1500.0, 0.5)),
    ],
)
def test_an_interval_holds_what_it_writes(text: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    interval = parse_interval(text)
    assert not isinstance(interval, str)
    assert all(interval.holds(x) for x in inside)
    assert not any(interval.holds(x) for x in outside)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "(1, 1)",
        "[1, 1)",
        "(2, 1)",
        "[-inf, 1)",
        "(1, -inf)",
        "(inf, inf)",
        "[1; 2)",
        "(1, 1.0000000000000002)",
        "[1, nan)",
        "[1, 1e999)",
        "[\u0661, \u0662)",
        "[1, 2)x",
    ],
)
def test_an_interval_is_refused_that_holds_nothing_or_cannot_be_read(text: str) -> None:
    assert isinstance(parse_interval(text), str)


def test_a_formula_is_sums_of_fields_with_factors() -> None:
    formula = parse("(current_assets - 0.5 * inventories) / (prior.revenue + 2 * cash)")
    assert formula.numerator == ((1.0, "current_assets"), (-0.5, "inventories"))
    assert formula.denominator == ((1.0, "prior.revenue"), (2.0, "cash"))
    assert parse("- cash + ebit").numerator == ((-1.0, "cash"), (1.0, "ebit"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a /",
        "/ a",
        "a b",
        "2 a",
        "2 * 3 * a",
        "a * 2",
        "--a",
        "a -",
        "2",
        "(a",
        "a)",
        "() / b",
        "a / b / c",
        "a ^ b",
        "a + (b)",
        "(a) * b",
        "\u0662 * a",
    ],
)
def test_a_formula_is_refused_that_says_anything_else(text: str) -> None:
    with pytest.raises(FormulaError):
        parse(text)


# ---------------------------------------------------------------- directions

DIRECTED = [c for c in model().characteristics if c.direction]


@pytest.mark.parametrize("c", DIRECTED, ids=lambda c: c.name)
def test_points_run_in_the_direction_that_the_line_says(c: Characteristic) -> None:
    names = list(model().features)
    row = array("d", [math.nan] * len(names))
    if c.exclusive:
        choice = next(f for f in model().features.values() if f.kind == "distress_choice")
        assert choice.values
        row[names.index(choice.name)] = choice.values.index(c.name)
    bounds = [b for a in c.attributes for i in a.condition.intervals for b in (i.low, i.high) if math.isfinite(b)]
    sweep = sorted({-1e9, 1e9, *bounds, *(b - 1e-9 for b in bounds), *(b + 1e-9 for b in bounds)})
    points = []
    for x in sweep:
        row[names.index(c.feature)] = x
        points.append(conclude_row(scorer().card, row)["points"][list(model().characteristics).index(c)])
    assert points == sorted(points, reverse=c.direction == "falling")
    assert len(set(points)) == len({a.points for a in c.attributes if a.condition.intervals}) > 1


def test_the_score_runs_with_each_number_of_a_profile_that_has_a_direction() -> None:
    swept = 0
    for c in DIRECTED:
        feature = model().features[c.feature]
        told = [path for path in feature.of if not path.startswith("evidence")]
        if feature.kind not in ("value", "first", "highest", "lowest") or not told or told[0].endswith("_on"):
            continue
        part, _, name = told[0].partition(".")
        scores = []
        for x in range(0, 400, 3):
            tree = {"business": {"name": "Acme", "jurisdiction": "DE"}}
            tree.setdefault(part, {})[name] = x  # type: ignore[assignment]
            scores.append(scorer().assess(msgspec.convert(tree, wire.Profile), NO_FINDINGS, TODAY).score)
        assert scores == sorted(scores, reverse=c.direction == "falling"), c.name
        assert len(set(scores)) > 1, c.name
        swept += 1
    assert swept >= 5
