"""Whatever a provider does while many ask: the running service answers them all, and nobody else is worse off."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread, local

import pytest
import trustme
from provider_server import (
    FAULTS,
    GOOD,
    PROVIDER,
    Behaviour,
    Exchange,
    FakeProvider,
    body,
    connections_to,
    deafness,
)
from service import Client, Crowd, Json, Service, free_port, named, serving, wait_until

pytestmark = pytest.mark.slow

CALLERS = 16
"""More than there are slots."""
ROUNDS = 4
SLOTS = 6
POOL = 9
"""Less than the slots of all providers together."""
TIMEOUT_S = 5.0
"""For what is answered at all. Nothing hangs on it but the patience with a busy machine."""
SEALED_TIMEOUT_S = 1.0
HANGING_TIMEOUT_S = 0.3
GROWTH_BYTES = 64 * 2**20
"""What the buffers of all connections and the records of all requests may take. One body read whole is a gigabyte."""

CLEAN = {**GOOD, "company": {**GOOD["company"], "cases": 0}}  # type: ignore[dict-item]

CONFIG = f"""\
server: {{request_deadline: {4 * TIMEOUT_S:g}s, shutdown_grace: {8 * TIMEOUT_S:g}s}}
database: {{timeout: {2 * TIMEOUT_S:g}s}}
concurrency: {{worker_pool_size: {POOL}}}
breaker: {{open_for: 50ms}}
providers:
"""

ASKED_WITH = {"answering": "registration_number", "hanging": "vat_number", "sealed": "phone", "well": "website"}
"""Provider → the field of the profile without which it is not asked. All but the last are at fault, each in its way."""


class Neighbour:
    """The providers of one service, in a thread with a loop of its own."""

    def __init__(self, tls: ssl.SSLContext, distrusted: ssl.SSLContext) -> None:
        self.faulty = FakeProvider(body(CLEAN), port=free_port())
        self.sealed = FakeProvider(body(CLEAN), tls=tls, host="localhost", port=free_port())
        self.distrusted = FakeProvider(tls=distrusted, host="localhost", port=self.sealed.port)
        self.well = FakeProvider(body(CLEAN), port=free_port())
        self.elsewhere = FakeProvider()
        self.loop = asyncio.new_event_loop()
        # What broken connections and refused handshakes leave on this side is of no interest.
        self.loop.set_exception_handler(lambda *_: None)
        self._thread = Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        for server in (self.faulty, self.sealed, self.well, self.elsewhere):
            self.open(server)
        return self

    def __exit__(self, *exc: object) -> None:
        for server in (self.faulty, self.sealed, self.well, self.elsewhere):
            self.close(server)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def open(self, server: FakeProvider) -> None:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), self.loop).result(10)

    def close(self, server: FakeProvider) -> None:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), self.loop).result(10)

    def behave(self, behaviour: Behaviour) -> None:
        """What both faulty ones do from now on; nothing that was begun otherwise goes on."""
        for server in (self.faulty, self.sealed):
            server.behaviour = behaviour
            server.sent_bytes = 0

    @property
    def slots(self) -> dict[int, int]:
        """By port: of all providers that are there."""
        return {self.faulty.port: 2 * SLOTS, self.sealed.port: SLOTS, self.well.port: SLOTS}


class Connections:
    """Watches how many connections the service has to its providers, for as long as the block runs.

    most: the most at a time, by port.  most_faulty: to those that are at fault.
    """

    def __init__(self, neighbour: Neighbour) -> None:
        self.most: Counter[int] = Counter()
        self.most_faulty = 0
        self._slots = neighbour.slots
        self._well = neighbour.well.port
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Connections:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            found = {port: connections_to(port) for port in self._slots}
            self.most |= Counter(found)
            self.most_faulty = max(self.most_faulty, sum(found.values()) - found[self._well])

    def check(self) -> None:
        """None but those that slots are for, with those that are kept for the next call."""
        assert all(self.most[port] <= slots for port, slots in self._slots.items()), self.most


class Assessed:
    """The service under test, beside one that has no provider."""

    def __init__(self, service: Service, plain: Service, neighbour: Neighbour) -> None:
        self.service = service
        self.plain = plain
        self.neighbour = neighbour
        self._numbers = count(1)
        self._clients = local()

    def client(self) -> Client:
        """One for each thread."""
        if getattr(self._clients, "port", None) != self.service.port:
            self._clients.port, self._clients.client = self.service.port, self.service.client()
        found: Client = self._clients.client
        return found

    def profile(self, *providers: str) -> Json:
        """Nobody asked about this business before. providers: those that its profile has enough for."""
        number = next(self._numbers)
        return named("Acme GmbH", id=f"b-{number}", **{ASKED_WITH[name]: f"number {number}" for name in providers})

    def assess(self, *providers: str) -> Json:
        """One assessment, recorded or not by turns."""
        dry_run = next(self._numbers) % 2 == 0
        answer = self.client().assess(self.profile(*providers), dry_run=dry_run)
        assert answer.status == (200 if dry_run else 201), answer
        return answer.json

    def under_load(self, *providers: str, rounds: int = ROUNDS) -> tuple[list[Json], list[Json]]:
        """What many are told at once: those who need the providers, and those who need another or none."""

        def work(caller: int) -> tuple[list[Json], list[Json]]:
            needing, others = [], []
            for turn in range(rounds):
                needing.append(self.assess(*providers))
                others.append(self.assess(*("well",) * ((caller + turn) % 2)))
            return needing, others

        with ThreadPoolExecutor(CALLERS) as pool:
            told = list(pool.map(work, range(CALLERS)))
        return [one for needing, _ in told for one in needing], [one for _, others in told for one in others]

    def is_well(self, provider: str) -> bool:
        """Whether it is asked, answers, and is not on probation."""
        told = statuses(self.assess(provider))[provider]
        return told == "ok" and self.client().get("/health").json["breakers"][f"provider_{provider}"] == "closed"

    def without(self, *providers: str) -> Json:
        """What such a profile is told where there are no providers at all."""
        told: Json = self.plain.client().assess(self.profile(*providers), dry_run=True).json
        return told


def statuses(assessment: Json) -> dict[str, str]:
    return {line["source"]: line["status"] for line in assessment["evidence"] if line["source"] in ASKED_WITH}


def result(assessment: Json) -> Json:
    return {name: assessment[name] for name in ("score", "score_range", "level", "decision", "completeness", "reasons")}


def memory_bytes(service: Service, what: str) -> int:
    """Of all workers: `VmRSS` now, or `VmHWM` at most since it was forgotten."""
    told = [Path(f"/proc/{pid}/status").read_text() for pid in service.workers()]
    return sum(int(re.search(rf"{what}:\s*(\d+) kB", text)[1]) * 1024 for text in told)  # type: ignore[index]


def forget_peak(service: Service) -> None:
    for pid in service.workers():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(made)
    return made


def described(name: str, server: FakeProvider, timeout_s: float, more: str = "") -> str:
    text = PROVIDER.format(name=name, url=server.url, timeout=f"{timeout_s:g}s")
    text = text.replace("business.registration_number", f"business.{ASKED_WITH[name]}")
    return f"{text}    concurrency: {SLOTS}\n{more}"


@contextmanager
def configured(folder: Path, timeout_s: float = TIMEOUT_S) -> Iterator[Assessed]:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    with Neighbour(context(authority), context(other)) as neighbour:
        config = CONFIG
        config += described("answering", neighbour.faulty, timeout_s)
        config += described("hanging", neighbour.faulty, HANGING_TIMEOUT_S)
        config += described("sealed", neighbour.sealed, SEALED_TIMEOUT_S, f"    ca_file: {folder}/ca.pem\n")
        config += described("well", neighbour.well, TIMEOUT_S)
        with serving(folder / "service", config) as service, serving(folder / "plain") as plain:
            yield Assessed(service, plain, neighbour)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assessed]:
    with configured(tmp_path_factory.mktemp("providers")) as made:
        yield made


@pytest.fixture
def assessed(running: Assessed) -> Assessed:
    """With all providers well."""
    running.neighbour.behave(body(CLEAN))
    for name in ASKED_WITH:
        wait_until(lambda: running.is_well(name), f"{name} is well")  # noqa: B023
    return running


def check(assessed: Assessed, provider: str, status: str) -> None:
    """Under this load, with the provider at fault now, all are answered as they should be."""
    service = assessed.service
    forget_peak(service)
    before = memory_bytes(service, "VmRSS")
    with Connections(assessed.neighbour) as connections:
        needing, others = assessed.under_load(provider)
    connections.check()
    assert memory_bytes(service, "VmHWM") - before < GROWTH_BYTES
    without = result(assessed.without(provider))
    seen = Counter(statuses(one)[provider] for one in needing)
    # What was not made since the breaker is open is unavailable.
    assert set(seen) <= ({status} if status == "invalid" else {status, "unavailable"}), seen
    assert seen[status] > 0
    for one in needing:
        assert one["degraded"]
        assert result(one) == without
        assert {name for name, told in statuses(one).items() if told != "not_screened"} == {provider}
    for one in others:
        assert not one["degraded"]
        assert set(statuses(one).values()) <= {"ok", "not_screened"}
        assert statuses(one)[provider] == "not_screened"


def check_recovered(assessed: Assessed, provider: str) -> None:
    wait_until(lambda: assessed.is_well(provider), f"{provider} is asked again")
    needing, others = assessed.under_load(provider, rounds=1)
    assert not any(one["degraded"] for one in (*needing, *others))
    assert {statuses(one)[provider] for one in needing} == {"ok"}


def test_the_good_answer_is_no_worse_than_none(assessed: Assessed) -> None:
    """What the faults are compared with: no failure may give what only an answer gives."""
    needing, others = assessed.under_load("answering")
    without = assessed.without("answering")
    for one in needing:
        assert not one["degraded"]
        assert one["score"] < without["score"]
    assert not any(one["degraded"] for one in others)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_under_load_costs_facts_and_nothing_else(name: str, assessed: Assessed) -> None:
    behaviour, status = FAULTS[name]
    provider = "hanging" if status == "timeout" else "answering"
    assessed.neighbour.behave(behaviour)
    check(assessed, provider, status)
    assessed.neighbour.behave(body(CLEAN))
    check_recovered(assessed, provider)


def test_a_redirection_costs_facts_and_leads_nowhere(assessed: Assessed) -> None:
    elsewhere = assessed.neighbour.elsewhere

    async def redirect(exchange: Exchange) -> None:
        await exchange.answer(GOOD, 307, Location=f"{elsewhere.url}{exchange.target}")

    assessed.neighbour.behave(redirect)
    check(assessed, "answering", "invalid")
    assert elsewhere.connections == 0
    assessed.neighbour.behave(body(CLEAN))
    check_recovered(assessed, "answering")


def test_nobody_there_costs_facts_and_nothing_else(assessed: Assessed) -> None:
    assessed.neighbour.close(assessed.neighbour.faulty)
    check(assessed, "answering", "unavailable")
    assessed.neighbour.open(assessed.neighbour.faulty)
    check_recovered(assessed, "answering")


def test_a_certificate_that_nobody_vouches_for_costs_facts_and_nothing_else(assessed: Assessed) -> None:
    neighbour = assessed.neighbour
    neighbour.close(neighbour.sealed)
    neighbour.open(neighbour.distrusted)
    check(assessed, "sealed", "unavailable")
    assert neighbour.distrusted.requests == []
    neighbour.close(neighbour.distrusted)
    neighbour.open(neighbour.sealed)
    check_recovered(assessed, "sealed")


def test_a_provider_that_hears_no_farewell_has_no_more_connections_than_slots(assessed: Assessed) -> None:
    assessed.neighbour.behave(deafness)
    check(assessed, "sealed", "timeout")
    assessed.neighbour.behave(body(CLEAN))
    check_recovered(assessed, "sealed")


def test_all_that_fall_silent_at_once_share_the_connections_of_the_pool_and_hold_up_no_end(tmp_path: Path) -> None:
    with configured(tmp_path, HANGING_TIMEOUT_S) as assessed:
        neighbour, service = assessed.neighbour, assessed.service
        neighbour.behave(deafness)
        faulty = ("answering", "hanging", "sealed")
        with Connections(neighbour) as connections:
            needing, others = assessed.under_load(*faulty, rounds=1)
            batch = service.client().post("/v1/assessments/batch", {"items": [assessed.profile(*faulty)] * 100}).json
        connections.check()
        assert connections.most_faulty <= POOL
        needing += [item["assessment"] for item in batch["items"]]
        without = result(assessed.without(*faulty))
        for one in needing:
            assert one["degraded"]
            assert {statuses(one)[name] for name in faulty} <= {"timeout", "unavailable"}
            assert result(one) == without
        assert not any(one["degraded"] for one in others)
        answers: list[int] = []

        def work(client: Client) -> None:
            answers.append(client.assess(assessed.profile("answering")).status)

        asked = len(neighbour.faulty.requests)
        with Crowd(service, SLOTS, work):
            wait_until(lambda: len(neighbour.faulty.requests) > asked, "the provider is asked again")
            assert service.terminate() == 0, service.logged()
        assert set(answers) == {201}
        assert "Traceback" not in service.logged()
