"""What `kyb score` reads: JSON, NDJSON and CSV, and everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from app import wire
from app.cli.cells import columns
from app.cli.commands import kyb
from app.cli.documents import ndjson
from app.cli.formats import read
from app.cli.sheet import sheet
from app.cli.source import Row, Source

LIMIT = 1 << 20
LEAST = {"business": {"name": "Acme", "jurisdiction": "DE"}}
HEAD = "business.name,business.jurisdiction"


def score(path: Path, *options: str) -> Result:
    return CliRunner().invoke(kyb, ["score", str(path), "--json", *options])


def written(tmp_path: Path, content: str | bytes, name: str = "in.json") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(tmp_path: Path, content: str | bytes, name: str = "in.csv") -> list[Row]:
    with Source(str(written(tmp_path, content, name))) as source:
        return [row for rows in read(source, None, LIMIT).rows for row in rows]


def profile_of(tmp_path: Path, header: str, row: str) -> wire.Profile:
    (only,) = rows_of(tmp_path, f"{HEAD},{header}\nAcme,DE,{row}\n")
    assert only.refusal is None, only.refusal.faults
    assert only.profile is not None
    return only.profile


def faults_of(tmp_path: Path, header: str, row: str) -> dict[str, str]:
    (only,) = rows_of(tmp_path, f"{HEAD},{header}\nAcme,DE,{row}\n")
    assert only.refusal is not None
    return {fault.pointer: fault.detail for fault in only.refusal.faults}


# JSON


@pytest.mark.parametrize(
    "document",
    [LEAST, [LEAST, LEAST], {"items": [LEAST, LEAST, LEAST]}, [], {"items": []}],
    ids=["one", "list", "items", "empty list", "no items"],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_profile_or_many_in_a_document(tmp_path: Path, document: Any, indent: int | None) -> None:
    done = score(written(tmp_path, json.dumps(document, indent=indent)))
    wanted = 1 if document is LEAST else len(document["items"] if isinstance(document, dict) else document)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, wanted)


def test_a_bad_item_has_the_line_it_begins_on(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"items": [LEAST, {"business": {}}, LEAST, 7]}, indent=1))
    done = score(path)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 2
    lines = path.read_text().splitlines()
    places = [int(told.split(":")[1]) for told in done.stderr.splitlines() if told.startswith(str(path))]
    assert [lines[place - 1].strip()[0] for place in places] == ["{", "{", "7"]


UNREADABLE = {
    "empty": (b"", "empty"),
    "blank": (b" \n ", "empty"),
    "not JSON": (b"hello", "not JSON"),
    "cut off": (b'{"business": {"name": "A"', "ends before"),
    "bad UTF-8": (b'{"business": {"name": "\xff", "jurisdiction": "DE"}}', "not UTF-8"),
    "BOM": (b'\xef\xbb\xbf{"business": {"name": "A", "jurisdiction": "DE"}}', "byte order mark"),
    "UTF-16": ('{"business": 1}'.encode("utf-16"), "byte order mark"),
    "NaN": (b'{"signals": {"litigation_count": NaN}}', "NaN and Infinity are not JSON"),
    "two documents on a line": (b'{"business": 1} {"business": 2}', "not JSON"),
    "extra beside items": (b'{"items": [], "limit": 3}', 'unknown field "limit"'),
    "items twice": (b'{"items": [], "items": []}', "stands twice"),
    "items no list": (b'{"items": 3}', "must be a list"),
}


@pytest.mark.parametrize(("content", "words"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_document_that_cannot_be_read_ends_with_2(tmp_path: Path, content: bytes, words: str) -> None:
    done = score(written(tmp_path, content))
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


BUSINESS = '{"business": {"name": "A", "jurisdiction": "DE"%s}%s}'
REFUSED = {
    "duplicate key": (BUSINESS % (', "name": "B"', ""), 'the key "name" stands twice'),
    "depth": (BUSINESS % ("", ', "x": ' + "[" * 40 + "]" * 40), "nested more than 32 deep"),
    "NUL": (BUSINESS % (', "id": "a\\u0000"', ""), "NUL"),
    "unknown field": (BUSINESS % (', "employes": 3', ""), "did you mean employees?"),
    "wrong type": (BUSINESS % (', "employees": "three"', ""), "/business/employees"),
    "1e400": (BUSINESS % ("", ', "financials": {"current": {"revenue": 1e400}}'), "/financials/current/revenue"),
    "5,000 digits": (BUSINESS % (f', "employees": {"9" * 5000}', ""), "/business/employees"),
    "future date": (BUSINESS % (', "incorporated_on": "2999-01-01"', ""), "/business/incorporated_on"),
    "impossible date": (BUSINESS % (', "incorporated_on": "2020-02-30"', ""), "/business/incorporated_on"),
    "unknown country": ('{"business": {"name": "A", "jurisdiction": "XX"}}', '"XX" is not an ISO 3166-1'),
    "unknown industry": (BUSINESS % (', "industry": {"scheme": "nace", "code": "00.99"}', ""), "/business/industry"),
    "shares": (
        BUSINESS % ("", ', "ownership": {"owners": [{"name": "a", "share_pct": 60}, {"name": "b", "share_pct": 41}]}'),
        "/ownership/owners",
    ),
    "nothing": ("{}", "/business: required, but missing"),
    "a number": ("7", "expected an object"),
    "over 1 MiB": (BUSINESS % (', "legal_form": "' + "x" * LIMIT + '"', ""), "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("name", ["in.json", "in.ndjson"])
def test_a_profile_is_refused_for_what_the_service_refuses(tmp_path: Path, text: str, words: str, name: str) -> None:
    done = score(written(tmp_path, text, name))
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr) < 500


@pytest.mark.parametrize(("content", "words"), list(UNREADABLE.values())[2:8], ids=list(UNREADABLE)[2:8])
def test_an_unreadable_line_is_one_refused_row(tmp_path: Path, content: bytes, words: str) -> None:
    good = json.dumps(LEAST).encode()
    if content.startswith(b"\xff\xfe"):
        content = content.replace(b"\n", b"")
    done = score(written(tmp_path, good + b"\n" + content + b"\n" + good, "in.ndjson"))
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 2)
    assert "in.ndjson:2: " in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("name", ["-", "in.txt", "in.json"])
def test_what_the_input_is_shows_in_its_beginning(tmp_path: Path, name: str) -> None:
    line = json.dumps(LEAST)
    for content, count in (
        (line, 1),
        (json.dumps(LEAST, indent=2), 1),
        (f"\n{line}\n{line}\r\n\n{line}", 3),
        (f"[{line},\n{line}]", 2),
    ):
        path = name if name == "-" else str(written(tmp_path, content, name))
        done = CliRunner().invoke(kyb, ["score", path, "--json"], input=content)
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, count)
    if name != "in.json":
        content = f"{HEAD}\nA,DE\nB,FR\n"
        path = name if name == "-" else str(written(tmp_path, content, name))
        assert len(CliRunner().invoke(kyb, ["score", path, "--json"], input=content).stdout.splitlines()) == 2


def test_lines_are_split_alike_however_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b"%d " % place + b"x" * (place * 7 % 50) + b"\n" for place in range(200)) + b"last"
    path = written(tmp_path, content)
    for block in (1, 3, 64, 100_000):
        monkeypatch.setattr("app.cli.source.BLOCK_BYTES", block)
        with Source(str(path)) as source:
            lines = [line for lines in source.lines(1000) for line in lines]
        assert [line.text for line in lines] == content.split(b"\n")
        assert [line.number for line in lines] == list(range(1, 202))


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.source.BLOCK_BYTES", 100)
    path = written(tmp_path, b"x" * 100_000 + b"\n" + json.dumps(LEAST).encode(), "in.ndjson")
    with Source(str(path)) as source:
        assert [len(line.text) for lines in source.lines(1000) for line in lines] == [1002, 52]
    with Source(str(path)) as source:
        first, second = (row for rows in ndjson(source, 1000) for row in rows)
    assert first.refusal is not None
    assert (second.line, second.refusal) == (2, None)


# CSV


def test_cells_are_typed_by_their_fields(tmp_path: Path) -> None:
    profile = profile_of(
        tmp_path,
        "business.registration_number,business.employees,business.cash_intensive,business.incorporated_on,"
        "business.industry.scheme,business.industry.code,financials.current.revenue,financials.listed",
        "0042,57,TRUE,2009-05-01,nace,46.90,-1234.5,no",
    )
    assert profile.business.registration_number == "0042"
    assert profile.business.employees == 57
    assert profile.business.cash_intensive is True
    assert str(profile.business.incorporated_on) == "2009-05-01"
    assert profile.business.industry == wire.Industry("nace", "46.90")
    assert profile.financials is not None
    assert profile.financials.current is not None
    assert (profile.financials.current.revenue, profile.financials.listed) == (-1234.5, False)


@pytest.mark.parametrize(
    ("cell", "value"), [("57", 57), ("57.0", 57), ("+5", 5), (" 7 ", 7), ("1e3", 1000), ("0", 0), ("007", 7)]
)
def test_whole_numbers(tmp_path: Path, cell: str, value: int) -> None:
    assert profile_of(tmp_path, "business.employees", cell).business.employees == value


@pytest.mark.parametrize(
    ("cell", "value"), [("true", True), ("YES", True), ("1", True), ("False", False), ("0", False)]
)
def test_flags(tmp_path: Path, cell: str, value: bool) -> None:
    assert profile_of(tmp_path, "business.is_shell_bank", cell).business.is_shell_bank is value


@pytest.mark.parametrize("cell", ["", "   "])
def test_an_empty_cell_is_a_missing_answer(tmp_path: Path, cell: str) -> None:
    profile = profile_of(tmp_path, "business.employees,signals.litigation_count", f"{cell},{cell}")
    assert profile == msgspec.convert(LEAST, wire.Profile)


@pytest.mark.parametrize("text", ["NO", "true", "12", "null", "NA"])
def test_text_stays_text(tmp_path: Path, text: str) -> None:
    assert profile_of(tmp_path, "business.legal_form", text).business.legal_form == text


@pytest.mark.parametrize(
    ("cell", "value"), [("DE;PL", ["DE", "PL"]), ("DE | PL", ["DE", "PL"]), ("DE", ["DE"]), ("[]", []), ("", None)]
)
def test_lists_in_a_cell(tmp_path: Path, cell: str, value: list[str] | None) -> None:
    assert profile_of(tmp_path, "business.operating_countries", cell).business.operating_countries == value


def test_lists_by_number(tmp_path: Path) -> None:
    header = "ownership.owners.0.name,ownership.owners.0.share_pct,ownership.owners[2].name,ownership.owners[2].is_pep"
    ownership = profile_of(tmp_path, header, "Ann,60,Bob,false").ownership
    assert ownership is not None
    assert ownership.owners == [wire.Owner("Ann", share_pct=60.0), wire.Owner("Bob", is_pep=False)]
    assert profile_of(tmp_path, header, ",,,").ownership is None
    empty = profile_of(tmp_path, "ownership.directors", "[]").ownership
    assert empty is not None
    assert empty.directors == []


def test_bad_cells_are_named_by_column(tmp_path: Path) -> None:
    header = "business.employees,business.cash_intensive,business.status,ownership.owners.1.share_pct"
    found = faults_of(tmp_path, header, "many,maybe,actve,120")
    assert found.keys() == {
        "/business/employees",
        "/business/cash_intensive",
        "/business/status",
        "/ownership/owners/1/share_pct",
        "/ownership/owners/1/name",
    }
    assert 'got "many"' in found["/business/employees"]
    assert "did you mean active?" in found["/business/status"]
    path = written(tmp_path, f"{HEAD},{header}\nA,DE,,,,\nB,DE,many,,,120\n", "rows.csv")
    told = score(path).stderr.splitlines()
    assert told[0].startswith(f"{path}:3: business.employees: expected a number")
    assert any(line.startswith(f"{path}:3: ownership.owners.1.share_pct: ") for line in told)


def test_what_only_the_model_refuses_is_named_by_column(tmp_path: Path) -> None:
    header = "business.incorporated_on,ownership.owners.3.name,ownership.owners.3.country"
    path = written(tmp_path, f"{HEAD},{header}\nA,DE,2999-01-01,Ann,XX\n", "rows.csv")
    done = score(path)
    assert done.exit_code == 1
    assert f"{path}:2: business.incorporated_on: " in done.stderr
    assert f"{path}:2: ownership.owners.3.country: " in done.stderr


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("1.234,56", "a point for decimals"),
        ("1 234", "a point for decimals"),
        ("NaN", "leave the cell empty"),
        ("n/a", "leave the cell empty"),
        ("1e400", "finite"),
        ("0x10", "expected a number"),
        ("9" * 5000, "expected a number"),
        ("1e16", "-1,000,000,000,000,000 to 1,000,000,000,000,000"),
    ],
)
def test_numbers_that_are_none(tmp_path: Path, cell: str, words: str) -> None:
    found = faults_of(tmp_path, "financials.current.revenue", f'"{cell}"')
    assert words in found["/financials/current/revenue"]
    assert len(found["/financials/current/revenue"]) < 200


@pytest.mark.parametrize("cell", ["57.5", "-1", "12345678901234567890"])
def test_whole_numbers_that_are_none(tmp_path: Path, cell: str) -> None:
    assert faults_of(tmp_path, "business.employees", cell).keys() == {"/business/employees"}


HEADERS = {
    "unknown": (f"{HEAD},business.employes", "did you mean business.employees?"),
    "twice": (f"{HEAD},business.name", "stands twice"),
    "a group": (f"{HEAD},financials.current", "is a group"),
    "an owner": (f"{HEAD},ownership.owners.0", "is a group"),
    "no name": ("business.jurisdiction", '"business.name" is missing'),
    "an empty one": ("business.name,,business.jurisdiction", "column 2 has no name"),
    "two ways": (f"{HEAD},business.aliases,business.aliases.0", "keep one way"),
    "too many": (f"{HEAD},ownership.owners.500.name", "counts beyond 499"),
    "evidence": (f"{HEAD},evidence.screening.status", "unknown column"),
    "open quote": ('business.name,"business.jurisdiction', "closes it"),
    "data only": ("Acme,DE", "unknown column"),
}


@pytest.mark.parametrize(("header", "words"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_cannot_be_used_ends_with_2(tmp_path: Path, header: str, words: str) -> None:
    done = score(written(tmp_path, f"{header}\nAcme,DE,1\n", "in.csv"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "in.csv:1: " in done.stderr


def test_all_faults_of_a_header_are_told_at_once() -> None:
    assert len(columns(["business.nam", "x", "x", ""])[1]) == 6


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_spreadsheets_write_csv_in_many_ways(tmp_path: Path, delimiter: str, ending: str, mark: bytes) -> None:
    lines = [
        ["business.name", "business.jurisdiction", "business.employees"],
        ['"A ""B"", C"', "DE", "3"],
        ["D", "FR", ""],
    ]
    content = mark + ending.join(delimiter.join(line) for line in lines).encode()
    first, second = rows_of(tmp_path, content)
    assert first.profile is not None
    assert second.profile is not None
    assert (first.profile.business.name, first.profile.business.employees) == ('A "B", C', 3)
    assert second.profile.business.jurisdiction == "FR"


def test_empty_rows_and_trailing_columns_are_passed_over(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, f"\n{HEAD},,\nA,DE,,\n\n,,,\n  \nB,FR\nC,PL,,,,\n")
    assert [(row.line, row.refusal) for row in rows] == [(3, None), (7, None), (8, None)]


def test_a_header_alone_is_an_empty_list(tmp_path: Path) -> None:
    done = score(written(tmp_path, HEAD, "in.csv"))
    assert (done.exit_code, done.stdout) == (0, "")
    assert score(written(tmp_path, "", "in.csv")).exit_code == 2
    assert score(written(tmp_path, HEAD.encode("utf-16"), "in.csv")).exit_code == 2


BAD_ROWS = {
    "too few cells": ("B", "1 cells"),
    "too many cells": ("B,DE,3,4", "4 cells"),
    "open quote": ('"B,DE,3', "none closes it"),
    "after a quote": ('"B"x,DE,3', "after its closing quotation mark"),
    "NUL": ("B\0,DE,3", "NUL"),
    "Latin-1": (b"B\xe9,DE,3", "not UTF-8"),
    "large": ("B" * (LIMIT + 10) + ",DE,3", "larger than 1,048,576 bytes"),
    "large in sum": (",".join(["B" * (LIMIT // 2)] * 3), "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("row", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_costs_that_row_only(tmp_path: Path, row: str | bytes, words: str) -> None:
    text = row if isinstance(row, bytes) else row.encode()
    content = f"{HEAD},business.employees\nA,DE,1\n".encode() + text + b"\nC,DE,3\nD,DE,4\n"
    done = score(written(tmp_path, content, "in.csv"))
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 3
    assert "in.csv:3: " in done.stderr
    assert words in done.stderr


def test_rows_know_their_first_line(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, f'{HEAD}\n"A\n\nB",DE\n"C",DE\n')
    assert [row.line for row in rows] == [2, 5]
    assert rows[0].profile is not None
    assert rows[0].profile.business.name == "A\n\nB"


def test_rows_are_alike_however_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"{HEAD},business.aliases\n" + "".join(f'"A\n{place}",DE,"é;{place}"\n' for place in range(50))
    path = written(tmp_path, content, "in.csv")
    for block in (1, 7, 100_000):
        monkeypatch.setattr("app.cli.source.BLOCK_BYTES", block)
        with Source(str(path)) as source:
            rows = [row for rows in sheet(source, LIMIT) for row in rows]
        assert [row.profile and row.profile.business.aliases for row in rows] == [["é", str(n)] for n in range(50)]
