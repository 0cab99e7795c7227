"""Measures what a failing provider costs the requests that do not need it, against the same load without a provider.

    python benchmarks/providers.py [--rounds 3] [--seconds 2] [--asked 100] [--only NAME]... [--json FILE]

Two services run in one process each: one that asks a fake provider, which is a process of its own, and one that has no
provider. Each gets the same load: so many requests a second about businesses that the provider would be asked about,
every one another, and beside them, with wrk, as many as are answered of a profile that lacks what the provider needs,
as dry runs. The latter are what is measured. Rounds are interleaved, and a ratio is the median of the rounds' own
ratios. `answers` is a provider that is well: what to ask one costs at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Thread

import msgspec
import trustme
from compare import Round, wrk
from machine import Machine, machine
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from samples import EXAMPLE

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from provider_server import FAULTS, GOOD, PROVIDER, Behaviour, Exchange, FakeProvider, good
from service import HOST, KEY, Service, free_port, serving

CONNECTIONS = 8
CALLERS = 32
"""Connections of those who need the provider: as many as can be waiting for it at a time."""
PACKAGES = ("granian", "uvloop", "msgspec", "starlette", "aiohttp")


async def redirect(exchange: Exchange) -> None:
    await exchange.answer(GOOD, 307, Location=f"http://{HOST}:9/companies/1")


CERTIFICATE = "a certificate that nobody vouches for"
NOBODY = "nobody there"
CATALOGUE: dict[str, Behaviour] = {
    "answers": good,
    **{
        name: FAULTS[name][0]
        for name in (
            "status 500", "status 503", "no JSON", "a text for a number", "NaN", "a count too great",
            "a gigabyte not announced", "headers without end", "a slow body", "silence", "deafness", "a reset",
        )
    },
    "a redirection": redirect,
    CERTIFICATE: good,
    NOBODY: good,
}  # fmt: skip


class Figures(Struct, frozen=True):
    """Medians of the rounds, in one unit each."""

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Measured(Struct, frozen=True):
    """One fault. ratios: with the provider to without, round by round.  degraded: share of those who needed it."""

    fault: str
    beside: Figures
    without: Figures
    ratios: Figures
    degraded: float
    asked: int
    errors: int


class Report(Struct, frozen=True):
    machine: Machine
    seconds: int
    rounds: int
    asked_per_s: float
    measured: list[Measured]


# ---------------------------------------------------------------- the provider, in a process of its own


def run_provider(port: int, sealed_port: int, certificate: str, faults: Connection) -> None:
    """Serve both ports with the fault that was told last, until told None. What was told is told back when it is so."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        async with FakeProvider(tls=tls, port=sealed_port):
            while (fault := await loop.run_in_executor(None, faults.recv)) is not None:
                async with contextlib.AsyncExitStack() as there:
                    if fault != NOBODY:
                        await there.enter_async_context(FakeProvider(CATALOGUE[fault], port=port))
                    faults.send(fault)
                    # Until it is told to end.
                    await loop.run_in_executor(None, faults.recv)

    asyncio.run(serve())


class Provider:
    """A fake provider that runs as long as the block does."""

    def __init__(self, port: int, sealed_port: int, certificate: Path) -> None:
        self._faults, theirs = get_context("spawn").Pipe()
        given = (port, sealed_port, str(certificate), theirs)
        self._process = get_context("spawn").Process(target=run_provider, args=given, daemon=True)

    def __enter__(self) -> Provider:
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join()

    @contextlib.contextmanager
    def at_fault(self, fault: str) -> Iterator[None]:
        self._faults.send(fault)
        if not self._faults.poll(30):
            raise SystemExit("the fake provider does not start")
        self._faults.recv()
        yield
        self._faults.send("")


# ---------------------------------------------------------------- those who need it


class Callers:
    """Ask about one new business after the other, `per_s` in all, for as long as the block runs.

    Whoever still waits when the next is due is late with it, and does not send it twice as fast afterwards.
    """

    numbers = count()

    def __init__(self, service: Service, field: str, per_s: float) -> None:
        self.asked = 0
        self.degraded = 0
        self.refused: list[str] = []
        self._port = service.port
        self._field = field
        self._pause_s = CALLERS / per_s
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._all(),), daemon=True)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        self._loop.close()

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(place) for place in range(CALLERS)))

    async def _one(self, place: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        await self._wait(self._pause_s * place / CALLERS)
        while not self._over.is_set():
            begun = self._loop.time()
            writer.write(self._request(next(self.numbers)))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
            self.asked += 1
            if head.split()[1] == b"200":
                self.degraded += json.loads(body)["degraded"]
            else:
                self.refused.append(body.decode())
            await self._wait(begun + self._pause_s - self._loop.time())
        writer.close()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), max(seconds, 0))

    def _request(self, number: int) -> bytes:
        body = profile({self._field: f"number {number}"})
        return (
            f"POST /v1/assessments?dry_run=true HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def profile(business: dict[str, str]) -> bytes:
    """The documented example with what the providers need only where it is told."""
    made = msgspec.json.decode(EXAMPLE)
    for name in ("registration_number", "vat_number"):
        made["business"].pop(name, None)
    made["business"] |= business
    return msgspec.json.encode(made)


# ---------------------------------------------------------------- measuring


def measure(faults: Sequence[str], seconds: int, rounds: int, per_s: float) -> list[Measured]:
    folder = Path(tempfile.mkdtemp(prefix="kyb-providers-"))
    try:
        bodies = folder / "bodies.ndjson"
        bodies.write_bytes(profile({}) + b"\n")
        certificate = folder / "certificate.pem"
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        plain_port, sealed_port = free_port(), free_port()
        config = "providers:\n" + PROVIDER.format(name="registry", url=f"http://{HOST}:{plain_port}", timeout="800ms")
        sealed = PROVIDER.format(name="sealed", url=f"https://localhost:{sealed_port}", timeout="800ms")
        config += sealed.replace("registration_number", "vat_number")
        with (
            serving(folder / "asking", config) as asking,
            serving(folder / "plain") as plain,
            Provider(plain_port, sealed_port, certificate) as provider,
        ):
            for service in (asking, plain):
                saturate(service, bodies, seconds)
            found = []
            for fault in faults:
                field = "vat_number" if fault == CERTIFICATE else "registration_number"
                with provider.at_fault(fault):
                    found.append(measure_fault(fault, asking, plain, bodies, field, seconds, rounds, per_s))
            return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_fault(
    fault: str, asking: Service, plain: Service, bodies: Path, field: str, seconds: int, rounds: int, per_s: float
) -> Measured:
    beside: list[Round] = []
    without: list[Round] = []
    callers: list[Callers] = []
    for _ in range(rounds):
        for service, seen in ((plain, without), (asking, beside)):
            with Callers(service, field, per_s) as needing:
                seen.append(saturate(service, bodies, seconds))
            if needing.refused:
                raise SystemExit(f"{fault}: a request was refused: {needing.refused[0]}")
            if service is asking:
                callers.append(needing)
    pairs = list(zip(map(figures_of, beside), map(figures_of, without), strict=True))
    asked = sum(one.asked for one in callers)
    return Measured(
        fault,
        middle([one for one, _ in pairs]),
        middle([other for _, other in pairs]),
        middle([quotient(one, other) for one, other in pairs]),
        sum(one.degraded for one in callers) / asked,
        asked,
        sum(one.errors for one in (*beside, *without)),
    )


def saturate(service: Service, bodies: Path, seconds: int) -> Round:
    return wrk(f"http://{HOST}:{service.port}/v1/assessments?dry_run=true", "POST", bodies, seconds, CONNECTIONS)


def figures_of(seen: Round) -> Figures:
    return Figures(seen.per_second, seen.p50_us / 1000, seen.p95_us / 1000, seen.p99_us / 1000)


def quotient(one: Figures, other: Figures) -> Figures:
    return Figures(*(getattr(one, name) / getattr(other, name) for name in Figures.__struct_fields__))


def middle(figures: Sequence[Figures]) -> Figures:
    return Figures(*(round(median(getattr(one, name) for one in figures), 4) for name in Figures.__struct_fields__))


def table(report: Report) -> Table:
    """The figures as people read them."""
    shown = Table(
        title=f"those who do not need the provider, {CONNECTIONS} connections; beside them {report.asked_per_s:g}/s "
        f"who do; {report.rounds} rounds of {report.seconds:g} s; x: to the same load without a provider",
        caption=report.machine.line(),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("the provider")
    for heading in ("requests/s", "x", "p50 ms", "x", "p95 ms", "x", "p99 ms", "x", "degraded", "errors"):
        shown.add_column(heading, justify="right")
    for one in report.measured:
        cells = [f"{one.beside.per_second:,.0f}", f"{one.ratios.per_second:.2f}"]
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            cells += [f"{getattr(one.beside, name):.2f}", f"{getattr(one.ratios, name):.2f}"]
        shown.add_row(one.fault, *cells, f"{one.degraded:.0%} of {one.asked}", str(one.errors))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=2, help="of one measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each fault and side (default 3)")
    parser.add_argument("--asked", type=float, default=100.0, help="requests a second that need it (default 100)")
    parser.add_argument("--only", action="append", choices=list(CATALOGUE), help="measure this fault; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian: apt-get install wrk)")
    about = machine(PACKAGES, ["wrk"])
    faults = options.only or list(CATALOGUE)
    found = measure(faults, options.seconds, options.rounds, options.asked)
    report = Report(about, options.seconds, options.rounds, options.asked, found)
    Console(width=None if sys.stdout.isatty() else 140).print(table(report))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if any(one.errors for one in report.measured):
        raise SystemExit("some requests failed: the figures mean nothing")


if __name__ == "__main__":
    main()
