"""What was acknowledged stays, whatever ends the service; what cannot be committed is not acknowledged."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from service import KEY, Answer, Client, Crowd, Json, Service, Wire, named, serving, wait_until

CALLERS = 8

FULL_BYTES = 40_960
"""More than the shared index of the log takes, less than the log holds once a model was stored."""


class Ledger:
    """What a crowd of callers was told: the id of each key that was acknowledged. Every key has its own business."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.sent: dict[str, Json] = {}
        self.refused: list[Answer] = []
        self._numbers = count()

    def work(self, client: Client) -> None:
        """Send one new request; a lost one stays in `sent` alone."""
        key = f"key-{next(self._numbers)}"
        self.sent[key] = named("Load Ltd", id=key)
        self.note(key, self.send(client, key))

    def send(self, client: Client, key: str) -> Answer:
        return client.assess(self.sent[key], {"Idempotency-Key": key})

    def note(self, key: str, answer: Answer) -> None:
        if answer.status == 201:
            earlier = self.acknowledged.setdefault(key, answer.json["id"])
            assert earlier == answer.json["id"], f"{key} was acknowledged as two assessments"
        else:
            self.refused.append(answer)

    def check(self, service: Service) -> None:
        """Everything acknowledged is there, everything sent can be sent again, and no key took effect twice."""
        client = service.client()
        recorded: dict[str, list[str]] = {}
        for one in client.walk(limit=200):
            recorded.setdefault(one["business_id"], []).append(one["id"])
        lost = [key for key, id in self.acknowledged.items() if id not in recorded.get(key, [])]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged assessments are gone"
        assert not [key for key, ids in recorded.items() if len(ids) > 1]
        for key in self.sent:
            answer = self.send(client, key)
            assert answer.status == 201, answer
            self.note(key, answer)
            assert recorded.setdefault(key, [answer.json["id"]]) == [answer.json["id"]]
        assert sum(1 for _ in client.walk(limit=200)) == len(self.sent)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "service") as running:
        yield running


def test_a_killed_service_has_everything_it_acknowledged(service: Service) -> None:
    ledger = Ledger()
    for cycle in range(1, 4):
        with Crowd(service, CALLERS, ledger.work):
            wait_until(lambda: len(ledger.acknowledged) >= 300 * cycle, "the callers are answered")  # noqa: B023
            service.kill()
        service.start()
    assert not ledger.refused
    ledger.check(service)


def test_batches_are_there_whole_after_a_kill_when_they_were_acknowledged(service: Service) -> None:
    acknowledged: list[str] = []

    def work(client: Client) -> None:
        answer = client.post("/v1/assessments/batch", {"items": [named("Batch Ltd", id="batch")] * 50})
        acknowledged.extend(item["assessment"]["id"] for item in answer.json["items"])

    with Crowd(service, 4, work):
        wait_until(lambda: len(acknowledged) >= 1000, "batches are answered")
        service.kill()
    service.start()
    recorded = {one["id"] for one in service.client().walk(limit=200)}
    assert set(acknowledged) <= recorded
    # A batch is written in parts, but each of its rows is whole.
    for id in list(recorded)[:50]:
        assert service.client().post(f"/v1/assessments/{id}/replay", b"").json == {"identical": True}


def test_one_of_two_workers_is_killed_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    ledger = Ledger()

    def work(client: Client) -> None:
        ledger.work(client)
        if len(ledger.sent) % 10 == 0:
            # Connect anew now and then, so that the connections spread over both workers.
            client.close()

    with serving(tmp_path / "service", WORKERS="2") as service:
        meet_both_workers(service)
        with Crowd(service, 3 * CALLERS, work):
            wait_until(lambda: len(ledger.acknowledged) >= 600, "the callers are answered")
            killed, kept = service.workers()
            os.kill(killed, signal.SIGKILL)
            reached = len(ledger.acknowledged)
            wait_until(lambda: len(ledger.acknowledged) >= reached + 300, "the other worker goes on")
            wait_until(lambda: len(set(service.workers()) - {killed, kept}) == 1, "another worker takes its place")
        assert kept in service.workers()
        service.wait_for_health()
        assert not ledger.refused
        ledger.check(service)


def runs(pid: int) -> bool:
    """Whether a process is there and more than its own remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_of_ids(client: Client) -> str:
    """What all request ids of one worker begin with."""
    return client.get("/health").headers["x-request-id"][:16]


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "service", WORKERS="2") as service:
        made = service.client().recorded(named("Orphaned Ltd"))
        workers = service.workers()
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        wait_until(lambda: not any(map(runs, workers)), "no orphan is left")
        wait_until(lambda: refuses_connections(service), "nobody keeps the port")
        service.start()
        assert service.client().get(f"/v1/assessments/{made['id']}").json == made


def meet_both_workers(service: Service) -> tuple[Client, Client]:
    """A connection to each; a connection stays with its worker."""
    by_worker: dict[str, Client] = {}

    def both_met() -> bool:
        client = service.client()
        by_worker.setdefault(start_of_ids(client), client)
        return len(by_worker) == 2

    wait_until(both_met, "connections to both workers, each of which makes request ids of its own")
    one, other = by_worker.values()
    return one, other


def test_two_workers_answer_from_one_file(tmp_path: Path) -> None:
    with serving(tmp_path / "service", WORKERS="2") as service:
        one, other = meet_both_workers(service)
        for client, reader in ((one, other), (other, one)):
            made = client.recorded(named("Shared Ltd", id="shared"))
            assert reader.get(f"/v1/assessments/{made['id']}").json == made
            assert next(reader.walk(business_id="shared")) == made
            assert reader.post(f"/v1/assessments/{made['id']}/replay", b"").json == {"identical": True}
        with ThreadPoolExecutor(2) as pool:
            for number in range(50):
                profile, key = named("Once Ltd", id=f"once-{number}"), {"Idempotency-Key": f"key-{number}"}
                answers = list(pool.map(lambda client, p=profile, k=key: client.assess(p, k), (one, other)))
                assert [answer.status for answer in answers] == [201, 201]
                assert answers[0].json == answers[1].json
        assert len([a for a in one.walk(limit=200) if a["business_id"].startswith("once")]) == 50


def begun(service: Service, body: bytes) -> Wire:
    """A request that the service has begun to read: it asked for the body."""
    wire = Wire(service.port)
    wire.write(
        b"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: " + KEY.encode() + b"\r\n"
        b"Content-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert b"100" in wire.interim()
    return wire


def refuses_connections(service: Service) -> bool:
    try:
        Wire(service.port).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def test_a_request_begun_before_the_end_is_answered_and_recorded(service: Service) -> None:
    body = b'{"business":{"name":"Late Ltd","jurisdiction":"DE"}}'
    wires = [begun(service, body) for _ in range(20)]
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses_connections(service), "no further connection is taken")
    ids = []
    for wire in wires:
        wire.write(body)
        answer = wire.answer()
        assert answer.status == 201
        ids.append(answer.json["id"])
        wire.close()
    assert service.wait() == 0
    service.start()
    assert sorted(one["id"] for one in service.client().walk()) == sorted(ids)


def test_an_end_under_load_breaks_off_no_answer_and_loses_nothing(service: Service) -> None:
    ledger = Ledger()
    with Crowd(service, CALLERS, ledger.work):
        wait_until(lambda: len(ledger.acknowledged) >= 300, "the callers are answered")
        code = service.terminate()
    assert code == 0, service.logged()
    assert not ledger.refused
    service.start()
    ledger.check(service)


def test_a_body_that_never_comes_does_not_keep_the_service_from_ending(tmp_path: Path) -> None:
    with serving(tmp_path / "service", "server: {body_timeout: 500ms}\n") as service:
        wire = begun(service, b" " * 100)
        service.process.send_signal(signal.SIGTERM)
        assert wire.answer().status == 408
        wire.close()
        assert service.wait() == 0


def test_an_idle_connection_does_not_keep_the_service_from_ending(service: Service) -> None:
    idle = [service.client() for _ in range(10)]
    for client in idle:
        assert client.get("/health").status == 200
    silent = [Wire(service.port) for _ in range(10)]
    assert service.terminate() == 0
    for wire in silent:
        wire.close()


def test_an_interrupt_from_the_keyboard_ends_the_service_as_a_term_does(service: Service) -> None:
    made = service.client().recorded(named("Interrupted Ltd"))
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.wait() == 0
    assert "Traceback" not in service.logged()
    service.start()
    assert service.client().get(f"/v1/assessments/{made['id']}").json == made


def test_a_key_is_remembered_over_a_restart(service: Service) -> None:
    key, profile = {"Idempotency-Key": "kept"}, named("Kept Ltd", id="kept")
    first = service.client().assess(profile, key)
    service.restart()
    again = service.client().assess(profile, key)
    assert (again.status, again.body) == (201, first.body)
    refused = service.client().assess(named("Other Ltd"), key)
    assert refused.json["type"] == "/problems/idempotency-key-reused"


def unavailable(answer: Answer) -> None:
    assert answer.status == 503, answer
    assert answer.json["type"] == "/problems/unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert "disk" not in answer.json["detail"].lower(), "the inside of the service shows"


def limit_files(service: Service, size: int) -> None:
    """The most that the workers may write into one file, as a full disk would end it; the hard limit stays."""
    for pid in service.workers():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_on_a_full_disk_nothing_is_acknowledged_and_afterwards_the_service_goes_on(service: Service) -> None:
    client = service.client()
    before = client.recorded(named("Before Ltd"))
    limit_files(service, FULL_BYTES)
    for _ in range(3):
        unavailable(client.assess(named("Full Ltd", id="full"), {"Idempotency-Key": "full"}))
        batch = client.post("/v1/assessments/batch", {"items": [named("Full Ltd", id="full")] * 3})
        assert [item["status"] for item in batch.json["items"]] == [503] * 3
        assert client.assess(named("Dry Ltd"), dry_run=True).status == 200
        assert client.get(f"/v1/assessments/{before['id']}").json == before
        assert client.get("/health").status == 200
    limit_files(service, resource.RLIM_INFINITY)
    made = client.assess(named("Full Ltd", id="full"), {"Idempotency-Key": "full"})
    assert made.status == 201
    assert [one["id"] for one in client.walk(business_id="full")] == [made.json["id"]]
    service.kill()
    service.start()
    assert [one["id"] for one in service.client().walk()] == [made.json["id"], before["id"]]


def test_a_disk_that_fills_under_load_and_is_freed_loses_nothing(service: Service) -> None:
    ledger = Ledger()
    with Crowd(service, CALLERS, ledger.work):
        for cycle in range(1, 4):
            wait_until(lambda: len(ledger.acknowledged) >= 200 * cycle, "the callers are answered")  # noqa: B023
            refused = len(ledger.refused)
            limit_files(service, FULL_BYTES)
            wait_until(lambda: len(ledger.refused) >= refused + 20, "the callers are refused")  # noqa: B023
            limit_files(service, resource.RLIM_INFINITY)
    for answer in ledger.refused:
        unavailable(answer)
    service.kill()
    service.start()
    ledger.check(service)


def test_while_another_program_holds_the_database_callers_are_told_to_come_again(tmp_path: Path) -> None:
    config = "database: {busy_timeout: 200ms}\n"
    with serving(tmp_path / "service", config) as service:
        client = service.client()
        before = client.recorded(named("Before Ltd"))
        other = sqlite3.connect(tmp_path / "service" / "data" / "kyb.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        unavailable(client.assess(named("Locked Ltd")))
        assert client.get(f"/v1/assessments/{before['id']}").json == before
        other.execute("ROLLBACK")
        other.close()
        assert client.assess(named("After Ltd")).status == 201


def test_a_database_file_that_vanishes_is_not_written_into_the_void(service: Service) -> None:
    client = service.client()
    client.recorded(named("Before Ltd"))
    data = service.folder / "data"
    kept = service.folder / "kept"
    data.rename(kept)
    unavailable(client.assess(named("Lost Ltd")))
    kept.rename(data)
    made = client.recorded(named("Found Ltd"))
    service.kill()
    service.start()
    assert service.client().get(f"/v1/assessments/{made['id']}").json == made


def test_records_go_into_the_database_that_stands_at_the_path_now(tmp_path: Path) -> None:
    """As when a backup is put in place under a running service."""
    with serving(tmp_path / "other") as other:
        kept = other.client().recorded(named("Kept Ltd"))
        assert other.terminate() == 0
    with serving(tmp_path / "service") as service:
        client = service.client()
        client.recorded(named("Before Ltd"))
        (service.folder / "data").rename(service.folder / "old")
        (other.folder / "data").rename(service.folder / "data")
        made = client.recorded(named("After Ltd"))
        service.kill()
        service.start()
        assert list(service.client().walk()) == [made, kept]
