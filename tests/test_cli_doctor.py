"""`kyb doctor` on a terminal, in a pipe and for programs; and what it says of the embedded database."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import struct
import subprocess
import termios
from collections.abc import Mapping
from contextlib import closing, suppress
from fcntl import ioctl
from pathlib import Path

import pytest
from doctored import COMMAND, LIMIT_S, about, examined, run, within
from service import environment

from app.store.sqlite_file import migrate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    migrate(tmp_path / "kyb.db")
    return tmp_path / "kyb.db"


def of(file: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{file}"}


def on_a_terminal(settings: Mapping[str, str], *arguments: str, columns: int = 80) -> str:
    """What is shown on a terminal of so many columns, with the codes that colour it."""
    screen, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**environment(settings), "TERM": "xterm", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
    )
    os.close(terminal)
    shown = b""
    # A terminal whose other end is closed gives an error, and no end.
    with suppress(OSError):
        while piece := os.read(screen, 65536):
            shown += piece
    os.close(screen)
    assert process.communicate(timeout=LIMIT_S)[1] == b""
    return shown.decode()


# The form


def test_in_a_pipe_each_finding_is_one_line_without_colours(file: Path) -> None:
    done = run({**of(file), "WORKERS": "250"}, "limits")
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok   |look |wrong)  \S", line) for line in lines)
    assert "\x1b" not in done.stdout
    (cpu,) = [line for line in lines if line.startswith("look   CPU ")]
    assert " -> Set WORKERS to " in cpu


def test_on_a_narrow_terminal_nothing_is_wider_than_it_is(file: Path) -> None:
    shown = on_a_terminal({**of(file), "WORKERS": "250"}, "limits")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, plain)) <= 80
    assert any(re.match(r" +→ Set WORKERS to ", line) for line in plain)
    assert re.fullmatch(r"\d+ ok, \d+ to look at(, \d+ wrong)?", plain[-1])


def test_for_programs_there_are_verdicts_and_figures(file: Path) -> None:
    answer = json.loads(run(of(file), "db", "--json").stdout)
    assert answer["verdict"] == "ok"
    first = answer["findings"][0]
    assert first == {
        "about": "file",
        "verdict": "ok",
        "seen": first["seen"],
        "action": "",
        "figures": {"bytes": file.stat().st_size},
    }


def test_settings_that_cannot_be_used_are_refused_as_by_every_command() -> None:
    done = run({"PORT": "none"}, "limits")
    assert (done.returncode, done.stdout) == (3, "")


# The embedded database


def test_a_file_that_is_well(file: Path) -> None:
    findings = examined(of(file), "db")
    for name in ("file", "disk", "journal", "schema", "pages", "check", "lock"):
        assert about(findings, name)["verdict"] == "ok", name


def test_looking_leaves_the_file_as_it_was(file: Path) -> None:
    before = file.read_bytes()
    examined(of(file), "db")
    assert file.read_bytes() == before


def test_a_file_that_is_not_there_and_one_of_another_kind(tmp_path: Path) -> None:
    (missing,) = examined(of(tmp_path / "none.db"), "db")
    assert (missing["verdict"], "is not there" in missing["seen"]) == ("wrong", True)
    (tmp_path / "text.db").write_text("no database " * 1000)
    assert "is not an SQLite database" in examined(of(tmp_path / "text.db"), "db")[-1]["seen"]


def test_who_keeps_it_locked_is_named(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other, within(20):
        other.execute("BEGIN IMMEDIATE")
        shown = about(examined(of(file), "db"), "lock")
        other.execute("ROLLBACK")
    assert shown["verdict"] == "wrong"
    assert f"pid {os.getpid()} (" in shown["seen"]


def test_a_log_that_a_reader_holds_back_is_shown(file: Path) -> None:
    log = file.with_name(f"{file.name}-wal")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        # Without content the room is only reserved.
        os.truncate(log, 300 << 20)
        shown = about(examined(of(file), "db"), "journal")
    assert (shown["verdict"], shown["figures"]["wal_bytes"]) == ("look", 300 << 20)


def test_another_schema_is_wrong(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 2")
    older = about(examined(of(file), "db"), "schema")
    assert (older["verdict"], "kyb migrate" in older["action"]) == ("wrong", True)


def test_damage_is_found(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA journal_mode = WAL")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit_entries'").fetchone()
    with file.open("r+b") as raw:
        raw.seek((root - 1) * page_bytes)
        raw.write(b"\x07" * 64)
    findings = examined(of(file), "db")
    damaged = [finding for finding in findings if "damaged" in finding["seen"]]
    assert [finding["verdict"] for finding in damaged] == ["wrong"]
    assert "backup" in damaged[0]["action"]


def test_a_check_that_takes_too_long_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.doctor import sqlite
    from app.settings import load

    with closing(sqlite3.connect(file)) as connection:
        connection.executemany(
            "INSERT INTO models VALUES (?, 'm', '1', zeroblob(9000))",
            [(str(number).encode(),) for number in range(2000)],
        )
        connection.commit()
    monkeypatch.setattr(sqlite, "CHECK_S", 0.0)
    monkeypatch.setattr(sqlite, "CHECK_STEPS", 1)
    (check,) = [finding for finding in sqlite.examined(load(of(file)).settings) if finding.about == "check"]
    assert (check.verdict, check.figures["complete"]) == ("ok", False)
