"""What a hostile caller can do from outside, at full size: and a legitimate one beside it notices nothing much."""

from __future__ import annotations

import asyncio
import gzip
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from outage import memory_bytes
from service import HOST, KEY, Client, Service, Wire, named, serving

pytestmark = pytest.mark.slow

SLOW_CONNECTIONS = 2000
FLOOD = 15_000
P99_LIMIT_S = 1.0
BODY_TIMEOUT_S = 10.0
"""Of the default settings."""
ENOUGH = 100
"""Answers from which a 99th percentile can be told."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # The attackers' connections stand side by side with everybody's own in two processes.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with serving(tmp_path_factory.mktemp("attacked")) as service:
            yield service
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Legitimate:
    """A caller who assesses one business after the other for as long as the block runs. took_s: each answer's time."""

    def __init__(self, service: Service) -> None:
        self.took_s: list[float] = []
        self.refused: list[object] = []
        self._service = service
        self._over = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> Legitimate:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _work(self) -> None:
        client = Client(self._service.port)
        while not self._over.is_set():
            start = time.perf_counter()
            try:
                answer = client.assess(named("Acme Trading GmbH"))
            except OSError as error:
                self.refused.append(error)
                client.close()
                client = Client(self._service.port)
                continue
            self.took_s.append(time.perf_counter() - start)
            if answer.status != 201:
                self.refused.append(answer)
        client.close()

    @property
    def knows(self) -> bool:
        """Whether it has seen enough, or that something is wrong."""
        return bool(self.refused) or len(self.took_s) > ENOUGH

    @property
    def p99_s(self) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * 0.99)]

    def check(self) -> None:
        assert not self.refused, self.refused[:3]
        assert len(self.took_s) > ENOUGH
        assert self.p99_s < P99_LIMIT_S, f"p99 {self.p99_s:.3f} s of {len(self.took_s)}"


@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="slowhttptest is not installed")
@pytest.mark.parametrize("attack", ["headers", "bodies"])
def test_slow_callers_do_not_slow_down_the_others(attacked: Service, tmp_path: Path, attack: str) -> None:
    # A body is only waited for from those who have a key, so these have one, in a line after the content type.
    keyed = f"application/json\r\nX-API-Key: {KEY}"
    kind = ["-H", "-t", "GET"] if attack == "headers" else ["-B", "-t", "POST", "-s", "8192", "-f", keyed]
    load = ["-c", str(SLOW_CONNECTIONS), "-r", "1000", "-i", "2", "-l", "15", "-p", "3", "-x", "24"]
    url = f"http://{HOST}:{attacked.port}/v1/assessments"
    start = time.perf_counter()
    with Legitimate(attacked) as caller:
        done = subprocess.run(
            ["slowhttptest", *kind, *load, "-u", url],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
    assert "slow HTTP test status" in done.stdout, done
    if attack == "bodies":
        # Each is cut off at the deadline of a body, and not before as one that may not be sent.
        assert time.perf_counter() - start > BODY_TIMEOUT_S
    caller.check()


def test_a_flood_of_connections_is_borne(attacked: Service) -> None:
    async def flood() -> int:
        opened: list[asyncio.StreamWriter] = []
        with suppress(OSError):
            for _ in range(FLOOD // 500):
                for _, writer in await asyncio.gather(
                    *[asyncio.open_connection(HOST, attacked.port) for _ in range(500)]
                ):
                    opened.append(writer)
        await asyncio.sleep(2.0)
        for writer in opened:
            writer.close()
        return len(opened)

    with Legitimate(attacked) as caller:
        assert asyncio.run(flood()) == FLOOD
    caller.check()


def test_a_gzip_bomb_is_refused_where_its_limit_is_reached(attacked: Service) -> None:
    bomb = gzip.compress(bytes(512 << 20), 9)
    headers = {"Content-Encoding": "gzip"}
    before = memory_bytes(attacked)
    with Legitimate(attacked) as caller:
        bombs = 0
        while bombs < 20 or not caller.knows:
            client = Client(attacked.port)
            answer = client.assess(bomb, headers)
            assert answer.status == 413, answer
            client.close()
            bombs += 1
    assert memory_bytes(attacked) - before < 64 << 20
    caller.check()


def test_a_thousand_requests_in_one_write_are_answered_in_order(attacked: Service) -> None:
    count = 1000
    told = "".join(
        f"GET /health HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\nX-Request-ID: n{number}\r\n\r\n"
        for number in range(count)
    )
    with Legitimate(attacked) as caller, Wire(attacked.port) as wire:
        sender = Thread(target=wire.write, args=(told.encode(),), daemon=True)
        sender.start()
        assert [wire.answer().headers["x-request-id"] for _ in range(count)] == [
            f"n{number}" for number in range(count)
        ]
        sender.join()
    assert not caller.refused


def refused(service: Service, request: bytes) -> bytes:
    """What a request is answered that is too large to be read: the first line, or nothing where it was cut off."""
    with Wire(service.port) as wire:
        with suppress(OSError):
            wire.write(request)
        with suppress(OSError):
            return wire.socket.recv(4096).split(b"\r\n")[0]
    return b""


OVERSIZED: dict[str, Callable[[], bytes]] = {
    "10 MB in one header": lambda: b"GET /health HTTP/1.1\r\nHost: a\r\nX-Big: " + b"a" * 10_000_000 + b"\r\n\r\n",
    "1,000 headers": lambda: (
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n"
    ),
    "a long target": lambda: b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("form", OVERSIZED)
def test_oversized_heads_are_refused_and_leave_nothing_behind(attacked: Service, form: str) -> None:
    request = OVERSIZED[form]()
    before = memory_bytes(attacked)
    for _ in range(20):
        line = refused(attacked, request)
        assert line == b"" or line.split(b" ")[1] in (b"400", b"413", b"414", b"431"), line
    assert memory_bytes(attacked) - before < 64 << 20
    assert attacked.client(None).get("/health").status == 200
