"""The kernel against the plain reading of the model, and against the vector of a published scorecard evaluator."""

from __future__ import annotations

import math
from array import array
from random import Random
from typing import Any

import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped import model, scorer

from core.kernel import Card, ShapeError, conclude_row, score_rows
from core.model import CATEGORIES, DECISIONS, LEVELS
from core.plan import CardPlan, LinePlan

NAN = math.nan
CARD = scorer().card
N_FEATURES, N_LINES = CARD.n_features, CARD.n_characteristics


def matrix(code: str, rows: int, columns: int, values: Any = None) -> memoryview:
    """A writable two-dimensional buffer."""
    cells = array(code, [0] * (rows * columns) if values is None else values)
    return memoryview(cells).cast("B").cast(code, shape=[rows, columns])


# ---------------------------------------------------------------- the published vector


def line(feature: int, first_bin: int, first_attribute: int, n_bins: int, **more: Any) -> LinePlan:
    defaults: dict[str, Any] = dict(
        is_category=False, first_bound=0, n_bounds=0, missing=0, not_applicable=-1, rule=-1, chosen=False, category=0,
        required=False, group=-1, best=0, worst=0,
    )  # fmt: skip
    return LinePlan(
        feature, first_bin=first_bin, first_attribute=first_attribute, n_bins=n_bins, **{**defaults, **more}
    )


def published() -> CardPlan:
    """Department, age and income of the JPMML evaluator's own tests; attribute 0 is the missing one."""
    points = [-9, 19, 3, 6, -1, -3, 0, 12, 18, 5, 26, 5, -3]
    after = [math.nextafter(bound, math.inf) for bound in (18.0, 29.0, 39.0, 1000.0, 2500.0)]
    return CardPlan(
        n_features=3, base=0, bands=[0, 2000, 4000, 6000], decisions=[0, 1, 1, 2],
        lines=[
            line(0, 0, 0, 3, is_category=True),
            line(1, 3, 4, 4, first_bound=0, n_bounds=3),
            line(2, 7, 9, 3, first_bound=3, n_bounds=2),
        ],
        bounds=after, attribute_of=[1, 2, 3, 1, 2, 3, 4, 1, 2, 3], points_of=[(100 * p, False) for p in points],
    )  # fmt: skip


ENGINEERING = 1.0


def test_the_published_vector_scores_29_with_its_two_reasons() -> None:
    outcome = conclude_row(Card(published()), array("d", [ENGINEERING, 25, 500]))
    assert outcome["score"] == 2900
    assert outcome["points"] == [300, 0, 2600]
    codes = {0: "RC1", 1: ("RC2_1", "RC2_2", "RC2_3", "RC2_4", "RC2_5")[outcome["attributes"][1]], 2: "RC3"}
    below = {
        place: baseline - points
        for place, (baseline, points) in enumerate(zip((1900, 1800, 1000), outcome["points"], strict=True))
    }
    ranked = sorted((place for place in below if below[place] > 0), key=lambda place: -below[place])
    assert [codes[place] for place in ranked] == ["RC2_3", "RC1"]


@pytest.mark.parametrize(
    ("row", "points"),
    [
        ([0, 18, 1000], [19, -3, 26]),
        ([2, 18.000001, 1000.01], [6, 0, 5]),
        ([1, 29, 2500], [3, 0, 5]),
        ([1, 29.5, 2501], [3, 12, -3]),
        ([1, 39, -1e300], [3, 12, 26]),
        ([1, 39.1, math.inf], [3, 18, -3]),
        ([NAN, NAN, NAN], [-9, -1, 5]),
        ([3, -math.inf, 0], [-9, -3, 26]),
        ([-1, 0, 0], [-9, -3, 26]),
        ([1e300, 0, 0], [-9, -3, 26]),
    ],
)
def test_open_and_closed_bounds_and_codes_that_no_value_has(row: list[float], points: list[int]) -> None:
    assert conclude_row(Card(published()), array("d", row))["points"] == [100 * p for p in points]


# ---------------------------------------------------------------- against the plain reading


def candidates() -> list[list[oracle.Value]]:
    """For each feature the values worth trying: missing, every value, every bound and what is beside it."""
    found: dict[str, set[oracle.Value]] = {name: {None} for name in model().features}
    for feature in model().features.values():
        found[feature.name] |= {-1e15, -1.0, 0.0, 1.0, 50.0, 1e15} if feature.values is None else set(feature.values)
    for c in model().characteristics:
        for interval in (i for a in c.attributes for i in a.condition.intervals):
            for bound in (b for b in (interval.low, interval.high) if math.isfinite(b)):
                found[c.feature] |= {bound, math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf)}
    return [sorted(values, key=str) for values in found.values()]


CANDIDATES = candidates()


def numbers(row: list[oracle.Value]) -> list[float]:
    features = model().features.values()
    return [
        NAN if x is None else float(f.values.index(str(x))) if f.values is not None else float(x)
        for f, x in zip(features, row, strict=True)
    ]


def check(row: list[oracle.Value]) -> None:
    expected = oracle.conclude(model(), dict(zip(model().features, row, strict=True)))
    found = conclude_row(CARD, array("d", numbers(row)))
    for name in ("attributes", "points", "score", "low", "high", "known", "weight"):
        assert found[name] == getattr(expected, name), name
    assert found["categories"] == [expected.categories[name] for name in CATEGORIES]
    assert (LEVELS[found["level"]], DECISIONS[found["decision"]]) == (expected.level, expected.decision)
    assert [o.code for i, o in enumerate(model().overrides) if found["overrides"] >> i & 1] == expected.overrides
    floors = [floor for category in model().categories for floor in category.floors]
    assert [f.code for i, f in enumerate(floors) if found["floors"] >> i & 1] == expected.floors
    assert found["score"] == model().base + sum(found["points"])
    assert 0 <= found["low"] <= found["score"] <= found["high"] <= 10_000


@settings(derandomize=True, max_examples=150)
@given(st.tuples(*map(st.sampled_from, CANDIDATES)).map(list))
def test_every_outcome_is_that_of_the_plain_reading(row: list[oracle.Value]) -> None:
    check(row)


def test_every_value_and_bound_is_placed_as_the_plain_reading_places_it() -> None:
    random = Random(5)
    for place, values in enumerate(CANDIDATES):
        row = [random.choice(others) for others in CANDIDATES]
        for value in values:
            check([*row[:place], value, *row[place + 1 :]])


def test_many_rows_at_once_come_to_the_same_as_one_by_one() -> None:
    random = Random(7)
    rows = [numbers([random.choice(values) for values in CANDIDATES]) for _ in range(300)]
    points, attributes = matrix("i", 300, N_LINES), matrix("B", 300, N_LINES)
    score_rows(CARD, matrix("d", 300, N_FEATURES, [x for row in rows for x in row]), points, attributes)
    for row, p, a in zip(rows, points.tolist(), attributes.tolist(), strict=True):
        alone = conclude_row(CARD, array("d", row))
        assert (p, a) == (alone["points"], alone["attributes"])


# ---------------------------------------------------------------- shapes and types


@pytest.mark.parametrize(
    ("rows", "points", "attributes"),
    [
        ((2, N_FEATURES - 1), (2, N_LINES), (2, N_LINES)),
        ((2, N_FEATURES + 1), (2, N_LINES), (2, N_LINES)),
        ((2, N_FEATURES), (1, N_LINES), (2, N_LINES)),
        ((2, N_FEATURES), (2, N_LINES + 1), (2, N_LINES)),
        ((2, N_FEATURES), (2, N_LINES), (3, N_LINES)),
        ((2, N_FEATURES), (2, N_LINES), (2, N_LINES - 1)),
    ],
)
def test_a_wrong_shape_is_refused_before_anything_is_written(
    rows: tuple[int, int], points: tuple[int, int], attributes: tuple[int, int]
) -> None:
    p, a = matrix("i", *points, [-77] * math.prod(points)), matrix("B", *attributes, [77] * math.prod(attributes))
    with pytest.raises(ShapeError):
        score_rows(CARD, matrix("d", *rows), p, a)
    assert {x for row in p.tolist() for x in row} == {-77}
    assert {x for row in a.tolist() for x in row} == {77}


def test_a_wrong_type_is_refused() -> None:
    rows, points, attributes = matrix("d", 1, N_FEATURES), matrix("i", 1, N_LINES), matrix("B", 1, N_LINES)
    for wrong in (
        (None, rows, points, attributes),
        (CARD, None, points, attributes),
        (CARD, rows, None, attributes),
        (CARD, rows, points, None),
    ):
        with pytest.raises(TypeError):
            score_rows(*wrong)
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        score_rows(CARD, matrix("f", 1, N_FEATURES), points, attributes)
    with pytest.raises(ShapeError):
        conclude_row(CARD, array("d", [0.0]))
    for card, row in ((None, array("d", [0.0])), (CARD, None)):
        with pytest.raises(TypeError):
            conclude_row(card, row)  # type: ignore[arg-type]
