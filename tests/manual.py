"""A reader who does what a page says, word by word, in a checkout of their own, and compares what comes with it.

Fenced blocks are followed in order, by their language:

    sh      run in one shell that keeps its variables; has to end with 0. `make run` and `kyb serve` stay running
    python  saved as the file that its first line names
    diff    an edit of the file named after `---`: the lines with - become those with +
    json    what the block before printed, in part
    http    the same with `curl -i`: the last answer's status, some of its headers, its body in part
    text    lines that the block before printed, in this order, others between them or not
    yaml    for reading alone
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from service import ROOT, START_LIMIT_S, STOP_LIMIT_S, Client, environment, free_port, wait_until

WRITTEN = dt.date(2026, 11, 27)
"""The day of the answers shown. What is sent is as old on the day of the test as it was then, so ages are the same."""
STEP_LIMIT_S = 120.0
SHOWN_ADDRESS = "127.0.0.1:8080"
STAYS = re.compile(r"(make run|(\.venv/bin/)?kyb serve( .*)?)$")
CHECKOUT = (".venv", "Makefile", "app", "configs", "constraints.txt", "core", "pyproject.toml", "setup.py")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b(?!T)")
_MADE = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT[0-9:.]+Z"), "<moment>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<request>"),
    (re.compile(r"\bkyb_[a-z]+_[0-9A-Za-z]{20,}\b"), "<key>"),
    (re.compile(r"\b(retry-after: \d+|key [0-9A-Za-z]{12})\b"), "<told>"),
)
"""What is made anew each time, and the word that stands for it when two texts are compared."""

Json = Any


class Block(NamedTuple):
    """line: where it begins in its page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Printed(NamedTuple):
    """What a block of commands wrote, standard error behind standard output."""

    out: str
    both: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, text[: match.start()].count("\n") + 1, match[1], match[2]) for match in _FENCE.finditer(text)]


def differences(shown: Json, real: Json, at: str = "") -> list[str]:
    """What of a document that is shown in part is not so. Members of lists are shown in their order, maybe not all."""
    if isinstance(shown, dict) and isinstance(real, dict):
        faults = [f"{at}/{name}: not there" for name in shown if name not in real]
        for name in shown.keys() & real.keys():
            faults += differences(shown[name], real[name], f"{at}/{name}")
        return faults
    if isinstance(shown, list) and isinstance(real, list):
        if not any(isinstance(member, dict | list) for member in shown):
            return [] if shown == real else [f"{at}: {real}, not {shown}"]
        rest = iter(real)
        return [
            f"{at}/{place}: no such member in its place"
            for place, member in enumerate(shown)
            if not any(differences(member, other) == [] for other in rest)
        ]
    if isinstance(shown, str) and isinstance(real, str):
        return [] if made_alike(shown) == made_alike(real) else [f"{at}: {real!r}, not {shown!r}"]
    return [] if shown == real and type(shown) is type(real) else [f"{at}: {real!r}, not {shown!r}"]


def made_alike(text: str) -> str:
    """A text in which all that is made anew is the same."""
    for pattern, word in _MADE:
        text = pattern.sub(word, text)
    return " ".join(text.split())


def missing_lines(shown: str, real: str, here: Callable[[str], str] = str) -> list[str]:
    """The lines shown that do not come in this order, as they stand or as `here` makes them: a day can be any day's."""
    rest = iter([made_alike(line) for line in real.splitlines()])
    return [
        line
        for line in shown.splitlines()
        if line.strip() and not any(other in (made_alike(line), made_alike(here(line))) for other in rest)
    ]


class Reader:
    """Follows one page.

    skipped: lines of commands that are not run here.  after: by a part of a command, what to wait for once it has run.
    settings: of the environment, for the service and the commands alike.
    """

    def __init__(
        self,
        folder: Path,
        *,
        skipped: Mapping[str, str],
        after: Mapping[str, Callable[[Reader], None]] | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._skipped = skipped
        self._after = after or {}
        self._shift = dt.datetime.now(dt.UTC).date() - WRITTEN
        self._printed = Printed("", "")
        self._service: subprocess.Popen[bytes] | None = None
        self._check_out()
        self.environment = {**environment(settings), "PORT": str(self.port)}
        # The core is compiled already, and nothing is to be installed from here.
        self.environment["BASH_FUNC_make%%"] = '() { command make --old-file=.venv/.compiled "$@"; }'
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def follow(self, page: str) -> None:
        """Do what a page says. Raises AssertionError where something is not as it says."""
        for block in blocks(page):
            text = self._here(block.text)
            match block.language:
                case "sh":
                    self._run(block, text)
                case "python":
                    name = text.partition("\n")[0].removeprefix("# ")
                    assert name.endswith(".py"), f"{block}: the first line names no file"
                    (self.folder / name).write_text(text, encoding="utf-8")
                case "diff":
                    self._edit(block)
                case "json":
                    self._compare(block, text, self._printed.out)
                case "http":
                    self._compare_http(block, text)
                case "text":
                    lines = missing_lines(block.text, self._printed.both, self._here)
                    assert not lines, f"{block}: {lines} not in\n{self._printed.both}"
                case "yaml":
                    pass
                case other:
                    raise AssertionError(f"{block}: nobody knows what to do with {other or 'a block without language'}")

    def close(self) -> None:
        """Leave nothing running."""
        self._stop(signal.SIGKILL)
        self._shell.kill()
        self._shell.communicate()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_out(self) -> None:
        for name in CHECKOUT:
            (self.folder / name).symlink_to(ROOT / name)
        examples = self.folder / "examples"
        examples.mkdir()
        for file in (ROOT / "examples").iterdir():
            (examples / file.name).write_text(self._dated(file.read_text(encoding="utf-8")), encoding="utf-8")

    def _here(self, text: str) -> str:
        """A block's text with the address and the day of this test."""
        return self._dated(text).replace(SHOWN_ADDRESS, f"127.0.0.1:{self.port}")

    def _dated(self, text: str) -> str:
        return _DATE.sub(lambda match: str(dt.date.fromisoformat(match[0]) + self._shift), text)

    def _run(self, block: Block, text: str) -> None:
        lines = [line for line in text.splitlines() if line not in self._skipped]
        if len(lines) == 1 and STAYS.fullmatch(lines[0]):
            self._serve(lines[0])
            return
        step = self.folder / "step"
        step.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(". ./step >step.out 2>step.err </dev/null; echo $?\n")
        self._shell.stdin.flush()
        ready, _, _ = select.select([self._shell.stdout], [], [], STEP_LIMIT_S)
        assert ready, f"{block}: not done within {STEP_LIMIT_S:g} s"
        code = self._shell.stdout.readline().strip()
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("step.out", "step.err"))
        self._printed = Printed(out, out + err)
        assert code == "0", f"{block} ended with {code or 'the shell'}: {out}{err}"
        for part, wait in self._after.items():
            if part in text:
                wait(self)

    def _serve(self, command: str) -> None:
        """Start a service in place of the one that runs, as somebody does at a terminal."""
        self._stop(signal.SIGINT)
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self._with_path(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers, f"{command} answers: {self._log()}", START_LIMIT_S)

    def _with_path(self) -> dict[str, str]:
        return {**self.environment, "PATH": f"{self.folder / '.venv' / 'bin'}:{self.environment['PATH']}"}

    def _answers(self) -> bool:
        assert self._service is not None
        assert self._service.poll() is None, self._log()
        with closing(Client(self.port, None)) as client, suppress(OSError):
            return client.get("/health").status == 200
        time.sleep(0.05)
        return False

    def _log(self) -> str:
        return (self.folder / "service.log").read_text(encoding="utf-8", errors="replace")

    def _stop(self, how: signal.Signals) -> None:
        if self._service is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._service.pid, how)
            self._service.wait(STOP_LIMIT_S)
            self._service = None

    def _edit(self, block: Block) -> None:
        head, *lines = block.text.splitlines()
        assert head.startswith("--- "), f"{block}: the first line names no file"
        file = self.folder / head.removeprefix("--- ")
        old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " -")
        new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " +")
        whole = file.read_text(encoding="utf-8")
        assert whole.count(old) == 1, f"{block}: these lines stand {whole.count(old)} times in {file.name}"
        file.write_text(whole.replace(old, new), encoding="utf-8")

    def _compare(self, block: Block, shown: str, real: str) -> None:
        assert real[:1] in ("{", "["), f"{block}: no JSON document came, but {real}"
        faults = differences(json.loads(shown), json.loads(real))
        assert not faults, f"{block}: {faults} in {real}"

    def _compare_http(self, block: Block, text: str) -> None:
        """Against the last answer, where there were several."""
        start, _, body = text.partition("\n\n")
        printed = self._printed.out.replace("\r\n", "\n")
        real = printed[printed.rindex("HTTP/1.1 ") :]
        head, _, real_body = real.partition("\n\n")
        lines = missing_headers(start, head)
        assert not lines, f"{block}: {lines} not in\n{real}"
        if body.strip():
            self._compare(block, body, real_body)


def missing_headers(shown: str, real: str) -> list[str]:
    """The status line, where it differs, and the headers that an answer has not, in any order."""
    (status, *headers), (real_status, *real_headers) = shown.splitlines(), real.splitlines()
    there = {made_alike(line) for line in real_headers}
    return [status] * (status != real_status) + [line for line in headers if made_alike(line) not in there]
