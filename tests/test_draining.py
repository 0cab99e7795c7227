"""A service that is told to end sends its callers elsewhere first, and goes on answering until they have noticed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from service import (
    HOST,
    KEY,
    Answer,
    Client,
    Service,
    Wire,
    environment,
    free_port,
    named,
    serving,
    wait_until,
)

from app.edge.stopping import Stopping

LONG = "10m"
"""Longer than any test: what ends before it was ended by something else."""
CALL_LIMIT_S = 30.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "service", DRAIN_TIME=LONG, LOG_LEVEL="info") as running:
        yield running


def ended_connection(answer: Answer) -> bool:
    return answer.headers.get("connection") == "close"


def phase(service: Service) -> str:
    """What it tells over a new connection."""
    with closing(Client(service.port)) as client:
        return str(client.get("/health").json["status"])


def drained(service: Service) -> None:
    wait_until(lambda: phase(service) == "draining", "it drains")


def kyb_drain(service: Service, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    told = environment({**service.settings, "PORT": str(service.port), **settings})
    command = [sys.executable, "-m", "app.cli", "drain", *arguments]
    return subprocess.run(
        command, env=told, cwd=service.folder, capture_output=True, text=True, timeout=CALL_LIMIT_S, check=False
    )


def test_until_it_drains_connections_are_kept(service: Service) -> None:
    client = service.client()
    for path in ("/health/ready", "/nowhere", "/v1/assessments"):
        assert not ended_connection(client.get(path))
    kept = client.connection.sock
    assert client.get("/health/ready").status == 200
    assert client.connection.sock is kept is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_service_that_drains_says_so_answers_all_and_ends_each_connection(
    service: Service, number: signal.Signals
) -> None:
    kept, posting = service.client(), service.client()
    assert kept.get("/health/ready").status == 200
    before = posting.recorded(named("Before Ltd"))
    service.process.send_signal(number)
    drained(service)
    # Over the connection from before, and then over one new one after the other.
    ready = kept.get("/health/ready")
    assert (ready.status, ready.json["status"]) == (503, "not_ready")
    assert ready.json["reasons"] == [
        "The service is draining: it answers for a while, closes connections, and then stops."
    ]
    assert ended_connection(ready)
    assert kept.connection.sock is None
    for path, status in (("/health/live", 200), ("/health", 200), ("/nowhere", 404), ("/v1/assessments", 200)):
        answer = kept.get(path)
        assert (answer.status, ended_connection(answer)) == (status, True), path
    made = posting.assess(named("After Ltd"))
    assert (made.status, ended_connection(made)) == (201, True)
    batch = posting.post("/v1/assessments/batch", {"items": [named("Batch Ltd")] * 3})
    assert (batch.status, ended_connection(batch)) == (200, True)
    assert ended_connection(posting.post("/v1/assessments", b"{"))
    assert len(list(posting.walk())) == 5
    assert b"\nservice_ready 0" in posting.get("/metrics").body
    service.process.send_signal(signal.SIGINT)
    assert service.wait() == 0
    service.start()
    assert before["id"] in {one["id"] for one in service.client().walk()}


def test_the_server_closes_what_an_answer_ended(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)
    drained(service)
    with Wire(service.port) as wire:
        wire.write(b"GET /health/live HTTP/1.1\r\nHost: kyb\r\n\r\n")
        assert wire.answer().headers["connection"] == "close"
        with pytest.raises(ConnectionError):
            wire.answer()


def test_a_preflight_ends_its_connection_too(tmp_path: Path) -> None:
    page = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with serving(tmp_path, DRAIN_TIME=LONG, CORS_ORIGINS="https://app.example") as service:
        client = service.client()
        assert not ended_connection(client.send("OPTIONS", "/v1/assessments", headers=page))
        service.process.send_signal(signal.SIGTERM)
        drained(service)
        for _ in range(2):
            answer = client.send("OPTIONS", "/v1/assessments", headers=page)
            assert (answer.status, ended_connection(answer)) == (200, True)


def test_term_ends_it_once_the_drain_time_is_over_and_not_before(tmp_path: Path) -> None:
    with serving(tmp_path, DRAIN_TIME="1500ms") as service:
        silent = Wire(service.port)
        service.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        served = time.monotonic()
        while service.process.poll() is None:
            try:
                if phase(service) == "draining":
                    served = time.monotonic()
            except OSError:
                break
        assert service.wait() == 0
        assert time.monotonic() - told >= 1.5
        # It was answering until the end, and a connection on which nothing came was no reason to go on.
        assert served - told > 1.2
        silent.close()


def test_the_time_counts_from_the_beginning_of_the_drain(tmp_path: Path) -> None:
    with serving(tmp_path, DRAIN_TIME="2s") as service:
        service.process.send_signal(signal.SIGUSR1)
        drained(service)
        time.sleep(2)
        assert phase(service) == "draining"
        told = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - told < 1.9


def test_a_second_term_and_one_to_all_its_processes_shorten_nothing(tmp_path: Path) -> None:
    """As service managers do it: to every process of the service, while the parent tells its workers as well."""
    with serving(tmp_path, DRAIN_TIME="1500ms", WORKERS="2") as service:
        told = time.monotonic()
        os.killpg(service.process.pid, signal.SIGTERM)
        drained(service)
        os.killpg(service.process.pid, signal.SIGTERM)
        assert service.wait() == 0
        assert time.monotonic() - told >= 1.5


def test_all_workers_drain_and_those_interrupted_stop_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, DRAIN_TIME=LONG, WORKERS="3", LOG_LEVEL="info") as service:
        service.process.send_signal(signal.SIGUSR1)

        def drains() -> set[int]:
            lines = [json.loads(line) for line in service.logged().splitlines() if line.startswith("{")]
            return {line["pid"] for line in lines if line["event"] == "draining"}

        def all_drain() -> bool:
            return drains() >= set(service.workers()) and len(service.workers()) == 3

        wait_until(all_drain, "every worker drains, those too that were just starting")
        os.kill(service.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(drains()) == 4 and all_drain(), "the one in its place drains")
        # The parent alone is told, as by `docker kill`.
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in service.logged(), "the parent hears it")
        interrupted = time.monotonic()
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0
        # Before any is killed, which is after the drain and 15 s.
        assert time.monotonic() - interrupted < 10


def test_a_worker_that_is_ended_alone_leaves_its_place_to_one_that_takes_requests(tmp_path: Path) -> None:
    with serving(tmp_path, DRAIN_TIME="100ms") as service:
        [ended] = service.workers()
        os.kill(ended, signal.SIGTERM)
        wait_until(lambda: ended not in service.workers() and service.workers(), "there is another")
        service.wait_for_health()
        wait_until(lambda: service.client().get("/health/ready").status == 200, "it takes requests")


def begun(service: Service, body: bytes) -> Wire:
    """A request whose body has not come yet."""
    wire = Wire(service.port)
    head = f"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    wire.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    return wire


def refuses(service: Service) -> bool:
    try:
        socket.create_connection((HOST, service.port), CALL_LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_was_begun_is_finished_after_the_drain_is_over(tmp_path: Path) -> None:
    body = json.dumps(named("Late Ltd")).encode()
    with serving(tmp_path, DRAIN_TIME="300ms") as service:
        early = begun(service, body)
        service.process.send_signal(signal.SIGTERM)
        drained(service)
        late = begun(service, body)
        wait_until(lambda: refuses(service), "the drain is over")
        ids = []
        for wire in (early, late):
            wire.write(body)
            answer = wire.answer()
            assert (answer.status, ended_connection(answer)) == (201, True)
            ids.append(answer.json["id"])
            wire.close()
        assert service.wait() == 0
        service.start()
        assert sorted(one["id"] for one in service.client().walk()) == sorted(ids)


def test_a_profile_is_taken_of_a_process_that_drains_and_ended_when_it_stops(service: Service) -> None:
    service.process.send_signal(signal.SIGUSR1)
    drained(service)
    client = service.client()
    assert client.get("/debug/pprof/heap", seconds=1).status == 200
    with Wire(service.port) as wire:
        wire.write(f"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        wait_until(lambda: b"Debug.profile" in client.get("/debug/pprof/goroutine").body, "the measurement runs")
        assert client.get("/debug/pprof/heap").status == 409
        service.process.send_signal(signal.SIGINT)
        assert wire.answer().status == 503
    assert service.wait() == 0


def test_a_probe_that_is_told_to_go_elsewhere_is_no_failure_in_the_log(service: Service) -> None:
    service.process.send_signal(signal.SIGUSR1)
    drained(service)
    with closing(Client(service.port)) as client:
        assert client.get("/health/ready").status == 503
    service.process.send_signal(signal.SIGINT)
    assert service.wait() == 0
    lines = [json.loads(line) for line in service.logged().splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines if line["event"] == "draining"] == ["info"]
    assert [line["level"] for line in lines if line.get("status") == 503] == ["info"]
    assert not [line for line in lines if line["level"] in ("error", "warning")]


def test_a_process_in_which_no_server_hears_signals_is_left_as_it_is() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    Stopping(0.0, pytest.fail, pytest.fail).hear()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers


# kyb drain


def test_kyb_drain_waits_until_the_callers_have_gone(service: Service) -> None:
    client = service.client()
    assert client.get("/health/ready").status == 200
    told = environment({**service.settings, "PORT": str(service.port)})
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "drain"], env=told, stdout=subprocess.PIPE, text=True
    ) as draining:
        drained(service)
        assert draining.poll() is None
        # An answer ends the connection, and with it the waiting.
        assert client.get("/health/ready").status == 503
        said, _ = draining.communicate(timeout=CALL_LIMIT_S)
    assert draining.returncode == 0
    assert said.startswith(f"http://{HOST}:{service.port} drains; no connection is left after ")
    again = kyb_drain(service)
    assert (again.returncode, again.stderr) == (0, "")
    assert phase(service) == "draining"


def test_kyb_drain_waits_no_longer_than_it_is_told(service: Service) -> None:
    wires = [Wire(service.port) for _ in range(2)]
    begun_s = time.monotonic()
    done = kyb_drain(service, "--wait", "500ms")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun_s >= 0.5
    assert "2 connections are left after " in done.stdout
    for wire in wires:
        wire.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "is not this service"),
        (b'{"status":"fine","version":"1"}', "is not this service"),
        (b'{"status":"ok","version":"1"}', "no process that listens on port"),
    ],
)
def test_kyb_drain_tells_nobody_but_the_service(service: Service, body: bytes, said: str) -> None:
    """The signal would end the process of these tests, which answers here."""
    with socket.create_server((HOST, 0)) as other:
        other.settimeout(CALL_LIMIT_S)
        command = [sys.executable, "-m", "app.cli", "drain", "--port", str(other.getsockname()[1])]
        with subprocess.Popen(command, env=environment(service.settings), stderr=subprocess.PIPE, text=True) as asking:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            _, told = asking.communicate(timeout=CALL_LIMIT_S)
    assert asking.returncode == 4
    assert said in told
    assert phase(service) != "draining"


def test_kyb_drain_says_what_is_wrong(service: Service) -> None:
    port = free_port()
    nobody = kyb_drain(service, PORT=str(port))
    assert (nobody.returncode, nobody.stdout) == (4, "")
    assert f"nobody answers on {HOST}:{port}: connection refused" in nobody.stderr
    wrong = kyb_drain(service, "--wait", "soon")
    assert (wrong.returncode, "is not a duration" in wrong.stderr) == (2, True)
    assert phase(service) != "draining"
