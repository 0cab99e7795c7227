"""What the server lets through, and what it refuses so that the edge need not look for it: raw bytes to a bare
application that answers with what it was handed."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service import Answer, Wire, exchange, free_port

START_LIMIT_S = 30.0
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a bare application on the server, which answers what it was handed."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "heads.py"), str(port)], cwd=Path(__file__).parent
    )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            try:
                exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                break
            except OSError:
                time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(START_LIMIT_S)


def head(*lines: bytes, start: bytes = b"GET /x HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines]) + b"\r\n\r\n"


def posted(*lines: bytes, body: bytes = b"") -> bytes:
    return head(*lines, start=b"POST /x HTTP/1.1") + body


def told(port: int, request: bytes) -> dict[str, Any]:
    """What the application makes of a request that the server lets through."""
    answer = exchange(port, request)
    assert answer.status == 200, answer
    return dict(answer.json)


def answered_by_server(port: int, request: bytes) -> Answer | None:
    """The server's own answer, None where it only closes."""
    with Wire(port) as wire:
        try:
            wire.write(request)
            answer = wire.answer()
        except ConnectionError:
            return None
    assert answer.body == b"", answer
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        *(head(b"X: a" + sign + b"b") for sign in (b"\0", b"\r", b"\x01", b"\x0b", b"\x1f", b"\x7f")),
        head(b"X: a", b" b"),
        head(b"X: a\r"),
        *(head(b"X" + sign + b"Y: a") for sign in (b"\0", b" ", b"\t", b"\x01", b"\xff", b"(")),
        head(b"X : a"),
        head(b": a"),
        head(b"Xa"),
        head(host=b" Host: a"),
        *(head(start=b"GET " + target + b" HTTP/1.1") for target in (b"", b"/a b", b"/a\0b", b"/a\xff", b"/<", b"?a")),
        *(head(start=b"GET /x HTTP/" + version) for version in (b"2.0", b"1.2", b"0.9", b"1.01", b"11")),
        head(start=b"GET /x http/1.1"),
        b"GET /x\r\n\r\n",
        head(start=b"GET  /x HTTP/1.1"),
        head(start=b" GET /x HTTP/1.1"),
        head(start=b"CONNECT a:80 HTTP/1.1"),
        head(start=b"CONNECT /x HTTP/1.1"),
        head(start=b"GET /" + b"a" * 70_000 + b" HTTP/1.1"),
        *(posted(b"Content-Length: " + length) for length in (b"", b"-1", b"+3", b"0x3", b"3, 3", b"3 abc")),
        posted(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"),
        *(posted(b"Transfer-Encoding: " + coding) for coding in (b"chunked, gzip", b"identity", b"xchunked")),
        posted(b"Transfer-Encoding: \x0bchunked"),
        posted(CHUNKED, b"Transfer-Encoding: identity"),
        head(CHUNKED, start=b"POST /x HTTP/1.0"),
        head(*(b"X-%d: a" % number for number in range(1000))),
        head(b"X: " + b"a" * 10_000_000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda request: repr(request[:40]),
)  # fmt: skip
def test_the_server_refuses(server: int, request_bytes: bytes) -> None:
    answer = answered_by_server(server, request_bytes)
    assert answer is None or answer.status in (400, 414, 431)
    assert answer is None or answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("request_bytes", "refusal"),
    [
        (head(host=b""), "RequestMalformed"),
        (head(host=b"Host:"), "RequestMalformed"),
        (head(b"Host: a"), "RequestMalformed"),
        (head(host=b"Host: user@a"), "RequestMalformed"),
        (head(host=b"Host: a:99999"), "RequestMalformed"),
        (head(host=b"Host: \xff"), "RequestMalformed"),
        (head(b"Host: b", start=b"GET http://c/x HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET * HTTP/1.1"), "RequestMalformed"),
        (head(start=b"OPTIONS * HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET a:80 HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET x HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /a%00b HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /a%0d%0ab HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /a%ff HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /%ed%a0%80 HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), "RequestMalformed"),
        (head(start=b"GET /" + b"%41" * 3000 + b" HTTP/1.1"), "RequestMalformed"),
        (head(b"X: " + b"a" * 33_000), "HeadersTooLarge"),
        (head(b"X: " + b"a" * 400_000), "HeadersTooLarge"),
        (posted(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), "RequestMalformed"),
        (posted(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), "RequestMalformed"),
        (posted(b"Transfer-Encoding: CHUNKED", body=b"0\r\n\r\n"), "RequestMalformed"),
        *((posted(CHUNKED, body=body), "Disconnected") for body in (
            b"3\nabc\n0\n\n", b"-3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n",
        b"f" * 18 + b"\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n", b"3;a\nabc\r\n0\r\n\r\n", b"3;" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\r\n" + b"T: a\r\n" * 3000 + b"\r\n",
        )),
    ],
    ids=lambda value: repr(value[:40]),
)  # fmt: skip
def test_what_the_server_lets_through_is_refused_here(server: int, request_bytes: bytes, refusal: str) -> None:
    assert told(server, request_bytes)["refused"] == refusal


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(),
        head(start=b"GET /x HTTP/1.0", host=b""),
        head(b"X: a\tb", b"Y: \xff"),
        head(b"X-Odd!#$%&'*+.^_`|~: a"),
        *(head(start=b"GET " + target + b" HTTP/1.1") for target in (b"http://b/x", b"http://b:80/x?y", b"ftp://b/x")),
        head(start=b"GET /x#y HTTP/1.1"),
        head(start=b"GET http://b:80/x HTTP/1.1", host=b""),
        b"\r\n\r\n" + head(),
        head().replace(b"\r\n", b"\n"),
        head(b"X: a\nY: b"),
        head(b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: eA=="),
        head(*(b"X-%d: a" % number for number in range(99))),
    ],
    ids=lambda request: repr(request[:40]),
)  # fmt: skip
def test_what_the_server_makes_plain_is_read_as_such(server: int, request_bytes: bytes) -> None:
    seen = told(server, request_bytes)
    assert (seen["refused"], seen["path"], seen["body"], seen["peer"]) == (None, "/x", "", "127.0.0.1")


@pytest.mark.parametrize(
    "request_bytes",
    [
        posted(b"Content-Length: 3", body=b"abc"),
        posted(b"Content-Length: 03", body=b"abc"),
        posted(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
        posted(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
        posted(CHUNKED, body=b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'),
        posted(CHUNKED, body=b"3\r\nabc\r\n0\r\nHost: evil\r\nX-API-Key: k\r\n\r\n"),
        posted(b"Content-Encoding: gzip", b"Content-Length: 23", body=gzip.compress(b"abc", mtime=0)),
    ],
    ids=range(7),
)
def test_a_body_comes_out_however_it_was_announced(server: int, request_bytes: bytes) -> None:
    seen = told(server, request_bytes)
    assert (seen["refused"], seen["body"]) == (None, "abc")
    assert "x-api-key" not in seen["headers"]
    assert seen["headers"]["host"] == "a"


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_body_announced_twice_over_nothing_is_left_for_a_next_request(server: int, order: int) -> None:
    """The server reads it as chunks, takes the length away and closes: no byte of it becomes a request."""
    announced = [b"Content-Length: 6", CHUNKED][::order]
    with Wire(server) as wire:
        wire.write(posted(*announced, body=b"0\r\n\r\nG") + head(start=b"GET /smuggled HTTP/1.1"))
        answer = wire.answer()
        assert answer.headers["connection"] == "close"
        assert "content-length" not in answer.json["headers"]
        with pytest.raises(ConnectionError):
            wire.answer()


def test_a_thousand_requests_sent_at_once_are_answered_in_order(server: int) -> None:
    with Wire(server) as wire:
        wire.write(b"".join(head(start=b"GET /%d HTTP/1.1" % number) for number in range(1000)))
        assert [wire.answer().json["path"] for _ in range(1000)] == [f"/{number}" for number in range(1000)]
