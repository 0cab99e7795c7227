"""The eight distress models: published vectors, what each lacks, and a plain reading of the formulas."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped import model, profile, row, scorer
from strategies import MANTISSAS, many

from app import wire
from core.ratios import INPUTS, MODELS, STATEMENT_FIELDS, ZONES, altman_z, beneish_m, distress, springate

BASIC = {
    "total_assets": 1000.0, "current_assets": 500.0, "current_liabilities": 250.0, "total_liabilities": 600.0,
    "retained_earnings": 200.0, "ebit": 120.0, "ebt": 90.0, "net_income": 60.0, "revenue": 1500.0,
}  # fmt: skip
WHOLE = {
    **BASIC, "cash": 50.0, "receivables": 150.0, "inventories": 100.0, "fixed_assets": 450.0,
    "long_term_liabilities": 350.0, "cost_of_sales": 900.0, "gross_profit": 600.0, "sga_expense": 200.0,
    "operating_expenses": 450.0, "depreciation": 40.0, "interest_expense": 30.0, "operating_cash_flow": 110.0,
    "market_value_of_equity": 800.0, "shares_outstanding": 100.0,
}  # fmt: skip
TWO_YEARS = {**WHOLE, **{f"prior.{name}": value * 0.9 for name, value in WHOLE.items()}}


def value_of(name: str, values: dict[str, Any], **more: Any) -> Any:
    return distress(values, **more)[0][name][0]


def test_altman_z_of_the_published_balance_sheet() -> None:
    values = {
        "total_assets": 1000, "current_assets": 300, "current_liabilities": 200, "retained_earnings": 400, "ebit": 50,
        "revenue": 1500, "market_value_of_equity": 600, "total_liabilities": 700,
    }  # fmt: skip
    assert value_of("altman_z", values) == pytest.approx(2.857786, abs=1e-6)


def test_altman_z_of_the_published_ratios() -> None:
    assert altman_z(0.2, 0.0, -0.2, 0.1, 2.0, sales_coefficient=1.0) == pytest.approx(1.64)


def test_springate_of_the_published_ratios() -> None:
    assert springate(0.946772, 0.02075, 1.290198, 0.086288) == pytest.approx(1.92492354, abs=1e-8)


def test_beneish_of_indices_that_are_all_one() -> None:
    ones = dict.fromkeys(("dsri", "gmi", "aqi", "sgi", "depi", "sgai", "lvgi"), 1.0)
    assert beneish_m(**ones, tata=0.0) == pytest.approx(-2.48)


def test_beneish_of_the_worked_example() -> None:
    m = beneish_m(dsri=1.3, gmi=1.1, aqi=0.8, sgi=1.1, depi=1.1, sgai=0.6, tata=0.15, lvgi=0.6)
    assert m == pytest.approx(-1.22985)


@pytest.mark.parametrize(
    ("name", "value", "zone"),
    [
        ("altman_z_prime", 2.49849, "grey"),
        ("altman_z_double_prime", 3.7984, "safe"),
        ("springate", 1.4635, "safe"),
        ("zmijewski", -1.19138, "safe"),
    ],
)
def test_the_nine_basic_fields_give_the_computed_values(name: str, value: float, zone: str) -> None:
    found, found_zone, lacking = distress(BASIC)[0][name]
    assert found == pytest.approx(value, abs=1e-9)
    assert (found_zone, lacking) == (zone, [])


def test_zmijewski_gives_the_probability_of_the_source() -> None:
    probability = (1 + math.erf(value_of("zmijewski", BASIC) / math.sqrt(2))) / 2
    assert probability == pytest.approx(0.116752, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "at", "below", "above"),
    [
        ("altman_z", (1.81, 2.99), "distress", "safe"),
        ("altman_z_prime", (1.23, 2.90), "distress", "safe"),
        ("altman_z_double_prime", (1.1, 2.6), "distress", "safe"),
    ],
)
def test_the_grey_zone_holds_both_of_its_bounds(name: str, at: tuple[float, float], below: str, above: str) -> None:
    low, high = at
    assert [_zone(name, x) for x in (low - 1e-6, low + 1e-9, high - 1e-9, high + 1e-6)] == [
        below,
        "grey",
        "grey",
        above,
    ]


def _zone(name: str, x: float) -> Any:
    """The zone where EBIT over assets alone makes the value."""
    per_ebit = {"altman_z": 3.3, "altman_z_prime": 3.107, "altman_z_double_prime": 6.72}[name]
    values = {
        "total_assets": 1.0, "current_assets": 1.0, "current_liabilities": 1.0, "retained_earnings": 0.0,
        "total_liabilities": 1.0, "revenue": 0.0, "market_value_of_equity": 0.0, "ebit": x / per_ebit,
    }  # fmt: skip
    return distress(values)[0][name][1]


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_statement_of_two_years_lacks_nothing(name: str) -> None:
    value, zone, lacking = distress(TWO_YEARS, gnp_index=500.0, dollars=1.1)[0][name]
    assert value is not None
    assert zone in ZONES[name]
    assert lacking == []


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in MODELS for field in INPUTS[name]])
def test_each_input_that_lacks_is_named(name: str, field: str) -> None:
    more: dict[str, Any] = {"gnp_index": 500.0, "dollars": 1.1}
    values = dict(TWO_YEARS)
    if field in ("gnp_index", "fx"):
        more["dollars" if field == "fx" else field] = None
    else:
        del values[field]
        if field.endswith("gross_profit"):
            del values[field.replace("gross_profit", "cost_of_sales")]
    value, zone, lacking = distress(values, **more)[0][name]
    assert lacking == [field]
    liquidity = name == "zmijewski" and field in ("current_assets", "current_liabilities")
    assert (value is None) is (zone is None) is not liquidity


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("total_assets", "altman_z_double_prime"),
        ("total_liabilities", "altman_z_prime"),
        ("current_liabilities", "springate"),
        ("current_assets", "ohlson_o"),
        ("revenue", "piotroski_f"),
        ("depreciation", "beneish_m"),
    ],
)
@pytest.mark.parametrize("divisor", [0.0, -5.0])
def test_a_divisor_that_is_not_positive_lacks_and_nothing_is_infinite(field: str, name: str, divisor: float) -> None:
    answers = distress({**TWO_YEARS, field: divisor}, gnp_index=500.0, dollars=1.1)[0]
    assert answers[name] == (None, None, [field])
    for value, _, lacking in answers.values():
        assert math.isfinite(value) if value is not None else lacking


@pytest.mark.parametrize("tiny", [1e-300, 5e-324, 1e-12])
def test_a_divisor_next_to_nothing_counts_as_nothing(tiny: float) -> None:
    values = {**TWO_YEARS, "total_assets": tiny, "prior.receivables": tiny}
    answers, chosen = distress(values, gnp_index=500.0, dollars=1.1)
    assert "total_assets" in answers["altman_z_double_prime"][2]
    assert "prior.receivables" in answers["beneish_m"][2]
    assert chosen is None


def test_every_model_of_a_whole_statement_says_what_the_plain_formulas_say() -> None:
    random = Random(13)
    seen: dict[str, set[Any]] = {name: set() for name in MODELS}
    for _ in range(1500):
        values: dict[str, Any] = {
            name: value * random.choice([0.5, 0.9, 1, 1, 1.1, 2, 3] if value > 90 else [-2, 0.5, 1, 2])
            for name, value in ((name, WHOLE[name.removeprefix("prior.")]) for name in TWO_YEARS)
        }
        index, dollars = random.choice([100.0, 512.5]), random.choice([1.0, 0.25])
        found, _ = distress(values, gnp_index=index, dollars=dollars)
        for name, (value, lacking) in oracle.distress(values, index, dollars).items():
            assert found[name][0] == (None if value is None else pytest.approx(value, rel=1e-8)), name
            assert set(found[name][2]) == lacking, name
            seen[name].add(found[name][1] if name != "piotroski_f" else value)
    assert {name for name in MODELS[:7] if not seen[name] >= set(ZONES[name]) - {"grey"}} == set()
    assert len(seen["piotroski_f"]) >= 8


def test_a_business_that_improved_in_everything_has_all_nine_signals_and_its_mirror_image_none() -> None:
    now = {**WHOLE, "shares_outstanding": 100.0, "net_income": 60.0, "operating_cash_flow": 110.0}
    before = {
        **WHOLE, "net_income": -20.0, "operating_cash_flow": -30.0, "long_term_liabilities": 500.0,
        "current_liabilities": 400.0, "shares_outstanding": 100.0, "gross_profit": 300.0, "revenue": 1400.0,
    }  # fmt: skip
    for first, second, zone in (
        (now, before, ("strong", 9.0)),
        (before, {**now, "shares_outstanding": 90.0}, ("weak", 0.0)),
    ):
        values = {**first, **{f"prior.{name}": value for name, value in second.items()}}
        value, found, lacking = distress(values)[0]["piotroski_f"]
        assert (found, value, lacking) == (*zone, [])


AMOUNTS = st.none() | st.sampled_from([float(x) for x in MANTISSAS]) | st.floats(-1e15, 1e15)
STATEMENTS = st.fixed_dictionaries(
    {}, optional={prefix + name: AMOUNTS for prefix in ("", "prior.") for name in STATEMENT_FIELDS}
)


@settings(derandomize=True, max_examples=400)
@given(STATEMENTS, st.none() | st.floats(1, 3000), st.none() | st.floats(1e-4, 10))
def test_every_model_says_what_the_plain_formulas_say(values: dict[str, Any], index: Any, dollars: Any) -> None:
    found, _ = distress(values, gnp_index=index, dollars=dollars)
    books = {prefix + name: None for prefix in ("", "prior.") for name in STATEMENT_FIELDS}
    books |= {name: 0.0 if x is not None and abs(x) < 1e-9 else x for name, x in values.items()}
    expected = oracle.distress(books, index, dollars)
    for name, (value, lacking) in expected.items():
        assert set(found[name][2]) == lacking, name
        assert found[name][0] == (None if value is None else pytest.approx(value, rel=1e-8)), name
        assert found[name][0] is not None or lacking, name


@pytest.mark.parametrize(
    ("listed", "manufacturer", "without", "applies"),
    [
        (True, True, (), "altman_z"),
        (False, True, (), "altman_z_prime"),
        (True, False, (), "altman_z_double_prime"),
        (False, False, (), "altman_z_double_prime"),
        (None, True, (), "altman_z_double_prime"),
        (True, None, (), "altman_z_double_prime"),
        (None, None, (), "altman_z_double_prime"),
        (None, None, ("retained_earnings",), "zmijewski"),
        (None, None, ("current_assets",), "zmijewski"),
        (True, True, ("market_value_of_equity",), "zmijewski"),
        (None, None, ("retained_earnings", "net_income"), None),
        (None, None, ("total_assets",), None),
    ],
)
def test_the_model_that_applies(listed: Any, manufacturer: Any, without: tuple[str, ...], applies: str | None) -> None:
    values = {name: value for name, value in WHOLE.items() if name not in without}
    assert distress(values, listed=listed, manufacturer=manufacturer)[1] == applies


def test_flows_of_half_a_year_are_scaled_to_a_whole_one() -> None:
    half = {name: value / 2 if name in oracle.FLOWS else value for name, value in WHOLE.items()}
    year = profile(financials=wire.Financials(current=wire.Statement(**WHOLE)))
    six = profile(financials=wire.Financials(current=wire.Statement(period_months=6, **half)))
    assert row(scorer(), six) == row(scorer(), year)


def test_statement_faults_are_counted_as_the_plain_reading_counts_them() -> None:
    seen = set()
    for p, f in many(1500, seed=3):
        expected = oracle.features(model(), p, f, oracle.dt.date(2026, 11, 23))["statement_faults"]
        assert row(scorer(), p, f)["statement_faults"] == expected
        seen.add(expected)
    assert {None, 0.0, 1.0, 2.0, 3.0} <= seen
