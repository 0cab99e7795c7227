"""Virtual users against servers that do one thing each: what they see is what was done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from answering import HOST, Answerer, answering
from service import free_port

from app.loadtest.users import UNSENT, Ask, Crowd

Seen = tuple[int, Counter[tuple[str, int]], Counter[tuple[str, str]]]


class Plain:
    """Asks for the same, and keeps what it is told."""

    def __init__(self) -> None:
        self.told_of: list[tuple[str, int, bytes]] = []
        self.asked_most_at: list[float] = []

    def ask(self) -> Ask:
        return Ask("plain", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def ask_most(self) -> Ask:
        self.asked_most_at.append(time.monotonic())
        return Ask("most", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def told(self, kind: str, status: int, head: bytes) -> None:
        self.told_of.append((kind, status, head))


@asynccontextmanager
async def crowd(port: int, users: int, **more: Any) -> AsyncIterator[Crowd]:
    """So many users who each send every 100 ms, begun; stopped at the end."""
    options = {"period_s": 0.1, "longest_s": 1.0, **more}
    made = Crowd((HOST, port), Plain(), clock=time.monotonic, **options)
    made.resize(users)
    await made.connected()
    made.start(time.monotonic())
    try:
        yield made
    finally:
        await made.stop()


def seen(of: Crowd) -> Seen:
    intended, answers, errors = 0, Counter[tuple[str, int]](), Counter[tuple[str, str]]()
    for tally in of.take(1 << 40).values():
        intended += tally.intended
        answers += tally.answers
        errors += tally.errors
    return intended, answers, errors


def load(port: int, users: int = 10, seconds: float = 0.5, **more: Any) -> Seen:
    async def run() -> Seen:
        async with crowd(port, users, **more) as made:
            await asyncio.sleep(seconds)
        return seen(made)

    return asyncio.run(run())


@pytest.fixture
def plain() -> Iterator[Answerer]:
    with answering() as server:
        yield server


def test_everything_intended_is_answered(plain: Answerer) -> None:
    intended, answers, errors = load(plain.port)
    assert answers == {("plain", 200): intended}
    assert not errors
    assert 40 <= intended <= 70


def test_each_user_asks_once_for_the_most_within_the_time_to_get_warm(plain: Answerer) -> None:
    async def run() -> tuple[Crowd, list[float]]:
        async with crowd(plain.port, 40, period_s=0.5, warm_s=2.0) as made:
            await asyncio.sleep(3.2)
        assert isinstance(made.mix, Plain)
        return made, made.mix.asked_most_at

    made, at = asyncio.run(run())
    seconds = [tally.answers for _, tally in sorted(made.take(1 << 40).items())]
    assert sum(answers["most", 200] for answers in seconds) == made.users == len(at) == 40
    assert sum(answers["plain", 200] for answers in seconds) > 4 * made.users
    # 20 a second, and not those of a period in one go.
    assert 1.5 < at[-1] - at[0] < 2.6
    assert max(sum(begun <= other < begun + 0.15 for other in at) for begun in at) <= 7


def test_every_status_is_counted_and_an_error_has_no_time() -> None:
    with answering(statuses=[200, 404, 503, 429]) as server:

        async def run() -> Crowd:
            async with crowd(server.port, 8) as made:
                await asyncio.sleep(0.5)
            return made

        made = asyncio.run(run())
        tallies = made.take(1 << 40).values()
        counts = sum((tally.answers for tally in tallies), Counter[tuple[str, int]]())
        timed = sum(times.count for tally in tallies for times in tally.times.values())
    assert {status for _, status in counts} == {200, 404, 503, 429}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert timed == counts["plain", 200]


def test_a_connection_that_is_lost_is_an_error_and_made_again() -> None:
    with answering(drop_every=5) as server:
        intended, answers, errors = load(server.port)
    assert errors.total() == intended // 5
    assert {kind for kind, _ in errors} == {"plain"}
    assert answers == {("plain", 200): intended - errors.total()}


@pytest.mark.parametrize("told", [True, False], ids=["with a word", "without"])
def test_a_server_that_closes_after_each_answer_makes_no_errors(told: bool) -> None:
    with answering(closes=True, head="connection: close\r\n" if told else "") as server:
        intended, answers, errors = load(server.port)
    assert answers == {("plain", 200): intended}
    assert not errors


def test_where_nobody_listens_every_request_fails() -> None:
    intended, answers, errors = load(free_port())
    assert errors == {(UNSENT, "connect: ECONNREFUSED"): intended}
    assert not answers
    assert intended >= 40


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "answer in chunks"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", "answer without content-length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}", "content-length that is no number"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "not an answer of HTTP/1"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200", "more than the answer"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_that_says_why(raw: str, why: str) -> None:
    with answering(raw=raw) as server:
        intended, answers, errors = load(server.port)
    assert not answers
    assert errors.total() == intended
    assert {told for _, told in errors if why not in told} == set()


def test_an_answer_without_content_needs_no_length() -> None:
    with answering(raw="HTTP/1.1 204 No Content\r\n\r\n") as server:
        intended, answers, errors = load(server.port)
    assert answers == {("plain", 204): intended}
    assert not errors


def test_an_answer_that_does_not_come_is_an_error() -> None:
    with answering(silent=True) as server:
        intended, answers, errors = load(server.port, longest_s=0.3)
    assert not answers
    assert errors.total() == intended
    assert {why for _, why in errors} <= {"no answer in time", "not sent in time"}


def test_a_late_answer_does_not_put_off_what_is_intended_next() -> None:
    with answering(delay_ms=250) as server:
        intended, answers, _ = load(server.port, seconds=1.0, longest_s=60.0)
    assert intended >= 90
    assert answers.total() == intended


def test_users_come_at_once_and_go_when_they_were_answered(plain: Answerer) -> None:
    async def run() -> list[tuple[int, int]]:
        found = []
        async with crowd(plain.port, 5) as made:
            for users in (5, 40, 3, 0, 12):
                made.resize(users)
                await made.connected()
                await asyncio.sleep(0.15)
                found.append((made.users, made.connections))
        intended, answers, errors = seen(made)
        assert answers == {("plain", 200): intended}
        assert not errors
        assert made.connections == 0
        return found

    assert asyncio.run(run()) == [(5, 5), (40, 40), (3, 3), (0, 0), (12, 12)]


def test_requests_are_spread_evenly_over_the_period(plain: Answerer) -> None:
    async def run() -> list[int]:
        async with crowd(plain.port, 1000, period_s=4.0) as made:
            await asyncio.sleep(2.2)
        return [tally.intended for tally in made.take(2).values()]

    assert [count for count in asyncio.run(run()) if abs(count - 250) > 5] == []


def test_flat_out_each_user_sends_as_soon_as_it_is_answered() -> None:
    with answering(delay_ms=10) as server:
        intended, answers, errors = load(server.port, users=10, seconds=1.0, flat_out=True)
    assert answers == {("plain", 200): intended}
    assert not errors
    assert 300 <= intended <= 1000


def test_flat_out_goes_on_after_lost_connections() -> None:
    with answering(drop_every=10) as server:
        intended, answers, errors = load(server.port, users=10, seconds=1.0, flat_out=True)
    assert errors.total() == intended // 10
    assert answers.total() + errors.total() == intended
    assert intended >= 200


def test_the_mix_hears_of_every_answer() -> None:
    with answering(statuses=[201], head="Location: /v1/assessments/7\r\n") as server:

        async def run() -> Plain:
            async with crowd(server.port, 3) as made:
                await asyncio.sleep(0.3)
            assert isinstance(made.mix, Plain)
            return made.mix

        told = asyncio.run(run()).told_of
    assert told
    assert all(
        (kind, status) == ("plain", 201) and b"location: /v1/assessments/7" in head for kind, status, head in told
    )


def test_connections_come_from_the_addresses_given(plain: Answerer) -> None:
    async def run() -> set[str]:
        async with crowd(plain.port, 6, sources=("127.0.0.1", "127.0.0.2", "127.0.0.3")) as made:
            transports = [user._transport for user, _ in made._users]
            return {transport.get_extra_info("sockname")[0] for transport in transports if transport is not None}

    assert asyncio.run(run()) == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
