"""Every asyncio task and every thread with its stack, equal stacks together."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from app.profiling.places import place
from app.profiling.turn import whose

SLICE_S = 0.002
"""How long tasks are looked at before others are let through."""
A_LOOK = 16
"""Tasks between two looks at the clock."""
DEPTH = 200
NAMES = 5
"""Names shown of a group."""
_MADE_UP = re.compile(r"Task-\d+|Thread-\d+.*")

Frames = tuple[tuple[CodeType, int], ...]


class Stack(NamedTuple):
    """frames: outermost first.  state: what a task waits for, or what else it does."""

    frames: Frames
    state: str


class _Group:
    __slots__ = ("count", "names")

    def __init__(self) -> None:
        self.count = 0
        self.names: Counter[str] = Counter()

    def add(self, name: str) -> None:
        self.count += 1
        if not _MADE_UP.fullmatch(name) and (name in self.names or len(self.names) < NAMES):
            self.names[name] += 1


async def tasks_and_threads() -> str:
    """A text of both, most frequent stacks first.

    # Design: all tasks are listed at once (5 ms for 10,000), then looked at in slices that let requests through, so a
    # task is shown as it is when it is looked at. Those that ended meanwhile are left out.
    """
    tasks: dict[Stack, _Group] = {}
    looked_at = 0
    slice_end = time.perf_counter() + SLICE_S
    for number, task in enumerate(asyncio.all_tasks()):
        if number % A_LOOK == 0 and time.perf_counter() > slice_end:
            await asyncio.sleep(0)
            slice_end = time.perf_counter() + SLICE_S
        if not task.done():
            tasks.setdefault(stack_of(task), _Group()).add(task.get_name())
            looked_at += 1
    threads = _threads()
    known = sum(group.count for group in threads.values())
    parts = [f"{whose()}: {_many(looked_at, 'task')}, {_many(known, 'thread')} of Python\n"]
    parts += _told(tasks, "task")
    parts += _told(threads, "thread")
    parts += _native()
    return "\n".join(parts)


def stack_of(task: asyncio.Task[Any]) -> Stack:
    """The frames of a task and of everything that it waits for, down to what is no coroutine."""
    frames = _chain(task.get_coro())
    if task is asyncio.current_task(task.get_loop()):
        return Stack(frames, "running")
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None:
        return Stack(frames, "ready")
    if isinstance(awaited, asyncio.Task) and not _MADE_UP.fullmatch(awaited.get_name()):
        return Stack(frames, f"waits for task {awaited.get_name()}")
    return Stack(frames, f"waits for {type(awaited).__name__.lstrip('_')}")


def _chain(awaitable: Any) -> Frames:
    """The frames from a coroutine inwards."""
    frames: list[tuple[CodeType, int]] = []
    while len(frames) < DEPTH:
        # Coroutines, generators and asynchronous generators name the same two things differently.
        for frame_name, inner in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            frame = getattr(awaitable, frame_name, None)
            if frame is not None:
                frames.append((frame.f_code, frame.f_lineno))
                awaitable = getattr(awaitable, inner)
                break
        else:
            break
    return tuple(frames)


def _threads() -> dict[Stack, _Group]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    found: dict[Stack, _Group] = {}
    for ident, frame in sys._current_frames().items():
        stack = Stack(_outermost_first(frame), "running" if ident == own else "waits, or runs without the interpreter")
        found.setdefault(stack, _Group()).add(names.get(ident, f"Thread-{ident}"))
    return found


def _outermost_first(frame: FrameType | None) -> Frames:
    frames: list[tuple[CodeType, int]] = []
    while frame is not None and len(frames) < DEPTH:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(reversed(frames))


def _told(groups: dict[Stack, _Group], what: str) -> Iterator[str]:
    for stack, group in sorted(groups.items(), key=lambda item: -item[1].count):
        yield f"{_many(group.count, what)}, {stack.state}{_names(group)}\n{_lines(stack.frames)}"


def _names(group: _Group) -> str:
    if not group.names:
        return ""
    return ": " + ", ".join(name if many == 1 else f"{name} ({many})" for name, many in group.names.items())


def _lines(frames: Iterable[tuple[CodeType, int]]) -> str:
    return "".join(f"    {code.co_qualname}  {place(code.co_filename)}:{line}\n" for code, line in frames)


def _native() -> Iterator[str]:
    """The process's threads by name, as the kernel has them: those of the server know no Python."""
    try:
        names = Counter(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    except OSError:
        return
    if names:
        told = "".join(f"    {many} {name}\n" for name, many in names.most_common())
        yield f"{_many(names.total(), 'thread')} of the process, by the kernel's names\n{told}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
