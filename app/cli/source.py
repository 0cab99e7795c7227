"""The input of a command: a file or standard input, read in blocks as they arrive, in lines of bounded length."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from app import wire
from app.cli.exits import Stopped, reason
from app.errors import Refusal

BLOCK_BYTES = 1 << 18
HEAD_BYTES = 1 << 16

Origins = dict[str, list[int]]
"""List of the profile (as `ownership.owners`) → the index in the columns' names of each member."""


class Row(NamedTuple):
    """One profile of the input, or why it is refused. line: where it begins, from 1."""

    line: int
    profile: wire.Profile | None
    refusal: Refusal | None = None
    origins: Origins | None = None


class Line(NamedTuple):
    number: int
    text: bytes


class Source:
    """name: as messages call it. total_bytes: None unless it is a regular file. read_bytes: what was read so far."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        self.suffix = Path(path).suffix.lower() if path != "-" else ""
        self.read_bytes = 0
        self.total_bytes: int | None = None
        self._head = b""
        self._own = path != "-"
        if not self._own and sys.stdin is None:
            raise Stopped("standard input is closed; give a file")
        try:
            self._file: BinaryIO = open(path, "rb") if self._own else sys.stdin.buffer  # noqa: SIM115
            if self._own:
                status = os.fstat(self._file.fileno())
                self.total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        except OSError as error:
            raise self._unreadable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._file.close()

    def head(self) -> bytes:
        """The beginning: at least the first line with content and what begins the next one, unless these are long."""
        while len(self._head) < HEAD_BYTES:
            first, _, rest = self._head.lstrip().partition(b"\n")
            if first and rest.strip():
                break
            block = self._block()
            if not block:
                break
            self._head += block
        return self._head

    def blocks(self) -> Iterator[bytes]:
        """All content, in pieces as they arrive."""
        head, self._head = self._head, b""
        if head:
            yield head
        while block := self._block():
            yield block

    def whole(self, limit_bytes: int) -> bytes | None:
        """All content at once; None where it is longer than the limit."""
        parts, size = [], 0
        for block in self.blocks():
            parts.append(block)
            size += len(block)
            if size > limit_bytes:
                return None
        return b"".join(parts)

    def lines(self, limit_bytes: int) -> Iterator[list[Line]]:
        """Lines without their line feed, all that a block completes together; one above the limit is cut there."""
        number, rest, keep = 1, b"", limit_bytes + 2
        for block in self.blocks():
            first, *more = block.split(b"\n")
            rest += first[: keep - len(rest)]
            if not more:
                continue
            texts = [rest, *(text if len(text) <= keep else text[:keep] for text in more)]
            rest = texts.pop()
            yield [Line(number + place, text) for place, text in enumerate(texts)]
            number += len(texts)
        if rest:
            yield [Line(number, rest)]

    def _block(self) -> bytes:
        try:
            read = getattr(self._file, "read1", self._file.read)
            block: bytes = read(BLOCK_BYTES)
        except OSError as error:
            raise self._unreadable(error) from None
        self.read_bytes += len(block)
        return block

    def _unreadable(self, error: OSError) -> Stopped:
        return Stopped(f"{self.name} cannot be read: {reason(error)}")
