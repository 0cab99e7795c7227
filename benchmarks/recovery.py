"""How long the service takes to be well again after a fault, and what its callers see meanwhile.

    python benchmarks/recovery.py [redis-down] [db-restart] [worker-kill] [provider-slow] [--users 5000] [--lasts 10]

For each fault a service of its own as in headline.py, with PostgreSQL, Valkey and a provider that every assessment
asks, each a process that is really ended and started again; the provider stands still instead. 20 s after the start the
fault is set, --lasts seconds later it is removed (a worker is started again by the service); recovered is what
`kyb loadtest` calls so, ten seconds in a row inside the targets, counted from the removal. Ends with 1 where that took
30 s or more.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headline import served

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from provider_server import PROVIDER, FakeProvider
from service import HOST, KEY, free_port

from app.loadtest import running
from app.loadtest.breaking import FAULTS, Breaking, FaultOrder
from app.loadtest.judging import CALM_S, RECOVERY_S
from app.loadtest.mix import shares
from app.loadtest.results import Scenario
from app.loadtest.running import Setup
from app.loadtest.scenarios import Phase, Plan
from app.loadtest.service import Address, found

AT_S = 20
PERIOD_S = 5.0


class Ending(Breaking):
    """Ends a server, and starts it again."""

    def __init__(self, order: FaultOrder, address: Address, seconds: int, server: Any) -> None:
        super().__init__(order, address, seconds)
        self._server = server
        self._acting: threading.Thread | None = None

    def _set(self, at_s: float) -> None:
        self._act(self._server.kill)
        self._was_set(at_s)

    def _remove(self, at_s: float) -> None:
        self._act(self._server.start)
        self._was_removed(at_s)

    def _act(self, work: Callable[[], object]) -> None:
        """In a thread of its own: while it waits, the generator's answers have to be taken."""
        if self._acting is not None:
            self._acting.join()
        self._acting = threading.Thread(target=work)
        self._acting.start()


def answer(port: int) -> None:
    """Be a provider that is well, until killed."""

    async def serve() -> None:
        async with FakeProvider(port=port):
            await asyncio.Event().wait()

    asyncio.run(serve())


@contextmanager
def provider() -> Iterator[tuple[int, int]]:
    """Port and process id of a provider that is well."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=answer, args=(port,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield port, process.pid
    finally:
        process.kill()
        process.join()


def measured(fault: str, users: int, lasts_s: int) -> Scenario:
    """The scenario with that fault."""
    seconds = AT_S + lasts_s + round(RECOVERY_S + CALM_S) + 5
    with provider() as (port, pid):
        told = PROVIDER.format(name="registry", url=f"http://{HOST}:{port}", timeout="300ms")
        with served("postgres", {}, f"providers:\n{told}") as (service, servers):
            address = found(f"http://{HOST}:{service.port}", KEY)
            order = FaultOrder(fault, AT_S, lasts_s, pid=pid if fault == "provider-slow" else None)
            if fault == "worker-kill":
                order = FaultOrder(fault, AT_S, 0)
            breaking = Breaking(order, address, seconds)
            if fault in ("redis-down", "db-restart"):
                server = servers["redis" if fault == "redis-down" else "postgres"]
                breaking = Ending(order, address, seconds, server)
            plan = Plan("recovery", "", (Phase(seconds, users, users),))
            setup = Setup(address, shares("realistic"), "recovery", period_s=PERIOD_S)
            return running.run(plan, setup, breaking, lambda glance: None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--lasts", type=int, default=10, metavar="SECONDS")
    options = parser.parse_args()
    unknown = set(options.faults).difference(FAULTS)
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; take {', '.join(FAULTS)}")
    late = 0
    for fault in options.faults or FAULTS:
        scenario = measured(fault, options.users, options.lasts)
        (was,) = scenario.faults
        recovered = "not at all" if was.recovered_after_s is None else f"after {was.recovered_after_s:g} s"
        late += was.recovered_after_s is None or was.recovered_after_s >= RECOVERY_S
        errors = {
            f"{route.kind} {what}": count
            for route in scenario.routes
            for what, count in {**route.statuses, **route.errors}.items()
            if not what.startswith(("2", "3"))
        }
        answered = f"{scenario.answered:,} answered, p99 {scenario.latency.p99:.0f} ms"
        print(f"{fault:13} recovered {recovered}; {answered}, {errors}", flush=True)
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
