"""The two figures that the service is known by: 10,000 users, and 10,000 connections flat out, recorded.

    python benchmarks/headline.py [--store postgres|sqlite] [--users 10000] [--seconds 30] [--flat-out]
        [--mix assessments] [--rounds 1] [--folder FOLDER] [--json FILE] [--witness USERS] [NAME=VALUE ...]

One service with one worker and `configs/performance_10k.yaml`, its database (and with PostgreSQL a Valkey), and the
load generator of `kyb loadtest`, all on this machine. NAME=VALUE: settings of the service, over those of the file.
--folder: where the databases keep their files; the time that a small write and its fdatasync take there is told, since
no commit is faster. Cores are CPU time ÷ time, of each program. Latency counts from the intended moment; flat out, from
the sending. Flat out each request is of one of 1,000 businesses. --witness: so many more users of another load
generator at the same time, wrk, each of whom thinks 5 s on average; its latencies count from the sending.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from compare import Round, wrk
from sizes import database_cpu_s

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, Server, Valkey, migrated
from service import HOST, KEY, Service

from app.loadtest import running
from app.loadtest.mix import shares
from app.loadtest.profiles import Profiles
from app.loadtest.results import Scenario
from app.loadtest.running import Setup
from app.loadtest.scenarios import FLAT_OUT_BUSINESSES, Phase, Plan
from app.loadtest.service import found

WARM_S = 5
CONFIG = (Path(__file__).parent.parent / "configs" / "performance_10k.yaml").read_text(encoding="utf-8")
PERIOD_S = 5.0
SYNCS = 100
SYNCED_BYTES = 64 * 1024


def sync_ms(folder: Path) -> float:
    """The median of a write that is on disk, as a commit of a small batch is."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(SYNCED_BYTES))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return 1e3 * median(taken)


@contextmanager
def served(store: str, settings: dict[str, str], config: str = "") -> Iterator[tuple[Service, dict[str, Server]]]:
    """A service that knows KEY, and the servers beside it by what they are. config: more for its file."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headline-")))
        servers: dict[str, Server] = {}
        if store == "postgres":
            servers = {"postgres": stack.enter_context(Postgres()), "redis": stack.enter_context(Valkey())}
            database, redis = servers.values()
            settings = {
                "DATABASE_URL": migrated(database.create_database()),  # type: ignore[attr-defined]
                "REDIS_URL": redis.url(),  # type: ignore[attr-defined]
                "MIN_REPLICAS": "1",
                "MAX_REPLICAS": "1",
                **settings,
            }
        service = Service(folder, CONFIG + config, LOG_LEVEL="error", PERFORMANCE_MONITORING_INTERVAL="1s", **settings)
        try:
            yield service.start(), servers
        finally:
            service.stop()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run."""
    with served(options.store, dict(told.split("=", 1) for told in options.settings)) as (service, servers):
        address = found(f"http://{HOST}:{service.port}", KEY)
        phase = Phase(WARM_S + options.seconds, options.users, options.users)
        businesses = FLAT_OUT_BUSINESSES if options.flat_out else 0
        plan = Plan("headline", "", (phase,), flat_out=options.flat_out, businesses=businesses)
        before = {name: database_cpu_s(server) for name, server in servers.items()}  # type: ignore[arg-type]
        witness = Witness(service, options.witness, options.seconds)
        began = time.monotonic()
        scenario = running.run(
            plan, Setup(address, shares(options.mix), "headline", period_s=PERIOD_S), None, lambda glance: None
        )
        took_s = time.monotonic() - began
        cores = {
            name: round((database_cpu_s(server) - before[name]) / took_s, 2)  # type: ignore[arg-type]
            for name, server in servers.items()
        }
    return {**figures(scenario, cores), **witness.figures()}


class Witness(threading.Thread):
    """Users of another load generator, for so many seconds once all others are there; none where users is 0."""

    def __init__(self, service: Service, users: int, seconds: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://{HOST}:{service.port}/v1/assessments"
        self._users, self._seconds = users, seconds
        self._bodies = service.folder / "bodies"
        self._round: Round | None = None
        if users:
            profiles = Profiles("witness", users)
            self._bodies.write_bytes(b"\n".join([profiles.body() for _ in range(1000)]))
            self.start()

    def run(self) -> None:
        time.sleep(WARM_S)
        self._round = wrk(self._url, "POST", self._bodies, self._seconds - 1, self._users, PERIOD_S)

    def figures(self) -> dict[str, Any]:
        """What it saw, once it is done."""
        if not self._users:
            return {}
        self.join()
        if self._round is None:
            raise SystemExit("wrk told nothing")
        seen = self._round
        told = {f"wrk_{name}_ms": getattr(seen, f"{name}_us") / 1000 for name in ("p50", "p95", "p99")}
        return {"wrk_per_second": round(seen.per_second), **told, "wrk_errors": seen.errors}


def figures(scenario: Scenario, cores: dict[str, float]) -> dict[str, Any]:
    warm = scenario.seconds[WARM_S:]
    known = [second for second in warm if second.service_cpu is not None]
    memories = [second.service_memory for second in known if second.service_memory is not None]
    return {
        "per_second": round(sum(second.answered for second in warm) / len(warm)),
        "errors": scenario.errors,
        "p50_ms": scenario.latency.p50,
        "p95_ms": scenario.latency.p95,
        "p99_ms": scenario.latency.p99,
        "second_p99_ms": median(second.latency.p99 for second in warm),
        "cores": {
            "service": round(median(second.service_cpu or 0.0 for second in known), 2) if known else None,
            **cores,
            "generator": round(median(second.generator_cpu for second in warm), 2),
        },
        "service_mb": round(max(memories) / 1e6) if memories else None,
        "late_p99_ms": round(median(second.late_p99_ms for second in warm), 1),
        "invalid": scenario.invalid,
        "load": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--store", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--flat-out", action="store_true")
    parser.add_argument("--mix", default="assessments", help="as of kyb loadtest")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--witness", type=int, default=0, metavar="USERS")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args(arguments)
    if options.folder is not None:
        tempfile.tempdir = str(options.folder)
    synced_ms = sync_ms(Path(tempfile.gettempdir()))
    print(f"a write of {SYNCED_BYTES // 1024} kB with its fdatasync: {synced_ms:.2f} ms")
    rounds = []
    for _ in range(options.rounds):
        rounds.append(measured(options))
        print("  ".join(f"{name} {value}" for name, value in rounds[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json_of(options, synced_ms, rounds), encoding="utf-8")
    return 0


def json_of(options: argparse.Namespace, synced_ms: float, rounds: list[dict[str, Any]]) -> str:
    told = {
        "store": options.store,
        "users": options.users,
        "flat_out": options.flat_out,
        "mix": options.mix,
        "sync_ms": synced_ms,
    }
    return msgspec.json.format(msgspec.json.encode({**told, "rounds": rounds}), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.exit(main())
