"""Countries and dates of birth as lists write them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.watchlists.countries import table
from app.watchlists.dates import birth_dates


def test_the_table_of_countries_says_where_it_is_from_and_holds_249_and_kosovo() -> None:
    made = table()
    assert "ISO 3166-1" in made.source
    assert dt.date.fromisoformat(made.as_of)
    codes = set(made.codes.values())
    assert len(codes) == 250
    assert set(made.names.values()) == codes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Cuba", "CU"),
        ("RUSSIAN FEDERATION", "RU"),
        ("ru", "RU"),
        ("NO", "NO"),
        ("Norway", "NO"),
        ("Korea, North", "KP"),
        ("Democratic People's Republic of Korea", "KP"),
        ("Korea, South", "KR"),
        ("Congo, Democratic Republic of the", "CD"),
        ("Congo, Republic of the", "CG"),
        ("Iran (Islamic Republic of)", "IR"),
        ("Cote d Ivoire", "CI"),
        ("CÔTE D’IVOIRE", "CI"),
        ("Türkiye", "TR"),
        ("Bahamas, The", "BS"),
        ("The Gambia", "GM"),
        ("St. Kitts & Nevis", "KN"),
        ("Burma", "MM"),
        ("Region: Crimea", "UA"),
        ("us-de", "US"),
        ("UK", "GB"),
        ("undetermined", ""),
        ("00", ""),
        (" ", ""),
        ("Netherlands Antilles", None),
        ("suhh", None),
        ("eu", None),
        ("Congo Kinshasa or so", None),
    ],
)
def test_a_country_is_read_by_name_or_code_and_never_guessed(text: str, code: str | None) -> None:
    assert table().code(text) == code


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("1971", ["1971"]),
        ("1971-05", ["1971-05"]),
        ("1971-05-06", ["1971-05-06"]),
        ("1971-5-6T00:00:00", ["1971-05-06"]),
        ("06 May 1971", ["1971-05-06"]),
        ("May 1971", ["1971-05"]),
        ("Nov. 1973 ", ["1973-11"]),
        ("06/05/1971", ["1971-05-06"]),
        ("circa 1971", ["1971"]),
        ("circa 06 May 1971", ["1971"]),
        ("1979 to 1981", ["1979", "1980", "1981"]),
        ("circa 1979-1981", ["1979", "1980", "1981"]),
        ("31 Dec 1979 to 01 Jan 1980", ["1979", "1980"]),
        ("1900 to 1990", []),
        ("1981 to 1979", []),
        ("30 Feb 1971", []),
        ("24/06/1402 (Hijri Calendar)", []),
        ("0971", []),
        ("to", []),
        ("", []),
    ],
)
def test_a_date_of_birth_is_as_exact_as_the_list(text: str, dates: list[str]) -> None:
    assert birth_dates(text) == dates


@given(st.dates(dt.date(1850, 1, 1), dt.date(2100, 12, 31)))
def test_every_form_of_a_date_gives_the_same(day: dt.date) -> None:
    month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * day.month - 3 : 3 * day.month]
    for text in (day.isoformat(), f"{day.day:02} {month} {day.year}", f"{day.day}/{day.month}/{day.year}"):
        assert birth_dates(text) == [day.isoformat()]


@given(st.text(max_size=30) | st.from_regex(r"(circa )?\d{1,4}[-/ ]\w{1,4}[-/ ]\d{1,5}( to \d{4})?"))
def test_any_text_gives_dates_of_the_calendar_or_none(text: str) -> None:
    for date in birth_dates(text):
        dt.date.fromisoformat(date + "1900-01-01"[len(date) :])
