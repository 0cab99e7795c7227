"""`kyb loadtest` and its script as a shell sees them, and a short run against the real service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from service import HOST, KEY, Service, free_port, serving

from app.cli.commands import kyb
from app.cli.loadtest_commands import loadtest
from app.loadtest.breaking import worker
from app.loadtest.service import found

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "load_test_10k.sh"
COMMAND = (sys.executable, "-m", "app.cli", "loadtest")
FLAGS = ["quick", "baseline", "ramp-up", "sustained", "spike", "stress", "endurance", "generate-report"]
LIMIT_S = 240


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), PERFORMANCE_MONITORING_INTERVAL="500ms") as started:
        yield started


def url(port: int) -> str:
    return f"http://{HOST}:{port}"


def call(folder: Path, *arguments: object) -> Result:
    """The command within this process, for what is refused before anything runs."""
    env: dict[str, str | None] = {"KYB_KEY": None, "KYB_KEY_FILE": None}
    return CliRunner().invoke(kyb, ["loadtest", "--output", str(folder), *map(str, arguments)], env=env)


def run(folder: Path, *arguments: object, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "KYB_KEY": key, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S
    )


def written(folder: Path) -> dict[str, Any]:
    """The report of the only run."""
    (file,) = folder.glob("logs/load-testing/*/report.json")
    assert (file.parent / "report.html").stat().st_size > 1000
    assert "# " in (file.parent / "report.md").read_text()
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_script_takes_the_flags_it_promises(tmp_path: Path) -> None:
    known = {option for parameter in loadtest.params for option in parameter.opts}
    assert {f"--{flag}" for flag in FLAGS} | {"--url", "--key", "--users", "--duration", "--scale"} <= known
    closed = url(free_port())
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    for flag in FLAGS[:-1]:
        ended = subprocess.run(
            [SCRIPT, f"--{flag}", "--scale", "0.1", "--users", "10", "--url", closed, "--key", "k"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        assert "cannot be reached" in ended.stderr


def test_the_script_is_a_plain_shell_script() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert subprocess.run(["sh", "-n", SCRIPT], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", SCRIPT], check=False).returncode == 0


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    ended = call(tmp_path, "--quick", "--url", url(free_port()))
    assert ended.exit_code == 2
    assert "cannot be reached: Connection refused. Is the service started?" in ended.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["kyb_test_nobody", ""], ids=["wrong", "none"])
def test_a_key_that_is_not_accepted(tmp_path: Path, service: Service, key: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call(tmp_path, "--baseline", "--url", url(service.port), *(["--key", key] if key else []))
    assert ended.exit_code == 2
    assert "kyb keys create --role assessor" in ended.output


def test_a_key_that_may_only_read(tmp_path: Path, service: Service) -> None:
    ended = call(tmp_path, "--baseline", "--url", url(service.port), "--key", service.new_key("viewer"))
    assert ended.exit_code == 2
    assert "role assessor" in ended.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mix", "chaos"], "there is no mix 'chaos'"),
        (["--duration", "long"], "90s or 10m"),
        (["--quick", "--spike"], "without others"),
        (["--compare", "nowhere"], "is not there"),
        (["--generate-report"], "there is no run"),
        (["--url", "https://127.0.0.1"], "plain HTTP"),
        (["--fault", "redis-down", "--sustained"], "--fault-command"),
        (["--fault", "worker-kill", "--sustained", "--spike"], "one scenario"),
        (["--fault-pid", "1"], "Name it with --fault"),
        (["--fault", "worker-kill@10s", "--duration", "30s"], "50 are needed"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    tmp_path: Path, service: Service, arguments: list[str], says: str
) -> None:
    ended = call(tmp_path, "--url", url(service.port), "--key", KEY, *arguments)
    assert ended.exit_code == 2, ended.output
    assert says in ended.output


def test_a_key_file_that_cannot_be_read(tmp_path: Path, service: Service) -> None:
    ended = call(tmp_path, "--baseline", "--url", url(service.port), "--key-file", tmp_path / "nowhere")
    assert ended.exit_code == 2
    assert "nowhere cannot be read: no such file" in ended.output


def test_a_worker_is_known_only_where_it_listens(service: Service) -> None:
    assert worker(found(url(service.port), KEY)) in service.workers()
    assert worker(found(url(free_port()), KEY)) is None


@pytest.mark.slow
def test_a_quick_run_against_the_service(tmp_path: Path, service: Service) -> None:
    ended = run(tmp_path, "--quick", "--scale", "0.2", "--users", "100", "--url", url(service.port))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"All together: met", ended.stdout)
    report = written(tmp_path)
    assert [one["name"] for one in report["scenarios"]] == ["baseline", "ramp-up", "spike"]
    assert report["verdict"] == "met"
    assert report["environment"]["service"]["model"].startswith("kyb@")
    spike = report["scenarios"][-1]
    assert spike["users"] == 200
    assert spike["errors"] == 0
    assert spike["answered"] == spike["intended"]
    assert {route["kind"] for route in spike["routes"]} >= {"assess", "read"}
    seconds = spike["seconds"]
    assert any(second["service_memory"] for second in seconds)
    assert any(second["service_lag_s"] is not None for second in seconds)
    assert any(second["service_cpu"] for second in seconds)
    again = run(tmp_path, "--generate-report", "--compare", str(next(tmp_path.glob("logs/load-testing/*"))))
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_killed_worker_is_a_fault_that_is_recovered_from(tmp_path: Path, service: Service) -> None:
    before = service.workers()
    ended = run(
        tmp_path, "--users", 50, "--duration", "50s", "--fault", "worker-kill@6s", "--mix", "assessments",
        "--url", url(service.port),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (scenario,) = written(tmp_path)["scenarios"]
    (fault,) = scenario["faults"]
    assert fault["set_s"] == pytest.approx(6, abs=1)
    assert fault["recovered_after_s"] < 30
    assert service.workers() != before


@pytest.mark.slow
def test_a_missed_target_is_the_exit_code(tmp_path: Path, service: Service) -> None:
    key = service.new_key("assessor", rate="5/s burst 5", tier=None)
    ended = run(tmp_path, "--baseline", "--scale", "0.1", "--url", url(service.port), key=key)
    assert ended.returncode == 5, ended.stdout + ended.stderr
    assert "5 requests/s" in ended.stderr
    assert "429" in ended.stdout
