"""Features read from a profile: against the plain reading, and rule by rule."""

from __future__ import annotations

import datetime as dt
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import defstruct
from shipped import CATALOGUE, NO_FINDINGS, TODAY, faults, model, profile, row, scorer, with_features
from shipped import changed as changed_text
from strategies import AS_OF, all_findings, many, profiles

from app import wire
from app.evidence.base import Findings, ScreeningFacts
from app.facts import ExternalFacts
from core.features import feature_row
from core.validity import ProfileInvalid

EXTRA = """\
  x_owner_class: {kind: class, table: country_risk, of: ["ownership.owners[].country"]}
  x_owner_class_early: {kind: class, table: country_risk, of: ["ownership.owners[].country"], unknown_below: elevated}
  x_owner_class_always: {kind: class, table: country_risk, of: ["ownership.owners[].country"], unknown_below: low}
  x_any_class: {kind: class, table: country_risk, of: [business.jurisdiction, business.address.country]}
  x_owner_member: {kind: member, table: fatf_call_for_action, of: ["ownership.owners[].country"]}
  x_big_owners: {kind: count, of: "ownership.owners[]", where: {share_pct: ["[25, inf)", missing]}}
  x_small_persons: {kind: count, of: "ownership.owners[]", where: {share_pct: "(-inf, 25)", kind: [person]}}
  x_pep_owners: {kind: count, of: "ownership.owners[]", where: {is_pep: "true"}}
  x_largest: {kind: max, of: "ownership.owners[].share_pct"}
  x_person_share: {kind: sum, of: "ownership.owners[].share_pct", where: {kind: person}}
  x_liabilities: {kind: ratio, formula: "total_liabilities - 0.5 * cash"}
  x_names: {kind: count, of: "business.aliases[]"}
  x_given: {kind: given, of: [business.aliases, business.address, business.employees, ownership.has_nominees]}
  x_birth: {kind: age, of: financials.prior.period_end}
  x_litigation: {kind: highest, of: [signals.litigation_count, evidence.external.litigation_count]}
  x_litigation_told: {kind: first, of: [signals.litigation_count, evidence.external.litigation_count]}
  x_employees: {kind: lowest, of: [evidence.external.employees, business.employees, ownership.layers]}
  x_severity:
    kind: highest
    of: [signals.adverse_media_severity, evidence.external.adverse_media_severity]
    order: [none, low, medium, high]
  x_status_told: {kind: first, of: [evidence.external.business_status, business.status]}
  x_status:
    kind: highest
    of: [business.status, evidence.external.business_status]
    order: [active, unknown, inactive, in_liquidation, dissolved]
  x_audit:
    kind: lowest
    of: [financials.audit_opinion, evidence.external.audit_opinion]
    order: [adverse, disclaimer, qualified, unaudited, unqualified]
  x_website: {kind: lowest, of: [signals.website_verified, evidence.external.website_verified]}
  x_shell: {kind: highest, of: [business.is_shell_bank, evidence.external.is_shell_bank]}
  x_trading_told: {kind: first, of: [evidence.external.incorporated_on, business.incorporated_on]}
  x_trading: {kind: lowest, of: [business.incorporated_on, evidence.external.incorporated_on]}
  x_external_age: {kind: age, of: evidence.external.incorporated_on}
  x_external_alone: {kind: value, of: evidence.external.licence_status}"""


@settings(derandomize=True, max_examples=150)
@given(profiles(), all_findings(), st.sampled_from([AS_OF, dt.date(2028, 2, 29), dt.date(2027, 1, 1)]))
def test_every_feature_is_that_of_the_plain_reading(p: wire.Profile, f: Findings, as_of: dt.date) -> None:
    expected = oracle.features(model(), p, f, as_of)
    assert row(scorer(), p, f, as_of.toordinal()) == expected


def test_every_feature_of_many_profiles_is_that_of_the_plain_reading() -> None:
    extended = with_features(EXTRA)
    for p, f in many(1500, seed=11):
        assert row(extended, p, f) == oracle.features(extended.model, p, f, AS_OF)


# ---------------------------------------------------------------- dates


@settings(derandomize=True, max_examples=400)
@given(st.dates(max_value=AS_OF + dt.timedelta(days=1)))
def test_an_age_is_the_days_since_in_years(day: dt.date) -> None:
    expected = oracle.round9((AS_OF - day).days / 365.25)
    assert row(scorer(), profile(incorporated_on=day))["years_trading"] == expected


@pytest.mark.parametrize("year", [1, 4, 100, 400, 1600, 1700, 1900, 1996, 2000, 2024])
def test_ages_count_leap_days_as_the_calendar_does(year: int) -> None:
    for day in (dt.date(year, 2, 28), dt.date(year, 3, 1), dt.date(year, 12, 31)):
        expected = oracle.round9((AS_OF - day).days / 365.25)
        assert row(scorer(), profile(incorporated_on=day))["years_trading"] == expected


def test_a_date_may_lie_one_day_ahead_and_no_further() -> None:
    tomorrow = AS_OF + dt.timedelta(days=1)
    age = row(scorer(), profile(incorporated_on=tomorrow))["years_trading"]
    assert isinstance(age, float)
    assert age < 0
    after = tomorrow + dt.timedelta(days=1)
    owner = wire.Owner(name="A", birth_date=after)
    bad = profile(incorporated_on=after, ownership=wire.Ownership(owners=[wire.Owner(name="B"), owner]))
    assert [pointer for pointer, _ in invalid(bad)] == [
        "/business/incorporated_on",
        "/ownership/owners/1/birth_date",
    ]


# ---------------------------------------------------------------- countries and industries


def invalid(p: Any) -> list[tuple[str, str]]:
    with pytest.raises(ProfileInvalid) as refused:
        feature_row(scorer().extractor, p, NO_FINDINGS, TODAY)
    assert refused.value.faults
    return refused.value.faults


@pytest.mark.parametrize(
    ("code", "same"),
    [("UK", "GB"), ("EL", "GR"), ("US-DE", "US"), ("DE-BY", "DE"), ("UK-ENG", "GB"), ("XK", "XK"), ("KP-01", "KP")],
)
def test_aliases_and_subdivisions_count_as_their_country(code: str, same: str) -> None:
    first, second = (row(scorer(), profile(jurisdiction=c, operating_countries=[c])) for c in (code, same))
    assert first == second


def test_kosovo_is_a_country_of_its_own() -> None:
    assert row(scorer(), profile(jurisdiction="XK"))["jurisdiction_class"] == "standard"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("SU", "withdrawn from ISO 3166-1"),
        ("AN", "BQ, CW or SX"),
        ("YU", "RS"),
        ("SU-MOS", "withdrawn"),
        ("de", 'did you mean "DE"?'),
        ("ZZ", "not an ISO 3166-1 alpha-2 country code"),
        ("US-", "not an ISO 3166-1"),
        ("US-DE\n", "not an ISO 3166-1"),
        ("DE\n", "not an ISO 3166-1"),
        ("US-DELA", "not an ISO 3166-1"),
    ],
)
def test_a_code_that_is_no_country_is_refused_and_the_answer_says_what_would_be(code: str, says: str) -> None:
    ((pointer, detail),) = invalid(profile(operating_countries=["DE", code]))
    assert pointer == "/business/operating_countries/1"
    assert says in detail


def test_every_withdrawn_code_is_named_with_what_stands_for_it() -> None:
    for code, instead in model().tables["countries"].withdrawn.items():
        ((_, detail),) = invalid(profile(jurisdiction=code))
        assert detail == f'"{code}" was withdrawn from ISO 3166-1; use {instead}'


def test_every_prefix_of_every_scheme_leads_to_its_group() -> None:
    lengths = {"nace": 4, "naics": 6, "sic": 4, "isic": 4, "mcc": 4}
    risk = model().tables["industry_risk"]
    for scheme, prefixes in model().tables["industries"].schemes.items():
        for prefix in prefixes:
            for code in (prefix.ljust(lengths[scheme], "0"), prefix.ljust(lengths[scheme], "9")):
                group = prefixes[max((p for p in prefixes if code.startswith(p)), key=len)]
                found = row(scorer(), profile(industry=wire.Industry(scheme, code)))  # type: ignore[arg-type]
                assert found["industry_class"] == risk.class_of.get(group, risk.default), (scheme, code)


@pytest.mark.parametrize("code", ["4690", "46.90", "46 90", "46.9", "G46.90"])
def test_an_industry_code_may_be_written_in_the_ways_in_use(code: str) -> None:
    first, second = (row(scorer(), profile(industry=wire.Industry("nace", c))) for c in (code, "46.90"))
    assert first == second


@pytest.mark.parametrize(
    ("scheme", "code"),
    [
        ("nace", "1"),
        ("nace", "00"),
        ("nace", "46.901"),
        ("nace", "GG46"),
        ("nace", "46.90\n"),
        ("mcc", "541"),
        ("mcc", "A"),
        ("naics", "99"),
    ],
)
def test_an_unknown_industry_code_is_refused(scheme: Any, code: str) -> None:
    ((pointer, detail),) = invalid(profile(industry=wire.Industry(scheme, code)))
    assert pointer == "/business/industry/code"
    assert detail.startswith(f'"{code}" is not a code of the scheme {scheme}')


OWNERS = {
    (): ("low", "low", "low", "false"),
    ("DE",): ("low", "low", "low", "false"),
    ("DE", None): (None, None, "low", None),
    (None,): (None, None, None, None),
    ("PA", None): (None, "elevated", "elevated", None),
    ("RU", None): (None, "high", "high", None),
    ("KP", None): ("call_for_action", "call_for_action", "call_for_action", "true"),
    ("DE", "PA", "RU"): ("high", "high", "high", "false"),
}


@pytest.mark.parametrize("countries", OWNERS)
def test_an_unknown_country_counts_unless_the_known_are_bad_enough(countries: tuple[str | None, ...]) -> None:
    owners = [wire.Owner(name="A", country=country) for country in countries]
    found = row(with_features(EXTRA), profile(ownership=wire.Ownership(owners=owners)))
    names = ("x_owner_class", "x_owner_class_early", "x_owner_class_always", "x_owner_member")
    assert tuple(found[name] for name in names) == OWNERS[countries]


def test_owners_not_given_are_not_an_empty_list() -> None:
    assert row(with_features(EXTRA), profile())["x_owner_class_always"] is None


def test_the_worst_of_several_fields_counts() -> None:
    found = row(with_features(EXTRA), profile(jurisdiction="DE", address=wire.Address(country="IR")))
    assert found["x_any_class"] == "call_for_action"


def test_a_profile_with_more_countries_than_any_has_is_read_whole() -> None:
    owners = [wire.Owner(name="A", country="DE") for _ in range(500)]
    p = profile(operating_countries=["FR"] * 299 + ["IR"], ownership=wire.Ownership(owners=owners))
    found = row(scorer(), p)
    assert found["operating_country_count"] == 300
    assert (found["call_for_action_exposure"], found["operating_country_class"]) == ("true", "call_for_action")
    assert found["owner_country_class"] == "low"


def test_threads_that_share_an_extractor_do_not_mix_their_profiles() -> None:
    good = profile(operating_countries=["DE-BY"] * 20, jurisdiction="DE-BY")
    bad = profile(operating_countries=["IR-01"] * 80, jurisdiction="IR-01")
    expected = [row(scorer(), p) for p in (good, bad)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: row(scorer(), (good, bad)[i % 2]), range(2000)))
    finally:
        sys.setswitchinterval(interval)
    assert all(one == expected[i % 2] for i, one in enumerate(found))


# ---------------------------------------------------------------- lists


def test_conditions_on_members_choose_what_is_counted() -> None:
    owners = [
        wire.Owner(name="A", kind="person", share_pct=24.9999999999),
        wire.Owner(name="B", kind="person", share_pct=10.0, is_pep=True),
        wire.Owner(name="C", kind="company", share_pct=25.0),
        wire.Owner(name="D", kind="person"),
        wire.Owner(name="E", share_pct=1.0),
    ]
    found = row(with_features(EXTRA), profile(ownership=wire.Ownership(owners=owners)))
    # 24.9999999999 is 25 in nine digits
    assert (found["x_big_owners"], found["x_small_persons"], found["x_pep_owners"]) == (3.0, 1.0, 1.0)
    assert (found["x_largest"], found["x_person_share"]) == (None, None)


def test_an_empty_list_is_known_and_a_missing_one_is_not() -> None:
    empty = row(with_features(EXTRA), profile(aliases=[], ownership=wire.Ownership(owners=[], directors=[])))
    assert [empty[n] for n in ("x_big_owners", "x_largest", "x_names", "pep_director")] == [0.0, 0.0, 0.0, "false"]
    assert empty["x_given"] == 1.0
    missing = row(with_features(EXTRA), profile())
    assert [missing[n] for n in ("x_big_owners", "x_largest", "x_names", "pep_director")] == [None] * 4
    assert missing["x_given"] == 0.0


@pytest.mark.parametrize(
    ("answers", "found"),
    [([True, None], "true"), ([False, None], None), ([False, False], "false"), ([None], None), ([True], "true")],
)
def test_one_that_is_true_settles_it_and_one_that_is_missing_keeps_it_open(answers: list[Any], found: Any) -> None:
    directors = [wire.Director(name="A", is_pep=answer) for answer in answers]
    assert row(scorer(), profile(ownership=wire.Ownership(directors=directors)))["pep_director"] == found


def owned(*shares: float) -> wire.Profile:
    return profile(ownership=wire.Ownership(owners=[wire.Owner(name="A", share_pct=share) for share in shares]))


def test_shares_may_add_up_to_a_hundred_and_a_half() -> None:
    for shares in ((100.0, 0.5), (33.5, 33.5, 33.5), (0.201,) * 500, (60.3, 40.2)):
        row(scorer(), owned(*shares))
    ((pointer, detail),) = invalid(owned(100.0, 0.500001))
    assert pointer == "/ownership/owners"
    assert "100.500001 %" in detail


@pytest.mark.parametrize("code", ["eur", "EU1", "€UR", "EUR\n", "EURO", "EU"])
def test_a_currency_is_three_capital_letters(code: str) -> None:
    assert invalid(profile(financials=wire.Financials(currency=code))) == [
        ("/financials/currency", f'"{code}" is not 3 capital letters')
    ]


@pytest.mark.parametrize("code", ["529900t8BM49AURSDO55", "529900T8BM49AURSDO5A", "529900T8BM49AURSDO5", "5" * 21])
def test_an_lei_is_eighteen_letters_or_digits_and_two_digits(code: str) -> None:
    owners = wire.Ownership(owners=[wire.Owner(name="A"), wire.Owner(name="B", lei=code)])
    assert [pointer for pointer, _ in invalid(profile(lei=code, ownership=owners))] == [
        "/business/lei",
        "/ownership/owners/1/lei",
    ]


def test_every_fault_of_a_profile_is_listed_at_once() -> None:
    p = profile(
        jurisdiction="ZZ", industry=wire.Industry("nace", "00"), incorporated_on=dt.date(2030, 1, 1),
        ownership=owned(90.0, 90.0).ownership,
    )  # fmt: skip
    assert [pointer for pointer, _ in invalid(p)] == [
        "/business/jurisdiction",
        "/business/industry/code",
        "/business/incorporated_on",
        "/ownership/owners",
    ]


# ---------------------------------------------------------------- the profile, or what others tell


def told(**facts: Any) -> Findings:
    return Findings(external=ExternalFacts(**facts))


SAID = profile(
    status="unknown", employees=10, incorporated_on=dt.date(2020, 11, 23), signals=wire.Signals(litigation_count=2)
)


@pytest.mark.parametrize(
    ("facts", "litigation", "litigation_told"),
    [({}, 2.0, 2.0), ({"litigation_count": 1}, 2.0, 2.0), ({"litigation_count": 5}, 5.0, 2.0)],
)
def test_the_highest_counts_whoever_told_it(facts: Any, litigation: float, litigation_told: float) -> None:
    found = row(with_features(EXTRA), SAID, told(**facts))
    assert (found["x_litigation"], found["x_litigation_told"]) == (litigation, litigation_told)


def test_what_nobody_tells_is_missing() -> None:
    for nothing in (NO_FINDINGS, told()):
        found = row(with_features(EXTRA), profile(), nothing)
        names = ("x_litigation", "x_employees", "x_severity", "x_status", "x_audit", "x_website", "x_trading")
        assert [found[name] for name in names] == [None] * len(names)


def test_an_order_of_its_own_says_which_category_is_higher() -> None:
    for status, highest in (("active", "unknown"), ("inactive", "inactive"), ("dissolved", "dissolved")):
        found = row(with_features(EXTRA), SAID, told(business_status=status))
        assert (found["x_status"], found["x_status_told"]) == (highest, status)


def test_a_flag_that_is_false_is_the_lowest() -> None:
    signals = wire.Signals(website_verified=True)
    found = row(with_features(EXTRA), profile(signals=signals), told(website_verified=False, is_shell_bank=False))
    assert (found["x_website"], found["x_shell"]) == ("false", "false")


def test_dates_of_several_fields_count_as_their_ages() -> None:
    found = row(with_features(EXTRA), SAID, told(incorporated_on=dt.date(2025, 11, 23)))
    assert found["x_trading"] == found["x_trading_told"] == found["x_external_age"] == oracle.round9(365 / 365.25)


def test_a_date_of_the_evidence_is_no_fault_of_the_profile() -> None:
    found = row(with_features(EXTRA), SAID, told(incorporated_on=AS_OF + dt.timedelta(days=30)))
    assert found["x_external_age"] == oracle.round9(-30 / 365.25)
    for wrong in ("2025-11-23", 7):
        with pytest.raises(TypeError, match="a date was expected"):
            row(with_features(EXTRA), SAID, told(incorporated_on=wrong))


def test_findings_from_before_there_were_external_facts_can_be_read() -> None:
    before = msgspec.msgpack.encode([["clear", False, 12.5, None]])
    assert msgspec.msgpack.decode(before, type=Findings) == Findings(ScreeningFacts("clear", False, 12.5))
    now = Findings(ScreeningFacts("clear"), ExternalFacts(employees=3, incorporated_on=dt.date(2020, 1, 2)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(now), type=Findings) == now


# ---------------------------------------------------------------- what decoders do not let through

Sub = defstruct("Sub", [("extra", int, 0)], bases=(wire.Business,), frozen=True)
WRONG: list[Any] = [
    None,
    "profile",
    42,
    wire.Business("A", "DE"),
    wire.Profile(Sub(name="A", jurisdiction="DE")),
    wire.Profile({"name": "A"}),  # type: ignore[arg-type]
    profile(jurisdiction=7),
    profile(jurisdiction=b"DE"),
    profile(operating_countries="DE"),
    profile(operating_countries=("DE",)),
    profile(operating_countries=["DE", None]),
    profile(operating_countries=[["DE"]]),
    profile(incorporated_on="2020-01-01"),
    profile(employees=True),
    profile(employees="7"),
    profile(employees=[]),
    profile(cash_intensive=1),
    profile(status=1),
    profile(status=[]),
    profile(industry=("nace", "46")),
    profile(industry=wire.Industry("nace", None)),  # type: ignore[arg-type]
    profile(industry=wire.Industry(None, "46")),  # type: ignore[arg-type]
    profile(industry=wire.Industry("nace", 46)),  # type: ignore[arg-type]
    profile(industry=wire.Industry([], "46")),  # type: ignore[arg-type]
    profile(ownership=[]),
    profile(ownership=wire.Ownership(owners={})),  # type: ignore[arg-type]
    profile(ownership=wire.Ownership(owners=[None])),  # type: ignore[list-item]
    profile(ownership=wire.Ownership(owners=[wire.Director(name="A")])),  # type: ignore[list-item]
    profile(ownership=wire.Ownership(owners=[wire.Owner(name="A", share_pct="1")])),  # type: ignore[arg-type]
    profile(ownership=wire.Ownership(owners=[wire.Owner(name="A", is_pep="yes")])),  # type: ignore[arg-type]
    profile(ownership=wire.Ownership(owners=[wire.Owner(name="A", birth_date=3)])),  # type: ignore[arg-type]
    profile(ownership=wire.Ownership(directors=7)),  # type: ignore[arg-type]
    profile(financials=wire.Financials(listed="no")),  # type: ignore[arg-type]
    profile(financials=wire.Financials(currency=["EUR"])),  # type: ignore[arg-type]
    profile(financials=wire.Financials(current={})),  # type: ignore[arg-type]
    profile(financials=wire.Financials(current=wire.Statement(cash="1"))),  # type: ignore[arg-type]
    profile(financials=wire.Financials(current=wire.Statement(cash=True))),
    profile(financials=wire.Financials(current=wire.Statement(period_end=2025))),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("p", WRONG, ids=repr)
def test_a_struct_of_wrong_types_is_a_type_error(p: Any) -> None:
    with pytest.raises(TypeError):
        scorer().assess(p, NO_FINDINGS, TODAY)


def test_findings_of_a_wrong_type_are_a_type_error() -> None:
    for wrong in (
        None,
        {},
        ScreeningFacts(),
        Findings(screening={}),
        Findings(screening=ScreeningFacts(pep_found=1)),
    ):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            scorer().assess(profile(), wrong, TODAY)


def test_a_value_that_is_not_one_of_a_category_is_refused() -> None:
    with pytest.raises(ValueError, match='"gone" is not one of unknown, active, '):
        scorer().assess(profile(status="gone"), NO_FINDINGS, TODAY)


def test_a_number_too_large_for_a_double_is_refused_and_one_that_is_not_finite_is_missing() -> None:
    with pytest.raises(OverflowError):
        scorer().assess(profile(employees=10**400), NO_FINDINGS, TODAY)
    for x in (math.nan, math.inf, -math.inf):
        found = row(scorer(), profile(employees=x, financials=wire.Financials(current=wire.Statement(total_assets=x))))
        assert (found["employees"], found["return_on_assets"], found["distress_model"]) == (None, None, "none")


def test_a_required_part_that_is_missing_all_the_same_counts_as_missing() -> None:
    for p in (wire.Profile(None), wire.Profile(wire.Business("A", None))):  # type: ignore[arg-type]
        assert row(scorer(), p, Findings(screening=None))["jurisdiction_class"] is None  # type: ignore[arg-type]


def test_an_extractor_is_asked_for() -> None:
    with pytest.raises(TypeError):
        feature_row(None, profile(), NO_FINDINGS, TODAY)  # type: ignore[arg-type]


def test_a_new_characteristic_on_an_existing_field_needs_the_model_file_only() -> None:
    text = changed_text(
        ("\nfeatures:\n", "\nfeatures:\n  x_layers: {kind: value, of: ownership.layers}\n"),
        (
            "\ncharacteristics:\n",
            "\ncharacteristics:\n"
            "  - name: x_layers\n    title: Layers\n    category: reputational\n    feature: x_layers\n"
            "    attributes:\n"
            '      - {when: "(-inf, inf)", points: 0, code: X_ANY, message: "Known."}\n'
            '      - {when: missing, points: 0, code: X_MISSING, message: "Unknown."}\n',
        ),
    )
    assert faults(text) == []
    assert CATALOGUE.field("ownership.layers").kind == "number"
