"""What profiles of a loaded service cost its callers: latency at a steady rate, throughput flat out, CPU time.

    python benchmarks/profiles.py                    2,000 requests/s, recorded in SQLite; 5 rounds, about 4 min
    python benchmarks/profiles.py --rate 500 --rounds 3

Rounds are interleaved: nothing, tasks and threads (once a second), nothing, allocations, nothing, CPU profile, nothing,
and each is compared with the mean of the two windows of nothing around it; a figure is the median of the rounds. A
latency is from the moment that a request was due, so it includes what waited before it. Then the same flat out.
Tracing from the start (`monitoring.trace_allocations`) is measured as a service of its own beside one without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from threading import Thread
from urllib.parse import urlsplit

import msgspec
import uvloop
from machine import machine
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from samples import EXAMPLE
from servers import started

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from service import KEY

PATH = "/v1/assessments"
SCRIPT = Path(__file__).with_name("load.lua")
CONNECTIONS = 64
TICK_S = 0.001
MEASURED = {
    "tasks and threads, each second": "goroutine",
    "allocations": "heap?seconds={}",
    "CPU profile": "profile?seconds={}",
}
REQUEST = (
    b"POST %s HTTP/1.1\r\nHost: kyb.test\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (PATH.encode(), KEY.encode(), len(EXAMPLE), EXAMPLE)
)


class Window(Struct):
    """What callers saw, and what the worker spent: CPU time in microseconds a request. sampler: CPU time of its
    children, as a share of one core."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    sampler: float = 0.0


class Caller(asyncio.Protocol):
    """One connection. took_s: latencies.  due: of the request that is under way."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held = b""
        self._wanted = -1
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._wanted < 0:
            head = self._held.find(b"\r\n\r\n")
            if head < 0:
                return
            start = self._held.find(b"content-length: ") + 16
            self._wanted = head + 4 + int(self._held[start : self._held.find(b"\r", start)])
        if len(self._held) >= self._wanted:
            if not self._held.startswith(b"HTTP/1.1 20"):
                sys.exit(f"answered {self._held[:200]!r}")
            self._held, self._wanted = b"", -1
            self._pool.answered(self)


class Pool:
    """Callers who send at a steady rate whatever comes back."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self._idle: deque[Caller] = deque()
        self._late: deque[float] = deque()
        self._quiet = asyncio.Event()

    async def open(self, url: str) -> None:
        place, loop = urlsplit(url), asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, caller = await loop.create_connection(lambda: Caller(self), place.hostname, place.port)
            self._idle.append(caller)

    def answered(self, caller: Caller) -> None:
        self.took_s.append(time.perf_counter() - caller.due)
        if self._late:
            caller.ask(self._late.popleft())
        else:
            self._idle.append(caller)
            if len(self._idle) == CONNECTIONS:
                self._quiet.set()

    async def send(self, rate: float, seconds: float) -> None:
        self.took_s.clear()
        began, sent = time.perf_counter(), 0
        while sent < rate * seconds:
            due = began + sent / rate
            if due > time.perf_counter():
                await asyncio.sleep(TICK_S)
                continue
            # The one that waited longest, since the server ends what is idle.
            if self._idle:
                self._idle.popleft().ask(due)
            else:
                self._late.append(due)
            sent += 1
        if len(self._idle) < CONNECTIONS:
            self._quiet.clear()
            await self._quiet.wait()


def ask(url: str, what: str) -> int:
    """Take a profile; the worker that was measured."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=120)
    connection.request("GET", f"/debug/pprof/{what}", headers={"X-API-Key": KEY})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"{what} answered {answer.status}: {told!r}")
    if b"a thread of the process" in told:
        sys.exit("py-spy may not read this process")
    return int(answer.headers["x-worker-pid"])


def spent_s(pid: int) -> tuple[float, float]:
    """CPU time of a process, and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / os.sysconf("SC_CLK_TCK"), children / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def measured(url: str, what: str | None, seconds: int) -> Iterator[None]:
    """Take a profile for as long as the block runs."""
    if what is None:
        yield
        return

    def work() -> None:
        if "{}" in what:
            ask(url, what.format(seconds))
            return
        end = time.monotonic() + seconds - 1
        while time.monotonic() < end:
            ask(url, what)
            time.sleep(1)

    thread = Thread(target=work)
    thread.start()
    yield
    thread.join()


async def steady(pool: Pool, url: str, pid: int, what: str | None, rate: float, seconds: int) -> Window:
    before = spent_s(pid)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as running:
        await loop.run_in_executor(None, running.enter_context, measured(url, what, seconds))
        await pool.send(rate, seconds)
        took = sorted(pool.took_s)
        after = spent_s(pid)
        await loop.run_in_executor(None, running.close)
    sampler = (spent_s(pid)[1] - before[1]) / seconds
    p50, p99 = took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3
    return Window(len(took) / seconds, p50, p99, (after[0] - before[0]) / len(took) * 1e6, sampler)


def flat_out(url: str, pid: int, what: str | None, seconds: int, body: Path) -> Window:
    before = spent_s(pid)
    with measured(url, what, seconds):
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT), url + PATH]
        done = subprocess.run([*command, "--", "POST", str(body), KEY], capture_output=True, text=True, check=True)
        after = spent_s(pid)
    seen = msgspec.json.decode(done.stdout.strip().rpartition("\n")[2])
    if seen["errors"]:
        sys.exit(f"{seen['errors']} requests failed")
    sampler = (spent_s(pid)[1] - before[1]) / seconds
    cpu_us = (after[0] - before[0]) / seen["requests"] * 1e6
    return Window(seen["requests"] / seconds, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3, cpu_us, sampler)


def compared(windows: Sequence[tuple[str | None, Window]]) -> dict[str, list[tuple[Window, Window, Window]]]:
    """Each profile's windows, with those of nothing before and after."""
    found: dict[str, list[tuple[Window, Window, Window]]] = {name: [] for name in MEASURED}
    for place, (name, window) in enumerate(windows):
        if name is not None:
            found[name].append((windows[place - 1][1], window, windows[place + 1][1]))
    return found


def table(title: str, windows: Sequence[tuple[str | None, Window]]) -> Table:
    shown = Table(title=title)
    for column in ("", "requests/s", "x alone", "p50 / p99 ms", "x alone", "CPU us", "x alone", "sampler's core"):
        shown.add_column(column)
    alone = [window for name, window in windows if name is None]
    shown.add_row(
        "nothing",
        f"{median(one.per_second for one in alone):,.0f}",
        "",
        f"{median(one.p50_ms for one in alone):.2f} / {median(one.p99_ms for one in alone):.2f}",
        "",
        f"{median(one.cpu_us for one in alone):.0f}",
    )
    for name, rounds in compared(windows).items():

        def ratio(figure: str, rounds: list[tuple[Window, Window, Window]] = rounds) -> float:
            return median(
                getattr(during, figure) / mean((getattr(before, figure), getattr(after, figure)))
                for before, during, after in rounds
            )

        during = [window for _, window, _ in rounds]
        shown.add_row(
            name,
            f"{median(one.per_second for one in during):,.0f}",
            f"{ratio('per_second'):.3f}",
            f"{median(one.p50_ms for one in during):.2f} / {median(one.p99_ms for one in during):.2f}",
            f"{ratio('p50_ms'):.2f} / {ratio('p99_ms'):.2f}",
            f"{median(one.cpu_us for one in during):.0f}",
            f"{ratio('cpu_us'):.3f}",
            f"{median(one.sampler for one in during):.1%}",
        )
    return shown


ORDER: tuple[str | None, ...] = (None, *(part for name in MEASURED for part in (name, None)))


async def at_a_rate(url: str, pid: int, rate: float, rounds: int, seconds: int) -> list[tuple[str | None, Window]]:
    pool = Pool()
    await pool.open(url)
    await pool.send(rate, 2)
    windows: list[tuple[str | None, Window]] = []
    for _ in range(rounds):
        for name in ORDER:
            what = None if name is None else MEASURED[name]
            windows.append((name, await steady(pool, url, pid, what, rate, seconds)))
    return windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=2000.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each window")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(machine(["granian", "uvloop", "py-spy"], ["wrk"]).line())
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="kyb-profiles-")))
        body = folder / "body.ndjson"
        body.write_bytes(EXAMPLE + b"\n")
        url = running.enter_context(started("service", folder / "plain"))
        pid = ask(url, "goroutine")
        windows = uvloop.run(at_a_rate(url, pid, options.rate, options.rounds, options.seconds))
        console.print(table(f"{options.rate:,.0f} requests/s", windows))
        windows = []
        for _ in range(options.rounds):
            for name in ORDER:
                what = None if name is None else MEASURED[name]
                windows.append((name, flat_out(url, pid, what, options.seconds, body)))
        console.print(table("flat out", windows))
        traced = running.enter_context(started("service", folder / "traced", trace=True))
        traced_pid = ask(traced, "goroutine")
        rounds = [
            (flat_out(url, pid, None, options.seconds, body), flat_out(traced, traced_pid, None, options.seconds, body))
            for _ in range(options.rounds)
        ]
        throughput = median(after.per_second / before.per_second for before, after in rounds)
        cpu = median(after.cpu_us / before.cpu_us for before, after in rounds)
        console.print(f"traced from the start, flat out: {throughput:.3f} of the throughput, {cpu:.2f} of the CPU time")
        began = time.monotonic()
        ask(traced, "heap?seconds=1")
        console.print(f"its allocations: answered {time.monotonic() - began - 1:.2f} s after its time")


if __name__ == "__main__":
    main()
