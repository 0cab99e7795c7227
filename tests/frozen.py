"""The statements of earlier versions of the service, frozen, one file for each schema that they were written for.

A migration that adds revision N + 1 comes with the statements of N, as the last release before it sends them:

    git worktree add /tmp/release v1.2.3 && make -C /tmp/release build
    .venv/bin/python tests/frozen.py /tmp/release tests/test_store.py tests/test_postgres.py > tests/statements/N.sql

runs these tests of the release, on servers that log what they are sent; name all that touch PostgreSQL. This file is a
plugin of pytest there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "statements"
PLACE = "STATEMENTS_FOLDER"
LOGGING = {
    "logging_collector": "on", "log_destination": "jsonlog", "log_statement": "all", "log_parameter_max_length": "0",
    "log_rotation_size": "0",
}  # fmt: skip
SENT = re.compile(r"(?:execute [^:]*|statement): ")
KEPT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
LEFT_OUT = re.compile(r"assessments_\d{4}_\d{2}|pg_catalog\.pg_type|set_config\('jit'")
"""Those of a month, which are made anew each month, and the driver's own."""
ENDS = ";\n\n"


def frozen(revision: str) -> list[str]:
    """The statements of the service that was written for a schema."""
    text = (FOLDER / f"{revision}.sql").read_text(encoding="utf-8")
    return [statement for statement in text.split(ENDS) if statement.strip()]


def pytest_sessionstart(session: Any) -> None:
    """Have every PostgreSQL of the tests log what it is sent."""
    import databases

    made = databases.Postgres.__init__

    def logging(self: Any, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        place = Path(os.environ[PLACE]) / str(self.port)
        place.mkdir()
        # The server runs as another user.
        place.chmod(0o777)
        self._settings |= {**LOGGING, "log_directory": str(place)}

    databases.Postgres.__init__ = logging  # type: ignore[method-assign]


def logged(lines: Iterable[str]) -> Iterator[str]:
    """What the service itself sent, and what is the same in every month."""
    for line in lines:
        told = json.loads(line)
        message = str(told.get("message", ""))
        sent = SENT.match(message)
        if sent is not None and told.get("application_name") == "kyb":
            statement = message[sent.end() :].strip().rstrip(";")
            if KEPT.match(statement) and not LEFT_OUT.search(statement):
                yield statement


def main(checkout: Path, tests: list[str]) -> None:
    """Run tests of a checkout, and print the statements."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        paths = os.pathsep.join([str(Path(__file__).parent), str(checkout), str(checkout / "tests")])
        environment = {**os.environ, PLACE: name, "PYTHONPATH": paths}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "frozen", "-m", "not slow", *tests]
        done = subprocess.run(command, env=environment, cwd=checkout, stdout=sys.stderr, check=False)
        assert done.returncode == 0, "its tests fail, so that what they send is not all"
        found: set[str] = set()
        for file in folder.rglob("*.json"):
            with file.open(encoding="utf-8") as lines:
                found.update(logged(lines))
    assert found, "nothing was logged"
    assert not [statement for statement in found if ENDS in statement]
    sys.stdout.write("".join(f"{statement}{ENDS}" for statement in sorted(found)).rstrip("\n") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
