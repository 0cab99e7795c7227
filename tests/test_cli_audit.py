"""What an auditor does with `kyb audit`: verify the trail, export it, and keep its checkpoints elsewhere."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker
from databases import migrated
from records import row
from service import SECRETS, environment

from app.audit import anchors
from app.audit.anchors import FileAnchor
from app.audit.checkpoints import Checkpoints
from app.neighbours import make_store
from app.secrets import secrets_of
from app.settings import load
from app.store.base import opened
from app.store.trail import SYSTEM_TENANT, Checkpoint, act

COMMAND = (sys.executable, "-m", "app.cli", "audit")
LIMIT_S = 60.0
NOT_ANCHORED = (
    "no fault in what is there, but no checkpoint that was kept outside of the database was compared: "
    "were the last ones cut off with all that they cover, it would not show"
)
OTHER_KEY = "another signing key, 32 characters or more"
TODAY = dt.datetime.now(dt.UTC).date()

Done = subprocess.CompletedProcess[str]
Settings = Mapping[str, str]


def run(settings: Settings, *arguments: object, told: str = "") -> Done:
    """The real command in a process of its own, with these settings of the environment only. told: its input."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(settings),
        input=told,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def said(settings: Settings, *arguments: object, code: int = 0) -> str:
    """What a command wrote that ended so, and complained of nothing."""
    done = run(settings, *arguments)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def report_of(settings: Settings, *arguments: object, code: int = 0) -> Any:
    return json.loads(said(settings, "verify", "--json", *arguments, code=code))


def work(settings: Settings, job: Callable[[Any], Awaitable[None]]) -> None:
    """Do something with the opened store."""

    async def run() -> None:
        async with opened(make_store(load(settings).settings)) as store:
            await job(store)

    asyncio.run(run())


def fill(settings: Settings, *, rounds: int = 3) -> None:
    """Assessments and acts of two tenants and of the service, under checkpoints that are anchored as a service does."""
    loaded = load(settings).settings
    anchor = FileAnchor(loaded.database.data_dir / anchors.FILE)

    def keep(made: Checkpoint) -> None:
        if not loaded.database.is_postgres:
            anchor(made)

    async def job(store: Any) -> None:
        checkpoints = Checkpoints(store, secrets_of(loaded).audit_signing, 3600.0, keep)
        for number in range(rounds):
            for _ in range(5):
                await store.add([row("acme"), row("acme")], actor="key-a")
            await store.note([act("acme", "role.refused", "k", id=f"={number}"), act("zeta", "role.refused", "k")])
            await store.note([act(SYSTEM_TENANT, "login.refused", "", number=number)])
            assert await checkpoints.cover()

    work(settings, job)


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a database that can be used."""
    if request.param == "sqlite":
        made = {"DATA_DIR": str(tmp_path / "data")}
        (tmp_path / "data").mkdir()
        work(made, _nothing)
        return made
    return {"DATABASE_URL": migrated(request.getfixturevalue("database")), **SECRETS}


async def _nothing(store: Any) -> None:
    """A database that was opened once."""


def attacker(settings: Settings) -> Attacker:
    database = load(settings).settings.database
    return Attacker(settings["DATABASE_URL"] if database.is_postgres else str(database.sqlite_file))


def is_embedded(settings: Settings) -> bool:
    return "DATABASE_URL" not in settings


# Verification


def test_a_whole_trail_is_told_to_be_intact(settings: dict[str, str]) -> None:
    fill(settings)
    code = 0 if is_embedded(settings) else 6
    text = said(settings, "verify", code=code)
    lines = text.splitlines()
    assert lines[0].startswith("the service itself: 3 entries in 1 segment; 3 checkpoints, the last is 3 of ")
    assert "tenant acme: 18 entries" in lines[1]
    assert "assessments: 30 proven (0 of them erased), 0 no longer kept" in lines[1]
    assert lines[2].startswith("tenant zeta: 3 entries")
    assert lines[-1] == ("the audit trail is intact" if is_embedded(settings) else NOT_ANCHORED)
    assert "assessments" not in said(settings, "verify", "--no-rows", code=code)
    assert len(said(settings, "verify", "--tenant", "zeta", code=code).splitlines()) == 2
    report = report_of(settings, code=code)
    assert (report["intact"], report["anchored"], report["faults"]) == (True, is_embedded(settings), [])
    assert report["anchors"] == (3 if is_embedded(settings) else 0)


def test_a_trail_of_which_nothing_is_kept_outside_is_named(settings: dict[str, str], tmp_path: Path) -> None:
    fill(settings)
    kept = tmp_path / "kept.json"
    kept.write_text(said(settings, "checkpoint", "--tenant", "acme"))
    if is_embedded(settings):
        (Path(settings["DATA_DIR"]) / anchors.FILE).unlink()
    last = said(settings, "verify", "--checkpoint", kept, code=6).splitlines()[-1]
    assert last.startswith(
        "no fault in what is there, but no checkpoint of the service itself, tenant zeta that was kept"
    )


def test_checkpoints_are_kept_in_the_file_that_the_settings_name(settings: dict[str, str], tmp_path: Path) -> None:
    named = {**settings, "AUDIT_ANCHOR_FILE": str(tmp_path / "elsewhere" / "anchors")}
    fill(settings, rounds=1)
    assert said(named, "verify", code=6).splitlines()[-1] == NOT_ANCHORED
    assert said(named, "export")
    assert said(named, "verify").splitlines()[-1] == "the audit trail is intact"
    attacker(settings).cut_all("zeta", 2)
    assert "checkpoint.deleted: tenant zeta, checkpoint 2: " in said(named, "verify", code=5)


def test_of_an_empty_trail_it_is_said_that_it_was_compared_with_nothing(settings: dict[str, str]) -> None:
    assert said(settings, "verify", code=6) == f"{NOT_ANCHORED}\n"
    assert report_of(settings, code=6)["trails"] == []


def test_each_fault_is_a_line_and_the_code_says_that_there_are_some(settings: dict[str, str]) -> None:
    fill(settings)
    hostile = attacker(settings)
    [entry, *_] = [one for one in hostile.longest("acme") if one.act == "assessment.recorded"]
    hostile.run("UPDATE assessments SET score = 1 WHERE id = $1", entry.subjects[:16])
    last = max(hostile.entries("zeta").values(), key=len)[-1]
    hostile.delete([last])
    lines = said(settings, "verify", code=5).splitlines()
    faults = [
        line
        for line in lines
        if line.startswith(
            ("assessment.altered: tenant acme", "segment.deleted: tenant zeta", "trail.truncated: tenant zeta")
        )
    ]
    assert len(faults) == 2
    assert lines[-1] == "the audit trail has 2 faults"
    report = report_of(settings, code=5)
    assert [fault["tenant_id"] for fault in report["faults"]] == ["acme", "zeta"]
    assert said(settings, "verify", "--no-rows", "--tenant", "acme", code=0 if is_embedded(settings) else 6)
    hostile.run("UPDATE audit_checkpoints SET at_ms = $1 WHERE tenant_id = 'acme'", 2**62)
    assert "checkpoint.edited: tenant acme, checkpoint 3: " in said(settings, "verify", code=5)


def test_what_a_checkpoint_kept_elsewhere_says_is_missed(settings: dict[str, str], tmp_path: Path) -> None:
    fill(settings)
    kept = tmp_path / "kept.json"
    kept.write_text(said(settings, "checkpoint"))
    assert {tenant: one["number"] for tenant, one in json.loads(kept.read_text()).items()} == {
        "": 3,
        "acme": 3,
        "zeta": 3,
    }
    assert report_of(settings, "--checkpoint", kept)["intact"]
    assert json.loads(said(settings, "checkpoint", "--tenant", "zeta")).keys() == {"zeta"}
    attacker(settings).cut_all("acme", 2)
    if is_embedded(settings):
        # The anchor in the data folder misses it, too, until somebody takes it away.
        assert report_of(settings, code=5)["faults"][0]["checkpoint"] == 2
        (Path(settings["DATA_DIR"]) / anchors.FILE).unlink()
    assert report_of(settings, code=6)["intact"]
    [fault] = report_of(settings, "--checkpoint", kept, code=5)["faults"]
    assert (fault["kind"], fault["tenant_id"], fault["checkpoint"]) == ("checkpoint.deleted", "acme", 2)
    done = run(settings, "verify", "--checkpoint", "-", told=kept.read_text())
    assert done.returncode == 5
    assert report_of(settings, "--tenant", "zeta", "--checkpoint", kept)["intact"]


def test_a_wrong_signing_key_is_told_to_be_wrong(settings: dict[str, str]) -> None:
    fill(settings)
    lines = said({**settings, "AUDIT_SIGNING_KEY": OTHER_KEY}, "verify", code=5).splitlines()
    assert any(line.startswith("key.wrong: ") and "AUDIT_SIGNING_KEY" in line for line in lines)
    assert lines[-1] == "the audit trail has 1 fault"
    assert OTHER_KEY not in "".join(lines)


@pytest.mark.parametrize("text", ["", "{}}", '{"acme": {"number": 1}}'])
def test_a_file_that_holds_no_checkpoints_is_refused(settings: dict[str, str], tmp_path: Path, text: str) -> None:
    (tmp_path / "kept.json").write_text(text)
    done = run(settings, "verify", "--checkpoint", tmp_path / "kept.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "kept.json does not hold checkpoints" in done.stderr
    done = run(settings, "verify", "--checkpoint", tmp_path / "none.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.json cannot be read: no such file" in done.stderr


@pytest.mark.parametrize("command", [["verify"], ["export"]])
def test_without_the_signing_key_of_postgresql_the_settings_are_refused(database: str, command: list[str]) -> None:
    done = run({"DATABASE_URL": migrated(database)}, *command)
    assert (done.returncode, done.stdout) == (3, "")
    assert "AUDIT_SIGNING_KEY" in done.stderr


@pytest.mark.parametrize("command", [["verify"], ["export"], ["checkpoint"]])
def test_a_database_that_is_not_there_is_said_to_be_missing(tmp_path: Path, command: list[str]) -> None:
    done = run({"DATA_DIR": str(tmp_path / "none")}, *command)
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is no database" in done.stderr
    assert not (tmp_path / "none").exists()


# Export


def test_an_export_is_complete_and_is_itself_entered(settings: dict[str, str], tmp_path: Path) -> None:
    fill(settings)
    lines = [json.loads(line) for line in said(settings, "export").splitlines()]
    assert len(lines) == 3 + 18 + 3 + 3
    assert {line["tenant_id"] for line in lines} == {"", "acme", "zeta"}
    [mine] = [line for line in lines if line["act"] == "audit.exported" and line["tenant_id"] == "acme"]
    assert (mine["actor"], mine["detail"]) == ("cli", {"format": "jsonl"})
    file = tmp_path / "trail.csv"
    assert said(settings, "export", "--tenant", "zeta", "--format", "csv", "--output", file) == ""
    rows = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
    assert [one["act"] for one in rows] == ["audit.exported"] * 2 + ["role.refused"] * 3
    # What the commands entered is under checkpoints, too.
    report = report_of(settings, code=0 if is_embedded(settings) else 6)
    assert report["intact"]
    assert [trail["after"] for trail in report["trails"]] == [0, 0, 0]


def test_an_export_can_be_of_some_days(settings: dict[str, str]) -> None:
    fill(settings)
    yesterday, tomorrow = TODAY - dt.timedelta(days=1), dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    assert said(settings, "export", "--to", yesterday) == ""
    assert said(settings, "export", "--from", tomorrow) == ""
    text = said(settings, "export", "--tenant", "zeta", "--from", TODAY, "--to", tomorrow)
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 4 + 2
    assert lines[0]["detail"] == {"format": "jsonl", "from": str(TODAY), "to": str(tomorrow)}
    assert run(settings, "export", "--from", "yesterday").returncode == 2


def test_there_being_nothing_is_said_and_nothing_is_entered(settings: dict[str, str]) -> None:
    fill(settings, rounds=1)
    for command in ("export", "checkpoint"):
        done = run(settings, command, "--tenant", "nobody")
        assert (done.returncode, done.stderr) == (0, "kyb: nothing is in the audit trail of the tenant nobody\n")
    assert "nobody" not in said(settings, "verify", code=0 if is_embedded(settings) else 6)


def test_an_export_whose_reader_goes_away_was_one(settings: dict[str, str]) -> None:
    fill(settings, rounds=1)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "export", "--tenant", "acme"], env=environment(settings), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 4
    acts = [json.loads(line)["act"] for line in said(settings, "export", "--tenant", "acme").splitlines()]
    assert acts.count("audit.exported") == 2
