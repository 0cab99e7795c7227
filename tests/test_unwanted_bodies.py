"""A request that is refused before its body is read: the client sees why, its connection goes on or is said to end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from problems import problem
from rawhttp import malformed
from service import KEY, Service, Wire, serving

from app.edge.request import FORGOTTEN_BYTES, FORGOTTEN_S, KEPT_BYTES

PAUSE_S = 0.02
"""As a network makes it between a head and its body."""

TIMES = 5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("unwanted")) as service:
        yield service


@pytest.fixture(scope="module")
def keys(service: Service) -> dict[str | None, str | None]:
    """By role."""
    return {None: None, "viewer": service.new_key("viewer"), "admin": KEY}


def headed(line: str, key: str | None, length: int, *more: str) -> bytes:
    keyed = [] if key is None else [f"X-API-Key: {key}"]
    return malformed(f"{line} HTTP/1.1", "Host: kyb", *keyed, f"Content-Length: {length}", *more)


def works(wire: Wire) -> bool:
    """Whether the connection is of use."""
    wire.write(malformed("GET /health HTTP/1.1", "Host: kyb"))
    return wire.answer().status == 200


def is_closed(wire: Wire) -> bool:
    try:
        return wire.socket.recv(1) == b""
    except ConnectionResetError:
        return True


CREATE = "POST /v1/assessments"
JSON = "Content-Type: application/json"


REFUSALS = pytest.mark.parametrize(
    ("line", "role", "more", "status"),
    [
        (CREATE, None, JSON, 401),
        (CREATE, "viewer", JSON, 403),
        ("POST /v1/nothing", "admin", JSON, 404),
        ("PUT /v1/assessments", "admin", JSON, 405),
        (CREATE, "admin", "Content-Type: text/plain", 415),
        (CREATE, "admin", f"{JSON}\r\nContent-Encoding: br", 415),
        ("GET /health", None, JSON, 200),
    ],
)


@pytest.mark.parametrize("length", [2, 5000, KEPT_BYTES - 512])
@REFUSALS
def test_a_connection_is_of_use_after_a_refusal_that_did_not_wait_for_the_body(
    service: Service,
    keys: dict[str | None, str | None],
    line: str,
    role: str | None,
    more: str,
    status: int,
    length: int,
) -> None:
    with Wire(service.port) as wire:
        for _ in range(TIMES):
            wire.write(headed(line, keys[role], length, more))
            time.sleep(PAUSE_S)
            wire.write(b"x" * length)
            answer = wire.answer()
            assert answer.status == status
            assert "connection" not in answer.headers
        assert works(wire)


@REFUSALS
def test_a_large_body_that_is_not_wanted_passes_before_the_answer_ends_its_connection(
    service: Service, keys: dict[str | None, str | None], line: str, role: str | None, more: str, status: int
) -> None:
    with Wire(service.port) as wire:
        wire.write(headed(line, keys[role], FORGOTTEN_BYTES, more))
        time.sleep(PAUSE_S)
        wire.write(b"x" * FORGOTTEN_BYTES)
        answer = wire.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert is_closed(wire)


def test_a_body_in_chunks_that_is_not_wanted_passes(service: Service) -> None:
    start = malformed("POST /v1/assessments HTTP/1.1", "Host: kyb", JSON, "Transfer-Encoding: chunked")
    with Wire(service.port) as wire:
        for _ in range(TIMES):
            wire.write(start)
            for part in (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"):
                time.sleep(PAUSE_S)
                wire.write(part)
            assert "connection" not in problem(wire.answer(), 401, "unauthorized")
        assert works(wire)


def test_an_unwanted_body_that_does_not_come_is_not_waited_for_long(service: Service) -> None:
    with Wire(service.port) as wire:
        started = time.monotonic()
        wire.write(headed(CREATE, None, 100, JSON) + b"half")
        answer = wire.answer()
        assert time.monotonic() - started >= FORGOTTEN_S * 0.9
        assert answer.status == 401
        assert answer.headers["connection"] == "close"
        assert is_closed(wire)


@pytest.mark.parametrize("more", [(), ("Expect: 100-continue",)])
def test_what_is_too_much_or_asked_for_first_is_not_waited_for_at_all(service: Service, more: tuple[str, ...]) -> None:
    with Wire(service.port) as wire:
        wire.write(headed(CREATE, None, 100 if more else FORGOTTEN_BYTES + 1, JSON, *more))
        # No word of going on before it.
        answer = wire.answer()
        assert answer.status == 401
        assert answer.headers["connection"] == "close"
        assert is_closed(wire)


def test_after_a_head_that_is_none_nothing_is_taken_for_a_request(service: Service) -> None:
    with Wire(service.port) as wire:
        wire.write(malformed("GET /health HTTP/1.1", "Host: kyb", "Transfer-Encoding: gzip", "Host: other"))
        answer = wire.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert is_closed(wire)
