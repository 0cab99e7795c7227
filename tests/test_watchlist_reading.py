"""Telling formats by content, refusing what is no list or no whole one, and judging whether a list is plausible."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from watchlists import EU_CSV, EU_XML, FTM, LISTS, OPENSANCTIONS, UN, put

from app.watchlists.formats.registry import FORMATS
from app.watchlists.limits import Limits
from app.watchlists.reading import ReadList, check_plausible, read
from app.watchlists.refusal import ListRefused
from core.entities import Entity

DATA = Path(__file__).parent.parent.parent / "shared" / "data"

Refuse = Callable[..., ListRefused]


@pytest.fixture
def refused(tmp_path: Path) -> Refuse:
    """The refusal of a file of this content."""

    def refuse(content: str | bytes, limits: Limits | None = None, format: str | None = None) -> ListRefused:
        with pytest.raises(ListRefused) as caught:
            read(put(tmp_path, {"list": content}), limits=limits, format=format)
        return caught.value

    return refuse


@pytest.mark.parametrize("name", LISTS)
def test_the_format_is_told_by_content(tmp_path: Path, name: str) -> None:
    paths = put(tmp_path, {f"file-{place}": text for place, text in enumerate(LISTS[name].values())})
    assert read(paths).format == name
    assert read(paths) == read(paths, format=name)


def test_there_is_a_list_for_every_format_here() -> None:
    assert set(LISTS) == set(FORMATS)


def test_a_file_of_no_format_is_refused_with_all_that_was_tried(refused: Refuse) -> None:
    message = str(refused("name,risk\nQuartz,high\n"))
    assert message.startswith("list: is not a list of any format known here: ")
    assert all(name in message for name in FORMATS)


def test_an_unknown_format_is_refused_with_those_known(refused: Refuse) -> None:
    assert str(refused(FTM, format="yaml")) == (
        'list: "yaml" is no format known here; those are ofac-csv, un-xml, eu-xml, eu-csv, opensanctions-csv, ftm-json'
    )


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_another_format_than_named_is_refused(refused: Refuse, name: str) -> None:
    assert f"({name})" in refused("name,risk\n", format=name).reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n", "is empty"),
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, not a list"),
        ("\n<HTML><head>", "is a web page, not a list"),
        (UN.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (OPENSANCTIONS.encode("utf-16-be"), "holds NUL characters"),
        (b"\x1f\x8b\x08\x00", "is compressed (gzip)"),
        (b"PK\x03\x04\x14\x00", "is compressed (zip)"),
        (b"%PDF-1.7", "is a PDF"),
        (OPENSANCTIONS.replace("Ada", "Åda").encode("latin-1", "replace"), "is not UTF-8"),
    ],
    ids=["nothing", "blank", "html", "capitals", "utf-16", "utf-16-be", "gzip", "zip", "pdf", "latin-1"],
)
def test_what_is_no_text_of_a_list_is_refused_by_what_it_is(refused: Refuse, content: str | bytes, reason: str) -> None:
    assert reason in refused(content).reason


def test_a_byte_that_is_not_utf8_far_into_a_file_is_refused_with_its_line(refused: Refuse) -> None:
    rows = OPENSANCTIONS.encode() + b'"N","Person","A","","","","","","","","","","","","",""\n' * 2000
    error = refused(rows + '"M","Person","Åsa","","","","","","","","","","","","",""\n'.encode("latin-1"))
    assert error.where == "list, line 2005"
    assert "is not UTF-8" in error.reason


@pytest.mark.parametrize(("path", "reason"), [("nowhere.csv", "no such file"), (".", "is not a file")])
def test_a_path_without_a_file_is_refused(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(ListRefused, match=reason):
        read(tmp_path / path)


def test_no_path_at_all_is_refused() -> None:
    with pytest.raises(ListRefused, match="no file was named"):
        read([])


def test_two_files_of_a_format_of_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ListRefused, match="un-xml is one file, not 2"):
        read(put(tmp_path, {"a.xml": UN, "b.xml": UN}))


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    for name, text in {"un": UN, "ftm": FTM, "os": OPENSANCTIONS}.items():
        assert read(put(tmp_path, {name: "\ufeff" + text})) == read(put(tmp_path, {name: text}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (UN[: len(UN) // 2], "it is not whole"),
        (EU_XML[: EU_XML.rindex("</export>")], "it is not whole"),
        (OPENSANCTIONS[: OPENSANCTIONS.rindex("Test") + 2], "the file ends within quotes: it is not whole"),
        (OPENSANCTIONS[: OPENSANCTIONS.rindex(',""')], "has 15 columns, not 16: the file is cut off or damaged"),
        (FTM[: FTM.rindex("name") + 2], "not an entity of FollowTheMoney"),
        (EU_CSV[: EU_CSV.rindex(";")], "columns, not"),
    ],
    ids=["un", "eu", "within quotes", "within row", "ftm", "eu-csv"],
)
def test_a_list_that_is_cut_off_is_refused_with_the_line(refused: Refuse, text: str, reason: str) -> None:
    error = refused(text)
    assert reason in error.reason
    assert error.where.startswith("list, line ")


def test_a_broken_line_of_json_is_refused_with_its_number(refused: Refuse) -> None:
    lines = FTM.split("\n")
    assert refused("\n".join([*lines[:3], "{", *lines[3:]])).where == "list, line 4"


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 7, "schema": "Person", "properties": {"name": ["A"]}}',
        '{"schema": "Person", "properties": {"name": ["A"]}}',
        '{"id": "a", "schema": "Person", "properties": {"name": "A"}}',
        '{"id": "", "schema": "Person", "properties": {"name": ["A"]}}',
        '{"id": "' + "a" * 300 + '", "schema": "Person", "properties": {"name": ["A"]}}',
        '{"id": "a", "schema": "Person", "properties": {"name": ' + "[" * 5000 + "]" * 5000 + "}}",
        '{"id": "a", "schema": "Person", "properties": {"x": [{"properties": {"name": '
        + "[" * 5000
        + "]" * 5000
        + "}}]}}",
    ],
)
def test_a_line_of_another_shape_is_refused(refused: Refuse, line: str) -> None:
    assert refused(line).where == "list, line 1"


def test_characters_that_show_nothing_are_taken_out_of_names(tmp_path: Path) -> None:
    line = {
        "id": "a",
        "schema": "Person",
        "properties": {"name": ["A\u0000d\u200fa \ufeff\tB\n\u202eC", "می\u200cخواهم"]},
    }
    made = read(put(tmp_path, {"one.jsonl": json.dumps(line)}))
    assert made.entities[0].names == ("Ada B C", "می\u200cخواهم")


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE r SYSTEM "http://127.0.0.1/list.dtd">',
    ],
    ids=["expansion", "external entity", "external subset"],
)
def test_xml_with_a_document_type_is_refused(refused: Refuse, prologue: str) -> None:
    text = UN.replace("<CONSOLIDATED_LIST", prologue + "<CONSOLIDATED_LIST", 1)
    assert "a document type declaration" in refused(text, format="un-xml").reason


def test_xml_in_another_encoding_than_utf8_is_refused(refused: Refuse) -> None:
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><CONSOLIDATED_LIST/>'
    assert refused(text).reason == 'the file says that its encoding is "ISO-8859-1"; only UTF-8 is read'


def test_latin1_that_calls_itself_utf8_is_refused(refused: Refuse) -> None:
    text = "<CONSOLIDATED_LIST>" + "\n" * 100_000 + "<NAME>Élias</NAME></CONSOLIDATED_LIST>"
    error = refused(text.encode("latin-1"))
    assert "a character that is not UTF-8" in error.reason
    assert error.where == "list, line 100001"


def test_xml_nested_too_deeply_is_refused(refused: Refuse) -> None:
    text = "<CONSOLIDATED_LIST>" + "<INDIVIDUAL>" * 5000
    assert refused(text).reason == "elements are nested deeper than 24 levels"


def test_an_xml_entry_without_end_is_refused_before_it_is_in_memory(refused: Refuse) -> None:
    text = "<CONSOLIDATED_LIST><INDIVIDUAL>" + "<FIRST_NAME>A</FIRST_NAME>" * 3000
    assert "larger than any entry" in refused(text, Limits(line_bytes=1000)).reason


@pytest.mark.parametrize("opening", ["<!--", '<INDIVIDUAL NAME="'])
def test_an_xml_tag_without_end_is_refused_before_it_is_in_memory(refused: Refuse, opening: str) -> None:
    text = "<CONSOLIDATED_LIST>" + opening + "a" * 500_000
    assert refused(text, Limits(line_bytes=100_000)).reason == "one tag or comment is longer than 100,000 bytes"


def test_xml_of_another_schema_is_refused(refused: Refuse) -> None:
    message = refused("<?xml version='1.0'?><!-- <CONSOLIDATED_LIST> --><sdnList><sdnEntry/></sdnList>").reason
    assert "un-xml has <CONSOLIDATED_LIST> as its root element" in message


def test_a_list_without_entries_is_refused(refused: Refuse) -> None:
    assert refused("<CONSOLIDATED_LIST></CONSOLIDATED_LIST>").reason == "holds no entry"


def test_a_list_whose_entries_are_all_left_out_is_refused_with_why(refused: Refuse) -> None:
    line = '{"id": "a", "schema": "Address", "properties": {"full": ["A"]}}'
    assert "1 of 1 entries are nobody that could be screened" in refused(line).reason


def test_a_file_that_is_too_large_is_refused(refused: Refuse) -> None:
    assert refused(FTM, Limits(file_bytes=100)).reason.endswith("at most 100 are read")


def test_a_line_that_is_too_long_is_refused(refused: Refuse) -> None:
    error = refused(FTM, Limits(line_bytes=500))
    assert (error.reason, error.where) == ("the line is longer than 500 bytes", "list, line 1")


def test_more_entries_than_allowed_are_refused(refused: Refuse) -> None:
    for text in (FTM, UN, EU_CSV, EU_XML, OPENSANCTIONS):
        assert refused(text, Limits(entities=1)).reason == "the list has more than 1 entries"


def test_an_entry_with_more_values_than_allowed_is_refused(refused: Refuse) -> None:
    assert 'the entry "Q1" has 19 values; at most 9' in refused(FTM, Limits(entry_values=9)).reason


def test_a_quote_that_does_not_close_is_refused_before_all_is_read(refused: Refuse) -> None:
    text = OPENSANCTIONS + '"\n' + "a\n" * 5000
    assert "one record has more than 1,000 lines: a quote is not closed" in refused(text).reason


def test_a_nul_in_a_line_is_refused_with_its_number(refused: Refuse) -> None:
    rows = OPENSANCTIONS + '"N","Person","A","","","","","","","","","","","","",""\n' * 2000
    assert refused(rows + "\0").where == "list, line 2005"


def test_names_that_are_too_long_are_cut_and_counted(tmp_path: Path) -> None:
    line = {"id": "a", "schema": "Person", "properties": {"name": ["A" * 600]}}
    made = read(put(tmp_path, {"one.jsonl": json.dumps(line)}))
    assert made.entities[0].names == ("A" * 512,)
    assert made.sentences() == ["1 names or other values were longer than is kept and were cut (a)"]


def test_an_entry_that_stands_twice_word_for_word_is_taken_once_and_counted(tmp_path: Path) -> None:
    first = FTM.split("\n")[0]
    made = read(put(tmp_path, {"list.jsonl": first + "\n" + first}))
    assert len(made.entities) == 1
    assert made.sentences()[0] == "1 of 2 entries stood in the list twice, word for word, and were taken once (Q1)"


def test_two_different_entries_of_one_id_are_refused(refused: Refuse) -> None:
    first = FTM.split("\n")[0]
    error = refused(first + "\n" + first.replace("Quartz Ferry Lines", "Granite"))
    assert 'two entries have the id "Q1" and differ ("Quartz Ferry Lines", "Granite")' in error.reason


def _list_of(count: int) -> ReadList:
    return ReadList("ftm-json", [Entity(str(i), "Person", "other", ("A",)) for i in range(count)], count)


@pytest.mark.parametrize(("count", "known", "minimum"), [(10, None, 10), (5, 10, 5), (10, 3, 1)])
def test_a_plausible_list_passes(count: int, known: int | None, minimum: int) -> None:
    check_plausible(_list_of(count), known, minimum)


@pytest.mark.parametrize(
    ("count", "known", "minimum", "reason"),
    [
        (9, None, 10, "the list has 9 entities; fewer than 10 are not plausible"),
        (4, 10, 1, "the list has 4 entities, less than half of the 10 in use"),
    ],
)
def test_a_list_that_has_shrunk_or_is_too_small_is_refused(
    count: int, known: int | None, minimum: int, reason: str
) -> None:
    with pytest.raises(ListRefused, match=reason):
        check_plausible(_list_of(count), known, minimum)


def read_or_refused(paths: list[Path], format: str | None) -> Iterator[ReadList]:
    """The list, or none where it is refused; any other error is raised."""
    with contextlib.suppress(ListRefused):
        yield read(paths, format=format)


PIECES = st.sampled_from(
    [b"", b'"', b";", b",", b"\n", b"\r", b"\0", b"<", b">", b"]]>", b"\xff", b"{", b"[", b"-0- ", b"\x1a"]
)


@pytest.mark.parametrize("name", LISTS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_list_is_read_or_refused_and_nothing_else(tmp_path: Path, name: str, data: st.DataObject) -> None:
    files: dict[str, str | bytes] = {}
    for file, text in LISTS[name].items():
        content = text.encode()
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(content)))
            until = data.draw(st.integers(at, min(len(content), at + 40)))
            content = content[:at] + data.draw(PIECES | st.binary(max_size=8)) + content[until:]
        files[file] = content
    for made in read_or_refused(put(tmp_path, files), data.draw(st.sampled_from([None, name]))):
        assert made.entities
        assert all(entity.id and entity.names for entity in made.entities)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200), name=st.sampled_from([None, *FORMATS]))
@example(content="Entity_LogicalId;NameAlias_WholeName", name=None)
@example(content='"Entity_LogicalId;NameAlias_WholeName"\na\n', name=None)
def test_any_content_is_read_or_refused_and_nothing_else(
    tmp_path: Path, content: bytes | str, name: str | None
) -> None:
    if isinstance(content, str):
        content = content.encode(errors="surrogatepass")
    list(read_or_refused(put(tmp_path, {"list": content}), name))


@pytest.mark.skipif(not (DATA / "ofac").is_dir(), reason="the OFAC list is not there (shared/data/ofac)")
def test_the_ofac_list_of_july_2021_is_read() -> None:
    made = read(DATA / "ofac" / "sdn.csv")
    by_id = {entity.id: entity for entity in made.entities}
    assert (made.format, made.entries, len(by_id)) == ("ofac-csv", 8_976, 8_976)
    schemata = [entity.schema for entity in made.entities]
    assert {name: schemata.count(name) for name in set(schemata)} == {
        "Person": 4_620,
        "Organization": 3_673,
        "Vessel": 406,
        "Airplane": 277,
    }
    assert {note.reason for note in made.notes} == {"unknown_country", "incomplete_remarks"}
    assert sum(len(entity.names) for entity in made.entities) > 20_000
    assert by_id["306"].names == ("BANCO NACIONAL DE CUBA", "NATIONAL BANK OF CUBA")
    assert by_id["306"].weak_names == ("BNC",)
    assert by_id["306"].countries[0] == "CH"
    assert by_id["32391"].names[0] == "Ousmane Illiassou DJIBO"
    assert "Halid Illiassou DJIBO" in by_id["32391"].names
    assert by_id["32391"].birth_dates == ("1984",)
    assert by_id["32391"].countries == ("ML", "NE")
    assert "Aboubacar CHAPORI" in by_id["32391"].weak_names
    kinds = [number.kind for entity in made.entities for number in entity.identifiers]
    assert kinds.count("passport") > 1_500
    assert kinds.count("imo") > 470


@pytest.mark.skipif(not (DATA / "un").is_dir(), reason="the UN list is not there (shared/data/un)")
def test_the_un_list_of_february_2026_is_read() -> None:
    made = read(DATA / "un" / "consolidated.xml")
    by_id = {entity.id: entity for entity in made.entities}
    schemata = [entity.schema for entity in made.entities]
    assert (made.format, made.published, made.entries) == ("un-xml", "2026-02-27", 1_003)
    assert (schemata.count("Person"), schemata.count("Organization")) == (730, 273)
    assert sum(note.count for note in made.notes) <= 3
    assert by_id["CDi.001"].names == ("ERIC BADEGE",)
    assert by_id["CDi.001"].birth_dates == ("1971",)
    assert by_id["CDi.001"].countries == ("CD", "RW")
    assert by_id["CDi.003"].weak_names == ("Rumuli",)
    assert "Byiringiro Victor Rumuli" in by_id["CDi.003"].names
    assert sum(not name.isascii() for entity in made.entities for name in entity.names) > 370
