"""Numbers that one process writes and every process of the pod reads: files in memory that outlive their writer.

# Design: on the path of a request a metric is one addition to a number at a known place (PERF:
benchmarks/test_service.py::test_metrics); names and labels are told once, when a series is first needed. Nobody waits
for anybody: a file has one writer, and a reader takes the bytes as they are. A file whose writer is gone (its lock is
free) keeps what it counted, and is added to the file of the past when the next worker starts.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

MAGIC = b"KYBCELL1"
HEADER = struct.Struct("<8sQ")
"""Magic, and how many bytes of the directory are written."""
DIRECTORY_AT = 64
DIRECTORY_BYTES = 1 << 20
CELLS_AT = DIRECTORY_AT + DIRECTORY_BYTES
N_CELLS = 1 << 15
SPARE = 64
"""The last cells, where series are written that found no room; nobody reads them."""
FILE_BYTES = CELLS_AT + 8 * N_CELLS
SUFFIX = ".cells"
PAST = "past"
LOCK = "lock"
OWNER = "owner"
FOLDED = ".folded"
"""The series of the file of the past that names files whose numbers are in it, and that may still be there."""
PREFIX = "kyb-metrics-"

Series = tuple[str, tuple[str, ...]]
"""The name of a metric and the values of its labels, in the order of their names."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, tuple[str, ...], int, int]).decode


class Read(NamedTuple):
    """One process's series. is_alive: whether it still runs."""

    values: dict[Series, tuple[float, ...]]
    is_alive: bool


class Cells:
    """The cells of this process: `numbers[i] += 1` counts. Written by one thread.

    folder: shared by the processes of a pod, of a `Folder`; None keeps the numbers to this process.
    `dropped` counts series that found no room.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.dropped = 0
        self._file: int | None = None
        self._path: Path | None = None
        if folder is None:
            self._map = mmap.mmap(-1, FILE_BYTES)
        else:
            with _locked(folder):
                _fold(folder)
                self._path = folder / f"{os.getpid()}-{time.monotonic_ns()}{SUFFIX}"
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._file, FILE_BYTES)
            self._map = mmap.mmap(self._file, FILE_BYTES)
        self._end = 0
        self._next = 0
        HEADER.pack_into(self._map, 0, MAGIC, 0)
        self.numbers = memoryview(self._map)[CELLS_AT:].cast("d")
        self._places: dict[Series, int] = {}

    def reserve(self, name: str, labels: tuple[str, ...], count: int) -> int:
        """The first of the `count` cells of a series, zeros when it is new. count: at most SPARE."""
        series = (name, labels)
        known = self._places.get(series)
        if known is not None:
            return known
        line = _encode((name, labels, self._next, count)) + b"\n"
        if self._next + count > N_CELLS - SPARE or self._end + len(line) > DIRECTORY_BYTES:
            self.dropped += 1
            first = N_CELLS - SPARE
        else:
            first, at = self._next, DIRECTORY_AT + self._end
            self._map[at : at + len(line)] = line
            self._next += count
            self._end += len(line)
            # A reader that sees the length sees the line.
            HEADER.pack_into(self._map, 0, MAGIC, self._end)
        self._places[series] = first
        return first

    def read(self) -> list[Read]:
        """The series of every process of the pod, and of those that are gone."""
        if self.folder is None:
            return [Read(_values(self._map), True)]
        with _locked(self.folder, exclusive=False):
            return [Read(values, is_alive) for _, values, is_alive in _files(self.folder)]

    def content(self) -> bytes:
        """The file of cells, as `read` finds it."""
        return self._map[:]

    def close(self) -> None:
        """Write no more; what was counted stays for the others to read."""
        self.numbers.release()
        self._map.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Folder:
    """A place for the files of one pod, in memory where the system has such a place; gone when closed.

    Its lock is held by whoever made it and the processes forked from there: one that nobody holds is left over, and
    removed by the next.  Raises OSError.
    """

    def __init__(self, base: Path | None = None) -> None:
        base = base or _place()
        for other in base.glob(f"{PREFIX}*"):
            _remove_left_over(other)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = os.open(self.path / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it, and what was counted in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _place() -> Path:
    in_memory = Path("/dev/shm")  # noqa: S108
    return in_memory if os.access(in_memory, os.W_OK) else Path(tempfile.gettempdir())


def _remove_left_over(folder: Path) -> None:
    # What is not ours, or goes at this moment, is left to whoever it belongs to.
    with suppress(OSError):
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)


@contextmanager
def _locked(folder: Path, *, exclusive: bool = True) -> Iterator[None]:
    """While nobody folds the files of the folder, or, exclusively, while nobody reads them."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


def _files(folder: Path) -> Iterator[tuple[Path, dict[Series, tuple[float, ...]], bool]]:
    """Every file of cells: what stands in it, and whether its writer runs. The past comes first."""
    folded: set[str] = set()
    for path in [folder / PAST, *sorted(folder.glob(f"*{SUFFIX}"))]:
        if path.name in folded or not path.exists():
            continue
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            data = os.pread(file, FILE_BYTES, 0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_alive = False
            except BlockingIOError:
                is_alive = True
        finally:
            os.close(file)
        if len(data) == FILE_BYTES:
            values = _values(data)
            if path.name == PAST:
                folded = {labels[0] for name, labels in values if name == FOLDED}
            yield path, values, is_alive


def _values(data: bytes | mmap.mmap) -> dict[Series, tuple[float, ...]]:
    magic, end = HEADER.unpack_from(data)
    if magic != MAGIC:
        return {}
    found = {}
    for line in data[DIRECTORY_AT : DIRECTORY_AT + end].splitlines():
        name, labels, first, count = _decode(line)
        found[name, labels] = struct.unpack_from(f"<{count}d", data, CELLS_AT + 8 * first)
    return found


def _fold(folder: Path) -> None:
    """Add what processes that are gone counted to the file of the past, and remove their files."""
    gone = []
    for path, values, is_alive in _files(folder):
        if path.name == PAST:
            # One that fell here before may not have come to it.
            for name, labels in values:
                if name == FOLDED:
                    (folder / labels[0]).unlink(missing_ok=True)
        if not is_alive:
            gone.append((path, values))
    ended = [path for path, _ in gone if path.name != PAST]
    if not ended:
        return
    total: dict[Series, list[float]] = {}
    for _, values in gone:
        for series, numbers in values.items():
            if series[0] != FOLDED:
                total[series] = [sum(pair) for pair in zip_longest(total.get(series, ()), numbers, fillvalue=0.0)]
    with Cells() as made:
        for path in ended:
            made.reserve(FOLDED, (path.name,), 0)
        for (name, labels), sums in total.items():
            first = made.reserve(name, labels, len(sums))
            for place, value in enumerate(sums):
                made.numbers[first + place] = value
        new = folder / f"{PAST}.new"
        new.write_bytes(made.content())
    new.replace(folder / PAST)
    for path in ended:
        path.unlink()
