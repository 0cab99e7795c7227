"""Every value of a profile that cannot be accepted is refused where it stands and leaves nothing behind."""

from __future__ import annotations

import datetime as dt

import pytest
from problems import faults, problem
from service import Client, Json, named


def with_business(**business: Json) -> Json:
    return named("Wrong Ltd", **business)


def at(path: str, value: Json) -> Json:
    """The least profile with a value put at a pointer; lists are given their first member."""
    profile: Json = named("Wrong Ltd")
    place = profile
    steps = path.strip("/").split("/")
    for step, following in zip(steps, [*steps[1:], ""], strict=True):
        if following == "":
            place[step] = value
        elif following == "0":
            place[step] = [{"name": "Someone"}]
            place = place[step]
        elif step == "0":
            place = place[0]
        else:
            place = place.setdefault(step, {})
    return profile


# Numbers, texts, types.


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", "1e999999999", "1.1e15", "-1000000000000001", "9" * 5000, "-" + "9" * 5000, "9" * 5000 + ".0"],
)
def test_a_number_beyond_what_is_accepted_is_refused_where_it_stands(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"financials":{"current":{"ebit":%s}}}' % number.encode()
    found = faults(caller.assess(body))
    assert list(found) == ["/financials/current/ebit"]
    assert len(found["/financials/current/ebit"]) < 300


@pytest.mark.parametrize("number", ["9" * 5000, "1e400", "1.5", "-1", "true", '"5"', "[]", "{}", "1000000001"])
def test_a_count_takes_whole_numbers_only(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE","employees":%s}}' % number.encode()
    assert list(faults(caller.assess(body))) == ["/business/employees"]


@pytest.mark.parametrize("number", ["1e-400", "-0.0", "1E2", "1000000000000000", "5e-324"])
def test_a_number_at_the_edge_is_accepted(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"financials":{"current":{"ebit":%s}}}' % number.encode()
    assert caller.assess(body, dry_run=True, explain="full").status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"business":{"name":"A\\u0000B","jurisdiction":"DE"}}', "/business/name"),
        (b'{"business":{"name":"A","jurisdiction":"DE","aliases":["ok","\\u0000"]}}', "/business/aliases/1"),
        (b'{"business":{"name":"A","jurisdiction":"DE","id":"\\u0000"}}', "/business/id"),
        (b'{"business":{"na\\u0000me":"A","jurisdiction":"DE"}}', "/business"),
        (b'{"business":{"name":"A","jurisdiction":"DE\\u0000"}}', "/business/jurisdiction"),
    ],
)
def test_nul_in_a_text_is_refused(caller: Client, body: bytes, pointer: str) -> None:
    found = faults(caller.assess(body))
    assert any(place.startswith(pointer) for place in found)
    assert any("NUL" in detail for detail in found.values())


def test_an_escaped_backslash_before_u0000_is_no_nul(caller: Client) -> None:
    assert caller.assess(b'{"business":{"name":"A\\\\u0000","jurisdiction":"DE"}}', dry_run=True).status == 200


@pytest.mark.parametrize(
    ("sent", "near"),
    [
        ("busines", "business"),
        ("Business", "business"),
        ("owners", "ownership"),
        ("business/juristiction", "jurisdiction"),
        ("business/legalForm", "legal_form"),
        ("business/incorporated-on", "incorporated_on"),
        ("business/address/postcode", "postal_code"),
        ("financials/current/totalAssets", "total_assets"),
        ("financials/curent", "current"),
        ("ownership/owners/0/share_percent", "share_pct"),
        ("signals/litigation", "litigation_count"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_name(caller: Client, sent: str, near: str) -> None:
    found = faults(caller.assess(at(sent, 1)))
    assert list(found) == [f"/{sent}"]
    assert near in found[f"/{sent}"]


def test_an_unknown_field_that_is_like_none_is_refused_by_name(caller: Client) -> None:
    assert "zzzzqqqq" in faults(caller.assess(at("zzzzqqqq", 1)))["/zzzzqqqq"]


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/business", "Acme"),
        ("/business", []),
        ("/business", None),
        ("/business/name", 5),
        ("/business/name", ""),
        ("/business/name", None),
        ("/business/name", "x" * 513),
        ("/business/aliases", "Acme"),
        ("/business/is_shell_bank", "false"),
        ("/business/is_shell_bank", 0),
        ("/business/employees", "57"),
        ("/business/status", "closed"),
        ("/business/lei", "529900T8BM49AURSDO5"),
        ("/business/address", "Berlin"),
        ("/business/address/kind", "home"),
        ("/business/industry", "46.90"),
        ("/business/id", 42),
        ("/ownership/owners", {}),
        ("/ownership/owners/0/share_pct", "60"),
        ("/ownership/owners/0/share_pct", -0.1),
        ("/ownership/owners/0/share_pct", 100.1),
        ("/ownership/owners/0/kind", "trustee"),
        ("/financials/currency", "EURO"),
        ("/financials/current", 12),
        ("/financials/current/period_months", 0),
        ("/financials/current/total_assets", -1),
        ("/financials/current/total_assets", "1000"),
        ("/signals/adverse_media_severity", "severe"),
        ("/signals/litigation_count", 1.5),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_where_it_stands(
    caller: Client, pointer: str, value: Json
) -> None:
    assert list(faults(caller.assess(at(pointer, value)))) == [pointer]


@pytest.mark.parametrize("document", [[], "text", 5, None, True])
def test_a_document_that_is_no_object_is_refused_whole(caller: Client, document: Json) -> None:
    assert list(faults(caller.assess(document))) == [""]


def test_every_fault_is_listed_and_none_hides_another(caller: Client) -> None:
    found = faults(
        caller.assess(
            {
                "business": {"jurisdiction": 5, "employees": "many", "websit": "x"},
                "ownership": {"owners": [{"name": "A", "is_pep": "no"}, {"share_pct": 5}]},
                "signals": None,
                "extra": 1,
            }
        )
    )
    assert set(found) == {
        "/business/name",
        "/business/jurisdiction",
        "/business/employees",
        "/business/websit",
        "/ownership/owners/0/is_pep",
        "/ownership/owners/1/name",
        "/extra",
    }


def test_a_flood_of_faults_is_cut_at_twenty(caller: Client) -> None:
    told = problem(caller.assess(at("ownership/owners", [{"share_pct": "x"}] * 400)), 422, "invalid-profile")
    assert len(told["errors"]) == 20


def test_thousands_of_unknown_fields_are_answered_shortly(caller: Client) -> None:
    members = b",".join(b'"field_number_%d":1' % number for number in range(30_000))
    answer = caller.assess(b'{"business":{"name":"A","jurisdiction":"DE"},%s}' % members)
    assert len(problem(answer, 422, "invalid-profile")["errors"]) == 20
    assert len(answer.body) < 10_000


# Dates, countries, industries, shares.

DATES = ["/business/incorporated_on", "/ownership/owners/0/birth_date", "/financials/current/period_end"]


@pytest.mark.parametrize("pointer", DATES)
@pytest.mark.parametrize(
    "date",
    [
        "2025-02-29",
        "2025-13-01",
        "2025-00-10",
        "2025-06-31",
        "0000-01-01",
        "10000-01-01",
        "2025-1-1",
        "01.02.2025",
        "2025-01-01T00:00:00Z",
        "20250101",
        "today",
        "",
        20250101,
    ],
)
def test_an_impossible_date_is_refused(caller: Client, pointer: str, date: Json) -> None:
    assert list(faults(caller.assess(at(pointer, date)))) == [pointer]


@pytest.mark.parametrize("pointer", DATES)
def test_a_date_may_lie_one_day_ahead_and_no_more(caller: Client, pointer: str) -> None:
    today = dt.datetime.now(dt.UTC).date()
    # The day may change between here and there: the day after tomorrow plus one is wrong on both.
    assert caller.assess(at(pointer, str(today + dt.timedelta(days=1))), dry_run=True).status == 200
    for ahead in (3, 400, 365 * 7000):
        found = faults(caller.assess(at(pointer, str(today + dt.timedelta(days=ahead)))))
        assert list(found) == [pointer]
        assert "future" in found[pointer]


@pytest.mark.parametrize("country", ["ZZ", "XX", "GER", "de", "Germany", "D", "US-", "ZZ-AB", "EU", "-DE"])
def test_an_unknown_country_is_refused(caller: Client, country: str) -> None:
    assert list(faults(caller.assess(with_business(jurisdiction=country)))) == ["/business/jurisdiction"]


@pytest.mark.parametrize(
    ("country", "instead"), [("SU", "RU"), ("YU", "RS"), ("DD", "DE"), ("CS", "RS"), ("ZR", "CD"), ("TP", "TL")]
)
def test_a_withdrawn_country_is_refused_by_name_with_what_to_use(caller: Client, country: str, instead: str) -> None:
    [detail] = faults(caller.assess(with_business(jurisdiction=country))).values()
    assert country in detail
    assert instead in detail
    assert "withdrawn" in detail


@pytest.mark.parametrize("country", ["UK", "EL", "XK", "US-DE", "GB-SCT"])
def test_a_usual_other_spelling_of_a_country_is_accepted(caller: Client, country: str) -> None:
    assert caller.assess(with_business(jurisdiction=country), dry_run=True).status == 200


@pytest.mark.parametrize(
    "pointer",
    [
        "/business/jurisdiction",
        "/business/address/country",
        "/ownership/owners/0/country",
        "/ownership/directors/0/country",
    ],
)
def test_a_country_is_checked_wherever_it_stands(caller: Client, pointer: str) -> None:
    assert list(faults(caller.assess(at(pointer, "ZZ")))) == [pointer]
    found = faults(caller.assess(with_business(operating_countries=["DE", "ZZ", "PL", "SU"])))
    assert list(found) == ["/business/operating_countries/1", "/business/operating_countries/3"]


@pytest.mark.parametrize(
    ("scheme", "code"),
    [
        ("nace", "00.00"),
        ("nace", "99999"),
        ("naics", "1"),
        ("mcc", "12"),
        ("isic", "ABCD"),
        ("sic", "00"),
        ("nace", "ZZ"),
    ],
)
def test_an_unknown_industry_code_is_refused(caller: Client, scheme: str, code: str) -> None:
    found = faults(caller.assess(with_business(industry={"scheme": scheme, "code": code})))
    assert list(found) == ["/business/industry/code"]
    assert code in found["/business/industry/code"]


def test_an_unknown_scheme_is_refused(caller: Client) -> None:
    found = faults(caller.assess(with_business(industry={"scheme": "nac", "code": "46.90"})))
    assert "nace" in found["/business/industry/scheme"]


@pytest.mark.parametrize(
    ("shares", "accepted"),
    [
        ([60, 40.5], True),
        ([60, 40.51], False),
        ([100, 100], False),
        ([33.5] * 3, True),
        ([100.5 / 500] * 500, True),
        ([0.202] * 500, False),
    ],
)
def test_owners_shares_may_add_up_to_100_and_a_half(caller: Client, shares: list[float], accepted: bool) -> None:
    owners = [{"name": f"Owner {number}", "share_pct": share} for number, share in enumerate(shares)]
    answer = caller.assess(at("ownership/owners", owners), dry_run=True)
    if accepted:
        assert answer.status == 200, answer
    else:
        assert list(faults(answer)) == ["/ownership/owners"]
