"""The shipped model on real companies whose outcome is known."""

from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app import wire
from app.evidence.base import NOT_SCREENED
from app.registry import CATALOGUE, select
from app.settings import load
from core.model import LEVELS
from core.scorer import Scorer

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT.parent / "shared" / "data" / "polish" / "5year.arff"
AS_OF = dt.date(2026, 11, 23).toordinal()
LEAST_AUC = 0.85


@pytest.fixture(scope="module")
def companies() -> Any:
    """The module that rebuilds statements from the file's ratios."""
    pytest.importorskip("numpy", reason="rebuilding the companies takes numpy")
    spec = importlib.util.spec_from_file_location("companies", ROOT / "benchmarks" / "companies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scored(companies: Any) -> tuple[list[Any], Any]:
    """Every company assessed, and whether it failed within the year."""
    if not FILE.is_file():
        pytest.skip(f"the file of companies is not at {FILE}")
    profiles, failed = companies.load(FILE)
    scorer = Scorer(select(load({}).settings.model), CATALOGUE)
    wired = [msgspec.convert(profile, wire.Profile) for profile in profiles]
    return scorer.assess_many(wired, [NOT_SCREENED.findings] * len(wired), AS_OF), failed


def financial_points(assessed: list[Any]) -> Iterator[float]:
    for one in assessed:
        answer = msgspec.json.decode(one.render(None, b"null", False, b"null", b"[]"))
        [points] = [category["points"] for category in answer["categories"] if category["name"] == "financial"]
        yield points


def test_every_company_of_the_file_can_be_scored(scored: tuple[list[Any], Any]) -> None:
    assessed, failed = scored
    assert (len(assessed), len(failed), int(failed.sum())) == (5910, 5910, 410)
    assert not [one for one in assessed if isinstance(one, Exception)]


def test_the_financial_points_rank_failing_companies_above_sound_ones(
    companies: Any, scored: tuple[list[Any], Any]
) -> None:
    import numpy as np

    assessed, failed = scored
    points = np.array(list(financial_points(assessed)))
    assert companies.auc(points, failed) >= LEAST_AUC
    # A ranking that is turned round, or that says the same of everyone, must not pass.
    assert companies.auc(-points, failed) < 0.5
    assert len(np.unique(points)) > 500


def test_companies_of_a_higher_level_fail_more_often(companies: Any, scored: tuple[list[Any], Any]) -> None:
    assessed, failed = scored
    rates = companies.failure_rates([LEVELS[one.level] for one in assessed], failed)
    shares = [rates[level][1] for level in LEVELS if rates.get(level, (0, 0))[0] >= 50]
    assert len(shares) >= 2
    assert shares == sorted(shares)
