"""`kyb doctor` as an operator runs it, and what it found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from service import environment

COMMAND = (sys.executable, "-m", "app.cli", "doctor")
LIMIT_S = 60.0

Done = subprocess.CompletedProcess[str]
Found = dict[str, Any]


def run(settings: Mapping[str, str], *arguments: object) -> Done:
    """The real command in a process of its own, with these settings of the environment only."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def examined(settings: Mapping[str, str], part: str, *options: object) -> list[Found]:
    """What was found, of which the exit code must tell the worst."""
    done = run(settings, part, "--json", *options)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    verdicts = {finding["verdict"] for finding in answer["findings"]}
    expected = "wrong" if "wrong" in verdicts else "look" if "look" in verdicts else "ok"
    assert (answer["verdict"], done.returncode) == (expected, 5 if expected == "wrong" else 0)
    for finding in answer["findings"]:
        assert (finding["action"] == "") == (finding["verdict"] == "ok"), finding
        assert finding["action"] == "" or finding["action"].endswith("."), finding
    return list(answer["findings"])


def about(findings: Sequence[Found], name: str) -> Found:
    """The only finding about something."""
    (found,) = [finding for finding in findings if finding["about"] == name]
    return found


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s
