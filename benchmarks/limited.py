"""Two pods on one PostgreSQL and one Redis, limited together, and offered many times as much as they may take.

    python benchmarks/limited.py [--rate 2000] [--seconds 10] [--connections 64]

Each pod is loaded by a wrk of its own that sends as fast as it is answered. Accepted requests are compared with what
the limit allows: rate x time + burst. Beside the flood one caller measures how long accepted and refused requests of
its own take, first alone and then within it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from threading import Event, Thread
from urllib.parse import urlsplit

import msgspec
from compare import PACKAGES, running_stores
from machine import machine
from msgspec import Struct
from rich.console import Console
from samples import EXAMPLE
from servers import started

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from service import KEY

SCRIPT = Path(__file__).with_name("limited.lua")
PATH = "/v1/assessments"


class Flood(Struct):
    """What one wrk saw. statuses: answers by status."""

    duration_us: int
    p50_us: float
    p99_us: float
    statuses: dict[str, int]


class Caller:
    """One caller, who asks every 20 ms. took_ms: by status."""

    def __init__(self, url: str) -> None:
        self.took_ms: dict[int, list[float]] = {}
        self._place = urlsplit(url)
        self._over = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _work(self) -> None:
        connection = http.client.HTTPConnection(str(self._place.hostname), self._place.port, timeout=10)
        headers = {"Content-Type": "application/json", "X-API-Key": KEY}
        while not self._over.wait(0.02):
            start = time.perf_counter()
            connection.request("POST", PATH, EXAMPLE, headers)
            answer = connection.getresponse()
            answer.read()
            self.took_ms.setdefault(answer.status, []).append((time.perf_counter() - start) * 1000)
        connection.close()

    def line(self) -> str:
        """Medians and 99th percentiles of what was answered with each status."""
        parts = []
        for status, took in sorted(self.took_ms.items()):
            took.sort()
            parts.append(f"{status}: {len(took)}, p50 {median(took):.1f} ms, p99 {took[int(len(took) * 0.99)]:.1f} ms")
        return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Offer two limited pods more than they may take.")
    parser.add_argument("--rate", type=int, default=2000, help="requests a second of both pods together")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=64, help="of each pod")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    limit = f"{options.rate}/s burst {options.rate}"
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="kyb-limited-")))
        body = folder / "body.ndjson"
        body.write_bytes(EXAMPLE + b"\n")
        stores = running.enter_context(running_stores())
        urls = [running.enter_context(started("service", folder / name, 0, stores, limit)) for name in ("one", "other")]
        with Caller(urls[0]) as alone:
            time.sleep(3)
        time.sleep(2)
        with Caller(urls[0]) as within:
            load = ["-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency"]
            floods = [
                subprocess.Popen(
                    ["wrk", *load, "-s", str(SCRIPT), url + PATH, "--", str(body), KEY],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for url in urls
            ]
            told = [flood.communicate()[0] for flood in floods]
    found = [msgspec.json.decode(text.strip().rpartition("\n")[2], type=Flood) for text in told]
    seconds = max(one.duration_us for one in found) / 1e6
    accepted = sum(one.statuses.get("201", 0) for one in found) + len(within.took_ms.get(201, []))
    offered = sum(sum(one.statuses.values()) for one in found) / seconds
    allowed = options.rate * seconds + options.rate
    others = {s: n for one in found for s, n in one.statuses.items() if s not in ("201", "429")}
    console.print(machine(PACKAGES, ["wrk"]).line())
    console.print(f"offered {offered:,.0f}/s for {seconds:.1f} s; other statuses: {others or 'none'}")
    console.print(f"accepted {accepted:,}, allowed {allowed:,.0f}: {accepted / allowed - 1:+.2%}")
    console.print(f"answers to the flood, refusals for the most part: p50 {found[0].p50_us / 1000:.2f} ms, "
                  f"p99 {found[0].p99_us / 1000:.2f} ms")  # fmt: skip
    console.print(f"one caller alone    {alone.line()}")
    console.print(f"one caller within   {within.line()}")


if __name__ == "__main__":
    main()
