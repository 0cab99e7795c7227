"""The image as a service: hardened, without a shell, under load, told to stop, short of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from container import PYTHON, SCRATCH, USER, Container, podman, python, run, silent
from databases import Postgres, Valkey, migrated, query
from manual import SHOWN_ADDRESS, blocks, differences
from openapi_spec_validator import OpenAPIV31SpecValidator
from outage import Callers, held
from prometheus_client.parser import text_string_to_metric_families
from service import HOST, KEY, ROOT, SECRETS, Client, Wire, named, wait_until

pytestmark = pytest.mark.image

READY_S = 1.5
"""From the start of the first process."""

STARTS = 5

LIMIT_BYTES = 256 * 2**20
SHELLS = ("/bin/sh", "/bin/bash", "/bin/dash")

WRITABLE = """
import json, os, tempfile
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) != "/proc"]
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        continue
    found.append(folder)
print(json.dumps(found))
"""


def without_shells() -> list[str]:
    """Options that put an empty file in the place of every shell of the image."""
    script = f"import os; print(*{{os.path.realpath(p) for p in {SHELLS} if os.path.exists(p)}})"
    return [f"--volume=/dev/null:{path}:ro" for path in python(script).split()]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """On its own database, as a newcomer starts it: no secret, no key, no /tmp, and here no shell either."""
    container = Container(tmp_path_factory.mktemp("embedded"), flags=without_shells())
    for name in SECRETS:
        del container.settings[name]
    try:
        container.launch()
        yield container
    finally:
        container.kill()


@pytest.fixture
def client(embedded: Container) -> Iterator[Client]:
    key = (embedded.folder / "data" / "admin.key").read_text().strip()
    with closing(Client(embedded.port, key)) as caller:
        yield caller


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Of a database that has the tables."""
    return migrated(postgres.create_database())


@pytest.fixture
def recording(tmp_path: Path, url: str, valkey: Valkey) -> Iterator[Container]:
    """On PostgreSQL and Redis."""
    container = Container(tmp_path, DATABASE_URL=url, REDIS_URL=valkey.url(3))
    try:
        container.start()
        yield container
    finally:
        container.kill()


# What it answers


def test_the_example_of_the_readme_is_answered(embedded: Container, tmp_path: Path) -> None:
    page = blocks("README.md")
    asked = next(place for place, block in enumerate(page) if "/v1/assessments" in block.text)
    shown = json.loads(page[asked + 1].text)
    (tmp_path / "data").symlink_to(embedded.folder / "data")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    here = page[asked].text.replace(SHOWN_ADDRESS, f"{HOST}:{embedded.port}")
    told = subprocess.run(["sh", "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(told.stdout)
    for name in ("score", "level", "decision", "categories", "screening"):
        assert differences(shown[name], answer[name]) == []


def test_the_probes_answer_without_a_key(embedded: Container) -> None:
    with closing(Client(embedded.port, None)) as nobody:
        told = [nobody.get(f"/health{path}") for path in ("", "/live", "/ready", "/detailed")]
    assert [answer.status for answer in told] == [200, 200, 200, 200]
    parts = {part["name"]: part["status"] for part in told[3].json["components"]}
    assert parts["database_writes"] == parts["database_reads"] == "ok"


def test_it_is_measured(client: Client) -> None:
    client.recorded(named("Measured Ltd"))
    families = {one.name: one for one in text_string_to_metric_families(client.get("/metrics").body.decode())}
    assert sum(sample.value for sample in families["assessments"].samples) >= 1
    assert families["service_ready"].samples[0].value == 1


def test_it_describes_itself(client: Client) -> None:
    OpenAPIV31SpecValidator(client.get("/openapi.json").json).validate()
    page = client.get("/docs")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert b"/v1/assessments" in page.body


def test_lists_models_and_replay_are_there(client: Client) -> None:
    assert [one["name"] for one in client.get("/v1/watchlists").json["items"]] == ["demo"]
    assert {model["version"] for model in client.get("/v1/models").json["items"]} >= {"1.0.0", "1.1.0"}
    made = client.recorded(named("Replayed Ltd"))
    assert client.post(f"/v1/assessments/{made['id']}/replay", b"").json == {"identical": True}


def test_a_process_is_profiled_without_a_capability(client: Client) -> None:
    answer = client.get("/debug/pprof/profile", seconds=1)
    assert answer.status == 200, answer
    assert b"py-spy" in answer.body


def test_without_a_key_nobody_gets_in(embedded: Container) -> None:
    with closing(Client(embedded.port, None)) as nobody:
        assert nobody.assess(named("Nobody Ltd")).status == 401


# What it needs


def test_it_needs_no_shell(embedded: Container) -> None:
    for shell in SHELLS:
        assert embedded.exec(shell, "-c", "exit 0", check=False).returncode != 0
    assert embedded.exec("kyb", "health").stdout == '{"status":"ready","reasons":[]}\n'


def test_nothing_can_be_written_but_the_volume_and_shared_memory(embedded: Container, client: Client) -> None:
    found = json.loads(embedded.exec(PYTHON, "-c", WRITABLE).stdout)
    stated = ("/data", "/dev/shm", "/dev/mqueue")
    assert [folder for folder in found if not folder.startswith(stated)] == []
    assert {"/data", "/dev/shm"} <= set(found)
    client.recorded(named("Recorded Ltd"))


def test_with_postgresql_it_needs_no_volume_and_may_run_as_anybody(tmp_path: Path, url: str) -> None:
    container = Container(tmp_path, flags=[SCRATCH, "--user=54321:54321"], DATABASE_URL=url)
    try:
        container.start()
        container.client().recorded(named("Anybody Ltd"))
        assert container.exec(PYTHON, "-c", "import os; print(os.getuid())").stdout == "54321\n"
        assert container.terminate() == 0
    finally:
        container.kill()
    assert list((tmp_path / "data").iterdir()) == []


def test_it_has_no_right_that_it_does_not_need(embedded: Container) -> None:
    status = Path(f"/proc/{embedded.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(USER)] * 4
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


# How it starts


def test_it_is_ready_soon(tmp_path: Path) -> None:
    """From the start of its first process, without what it waited for a CPU. The best of some starts, for the disk."""
    taken: list[tuple[float, float]] = []
    while not taken or (min(taken)[0] > READY_S and len(taken) < STARTS):
        folder = tmp_path / str(len(taken))
        folder.mkdir()
        container = Container(folder)
        try:
            container.spawn()
            whole_s = container.wait_until_ready() - container.started()
            taken.append((whole_s - container.waited_s(), whole_s))
        finally:
            container.kill()
    own_s, whole_s = min(taken)
    print(f"ready after {own_s:.2f} s, or {whole_s:.2f} s with what it waited for a CPU")
    assert own_s <= READY_S, taken


def test_the_health_check_follows_the_service(recording: Container) -> None:
    def checked() -> bool:
        return podman("healthcheck", "run", recording.name, check=False).returncode == 0

    assert checked()
    (worker,) = recording.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert not checked()
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(checked, "it is well again")


# How it ends


def begun(port: int, body: bytes) -> Wire:
    """A request that the service has begun to read: it asked for the body."""
    wire = Wire(port)
    wire.write(
        b"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: " + KEY.encode() + b"\r\n"
        b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert b"100" in wire.interim()
    return wire


def test_told_to_stop_under_load_it_answers_what_was_begun_and_loses_nothing(recording: Container, url: str) -> None:
    body = json.dumps(named("Late Ltd")).encode()
    callers = Callers()
    with callers.among(recording):
        callers.wait_for_acknowledged(300)
        late = [begun(recording.port, body) for _ in range(20)]
        recording.process.send_signal(signal.SIGTERM)
        # It takes no further connections, and these are in its hands.
        wait_until(lambda: not reachable(recording.port), "no further connection is taken")
        ids = []
        for wire in late:
            wire.write(body)
            answer = wire.answer()
            assert answer.status == 201, answer
            ids.append(answer.json["id"])
            wire.close()
        assert recording.wait() == 0, recording.logged()
    assert callers.refused == []
    there = {str(id) for (id,) in query(url, "SELECT id FROM assessments")}
    assert set(ids) <= there
    assert set(callers.acknowledged.values()) <= there
    recording.start()
    callers.check(url, recording)


def reachable(port: int) -> bool:
    try:
        Wire(port).close()
    except OSError:
        return False
    return True


def test_told_to_stop_while_it_starts_it_does(tmp_path: Path) -> None:
    """The first process of a container ignores a signal that it has no handler for."""
    with closing(silent()) as server:
        url = f"postgresql://kyb@{HOST}:{server.getsockname()[1]}/kyb"
        container = Container(tmp_path, DATABASE_URL=url)
        try:
            container.spawn()
            connection, _ = server.accept()
            began = time.monotonic()
            podman("kill", "--signal", "TERM", container.name)
            assert container.wait() == 143
            assert time.monotonic() - began < 5
            connection.close()
        finally:
            container.kill()


# Limits


def test_it_serves_within_little_memory_and_the_limit_is_one(tmp_path: Path, url: str) -> None:
    """The limit is of the control group, which the runtime sets: a process that takes more is killed."""
    limit = [f"--memory={LIMIT_BYTES}", f"--memory-swap={LIMIT_BYTES}"]
    greedy = run("-c", f"bytearray({LIMIT_BYTES}).find(1)", flags=limit, entrypoint=PYTHON, check=False)
    assert greedy.returncode == 137, greedy
    container = Container(tmp_path, flags=[SCRATCH, *limit], DATABASE_URL=url)
    try:
        container.start()
        limits = json.loads(container.exec("kyb", "doctor", "limits", "--json", check=False).stdout)["findings"]
        (memory,) = [one for one in limits if one["about"] == "memory"]
        assert memory["figures"]["limit"] == LIMIT_BYTES
        callers = Callers()
        with callers.among(container):
            callers.wait_for_acknowledged(3000, limit_s=120)
        (worker,) = container.workers()
        used = sum(held(pid).memory_bytes for pid in (container.pid, worker))
        print(f"resident {used / 1e6:.0f} MB after {len(callers.acknowledged)} assessments by 16 callers")
        assert container.terminate() == 0, container.logged()
        assert callers.refused == []
    finally:
        container.kill()
