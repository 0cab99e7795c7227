"""What is allocated, and where: tracemalloc for a while, or from the start."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tracemalloc import Snapshot, StatisticDiff

from app.profiling.places import place
from app.profiling.turn import whose

_OURS = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))


class Heap:
    """always: trace every allocation from now on. Otherwise only while somebody looks.

    # Design: no objects are counted by type. `gc.get_objects` stops the process for as long as there are objects, and
    # knows nothing of those that were frozen when the service started.
    """

    def __init__(self, always: bool) -> None:
        self._always = always
        if always and not tracemalloc.is_tracing():
            tracemalloc.start()

    async def growth(self, seconds: float, top: int) -> str:
        """A text of what was allocated within so many seconds and is still there; traced from the start, of all that
        is there, too. top: lines at most. Ended early, it leaves nothing traced that was not before."""
        if self._always:
            before = await asyncio.to_thread(tracemalloc.take_snapshot)
            await asyncio.sleep(seconds)
            after = await asyncio.to_thread(tracemalloc.take_snapshot)
            traced = tracemalloc.get_traced_memory()
            costs = tracemalloc.get_tracemalloc_memory()
        else:
            before = Snapshot([], 1)
            # PERF: benchmarks/profiles.py: one frame of each allocation, since each more costs every allocation.
            tracemalloc.start()
            try:
                await asyncio.sleep(seconds)
                traced = tracemalloc.get_traced_memory()
                costs = tracemalloc.get_tracemalloc_memory()
                after = tracemalloc.take_snapshot()
            finally:
                tracemalloc.stop()
        found = await asyncio.to_thread(_compared, after, before)
        since = "since the start" if self._always else f"for the {seconds:g} s of this request"
        head = [
            f"{whose()}: allocations traced {since}\n",
            f"{_size(traced[0])} traced, {_size(traced[1])} at most; the trace itself takes {_size(costs)}",
            *_process(),
            "",
            f"{'size':>12} {'of it new':>12} {'blocks':>10} {'of them new':>12}  where",
        ]
        return "\n".join([*head, *_lines(found, top), ""])


def _compared(after: Snapshot, before: Snapshot) -> list[StatisticDiff]:
    """By file and line, what grew most first. Takes a while, so it belongs in a thread."""
    found = after.filter_traces(_OURS).compare_to(before.filter_traces(_OURS), "lineno")
    found.sort(key=lambda one: (-one.size_diff, -one.size))
    return found


def _lines(found: list[StatisticDiff], top: int) -> Iterator[str]:
    for one in found[:top]:
        frame = one.traceback[0]
        where = f"{place(frame.filename)}:{frame.lineno}"
        yield f"{_size(one.size):>12} {_size(one.size_diff):>12} {one.count:>10,} {one.count_diff:>+12,}  {where}"
    rest = found[top:]
    if rest:
        size, grown = sum(one.size for one in rest), sum(one.size_diff for one in rest)
        count, more = sum(one.count for one in rest), sum(one.count_diff for one in rest)
        yield f"{_size(size):>12} {_size(grown):>12} {count:>10,} {more:>+12,}  {len(rest):,} other places"


def _process() -> Iterator[str]:
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    else:
        yield f"{_size(resident)} resident"
    pending, limits = gc.get_count(), gc.get_threshold()
    collections = ", ".join(f"{one['collections']:,}" for one in gc.get_stats())
    yield (
        f"collector: {collections} collections by generation, {pending[0]:,} of {limits[0]:,} allocations until the "
        f"next, {gc.get_freeze_count():,} objects frozen"
    )


def _size(size_bytes: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes} B"
