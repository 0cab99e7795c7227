"""Numbers that outlive their writer, and are never counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.telemetry.cells import N_CELLS, PAST, SPARE, Cells, Folder

WRITER = """
import os, signal, sys
from pathlib import Path
from app.telemetry.cells import Cells
cells = Cells(Path(sys.argv[1]))
first = cells.reserve("counted", ("a",), 2)
for _ in range(int(sys.argv[2])):
    cells.numbers[first] += 1
    cells.numbers[first + 1] += 0.5
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = Folder(tmp_path)
    yield made.path
    made.close()


def writer(folder: Path, count: int) -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(count)], stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    return started


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def total(cells: Cells) -> list[float]:
    each = [read.values["counted", ("a",)] for read in cells.read() if ("counted", ("a",)) in read.values]
    return [sum(values) for values in zip(*each, strict=True)]


def alive(cells: Cells) -> int:
    return sum(read.is_alive for read in cells.read())


def test_all_processes_are_read_and_what_the_dead_counted_stays(folder: Path) -> None:
    first, second = writer(folder, 3), writer(folder, 4)
    with Cells(folder) as own:
        place = own.reserve("counted", ("a",), 2)
        own.numbers[place] += 10
        assert (total(own), alive(own)) == ([17.0, 3.5], 3)
        kill(first)
        assert (total(own), alive(own)) == ([17.0, 3.5], 2)
        kill(second)
        assert (total(own), alive(own)) == ([17.0, 3.5], 1)


def test_the_dead_are_folded_into_one_file(folder: Path) -> None:
    for _ in range(3):
        kill(writer(folder, 5))
    with Cells(folder) as own:
        assert total(own) == [15.0, 7.5]
        assert sorted(path.suffix for path in folder.glob("*.cells")) == [".cells"]
    with Cells(folder) as again:
        assert total(again) == [15.0, 7.5]


def test_a_fold_that_broke_off_counts_nothing_twice(folder: Path) -> None:
    kill(writer(folder, 5))
    [gone] = folder.glob("*.cells")
    kept = gone.read_bytes()
    with Cells(folder) as own:
        # As if it had ended between writing the sums and removing what they are of.
        gone.write_bytes(kept)
        assert total(own) == [5.0, 2.5]
    with Cells(folder) as again:
        assert total(again) == [5.0, 2.5]
        assert not gone.exists()


def test_a_series_keeps_its_place(folder: Path) -> None:
    with Cells(folder) as cells:
        one, two = cells.reserve("a", (), 1), cells.reserve("a", ("x",), 3)
        assert (cells.reserve("a", (), 1), cells.reserve("a", ("x",), 3)) == (one, two)
        cells.numbers[two + 2] = 7.0
        [read] = cells.read()
        assert read.values == {("a", ()): (0.0,), ("a", ("x",)): (0.0, 0.0, 7.0)}


def test_a_series_without_room_is_dropped_and_counted() -> None:
    with Cells() as cells:
        for number in range((N_CELLS - SPARE) // SPARE):
            cells.reserve(str(number), (), SPARE)
        assert cells.dropped == 0
        first = cells.reserve("more", (), SPARE)
        cells.numbers[first + SPARE - 1] += 1
        assert cells.dropped == 1
        assert ("more", ()) not in cells.read()[0].values


def test_a_file_that_is_no_file_of_cells_is_passed_over(folder: Path) -> None:
    (folder / "1-1.cells").write_bytes(b"something else")
    (folder / PAST).write_bytes(b"")
    with Cells(folder) as cells:
        assert len(cells.read()) == 1


def test_folders_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    held = Folder(tmp_path)
    left = tmp_path / "kyb-metrics-left"
    left.mkdir()
    (left / "owner").touch()
    foreign = tmp_path / "kyb-metrics-foreign"
    foreign.mkdir()
    mine = Folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([held.path, foreign, mine.path])
    mine.close()
    held.close()
    assert list(tmp_path.iterdir()) == [foreign]


def test_only_their_owner_reads_them(folder: Path) -> None:
    with Cells(folder):
        modes = {path.name.partition("-")[0]: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(os.getpid()) in modes
