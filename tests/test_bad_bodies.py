"""A body too large, too slow or oddly cut gets a clear answer and keeps nobody else waiting."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from problems import problem
from rawhttp import head, posted
from service import ANSWER_LIMIT_S, Client, Service, Wire, exchange, named, serving

MIB = 1 << 20


def padded(size: int) -> bytes:
    """A profile that is right, of exactly this many bytes."""
    body = json.dumps(named("Padded Ltd")).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


def chunked(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


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
