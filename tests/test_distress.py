"""The published vectors of the distress models, read back from whole answers."""

from __future__ import annotations

import pytest
from service import Client, Json, named

ON_BOTH_STORES = True


def distress(client: Client, financials: Json) -> dict[str, Json]:
    profile = {**named("Vector Ltd"), "financials": financials}
    answer = client.assess(profile, dry_run=True, explain="full")
    assert answer.status == 200, answer
    return {model["model"]: model for model in answer.json["distress"]}


WORKED = {
    "total_assets": 1000,
    "current_assets": 500,
    "current_liabilities": 250,
    "total_liabilities": 600,
    "retained_earnings": 200,
    "ebit": 120,
    "ebt": 90,
    "net_income": 60,
    "revenue": 1500,
}
LISTED = {
    "total_assets": 1000,
    "current_assets": 300,
    "current_liabilities": 200,
    "retained_earnings": 400,
    "ebit": 50,
    "revenue": 1500,
    "market_value_of_equity": 600,
    "total_liabilities": 700,
}


def test_altman_z_of_the_published_listed_manufacturer(client: Client) -> None:
    found = distress(client, {"listed": True, "manufacturer": True, "current": LISTED})
    z = found["altman_z"]
    assert (z["value"], z["zone"], z["missing"], z["used"]) == (pytest.approx(2.857786, abs=5e-7), "grey", [], True)


def test_altman_z_of_the_published_ratios(client: Client) -> None:
    statement = {
        "total_assets": 1000,
        "current_assets": 400,
        "current_liabilities": 200,
        "retained_earnings": 0,
        "ebit": -200,
        "revenue": 2000,
        "market_value_of_equity": 50,
        "total_liabilities": 500,
    }
    z = distress(client, {"listed": True, "manufacturer": True, "current": statement})["altman_z"]
    # The source takes sales with 1.0 and has 1.64; with 0.999 it is 1.638.
    assert (z["value"], z["zone"]) == (pytest.approx(1.638, abs=1e-9), "distress")


@pytest.mark.parametrize(
    ("manufacturer", "used"),
    [(True, "altman_z_prime"), (False, "altman_z_double_prime"), (None, "altman_z_double_prime")],
)
def test_the_worked_statement_gives_every_computed_answer(client: Client, manufacturer: bool | None, used: str) -> None:
    found = distress(client, {"listed": False, "manufacturer": manufacturer, "current": WORKED})
    computed = {
        "altman_z_prime": (2.49849, "grey"),
        "altman_z_double_prime": (3.7984, "safe"),
        "springate": (1.4635, None),
        "zmijewski": (-1.19138, None),
    }
    for model, (value, zone) in computed.items():
        assert found[model]["value"] == pytest.approx(value, abs=1e-9), model
        assert found[model]["missing"] == []
        assert zone is None or found[model]["zone"] == zone
    assert [model for model, told in found.items() if told["used"]] == [used]
    assert found["altman_z"]["value"] is None
    assert found["altman_z"]["missing"] == ["market_value_of_equity"]
    for model in ("beneish_m", "piotroski_f"):
        assert found[model]["value"] is None
        assert found[model]["missing"]


def test_springate_of_the_published_ratios(client: Client) -> None:
    statement = {
        "total_assets": 1_000_000,
        "current_assets": 996_772,
        "current_liabilities": 50_000,
        "ebit": 20_750,
        "ebt": 64_509.9,
        "revenue": 86_288,
    }
    assert distress(client, {"current": statement})["springate"]["value"] == pytest.approx(1.92492354, abs=5e-9)


def test_beneish_of_an_unchanged_company_is_its_constant(client: Client) -> None:
    year = {
        **WORKED,
        "receivables": 100,
        "cost_of_sales": 900,
        "fixed_assets": 400,
        "depreciation": 40,
        "sga_expense": 200,
        "long_term_liabilities": 350,
        "operating_cash_flow": 60,
    }
    found = distress(client, {"current": year, "prior": year})["beneish_m"]
    assert (found["value"], found["missing"]) == (pytest.approx(-2.48, abs=1e-9), [])


def test_beneish_of_the_published_indices(client: Client) -> None:
    prior = {
        "revenue": 1000,
        "receivables": 100,
        "cost_of_sales": 600,
        "total_assets": 1000,
        "current_assets": 400,
        "fixed_assets": 350,
        "depreciation": 50,
        "sga_expense": 200,
        "current_liabilities": 200,
        "long_term_liabilities": 300,
    }
    rate = (50 / 400) / 1.1
    current = {
        "revenue": 1100,
        "receivables": 143,
        "cost_of_sales": 700,
        "total_assets": 2000,
        "current_assets": 800,
        "fixed_assets": 800,
        "depreciation": 800 * rate / (1 - rate),
        "sga_expense": 132,
        "current_liabilities": 300,
        "long_term_liabilities": 300,
        "net_income": 400,
        "operating_cash_flow": 100,
    }
    assert distress(client, {"current": current, "prior": prior})["beneish_m"]["value"] == pytest.approx(
        -1.22985, abs=1e-8
    )


def test_without_a_complete_balance_sheet_zmijewski_is_used_and_names_what_it_lacks(client: Client) -> None:
    statement = {"total_assets": 1000, "total_liabilities": 600, "net_income": 60}
    found = distress(client, {"current": statement})
    assert found["zmijewski"]["used"]
    assert found["zmijewski"]["value"] == pytest.approx(-4.336 - 4.513 * 0.06 + 5.679 * 0.6, abs=1e-9)
    assert set(found["zmijewski"]["missing"]) == {"current_assets", "current_liabilities"}


def test_a_denominator_of_zero_is_missing_and_never_infinite(client: Client) -> None:
    found = distress(client, {"current": {**WORKED, "total_assets": 0}})
    assert found["altman_z_double_prime"]["value"] is None
    answer = client.assess({**named("Zero Ltd"), "financials": {"current": dict.fromkeys(WORKED, 0)}}, dry_run=True)
    assert answer.status == 200


def test_a_half_year_is_scaled_to_twelve_months(client: Client) -> None:
    flows = {"ebit", "ebt", "net_income", "revenue"}
    half = {name: value / 2 if name in flows else value for name, value in WORKED.items()}
    whole = distress(client, {"current": WORKED})
    scaled = distress(client, {"current": {**half, "period_months": 6}})
    assert {m: d["value"] for m, d in scaled.items()} == {m: d["value"] for m, d in whole.items()}
