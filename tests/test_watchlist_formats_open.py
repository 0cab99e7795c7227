"""OpenSanctions' table and FollowTheMoney lines become entities; what each is listed for decides its kind."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from watchlists import FTM, OPENSANCTIONS, put

from app.watchlists.demo import read_demo
from app.watchlists.reading import ReadList, read
from core.entities import Entity, Identifier


@pytest.fixture
def table(tmp_path: Path) -> ReadList:
    return read(put(tmp_path, {"targets.simple.csv": OPENSANCTIONS}))


@pytest.fixture
def lines(tmp_path: Path) -> ReadList:
    return read(put(tmp_path, {"list.jsonl": FTM}))


def line(tmp_path: Path, schema: str = "Company", **properties: Any) -> Entity:
    """The entity of one line."""
    properties = {"name": ["Quartz"], **properties}
    text = json.dumps({"id": "Q", "schema": schema, "properties": properties})
    return read(put(tmp_path, {"one.jsonl": text})).entities[0]


def test_a_row_of_opensanctions_is_read_whole(table: ReadList) -> None:
    assert table.entities[0] == Entity(
        id="NK-1",
        schema="Company",
        kind="sanction",
        names=("Quartz Ferry Lines", "QFL", "Кварц"),
        countries=("RU", "UA"),
        identifiers=(
            Identifier("lei", "529900T8BM49AURSDO55"),
            Identifier("other", "7700000000"),
            Identifier("imo", "9999917"),
        ),
        programmes=("EU-RUS", "US-RUS"),
        addresses=("Kade 1", "Kade 2"),
    )


def test_a_row_without_sanctions_is_of_kind_other(table: ReadList) -> None:
    assert [(entity.id, entity.kind) for entity in table.entities] == [("NK-1", "sanction"), ("NK-2", "other")]


def test_the_latest_sighting_is_the_tables_date(table: ReadList) -> None:
    assert table.published == "2026-09-15"


def test_rows_of_nobody_who_could_be_screened_are_left_out_and_told(table: ReadList) -> None:
    assert table.sentences() == [
        '1 of 3 entries are nobody that could be screened against and were left out ("CryptoWallet")',
        '1 mentions of a country could not be read as one ("suhh")',
    ]


def test_a_number_of_the_form_of_an_lei_with_wrong_check_digits_is_no_lei(tmp_path: Path) -> None:
    text = OPENSANCTIONS.replace("529900T8BM49AURSDO55", "529900T8BM49AURSDO56")
    made = read(put(tmp_path, {"targets.simple.csv": text}))
    assert made.entities[0].identifiers[0] == Identifier("other", "529900T8BM49AURSDO56")


def test_the_table_of_before_programmes_is_read_too(tmp_path: Path) -> None:
    text = "id,schema,name,aliases,birth_date,countries,addresses,identifiers,sanctions\n1,Person,A B,,,,,,\n"
    assert read(put(tmp_path, {"old.csv": text})).entities[0].names == ("A B",)


def test_values_that_hold_a_semicolon_or_a_quote_stay_whole(tmp_path: Path) -> None:
    values = io.StringIO()
    csv.writer(values, delimiter=";", lineterminator="").writerow(['OAO "Quartz"', "Quartz; Ferry", "QFL"])
    row = io.StringIO()
    header = ["id", "schema", "name", "aliases", "birth_date", "countries", "addresses", "identifiers", "sanctions"]
    csv.writer(row).writerows([header, ["1", "Company", "A B", values.getvalue(), "", "", "Kade 1\nGhent", "", "x"]])
    [entity] = read(put(tmp_path, {"targets.simple.csv": row.getvalue()})).entities
    assert entity.names == ("A B", 'OAO "Quartz"', "Quartz; Ferry", "QFL")
    assert entity.addresses == ("Kade 1 Ghent",)


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    header = "id,schema,name,aliases,birth_date,countries,addresses,identifiers,sanctions\n"
    text = f"{header}1,Company,A B,,,,,,{'why;' * 100_000}\n"
    assert read(put(tmp_path, {"targets.simple.csv": text})).entities[0].kind == "sanction"


def test_a_person_without_a_whole_name_has_one_of_its_parts(tmp_path: Path) -> None:
    parts = {"firstName": ["Elias"], "middleName": ["Maarten"], "lastName": ["Vantorre"]}
    assert line(tmp_path, "Person", name=[], **parts).names == ("Elias Maarten Vantorre", "Elias Vantorre")
    assert line(tmp_path, "Person", **parts).names == ("Quartz",)
    assert line(tmp_path, "Person", name=[], lastName=["Vantorre"]).names == ("Vantorre",)


def test_a_line_is_read_whole(lines: ReadList) -> None:
    assert lines.entities[0] == Entity(
        id="Q1",
        schema="Company",
        kind="sanction",
        names=("Quartz Ferry Lines", "QFL", "Кварц", "Quartz Shipping"),
        weak_names=("The Stone",),
        countries=("CY", "RU", "BE"),
        identifiers=(
            Identifier("registration", "HE 1"),
            Identifier("registration", "1027700000000"),
            Identifier("lei", "529900T8BM49AURSDO55"),
            Identifier("vat", "DE136695976"),
            Identifier("tax", "7700000000"),
            Identifier("bic", "QUARRUMM"),
            Identifier("other", "77"),
        ),
        programmes=("EU-RUS",),
        addresses=("Kade 1, Ghent", "Kade 2"),
    )


def test_a_persons_numbers_are_the_persons_own(lines: ReadList) -> None:
    assert lines.entities[1].identifiers == (Identifier("passport", "EX12345"), Identifier("national_id", "12"))


@pytest.mark.parametrize(
    ("topics", "kind"),
    [
        (["sanction"], "sanction"),
        (["sanction.linked"], "sanction"),
        (["role.pep", "sanction"], "sanction"),
        (["role.pep"], "pep"),
        (["role.rca"], "other"),
        (["sanction.counter"], "other"),
        (["sanctioned"], "other"),
        ([], "other"),
    ],
)
def test_topics_decide_the_kind(tmp_path: Path, topics: list[str], kind: str) -> None:
    assert line(tmp_path, topics=topics).kind == kind


def test_the_kind_asked_for_stands_over_the_lists(tmp_path: Path) -> None:
    paths = put(tmp_path, {"list.jsonl": FTM})
    assert {entity.kind for entity in read(paths, kind="pep").entities} == {"pep"}


@pytest.mark.parametrize(
    ("schema", "made"),
    [("PublicBody", "Organization"), ("LegalEntity", "LegalEntity"), ("Vessel", "Vessel"), ("Airplane", "Airplane")],
)
def test_schemata_become_those_that_can_be_screened(tmp_path: Path, schema: str, made: str) -> None:
    assert line(tmp_path, schema).schema == made


def test_what_is_left_out_of_lines_is_told(lines: ReadList) -> None:
    assert [(note.reason, note.count, note.examples) for note in lines.notes] == [
        ("no_name", 1, ("Q6",)),
        ("no_party", 1, ('"Address"',)),
        ("not_target", 1, ('"Q5"',)),
        ("unknown_country", 1, ('"suhh"',)),
    ]
    assert lines.sentences()[0] == "1 of 7 entries had no usable name and were left out (Q6)"


def test_where_all_names_are_weak_they_are_the_names(tmp_path: Path) -> None:
    assert line(tmp_path, name=[], weakAlias=["Stone", "Pebble"]).names == ("Stone", "Pebble")


def test_codes_in_use_for_countries_are_read(tmp_path: Path) -> None:
    assert line(tmp_path, country=["uk", "el", "xk", "na", "us-de", "zz"]).countries == ("GB", "GR", "XK", "NA", "US")


def test_the_demonstration_list_holds_all_kinds_and_several_scripts() -> None:
    made = read_demo()
    assert len(made.entities) == 15
    assert made.notes == ()
    assert {entity.kind for entity in made.entities} == {"sanction", "pep", "other"}
    assert {entity.schema for entity in made.entities} == {"Company", "Organization", "Person", "Vessel"}
    assert sum(not name.isascii() for entity in made.entities for name in entity.names) >= 5
