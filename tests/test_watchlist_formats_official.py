"""The lists of OFAC, the UN and the EU become the entities that they tell of."""

from __future__ import annotations

from pathlib import Path

import pytest
from watchlists import ADD, ALT, EU_CSV, EU_XML, LISTS, SDN, UN, eu_row, put

from app.watchlists.reading import ReadList, read
from app.watchlists.refusal import ListRefused
from core.entities import Entity, Identifier


def one(made: ReadList, entry_id: str) -> Entity:
    return next(entity for entity in made.entities if entity.id == entry_id)


@pytest.fixture
def ofac(tmp_path: Path) -> ReadList:
    return read(put(tmp_path, LISTS["ofac-csv"]))


@pytest.fixture
def un(tmp_path: Path) -> ReadList:
    return read(put(tmp_path, {"un.xml": UN}))


@pytest.fixture
def eu(tmp_path: Path) -> ReadList:
    return read(put(tmp_path, {"eu.xml": EU_XML}))


def test_an_ofac_person_is_read_whole_with_the_name_in_the_order_of_speech(ofac: ReadList) -> None:
    assert one(ofac, "401") == Entity(
        id="401",
        schema="Person",
        kind="sanction",
        names=("Elias Maarten VANTORRE", "Elias VAN TORRE"),
        weak_names=("Elias IRON",),
        countries=("BE", "CU"),
        birth_dates=("1970-03-02", "1969"),
        identifiers=(
            Identifier("passport", "EX12345", "BE"),
            Identifier("passport", "B 77"),
            Identifier("national_id", "70.03.02-123.45", "BE"),
        ),
        programmes=("SDGT", "IFSR"),
        addresses=("Kade 1, Ghent 9000, Belgium",),
    )


def test_an_ofac_suffix_stays_behind_the_name(ofac: ReadList) -> None:
    assert one(ofac, "402").names == ("Ada OKORONKWO Jr.",)


def test_an_ofac_range_of_years_of_birth_is_each_of_them(ofac: ReadList) -> None:
    assert one(ofac, "402").birth_dates == ("1960", "1961", "1962")


def test_an_ofac_company_keeps_the_comma_in_its_name_and_its_numbers_have_kind_and_country(ofac: ReadList) -> None:
    company = one(ofac, "405")
    assert company.schema == "Organization"
    assert company.names == ("GRANITE HOLDINGS, LTD.", "GRANITE HOLDING, S.A.")
    assert company.identifiers == (
        Identifier("registration", "HRB 1234", "DE"),
        Identifier("tax", "7724244406", "RU"),
        Identifier("vat", "BG 831036657", "BG"),
        Identifier("registration", "7136973", "US"),
        Identifier("registration", "21-573208-02"),
        Identifier("lei", "485100GBI2SE0KIX8T70"),
        Identifier("bic", "HAVIGB2L"),
    )


def test_an_ofac_alias_in_the_remarks_is_weak(ofac: ReadList) -> None:
    assert one(ofac, "36").names == ("QUARTZ FERRY LINES", "QUARTZ-FERRY")
    assert one(ofac, "36").weak_names == ("QFL",)


def test_ofac_vessels_have_their_flags_and_imo_number_and_aircraft_their_tail_number(ofac: ReadList) -> None:
    vessel, aircraft = one(ofac, "403"), one(ofac, "404")
    assert (vessel.schema, vessel.countries) == ("Vessel", ("PA", "MT"))
    assert vessel.identifiers == (Identifier("imo", "9999917"), Identifier("other", "999000403"))
    assert (aircraft.schema, aircraft.countries) == ("Airplane", ())
    assert aircraft.identifiers == (Identifier("other", "EP-4"),)


def test_a_country_that_cannot_be_read_is_left_out_and_told(ofac: ReadList) -> None:
    assert one(ofac, "405").countries == ()
    assert ofac.sentences() == ['1 mentions of a country could not be read as one ("Region: Kafia Kingi")']


def test_ofacs_other_files_are_found_beside_the_first(tmp_path: Path, ofac: ReadList) -> None:
    assert read(tmp_path / "sdn.csv") == ofac


def test_ofacs_other_files_are_found_in_capital_letters_too(tmp_path: Path, ofac: ReadList) -> None:
    folder = tmp_path / "capitals"
    folder.mkdir()
    put(folder, {"SDN.CSV": SDN, "ALT.CSV": ALT, "ADD.CSV": ADD})
    assert read(folder / "SDN.CSV") == ofac


def test_ofacs_files_are_told_apart_by_their_columns_whatever_their_names_and_order(tmp_path: Path) -> None:
    paths = put(tmp_path, {"c": ADD, "a": ALT, "b": SDN})
    assert len(read(paths).entities) == 6


def test_ofacs_list_without_its_aliases_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"sdn.csv": SDN, "add.csv": ADD})
    with pytest.raises(ListRefused, match=r"alt\.csv neither given nor beside it") as refused:
        read(tmp_path / "sdn.csv")
    assert refused.value.where == str(tmp_path / "sdn.csv")


def test_ofac_files_of_different_dates_are_refused(tmp_path: Path) -> None:
    paths = put(tmp_path, {"sdn.csv": SDN.replace("401,", "9401,", 1), "alt.csv": ALT, "add.csv": ADD})
    with pytest.raises(ListRefused, match="2 of 7 aliases and addresses belong to entries that are not in"):
        read(paths)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sdn.csv", 'the row beginning "405" has 3 columns, not 12: the file is cut off or damaged'),
        ("alt.csv", 'the row beginning "405" has 3 columns, not 5: the file is cut off or damaged'),
        ("add.csv", 'the row beginning "405" has 3 columns, not 6: the file is cut off or damaged'),
    ],
)
def test_an_ofac_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    lines = LISTS["ofac-csv"][name].split("\r\n")
    row = next(place for place, text in enumerate(lines) if text.startswith("405,"))
    cut = "\r\n".join([*lines[:row], "405,1,-0- "])
    with pytest.raises(ListRefused) as refused:
        read(put(tmp_path, LISTS["ofac-csv"] | {name: cut}))
    assert (refused.value.reason, refused.value.where) == (reason, f"{name}, line {row + 1}")


def test_remarks_that_overflow_are_read_on_in_the_comments(tmp_path: Path) -> None:
    long = "DOB 01 Jan 1950; " + "Linked To: QUARTZ; " * 60
    cut = long[: 1000 - len("; alt. DOB 02 Fe")] + "; alt. DOB 02 Fe"
    assert len(cut) == 1000
    entry = f'1,"A, B","individual","SDGT",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"{cut}"\n'
    files: dict[str, str | bytes] = {
        "sdn.csv": entry,
        "alt.csv": '1,1,"aka","C, D",-0- \n',
        "add.csv": "1,1,-0- ,-0- ,-0- ,-0- \n",
    }
    broken_off = read(put(tmp_path, files))
    assert broken_off.entities[0].birth_dates == ("1950-01-01",)
    assert [note.reason for note in broken_off.notes] == ["incomplete_remarks"]
    whole = read(put(tmp_path, files | {"sdn_comments.csv": '1,"b 1951; nationality Cuba."\n'}))
    assert whole.entities[0].birth_dates == ("1950-01-01", "1951-02-02")
    assert whole.entities[0].countries == ("CU",)
    assert whole.notes == ()


def test_a_un_person_is_read_whole(un: ReadList) -> None:
    assert one(un, "TEi.001") == Entity(
        id="TEi.001",
        schema="Person",
        kind="sanction",
        names=("ELIAS MAARTEN VANTORRE", "الياس فانتور", "Elyas Vantor", "Elias van Torre"),
        weak_names=("Iron Elias",),
        countries=("IR", "BE"),
        birth_dates=("1971-05-06", "1970-03-02", "1969", "1966", "1967", "1968", "1973-11"),
        identifiers=(
            Identifier("passport", "EX12345", "BE"),
            Identifier("tax", "VNTLSE70C02Z103X"),
            Identifier("national_id", "70.03"),
        ),
        programmes=("Test",),
        addresses=("Kade 1, Ghent, Belgium",),
    )


def test_several_names_in_one_element_of_the_un_are_several_names(un: ReadList) -> None:
    assert one(un, "TEe.001").names == (
        "QUARTZ FERRY LINES",
        "QFL",
        "خطوط",
        "Quartz One",
        "Quartz Two",
        "Quartz J/V Shipping",
    )


def test_the_lists_own_date_is_read(un: ReadList, eu: ReadList) -> None:
    assert (un.published, eu.published) == ("2026-02-27", "2026-08-05")


def test_an_eu_person_is_read_whole(eu: ReadList) -> None:
    assert one(eu, "13") == Entity(
        id="13",
        schema="Person",
        kind="sanction",
        names=("Elias Vantorre", "Elyas M. Vantor"),
        weak_names=("Iron Elias",),
        countries=("BE",),
        birth_dates=("1970-03-02", "1969", "1966", "1967", "1971-04"),
        identifiers=(Identifier("passport", "EX12345", "BE"), Identifier("national_id", "70-03")),
        programmes=("TAQA",),
        addresses=("Kade 1, 9000, Ghent, BELGIUM",),
    )


def test_an_eu_enterprise_has_its_numbers_by_kind(eu: ReadList) -> None:
    assert one(eu, "14").schema == "Organization"
    assert one(eu, "14").identifiers == (
        Identifier("registration", "1027700000000", "RU"),
        Identifier("bic", "QUARRUMM", "RU"),
        Identifier("imo", "9999917"),
        Identifier("tax", "7700000000", "RU"),
    )


def test_a_national_number_of_a_business_may_be_of_any_register(tmp_path: Path) -> None:
    files = {"sdn.csv": SDN.replace("Registration Number HRB 1234", "National ID No. 10100722073"), "alt.csv": ALT}
    entity = one(read(put(tmp_path, {**files, "add.csv": ADD})), "405")
    assert entity.identifiers[0] == Identifier("other", "10100722073", "DE")


def test_an_eu_subject_that_lacks_its_id_or_type_is_read_all_the_same(tmp_path: Path) -> None:
    text = (
        '<export xmlns="http://eu.europa.ec/fpi/fsd/export"><sanctionEntity euReferenceNumber="EU.9.9">'
        '<nameAlias wholeName="Quartz"/></sanctionEntity></export>'
    )
    [entity] = read(put(tmp_path, {"eu.xml": text})).entities
    assert (entity.id, entity.schema) == ("EU.9.9", "LegalEntity")


def test_rows_of_the_eus_csv_make_one_entity_of_each_logical_id_wherever_they_stand(tmp_path: Path) -> None:
    made = read(put(tmp_path, {"eu.csv": EU_CSV}))
    assert (made.format, made.published, made.entries) == ("eu-csv", "2026-08-05", 2)
    assert one(made, "13") == Entity(
        id="13",
        schema="Person",
        kind="sanction",
        names=("Elias Vantorre", "Elyas Vantor"),
        countries=("BE",),
        birth_dates=("1970-03-02", "1969"),
        identifiers=(Identifier("passport", "EX12345", "BE"),),
        programmes=("TAQA",),
        addresses=("Kade 1; bis, Ghent",),
    )
    assert one(made, "14").names == ('ООО "Кварц"',)


def test_a_row_of_the_eus_csv_without_an_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListRefused, match="Entity_LogicalId is empty") as refused:
        read(put(tmp_path, {"eu.csv": EU_CSV + eu_row(NameAlias_WholeName="Nobody")}))
    assert refused.value.where == "eu.csv, line 11"
