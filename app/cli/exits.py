"""How a command ends: its exit codes, and the one plain message that stands for a traceback."""

from __future__ import annotations

from typing import IO, Any

import click

SCORED = 0
SOME_REFUSED = 1
UNREADABLE = 2
CONFIG_REFUSED = 3
FAILED = 4
FAULTS_FOUND = 5
NOT_ANCHORED = 6
INTERNAL = 70
INTERRUPTED = 130
PIPE_CLOSED = 141
TERMINATED = 143
"""As a shell tells it of a process that SIGTERM ended."""

CODES = """\b
Exit codes:
  0    done; every profile was scored
  1    at least one profile was refused (the others were scored)
  2    wrong usage, or a file that cannot be read as what it should be
  3    settings or model refused
  4    the answer could not be written, or the service could not start
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""


class Stopped(click.ClickException):
    """Ends the command with a plain message on standard error. The message may have lines."""

    def __init__(self, message: str, exit_code: int = UNREADABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"kyb: {printable(self.message)}", file=file, err=file is None)


class PipeClosed(click.exceptions.Exit):
    """Nobody reads the output any more: the command ends without a word."""

    def __init__(self) -> None:
        super().__init__(PIPE_CLOSED)


def printable(text: str) -> str:
    """A foreign text made safe for a terminal: control characters, line breaks apart, are replaced."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def reason(error: OSError) -> str:
    """Why the system refused, in its own words, beginning small."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]
