"""Searching a name index: what is found, with what score, and why."""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed import (
    ACME,
    ENTITIES,
    MARIA,
    OTHER_MARIA,
    PLANT,
    asked,
    company,
    found,
    index_of,
    needs_shared,
    ofac,
    only,
)
from msgspec.structs import replace

from core.comparison import compare
from core.entities import Entity, Identifier, IdentifierKind, digest_of
from core.matches import DEFAULT_CUTOFF, Query, explain
from core.names import NameIndex
from core.normal import prepare

INDEX = index_of(*ENTITIES)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def with_typo(name: str, chance: random.Random) -> str:
    at = chance.choice([i for i, c in enumerate(name) if c.isalpha()])
    return name[:at] + chance.choice(["", chance.choice(LETTERS), chance.choice(LETTERS) + name[at]]) + name[at + 1 :]


def test_entities_come_back_complete() -> None:
    assert (INDEX.n_entities, INDEX.n_names) == (5, 8)
    assert [INDEX.entity(i) for i in range(5)] == ENTITIES


def test_entities_are_found_by_their_id() -> None:
    assert [INDEX.find(entity.id) for entity in ENTITIES] == list(range(5))
    assert INDEX.find("e-6") is None
    assert INDEX.find("\ud800") is None


def test_an_ordinal_beyond_the_last_says_so() -> None:
    for ordinal in (-1, 5):
        with pytest.raises(IndexError, match=f"5 entities; there is none with ordinal {ordinal}"):
            INDEX.entity(ordinal)


def test_an_empty_index_finds_nothing() -> None:
    index = index_of()
    assert (index.n_entities, index.n_names, index.search(asked("Acme"), 0.0, 10)) == (0, 0, [])
    assert index.find("e-1") is None


def test_a_name_is_found_by_its_words_in_any_order_and_spelling() -> None:
    assert found(INDEX, asked("Trading Acme GmbH")) == [("e-1", 1.0)]
    match = only(INDEX, asked("Akme Trading"))
    assert (match.name, match.is_exact_name) == ("Acme Trading GmbH", False)
    assert match.score == compare(prepare("Akme Trading"), prepare("Acme Trading GmbH"), False)
    assert found(INDEX, asked("Zavod No. 5 LLC")) == [("e-4", 1.0)]


def test_what_has_a_score_is_found_by_a_search_for_that_score() -> None:
    """Also where a word differs in more than a letter, and the others are too common to be a match alone."""
    index = NameIndex(NameIndex.build([Entity("p1", "Person", "sanction", ("Maria Musterfrau",))]))
    asked = prepare("Maria Musterfrauen", "Person")
    score = compare(asked, prepare("Maria Musterfrau", "Person"), True)
    assert score > DEFAULT_CUTOFF
    [match] = index.search(Query((asked,), True), score, 5)
    assert match.score == score


def test_joined_and_parted_words_find_each_other() -> None:
    index = index_of(company("Rami Makhlouf"), company("SergeiLavrov"))
    assert found(index, asked("RamiMakhlouf"))[0][0] == "Rami Makhlouf"
    assert found(index, asked("Sergei Lavrov"))[0][0] == "SergeiLavrov"


def test_the_best_name_of_the_query_counts_and_is_told() -> None:
    match = only(INDEX, asked("Nobody Whatsoever", "Acme Handel", "Acme Hendel"))
    assert (match.query_name, match.name, match.score, match.is_exact_name) == (1, "Acme Handel", 1.0, True)


def test_entities_of_one_score_are_all_there_in_the_order_of_the_list() -> None:
    index = index_of(*(Entity(f"t-{i}", "Person", "sanction", ("Ali Hassan",)) for i in range(30)))
    assert found(index, asked("Hassan Ali", person=True), limit=50) == [(f"t-{i}", 1.0) for i in range(30)]
    assert len(index.search(asked("Hassan Ali", person=True), 0.75, 7)) == 7
    assert index.search(asked("Hassan Ali", person=True), 0.75, 0) == []


def test_a_name_that_the_list_calls_weak_scores_less() -> None:
    match = only(INDEX, asked("The Falcon"))
    assert (match.score, match.is_exact_name) == (0.95, True)
    assert "the list calls the name weak -0.05" in explain(match)


def test_a_country_raises_or_lowers_the_score_a_little() -> None:
    near = asked("Akme Trading")
    plain = only(INDEX, near)
    agreed = only(INDEX, replace(near, countries=("FR", "at")))
    contradicted = only(INDEX, replace(near, countries=("FR",)))
    assert (plain.country_agrees, agreed.country_agrees, contradicted.country_agrees) == (None, True, False)
    assert round(agreed.score - plain.score, 4) == 0.02
    assert round(contradicted.score - plain.score, 4) == -0.05
    assert "country at agrees +0.02" in explain(agreed)
    assert "country FR differs -0.05" in explain(contradicted)
    assert only(INDEX, asked("Acme Trading GmbH", countries=("DE",))).score == 1.0


def test_the_country_of_an_identifier_that_is_the_same_agrees_whatever_the_addresses_say() -> None:
    number = (Identifier("registration", "HE 900417", "CY"),)
    index = index_of(replace(company("Quartz"), countries=("BY",), identifiers=number))
    sought = replace(asked("Somebody Else", countries=("CY",)), identifiers=number)
    match = only(index, sought)
    assert match.country_agrees is True
    assert explain(match) == "country CY agrees +0.02; identifier HE900417 is the same"
    elsewhere = replace(sought, identifiers=(Identifier("registration", "HE 900417"),))
    assert only(index, elsewhere).country_agrees is False


def test_a_country_can_lift_a_name_over_the_cutoff_but_not_to_one() -> None:
    near = asked("Akme Trading")
    score = only(INDEX, near).score
    assert INDEX.search(near, score + 0.01, 10) == []
    assert len(INDEX.search(replace(near, countries=("DE",)), score + 0.01, 10)) == 1
    index = index_of(replace(company("Alexandropoulos International Shipping"), countries=("GR",)))
    assert only(index, asked("Alexandropoulos International Shiping", countries=("GR",))).score <= 0.99


@pytest.mark.parametrize(
    ("birth_date", "scores", "agrees"),
    [
        (None, [1.0, 1.0], False),
        ("1970-03-02", [1.0, 0.85], True),
        ("1970-03", [1.0, 0.85], False),
        ("1970", [1.0, 0.85], False),
        ("1971-09-09", [1.0, 0.85], False),
        ("1970-03-03", [0.85, 0.85], False),
        ("1980-01-31", [1.0, 0.85], False),
        ("1980", [1.0, 0.85], False),
        ("not a date", [1.0, 1.0], False),
    ],
)
def test_a_birth_date_that_contradicts_lowers_the_score(
    birth_date: str | None, scores: list[float], agrees: bool
) -> None:
    matches = INDEX.search(asked("Maria Musterfrau", person=True, birth_date=birth_date), 0.5, 10)
    assert [match.score for match in matches] == scores
    assert matches[0].birth_date_agrees == agrees


def test_a_birth_date_tells_namesakes_apart() -> None:
    assert found(INDEX, asked("Maria Musterfrau", person=True, birth_date="1980-01-31"))[0][0] == OTHER_MARIA.id
    assert found(INDEX, asked("Maria Musterfrau", person=True, birth_date="1970-03-02"))[0][0] == MARIA.id


@pytest.mark.parametrize(
    ("kind", "value", "country", "is_found"),
    [
        ("registration", "hrb-12345", "DE", True),
        ("registration", "HRB 12345", None, True),
        ("vat", "HRB12345", "DE", True),
        ("other", "HRB12345", None, True),
        ("registration", "HRB 12345", "PL", False),
        ("passport", "HRB 12345", "DE", False),
        ("lei", "5299 00T8 BM49 AURS DO55", None, True),
        ("registration", "529900T8BM49AURSDO55", None, False),
        ("registration", "HRB 12346", "DE", False),
    ],
)
def test_an_identifier_matches_whatever_the_name(
    kind: IdentifierKind, value: str, country: str | None, is_found: bool
) -> None:
    query = asked("Wholly Different Ltd", identifiers=(Identifier(kind, value, country),))
    matches = INDEX.search(query, 0.75, 10)
    assert [match.entity for match in matches] == ([0] if is_found else [])
    for match in matches:
        assert (match.is_identifier, match.score, match.is_exact_name) == (True, 0.95, False)
        assert "is the same" in explain(match)


@pytest.mark.parametrize("value", ["0000000", "123", "---", "", "0-0-0-0"])
def test_identifiers_that_tell_nothing_never_match(value: str) -> None:
    entity = replace(company("Acme"), identifiers=(Identifier("registration", value),))
    query = asked("Nobody Whatsoever", identifiers=(Identifier("registration", value),))
    assert index_of(entity).search(query, 0.0, 10) == []


def test_an_identifier_adds_to_a_name() -> None:
    query = asked("Acme Trading GmbH", identifiers=(Identifier("registration", "HRB 12345"),))
    match = only(INDEX, query)
    assert (match.score, match.is_exact_name, match.is_identifier) == (1.0, True, True)


def test_an_explanation_names_every_part() -> None:
    match = only(INDEX, asked("Bluefin Akme Trading 7", countries=("DE",)), 0.3)
    kinds = [part.kind for part in match.parts]
    assert kinds == ["equal", "similar", "left_over", "left_over", "left_over_listed", "whole", "country"]
    assert explain(match).startswith("trading = trading; akme~acme 0.88; left over: bluefin; left over: 7; ")
    assert "left over in the list: gmbh" in explain(match)
    assert "numbers differ -0.05" in explain(only(index_of(PLANT), asked("Plant No. 6 LLC")))


@pytest.mark.parametrize(
    "name", ["", "😀", "☃", "\ud800", "-", "x", "0", "Ltd", "the", "of", "x " * 256, "GmbH & Co. KG"]
)
@pytest.mark.parametrize("person", [True, False, None])
def test_poor_names_find_nothing_that_is_not_equal(name: str, person: bool | None) -> None:
    index = index_of(*ENTITIES, company("Ltd"), company("x"), company("0"))
    for match in index.search(asked(name, person=person), 0.0, 50):
        same = sorted(prepare(name).tokens()) == sorted(prepare(match.name).tokens())
        assert (match.score == 1.0) == same


vocabulary = st.sampled_from(
    ["acme", "akme", "blue", "ocean", "trading", "group", "ltd", "ag", "li", "mohammed", "bin"]
)
lists = st.lists(st.lists(vocabulary, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=12)


@given(lists, st.data(), st.sampled_from([True, False, None]))
def test_the_index_finds_what_comparing_with_every_name_finds(
    listed: list[str], data: st.DataObject, person: bool | None
) -> None:
    index = index_of(*(Entity(str(i), "Company", "other", (name,)) for i, name in enumerate(listed)))
    name = data.draw(st.sampled_from(listed) | st.lists(vocabulary, min_size=1, max_size=4).map(" ".join))
    scores = [compare(prepare(name), prepare(other), person) for other in listed]
    best = sorted(((-score, i) for i, score in enumerate(scores) if score >= DEFAULT_CUTOFF))
    matches = index.search(asked(name, person=person), DEFAULT_CUTOFF, 50)
    assert [(-match.score, match.entity) for match in matches] == best


@needs_shared
def test_a_listed_name_with_a_typo_ranks_first_and_as_high_as_comparing_with_every_name_says() -> None:
    entities = ofac()
    index = index_of(*entities)
    prepared = [(i, prepare(name)) for i, entity in enumerate(entities[::8]) for name in entity.names]
    sample = index_of(*entities[::8])
    chance = random.Random(7)
    first = 0
    for entity in chance.sample(entities, 500):
        name = chance.choice(entity.names)
        if sum(c.isalpha() for c in name) < 6:
            first += 1
            continue
        typed = with_typo(name, chance)
        matches = index.search(asked(typed, person=entity.schema == "Person"), 0.5, 50)
        first += any(match.score == matches[0].score and name in index.entity(match.entity).names for match in matches)
    assert first >= 0.985 * 500
    agreed = 0
    for entity in chance.sample(entities[::8], 100):
        query = asked(with_typo(entity.names[0], chance), person=entity.schema == "Person")
        best = max(compare(query.names[0], name, query.person) for _, name in prepared)
        matches = sample.search(query, 0.0, 1)
        agreed += bool(matches) and matches[0].score == best
    assert agreed >= 98


def test_a_pair_scores_the_same_on_every_list() -> None:
    crowd = [company(f"Acme {LETTERS[i % 26]}{LETTERS[i // 26]}la Trading") for i in range(600)]
    alone, crowded = index_of(ACME), index_of(*crowd, ACME)
    for text in ("Akme Trading GmbH", "Acme Trading", "Acme Tradin GmbH"):
        (small,) = alone.search(asked(text), 0.5, 1)
        large = next(match for match in crowded.search(asked(text), 0.5, 1000) if match.name == small.name)
        assert (large.score, large.parts) == (small.score, small.parts)


def test_threads_share_one_index() -> None:
    names = [
        f"{a}{b} Trading {c}" for a in ("Ac", "Blu", "Oce") for b in ("me", "fin", "an") for c in ("GmbH", "Ltd", "AG")
    ]
    index = index_of(*(company(name) for name in names))
    queries = [asked(name.replace("Trading", "Tradng"), person=None) for name in names]

    def searched(_: int) -> list[list[tuple[int, float]]]:
        return [[(match.entity, match.score) for match in index.search(query, 0.5, 20)] for query in queries]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(searched, range(40)))
    assert all(result == results[0] for result in results)
    assert all(result[0][0] == i for i, result in enumerate(results[0]))


def test_a_search_lets_other_threads_run() -> None:
    """In none of its own bytecode: nobody who waits is let in there before a minute has passed."""
    words = ("Acme", "Blufin", "Oceanic", "Handel", "Trading", "Kontor", "Import", "Export", "Holding", "Partner")
    index = index_of(*(company(" ".join(chosen)) for chosen in permutations(words, 4)))
    query = asked("Acmee Blufinn Tradng Kontr")
    over = Event()
    rounds = 0

    def count() -> None:
        nonlocal rounds
        while not over.is_set():
            rounds += 1
            # Lets the search go on at once.
            time.sleep(0)

    interval_s = sys.getswitchinterval()
    counting = Thread(target=count)
    sys.setswitchinterval(60.0)
    try:
        counting.start()
        before = rounds
        for _ in range(300):
            index.search(query, 0.75, 10)
        during = rounds - before
    finally:
        over.set()
        sys.setswitchinterval(interval_s)
        counting.join()
    assert during > 10


def test_a_digest_changes_with_what_screening_depends_on() -> None:
    digest = digest_of(ACME)
    assert digest == bytes.fromhex("9ea7148ee99c7418dc1c27d3eb2c8bd1")
    for change in (
        {"names": ("Acme Trading AG", "Acme Handel")},
        {"weak_names": ()},
        {"countries": ("DE",)},
        {"birth_dates": ("1970",)},
        {"identifiers": ACME.identifiers[:1]},
        {"schema": "Person"},
        {"kind": "pep"},
        {"id": "e-9"},
    ):
        assert digest_of(replace(ACME, **change)) != digest
    assert (
        digest_of(replace(ACME, names=ACME.names[::-1], countries=("AT", "DE"), programmes=(), addresses=())) == digest
    )


def test_hash_tables_are_well_filled() -> None:
    chance = random.Random(3)
    names = {" ".join("".join(chance.choices(LETTERS, k=7)) for _ in range(3)) for _ in range(4000)}
    entities = [
        replace(company(name), identifiers=(Identifier("registration", f"HRB {i}00"),)) for i, name in enumerate(names)
    ]
    for table, (mean, longest) in NameIndex(NameIndex.build(entities)).probes().items():
        if table != "skeletons":  # many words share their consonants
            assert mean <= 2.2, table
            assert longest <= 16, table


@needs_shared
def test_hash_tables_are_well_filled_with_a_real_list() -> None:
    probes = index_of(*ofac()).probes()
    assert probes["words"][0] <= 3.0
    assert probes["words"][1] <= 64
    assert probes["forms"][0] <= 3.0
