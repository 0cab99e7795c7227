"""What a screening says: statuses, who counts, what is certain and what only looks so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from screened import Lists, evidence, party, profile, registered

from app.evidence.base import ScreeningFacts
from core.entities import Entity, EntitySchema, Identifier

LEI = "529900T8BM49AURSDO55"
MARIA = party("p1", "Maria Musterfrau", schema="Person", birth_dates=("1970-01-01",))
WIDGETS = party("o1", "Veridian Shadow Trading", countries=("CY",), identifiers=registered("HE 900417", "CY"))


def facts(tmp_path: Path, sent: Any, *entities: Entity) -> ScreeningFacts:
    """What the model may read of a screening against a full set of lists, one of which holds these."""

    async def work(lists: Lists) -> ScreeningFacts:
        await lists.put_required(ofac=entities)
        return (await lists.gather(sent)).findings.screening

    return Lists(tmp_path).run(work)


def test_nothing_is_clear_without_every_required_list(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        gathered = await lists.gather(profile())
        assert gathered.findings.screening.status == "not_screened"
        assert evidence(gathered) == {
            "watchlist": "not_screened",
            "watchlist:ofac-sdn": "not_configured",
            "watchlist:un-consolidated": "not_configured",
            "watchlist:eu-consolidated": "not_configured",
        }
        await lists.put("ofac-sdn", WIDGETS)
        await lists.put("un-consolidated", MARIA)
        assert (await lists.gather(profile())).findings.screening.status == "not_screened"
        await lists.put("eu-consolidated", MARIA)
        gathered = await lists.gather(profile())
        assert gathered.findings.screening == ScreeningFacts("clear", False, None, False, False)
        assert set(evidence(gathered).values()) == {"ok"}

    Lists(tmp_path).run(work)


@pytest.mark.parametrize("name", ["\U0001f600", "-", "   "])
def test_a_name_without_a_letter_or_digit_is_not_screened(tmp_path: Path, name: str) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required(ofac=(WIDGETS,))
        owner = {"name": name, "kind": "person"}
        for sent in (profile(name), profile(owners=[owner]), profile(directors=[{"name": name}])):
            for _ in range(2):
                gathered = await lists.gather(sent)
                assert gathered.findings.screening.status == "not_screened"
                assert b'"not_screened"' in gathered.screening
        listed = profile("Veridian Shadow Trading", owners=[owner])
        assert (await lists.gather(listed)).findings.screening.status == "potential"

    Lists(tmp_path).run(work)


def test_a_match_counts_even_where_lists_are_missing(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("some-list", WIDGETS)
        assert (await lists.gather(profile("Veridian Shadow Trading Ltd"))).findings.screening.status == "potential"

    Lists(tmp_path).run(work)


def test_a_list_that_nobody_looks_after_is_stale_and_nothing_clear(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required()
        [known] = [one for one in await lists.store.lists() if one.name == "ofac-sdn"]
        await lists.store.check_list(known.name, known.number, known.checked_ms - 73 * 3_600_000, b"{}")
        await lists.assembly.lists.refresh()
        gathered = await lists.gather(profile())
        assert gathered.findings.screening.status == "not_screened"
        assert evidence(gathered)["watchlist"] == "stale"
        assert evidence(gathered)["watchlist:ofac-sdn"] == "stale"
        [warning] = lists.assembly.lists.warnings
        assert "ofac-sdn" in warning
        await lists.store.check_list(known.name, known.number, known.checked_ms, b"{}")
        await lists.assembly.lists.refresh()
        assert (await lists.gather(profile())).findings.screening.status == "clear"
        assert lists.assembly.lists.warnings == []

    Lists(tmp_path).run(work)


def test_a_name_alone_is_never_certain(tmp_path: Path) -> None:
    sent = profile("Veridian Shadow Trading", jurisdiction="CY")
    found = facts(tmp_path, sent, WIDGETS)
    assert (found.status, found.business_confirmed) == ("potential", False)


@pytest.mark.parametrize(
    ("sent", "confirmed"),
    [
        ({"registration_number": "he-900417", "jurisdiction": "CY"}, True),
        ({"registration_number": "HE 900417", "jurisdiction": "DE"}, False),
        ({"registration_number": "HE 900418", "jurisdiction": "CY"}, False),
    ],
)
def test_a_registration_number_of_the_same_country_is(tmp_path: Path, sent: dict[str, str], confirmed: bool) -> None:
    found = facts(tmp_path, profile("Quite Another Name", **sent), WIDGETS)
    assert found.business_confirmed is confirmed
    assert (found.status == "confirmed") is confirmed


def test_a_registration_number_of_the_same_country_is_wherever_else_the_party_has_addresses(tmp_path: Path) -> None:
    listed = party("o1", "Veridian Shadow Trading", countries=("BY",), identifiers=registered("HE 900417", "CY"))
    sent = {"registration_number": "HE 900417", "jurisdiction": "CY"}
    assert facts(tmp_path, profile("Quite Another Name", **sent), listed).status == "confirmed"


@pytest.mark.parametrize(
    ("schema", "status"), [("Person", "potential"), ("Vessel", "potential"), ("Company", "confirmed")]
)
def test_a_number_of_any_kind_makes_no_business_of_a_person_or_ship(
    tmp_path: Path, schema: EntitySchema, status: str
) -> None:
    number = (Identifier("other", "900417"),)
    listed = party("x1", "Somebody Else", schema=schema, countries=("CY",), identifiers=number)
    sent = profile("Quite Another Name", registration_number="900417", jurisdiction="CY")
    assert facts(tmp_path, sent, listed).status == status


def test_an_equal_name_with_the_registration_number_is_whatever_the_country_says(tmp_path: Path) -> None:
    sent = profile("Veridian Shadow Trading", registration_number="HE 900417", jurisdiction="DE")
    listed = party("o1", "Veridian Shadow Trading", identifiers=registered("HE 900417"))
    assert facts(tmp_path, sent, listed).status == "confirmed"


def test_an_lei_is_one_party_in_the_world(tmp_path: Path) -> None:
    listed = party("o2", "Somebody Else", identifiers=(Identifier("lei", LEI),))
    assert facts(tmp_path, profile("Harmless Trading", lei=LEI, jurisdiction="PL"), listed).status == "confirmed"


@pytest.mark.parametrize(
    ("owner", "status", "share"),
    [
        ({"birth_date": "1970-01-01"}, "confirmed", 60.0),
        ({"birth_date": "1971-01-01"}, "potential", 0.0),
        ({}, "potential", 0.0),
        ({"birth_date": "1970-01-01", "name": "Maria Musterfrauen"}, "potential", 0.0),
    ],
)
def test_a_person_needs_the_full_birth_date(tmp_path: Path, owner: Any, status: str, share: float) -> None:
    sent = profile(owners=[{"name": "Musterfrau, Maria", "kind": "person", "share_pct": 60, **owner}])
    found = facts(tmp_path, sent, MARIA)
    assert (found.status, found.sanctioned_share_pct) == (status, share)
    assert found.business_confirmed is False


def test_shares_of_sanctioned_owners_are_added(tmp_path: Path) -> None:
    other = party("p2", "Boris Beispiel", schema="Person", birth_dates=("1960-02-03",))
    owners = [
        {"name": "Maria Musterfrau", "kind": "person", "share_pct": 30, "birth_date": "1970-01-01"},
        {"name": "Boris Beispiel", "kind": "person", "share_pct": 20, "birth_date": "1960-02-03"},
        {"name": "Anna Anders", "kind": "person", "share_pct": 50},
    ]
    assert facts(tmp_path, profile(owners=owners), MARIA, other).sanctioned_share_pct == 50.0


@pytest.mark.parametrize(("known", "share"), [(60, 60.0), (40, None)])
def test_a_share_that_is_not_known_may_be_any(tmp_path: Path, known: float, share: float | None) -> None:
    other = party("p2", "Boris Beispiel", schema="Person", birth_dates=("1960-02-03",))
    owners = [
        {"name": "Maria Musterfrau", "kind": "person", "share_pct": known, "birth_date": "1970-01-01"},
        {"name": "Boris Beispiel", "kind": "person", "birth_date": "1960-02-03"},
    ]
    assert facts(tmp_path, profile(owners=owners), MARIA, other).sanctioned_share_pct == share


def test_a_director_under_sanctions_holds_no_share(tmp_path: Path) -> None:
    sent = profile(directors=[{"name": "Maria Musterfrau", "birth_date": "1970-01-01"}], owners=[])
    found = facts(tmp_path, sent, MARIA)
    assert (found.status, found.business_confirmed, found.sanctioned_share_pct) == ("confirmed", False, None)


@pytest.mark.parametrize(
    ("people", "found", "potential"),
    [
        ({"owners": [{"name": "Maria Musterfrau", "share_pct": 25, "birth_date": "1970-01-01"}]}, True, False),
        ({"owners": [{"name": "Maria Musterfrau", "share_pct": 24, "birth_date": "1970-01-01"}]}, False, False),
        ({"owners": [{"name": "Maria Musterfrau", "birth_date": "1970-01-01"}]}, True, False),
        ({"directors": [{"name": "Maria Musterfrau"}]}, False, True),
    ],
)
def test_a_pep_is_no_sanction(tmp_path: Path, people: Any, found: bool, potential: bool) -> None:
    listed = party("p1", "Maria Musterfrau", kind="pep", schema="Person", birth_dates=("1970-01-01",))
    told = facts(tmp_path, profile(**people), listed)
    assert (told.status, told.pep_found, told.pep_potential) == ("clear", found, potential)


def test_entries_of_other_kinds_are_shown_and_decide_nothing(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required(ofac=(party("x1", "Veridian Shadow Trading", kind="other"),))
        told = await lists.screening(profile("Veridian Shadow Trading"))
        assert told.status == "clear"
        assert [(hit.kind, hit.entity_id) for hit in told.hits] == [("other", "x1")]

    Lists(tmp_path).run(work)


def test_aliases_and_every_party_are_looked_for(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required(ofac=(WIDGETS, MARIA))
        told = await lists.screening(
            profile(
                aliases=["Something", "Veridian Shadow Trading Limited"],
                owners=[{"name": "Veridian Shadow Trading", "kind": "company"}, {"name": "Maria Musterfrau"}],
                directors=[{"name": "Maria Musterfrau"}],
            )
        )
        assert {hit.subject for hit in told.hits} == {
            "/business/name",
            "/ownership/owners/0/name",
            "/ownership/owners/1/name",
            "/ownership/directors/0/name",
        }

    Lists(tmp_path).run(work)


def test_hits_stand_best_first_and_are_twenty_at_most(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        listed = [party(f"n{n}", f"Veridian Shadow Trading {word}") for n, word in enumerate(WORDS)]
        await lists.put_required(ofac=(*listed, WIDGETS))
        told = await lists.screening(
            profile("Veridian Shadow Trading", registration_number="HE 900417", jurisdiction="CY")
        )
        assert len(told.hits) == 20
        assert told.hits[0].entity_id == "o1"
        assert told.hits[0].confirmed
        scores = [hit.score for hit in told.hits[1:]]
        assert scores == sorted(scores, reverse=True)

    Lists(tmp_path).run(work)


WORDS = [
    f"{first}{second}"
    for first in ("Ost", "West", "Nord", "Sued", "Ober")
    for second in ("", "see", "tal", "berg", "hof")
]


def test_a_hit_names_list_version_entry_and_every_part(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required(ofac=(WIDGETS,))
        [hit] = (await lists.screening(profile("Veridian Shade Trading", jurisdiction="CY"))).hits
        assert (hit.list, hit.kind, hit.entity_id) == ("ofac-sdn", "sanction", "o1")
        assert hit.list_version in [one.version for one in lists.assembly.lists.loaded.lists]
        assert hit.matched_name == "Veridian Shadow Trading"
        assert 0.75 <= hit.score < 1
        for word in ("veridian", "shade", "trading", "CY"):
            assert word in hit.explanation

    Lists(tmp_path).run(work)


def test_many_owners_are_all_screened(tmp_path: Path) -> None:
    owners = [{"name": f"Harmless Person {n}", "share_pct": 0.1} for n in range(499)]
    owners.append({"name": "Maria Musterfrau", "share_pct": 50, "birth_date": "1970-01-01"})
    found = facts(tmp_path, profile(owners=owners), MARIA)
    assert (found.status, found.sanctioned_share_pct) == ("confirmed", 50.0)


def test_what_was_found_before_is_found_again_without_a_search(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required()
        first = await lists.gather(profile())
        for one in lists.assembly.lists.loaded.lists:
            one.index = None  # type: ignore[assignment]
        assert await lists.gather(profile()) == first
        with pytest.raises(AttributeError):
            await lists.gather(profile("Never Seen Before"))

    Lists(tmp_path).run(work)


def test_an_unchanged_list_keeps_what_was_found_and_a_changed_one_does_not(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put_required()
        sent = profile("Veridian Shadow Trading")
        assert (await lists.screening(sent)).hits == []
        before = lists.assembly.lists.loaded
        await lists.assembly.lists.refresh()
        assert lists.assembly.lists.loaded is not before
        assert lists.assembly.lists.loaded._matches is before._matches
        await lists.put("ofac-sdn", WIDGETS)
        assert [hit.entity_id for hit in (await lists.screening(sent)).hits] == ["o1"]

    Lists(tmp_path).run(work)
