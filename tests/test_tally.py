"""Counts of assessments are those of their answers."""

from __future__ import annotations

import json
from array import array
from collections import Counter

import pytest
from shipped import CATALOGUE, TODAY, scorer
from strategies import many

from core.model import DECISIONS, LEVELS
from core.scorer import Assessed, Scorer
from core.tally import Tally

BOUNDS = (0, 1000, 2500, 5000, 9999)


def tally(numbers: array[float], of: Scorer, **changed: object) -> Tally:
    model = of.model
    floors = sum(len(category.floors) for category in model.categories)
    places = iter(range(len(numbers)))
    taken = {
        "outcomes": [next(places) for _ in LEVELS for _ in DECISIONS],
        "missing": [next(places) for _ in model.characteristics],
        "overrides": [next(places) for _ in model.overrides],
        "floors": [next(places) for _ in range(floors)],
        "scores": next(places),
        "score_bounds": BOUNDS,
    }
    return Tally(of, numbers, **(taken | changed))


def told(assessed: Assessed) -> dict[str, object]:
    answer: dict[str, object] = json.loads(assessed.render(None, b"null", True, b'{"status":"clear","hits":[]}', b"[]"))
    return answer


def test_counts_are_those_of_the_answers() -> None:
    numbers = array("d", bytes(8 * 400))
    counted = tally(numbers, scorer())
    expected: Counter[str] = Counter()
    total = 0.0
    scores = [0] * (len(BOUNDS) + 1)
    for profile, findings in many(400, seed=31):
        assessed = scorer().assess(profile, findings, TODAY)
        counted.add(assessed)
        answer = told(assessed)
        expected[f"{answer['level']} {answer['decision']}"] += 1
        total += answer["score"]  # type: ignore[operator]
        scores[sum(assessed.score > bound for bound in BOUNDS)] += 1
        for reason in answer["reasons"]:  # type: ignore[attr-defined]
            expected[reason["characteristic"]] += reason["missing"]
        for held in answer["overrides"]:  # type: ignore[attr-defined]
            expected[held["code"]] += 1
    model = scorer().model
    names = [f"{level} {decision}" for level in LEVELS for decision in DECISIONS]
    names += [c.name for c in model.characteristics] + [o.code for o in model.overrides]
    assert {name: numbers[place] for place, name in enumerate(names) if numbers[place]} == {
        name: count for name, count in expected.items() if count and name in names
    }
    first = len(names) + sum(len(category.floors) for category in model.categories)
    assert list(numbers[first : first + len(scores)]) == scores
    assert numbers[first + len(scores)] == pytest.approx(total)


@pytest.mark.parametrize(
    "wrong",
    [
        {"missing": [0]},
        {"outcomes": [*range(11), 400]},
        {"overrides": ()},
        {"floors": (1,) * 99},
        {"scores": 394},
        {"scores": -1},
        {"score_bounds": (10, 5)},
    ],
    ids=str,
)
def test_places_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"outcomes|missing|overrides|floors|score"):
        tally(array("d", bytes(8 * 400)), scorer(), **wrong)


def test_an_assessment_of_another_scorer_is_refused() -> None:
    other = Scorer(scorer().model, CATALOGUE)
    profile, findings = next(iter(many(1, seed=1)))
    with pytest.raises(ValueError, match="another scorer"):
        tally(array("d", bytes(8 * 400)), scorer()).add(other.assess(profile, findings, TODAY))
