"""Measures the service against the bare server and a peer, all in one run on one machine, with wrk.

    python benchmarks/compare.py                       about 3 min; the documented example as the only body
    python benchmarks/compare.py --profiles 2000       as many different bodies, so that nothing can be remembered
    python benchmarks/compare.py --profiles 100000 --list ofac-sdn=sdn.csv,alt.csv,add.csv --list un-consolidated=un.xml
                                                       the same with every name looked for in these lists; with
                                                       --three-names of three parties, as the target means it
    python benchmarks/compare.py --json out.json --check

bare       the server with an application that reads the body and sends a constant as large as the service's answer
dry run    this service, POST /v1/assessments?dry_run=true
SQLite     this service, POST /v1/assessments, committed to SQLite in a temporary folder
PostgreSQL the same, committed to PostgreSQL, with Redis beside it; both servers run on the same cores
cached     this service, GET /v1/assessments/{id} of an assessment that the cache has, on the same two servers
peer       FastAPI on Uvicorn with Pydantic, which validates the body and sends the same constant

The service's edge is at work in all of its layers: key, role, the rates of key, tenant and service, admission, and for
what is recorded the audit trail. Each server is a process with one worker. Rounds are interleaved, and a ratio is the
median of the rounds' own ratios, so that a machine that grows slower is slower for all. The load generator has one
thread on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

import msgspec
from machine import Machine, machine
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from samples import EXAMPLE, generated
from servers import Stores, started

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, Valkey, command, create_database, database_name, drop_database
from service import KEY

from app.store.postgres.schema import database_place, migrate

SCRIPT = Path(__file__).with_name("load.lua")
READ_PATHS = 1000
PACKAGES = ("granian", "uvloop", "msgspec", "starlette", "asyncpg", "redis", "fastapi", "uvicorn", "pydantic")
ASKED_FOR_SIZE = 50
PAUSE_S = 0.3
ALONE_TARGET_MS = 5.0
UNCACHED_TARGET = 0.15
"""Of a dry run whose names were never screened before."""


class Contender(Struct, frozen=True):
    """target: the least ratio to the bare server, None where there is none.

    stores: on PostgreSQL and Redis.  reads: gets what was posted before, instead of posting.
    """

    name: str
    kind: str
    path: str
    target: float | None = None
    stores: bool = False
    reads: bool = False


CONTENDERS = (
    Contender("bare", "bare", "/v1/assessments"),
    Contender("dry run", "service", "/v1/assessments?dry_run=true", 0.50),
    Contender("SQLite", "service", "/v1/assessments", 0.22),
    Contender("PostgreSQL", "service", "/v1/assessments", 0.22, stores=True),
    Contender("cached", "service", "/v1/assessments", 0.60, stores=True, reads=True),
    Contender("peer", "peer", "/v1/assessments"),
)


class Round(Struct, frozen=True):
    """What wrk saw. errors: refused or broken connections, timeouts and answers of 400 and above."""

    requests: int
    duration_us: int
    answer_bytes: int
    p50_us: float
    p95_us: float
    p99_us: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.duration_us * 1e6


class Measured(Struct, frozen=True):
    """One contender over all rounds: medians. ratio: to the bare server, round by round, with its least and most."""

    name: str
    per_second: float
    least: float
    most: float
    ratio: float
    ratio_least: float
    ratio_most: float
    target: float | None
    p50_ms: float
    p99_ms: float
    errors: int
    rounds: list[Round]

    @property
    def met(self) -> bool:
        return self.target is None or self.ratio >= self.target


class Alone(Struct, frozen=True):
    """A recorded request at a time on an idle service: milliseconds."""

    name: str
    p50_ms: float
    p99_ms: float
    target_ms: float | None

    @property
    def met(self) -> bool:
        return self.target_ms is None or self.p99_ms <= self.target_ms


class Comparison(Struct, frozen=True):
    machine: Machine
    body_bytes: float
    answer_bytes: int
    bodies: int
    connections: int
    seconds: float
    measured: list[Measured]
    alone: list[Alone]


def compare(
    bodies: Sequence[bytes],
    seconds: float,
    rounds: int,
    connections: int,
    warm_up_s: float,
    lists: Sequence[str] = (),
) -> Comparison:
    """Start all servers, warm them up, measure them in turn. SystemExit where an answer is not what it should be.

    lists: that the services screen against, as `NAME=FILE[,FILE]`.
    """
    about = machine(PACKAGES, ["wrk"])
    folder = Path(tempfile.mkdtemp(prefix="kyb-compare-"))
    try:
        file = folder / "bodies.ndjson"
        file.write_bytes(b"\n".join(bodies) + b"\n")
        with contextlib.ExitStack() as running:
            stores = running.enter_context(running_stores())
            urls: dict[str, str] = {}
            requests = {contender.name: ("POST", file) for contender in CONTENDERS}
            answer_bytes = 0
            # The services start first: their answers say how large the constants must be.
            for contender in sorted(CONTENDERS, key=lambda one: one.kind != "service"):
                place = folder / contender.name.replace(" ", "-")
                own = stores if contender.stores else None
                base = running.enter_context(started(contender.kind, place, answer_bytes, own, lists=lists))
                urls[contender.name] = base + contender.path
                if contender.reads:
                    requests[contender.name] = ("GET", _posted(urls[contender.name], bodies, place / "paths"))
                size = _answer_size(urls[contender.name], bodies)
                if contender.name == "dry run":
                    answer_bytes = size
                elif contender.kind != "service" and size != answer_bytes:
                    raise SystemExit(f"{contender.name} answers {size} bytes instead of {answer_bytes}")
            # First, while nothing that was written under load is still on its way to the disk.
            singles = [
                alone(name, urls[name], file, seconds, target)
                for name, target in (("SQLite", None), ("PostgreSQL", ALONE_TARGET_MS))
            ]
            for contender in CONTENDERS:
                wrk(urls[contender.name], *requests[contender.name], warm_up_s, connections)
            found: dict[str, list[Round]] = {contender.name: [] for contender in CONTENDERS}
            for _ in range(rounds):
                for contender in CONTENDERS:
                    done = wrk(urls[contender.name], *requests[contender.name], seconds, connections)
                    found[contender.name].append(done)
                    time.sleep(PAUSE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    measured = [
        # No name is asked for twice: then a whole dry run may cost more.
        _measured(
            msgspec.structs.replace(one, target=UNCACHED_TARGET)
            if one.name == "dry run" and lists and bodies[1:]
            else one,
            found[one.name],
            found["bare"],
        )
        for one in CONTENDERS
    ]
    size_in = mean(map(len, bodies))
    return Comparison(about, round(size_in, 1), answer_bytes, len(bodies), connections, seconds, measured, singles)


def alone(name: str, url: str, bodies: Path, seconds: float, target_ms: float | None) -> Alone:
    """One caller, who sends the next request when the one before is answered."""
    done = wrk(url, "POST", bodies, seconds, 1)
    return Alone(name, round(done.p50_us / 1000, 3), round(done.p99_us / 1000, 3), target_ms)


@contextlib.contextmanager
def running_stores() -> Iterator[Stores]:
    """The PostgreSQL and the Valkey that the tests use, or those of TEST_DATABASE_URL and TEST_REDIS_URL."""
    with contextlib.ExitStack() as servers:
        server_url = os.environ.get("TEST_DATABASE_URL")
        if server_url:
            database_url = create_database(server_url)
            servers.callback(drop_database, server_url, database_name(database_url))
        else:
            database_url = servers.enter_context(Postgres()).create_database()
        redis_url = os.environ.get("TEST_REDIS_URL") or servers.enter_context(Valkey()).url()
        command(redis_url, "FLUSHDB")
        asyncio.run(migrate(database_url, database_place(database_url)))
        yield Stores(database_url, redis_url)


def _posted(url: str, bodies: Sequence[bytes], file: Path) -> Path:
    """Records the bodies and writes the paths of their assessments to the file."""
    paths = []
    for body in bodies[:READ_PATHS]:
        with urllib.request.urlopen(_request(url, body), timeout=10) as answer:
            paths.append(answer.headers["Location"])
    file.write_text("\n".join(paths) + "\n")
    return file


def wrk(url: str, method: str, given: Path, seconds: float, connections: int, think_s: float = 0.0) -> Round:
    """One run of the load generator. given: the file of bodies or paths that are sent in turn.  think_s: on average."""
    load = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    arguments = ["wrk", *load, "-s", str(SCRIPT), url, "--", method, str(given), KEY]
    arguments += [str(round(1000 * think_s))] if think_s else []
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"wrk failed: {done.stderr or done.stdout}")
    return msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=Round)


def _request(url: str, body: bytes) -> urllib.request.Request:
    return urllib.request.Request(url, body, {"Content-Type": "application/json", "X-API-Key": KEY})


def _answer_size(url: str, bodies: Sequence[bytes]) -> int:
    """The mean size of an answer, over the first bodies. Any other answer than 200 and 201 raises."""
    sizes = []
    for body in bodies[:ASKED_FOR_SIZE]:
        with urllib.request.urlopen(_request(url, body), timeout=10) as answer:
            text = answer.read()
        json.loads(text)
        if answer.status not in (200, 201):
            raise SystemExit(f"{url} answered {answer.status}")
        sizes.append(len(text))
    return round(mean(sizes))


def _measured(contender: Contender, rounds: list[Round], bare: list[Round]) -> Measured:
    rates = [one.per_second for one in rounds]
    ratios = [one.per_second / other.per_second for one, other in zip(rounds, bare, strict=True)]
    return Measured(
        contender.name,
        round(median(rates), 1),
        round(min(rates), 1),
        round(max(rates), 1),
        round(median(ratios), 4),
        round(min(ratios), 4),
        round(max(ratios), 4),
        contender.target,
        round(median(one.p50_us for one in rounds) / 1000, 3),
        round(median(one.p99_us for one in rounds) / 1000, 3),
        sum(one.errors for one in rounds),
        rounds,
    )


def table(comparison: Comparison) -> Table:
    """The figures as people read them."""
    rounds = len(comparison.measured[0].rounds)
    shown = Table(
        title=f"{comparison.bodies} bodies of {comparison.body_bytes:.0f} bytes in, {comparison.answer_bytes} out; "
        f"{comparison.connections} connections, {rounds} rounds of {comparison.seconds:g} s",
        caption=comparison.machine.line(),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("server")
    for heading in ("requests/s", "least", "most", "x bare", "of rounds", "target", "p50 ms", "p99 ms", "errors"):
        shown.add_column(heading, justify="right")
    for one in comparison.measured:
        target = "" if one.target is None else f"{one.target:.2f} {'met' if one.met else 'missed'}"
        rates = [f"{rate:,.0f}" for rate in (one.per_second, one.least, one.most)]
        spread = f"{one.ratio_least:.2f}-{one.ratio_most:.2f}"
        latencies = [f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}"]
        shown.add_row(one.name, *rates, f"{one.ratio:.3f}", spread, target, *latencies, str(one.errors))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the service with the bare server and a peer.")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each server (default 5)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of each server before the first round")
    parser.add_argument("--profiles", type=int, default=0, metavar="N", help="N different bodies, not the example")
    parser.add_argument("--three-names", action="store_true", help="in each of the different bodies, not five")
    parser.add_argument("--list", action="append", default=[], metavar="NAME=FILE[,FILE]", help="screened against")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--check", action="store_true", help="end with 1 where a target is missed")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian: apt-get install wrk)")
    bodies = generated(options.profiles, three_names=options.three_names) if options.profiles else [EXAMPLE]
    found = compare(bodies, options.seconds, options.rounds, options.connections, options.warm_up, options.list)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(found))
    for one in found.alone:
        target = "" if one.target_ms is None else f", target {one.target_ms:g} ms {'met' if one.met else 'missed'}"
        console.print(f"one at a time, {one.name}: p50 {one.p50_ms:.2f} ms, p99 {one.p99_ms:.2f} ms{target}")
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if any(one.errors for one in found.measured):
        raise SystemExit("some requests failed: the figures mean nothing")
    if options.check and not all(one.met for one in (*found.measured, *found.alone)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
