"""Two names compared: against a plain transcription, and in what a reader of scores relies on."""

from __future__ import annotations

import csv

import nameoracle
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from listed import SHARED, needs_shared

from core.comparison import compare, similarity
from core.keys import skeleton
from core.matches import DEFAULT_CUTOFF
from core.normal import prepare

letters = st.text("abcehimnost1", min_size=1, max_size=12)
KNOWN = ["gmbh", "ltd", "al", "bin", "mr", "trading", "group", "ii", "v", "7", "2000", "the", "mohammed", "muhamad"]
names = st.lists(letters | st.sampled_from(KNOWN), min_size=1, max_size=6).map(" ".join)
near = st.tuples(names, names, st.integers(0, 10), st.sampled_from(["", "a", "st ", " "])).map(
    lambda drawn: (drawn[0], (drawn[0][: drawn[2]] + drawn[3] + drawn[0][drawn[2] + 1 :]) if drawn[2] % 3 else drawn[1])
)


def alike(a: str, b: str, person: bool | None) -> float:
    return compare(prepare(a), prepare(b), person)


@given(letters, letters)
@example("ab", "ba")
@example("aab", "aba")
@example("mohammed", "muhamad")
def test_words_are_as_alike_as_plain_dynamic_programming_says(a: str, b: str) -> None:
    expected = nameoracle.thousandths(a, b) / 1000
    assert similarity(a, b) == similarity(b, a) == expected


@pytest.mark.parametrize(("a", "b"), [("", "a"), ("a" * 33, "a"), ("a b", "a"), ("é", "e")])
def test_only_words_have_a_similarity(a: str, b: str) -> None:
    with pytest.raises(ValueError, match="words have"):
        similarity(a, b)


@given(near, st.sampled_from([True, False, None]))
def test_names_score_as_a_plain_transcription_says(pair: tuple[str, str], person: bool | None) -> None:
    assume(all(len(word) <= 32 for name in pair for word in nameoracle.written(name, False)))
    assert alike(*pair, person) == nameoracle.compare(*pair, person)


@given(near, st.sampled_from([True, False, None]))
def test_only_names_of_the_same_words_score_one(pair: tuple[str, str], person: bool | None) -> None:
    same = sorted(prepare(pair[0]).tokens()) == sorted(prepare(pair[1]).tokens())
    assert (alike(*pair, person) == 1.0) == same


@pytest.mark.parametrize(
    ("a", "b", "person"),
    [
        ("Smith, John", "John Smith", True),
        ("Acme Trading GmbH", "GmbH ACME-Trading", False),
        ("Stripe LLC", "Stripe Limited Liability Company", False),
        ("H&M Hennes & Mauritz AB", "H and M Hennes and Mauritz AB", False),
        ("A.B.C. Holding", "ABC Holdings", False),
        ("Владимир Путин", "Vladimir Putin", True),
    ],
)
def test_the_same_words_are_the_same_name(a: str, b: str, person: bool) -> None:
    assert alike(a, b, person) == 1.0


@pytest.mark.parametrize(
    ("a", "b", "person"),
    [
        ("Osama bin Laden", "Usama ibn Laden", True),
        ("Moammar Qaddafi", "Muammar Gaddafi", True),
        ("RamiMakhlouf", "Rami Makhlouf", True),
        ("V. Putin", "Vladimir Putin", True),
        ("Boris Johnson de Pfeffel", "Alexandre Boris de Pfeffel Johnson", True),
        ("CRISTALORD LIMITED", "CRYSTALORD LTD", False),
        ("Deutsche Bank AG", "Deutsche Bank", False),
        ("Pricewaterhouse Coopers LLP", "PricewaterhouseCoopers LLP", False),
    ],
)
def test_these_are_taken_for_one(a: str, b: str, person: bool) -> None:
    assert DEFAULT_CUTOFF <= alike(a, b, person) < 1.0


@pytest.mark.parametrize(
    ("a", "b", "person"),
    [
        ("Emma Miller", "Emma", True),
        ("Saddam Hussein al-Dulaimi", "Saddam Hussein al-Tikriti", True),
        ("Anders Kristersson", "Ulf Kristersson", True),
        ("Acme Corp", "Corp", False),
        ("GmbH", "GmbH & Co. KG Trading", False),
        ("Volkswagen AG", "Siemens AG", False),
        ("Government of Estonia", "Government of Ethiopia", False),
        ("First Trading International Ltd", "Second Trading International Ltd", False),
        ("x", "y", True),
        ("1", "2", False),
    ],
)
def test_these_are_not_taken_for_one(a: str, b: str, person: bool) -> None:
    assert alike(a, b, person) < DEFAULT_CUTOFF


def test_numbers_that_differ_count_against() -> None:
    assert alike("Fund Alpha 5", "Fund Alpha 6", False) < alike("Fund Alpha 5", "Fund Alpha", False)
    assert alike("Fund Alpha II", "Fund Alpha III", False) < alike("Fund Alpha", "Fund Alpha III", False)


def test_what_is_unlike_on_both_sides_hurts_more_than_what_is_extra_on_one() -> None:
    for person in (True, False):
        extra = alike("Hassan Rahimi Karim", "Hassan Rahimi", person)
        assert alike("Hassan Rahimi Karim", "Hassan Rahimi Noor", person) < extra - 0.1


def test_legal_forms_and_common_words_weigh_little() -> None:
    assert alike("Acme GmbH", "Acme AG", False) > alike("Acme Trading", "Acme Shipping", False)
    assert alike("Acme Trading", "Acme Shipping", False) > alike("Acme Bluefin", "Acme Oakhurst", False)


def test_unknown_kind_is_compared_both_ways_and_the_better_counts() -> None:
    a, b = "Hassan Rahimi Karim Ltd", "Hassan Rahimi Karim"
    assert alike(a, b, None) == max(alike(a, b, True), alike(a, b, False))


@pytest.mark.parametrize(
    "spellings", [("mohammed", "muhamad", "mohamed"), ("qaddafi", "gaddafi"), ("hussein", "husayn")]
)
def test_spellings_of_one_name_share_their_consonants(spellings: tuple[str, ...]) -> None:
    assert len({skeleton(spelling) for spelling in spellings}) == 1


@needs_shared
def test_labelled_pairs_are_told_apart() -> None:
    counts = {True: [0, 0], False: [0, 0]}  # by person: right hits, wrong decisions
    with (SHARED / "names" / "cases.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            person = {"Person": True, "LegalEntity": None}.get(row["schema"], False)
            hit = alike(row["name1"], row["name2"], person) >= DEFAULT_CUTOFF
            same = row["is_match"] == "true"
            counts[person is True][0] += hit and same
            counts[person is True][1] += hit != same
    hits, wrong = (sum(values) for values in zip(*counts.values(), strict=True))
    assert 2 * hits / (2 * hits + wrong) >= 0.85
    hits, wrong = counts[False]
    assert 2 * hits / (2 * hits + wrong) >= 0.88
