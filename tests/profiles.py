"""Profiles as callers send them: the examples by name, and generated ones with any part absent, null or extreme."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import strategies as st
from service import ROOT, Json

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.json"))

COUNTRIES = st.sampled_from(["DE", "GB", "UK", "US-DE", "IR", "KP", "RU", "BG", "VG", "PL", "CY", "BR", "XK"])
INDUSTRIES = st.sampled_from(
    [("nace", "46.90"), ("nace", "64.19"), ("naics", "522110"), ("isic", "9200"), ("mcc", "7995")]
)
AMOUNT = st.one_of(st.integers(-(10**6), 10**9), st.floats(-1e15, 1e15), st.sampled_from([0, -1e15, 1e15, 5e-324]))
POSITIVE = st.one_of(st.integers(0, 10**9), st.floats(0, 1e15), st.just(0))
COUNT = st.integers(0, 1000)
DATES = st.dates(dt.date(1800, 1, 1), dt.date(2026, 1, 1)).map(str)
FLAG = st.booleans()


def part(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object with any of the members, each of which may also be null."""
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in members.items()})


POSITIVE_FIELDS = [
    "total_assets",
    "current_assets",
    "receivables",
    "inventories",
    "fixed_assets",
    "current_liabilities",
    "long_term_liabilities",
    "total_liabilities",
    "market_value_of_equity",
    "shares_outstanding",
]
SIGNED_FIELDS = [
    "cash",
    "retained_earnings",
    "revenue",
    "cost_of_sales",
    "gross_profit",
    "sga_expense",
    "operating_expenses",
    "depreciation",
    "ebit",
    "interest_expense",
    "ebt",
    "net_income",
    "operating_cash_flow",
]
STATEMENT = part(
    period_end=DATES,
    period_months=st.integers(1, 36),
    **dict.fromkeys(POSITIVE_FIELDS, POSITIVE),
    **dict.fromkeys(SIGNED_FIELDS, AMOUNT),
)
OWNER = st.fixed_dictionaries(
    {"name": st.just("Owner")},
    optional={
        "kind": st.none() | st.sampled_from(["person", "company", "trust", "state"]),
        "country": st.none() | COUNTRIES,
        "share_pct": st.none() | st.floats(0, 20),
        "is_pep": st.none() | FLAG,
    },
)
DIRECTOR = st.fixed_dictionaries({"name": st.just("Director")}, optional={"is_pep": st.none() | FLAG})
BUSINESS = st.builds(
    lambda required, others, industry: {**required, **others, "industry": industry},
    st.fixed_dictionaries({"name": st.just("Generated Ltd"), "jurisdiction": COUNTRIES}),
    part(
        incorporated_on=DATES,
        status=st.sampled_from(["active", "inactive", "dissolved", "in_liquidation", "unknown"]),
        registration_number=st.just("1"),
        is_shell_bank=FLAG,
        operating_countries=st.lists(COUNTRIES, max_size=4),
        address=part(
            country=COUNTRIES, kind=st.sampled_from(["operating", "registered_agent", "virtual", "residential"])
        ),
        employees=COUNT,
        delivery_channel=st.sampled_from(["face_to_face", "remote_verified", "remote", "intermediary"]),
        cash_intensive=FLAG,
        licence_status=st.sampled_from(["held", "not_required", "applied_for", "missing", "revoked"]),
    ),
    st.none() | INDUSTRIES.map(lambda pair: {"scheme": pair[0], "code": pair[1]}),
)
PROFILE = st.fixed_dictionaries(
    {"business": BUSINESS},
    optional={
        "ownership": st.none()
        | part(
            owners=st.lists(OWNER, max_size=5),
            directors=st.lists(DIRECTOR, max_size=3),
            layers=st.integers(0, 10),
            has_nominees=FLAG,
            has_bearer_shares=FLAG,
        ),
        "financials": st.none()
        | part(
            currency=st.sampled_from(["EUR", "USD", "ZZZ"]),
            listed=FLAG,
            manufacturer=FLAG,
            audit_opinion=st.sampled_from(["unqualified", "qualified", "adverse", "disclaimer", "unaudited"]),
            filing_overdue_days=COUNT,
            current=STATEMENT,
            prior=STATEMENT,
        ),
        "signals": st.none()
        | part(
            adverse_media_count=COUNT,
            adverse_media_severity=st.sampled_from(["none", "low", "medium", "high"]),
            litigation_count=COUNT,
            insolvency_events=COUNT,
            regulatory_actions=COUNT,
            director_turnover_12m=COUNT,
            website_verified=FLAG,
        ),
    },
)
