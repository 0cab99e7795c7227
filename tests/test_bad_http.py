"""A request that is wrong as HTTP (type, method, path, query, headers) gets a clear answer and harms nobody."""

from __future__ import annotations

import json
import socket

import pytest
from problems import faults, problem
from rawhttp import head, malformed, posted
from service import HOST, KEY, Client, Service, Wire, exchange, named


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
    request = b"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s"
    request %= (KEY.encode(), len(body), body)
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
        "/v1/assessments/%2e%2e%2fhealth",
        "//v1/assessments",
        "/v1//assessments",
        "/v1/assessments/../../health",
        "/v1/assessments//replay",
        "/%F0%9F%92%A9",
        "/" + "a" * 8_000,
        "/v1/assessments/" + "0" * 8_000,
        "/v1/models/" + "%41" * 2500 + "/1",
        "/;",
        "/v1/assessments;x=1",
        "/health/",
    ],
)
def test_an_odd_path_is_404(untouched: Service, caller: Client, path: str) -> None:
    answer = exchange(untouched.port, f"GET {path} HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    problem(answer, 404, "not-found")
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "path",
    ["/%00", "/%ff%fe", "/v1/assessments/%00", "/v1/models/kyb/%ff", "/" + "a" * 40_000, "/v1/" + "%41" * 5000, "*"],
)
def test_what_no_path_can_be_is_400(untouched: Service, caller: Client, path: str) -> None:
    answer = exchange(untouched.port, f"GET {path} HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    problem(answer, 400, "malformed-request")
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


@pytest.mark.parametrize("length_first", [True, False])
def test_of_a_body_announced_twice_over_no_byte_becomes_a_request(untouched: Service, length_first: bool) -> None:
    """The server reads chunks, hides the length from the service, and ends the connection."""
    smuggled = f"GET /v1/keys HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n"
    body = f"0\r\n\r\n{smuggled}"
    announced = [f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"]
    with Wire(untouched.port) as wire:
        wire.write(posted(*(announced if length_first else announced[::-1]), body=body))
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close"), answer
        with pytest.raises(ConnectionError):
            wire.answer()


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
