"""What is sent wrong gets a clear problem and leaves nothing behind; what is set up wrong does not start."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import (
    ANSWER_LIMIT_S,
    HOST,
    ROOT,
    Answer,
    Client,
    Json,
    Service,
    Wire,
    exchange,
    failed_start,
    named,
    serving,
)

MIB = 1 << 20
LIST = b'{"business":{"name":"A","jurisdiction":"DE","aliases":%s}}'


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in which nothing may ever be recorded: each test of this module leaves it empty."""
    with serving(tmp_path_factory.mktemp("untouched")) as running:
        yield running


@pytest.fixture
def caller(untouched: Service) -> Iterator[Client]:
    """A client; afterwards the service must live and hold no record."""
    client = Client(untouched.port)
    yield client
    client.close()
    after = Client(untouched.port)
    assert after.get("/health").status == 200
    listed = after.get("/v1/assessments")
    after.close()
    assert listed.json == {"items": [], "next_cursor": None}


def problem(answer: Answer, status: int, kind: str) -> Json:
    """The problem that an answer must be, with every member of RFC 9457; returned for its words and faults."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json
    assert set(told) - {"errors"} == {"type", "title", "status", "detail", "instance"}
    assert (told["type"], told["status"]) == (f"/problems/{kind}", status)
    assert told["instance"] == answer.headers["x-request-id"]
    assert told["detail"].endswith((".", "!"))
    assert told["title"]
    for fault in told.get("errors", []):
        assert set(fault) == {"pointer", "detail"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
        assert fault["detail"]
    return told


def faults(answer: Answer, kind: str = "invalid-profile") -> dict[str, str]:
    told = problem(answer, 422, kind)["errors"]
    found = {fault["pointer"]: fault["detail"] for fault in told}
    assert len(found) == len(told)
    return found


def with_business(**business: Json) -> Json:
    return named("Wrong Ltd", **business)


def at(path: str, value: Json) -> Json:
    """The least profile with a value put at a pointer; lists are given their first member."""
    profile: Json = named("Wrong Ltd")
    place = profile
    steps = path.strip("/").split("/")
    for step, following in zip(steps, [*steps[1:], ""], strict=True):
        if following == "":
            place[step] = value
        elif following == "0":
            place[step] = [{"name": "Someone"}]
            place = place[step]
        elif step == "0":
            place = place[0]
        else:
            place = place.setdefault(step, {})
    return profile


# Bodies that are no JSON.


@pytest.mark.parametrize("path", ["/v1/assessments", "/v1/assessments/batch"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"{", "complete"),
        (b'{"business": ', "complete"),
        (b"{'business': 1}", "not JSON"),
        (b"business=1", "not JSON"),
        (b"<xml/>", "not JSON"),
        (b'{"business": {}} trailing', "not JSON"),
        (b'{"business": {"name": "A",}}', "not JSON"),
        (b'{"business": {}} {"business": {}}', "not JSON"),
        (b'{"business": {"name": "\xff\xfe", "jurisdiction": "DE"}}', "UTF-8"),
        (b'{"business": {"name": "\xed\xa0\x80", "jurisdiction": "DE"}}', "UTF-8"),
        (b'{"business": {"name": "\xc0\x80", "jurisdiction": "DE"}}', "UTF-8"),
        (b'\xef\xbb\xbf{"business": {"name": "A", "jurisdiction": "DE"}}', "BOM"),
        ('{"business": {}}'.encode("utf-16"), "BOM"),
        (b'{"business": {"name": "\\ud800", "jurisdiction": "DE"}}', ""),
        (b'{"business": {"name": "A\nB", "jurisdiction": "DE"}}', "not JSON"),
        (b'{"business": {"employees": NaN}}', "NaN"),
        (b'{"business": {"employees": Infinity}}', "Infinity"),
        (b'{"business": {"employees": -Infinity}}', ""),
        (b'{"business": {"employees": 01}}', "not JSON"),
        (b'{"business": {"employees": 0x1}}', "not JSON"),
        (b'{"business": {"employees": 1e}}', "not JSON"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"[" * 5000 + b"]" * 5000, "nested"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_body_that_is_no_json_is_400(caller: Client, path: str, body: bytes, words: str) -> None:
    assert words in problem(caller.post(path, body), 400, "unreadable-body")["detail"]


def test_a_null_byte_between_tokens_is_no_json(caller: Client) -> None:
    problem(caller.assess(b'{"business":\0{"name":"A","jurisdiction":"DE"}}'), 400, "unreadable-body")


@pytest.mark.parametrize("depth", [33, 34, 100, 1100, 50_000])
def test_nesting_beyond_32_is_400(caller: Client, depth: int) -> None:
    lists = b"[" * (depth - 2) + b"]" * (depth - 2)
    assert "nested" in problem(caller.assess(LIST % lists), 400, "unreadable-body")["detail"]


def test_nesting_of_32_is_read_and_wrong_for_another_reason(caller: Client) -> None:
    assert list(faults(caller.assess(LIST % (b"[" * 30 + b"]" * 30)))) == ["/business/aliases/0"]


def test_brackets_in_a_text_are_no_nesting(caller: Client) -> None:
    assert caller.assess(named("[{" * 200), dry_run=True).status == 200


def test_an_item_nested_too_deeply_fails_alone(caller: Client) -> None:
    body = b'{"items":[%s,%s]}' % (LIST % (b"[" * 60 + b"]" * 60), json.dumps(named("Right Ltd")).encode())
    told = caller.post("/v1/assessments/batch", body, dry_run=True).json["items"]
    assert [item["status"] for item in told] == [400, 200]
    assert "nested" in told[0]["problem"]["detail"]


# Duplicate keys.


@pytest.mark.parametrize(
    ("body", "pointer", "key"),
    [
        (b'{"business":{"name":"A","name":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (b'{"business":{"name":"A","n\\u0061me":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (b'{"business":{"\\u006eame":"A","\\u006Eame":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (
            b'{"business":{"name":"A","jurisdiction":"DE"},"business":{"name":"B","jurisdiction":"DE"}}',
            "/business",
            "business",
        ),
        (b'{"business":{"name":"A","jurisdiction":"DE"},"business":null}', "/business", "business"),
        (
            b'{"business":{"name":"A","jurisdiction":"DE"},"ownership":{"owners":[{"name":"x"},{"name":"y","name":"y"}]}}',
            "/ownership/owners/1/name",
            "name",
        ),
        (b'{"business":{"name":"A","jurisdiction":"DE"},"x":{"deep":[{"k":1,"k":2}]}}', "/x/deep/0/k", "k"),
        (b'{"business":{"name":"A","jurisdiction":"DE","":1,"":2}}', "/business/", ""),
        (b'{"a/b~c":1,"a\\/b~c":2}', "/a~1b~0c", "a/b~c"),
    ],
)
def test_a_key_given_twice_is_refused_by_name(caller: Client, body: bytes, pointer: str, key: str) -> None:
    found = faults(caller.assess(body))
    assert list(found) == [pointer]
    assert f'"{key}"' in found[pointer]
    assert "twice" in found[pointer]


@pytest.mark.parametrize("keys", [2, 10, 200, 255])
def test_a_key_given_twice_is_found_among_many(caller: Client, keys: int) -> None:
    members = b",".join(b'"k%d":0' % number for number in range(keys))
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"x":{%s,"k0":1}}' % members
    assert list(faults(caller.assess(body))) == ["/x/k0"]


def test_equal_keys_in_different_objects_are_no_duplicates(caller: Client) -> None:
    profile = {**named("A"), "ownership": {"owners": [{"name": "x"}, {"name": "x"}], "directors": [{"name": "x"}]}}
    assert caller.assess(profile, dry_run=True).status == 200


def test_a_key_of_the_batch_given_twice_refuses_the_batch(caller: Client) -> None:
    item = json.dumps(named("A")).encode()
    for body in (b'{"items":[%s],"items":[%s]}' % (item, item), b'{"items":[],"items":[%s]}' % item):
        assert "items" in faults(caller.post("/v1/assessments/batch", body), "invalid-batch")["/items"]


# Numbers, texts, types.


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", "1e999999999", "1.1e15", "-1000000000000001", "9" * 5000, "-" + "9" * 5000, "9" * 5000 + ".0"],
)
def test_a_number_beyond_what_is_accepted_is_refused_where_it_stands(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"financials":{"current":{"ebit":%s}}}' % number.encode()
    found = faults(caller.assess(body))
    assert list(found) == ["/financials/current/ebit"]
    assert len(found["/financials/current/ebit"]) < 300


@pytest.mark.parametrize("number", ["9" * 5000, "1e400", "1.5", "-1", "true", '"5"', "[]", "{}", "1000000001"])
def test_a_count_takes_whole_numbers_only(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE","employees":%s}}' % number.encode()
    assert list(faults(caller.assess(body))) == ["/business/employees"]


@pytest.mark.parametrize("number", ["1e-400", "-0.0", "1E2", "1000000000000000", "5e-324"])
def test_a_number_at_the_edge_is_accepted(caller: Client, number: str) -> None:
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"financials":{"current":{"ebit":%s}}}' % number.encode()
    assert caller.assess(body, dry_run=True, explain="full").status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"business":{"name":"A\\u0000B","jurisdiction":"DE"}}', "/business/name"),
        (b'{"business":{"name":"A","jurisdiction":"DE","aliases":["ok","\\u0000"]}}', "/business/aliases/1"),
        (b'{"business":{"name":"A","jurisdiction":"DE","id":"\\u0000"}}', "/business/id"),
        (b'{"business":{"na\\u0000me":"A","jurisdiction":"DE"}}', "/business"),
        (b'{"business":{"name":"A","jurisdiction":"DE\\u0000"}}', "/business/jurisdiction"),
    ],
)
def test_nul_in_a_text_is_refused(caller: Client, body: bytes, pointer: str) -> None:
    found = faults(caller.assess(body))
    assert any(place.startswith(pointer) for place in found)
    assert any("NUL" in detail for detail in found.values())


def test_an_escaped_backslash_before_u0000_is_no_nul(caller: Client) -> None:
    assert caller.assess(b'{"business":{"name":"A\\\\u0000","jurisdiction":"DE"}}', dry_run=True).status == 200


@pytest.mark.parametrize(
    ("sent", "near"),
    [
        ("busines", "business"),
        ("Business", "business"),
        ("owners", "ownership"),
        ("business/juristiction", "jurisdiction"),
        ("business/legalForm", "legal_form"),
        ("business/incorporated-on", "incorporated_on"),
        ("business/address/postcode", "postal_code"),
        ("financials/current/totalAssets", "total_assets"),
        ("financials/curent", "current"),
        ("ownership/owners/0/share_percent", "share_pct"),
        ("signals/litigation", "litigation_count"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_name(caller: Client, sent: str, near: str) -> None:
    found = faults(caller.assess(at(sent, 1)))
    assert list(found) == [f"/{sent}"]
    assert near in found[f"/{sent}"]


def test_an_unknown_field_that_is_like_none_is_refused_by_name(caller: Client) -> None:
    assert "zzzzqqqq" in faults(caller.assess(at("zzzzqqqq", 1)))["/zzzzqqqq"]


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/business", "Acme"),
        ("/business", []),
        ("/business", None),
        ("/business/name", 5),
        ("/business/name", ""),
        ("/business/name", None),
        ("/business/name", "x" * 513),
        ("/business/aliases", "Acme"),
        ("/business/is_shell_bank", "false"),
        ("/business/is_shell_bank", 0),
        ("/business/employees", "57"),
        ("/business/status", "closed"),
        ("/business/lei", "529900T8BM49AURSDO5"),
        ("/business/address", "Berlin"),
        ("/business/address/kind", "home"),
        ("/business/industry", "46.90"),
        ("/business/id", 42),
        ("/ownership/owners", {}),
        ("/ownership/owners/0/share_pct", "60"),
        ("/ownership/owners/0/share_pct", -0.1),
        ("/ownership/owners/0/share_pct", 100.1),
        ("/ownership/owners/0/kind", "trustee"),
        ("/financials/currency", "EURO"),
        ("/financials/current", 12),
        ("/financials/current/period_months", 0),
        ("/financials/current/total_assets", -1),
        ("/financials/current/total_assets", "1000"),
        ("/signals/adverse_media_severity", "severe"),
        ("/signals/litigation_count", 1.5),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_where_it_stands(
    caller: Client, pointer: str, value: Json
) -> None:
    assert list(faults(caller.assess(at(pointer, value)))) == [pointer]


@pytest.mark.parametrize("document", [[], "text", 5, None, True])
def test_a_document_that_is_no_object_is_refused_whole(caller: Client, document: Json) -> None:
    assert list(faults(caller.assess(document))) == [""]


def test_every_fault_is_listed_and_none_hides_another(caller: Client) -> None:
    found = faults(
        caller.assess(
            {
                "business": {"jurisdiction": 5, "employees": "many", "websit": "x"},
                "ownership": {"owners": [{"name": "A", "is_pep": "no"}, {"share_pct": 5}]},
                "signals": None,
                "extra": 1,
            }
        )
    )
    assert set(found) == {
        "/business/name",
        "/business/jurisdiction",
        "/business/employees",
        "/business/websit",
        "/ownership/owners/0/is_pep",
        "/ownership/owners/1/name",
        "/extra",
    }


def test_a_flood_of_faults_is_cut_at_twenty(caller: Client) -> None:
    told = problem(caller.assess(at("ownership/owners", [{"share_pct": "x"}] * 400)), 422, "invalid-profile")
    assert len(told["errors"]) == 20


def test_thousands_of_unknown_fields_are_answered_shortly(caller: Client) -> None:
    members = b",".join(b'"field_number_%d":1' % number for number in range(30_000))
    answer = caller.assess(b'{"business":{"name":"A","jurisdiction":"DE"},%s}' % members)
    assert len(problem(answer, 422, "invalid-profile")["errors"]) == 20
    assert len(answer.body) < 10_000


# Dates, countries, industries, shares.

DATES = ["/business/incorporated_on", "/ownership/owners/0/birth_date", "/financials/current/period_end"]


@pytest.mark.parametrize("pointer", DATES)
@pytest.mark.parametrize(
    "date",
    [
        "2025-02-29",
        "2025-13-01",
        "2025-00-10",
        "2025-06-31",
        "0000-01-01",
        "10000-01-01",
        "2025-1-1",
        "01.02.2025",
        "2025-01-01T00:00:00Z",
        "20250101",
        "today",
        "",
        20250101,
    ],
)
def test_an_impossible_date_is_refused(caller: Client, pointer: str, date: Json) -> None:
    assert list(faults(caller.assess(at(pointer, date)))) == [pointer]


@pytest.mark.parametrize("pointer", DATES)
def test_a_date_may_lie_one_day_ahead_and_no_more(caller: Client, pointer: str) -> None:
    today = dt.datetime.now(dt.UTC).date()
    # The day may change between here and there: the day after tomorrow plus one is wrong on both.
    assert caller.assess(at(pointer, str(today + dt.timedelta(days=1))), dry_run=True).status == 200
    for ahead in (3, 400, 365 * 7000):
        found = faults(caller.assess(at(pointer, str(today + dt.timedelta(days=ahead)))))
        assert list(found) == [pointer]
        assert "future" in found[pointer]


@pytest.mark.parametrize("country", ["ZZ", "XX", "GER", "de", "Germany", "D", "US-", "ZZ-AB", "EU", "-DE"])
def test_an_unknown_country_is_refused(caller: Client, country: str) -> None:
    assert list(faults(caller.assess(with_business(jurisdiction=country)))) == ["/business/jurisdiction"]


@pytest.mark.parametrize(
    ("country", "instead"), [("SU", "RU"), ("YU", "RS"), ("DD", "DE"), ("CS", "RS"), ("ZR", "CD"), ("TP", "TL")]
)
def test_a_withdrawn_country_is_refused_by_name_with_what_to_use(caller: Client, country: str, instead: str) -> None:
    [detail] = faults(caller.assess(with_business(jurisdiction=country))).values()
    assert country in detail
    assert instead in detail
    assert "withdrawn" in detail


@pytest.mark.parametrize("country", ["UK", "EL", "XK", "US-DE", "GB-SCT"])
def test_a_usual_other_spelling_of_a_country_is_accepted(caller: Client, country: str) -> None:
    assert caller.assess(with_business(jurisdiction=country), dry_run=True).status == 200


@pytest.mark.parametrize(
    "pointer",
    [
        "/business/jurisdiction",
        "/business/address/country",
        "/ownership/owners/0/country",
        "/ownership/directors/0/country",
    ],
)
def test_a_country_is_checked_wherever_it_stands(caller: Client, pointer: str) -> None:
    assert list(faults(caller.assess(at(pointer, "ZZ")))) == [pointer]
    found = faults(caller.assess(with_business(operating_countries=["DE", "ZZ", "PL", "SU"])))
    assert list(found) == ["/business/operating_countries/1", "/business/operating_countries/3"]


@pytest.mark.parametrize(
    ("scheme", "code"),
    [
        ("nace", "00.00"),
        ("nace", "99999"),
        ("naics", "1"),
        ("mcc", "12"),
        ("isic", "ABCD"),
        ("sic", "00"),
        ("nace", "ZZ"),
    ],
)
def test_an_unknown_industry_code_is_refused(caller: Client, scheme: str, code: str) -> None:
    found = faults(caller.assess(with_business(industry={"scheme": scheme, "code": code})))
    assert list(found) == ["/business/industry/code"]
    assert code in found["/business/industry/code"]


def test_an_unknown_scheme_is_refused(caller: Client) -> None:
    found = faults(caller.assess(with_business(industry={"scheme": "nac", "code": "46.90"})))
    assert "nace" in found["/business/industry/scheme"]


@pytest.mark.parametrize(
    ("shares", "accepted"),
    [
        ([60, 40.5], True),
        ([60, 40.51], False),
        ([100, 100], False),
        ([33.5] * 3, True),
        ([100.5 / 500] * 500, True),
        ([0.202] * 500, False),
    ],
)
def test_owners_shares_may_add_up_to_100_and_a_half(caller: Client, shares: list[float], accepted: bool) -> None:
    owners = [{"name": f"Owner {number}", "share_pct": share} for number, share in enumerate(shares)]
    answer = caller.assess(at("ownership/owners", owners), dry_run=True)
    if accepted:
        assert answer.status == 200, answer
    else:
        assert list(faults(answer)) == ["/ownership/owners"]


# Sizes and speed.


def padded(size: int) -> bytes:
    """A profile that is right, of exactly this many bytes."""
    body = json.dumps(named("Padded Ltd")).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


def chunked(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def head(path: str, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: kyb", "Content-Type: application/json", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def test_a_body_of_exactly_one_mib_is_accepted(caller: Client) -> None:
    assert caller.assess(padded(MIB), dry_run=True).status == 200


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 7 * MIB])
@pytest.mark.parametrize("way", ["announced", "chunked"])
def test_a_body_over_one_mib_is_413_and_the_client_reads_it(
    untouched: Service, caller: Client, size: int, way: str
) -> None:
    body = padded(size)
    with Wire(untouched.port) as wire:
        if way == "announced":
            wire.write(head("/v1/assessments", f"Content-Length: {size}") + body)
        else:
            wire.write(head("/v1/assessments", "Transfer-Encoding: chunked") + chunked(body))
        assert "1,048,576" in problem(wire.answer(), 413, "body-too-large")["detail"]


@pytest.mark.parametrize("way", ["announced", "chunked"])
def test_a_batch_over_eight_mib_is_413(untouched: Service, caller: Client, way: str) -> None:
    item = json.dumps(named("Batch Ltd")).encode()
    body = b'{"items":[' + item + b" " * (8 * MIB) + b"]}"
    with Wire(untouched.port) as wire:
        if way == "announced":
            wire.write(head("/v1/assessments/batch", f"Content-Length: {len(body)}") + body)
        else:
            wire.write(head("/v1/assessments/batch", "Transfer-Encoding: chunked") + chunked(body))
        assert "8,388,608" in problem(wire.answer(), 413, "body-too-large")["detail"]


def test_a_batch_of_just_under_eight_mib_is_read(caller: Client) -> None:
    item = json.dumps(named("Batch Ltd")).encode()
    body = b'{"items":[' + item + b" " * (8 * MIB - len(item) - 12) + b"]}"
    assert len(body) == 8 * MIB
    answer = caller.post("/v1/assessments/batch", body, dry_run=True)
    assert [item["status"] for item in answer.json["items"]] == [200]


def test_a_client_that_asks_before_it_sends_gets_its_answer(untouched: Service, caller: Client) -> None:
    with Wire(untouched.port) as wire:
        wire.write(head("/v1/assessments?dry_run=true", f"Content-Length: {MIB}", "Expect: 100-continue"))
        assert b"100" in wire.interim()
        wire.write(padded(MIB))
        assert wire.answer().status == 200


@pytest.mark.parametrize("way", ["wrong type", "wrong path", "wrong method"])
def test_a_refusal_before_the_body_is_read_reaches_a_client_that_sends_a_large_one(
    untouched: Service, caller: Client, way: str
) -> None:
    body = padded(MIB)
    request = head("/v1/assessments", f"Content-Length: {len(body)}") + body
    if way == "wrong type":
        request = request.replace(b"application/json", b"application/toml", 1)
    elif way == "wrong path":
        request = request.replace(b"/v1/assessments", b"/v1/assessment", 1)
    else:
        request = request.replace(b"POST", b"PUT", 1)
    for _ in range(5):
        assert exchange(untouched.port, request).status in (404, 405, 415)


def test_a_body_announced_twice_over_is_read_as_chunks_and_its_connection_closed(
    untouched: Service, caller: Client
) -> None:
    """Otherwise the bytes behind one reading would be the next request in another: request smuggling."""
    with Wire(untouched.port) as wire:
        wire.write(posted("Content-Length: 6", "Transfer-Encoding: chunked", body="0\r\n\r\nGET /health HTTP/1.1\r\n"))
        assert wire.answer().status == 400
        with pytest.raises(ConnectionError):
            wire.answer()


def test_a_chunked_body_in_pieces_of_one_byte_is_put_together(untouched: Service, caller: Client) -> None:
    body = json.dumps(named("Chunked Ltd")).encode()
    request = head("/v1/assessments?dry_run=true", "Transfer-Encoding: chunked") + chunked(body, 1)
    assert exchange(untouched.port, request).status == 200


HASTY = "server: {body_timeout: 200ms, header_timeout: 1s}\n"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits a fifth of a second for a body."""
    with serving(tmp_path_factory.mktemp("hasty"), HASTY) as running:
        yield running
        client = running.client()
        assert client.get("/v1/assessments").json["items"] == []


@pytest.mark.parametrize(
    "started",
    [
        head("/v1/assessments", "Content-Length: 100") + b'{"business":',
        head("/v1/assessments", "Content-Length: 100"),
        head("/v1/assessments", "Transfer-Encoding: chunked") + b"5\r\n{    \r\n",
        head("/v1/assessments", "Transfer-Encoding: chunked") + b"50\r\n{",
        head("/v1/assessments", f"Content-Length: {3 * MIB}") + b"{" + b" " * MIB,
        head("/v1/assessments/batch", "Content-Length: 100") + b"{",
    ],
    ids=["cut", "only announced", "open chunk", "cut chunk", "too large", "batch"],
)
def test_a_body_that_does_not_come_is_408_and_the_connection_ends(hasty: Service, started: bytes) -> None:
    with Wire(hasty.port) as wire:
        wire.write(started)
        answer = wire.answer()
        assert "0.2 s" in problem(answer, 408, "slow-body")["detail"]
        assert answer.headers["connection"] == "close"
        with pytest.raises(ConnectionError):
            wire.answer()


def test_a_body_that_trickles_is_408_however_steadily(hasty: Service) -> None:
    with Wire(hasty.port) as wire:
        wire.write(head("/v1/assessments", "Content-Length: 100000"))
        wire.socket.setblocking(False)
        while True:
            try:
                wire.socket.send(b" ")
                wire.socket.recv(1, socket.MSG_PEEK)
                break
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                # The byte crossed the answer, which came before the connection ended and can still be read.
                break
        wire.socket.settimeout(ANSWER_LIMIT_S)
        problem(wire.answer(), 408, "slow-body")


def test_many_slow_bodies_at_once_do_not_keep_a_quick_one_waiting(hasty: Service) -> None:
    slow = [Wire(hasty.port) for _ in range(50)]
    client = hasty.client()
    try:
        for wire in slow:
            wire.write(head("/v1/assessments", "Content-Length: 100") + b"{")
        assert client.assess(named("Quick Ltd"), dry_run=True).status == 200
        for wire in slow:
            problem(wire.answer(), 408, "slow-body")
    finally:
        for wire in slow:
            wire.close()


def test_a_head_that_does_not_come_ends_the_connection(hasty: Service) -> None:
    with Wire(hasty.port) as wire:
        wire.write(b"POST /v1/assessments HTTP/1.1\r\nHost: k")
        assert wire.socket.recv(1000)[9:12] in (b"", b"408")


# HTTP itself.


@pytest.mark.parametrize(
    "sent",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json; charset=latin-1",
        "multipart/form-data; boundary=x",
        "",
        "json",
        "application/problem+json",
    ],
)
@pytest.mark.parametrize("path", ["/v1/assessments", "/v1/assessments/batch"])
def test_a_body_of_another_type_is_415(caller: Client, path: str, sent: str) -> None:
    answer = caller.post(path, named("Typed Ltd"), {"Content-Type": sent})
    assert "application/json" in problem(answer, 415, "wrong-content-type")["detail"]


def test_a_body_without_a_type_is_415(untouched: Service, caller: Client) -> None:
    body = json.dumps(named("Untyped Ltd")).encode()
    request = b"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    problem(exchange(untouched.port, request), 415, "wrong-content-type")


@pytest.mark.parametrize(
    "sent",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"', "application/json ;"],
)
def test_other_spellings_of_the_type_are_accepted(caller: Client, sent: str) -> None:
    assert caller.assess(named("Typed Ltd"), {"Content-Type": sent}, dry_run=True).status == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/assessments", {"GET", "HEAD", "POST"}),
        ("/v1/assessments/batch", {"POST"}),
        ("/v1/assessments/00000000-0000-7000-8000-000000000000", {"GET", "HEAD"}),
        ("/v1/assessments/00000000-0000-7000-8000-000000000000/replay", {"POST"}),
        ("/v1/models", {"GET", "HEAD"}),
        ("/v1/models/kyb/1.0.0", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
        ("/docs", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW", "post", "OPTIONS", "GET", "POST"])
def test_a_method_that_a_path_does_not_know_is_405_with_those_it_does(
    caller: Client, path: str, allowed: set[str], method: str
) -> None:
    if method in allowed:
        return
    answer = caller.send(method, path)
    problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/%ff%fe",
        "/v1/assessments/%00",
        "/v1/assessments/%2e%2e%2fhealth",
        "/v1/models/kyb/%ff",
        "//v1/assessments",
        "/v1//assessments",
        "/v1/assessments/../../health",
        "/v1/assessments//replay",
        "/%F0%9F%92%A9",
        "/" + "a" * 40_000,
        "/v1/assessments/" + "0" * 10_000,
        "/v1/models/" + "%41" * 5000 + "/1",
        "/;",
        "/v1/assessments;x=1",
        "/health/",
        "*",
    ],
)
def test_an_odd_path_is_404(untouched: Service, caller: Client, path: str) -> None:
    answer = exchange(untouched.port, f"GET {path} HTTP/1.1\r\nHost: kyb\r\n\r\n".encode())
    problem(answer, 404, "not-found")
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "query",
    [
        "explain=",
        "explain=all",
        "explain=top&explain=full",
        "dry_run=yes",
        "dry_run=1",
        "dry_run=TRUE",
        "dryrun=true",
        "x",
        "&&=&",
        "explain=%ff",
        "explain=%00",
        "a=1" * 2000,
        "&".join(f"a{n}=1" for n in range(40)),
    ],
)
def test_an_odd_query_is_422_or_without_effect(caller: Client, query: str) -> None:
    answer = caller.post(f"/v1/assessments?{query}", named("Queried Ltd") if query != "&&=&" else {})
    found = faults(answer, "invalid-parameter")
    assert all(place.startswith("/query") for place in found)


def malformed(*lines: str, body: str = "") -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def posted(*headers: str, body: str = "{}") -> bytes:
    return malformed("POST /v1/assessments HTTP/1.1", "Host: a", "Content-Type: application/json", *headers, body=body)


@pytest.mark.parametrize(
    ("request_bytes", "words"),
    [
        (malformed("GET /health HTTP/1.1"), "Host"),
        (malformed("GET /health HTTP/1.1", "Host:"), "Host"),
        (malformed("GET /health HTTP/1.1", "Host: a", "Host: b"), "host"),
        (malformed("GET /health HTTP/1.1", "Host: a", "Host: a"), "host"),
        (posted("Content-Type: text/plain", "Content-Length: 2"), "content-type"),
        (posted("Idempotency-Key: a", "Idempotency-Key: b", "Content-Length: 2"), "idempotency-key"),
        (posted("Transfer-Encoding: chunked", body="zz\r\n{}\r\n0\r\n\r\n"), "broke off"),
    ],
)
def test_what_breaks_http_is_400(untouched: Service, caller: Client, request_bytes: bytes, words: str) -> None:
    assert words in problem(exchange(untouched.port, request_bytes), 400, "malformed-request")["detail"]


def test_a_body_that_ends_before_its_announced_length_is_400(untouched: Service, caller: Client) -> None:
    with Wire(untouched.port) as wire:
        wire.write(head("/v1/assessments", "Content-Length: 1000") + json.dumps(named("Short Ltd")).encode())
        wire.socket.shutdown(socket.SHUT_WR)
        problem(wire.answer(), 400, "malformed-request")


# The server refuses these before the application sees them: without words, and without doing anything.
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (posted("Content-Length: many"), 400),
        (posted("Content-Length: -1"), 400),
        (posted("Content-Length: 2", "Content-Length: 3"), 400),
        (posted("Content-Length: 99999999999999999999999"), 400),
        (malformed("nonsense"), 400),
        (malformed("GET /h\xffealth HTTP/1.1", "Host: a"), 400),
        (malformed("GET /health HTTP/9.9", "Host: a"), 400),
        (malformed("GET /" + "a" * 70_000 + " HTTP/1.1", "Host: a"), 414),
        (malformed("GET /health HTTP/1.1", "Host: a", "X-Big: " + "a" * 1_000_000), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00" * 100, 400),
    ],
    ids=range(11),
)
def test_what_is_no_http_at_all_is_refused_by_the_server(
    untouched: Service, caller: Client, request_bytes: bytes, status: int
) -> None:
    with Wire(untouched.port) as wire:
        wire.write(request_bytes)
        try:
            assert wire.answer().status == status
        except ConnectionResetError:
            # The server does not read on once it has refused; what still was on its way then resets the connection.
            assert len(request_bytes) > 500_000


@pytest.mark.parametrize(
    "headers", [["X-Big: " + "a" * 33_000], [f"X-Many-{n}: {'a' * 1000}" for n in range(40)]], ids=["big", "many"]
)
def test_headers_over_32_kib_are_431(untouched: Service, caller: Client, headers: list[str]) -> None:
    problem(exchange(untouched.port, malformed("GET /health HTTP/1.1", "Host: a", *headers)), 431, "headers-too-large")


def test_requests_sent_one_behind_the_other_are_answered_in_order(untouched: Service, caller: Client) -> None:
    good = json.dumps(named("Pipelined Ltd")).encode()
    bad = b"{"
    requests = [(good, 200), (bad, 400), (good, 200), (bad, 400)]
    with Wire(untouched.port) as wire:
        for body, _ in requests:
            wire.write(head("/v1/assessments?dry_run=true", f"Content-Length: {len(body)}") + body)
        assert [wire.answer().status for _ in requests] == [status for _, status in requests]


def test_a_client_that_leaves_at_once_harms_nobody(untouched: Service, caller: Client) -> None:
    for cut in (
        b"",
        b"POST",
        head("/v1/assessments", "Content-Length: 50"),
        head("/v1/assessments", "Content-Length: 50") + b"{",
    ):
        for _ in range(20):
            connection = socket.create_connection((HOST, untouched.port))
            connection.sendall(cut)
            # Closed with a reset, so that the service meets it in the middle of its answer.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
    assert caller.get("/health").status == 200


# Starts that fail.


def refused(folder: Path, **settings: str) -> str:
    """What a start that must fail says: on standard error, without a traceback."""
    done = failed_start(folder, **settings)
    assert done.returncode not in (0, -6, -11), done
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.strip(), done
    assert "http://" not in done.stdout, "the service was announced and did not start"
    return done.stderr


def one_sentence(told: str) -> str:
    """Of faults other than lists: one plain line."""
    assert len(told.strip().splitlines()) == 1, told
    assert len(told) < 600
    return told


MODEL_FAULTS = {
    "an unknown key": ("base: 0\n", "base: 0\nbse: 1\n", "bse"),
    "a gap": ('"[1.81, 2.99]", points: 0.80, code: FIN_Z_GREY', '"[1.9, 2.99]", points: 0.80, code: FIN_Z_GREY', "gap"),
    "a cheap missing": ("points: 1.60, code: FIN_Z_MISSING", "points: 0.10, code: FIN_Z_MISSING", "missing"),
    "three decimals": ("points: 0.80, code: FIN_Z_GREY", "points: 0.805, code: FIN_Z_GREY", "decimal"),
    "not finite": ("points: 0.80, code: FIN_Z1_GREY", "points: .nan, code: FIN_Z1_GREY", "nan"),
    "a top band out of reach": ("level: critical, from: 60", "level: critical, from: 101", "critical"),
    "an unknown table": (
        "table: country_risk, of: [business.address.country]",
        "table: country_rsk, of: [business.address.country]",
        "is not a table",
    ),
}
"""What is wrong: a text of the default model, what it becomes, and a word of what is said about it."""


def default_model() -> str:
    return (ROOT / "core" / "models" / "kyb-1.0.0.yaml").read_text(encoding="utf-8")


def test_a_model_file_with_faults_stops_the_start_and_all_are_listed(tmp_path: Path) -> None:
    text = default_model()
    path = tmp_path / "model.yaml"
    for name, (right, wrong, words) in MODEL_FAULTS.items():
        assert text.count(right) == 1, f"{name}: the model no longer holds {right}"
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        told = refused(tmp_path, MODEL_PATH=str(path))
        assert re.search(words, told), f"{name}: {told}"
        assert str(path) in told
    together = [MODEL_FAULTS[name] for name in ("a gap", "a cheap missing", "a top band out of reach")]
    for right, wrong, _ in together:
        text = text.replace(right, wrong)
    path.write_text(text, encoding="utf-8")
    told = refused(tmp_path, MODEL_PATH=str(path))
    assert all(re.search(words, told) for _, _, words in together), told


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0", b"a: [", b"- 1\n- 2\n", b"\0\0\0", b"x: &a [*a]\n", b"5"], ids=range(7)
)
def test_a_file_that_is_no_model_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(content)
    assert str(path) in refused(tmp_path, MODEL_PATH=str(path))


def test_a_model_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert "no-model.yaml" in one_sentence(refused(tmp_path, MODEL_PATH=str(tmp_path / "no-model.yaml")))
    assert "kyb@1.0.0" in one_sentence(refused(tmp_path, MODEL="kyb@9.9.9"))
    refused(tmp_path, MODEL_PATH=str(tmp_path))


def test_a_data_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (str(file / "data"), str(file), "/proc/kyb"):
        told = one_sentence(refused(tmp_path, DATA_DIR=folder))
        assert folder in told
        assert "DATA_DIR" in told


def test_a_used_port_stops_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = one_sentence(refused(tmp_path, PORT=str(port)))
    assert str(port) in told
    assert "in use" in told


def test_a_second_service_on_the_same_port_is_refused_and_the_first_lives_on(
    untouched: Service, caller: Client, tmp_path: Path
) -> None:
    assert "in use" in one_sentence(refused(tmp_path, PORT=str(untouched.port)))
    assert caller.get("/health").status == 200


def database(tmp_path: Path) -> Path:
    """The file of a service that has recorded something and was stopped."""
    with serving(tmp_path / "made") as service:
        client = service.client()
        items = [named("x" * 500)] * 200
        assert client.post("/v1/assessments/batch", {"items": items}).status == 200
        assert service.terminate() == 0
    return tmp_path / "made" / "data" / "kyb.db"


def test_a_database_that_is_none_or_damaged_or_foreign_or_newer_stops_the_start_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    good = database(tmp_path)
    size = good.stat().st_size

    def bend(name: str, change: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        path = Path(shutil.copy(good, folder / "kyb.db"))
        if change:
            with sqlite3.connect(path) as connection:
                connection.execute(change)
            connection.close()
        return path

    cases = {}
    path = bend("garbage", "")
    path.write_bytes(b"This is a letter to the auditor, not a database.\n" * 200)
    cases[path] = "not an SQLite database"
    path = bend("schema-page", "")
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xa5" * 3900
    path.write_bytes(content)
    cases[path] = "damaged"
    path = bend("cut", "")
    path.write_bytes(path.read_bytes()[: size // 3])
    cases[path] = "damaged"
    cases[bend("newer", "PRAGMA user_version = 999")] = "999"
    cases[bend("foreign", "PRAGMA application_id = 42")] = "another program"
    cases[bend("changed", "DROP INDEX assessments_by_outcome")] = "assessments_by_outcome"
    for path, words in cases.items():
        before = path.read_bytes()
        told = one_sentence(refused(tmp_path, DATA_DIR=str(path.parent)))
        assert words in told, f"{path.parent.name}: {told}"
        assert str(path) in told
        assert path.read_bytes() == before, path.parent.name


def test_a_folder_where_the_database_should_be_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data" / "kyb.db").mkdir(parents=True)
    assert "folder" in one_sentence(refused(tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_other_than_loopback_is_refused(tmp_path: Path, host: str) -> None:
    assert "loopback" in refused(tmp_path, HOST=host)


def test_every_fault_of_the_settings_is_listed(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("server: {prot: 8080, body_timeout: soon}\nsevrer: {}\ndatabase: {max_connections: many}\n")
    told = refused(tmp_path, CONFIG_FILE=str(config), WORKERS="none", PORT="99999")
    for words in (
        "prot",
        "port",
        "body_timeout",
        "soon",
        "sevrer",
        "max_connections",
        "many",
        "WORKERS",
        "PORT",
        f"{config}:1",
    ):
        assert words in told, words


def test_a_settings_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refused(tmp_path, CONFIG_FILE=str(tmp_path / "nowhere.yaml"))
