"""More requests than one worker works on: who waits, who is told to come back, and how soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from service import HOST, KEY, Service, named, serving

BODY = b'{"business":{"name":"Acme Trading GmbH","jurisdiction":"DE"}}'
READ = f"GET /v1/assessments?limit=1 HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\n\r\n".encode()
WRITE = (
    f"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY
HEALTH = b"GET /health HTTP/1.1\r\nHost: kyb\r\n\r\n"


class Told(NamedTuple):
    status: int
    head: bytes
    took_s: float
    done_at: float


async def ask(port: int, request: bytes) -> Told:
    reader, writer = await asyncio.open_connection(HOST, port)
    start = time.monotonic()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    took_s = time.monotonic() - start
    writer.close()
    return Told(int(head.split(b" ", 2)[1]), head.lower(), took_s, time.monotonic())


def crowd(port: int, requests: list[bytes]) -> list[Told]:
    """All of them at once, each on a connection of its own."""

    async def all_of_them() -> list[Told]:
        return await asyncio.gather(*[ask(port, request) for request in requests])

    return asyncio.run(all_of_them())


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Service]:
    """A service with places for four, in front of a database file that another process can lock."""
    config = "database:\n  busy_timeout: 800ms\n  timeout: 800ms\nconcurrency:\n  max_queue: 20\n  queue_wait: 300ms\n"
    with serving(tmp_path, config, MAX_CONCURRENT_REQUESTS="4") as service:
        yield service


def locked(service: Service) -> object:
    """The database of a service, held by a writer of the test's own until it is closed."""
    import sqlite3

    connection = sqlite3.connect(service.folder / "data" / "kyb.db", isolation_level=None, timeout=5)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_thousand_at_once_are_all_served(tmp_path: Path) -> None:
    with serving(tmp_path, MAX_CONCURRENT_REQUESTS="10") as service:
        told = crowd(service.port, [WRITE] * 1000)
        assert {answer.status for answer in told} == {201}


def test_what_waited_too_long_and_what_finds_the_queue_full_is_told_when_to_come_back(stalled: Service) -> None:
    holder = locked(stalled)
    told = crowd(stalled.port, [WRITE] * 60)
    holder.close()  # type: ignore[attr-defined]
    refused = [answer for answer in told if b"saturated" in answer.head or answer.status == 503]
    assert len(refused) == 60
    assert all(b"retry-after: 1" in answer.head for answer in refused)
    # Four wait for the database, twenty in the queue, and the others are told at once.
    at_once = [answer for answer in told if answer.took_s < 0.25]
    assert len(at_once) >= 30, sorted(answer.took_s for answer in told)
    assert stalled.client().recorded(named("Acme Trading GmbH"))


def test_health_answers_while_nothing_else_can(stalled: Service) -> None:
    holder = locked(stalled)

    async def both() -> tuple[list[Told], Told]:
        writes = [asyncio.ensure_future(ask(stalled.port, WRITE)) for _ in range(24)]
        await asyncio.sleep(0)
        health = await ask(stalled.port, HEALTH)
        return await asyncio.gather(*writes), health

    writes, health = asyncio.run(both())
    holder.close()  # type: ignore[attr-defined]
    assert health.status == 200
    assert health.done_at < min(answer.done_at for answer in writes)


def test_a_body_that_comes_slowly_holds_no_place(tmp_path: Path) -> None:
    with serving(tmp_path, MAX_CONCURRENT_REQUESTS="4") as service:

        async def both() -> list[Told]:
            slow = [await asyncio.open_connection(HOST, service.port) for _ in range(20)]
            for _, writer in slow:
                writer.write(WRITE[:-10])
                await writer.drain()
            told = await asyncio.gather(*[ask(service.port, WRITE) for _ in range(8)])
            for _, writer in slow:
                writer.close()
            return told

        assert {answer.status for answer in asyncio.run(both())} == {201}
