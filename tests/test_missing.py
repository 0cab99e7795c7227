"""Missing is not safe: what the shipped model promises about answers that are not given."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import oracle
import pytest
from shipped import NO_FINDINGS, TODAY, model, scorer
from strategies import AS_OF, many

from app import wire
from app.evidence.base import Findings, ScreeningFacts
from core.features import feature_row
from core.kernel import conclude_row
from core.model import DECISIONS, LEVELS, Characteristic, Rule

CARD = scorer().card
COLUMN = {name: place for place, name in enumerate(model().features)}
BATCH = list(many(250, seed=41))

# Fields that choose what is computed rather than being scored: withholding one can lead to another distress model, to a
# year in place of half a one, or to other owners being counted. The model that applies is always named in the answer.
CHOOSING = {
    "financials.listed", "financials.manufacturer", "ownership.owners.kind", "financials.current.period_months",
    "financials.prior.period_months", "financials.current.total_assets", "financials.current.current_assets",
    "financials.current.current_liabilities", "financials.current.total_liabilities",
    "financials.current.retained_earnings", "financials.current.ebit", "financials.current.revenue",
    "financials.current.market_value_of_equity",
}  # fmt: skip


def rules() -> Iterator[Rule]:
    yield from (o.when for o in model().overrides)
    for c in model().characteristics:
        yield from (rule for rule in (c.not_applicable_when, c.chosen_when) if rule is not None)


IN_RULES = {name for rule in rules() for alternative in rule.alternatives for name, _ in alternative.terms}


# ---------------------------------------------------------------- the model's lines


@pytest.mark.parametrize("c", model().characteristics, ids=lambda c: c.name)
def test_each_missing_answer_has_points_code_and_words_of_its_own(c: Characteristic) -> None:
    (missing,) = (a for a in c.attributes if a.condition.missing)
    assert missing.code not in {a.code for a in c.attributes if a is not missing}
    assert missing.message
    assert missing.missing


@pytest.mark.parametrize("c", model().characteristics, ids=lambda c: c.name)
def test_missing_costs_as_much_as_whatever_is_not_adverse_and_required_as_much_as_the_worst(c: Characteristic) -> None:
    for unknown in (a for a in c.attributes if a.missing):
        for known in c.attributes:
            if c.required or not (known.adverse or known.missing):
                assert unknown.points >= known.points


# ---------------------------------------------------------------- rows


def outcomes() -> Iterator[tuple[Characteristic, Any, Any]]:
    """For each characteristic whose feature stands in no rule: a row, and the same row with that feature missing."""
    random = Random(3)
    for c in model().characteristics:
        if c.feature in IN_RULES or c.exclusive:
            continue
        for _ in range(20):
            p, f = random.choice(BATCH)
            row = array("d", scorer_row(p, f))
            given = conclude_row(CARD, row)
            row[COLUMN[c.feature]] = math.nan
            yield c, given, conclude_row(CARD, row)


def scorer_row(p: wire.Profile, f: Findings) -> list[float]:
    return feature_row(scorer().extractor, p, f, TODAY)


def test_withholding_a_feature_never_pays_never_completes_and_only_widens() -> None:
    place = {c.name: i for i, c in enumerate(model().characteristics)}
    for c, given, withheld in outcomes():
        was = c.attributes[given["attributes"][place[c.name]]]
        if not was.adverse and not was.condition.not_applicable:
            assert withheld["score"] >= given["score"], c.name
        assert withheld["known"] <= given["known"], c.name
        assert withheld["low"] <= given["low"], c.name
        assert withheld["high"] >= given["high"], c.name
        assert withheld["weight"] == given["weight"]


def test_a_range_holds_every_score_that_the_missing_answers_could_lead_to() -> None:
    for c, given, withheld in outcomes():
        assert withheld["low"] <= given["score"] <= withheld["high"], c.name


# ---------------------------------------------------------------- profiles


def given_paths(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every optional field that is given, structs and lists among them."""
    for key, value in tree.items():
        path = (*before, key)
        if value is None or path in (("business",), ("business", "name"), ("business", "jurisdiction")):
            yield from given_paths(value, path) if path == ("business",) else ()
            continue
        if key not in ("scheme", "code", "name"):
            yield path
        if isinstance(value, dict):
            yield from given_paths(value, path)
        elif isinstance(value, list):
            for place, member in enumerate(value):
                yield from given_paths(member, (*path, place)) if isinstance(member, dict) else ()


def without(p: wire.Profile, path: tuple[Any, ...]) -> wire.Profile:
    tree: Any = msgspec.to_builtins(p)
    holder = tree
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return msgspec.convert(tree, wire.Profile)


def taken(p: wire.Profile, f: Findings) -> list[Any]:
    row = oracle.features(model(), p, f, AS_OF)
    return [oracle.attribute(c, row) for c in model().characteristics]


def test_withholding_a_field_that_tells_nothing_adverse_never_lowers_the_score() -> None:
    checked = set()
    for p, found in BATCH[:100]:
        # What a register tells stands where a caller says nothing, and may be better than what they would have said.
        f = msgspec.structs.replace(found, external=None)
        score, before = scorer().assess(p, f, TODAY).score, taken(p, f)
        for path in given_paths(msgspec.to_builtins(p)):
            name = ".".join(step for step in path if isinstance(step, str))
            if name in CHOOSING:
                continue
            less = without(p, path)
            told = [old for old, new in zip(before, taken(less, f), strict=True) if old is not new]
            whole = name in ("financials", "financials.current", "ownership", "ownership.owners", "financials.prior")
            if not whole and not any(a.adverse for a in told):
                checked.add(name)
                assert scorer().assess(less, f, TODAY).score >= score, name
    assert len(checked) > 60


def test_a_business_of_which_only_the_name_is_known_is_high_risk_and_reviewed() -> None:
    a = scorer().assess(wire.Profile(wire.Business("A", "DE")), NO_FINDINGS, TODAY)
    assert (LEVELS[a.level], DECISIONS[a.decision]) == ("high", "review")
    assert a.completeness < 0.2


CLEAR = Findings(
    screening=ScreeningFacts(status="clear", business_confirmed=False, sanctioned_share_pct=0.0, pep_found=False)
)
REQUIRED = [c for c in model().characteristics if c.required and c.category in ("compliance", "ownership")]


def clean() -> Any:
    """A business about which everything is known and nothing speaks against it."""
    amounts = {
        "total_assets": 1000, "current_assets": 600, "cash": 250, "receivables": 150, "inventories": 50,
        "fixed_assets": 400, "current_liabilities": 200, "long_term_liabilities": 100, "total_liabilities": 300,
        "retained_earnings": 400, "revenue": 2000, "cost_of_sales": 1200, "gross_profit": 800, "sga_expense": 300,
        "operating_expenses": 500, "depreciation": 80, "ebit": 250, "interest_expense": 2, "ebt": 248,
        "net_income": 190, "operating_cash_flow": 260,
    }  # fmt: skip
    person = {"name": "A", "country": "DE", "birth_date": "1970-01-01", "is_pep": False}
    return {
        "business": {
            "name": "Acme", "jurisdiction": "DE", "registration_number": "1", "incorporated_on": "1999-05-01",
            "status": "active", "legal_form": "GmbH", "lei": "529900T8BM49AURSDO55", "vat_number": "DE1",
            "is_shell_bank": False, "industry": {"scheme": "nace", "code": "46.90"}, "operating_countries": ["DE"],
            "address": {"country": "DE", "kind": "operating"}, "website": "https://a.example",
            "email": "a@a.example", "phone": "+49301", "employees": 57, "delivery_channel": "face_to_face",
            "cash_intensive": False, "licence_status": "not_required",
        },
        "ownership": {
            "owners": [{**person, "kind": "person", "share_pct": 100.0}], "directors": [person], "layers": 1,
            "has_nominees": False, "has_bearer_shares": False,
        },
        "financials": {
            "currency": "EUR", "listed": False, "manufacturer": False, "audit_opinion": "unqualified",
            "filing_overdue_days": 0, "current": {**amounts, "period_end": "2026-06-30", "period_months": 12},
            "prior": {**amounts, "revenue": 1700, "period_end": "2025-06-30", "period_months": 12},
        },
        "signals": {
            "adverse_media_count": 0, "adverse_media_severity": "none", "litigation_count": 0, "insolvency_events": 0,
            "regulatory_actions": 0, "director_turnover_12m": 0, "website_verified": True,
        },
    }  # fmt: skip


def assess(tree: Any, f: Findings = CLEAR) -> Any:
    return scorer().assess(msgspec.convert(tree, wire.Profile), f, TODAY)


def test_a_business_that_gives_every_answer_and_a_good_one_is_approved() -> None:
    a = assess(clean())
    assert (LEVELS[a.level], DECISIONS[a.decision], a.completeness) == ("low", "approve", 1.0)


def test_some_characteristics_of_compliance_and_ownership_are_required() -> None:
    assert {c.category for c in REQUIRED} == {"compliance", "ownership"}


@pytest.mark.parametrize(
    "path",
    [
        ("business", "is_shell_bank"),
        ("business", "status"),
        ("ownership",),
        ("ownership", "owners"),
        ("ownership", "owners", 0, "share_pct"),
    ],
)
def test_an_answer_that_must_be_had_keeps_the_level_at_medium_and_the_decision_at_review(path: tuple[Any, ...]) -> None:
    tree = clean()
    if path[-1] == "is_shell_bank":  # asked of banks only
        tree["business"]["industry"]["code"] = "64.19"
    a = scorer().assess(without(msgspec.convert(tree, wire.Profile), path), CLEAR, TODAY)
    assert a.level >= LEVELS.index("medium")
    assert a.decision >= DECISIONS.index("review")


def test_each_required_characteristic_that_is_missing_keeps_the_level_at_medium() -> None:
    for c in REQUIRED:
        row = array("d", scorer_row(msgspec.convert(clean(), wire.Profile), CLEAR))
        deciding = c.not_applicable_when.alternatives if c.not_applicable_when else ()
        for name in (c.feature, *(name for alternative in deciding for name, _ in alternative.terms)):
            row[COLUMN[name]] = math.nan
        outcome = conclude_row(CARD, row)
        assert outcome["level"] >= LEVELS.index("medium"), c.name
        assert outcome["decision"] >= DECISIONS.index("review"), c.name


@pytest.mark.parametrize("status", ["not_screened", "potential"])
def test_nobody_is_approved_unscreened_or_with_an_open_match(status: Any) -> None:
    a = assess(clean(), Findings(screening=ScreeningFacts(status=status)))
    assert a.level >= LEVELS.index("medium")
    assert a.decision >= DECISIONS.index("review")


def test_nothing_lowers_the_level_of_the_score_or_of_a_rule() -> None:
    for p, f in BATCH:
        a = scorer().assess(p, f, TODAY)
        expected = oracle.conclude(model(), oracle.features(model(), p, f, AS_OF))
        marks = [place for place, (_, mark) in enumerate(model().bands) if a.score >= mark]
        raised = [o for o in model().overrides if o.code in expected.overrides]
        floors = [fl for k in model().categories for fl in k.floors if fl.code in expected.floors]
        assert a.level >= max(marks)
        assert all(a.level >= LEVELS.index(o.floor) for o in raised)
        assert all(a.level >= LEVELS.index(fl.level) for fl in floors)
        assert all(a.decision >= DECISIONS.index(o.decision) for o in raised)
        assert a.decision >= DECISIONS.index(model().decisions[LEVELS[a.level]])
