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
from collections.abc import Iterator, Mapping, Sequence
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
_decode_lines = msgspec.json.Decoder(tuple[str, tuple[str, ...], int, int]).decode_lines


class Place(NamedTuple):
    """Where the numbers of a series are among a file's cells."""

    first: int
    end: int


class Read(NamedTuple):
    """One process's series: places among its numbers. is_alive: whether it still runs."""

    places: Mapping[Series, Place]
    numbers: Sequence[float]
    is_alive: bool

    @property
    def values(self) -> dict[Series, tuple[float, ...]]:
        """The numbers of each series."""
        return {series: tuple(self.numbers[place.first : place.end]) for series, place in self.places.items()}


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
        self._known: dict[tuple[str, int, int], _Directory] = {}
        self._own = _Directory()

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
            self._own.take(self._map[DIRECTORY_AT : DIRECTORY_AT + self._end])
            return [Read(self._own.places, list(self.numbers[: self._next]), True)]
        known = self._known
        self._known = {}
        with _locked(self.folder, exclusive=False):
            return [read for _, read in _files(self.folder, known, self._known)]

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
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
        self._lock = os.open(made / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # It has its name once it is held: until then another might take it for left over.
        self.path = made.rename(base / made.name[1:])

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


class _Directory:
    """The directory of one file, which only grows: each line is read once."""

    __slots__ = ("end", "n_cells", "places")

    def __init__(self) -> None:
        self.places: dict[Series, Place] = {}
        self.end = 0
        self.n_cells = 0

    def take(self, lines: bytes | mmap.mmap) -> None:
        """Read what was written since the last time. lines: the directory from its start."""
        for name, labels, first, count in _decode_lines(lines[self.end :]):
            self.places[name, labels] = Place(first, first + count)
            self.n_cells = max(self.n_cells, first + count)
        self.end = len(lines)


_Known = dict[tuple[str, int, int], _Directory]
"""Directories by the file's name, its inode and, of the past, when it was made."""


def _files(folder: Path, known: _Known, kept: _Known) -> Iterator[tuple[Path, Read]]:
    """Every file of cells that is one, the past first. known: directories read before.  kept: to hold those of now."""
    folded: set[str] = set()
    for path in [folder / PAST, *sorted(folder.glob(f"*{SUFFIX}"))]:
        if path.name in folded or not path.exists():
            continue
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            # Asked before the numbers are read, so that those of the dead are their last. Shared, so that two who ask
            # at once do not take each other for the writer.
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                is_alive = False
            except BlockingIOError:
                is_alive = True
            head = os.pread(file, DIRECTORY_AT, 0)
            if status.st_size != FILE_BYTES or not head.startswith(MAGIC):
                continue
            _, end = HEADER.unpack_from(head)
            made = status.st_mtime_ns if path.name == PAST else 0
            directory = known.get((path.name, status.st_ino, made)) or _Directory()
            kept[path.name, status.st_ino, made] = directory
            if end > directory.end:
                directory.take(os.pread(file, end, DIRECTORY_AT))
            numbers = memoryview(os.pread(file, 8 * directory.n_cells, CELLS_AT)).cast("d").tolist()
        finally:
            os.close(file)
        if path.name == PAST:
            folded = {labels[0] for name, labels in directory.places if name == FOLDED}
        yield path, Read(directory.places, numbers, is_alive)


def _fold(folder: Path) -> None:
    """Add what processes that are gone counted to the file of the past, and remove their files."""
    gone = []
    for path, read in _files(folder, {}, {}):
        if path.name == PAST:
            # One that fell here before may not have come to it.
            for name, labels in read.places:
                if name == FOLDED:
                    (folder / labels[0]).unlink(missing_ok=True)
        if not read.is_alive:
            gone.append((path, read.values))
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
