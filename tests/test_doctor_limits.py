"""`kyb doctor limits`: what the system allows against what the settings need."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from databases import Postgres, Valkey
from doctored import COMMAND, LIMIT_S, about, examined, within
from service import environment, free_port

from app.doctor import clocks, limits, process
from app.doctor.findings import Finding
from app.settings import Settings, load

MIB = 1 << 20


def limited(kind: int, soft: int, hard: int | None = None, **settings: str) -> list[dict[str, Any]]:
    """What a process finds that is given these limits."""
    done = subprocess.run(
        [*COMMAND, "limits", "--json"],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        preexec_fn=lambda: resource.setrlimit(kind, (soft, soft if hard is None else hard)),
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def of(config: str = "", **environ: str) -> Settings:
    return load(environ, config or None).settings


def test_every_limit_is_looked_at() -> None:
    names = {finding["about"] for finding in examined({}, "limits")}
    assert names >= {"open files", "CPU", "memory", "threads", "backlog", "ports", "shared memory", "temporary files"}
    assert names >= {"lists", "clock"}


def test_too_few_open_files_for_the_connections_expected_is_wrong() -> None:
    shown = about(limited(resource.RLIMIT_NOFILE, 1024), "open files")
    assert shown["verdict"] == "wrong"
    assert shown["figures"] == {"soft": 1024, "hard": 1024, "needed": 20_100}
    assert "LimitNOFILE=" in shown["action"]
    assert "server.backpressure to 924 at most" in shown["action"]


def test_a_soft_limit_that_the_service_can_raise_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text("server: {backpressure: 500}\n")
    shown = about(limited(resource.RLIMIT_NOFILE, 300, 600, CONFIG_FILE=str(file)), "open files")
    assert (shown["verdict"], shown["figures"]) == ("ok", {"soft": 300, "hard": 600, "needed": 600})


def test_open_files_for_what_is_expected_and_no_more_are_to_be_looked_at() -> None:
    shown = about(limited(resource.RLIMIT_NOFILE, 10_200), "open files")
    assert shown["verdict"] == "look"


def test_pools_count_among_the_files(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text("server: {backpressure: 500}\n")
    server = {"CONFIG_FILE": str(file), "DATABASE_URL": f"postgresql://u@127.0.0.1:{free_port()}/kyb"}
    alone = about(limited(resource.RLIMIT_NOFILE, 620, CONFIG_FILE=str(file)), "open files")
    pooled = about(limited(resource.RLIMIT_NOFILE, 620, **server), "open files")
    assert (alone["verdict"], alone["figures"]["needed"]) == ("ok", 600)
    assert (pooled["verdict"], pooled["figures"]["needed"]) == ("look", 690)


def test_a_backlog_beyond_the_kernels_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("server: {backlog: 65535}\n")
    most = process.number_of(limits.NET / "core/somaxconn")
    shown = limits._backlog(of(str(file)))
    assert shown.verdict == ("look" if most is not None and most < 65535 else "ok")


def test_more_workers_than_processors_are_to_be_looked_at() -> None:
    many = limits._cpus(of(WORKERS="200"), process.ControlGroups())[0]
    assert (many.verdict, "Set WORKERS to " in many.action) == ("look", True)


# Control groups, as files


def unified(root: Path, **files: str) -> process.ControlGroups:
    """A group of version 2 in a container of its own namespace."""
    root.mkdir(exist_ok=True)
    (root / "cgroup.controllers").write_text("cpu memory pids")
    for name, text in files.items():
        (root / name.replace("_", ".", 1)).write_text(f"{text}\n")
    membership = root / "membership"
    membership.write_text("0::/\n")
    return process.ControlGroups(root, membership)


def test_the_limits_of_a_control_group_of_version_2(tmp_path: Path) -> None:
    groups = unified(
        tmp_path,
        memory_current=str(400 * MIB),
        memory_max=str(512 * MIB),
        cpu_max="150000 100000",
        cpu_stat="usage_usec 5\nnr_periods 1000\nnr_throttled 300",
        pids_current="30",
        pids_max="40",
    )
    assert groups.memory() == (400 * MIB, 512 * MIB)
    assert groups.cpus() == 1.5
    memory = limits._memory(of(), groups)
    assert (memory.verdict, memory.figures["limit"]) == ("look", 512 * MIB)
    cpu, throttled = limits._cpus(of(WORKERS="2"), groups)
    assert (cpu.verdict, cpu.figures["quota"], throttled.verdict) == ("look", 1.5, "wrong")
    threads = limits._threads(of(), groups)
    assert (threads.verdict, threads.figures["limit"]) == ("wrong", 40)


def test_no_limit_of_a_control_group(tmp_path: Path) -> None:
    groups = unified(
        tmp_path, memory_current="1000", memory_max="max", cpu_max="max 100000", pids_current="3", pids_max="max"
    )
    assert groups.memory() == (1000, None)
    assert groups.cpus() is None
    assert groups.pids() == (3, None)


def test_the_least_limit_of_a_group_and_its_parents_holds_in_version_1(tmp_path: Path) -> None:
    pod = tmp_path / "memory" / "pod"
    (pod / "container").mkdir(parents=True)
    for folder, used, most in ((pod, 900, 1000), (pod / "container", 300, 5000), (tmp_path / "memory", 1, 1 << 63)):
        (folder / "memory.usage_in_bytes").write_text(str(used))
        (folder / "memory.limit_in_bytes").write_text(str(most))
    (tmp_path / "cpu" / "pod").mkdir(parents=True)
    (tmp_path / "cpu" / "pod" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "pod" / "cpu.cfs_period_us").write_text("100000")
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/pod/container\n1:cpu,cpuacct:/pod\n0::/\n")
    groups = process.ControlGroups(tmp_path, membership)
    assert groups.memory() == (900, 1000)
    assert groups.cpus() == 0.5
    assert groups.pids() == (None, None)


# Folders and clocks


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere.
    monkeypatch.setattr(limits.os, "access", lambda path, mode: False)
    assert limits._folder("lists", tmp_path / "lists", (1, 1)).verdict == "wrong"


def test_room_for_files_is_compared_with_what_is_needed(tmp_path: Path) -> None:
    verdicts = [
        limits._folder("lists", tmp_path / "new", least).verdict for least in ((1, 1), (1 << 60, 1), (1 << 60, 1 << 60))
    ]
    assert verdicts == ["ok", "look", "wrong"]


def test_the_clocks_of_both_servers_are_compared_with_ours(postgres: Postgres, valkey: Valkey) -> None:
    settings = {"DATABASE_URL": postgres.url(), "REDIS_URL": valkey.url()}
    findings = examined(settings, "limits")
    for whose in ("database", "Redis"):
        shown = about(findings, f"clock of {whose}")
        assert (shown["verdict"], abs(shown["figures"]["skew_s"]) < 1) == ("ok", True)


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0.2, "ok"), (-5.0, "look"), (90.0, "wrong")])
def test_a_clock_that_goes_otherwise_is_told(ahead_s: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def theirs() -> float:
        return 1_000_000.0 + ahead_s

    monkeypatch.setattr(clocks.time, "time", lambda: 1_000_000.0)
    shown: Finding = asyncio.run(clocks._skew("database", theirs))
    assert shown.verdict == verdict
    assert ("ahead of ours" if ahead_s > 0 else "behind ours") in shown.seen


def test_servers_that_are_away_do_not_hold_the_rest_up(own_postgres: Postgres, own_valkey: Valkey) -> None:
    own_postgres.pause()
    own_valkey.pause()
    with within(15):
        findings = examined({"DATABASE_URL": own_postgres.url(), "REDIS_URL": own_valkey.url()}, "limits")
    assert about(findings, "open files")
    assert about(findings, "clock of database")["seen"].startswith("not known")
    assert about(findings, "clock of Redis")["seen"].startswith("not known")


def test_who_holds_a_lock_on_a_byte_is_read_from_the_kernels_list(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    locks.write_text(
        "1: POSIX  ADVISORY  WRITE 4000001 fd:00:77 120 120\n"
        "1: -> POSIX  ADVISORY  WRITE 4000002 fd:00:77 120 120\n"
        "2: POSIX  ADVISORY  READ 4000003 fd:00:77 123 123\n"
        "3: FLOCK  ADVISORY  WRITE 4000004 fd:00:78 0 EOF\n"
    )
    assert process.holders(77, 120, locks) == ["pid 4000001"]
    assert process.holders(77, 121, locks) == []
    assert process.holders(78, 120, locks) == ["pid 4000004"]
