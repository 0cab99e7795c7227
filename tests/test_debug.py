"""Profiles of a running service, as whoever looks after it takes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import KEY, Crowd, Service, Wire, named, serving, wait_until

PATHS = ("goroutine", "heap", "profile")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("house")) as service:
        yield service


@pytest.fixture
def loaded(house: Service) -> Iterator[Service]:
    """The service, at work."""
    with Crowd(house, 4, lambda client: client.assess(named("Acme Trading GmbH"), dry_run=True)):
        yield house


def begun(service: Service, what: str) -> Wire:
    """A caller who has asked for a measurement and waits for it."""
    wire = Wire(service.port)
    wire.write(f"GET /debug/pprof/{what} HTTP/1.1\r\nHost: kyb.test\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    return wire


def is_measured(service: Service) -> bool:
    """Whether a measurement runs, seen without asking for another."""
    client = service.client()
    answer = client.get("/debug/pprof/goroutine")
    client.close()
    return b" Debug._unless_over " in answer.body


def samplers(worker: int) -> list[int]:
    """The running children of a worker, of any of its threads."""
    children = [file.read_text().split() for file in Path(f"/proc/{worker}/task").glob("*/children")]
    return [int(pid) for pids in children for pid in pids]


def test_tasks_and_threads_are_shown_by_their_stacks(loaded: Service) -> None:
    answer = loaded.client().get("/debug/pprof/goroutine")
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    text = answer.body.decode()
    assert "Gate._live  app/edge/gate.py:" in text
    assert ": watchlists\n" in text
    assert "store-write" in text
    assert "MainThread" in text


def test_allocations_are_shown_by_file_and_line(loaded: Service) -> None:
    answer = loaded.client().get("/debug/pprof/heap", seconds=1, top=5)
    assert answer.status == 200, answer
    text = answer.body.decode()
    assert "traced for the 1 s of this request" in text
    assert "resident" in text
    assert "other places" in text
    assert ".py:" in text


def test_a_profile_shows_the_function_that_is_hot(house: Service) -> None:
    batch = {"items": [named("Acme Trading GmbH")] * 1000}
    with Crowd(house, 2, lambda client: client.post("/v1/assessments/batch", batch, dry_run=True)):
        answer = house.client().get("/debug/pprof/profile", seconds=2, format="speedscope")
    assert answer.status == 200, answer
    assert answer.json["exporter"] == "py-spy"
    (profile,) = answer.json["profiles"]
    frames = answer.json["shared"]["frames"]

    def share(name: str) -> float:
        stacks = zip(profile["samples"], profile["weights"], strict=True)
        within = sum(weight for stack, weight in stacks if any(frames[place]["name"] == name for place in stack))
        return float(within / profile["endValue"])

    # The service does nothing but score and render batches.
    assert share("Assessments._batched") > 0.5
    assert share("Gate.__call__") >= share("Assessments._batched")


def test_a_profile_is_a_page_that_loads_nothing(loaded: Service) -> None:
    answer = loaded.client().get("/debug/pprof/profile", seconds=1)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Gate.__call__" in answer.body.decode()


def test_each_answer_says_which_worker_it_is_of(tmp_path: Path) -> None:
    with serving(tmp_path, WORKERS="2") as service:
        for path in PATHS:
            answer = service.client().get(f"/debug/pprof/{path}{'' if path == 'goroutine' else '?seconds=1'}")
            assert answer.status == 200, answer
            assert int(answer.headers["x-worker-pid"]) in service.workers()


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("profile?seconds=0", "/query/seconds"),
        ("profile?seconds=61", "/query/seconds"),
        ("profile?seconds=1.5", "/query/seconds"),
        ("profile?seconds=1&seconds=2", "/query/seconds"),
        ("profile?format=svg", "/query/format"),
        ("profile?debug=1", "/query/debug"),
        ("heap?seconds=11", "/query/seconds"),
        ("heap?top=0", "/query/top"),
        ("heap?format=html", "/query/format"),
        ("goroutine?debug=2", "/query/debug"),
    ],
)
def test_a_parameter_that_is_not_right_is_refused(house: Service, path: str, pointer: str) -> None:
    answer = house.client().get(f"/debug/pprof/{path}")
    assert answer.status == 422, answer
    assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


def test_one_at_a_time_and_the_second_is_told_when_to_come_back(house: Service) -> None:
    with begun(house, "profile?seconds=3") as first:
        wait_until(lambda: is_measured(house), "the first measurement to run")
        answer = house.client().get("/debug/pprof/heap")
        assert answer.status == 409, answer
        assert answer.json["type"] == "/problems/profile-running"
        assert 1 <= int(answer.headers["retry-after"]) <= 3
        # What is looked at in passing needs no turn.
        assert house.client().get("/debug/pprof/goroutine").status == 200
        assert first.answer().status == 200
    assert house.client().get("/debug/pprof/heap").status == 200


@pytest.mark.parametrize("what", ["profile?seconds=60", "heap?seconds=10"])
def test_a_caller_who_goes_away_leaves_nothing_running(house: Service, what: str) -> None:
    (worker,) = house.workers()
    with begun(house, what):
        wait_until(lambda: is_measured(house), "the measurement to run")
        if what.startswith("profile"):
            wait_until(lambda: samplers(worker), "the sampler to run")
    wait_until(lambda: not samplers(worker), "the sampler to end")
    wait_until(lambda: not is_measured(house), "the measurement to end")
    assert house.client().get("/debug/pprof/heap").status == 200


def test_a_service_that_is_told_to_stop_does_not_wait_for_a_profile(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        with begun(service, "profile?seconds=60") as caller:
            wait_until(lambda: is_measured(service), "the measurement to run")
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            answer = caller.answer()
            assert (answer.status, answer.json["type"]) == (503, "/problems/unavailable")
        assert service.wait() == 0
        # A worker is killed after 15 s. The server's own line "Killing worker" also comes now and then of one that has
        # just ended by itself.
        assert time.monotonic() - began < 10


def test_it_works_where_there_is_no_place_for_another_request(tmp_path: Path) -> None:
    config = "concurrency:\n  max_concurrent_requests: 1\n  max_queue: 1\n  queue_wait: 1ms\n"
    with serving(tmp_path, config) as service:
        # The only place is held by a batch; whoever comes after is shed.
        batch = {"items": [named("Acme Trading GmbH")] * 1000}
        shed: list[int] = []

        def work(client: object) -> None:
            shed.append(client.post("/v1/assessments/batch", batch, dry_run=True).status)  # type: ignore[attr-defined]

        with Crowd(service, 4, work):
            wait_until(lambda: 503 in shed, "overload")
            for path in ("goroutine", "heap?seconds=1", "profile?seconds=1"):
                assert service.client().get(f"/debug/pprof/{path}").status == 200


def test_it_counts_against_the_rate_of_its_key(house: Service) -> None:
    client = house.client(house.new_key("admin", tier=None, rate="1/s burst 2"))
    assert [client.get("/debug/pprof/goroutine").status for _ in range(3)] == [200, 200, 429]


def test_each_use_is_in_the_audit_trail(house: Service) -> None:
    key = house.new_key("admin", "looked-at")
    client = house.client(key)
    for path in ("goroutine", "heap?seconds=1", "profile?seconds=1"):
        assert client.get(f"/debug/pprof/{path}").status == 200
    wait_until(lambda: len(client.get("/v1/audit", act="process.profiled").json["items"]) == 3, "the entries")
    entries = client.get("/v1/audit", act="process.profiled").json["items"]
    (worker,) = house.workers()
    assert {entry["actor"] for entry in entries} == {key[9:21]}
    assert {entry["detail"]["what"]: entry["detail"].get("seconds") for entry in entries} == {
        "goroutine": None,
        "heap": 1,
        "profile": 1,
    }
    assert {entry["detail"]["pid"] for entry in entries} == {worker}


def test_traced_from_the_start_everything_is_shown(tmp_path: Path) -> None:
    with serving(tmp_path, TRACE_ALLOCATIONS="true") as service:
        text = service.client().get("/debug/pprof/heap", seconds=1).body.decode()
        assert "traced since the start" in text
        assert os.path.join("app", "") in text
