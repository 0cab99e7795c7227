"""A refused body is told all its faults, each at its place; a body that decodes is told none."""

from __future__ import annotations

import copy
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import queries, wire
from app.errors import FAULT_LIMIT, BodyUnreadable, ParameterRefused
from app.faults import decode_faults
from app.queries import AssessQuery, ListQuery, Query, ReadQuery, parse_query

GOOD: dict[str, Any] = {
    "business": {
        "name": "Acme",
        "jurisdiction": "DE",
        "industry": {"scheme": "nace", "code": "46.90"},
        "aliases": ["A", "B"],
        "incorporated_on": "2009-05-01",
    },
    "ownership": {"owners": [{"name": "Maria", "kind": "person", "share_pct": 60.5}], "layers": 1},
    "financials": {"currency": "EUR", "current": {"period_months": 12, "revenue": 1500}, "prior": None},
    "signals": {"adverse_media_severity": "none", "website_verified": True},
}


def found(body: bytes, wire_type: Any = wire.Profile) -> dict[str, str]:
    return {fault.pointer: fault.detail for fault in decode_faults(body, wire_type)}


def changed(path: str, value: bytes) -> bytes:
    """The good profile with the raw JSON `value` at a pointer."""
    document = copy.deepcopy(GOOD)
    *parents, last = path.split("/")[1:]
    node: Any = document
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[int(last) if isinstance(node, list) else last] = msgspec.Raw(value)
    return msgspec.json.encode(document)


def test_a_good_profile_has_no_faults() -> None:
    assert decode_faults(msgspec.json.encode(GOOD), wire.Profile) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"hello", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "trailing comma"),
        (b'{"a": 1} x', "trailing"),
        (b'{"a": 01}', "invalid number"),
        (b'{"a": "\x01"}', "not JSON"),
        (b'{"business": {"name": "Acme"', "ends before"),
        (b'"\xff"', "UTF-8: byte 1"),
        (b'{"business": {"name": "\xc3\x28"}}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "BOM"),
        (b'{"a": NaN}', "NaN and Infinity"),
        (b'{"a": Infinity}', "NaN and Infinity"),
        (b'{"a": -Infinity}', "NaN and Infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\\udc00x"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_what_is_not_json_is_unreadable_and_the_reason_is_said(body: bytes, said: str) -> None:
    with pytest.raises(BodyUnreadable) as caught:
        decode_faults(body, wire.Profile)
    assert said in caught.value.detail
    assert len(caught.value.detail) < 160


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("/business/employees", b"1e400", "whole number from 0 to 1,000,000,000, got 1e400"),
        ("/business/employees", b"9" * 5000, "a number written with 5,000 characters"),
        ("/business/employees", b"5.0", "without a decimal point"),
        ("/business/employees", b'"57"', "without quotation marks"),
        ("/business/employees", b"true", "got true"),
        ("/business/employees", b"-1", "from 0 to"),
        ("/financials/current/revenue", b"1e400", "got 1e400"),
        ("/financials/current/revenue", b"-1e400", "got -1e400"),
        ("/financials/current/revenue", b"9" * 5000, "5,000 characters"),
        ("/financials/current/revenue", b"1.1e15", "from -1,000,000,000,000,000 to 1,000,000,000,000,000"),
        ("/financials/current/revenue", b'"a lot"', "expected a number from -1,000,000,000,000,000 to"),
        ("/financials/current/period_months", b"0", "from 1 to 36"),
        ("/financials/currency", b'"euro"', "ISO 4217"),
        ("/ownership/owners/0/share_pct", b"100.01", "a number from 0 to 100, got 100.01"),
        ("/ownership/owners/0/share_pct", b"{}", "got an object"),
        ("/ownership/owners/0/kind", b'"compnay"', "one of person, company, trust, state"),
        ("/ownership/owners/0/kind", b'"compnay"', "did you mean company?"),
        ("/ownership/owners/0/kind", b"1", "one of person, company, trust, state, got 1"),
        ("/ownership/owners/0", b"null", "an object with name, got null"),
        ("/ownership/owners", b"{}", "a list of at most 500 items, got an object"),
        ("/ownership/owners", b"[" + b",".join([b'{"name":"a"}'] * 501) + b"]", "got 501"),
        ("/ownership", b"[]", "an object, got a list"),
        ("/business/incorporated_on", b'"2025-02-30"', 'a day of the calendar, written YYYY-MM-DD, got "2025-02-30"'),
        ("/business/incorporated_on", b'"01.05.2009"', "YYYY-MM-DD"),
        ("/business/incorporated_on", b'"2009-05-01T00:00:00Z"', "YYYY-MM-DD"),
        ("/business/incorporated_on", b"20090501", "YYYY-MM-DD"),
        ("/business/name", b"null", "1 to 512 characters, got null"),
        ("/business/name", b'""', "1 to 512 characters"),
        ("/business/name", b'"' + b"x" * 513 + b'"', "(513 characters)"),
        ("/business/aliases/1", b"7", "text of 1 to 512 characters, got 7"),
        ("/business/lei", b'"529900T8BM49AURSDO5"', "ISO 17442"),
        ("/business/cash_intensive", b'"yes"', "true or false"),
        ("/business/cash_intensive", b"0", "true or false, got 0"),
        ("/business", b"null", "an object with name and jurisdiction, got null"),
    ],
)
def test_a_wrong_value_is_told_at_its_place_with_what_would_be_right(place: str, value: bytes, said: str) -> None:
    body = changed(place, value)
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(body, type=wire.Profile)
    told = found(body)
    assert list(told) == [place]
    assert said in told[place]
    assert len(told[place]) < 250


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true"])
def test_a_body_that_is_no_object_is_told_at_the_root(body: bytes) -> None:
    assert list(found(body)) == [""]
    assert "expected an object with business" in found(body)[""]


def test_missing_fields_are_told_where_they_should_stand() -> None:
    assert found(b"{}") == {"/business": "required, but missing"}
    assert found(b'{"business": {}}') == {
        "/business/name": "required, but missing",
        "/business/jurisdiction": "required, but missing",
    }


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("/business/juristiction", "jurisdiction"),
        ("/business/incorporatedOn", "incorporated_on"),
        ("/ownership/owners/0/share-pct", "share_pct"),
        ("/ownership/owners/0/Share_Pct", "share_pct"),
        ("/finacials", "financials"),
    ],
)
def test_an_unknown_field_is_told_with_the_nearest_known_name(place: str, near: str) -> None:
    told = found(changed(place, b"1"))
    assert list(told) == [place]
    assert f"did you mean {near}?" in told[place]


def test_an_unknown_field_like_no_other_is_told_with_the_known_ones_where_they_are_few() -> None:
    assert "known here: business, ownership, financials, signals" in found(changed("/zzz", b"1"))["/zzz"]


def test_pointers_escape_tilde_and_slash() -> None:
    assert list(found(b'{"business": {"name": "a", "jurisdiction": "DE"}, "a/b~c": 1}')) == ["/a~1b~0c"]


def test_an_endless_name_is_neither_repeated_nor_pointed_to() -> None:
    told = found(b'{"business": {"name": "a", "jurisdiction": "DE"}, "' + b"k" * 100_000 + b'": 1}')
    assert list(told) == [""]
    assert len(told[""]) < 160


def test_all_faults_are_told_at_once() -> None:
    body = b"""{"business": {"nam": "a", "jurisdiction": "D", "status": "dead", "industry": {"scheme": "x"}},
        "ownership": {"owners": [{"name": "a", "share_pct": 101}, {"name": 3}]}, "extra": [1e400]}"""
    assert list(found(body)) == [
        "/business/name",
        "/business/nam",
        "/business/jurisdiction",
        "/business/status",
        "/business/industry/code",
        "/business/industry/scheme",
        "/ownership/owners/0/share_pct",
        "/ownership/owners/1/name",
        "/extra",
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"items": {}}', "a list of 1 to 1,000 items, got an object"),
        (b'{"items": null}', "a list of 1 to 1,000 items, got null"),
        (b'{"items": []}', "a list of 1 to 1,000 items, got 0"),
        (b'{"items": [' + b",".join([b"{}"] * 1001) + b"]}", "got 1,001"),
        (b"{}", "required, but missing"),
    ],
)
def test_a_batch_without_a_proper_list_is_told_so(body: bytes, said: str) -> None:
    told = found(body, wire.Batch)
    assert list(told) == ["/items"]
    assert said in told["/items"]


def test_an_item_of_a_batch_is_told_within_the_document_sent() -> None:
    assert [f.pointer for f in decode_faults(b"{}", wire.Profile, at="/items/3")] == ["/items/3/business"]


HOSTILE = {
    "unknown fields": b"{" + b",".join(b'"k%d":1' % i for i in range(85_000)) + b"}",
    "unknown fields below": b'{"business":{' + b",".join(b'"k%d":1' % i for i in range(85_000)) + b"}}",
    "wrong items": b'{"business":{"aliases":[' + b",".join([b"1"] * 500_000) + b"]}}",
    "digits": b'{"business":{"employees":' + b"9" * 1_000_000 + b"}}",
    "escapes": b'{"financials":{"current":{"revenue":"' + b"\\u0031" * 170_000 + b'"}}}',
    "name": b'{"' + b"k" * 1_000_000 + b'":1}',
    "large": b'{"business":{"name":7,"website":"' + b"x" * 8_000_000 + b'"}}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_told_at_most_twenty_faults_in_bounded_time(body: bytes) -> None:
    begun = time.process_time()
    told = decode_faults(body, wire.Profile)
    assert time.process_time() - begun < 2  # linear: tens of milliseconds; quadratic would take minutes
    assert 1 <= len(told) <= FAULT_LIMIT
    assert len(msgspec.json.encode(told)) < 10_000


def test_a_body_too_large_to_take_apart_still_gets_its_first_fault() -> None:
    (fault,) = decode_faults(HOSTILE["large"], wire.Profile)
    assert fault.pointer == "/business/name"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=70), inner, max_size=4),
    max_leaves=12,
)


def resolve(document: Any, pointer: str) -> bool:
    """Whether the pointer, or at least all of it but its last step, stands in the document."""
    node = document
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for place, step in enumerate(steps):
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            return isinstance(node, dict) and place == len(steps) - 1
    return True


def agree(document: Any) -> None:
    """Faults are told exactly when msgspec refuses, and their pointers lead somewhere."""
    body = msgspec.json.encode(document)
    told = decode_faults(body, wire.Profile)
    try:
        msgspec.json.decode(body, type=wire.Profile)
    except msgspec.DecodeError:
        assert told
    else:
        assert not told
    assert len(told) <= FAULT_LIMIT
    for fault in told:
        assert resolve(document, fault.pointer), fault
        if "missing" in fault.detail:
            parent, _, name = fault.pointer.rpartition("/")
            assert name in ("business", "name", "jurisdiction", "scheme", "code")
            assert resolve(document, parent)


@given(json_values)
def test_any_json_value_decodes_or_has_faults_that_can_be_found(value: Any) -> None:
    agree(value)


PLACES = [
    "/business/name",
    "/business/jurisdiction",
    "/business/industry/scheme",
    "/business/industry/code",
    "/business/aliases/0",
    "/business/incorporated_on",
    "/business/employees",
    "/ownership/owners",
    "/ownership/owners/0",
    "/ownership/owners/0/share_pct",
    "/ownership/layers",
    "/financials/current/revenue",
    "/financials/current/period_months",
    "/financials/currency",
    "/signals/website_verified",
    "/signals",
]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(PLACES), json_values, min_size=1, max_size=4))
def test_any_change_to_a_good_profile_decodes_or_has_faults_that_can_be_found(changes: dict[str, Any]) -> None:
    document = copy.deepcopy(GOOD)
    for place, value in sorted(changes.items(), reverse=True):
        *parents, last = place.split("/")[1:]
        node: Any = document
        for step in parents:
            node = node[int(step)] if isinstance(node, list) else node.get(step)
            if not isinstance(node, dict | list) or (isinstance(node, list) and not node):
                break
        else:
            node[int(last) if isinstance(node, list) else last] = value
    agree(document)


@given(st.binary(max_size=200))
def test_any_bytes_are_unreadable_or_have_faults(body: bytes) -> None:
    try:
        told = len(decode_faults(body, wire.Profile))
    except BodyUnreadable as refused:
        told = len(refused.detail)
    assert told


# Query parameters


def test_no_query_means_the_defaults() -> None:
    assert parse_query(b"", AssessQuery) == AssessQuery(explain="top", dry_run=False)
    assert parse_query(b"", ListQuery).limit == 50
    assert parse_query(b"", Query) == Query()


def test_parameters_are_read_into_their_types() -> None:
    assert parse_query(b"explain=full&dry_run=true", AssessQuery) == AssessQuery(explain="full", dry_run=True)
    assert parse_query(b"explain=full", ReadQuery).explain == "full"
    read = parse_query(b"business_id=a%2Fb+c&level=high&decision=review&limit=200&cursor=abc", ListQuery)
    assert read == ListQuery(business_id="a/b c", level="high", decision="review", limit=200, cursor="abc")


@pytest.mark.parametrize(
    ("query", "from_ms", "to_ms"),
    [
        (b"from=1970-01-01&to=1970-01-01", 0, 86_400_000),
        (b"from=1970-01-01T00:00:00Z&to=1970-01-01T00:00:01.5Z", 0, 1500),
        (b"from=1970-01-01T01:00:00%2B01:00", 0, None),
        (b"from=1970-01-01T01:00:00+01:00", 0, None),
        (b"from=1969-12-31T23:00:00-01:00", 0, None),
        (b"from=1969-12-31", -86_400_000, None),
        (b"to=9999-12-31", None, 253_402_300_800_000),
        (b"to=9999-12-31T23:59:59-23:59", None, 253_402_300_799_000 + 86_340_000),
    ],
)
def test_moments_are_milliseconds_and_a_day_as_end_is_whole(
    query: bytes, from_ms: int | None, to_ms: int | None
) -> None:
    read = parse_query(query, ListQuery)
    assert (read.from_ms, read.to_ms) == (from_ms, to_ms)


@pytest.mark.parametrize(
    ("query", "query_type", "pointer", "said"),
    [
        (b"explain=ful", AssessQuery, "/query/explain", "one of top, full"),
        (b"dry_run=1", AssessQuery, "/query/dry_run", "true or false"),
        (b"dry_run", AssessQuery, "/query/dry_run", "true or false"),
        (b"dryrun=true", AssessQuery, "/query/dryrun", "did you mean dry_run?"),
        (b"explain=top&explain=full", AssessQuery, "/query/explain", "more than once"),
        (b"limit=0", ListQuery, "/query/limit", "from 1 to 200"),
        (b"limit=201", ListQuery, "/query/limit", "from 1 to 200"),
        (b"limit=" + b"9" * 3000, ListQuery, "/query/limit", "from 1 to 200"),
        (b"limit=1.0", ListQuery, "/query/limit", "whole number"),
        (b"limit=", ListQuery, "/query/limit", "whole number"),
        ("limit=٣".encode(), ListQuery, "/query", "UTF-8"),
        (b"limit=%D9%A3", ListQuery, "/query/limit", "whole number"),
        (b"level=", ListQuery, "/query/level", "low, medium, high, critical"),
        (b"level=severe", ListQuery, "/query/level", "low, medium, high, critical"),
        (b"cursor=", ListQuery, "/query/cursor", "1 to 256"),
        (b"business_id=%00", ListQuery, "/query/business_id", "without NUL"),
        (b"business_id=%ff", ListQuery, "/query", "UTF-8"),
        (b"from=2026-02-30", ListQuery, "/query/from", "a date such as"),
        (b"from=0000-01-01", ListQuery, "/query/from", "a date such as"),
        (b"to=2026-11-23T14:00:00", ListQuery, "/query/to", "with its offset"),
        (b"to=now", ListQuery, "/query/to", "a date such as"),
        (b"x=1", Query, "/query/x", "unknown parameter"),
        (b"&".join([b"a=1"] * 33), Query, "/query", "more than 32"),
        (b"a=" + b"1" * 5000, Query, "/query", "longer than"),
    ],
)
def test_a_wrong_parameter_is_told_at_its_name(query: bytes, query_type: type[Query], pointer: str, said: str) -> None:
    with pytest.raises(ParameterRefused) as caught:
        parse_query(query, query_type)
    (fault,) = caught.value.faults
    assert fault.pointer == pointer
    assert said in fault.detail
    assert len(fault.detail) < 250


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(ParameterRefused) as caught:
        parse_query(b"limit=0&level=x&foo=1", ListQuery)
    assert [fault.pointer for fault in caught.value.faults] == ["/query/limit", "/query/level", "/query/foo"]


@given(st.binary(max_size=100), st.sampled_from([AssessQuery, ReadQuery, ListQuery, Query]))
def test_any_query_is_read_or_refused(raw: bytes, query_type: type[Query]) -> None:
    told: list[wire.Fault] | None = None
    try:
        assert isinstance(parse_query(raw, query_type), query_type)
    except ParameterRefused as refused:
        told = refused.faults
    assert told is None or 1 <= len(told) <= FAULT_LIMIT
    msgspec.json.encode(told)


@pytest.mark.parametrize("raw", [b"a", b"a b", b"!~", b"k" * 255])
def test_a_proper_idempotency_key_is_taken_as_it_is(raw: bytes) -> None:
    assert queries.idempotency_key(raw) == raw.decode()


@pytest.mark.parametrize("raw", [b"", b" a", b"a ", b"a\n", b"\x7f", "ä".encode(), b"k" * 256])
def test_another_idempotency_key_is_refused(raw: bytes) -> None:
    with pytest.raises(ParameterRefused) as caught:
        queries.idempotency_key(raw)
    assert caught.value.faults[0].pointer == "/header/Idempotency-Key"
