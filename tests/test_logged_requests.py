"""The log of a service that runs: who is told of, what never is, and a log that nobody can write to."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from service import COMMAND, KEY, Client, Service, Wire, environment, exchange, named, serving, wait_until

MARK = "Zyxwvut"
"""Stands in everything personal that these tests send."""
REQUESTS = 2000


def lines(service: Service) -> list[dict[str, Any]]:
    """Every line of the log; what the command itself prints stands between them."""
    return [json.loads(row) for row in service.logged().splitlines() if row.startswith("{")]


def told(service: Service, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(service) if line["event"] == event]


def told_of(service: Service, event: str, route: str) -> list[dict[str, Any]]:
    return [line for line in told(service, event) if line["route"] == route]


@contextmanager
def logging_to(folder: Path, stderr: int, **settings: str) -> Iterator[Service]:
    """A service whose log goes to a descriptor of the test's."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder, **settings)
    popen = subprocess.Popen

    class Elsewhere(popen):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **{**more, "stderr": stderr})

    subprocess.Popen = Elsewhere  # type: ignore[misc]
    try:
        service.start()
    finally:
        subprocess.Popen = popen  # type: ignore[misc]
    try:
        yield service
    finally:
        service.stop()


def metric(client: Client, name: str) -> float:
    text = client.get("/metrics").body.decode()
    return sum(float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(f"{name} "))


def test_every_line_is_json_and_says_what_happened(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="100%") as service:
        client = service.client()
        assert client.assess(named("A"), {"X-Request-ID": "my-request-1"}).status == 201
        assert client.get("/nothing/here").status == 404
        assert service.terminate() == 0
        for line in lines(service):
            assert list(line)[:5] == ["time", "level", "event", "logger", "pid"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"])
        [made] = [line for line in told(service, "request") if line.get("request_id") == "my-request-1"]
        assert (made["method"], made["route"], made["status"], made["level"]) == (
            "POST",
            "/v1/assessments",
            201,
            "info",
        )
        assert 0 < made["duration_ms"] < 30_000
        assert re.fullmatch("[0-9a-f]{32}", made["trace_id"])
        [lost] = [line for line in told(service, "request") if line["status"] == 404]
        assert (lost["route"], lost["kind"]) == ("unmatched", "not-found")
        said = [line["message"] for line in lines(service) if line["logger"].startswith("_granian")]
        assert any("Starting granian" in text for text in said)
        assert any("Started worker-1" in text for text in said)
        # The workers' last words are heard, too.
        assert any("Stopping worker-1" in text for text in said)


def test_a_share_of_the_requests_is_logged(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="0") as service:
        client = service.client()
        for path in ("/health", "/nothing"):
            client.get(path)
        assert service.terminate() == 0
        assert told(service, "request") == []
    with serving(tmp_path / "half", LOG_LEVEL="info", LOG_ACCESS_SAMPLE="0.5") as service:
        client = service.client()
        for _ in range(400):
            client.get("/health")
        assert service.terminate() == 0
        assert 120 < len(told(service, "request")) < 280


def test_a_slow_request_is_told_of_with_its_stages(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_ACCESS_SAMPLE="0", LOG_SLOW_REQUEST="1ms") as service:
        client = service.client()
        items = [named(f"A {n}") for n in range(300)]
        assert client.post("/v1/assessments/batch", {"items": items}).status == 200
        wait_until(
            lambda: any(line["route"].endswith("/batch") for line in told(service, "slow_request")), "it is told of"
        )
        [slow] = [line for line in told(service, "slow_request") if line["route"].endswith("/batch")]
        assert slow["level"] == "warning"
        stages = slow["stages_ms"]
        outer = ["head", "key", "body", "queue"]
        assert list(stages) == [*outer, "decode", "gather", "score", "record", "render", "send"]
        assert sum(stages.values()) == pytest.approx(slow["duration_ms"], abs=0.1)
        assert stages["record"] > 0.1


def test_a_stage_that_is_slow_is_the_one_that_is_named(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_ACCESS_SAMPLE="0", LOG_SLOW_REQUEST="300ms") as service:
        slow_body = (
            b"POST /v1/assessments HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
            b"X-API-Key: " + KEY.encode() + b"\r\n\r\n"
        )
        with Wire(service.port) as wire:
            wire.write(slow_body)
            time.sleep(0.5)
            wire.write(json.dumps(named("A")).encode().ljust(100))
            assert wire.answer().status == 201
        wait_until(lambda: told(service, "slow_request"), "it is told of")
        [slow] = told(service, "slow_request")
        assert max(slow["stages_ms"], key=slow["stages_ms"].get) == "body"
        assert slow["stages_ms"]["body"] > 400


def test_each_failure_has_its_line(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_ACCESS_SAMPLE="0", LOG_LEVEL="error") as service:
        client = service.client()
        assert client.assess(named("A")).status == 201
        (tmp_path / "data" / "kyb.db").rename(tmp_path / "away.db")
        answers = [client.assess(named(f"{MARK} {n}")) for n in range(20)]
        assert {answer.status for answer in answers} == {503}
        wait_until(lambda: len(told(service, "request_failed")) == 20, "each is told of")
        failed = told(service, "request_failed")
        assert [line["request_id"] for line in failed] == [answer.headers["x-request-id"] for answer in answers]
        for line in failed:
            assert (line["level"], line["status"], line["route"]) == ("error", 503, "/v1/assessments")
            assert (line["error"], list(line["stages_ms"])[-1]) == ("StoreUnavailable", "record")
            assert "database file" in line["reason"]
        assert MARK not in service.logged()


def test_no_personal_data_is_logged_whatever_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_LEVEL="debug", LOG_ACCESS_SAMPLE="1", LOG_SLOW_REQUEST="1ms") as service:
        client = service.client()
        profile = {
            "business": {
                "id": f"{MARK}-1", "name": f"{MARK} GmbH", "jurisdiction": "DE", "registration_number": f"HRB {MARK}",
                "website": f"https://{MARK.lower()}.example", "email": f"{MARK}@{MARK}.example",
            },
            "ownership": {"owners": [{"name": f"{MARK} {MARK}", "kind": "person", "share_pct": 100}]},
        }  # fmt: skip
        made = client.assess(profile, {"Idempotency-Key": f"key-{MARK}"})
        assert made.status == 201
        assert client.assess(profile, {"Idempotency-Key": f"key-{MARK}"}).status == 201
        bad_field = {"business": {**profile["business"], f"{MARK}": MARK}}
        bad_value = {"business": {**profile["business"], "status": MARK}}
        assert {client.assess(bad).status for bad in (bad_field, bad_value)} == {422}
        assert client.post("/v1/assessments", f'{{"business": "{MARK}'.encode()).status == 400
        assert client.post("/v1/assessments", b"\xff" + MARK.encode()).status == 400
        assert client.post("/v1/assessments/batch", {"items": [profile, bad_field, 7]}).status == 200
        assert client.get("/v1/assessments", business_id=f"{MARK}-1").status == 200
        assert client.get("/v1/assessments", cursor=MARK).status in (400, 422)
        assert client.get("/v1/assessments", **{MARK: MARK}).status in (400, 422)
        assert client.get(f"/{MARK}/{MARK}").status == 404
        assert client.get(f"/v1/assessments/{MARK}").status == 404
        queries = {"queries": {"q": {"schema": "Person", "properties": {"name": [f"{MARK} {MARK}"]}}}}
        assert client.post("/match/default", queries).status == 200
        assert client.post(f"/match/{MARK}", queries).status == 404
        aside = {"business_id": f"{MARK}-1", "reason": f"{MARK} says so"}
        assert client.post("/v1/dispositions", aside).status == 422
        path = f"/v1/assessments/{made.json['id']}/overrides"
        assert client.post(path, {"level": "high", "reason": f"{MARK} said so, at length"}).status in (201, 409, 422)
        assert client.send(MARK.upper(), "/v1/assessments").status == 405
        assert service.client(f"kyb_test_{MARK}").get("/v1/models").status == 401
        assert client.get("/health", {"traceparent": MARK, "tracestate": MARK, "User-Agent": MARK}).status == 200
        for raw in (
            f"GET /{MARK} HTTP/1.1\r\nHost: {MARK} {MARK}\r\n\r\n",
            f"{MARK} / HTTP/1.1\r\nHost: a\r\nX-Request-ID: {MARK} {MARK}\r\n\r\n",
            f"GET /{MARK}?{MARK} HTTP/9.1\r\n{MARK}\r\n\r\n",
        ):
            with suppress(ConnectionError, OSError):
                exchange(service.port, raw.encode())
        assert service.terminate() == 0
        logged = service.logged()
        assert len(told(service, "request")) + len(told(service, "slow_request")) > 20
        assert MARK.lower() not in logged.lower()
        assert KEY not in logged
        assert KEY.rpartition("_")[2] not in logged


def flood(client: Client) -> None:
    """Requests each of which leaves a line."""
    for _ in range(REQUESTS):
        assert client.get("/health").status == 200


def test_no_request_waits_for_a_log_that_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with logging_to(tmp_path, writing, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="1") as service:
        client = service.client()
        # More than the pipe and the queue hold: a request that waited for its line would have no answer.
        for _ in range(7):
            flood(client)
        wait_until(lambda: metric(client, "log_lines_dropped_total") > 0, "lines are dropped")
        before = metric(client, "log_lines_dropped_total")
        flood(client)
        assert client.assess(named("A")).status == 201
        wait_until(lambda: metric(client, "log_lines_dropped_total") >= before + REQUESTS, "each of them is counted")
        os.set_blocking(reading, False)
        received = b""

        def is_told() -> bool:
            nonlocal received
            with suppress(BlockingIOError):
                received += os.read(reading, 1 << 20)
            return b"log_lines_dropped" in received

        wait_until(is_told, "there is room again, and the log says what it lost")
        os.set_blocking(reading, True)
        whole = received[: received.rindex(b"\n")].splitlines()
        assert all(json.loads(row)["event"] for row in whole)
        assert service.terminate() == 0
    os.close(reading)
    os.close(writing)


def test_the_service_ends_although_nobody_reads_its_log(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with logging_to(tmp_path, writing, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="1") as service:
        client = service.client()
        flood(client)
        begun = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - begun < 15
    os.close(reading)
    os.close(writing)


def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with logging_to(tmp_path, full, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="1") as service:
        client = service.client()
        assert client.assess(named("A")).status == 201
        wait_until(lambda: metric(client, "log_lines_dropped_total") > 0, "the lost lines are counted")
        assert service.terminate() == 0
    os.close(full)


def test_on_a_terminal_the_log_is_for_people(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with logging_to(tmp_path, theirs, LOG_LEVEL="info", LOG_ACCESS_SAMPLE="1") as service:
        assert service.client().get("/health").status == 200
        os.set_blocking(ours, False)
        received = b""

        def is_told() -> bool:
            nonlocal received
            with suppress(BlockingIOError):
                received += os.read(ours, 65_536)
            return b"status=200" in received

        wait_until(is_told, "the request is logged")
    os.close(ours)
    os.close(theirs)
    row = next(row for row in received.decode().splitlines() if "status=200" in row)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} (\x1b\[32m)?INFO    (\x1b\[0m)? request ", row)
    assert "route=/health" in row
    assert not row.startswith("{")


@pytest.mark.parametrize(("chosen", "is_json"), [("json", True), ("text", False)])
def test_the_form_can_be_chosen(tmp_path: Path, chosen: str, is_json: bool) -> None:
    with serving(tmp_path, LOG_LEVEL="info", LOG_FORMAT=chosen) as service:
        assert service.terminate() == 0
        rows = [row for row in service.logged().splitlines() if "Started worker-1" in row]
        assert {row.startswith("{") for row in rows} == {is_json}
        assert "\x1b" not in service.logged()


def test_other_commands_keep_their_output(tmp_path: Path) -> None:
    ran = subprocess.run(
        (*COMMAND[:-1], "model", "list"), env=environment({}), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "kyb" in ran.stdout
    assert ran.stderr == ""
