"""The contract, over real HTTP: what a caller sends, and what every part of the answer promises."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import ROOT, Client, Json, Service, Wire, example, named, serving, unique

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.json"))
LEVELS = ["low", "medium", "high", "critical"]
DECISIONS = ["approve", "review", "decline"]
ON_BOTH_STORES = True

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def hundredths(number: float) -> int:
    """A number of at most two decimals as an integer, so that sums are exact."""
    whole = round(number * 100)
    assert abs(whole - number * 100) < 1e-6, f"{number} has more than two decimals"
    return whole


# An assessment against the published definition of its model: a plain second reading of what the answer claims.


class Definition:
    """What `GET /v1/models/{id}/{version}` says, in the shape that the checks below need. Points are hundredths."""

    def __init__(self, definition: Json) -> None:
        self.base = hundredths(definition["base"])
        self.bands = [(band["level"], hundredths(band["from"])) for band in definition["bands"]]
        self.decisions = definition["decisions"]
        self.characteristics = {c["name"]: c for c in definition["characteristics"]}
        self.overrides = {o["code"]: o for o in definition["overrides"]}
        self.categories = {k["name"]: k for k in definition["categories"]}
        self.span = {name: self._span(c) for name, c in self.characteristics.items()}
        self.group_of = {name: c["exclusive"] for name, c in self.characteristics.items() if c.get("exclusive")}
        self.groups: dict[str, tuple[int, int]] = {}
        for name, group in self.group_of.items():
            best, worst = self.groups.get(group, self.span[name])
            self.groups[group] = (min(best, self.span[name][0]), max(worst, self.span[name][1]))

    @staticmethod
    def conditions(attribute: Json) -> list[str]:
        when = attribute["when"]
        return when if isinstance(when, list) else [when]

    def _span(self, characteristic: Json) -> tuple[int, int]:
        points = [
            hundredths(attribute["points"])
            for attribute in characteristic["attributes"]
            if "not_applicable" not in self.conditions(attribute)
        ]
        return min(points), max(points)

    def alone(self, category: str | None = None) -> list[str]:
        return [
            name
            for name, c in self.characteristics.items()
            if name not in self.group_of and category in (None, c["category"])
        ]

    def groups_of(self, category: str) -> set[str]:
        return {group for name, group in self.group_of.items() if self.characteristics[name]["category"] == category}

    def band(self, score: int) -> str:
        return str([level for level, mark in self.bands if score >= mark][-1])


def check(answer: Json, definition: Definition) -> None:
    """Everything that a full answer says about itself must follow from its reasons and the model."""
    reasons = {reason["characteristic"]: reason for reason in answer["reasons"]}
    assert sorted(reasons) == sorted(definition.characteristics)
    assert len(answer["reasons"]) == len(reasons)
    points = {name: hundredths(reason["points"]) for name, reason in reasons.items()}
    score = hundredths(answer["score"])
    assert 0 <= score <= 100_00
    assert hundredths(answer["base"]) == definition.base
    assert definition.base + sum(points.values()) == score
    check_reasons(reasons, definition)
    check_ranking(answer["reasons"], definition)
    check_categories(answer["categories"], points, definition)
    check_missing(answer, reasons, points, definition)
    check_level(answer, definition)


def check_reasons(reasons: dict[str, Json], definition: Definition) -> None:
    for name, reason in reasons.items():
        characteristic = definition.characteristics[name]
        [attribute] = [a for a in characteristic["attributes"] if a["code"] == reason["code"]]
        assert reason["category"] == characteristic["category"]
        assert hundredths(reason["points"]) == hundredths(attribute["points"])
        assert reason["message"] == attribute["message"]
        conditions = definition.conditions(attribute)
        assert reason["missing"] is ("missing" in conditions or attribute.get("unknown", False))
        if "missing" in conditions:
            assert reason["observed"] is None
        if isinstance(reason["observed"], float | int) and not isinstance(reason["observed"], bool):
            if "not_applicable" not in conditions:
                assert any(holds(condition, reason["observed"]) for condition in conditions), reason
        elif isinstance(reason["observed"], str) and "not_applicable" not in conditions:
            assert reason["observed"] in [condition.removeprefix("=") for condition in conditions], reason


def holds(interval: str, value: float) -> bool:
    """Whether a number lies in an interval such as [0, 2.5)."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    return (low < value or (interval[0] == "[" and low == value)) and (
        value < high or (interval[-1] == "]" and high == value)
    )


def gains(reasons: list[Json], definition: Definition) -> list[int]:
    """Points above the characteristic's best attribute, of each reason in order."""
    found = []
    for reason in reasons:
        best, _ = definition.span[reason["characteristic"]]
        found.append(max(hundredths(reason["points"]) - best, 0))
    return found


def check_ranking(reasons: list[Json], definition: Definition) -> None:
    ranked = gains(reasons, definition)
    assert ranked == sorted(ranked, reverse=True)


def check_categories(categories: list[Json], points: dict[str, int], definition: Definition) -> None:
    assert sorted(category["name"] for category in categories) == sorted(definition.categories)
    for category in categories:
        name = category["name"]
        own = [
            p for characteristic, p in points.items() if definition.characteristics[characteristic]["category"] == name
        ]
        assert hundredths(category["points"]) == sum(own)
        worst = sum(definition.span[characteristic][1] for characteristic in definition.alone(name))
        worst += sum(definition.groups[group][1] for group in definition.groups_of(name))
        assert hundredths(category["max_points"]) == worst


def check_missing(answer: Json, reasons: dict[str, Json], points: dict[str, int], definition: Definition) -> None:
    """Completeness and range, each missing characteristic (and each group with one) at its best and at its worst."""
    low = high = hundredths(answer["score"])
    known = weight = 0
    for name in definition.alone():
        best, worst = definition.span[name]
        weight += worst - best
        if reasons[name]["missing"]:
            low += best - points[name]
            high += worst - points[name]
        else:
            known += worst - best
    for group, (best, worst) in definition.groups.items():
        weight += worst - best
        lacking = [n for n, g in definition.group_of.items() if g == group and reasons[n]["missing"]]
        if lacking:
            low += best - sum(points[n] for n in lacking)
            high += worst - sum(points[n] for n in lacking)
        else:
            known += worst - best
    assert [hundredths(bound) for bound in answer["score_range"]] == [low, high]
    assert abs(answer["completeness"] - known / weight) < 1e-4
    assert (answer["completeness"] == 1) is (known == weight)


def check_level(answer: Json, definition: Definition) -> None:
    score = hundredths(answer["score"])
    floors = {}
    for category in answer["categories"]:
        for floor in definition.categories[category["name"]].get("floors", []):
            if hundredths(category["points"]) >= hundredths(floor["points"]):
                floors[floor["code"]] = floor
    applied = {override["code"]: override for override in answer["overrides"]}
    assert len(applied) == len(answer["overrides"])
    for code, override in applied.items():
        told = definition.overrides.get(code) or floors[code]
        assert override["floor"] == told.get("floor", told.get("level"))
        assert override["message"] == told["message"]
        assert override["legal"] is told.get("legal", False)
    lifted = [
        definition.band(score),
        *(o["floor"] for o in answer["overrides"]),
        *(f["level"] for f in floors.values()),
    ]
    assert answer["level"] == max(lifted, key=LEVELS.index)
    decided = [definition.decisions[answer["level"]], *(o["decision"] for o in answer["overrides"])]
    assert answer["decision"] == max(decided, key=DECISIONS.index)
    assert answer["effective"] == {"level": answer["level"], "decision": answer["decision"], "override_id": None}


@pytest.fixture(scope="module")
def definition(service: Service) -> Definition:
    caller = Client(service.port)
    answer = caller.get("/v1/models/kyb/1.0.0")
    caller.close()
    assert answer.status == 200, answer
    return Definition(answer.json["definition"])


# Generated profiles: any part may be absent, null, empty or at the edge of what is accepted.

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


@settings(max_examples=60)
@given(profiles=st.lists(PROFILE, min_size=1, max_size=25))
def test_every_figure_of_an_answer_follows_from_its_reasons_and_the_model(
    service: Service, definition: Definition, profiles: list[Json]
) -> None:
    caller = Client(service.port)
    try:
        answer = caller.post("/v1/assessments/batch", {"items": profiles}, dry_run=True, explain="full")
    finally:
        caller.close()
    assert answer.status == 200, answer
    for item in answer.json["items"]:
        assert item["status"] == 200, item
        check(item["assessment"], definition)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_assessed_recorded_and_read_back_the_same(
    client: Client, definition: Definition, name: str
) -> None:
    created = client.assess(example(name), explain="full")
    assert created.status == 201, created
    assert created.headers["content-type"] == "application/json"
    location = created.headers["location"]
    assert location == f"/v1/assessments/{created.json['id']}"
    check(created.json, definition)
    assert client.get(location, explain="full").body == created.body
    top = client.get(location)
    assert top.status == 200
    assert client.get(location, explain="top").body == top.body
    assert len(top.json["reasons"]) <= 6
    strip = {"reasons", "distress"}
    assert {k: v for k, v in top.json.items() if k not in strip} == {
        k: v for k, v in created.json.items() if k not in strip
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_top_holds_the_six_reasons_with_most_points_above_the_best_and_none_with_zero(
    client: Client, definition: Definition, name: str
) -> None:
    top = client.assess(example(name), dry_run=True).json
    full = client.assess(example(name), dry_run=True, explain="full").json
    ranked = gains(full["reasons"], definition)
    assert top["reasons"] == full["reasons"][: min(6, sum(gain > 0 for gain in ranked))]
    assert [d["model"] for d in full["distress"]] == [
        "altman_z",
        "altman_z_prime",
        "altman_z_double_prime",
        "zmijewski",
        "ohlson_o",
        "springate",
        "beneish_m",
        "piotroski_f",
    ]
    assert sum(d["used"] for d in full["distress"]) <= 1
    assert top["distress"] == [d for d in full["distress"] if d["used"]]


def test_an_id_is_a_uuid_of_version_7_whose_time_is_when_it_was_created(client: Client) -> None:
    before = dt.datetime.now(dt.UTC)
    made = client.recorded(named("Timed Ltd"))
    after = dt.datetime.now(dt.UTC)
    identity = uuid.UUID(made["id"])
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert made["id"] == str(identity)
    created = dt.datetime.fromisoformat(made["created_at"])
    assert int(created.timestamp() * 1000 + 0.5) == identity.int >> 80
    assert before - dt.timedelta(milliseconds=1) <= created <= after
    assert made["as_of"] in (str(before.date()), str(after.date()))


def test_nothing_is_called_clear_while_nothing_is_screened(client: Client) -> None:
    made = client.assess(example("healthy-manufacturer"), dry_run=True).json
    assert made["screening"] == {"status": "not_screened", "hits": []}
    assert [(e["source"], e["status"]) for e in made["evidence"]] == [("watchlist", "not_screened")]
    assert LEVELS.index(made["level"]) >= LEVELS.index("medium")
    assert made["decision"] != "approve"


def test_a_dry_run_answers_and_leaves_nothing_behind(client: Client) -> None:
    business_id = unique("dry")
    profile = named("Dry Ltd", id=business_id)
    answer = client.assess(profile, dry_run=True)
    assert answer.status == 200
    assert "location" not in answer.headers
    assert (answer.json["id"], answer.json["created_at"], answer.json["business_id"]) == (None, None, business_id)
    assert list(client.walk(business_id=business_id)) == []
    recorded = client.recorded(profile)
    assert {**recorded, "id": None, "created_at": None} == answer.json


def test_a_dry_run_neither_uses_nor_sets_an_idempotency_key(client: Client) -> None:
    key = {"Idempotency-Key": unique("key")}
    first, second = named("First Ltd"), named("Second Ltd")
    assert client.assess(first, key, dry_run=True).status == 200
    made = client.assess(second, key)
    assert made.status == 201
    dry = client.assess(first, key, dry_run=True)
    assert (dry.status, dry.json["id"]) == (200, None)
    assert client.assess(first, {"Idempotency-Key": "x" * 256}, dry_run=True).status == 200


@pytest.mark.parametrize("sent", ["a", "Az09._-", "x" * 128])
def test_a_proper_request_id_comes_back_also_with_problems(client: Client, sent: str) -> None:
    assert client.get("/health", {"X-Request-ID": sent}).headers["x-request-id"] == sent
    assert client.assess(named("Id Ltd"), {"X-Request-ID": sent}).headers["x-request-id"] == sent
    problem = client.assess({}, {"X-Request-ID": sent})
    assert problem.headers["x-request-id"] == problem.json["instance"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a/b", "ä", '"', "a,b"])
def test_an_improper_request_id_is_replaced_by_a_new_one(client: Client, sent: str) -> None:
    found = [client.get("/health", {"X-Request-ID": sent.encode("latin-1").decode("latin-1")}) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in found]
    assert all(REQUEST_ID.fullmatch(one) for one in ids)
    assert sent not in ids
    assert ids[0] != ids[1]


def test_a_tag_names_one_rendering_and_spares_the_second_reading(client: Client) -> None:
    path = f"/v1/assessments/{client.recorded(named('Tagged Ltd'))['id']}"
    top, full = client.get(path), client.get(path, explain="full")
    assert re.fullmatch(r'"[!#-~]+"', top.headers["etag"])
    assert top.headers["etag"] != full.headers["etag"]
    for sent in (top.headers["etag"], f'"other", W/{top.headers["etag"]}', "*"):
        spared = client.get(path, {"If-None-Match": sent})
        assert (spared.status, spared.body, spared.headers["etag"]) == (304, b"", top.headers["etag"])
    assert client.get(path, {"If-None-Match": full.headers["etag"]}).status == 200
    assert client.get("/health").status == 200


def test_head_answers_as_get_without_a_body(service: Service, client: Client) -> None:
    path = f"/v1/assessments/{client.recorded(named('Head Ltd'))['id']}"
    with Wire(service.port) as wire:
        wire.write(f"HEAD {path} HTTP/1.1\r\nHost: kyb\r\n\r\nGET /health HTTP/1.1\r\nHost: kyb\r\n\r\n".encode())
        head = wire.answer("HEAD")
        assert head.status == 200
        assert int(head.headers["content-length"]) == len(client.get(path).body)
        assert wire.answer().json["status"] == "ok"


# The published vectors of the distress models, read back from whole answers.


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


# Lists.


@pytest.fixture(scope="module")
def listed(service: Service) -> tuple[str, list[Json]]:
    """A business id with 120 records of several levels, newest first, recorded in six calls."""
    business_id = unique("listed")
    caller = Client(service.port)
    made = []
    for part_of_them in range(6):
        items = []
        for place in range(20):
            profile = example(EXAMPLES[(part_of_them * 20 + place) % len(EXAMPLES)])
            profile["business"]["id"] = business_id
            profile["business"]["is_shell_bank"] = place % 4 == 3
            items.append(profile)
        answer = caller.post("/v1/assessments/batch", {"items": items})
        assert answer.status == 200
        made += [item["assessment"] for item in answer.json["items"]]
    caller.close()
    assert {one["level"] for one in made} == {"medium", "high", "critical"}
    return business_id, made[::-1]


@pytest.mark.parametrize("limit", [1, 7, 60, 119, 120, 121, 200])
def test_pages_walk_over_every_record_once_newest_first(
    client: Client, listed: tuple[str, list[Json]], limit: int
) -> None:
    business_id, made = listed
    assert list(client.walk(business_id=business_id, limit=limit)) == made


def test_the_default_page_holds_fifty(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    page = client.get("/v1/assessments", business_id=business_id).json
    assert page["items"] == made[:50]
    assert isinstance(page["next_cursor"], str)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("decision", [None, *DECISIONS])
def test_level_and_decision_choose_among_the_records(
    client: Client, listed: tuple[str, list[Json]], level: str, decision: str | None
) -> None:
    business_id, made = listed
    chosen = [one for one in made if one["level"] == level and decision in (None, one["decision"])]
    query = {"business_id": business_id, "level": level, "limit": 9, **({"decision": decision} if decision else {})}
    assert list(client.walk(**query)) == chosen


def test_level_alone_chooses_among_all_businesses(client: Client, listed: tuple[str, list[Json]]) -> None:
    _, made = listed
    found = [one["id"] for one in client.walk(level="critical", limit=200)]
    assert found == sorted(found, reverse=True)
    assert {one["id"] for one in made if one["level"] == "critical"} <= set(found)
    assert all(one["level"] == "critical" for one in client.walk(level="critical", limit=3))


def test_from_is_the_first_moment_and_to_the_first_no_longer(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    times = sorted({one["created_at"] for one in made})
    start, end = times[len(times) // 4], times[-1]
    assert start < end
    chosen = [one for one in made if start <= one["created_at"] < end]
    assert list(client.walk(business_id=business_id, from_=start, to=end, limit=11)) == chosen
    moved = dt.datetime.fromisoformat(start).astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))).isoformat()
    assert list(client.walk(business_id=business_id, from_=moved, to=end)) == chosen
    assert list(client.walk(business_id=business_id, from_=end, to=start)) == []


def test_a_day_as_to_includes_the_whole_day(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    first, last = made[-1]["created_at"][:10], made[0]["created_at"][:10]
    assert list(client.walk(business_id=business_id, from_=first, to=last, limit=200)) == made
    before = str(dt.date.fromisoformat(first) - dt.timedelta(days=1))
    assert list(client.walk(business_id=business_id, to=before)) == []
    assert list(client.walk(business_id=business_id, from_="0001-01-01", to="9999-12-31", limit=200)) == made


def test_what_is_recorded_during_a_walk_does_not_disturb_it(client: Client) -> None:
    business_id = unique("growing")
    old = [client.recorded(named("Old Ltd", id=business_id))["id"] for _ in range(6)]
    seen = []
    for one in client.walk(business_id=business_id, limit=2):
        seen.append(one["id"])
        client.recorded(named("New Ltd", id=business_id))
    assert seen == old[::-1]


def test_a_record_is_in_the_list_as_soon_as_it_is_acknowledged(client: Client) -> None:
    business_id = unique("prompt")
    for _ in range(20):
        made = client.recorded(named("Prompt Ltd", id=business_id))
        assert next(client.walk(business_id=business_id, limit=1)) == made
        assert client.get(f"/v1/assessments/{made['id']}").json == made


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": 0}, "/query/limit"),
        ({"limit": 201}, "/query/limit"),
        ({"limit": "ten"}, "/query/limit"),
        ({"level": "huge"}, "/query/level"),
        ({"decision": "maybe"}, "/query/decision"),
        ({"from": "yesterday"}, "/query/from"),
        ({"to": "2026-02-30"}, "/query/to"),
        ({"from": "2026-11-23T14:00:00"}, "/query/from"),
        ({"cursor": "made-up"}, "/query/cursor"),
        ({"cursor": ""}, "/query/cursor"),
        ({"busines_id": "x"}, "/query/busines_id"),
        ({"business_id": ""}, "/query/business_id"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(client: Client, query: Json, place: str) -> None:
    answer = client.get("/v1/assessments", **query)
    assert answer.status == 422, answer
    assert [fault["pointer"] for fault in answer.json["errors"]] == [place]


# Batches.

SPELLINGS = {
    "compact": lambda document: json.dumps(document, separators=(",", ":")).encode(),
    "spaced": lambda document: json.dumps(document).encode(),
    "indented": lambda document: json.dumps(document, indent="\t").encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_in_a_batch_each_item_is_answered_in_its_place_and_fails_alone(client: Client, spelling: str) -> None:
    business_id = unique("batch")
    good = [named(f"Item {place} Ltd", id=business_id) for place in range(7)]
    doubled = b'{"business":{"name":"First","name":"Second","jurisdiction":"DE"}}'
    items: list[Json] = [
        good[0],
        {"business": {"name": "No country"}},
        good[1],
        named("Future Ltd", incorporated_on="2999-01-01"),
        good[2],
        "DOUBLED",
        good[3],
        None,
        good[4],
        named("Nul \0 Ltd"),
        good[5],
        named("Lost Ltd", industry={"scheme": "nace", "code": "00.00"}),
        good[6],
    ]
    body = SPELLINGS[spelling]({"items": items}).replace(b'"DOUBLED"', doubled)
    answer = client.post("/v1/assessments/batch", body)
    assert answer.status == 200, answer
    told = answer.json["items"]
    assert [item["index"] for item in told] == list(range(len(items)))
    assert [item["status"] for item in told] == [201, 422] * 6 + [201]
    for item in told:
        if item["status"] == 201:
            assert set(item) == {"index", "status", "assessment"}
            assert client.get(f"/v1/assessments/{item['assessment']['id']}").json == item["assessment"]
        else:
            problem = item["problem"]
            assert set(problem) == {"type", "title", "status", "detail", "instance", "errors"}
            assert problem["instance"] == answer.headers["x-request-id"]
            assert all(fault["pointer"].startswith(f"/items/{item['index']}") for fault in problem["errors"])
    assert {item["index"]: item["problem"]["errors"][0]["pointer"] for item in told if item["status"] == 422} == {
        1: "/items/1/business/jurisdiction",
        3: "/items/3/business/incorporated_on",
        5: "/items/5/business/name",
        7: "/items/7",
        9: "/items/9/business/name",
        11: "/items/11/business/industry/code",
    }
    assert "name" in told[5]["problem"]["errors"][0]["detail"]
    recorded = [one["id"] for one in client.walk(business_id=business_id)]
    assert recorded[::-1] == [item["assessment"]["id"] for item in told if item["status"] == 201]


def test_a_batch_answers_as_single_requests_do(client: Client) -> None:
    items = [example(name) for name in EXAMPLES]
    batch = client.post("/v1/assessments/batch", {"items": items}, dry_run=True, explain="full").json["items"]
    singles = [client.assess(item, dry_run=True, explain="full").json for item in items]
    assert [item["assessment"] for item in batch] == singles
    assert {item["status"] for item in batch} == {200}


def test_a_dry_batch_records_nothing(client: Client) -> None:
    business_id = unique("dry-batch")
    items = [named("Dry Ltd", id=business_id)] * 3
    answer = client.post("/v1/assessments/batch", {"items": items}, dry_run=True)
    assert [item["assessment"]["id"] for item in answer.json["items"]] == [None] * 3
    assert list(client.walk(business_id=business_id)) == []


def test_a_batch_of_a_thousand_is_answered_and_recorded_whole(client: Client) -> None:
    business_id = unique("thousand")
    items = [named(f"Item {place} Ltd", id=business_id) for place in range(1000)]
    told = client.post("/v1/assessments/batch", {"items": items}).json["items"]
    assert [item["status"] for item in told] == [201] * 1000
    ids = [item["assessment"]["id"] for item in told]
    assert [one["id"] for one in client.walk(business_id=business_id, limit=200)] == ids[::-1]


def test_a_batch_of_none_is_422_and_of_one_too_many_413_and_neither_records(client: Client) -> None:
    none = client.post("/v1/assessments/batch", {"items": []})
    assert (none.status, none.json["errors"][0]["pointer"]) == (422, "/items")
    business_id = unique("too-many")
    many = client.post("/v1/assessments/batch", {"items": [named("Many Ltd", id=business_id)] * 1001})
    assert (many.status, many.json["type"]) == (413, "/problems/batch-too-large")
    assert "1,000" in many.json["detail"]
    assert list(client.walk(business_id=business_id)) == []


@pytest.mark.parametrize(
    "document", [{}, [], {"items": {}}, {"items": None}, {"profiles": []}, {"items": [{}], "x": 1}]
)
def test_a_batch_in_another_envelope_is_refused_whole(client: Client, document: Json) -> None:
    answer = client.post("/v1/assessments/batch", document)
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-batch")
    assert answer.json["errors"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[%s],"items":[%s]}',
        b'{"items":[%s] , "items" : [%s]}',
        b'{"items":[%s],"it\\u0065ms":[%s]}',
        b'{"items": [ %s ],"items": [ %s ]}',
    ],
)
def test_items_given_twice_refuse_the_batch(client: Client, body: bytes) -> None:
    business_id = unique("twice")
    item = json.dumps(named("Twice Ltd", id=business_id)).encode()
    answer = client.post("/v1/assessments/batch", body % (item, item))
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-batch")
    assert "items" in answer.json["errors"][0]["detail"]
    assert list(client.walk(business_id=business_id)) == []


def test_items_given_twice_are_refused_also_behind_an_item_that_is_wrong_itself(client: Client) -> None:
    business_id = unique("hidden")
    item = json.dumps(named("Hidden Ltd", id=business_id)).encode()
    answer = client.post("/v1/assessments/batch", b'{"items":[{"a":1,"a":2}],"items":[%s]}' % item)
    assert answer.status == 422, answer
    assert list(client.walk(business_id=business_id)) == []


# Models, description, pages.


def test_the_models_known_say_which_is_active_and_what_they_hold(client: Client) -> None:
    listed = client.get("/v1/models")
    assert listed.status == 200
    [active] = [model for model in listed.json["items"] if model["active"]]
    detail = client.get(f"/v1/models/{active['id']}/{active['version']}")
    assert {name: detail.json[name] for name in active} == active
    assert re.fullmatch("[0-9a-f]{64}", active["sha256"])
    assert len(detail.json["definition"]["characteristics"]) >= 40
    made = client.assess(named("Model Ltd"), dry_run=True).json
    assert made["model"] == {name: active[name] for name in ("id", "version", "sha256")}


def test_the_definition_of_a_model_keeps_texts_that_plain_yaml_would_bend(client: Client) -> None:
    tables = client.get("/v1/models/kyb/1.0.0").json["definition"]["tables"]
    assert "NO" in tables["countries"]["codes"]
    assert False not in tables["countries"]["codes"]


@pytest.mark.parametrize(
    "path",
    ["/v1/models/kyb/9.9.9", "/v1/models/other/1.0.0", "/v1/assessments/00000000-0000-7000-8000-000000000000",
     "/v1/assessments/not-an-id", "/v1/assessments/", "/", "/v1", "/v2/assessments", "/v1/models/kyb", "/Health"],
)  # fmt: skip
def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.json["type"]) == (404, "/problems/not-found")


def test_the_description_names_every_route_and_the_service_answers_them(client: Client) -> None:
    described = client.get("/openapi.json")
    assert described.headers["content-type"] == "application/json"
    assert described.json["openapi"].startswith("3.1.")
    for path, methods in described.json["paths"].items():
        for method in methods:
            answer = client.send(method.upper(), path.replace("{", "").replace("}", ""))
            assert answer.status not in (405, 500), (method, path)


def test_the_page_of_the_description_needs_no_other_host(client: Client) -> None:
    page = client.get("/docs")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert "/v1/assessments" in text
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", text)


def test_health_says_that_the_service_answers(client: Client) -> None:
    answer = client.get("/health")
    assert (answer.status, answer.json["status"]) == (200, "ok")
    assert answer.headers["cache-control"] == "no-store"


# Replay.


def test_every_example_is_replayed_identically(client: Client) -> None:
    for name in EXAMPLES:
        made = client.recorded(example(name))
        answer = client.post(f"/v1/assessments/{made['id']}/replay", b"")
        assert (answer.status, answer.json) == (200, {"identical": True})


@settings(max_examples=10)
@given(profiles=st.lists(PROFILE, min_size=1, max_size=20))
def test_whatever_was_recorded_is_replayed_identically(service: Service, profiles: list[Json]) -> None:
    caller = Client(service.port)
    try:
        made = caller.post("/v1/assessments/batch", {"items": profiles}, explain="full").json["items"]
        for item in made:
            path = f"/v1/assessments/{item['assessment']['id']}"
            assert caller.post(f"{path}/replay", b"").json == {"identical": True}
            assert caller.get(path, explain="full").json == item["assessment"]
    finally:
        caller.close()


def test_a_replay_of_nothing_is_404(client: Client) -> None:
    answer = client.post("/v1/assessments/00000000-0000-7000-8000-000000000000/replay", b"")
    assert answer.status == 404


def edited_model(folder: Path) -> Path:
    """A copy of the default model with another version and other points."""
    text = (ROOT / "core" / "models" / "kyb-1.0.0.yaml").read_text(encoding="utf-8")
    changed = text.replace("\n  version: 1.0.0\n", "\n  version: 1.0.1\n", 1)
    changed = re.sub(
        r"points: [0-9.]+, adverse: true, code: FIN_Z_DISTRESS,",
        "points: 3.97, adverse: true, code: FIN_Z_DISTRESS,",
        changed,
    )
    assert changed.count("3.97") == text.count("3.97") + 1
    assert "version: 1.0.1" in changed
    path = folder / "edited.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


def test_records_are_replayed_under_their_own_model_whichever_is_active(tmp_path: Path) -> None:
    path = edited_model(tmp_path)
    with serving(tmp_path / "service") as service:
        client = service.client()
        old = {name: client.recorded(example(name), explain="full") for name in EXAMPLES}
        service.restart(MODEL_PATH=str(path))
        client = service.client()
        new = {name: client.recorded(example(name), explain="full") for name in EXAMPLES}
        models = {model["version"]: model for model in client.get("/v1/models").json["items"]}
        assert {version: model["active"] for version, model in models.items()} == {"1.0.0": False, "1.0.1": True}
        for sent in (True, False):
            for made, version in ((old, "1.0.0"), (new, "1.0.1")):
                for assessment in made.values():
                    place = f"/v1/assessments/{assessment['id']}"
                    assert client.get(place, explain="full").json == assessment
                    assert assessment["model"] == {n: models[version][n] for n in ("id", "version", "sha256")}
                    assert client.post(f"{place}/replay", b"").json == {"identical": True}
            if sent:
                path.unlink()
                service.restart()
                client = service.client()
                models = {model["version"]: model for model in client.get("/v1/models").json["items"]}
                assert {version: model["active"] for version, model in models.items()} == {
                    "1.0.0": True,
                    "1.0.1": False,
                }
        assert client.get("/v1/models/kyb/1.0.1").json["definition"]["model"]["version"] == "1.0.1"
