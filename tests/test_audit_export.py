"""An export holds every entry, and nothing in one can break its line or begin a formula."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import msgspec
import pytest
from audited import noted
from hypothesis import given
from hypothesis import strategies as st
from memorytrail import MemoryTrail

from app import ids
from app.audit.export import COLUMNS, ENTRIES_A_PAGE, Format, export, safe_cell
from app.audit.lines import line
from app.store.trail import act


def exported(trail: MemoryTrail, form: Format, *tenants: str, **times: int) -> str:
    async def read() -> bytes:
        return b"".join([piece async for piece in export(trail, tenants, form, **times)])

    return asyncio.run(read()).decode("utf-8")


def test_an_export_holds_every_entry_newest_first_trail_by_trail() -> None:
    trail = MemoryTrail()
    many = 2 * ENTRIES_A_PAGE + 1
    asyncio.run(noted(trail, "acme", many))
    asyncio.run(noted(trail, "zeta", 2))
    documents = [json.loads(each) for each in exported(trail, "jsonl", "acme", "zeta").splitlines()]
    assert [(one["tenant_id"], one["number"]) for one in documents] == [
        *[("acme", number) for number in range(many, 0, -1)],
        ("zeta", 2),
        ("zeta", 1),
    ]
    last = trail.shelf.entries[-1]
    assert documents[-2] == {
        "tenant_id": "zeta",
        "at": documents[-2]["at"],
        "act": "audit.exported",
        "actor": "cli",
        "detail": {"number": 1},
        "subjects": [],
        "segment": ids.text(last.segment),
        "number": 2,
        "previous": last.previous.hex(),
        "hash": last.hash.hex(),
    }
    assert documents[-2]["at"].endswith("Z")
    rows = list(csv.DictReader(io.StringIO(exported(trail, "csv", "acme", "zeta"), newline="")))
    assert [
        {**row, "number": int(row["number"]), "detail": json.loads(row["detail"]), "subjects": []} for row in rows
    ] == (documents)


def test_an_export_can_be_of_some_time() -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme", 3))
    for number, entry in enumerate(trail.shelf.entries):
        trail.shelf.entries[number] = msgspec.structs.replace(entry, at_ms=1000 * number)
    text = exported(trail, "jsonl", "acme", since_ms=1000, before_ms=2000)
    assert [json.loads(each)["at"] for each in text.splitlines()] == ["1970-01-01T00:00:01.000Z"]
    assert exported(trail, "jsonl", "nobody") == ""
    assert exported(trail, "csv", "nobody") == ",".join(COLUMNS) + "\r\n"


HOSTILE = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@\t\r\n\0\x7f\x85\u2028\x1b'\""))


@given(HOSTILE, HOSTILE, HOSTILE)
def test_whatever_is_in_an_entry_it_is_one_line_of_json(tenant_id: str, actor: str, fact: str) -> None:
    trail = MemoryTrail()
    asyncio.run(trail.note([act(tenant_id, "role.refused", actor, (b"s" * 16,), fact=fact)]))
    text = exported(trail, "jsonl", tenant_id)
    assert text.endswith("\n")
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    document = json.loads(text)
    assert (document["tenant_id"], document["actor"], document["detail"]["fact"]) == (tenant_id, actor, fact)
    assert document["subjects"] == [ids.text(b"s" * 16)]


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_cell_of_a_csv_begins_a_formula(tenant_id: str, actor: str, fact: str) -> None:
    trail = MemoryTrail()
    asyncio.run(trail.note([act(tenant_id, "role.refused", actor, fact=fact)]))
    header, row = csv.reader(io.StringIO(exported(trail, "csv", tenant_id), newline=""))
    assert header == list(COLUMNS)
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    told = dict(zip(header, row, strict=True))
    assert told["actor"] in (actor, f"'{actor}")
    assert json.loads(told["detail"]) == {"fact": fact}


def test_only_what_could_begin_a_formula_is_quoted() -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "acme", "a=1", "", "'", " ="]
    assert [safe_cell(cell) for cell in cells] == [f"'{cell}" for cell in cells[:6]] + cells[6:]


def test_a_detail_that_is_no_json_any_more_is_exported_as_its_text() -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme"))
    trail.shelf.entries[0] = msgspec.structs.replace(trail.shelf.entries[0], detail=b'{"a": \xff\n')
    assert json.loads(exported(trail, "jsonl", "acme"))["detail"] == '{"a": \\xff\n'
    assert '"{""a"": \\xff' in exported(trail, "csv", "acme")


@pytest.mark.parametrize("at_ms", [2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_ends_no_export(at_ms: int) -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme", 2))
    trail.shelf.entries[0] = msgspec.structs.replace(trail.shelf.entries[0], at_ms=at_ms)
    assert len(exported(trail, "jsonl", "acme").splitlines()) == 2


def test_a_line_is_plain_ascii() -> None:
    assert line({"a": "\x7f\n\x1b\u2028ä"}) == '{"a":"\\u007f\\n\\u001b\\u2028\\u00e4"}'
