"""What a worker keeps of a caller's connection: a small buffer, whatever it once brought."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from outage import memory_bytes
from rawhttp import head, malformed
from service import Service, Wire, named, serving

from app.edge.request import KEPT_BYTES

USUAL = json.dumps(named("Usual Ltd")).encode()
BATCH = "/v1/assessments/batch?dry_run=true"
LARGE_BYTES = 250_000
CONNECTIONS = 300
ROUNDS = 4
KEPT_LIMIT_BYTES = 40_000
"""Of a connection, the allocator's whims included. Buffers that grew with their requests take 90 to 260 kB by then."""


def posted(path: str, body: bytes, *headers: str) -> bytes:
    return head(path, f"Content-Length: {len(body)}", *headers) + body


def batch(size_bytes: int) -> bytes:
    """A batch of one item with blanks before its end."""
    body = b'{"items":[%s]}' % USUAL
    return body[:-1] + b" " * (size_bytes - len(body)) + b"}"


def unwanted(body: bytes) -> bytes:
    """A body that nobody looks at, since nobody may send it."""
    length = f"Content-Length: {len(body)}"
    return (
        malformed("POST /v1/assessments/batch HTTP/1.1", "Host: kyb", "Content-Type: application/json", length) + body
    )


def chunked(body: bytes) -> bytes:
    return head(BATCH, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


USED_AGAIN = {
    "usual": posted("/v1/assessments?dry_run=true", USUAL),
    "batch": posted(BATCH, batch(KEPT_BYTES - 512)),
    "chunked": chunked(batch(KEPT_BYTES - 512)),
    "expanded": posted(BATCH, gzip.compress(batch(LARGE_BYTES)), "Content-Encoding: gzip"),
    "unwanted": unwanted(b"a" * (KEPT_BYTES - 512)),
    "headers": malformed("GET /health HTTP/1.1", "Host: kyb", "X-Much: " + "a" * (KEPT_BYTES - 512)),
}
ENDED = {
    "batch": posted(BATCH, batch(KEPT_BYTES)),
    "chunked": chunked(batch(KEPT_BYTES)),
    "compressed": posted(BATCH, gzip.compress(batch(2 * KEPT_BYTES), 0), "Content-Encoding: gzip"),
    "unwanted": unwanted(b"a" * KEPT_BYTES),
}


@pytest.mark.parametrize("request_bytes", USED_AGAIN.values(), ids=USED_AGAIN)
def test_a_connection_is_used_again_after_what_a_small_buffer_holds(untouched: Service, request_bytes: bytes) -> None:
    with Wire(untouched.port) as wire:
        for _ in range(2):
            wire.write(request_bytes)
            answer = wire.answer()
            assert answer.status in (200, 401)
            assert "connection" not in answer.headers


@pytest.mark.parametrize("request_bytes", ENDED.values(), ids=ENDED)
def test_a_connection_ends_with_the_answer_to_what_it_does_not(untouched: Service, request_bytes: bytes) -> None:
    with Wire(untouched.port) as wire:
        wire.write(request_bytes)
        answer = wire.answer()
        assert answer.status in (200, 401)
        assert answer.headers["connection"] == "close"
        assert wire.socket.recv(1) == b""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose memory nobody else fills."""
    with serving(tmp_path_factory.mktemp("counted")) as service:
        yield service


@pytest.mark.parametrize(
    "large", [posted(BATCH, batch(LARGE_BYTES)), unwanted(b"a" * LARGE_BYTES)], ids=["batch", "unwanted"]
)
def test_what_large_requests_took_is_given_back_while_their_senders_stay(counted: Service, large: bytes) -> None:
    with ExitStack() as stack:

        def connected() -> Wire:
            return stack.enter_context(Wire(counted.port))

        def ask(wire: Wire, request_bytes: bytes) -> Wire:
            wire.write(request_bytes)
            return connected() if wire.answer().headers.get("connection") == "close" else wire

        wires = [ask(connected(), USED_AGAIN["usual"]) for _ in range(CONNECTIONS)]
        before_bytes = memory_bytes(counted)
        for request_bytes in (large, USED_AGAIN["usual"]) * ROUNDS:
            wires = [ask(wire, request_bytes) for wire in wires]
        assert memory_bytes(counted) - before_bytes < CONNECTIONS * KEPT_LIMIT_BYTES
