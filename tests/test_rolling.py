"""Two services behind a real HAProxy are replaced again and again under load: no request fails, and nothing is lost."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from acknowledged import Load
from databases import Postgres, Valkey, query
from haproxy import CONFIG, SERVERS, HAProxy
from outage import prepared
from proxy import reserve_port
from service import Service, unique

from app.settings import load
from app.settings.kinds import parse_duration, show_duration

needs_haproxy = pytest.mark.skipif(
    HAProxy.program() is None, reason="haproxy is not installed (Debian: apt-get install haproxy)"
)
pytestmark = needs_haproxy

ROLLOUTS = 20
USERS = 2000
"""Each sends once a second."""
FEWER = (2000, 1000, 500, 250)
"""Users to be tried: a machine that is busy does not carry all."""
TRIAL_S = 4.0
CARRIED, WITHIN_MS = 0.98, 500.0
"""Share of what is intended that has to be answered in a trial, and the time within which 99 % of it has to be."""
DRAIN_S = 2.0

PATIENT = """\
server: {request_deadline: 30s, shutdown_grace: 60s}
concurrency: {queue_wait: 20s}
database: {timeout: 20s, command_timeout: 15s, statement_timeout: 12s, acquire_timeout: 10s, connect_timeout: 10s}
redis: {timeout: 2s, acquire_timeout: 2s}
breaker: {slow_call: 30s}
monitoring: {enabled: false}
"""
"""A machine that is slow for a moment is not what is tried here."""

USUAL = {
    # As many files as every machine lets it have.
    "maxconn 24000": "maxconn 5000",
    # Several probes within the drain time of these tests.
    "inter 1s fall 2 rise 1": "inter 300ms fall 2 rise 1",
    "timeout check 5s": "timeout check 30s",
    "timeout server 15s": "timeout server 60s",
    "timeout queue 5s": "timeout queue 60s",
}
"""What of the shipped configuration is otherwise here."""
STRICT = USUAL | {"retries 3": "retries 0", "retry-on conn-failure empty-response": "retry-on none"}
"""What the service loses, nobody makes good."""


class Fleet(NamedTuple):
    """Two services on one database and one Valkey, with ports that are theirs also while they are down."""

    services: dict[str, Service]
    haproxy: HAProxy
    url: str

    def replace(self, name: str) -> None:
        """End a service as an orchestrator does, and start another in its place."""
        assert self.services[name].terminate() == 0, self.services[name].logged()
        assert not self.haproxy.takes(name)
        self.services[name].launch()
        self.haproxy.wait_for(name, up=True)

    @property
    def refusals(self) -> list[str]:
        """What the services say of requests that they did not answer as they should."""
        lines = [line for one in self.services.values() for line in one.logged().splitlines()]
        return [line for line in lines if "request_failed" in line][-20:]

    def check(self, loads: Sequence[Load]) -> None:
        """What was acknowledged is on record, and nothing else."""
        told = [id for load in loads for id in load.ids]
        assert len(told) == len(set(told)) == sum(load.answers[201] for load in loads)
        kept = [row["id"].bytes for row in query(self.url, "SELECT id FROM assessments")]
        assert len(kept) == len(told)
        assert set(kept) == set(told)


class Setup(NamedTuple):
    """drain_s: of the services.  changes: to the configuration of HAProxy."""

    drain_s: float
    changes: dict[str, str]


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest, own_postgres: Postgres, own_valkey: Valkey, tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet. The parameter: a Setup."""
    setup: Setup = request.param
    url = prepared(own_postgres)
    settings = {"DATABASE_URL": url, "REDIS_URL": own_valkey.url(), "DRAIN_TIME": f"{setup.drain_s}s"}
    with ExitStack() as stack:
        services = {}
        for name in SERVERS:
            port = stack.enter_context(reserve_port()).getsockname()[1]
            (tmp_path / name).mkdir()
            service = services[name] = Service(tmp_path / name, PATIENT, PORT=str(port), **settings)
            stack.callback(service.stop)
            service.start()
        ports = services["one"].port, services["two"].port
        haproxy = stack.enter_context(HAProxy(ports, setup.changes))
        for name in SERVERS:
            haproxy.wait_for(name, up=True)
        yield Fleet(services, haproxy, url)


def trials(fleet: Fleet, tmp_path: Path) -> list[Load]:
    """What was tried without a restart; the last with as many users as the machine carries."""
    tried: list[Load] = []
    for users in FEWER:
        with Load(fleet.haproxy.port, users, tmp_path / f"trial-{users}", unique("trial")) as load:
            time.sleep(TRIAL_S)
        assert not load.failures, load.said
        tried.append(load)
        if load.rate >= CARRIED * users and load.times.percentile_us(99) < 1000 * WITHIN_MS:
            break
    return tried


@pytest.mark.slow
@pytest.mark.parametrize("fleet", [Setup(DRAIN_S, STRICT)], indirect=True)
def test_twenty_rollouts_under_load_fail_no_request_and_lose_no_record(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = trials(fleet, tmp_path)
    users = tried[-1].users
    with Load(fleet.haproxy.port, users, tmp_path / "ids", unique("rollout")) as load:
        for _ in range(ROLLOUTS):
            for name in SERVERS:
                fleet.replace(name)
                load.take()
    found = {name: int(fleet.haproxy.figures()["BACKEND"][name]) for name in ("econ", "eresp", "wretr", "wredis")}
    with capsys.disabled():
        slow = "" if users == USERS else f"this machine carries {users:,}/s of {USERS:,}/s; "
        print(
            f"\n{ROLLOUTS} rollouts of two replicas: {slow}{load.said}; HAProxy {found}; "
            f"load average {os.getloadavg()[0]:.1f}"
        )
    assert load.failures == {}
    assert set(load.answers) == {201}, (load.said, found, fleet.refusals)
    # Nobody made good behind the callers' backs what the services lost.
    assert found == dict.fromkeys(found, 0)
    fleet.check([*tried, load])


@pytest.mark.slow
@pytest.mark.parametrize("fleet", [Setup(0, STRICT)], indirect=True)
def test_without_a_drain_requests_fail(fleet: Fleet, tmp_path: Path) -> None:
    """What the proof above is worth: services that stop at once lose requests."""
    with Load(fleet.haproxy.port, 500, tmp_path / "ids", unique("rollout")) as load:
        for name in SERVERS * 2:
            assert fleet.services[name].terminate() == 0
            fleet.haproxy.wait_for(name, up=False)
            fleet.services[name].launch()
            fleet.haproxy.wait_for(name, up=True)
    assert load.failures or set(load.answers) != {201}, load.said


@pytest.mark.slow
@pytest.mark.parametrize("fleet", [Setup(DRAIN_S, USUAL)], indirect=True)
def test_what_a_replica_that_is_killed_was_asked_is_asked_again_of_the_other(fleet: Fleet, tmp_path: Path) -> None:
    """By the shipped configuration, since every request has an Idempotency-Key: none is recorded twice."""
    with Load(fleet.haproxy.port, 500, tmp_path / "ids", unique("kill")) as load:
        for name in SERVERS * 3:
            fleet.services[name].kill()
            fleet.haproxy.wait_for(name, up=False)
            fleet.services[name].launch()
            fleet.haproxy.wait_for(name, up=True)
    assert (load.failures, set(load.answers)) == ({}, {201}), (load.said, fleet.refusals)
    fleet.check([load])


def test_the_shipped_configuration_is_taken_without_a_warning() -> None:
    told = {"BIND": "127.0.0.1:8081", "ONE": "127.0.0.1:1", "TWO": "127.0.0.1:2", "STATS": "/nowhere/stats"}
    done = subprocess.run(
        [HAProxy.program() or "", "-c", "-V", "-f", str(CONFIG)],
        env=told, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


def test_the_shipped_times_are_in_order() -> None:
    """A proxy notices before the drain is over, and waits longer than the service does."""
    text = CONFIG.read_text(encoding="utf-8")
    server = load({}).settings.server

    def told(pattern: str) -> float:
        [found] = re.findall(pattern, text)
        return parse_duration(found)

    [fall] = re.findall(r"fall (\d+)", text)
    assert told(r"inter (\d\w*)") * (int(fall) + 1) < server.drain_time
    assert told(r"timeout server (\w+)") > server.request_deadline
    assert f"DRAIN_TIME ({show_duration(server.drain_time)})" in text
