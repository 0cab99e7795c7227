"""Where a command's answer goes: standard output or a file, with a console for people on top of either."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import msgspec

from app.cli.exits import FAILED, PipeClosed, Stopped, printable, reason

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 120


class Output:
    """Standard output, or the file at `path`, which is made with the first byte or when left.

    A reader that went away ends the command without a word; any other failure to write ends it with a message.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        # What rich asks of a text file:
        self.encoding = "utf-8" if path is not None else (getattr(sys.stdout, "encoding", None) or "utf-8")
        self.errors = "replace"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.write_bytes(b"")
            self.flush()
        if self.path is not None and self._file is not None:
            try:
                self._file.close()
            except OSError as failure:
                if kind is None:
                    raise self._failed(failure) from None

    def write_bytes(self, content: bytes) -> None:
        try:
            self._opened().write(content)
        except BrokenPipeError:
            raise self._closed() from None
        except OSError as error:
            raise self._failed(error) from None

    def write(self, text: str) -> int:
        self.write_bytes(text.encode(self.encoding, self.errors))
        return len(text)

    def flush(self) -> None:
        try:
            self._opened().flush()
        except BrokenPipeError:
            raise self._closed() from None
        except OSError as error:
            raise self._failed(error) from None

    def isatty(self) -> bool:
        return self.path is None and sys.stdout is not None and sys.stdout.isatty()

    def writable(self) -> bool:
        return True

    def console(self) -> Console:
        """A console that writes here. A file is written as wide as FILE_WIDTH, without colours."""
        from rich.console import Console

        return Console(
            file=cast("None", self),
            width=FILE_WIDTH if self.path is not None else None,
            highlight=False,
            emoji=False,
            markup=False,
        )

    def _opened(self) -> BinaryIO:
        if self._file is None:
            if self.path is None and sys.stdout is None:
                raise Stopped("standard output is closed", FAILED)
            opened = sys.stdout.buffer if self.path is None else open(self.path, "wb")  # noqa: SIM115
            self._file = cast("BinaryIO", opened)
        return self._file

    def _closed(self) -> PipeClosed:
        if self.path is None:
            _discard_standard_output()
        return PipeClosed()

    def _failed(self, error: OSError) -> Stopped:
        if self.path is None:
            _discard_standard_output()
        return Stopped(f"{self.path or 'standard output'} cannot be written: {reason(error)}", FAILED)


def refuse_same_file(path: str | None, source: str | None) -> None:
    """What is written must not overwrite what is read, or what is written beside it."""
    if path is None or source is None or source == "-":
        return
    try:
        same = os.path.samefile(path, source) and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        same = os.path.abspath(path) == os.path.abspath(source)
    if same:
        raise Stopped(f"{path} is given for two things, and one would overwrite the other; give another file")


def write_json(document: Any) -> None:
    with Output() as out:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def write_rows(rows: Sequence[tuple[str, ...]], nothing: str) -> None:
    """Lines for people, the columns aligned. nothing: what is said where there are none."""
    shown = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    with Output() as out:
        for row in shown:
            out.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
        if not shown:
            out.write(f"{nothing}\n")


def complain(text: str) -> None:
    """One line, or more, on standard error."""
    with suppress(OSError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def _discard_standard_output() -> None:
    """Keep the interpreter from failing once more when it flushes what is left at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
