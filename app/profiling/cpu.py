"""Where CPU time goes: stacks of Python sampled at a fixed rate for a while.

# Design: py-spy, a process of its own, reads this one's memory (process_vm_readv) and never stops it; were it to fail,
# nothing here would notice. A profiler within the process that hooks calls, such as pyinstrument, took 45 % of the
# throughput where py-spy takes 3 % (benchmarks/README.md). Reading another process's memory can be forbidden, by the
# seccomp profile of a container or by ptrace_scope 2 and 3; then a thread of this process looks at the others. It must
# wait for the interpreter's lock, so it sees only where that is given up: compiled code shows as what called it next.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from app.profiling.places import place

log = logging.getLogger(__name__)

RATE = 100
"""Samples a second."""
PATIENCE_S = 10.0
"""How much longer than asked for py-spy may take, on a machine without a free core."""
THREAD_CPU_CLOCK = 6
PR_SET_PTRACER = 0x59616D61
DEPTH = 200
_FAILED = re.compile(r"Errors: ([1-9]\d*)")
_LINE = re.compile(r"(.+) (\d+)")
_FRAME = re.compile(r"(.+) \((.+?)(?::(\d+))?\)")

Stack = tuple["Frame", ...]


class Frame(NamedTuple):
    """A function, and where it begins."""

    name: str
    file: str
    line: int


class Samples(NamedTuple):
    """stacks: outermost frame first, with how often each was seen.  seconds, rate: how long, and how often in each.
    sampler: what took them."""

    stacks: Counter[Stack]
    seconds: float
    rate: int
    sampler: str


class Refused(Exception):
    """py-spy is not there, or may not read this process."""


async def sampled(seconds: float) -> Samples:
    """Samples of this process. Cancelled, it ends what takes them before it raises."""
    try:
        stacks = await _in_thread(Beside(), seconds)
    except Refused as refused:
        log.warning("py-spy cannot read this process, so that a thread of it samples: %s", refused)
        return Samples(await _in_thread(Within(), seconds), seconds, RATE, "a thread of the process")
    return Samples(stacks, seconds, RATE, "py-spy")


class Beside:
    """py-spy in a process of its own."""

    def __init__(self, program: Path | None = None) -> None:
        self._program = program or Path(sysconfig.get_path("scripts"), "py-spy")
        self._process: subprocess.Popen[str] | None = None
        self._is_over = False

    def take(self, seconds: float) -> Counter[Stack]:
        """Blocks. Raises Refused."""
        # By function, whose stacks are fewer; into a pipe, since a container may have no place for a file.
        command = [str(self._program), "record", "--pid", str(os.getpid()), "--duration", f"{seconds:g}"]
        command += ["--rate", str(RATE), "--nonblocking", "--function", "--format", "raw", "--output", "/dev/stdout"]
        _let_read(os.getpid())
        try:
            # Without this process's environment, which holds secrets.
            process = self._process = subprocess.Popen(  # noqa: S603
                command, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            if self._is_over:
                process.kill()
            told, why = process.communicate(timeout=seconds + PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Refused(f"not done {PATIENCE_S:g} s after its time") from None
        except OSError as error:
            raise Refused(f"{self._program}: {error.strerror}") from None
        finally:
            _let_read(0)
        if process.returncode:
            raise Refused(" ".join(why.split())[:200] or f"it ended with {process.returncode}")
        stacks = folded(told)
        if not stacks and (match := _FAILED.search(told)):
            raise Refused(f"{match[1]} stacks could not be read, and no other was")
        return stacks

    def end(self) -> None:
        self._is_over = True
        if self._process is not None:
            self._process.kill()


class Within:
    """A thread of this process."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def take(self, seconds: float) -> Counter[Stack]:
        """Blocks. A stack counts for as many samples as its thread has used CPU time, so one that waits counts none."""
        seen: Counter[tuple[CodeType, ...]] = Counter()
        own, counted = threading.get_ident(), _spent_s()
        due = time.perf_counter()
        end = due + seconds
        while (due := due + 1 / RATE) < end and not self._over.wait(max(due - time.perf_counter(), 0.0)):
            frames, spent = sys._current_frames(), _spent_s()
            for ident in frames.keys() & spent.keys() - {own}:
                samples = int((spent[ident] - counted.setdefault(ident, spent[ident])) * RATE)
                if samples:
                    seen[_codes(frames[ident])] += samples
                    counted[ident] += samples / RATE
        return Counter({tuple(map(_frame, stack)): count for stack, count in seen.items()})

    def end(self) -> None:
        self._over.set()


def folded(text: str) -> Counter[Stack]:
    """Stacks from lines such as `main (app/x.py:1);work (app/y.py:7) 42`; what is no such line is passed over."""
    found: Counter[Stack] = Counter()
    for line in text.splitlines():
        match = None if line.startswith("py-spy>") else _LINE.fullmatch(line)
        if match is not None:
            found[tuple(map(_parsed, match[1].split(";")))] += int(match[2])
    return found


async def _in_thread(sampler: Beside | Within, seconds: float) -> Counter[Stack]:
    work = asyncio.get_running_loop().run_in_executor(None, sampler.take, seconds)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        sampler.end()
        await asyncio.wait((work,))
        # Looked at, so that nobody complains that it was not.
        work.exception()
        raise


def _parsed(frame: str) -> Frame:
    match = _FRAME.fullmatch(frame)
    return Frame(frame, "", 0) if match is None else Frame(match[1], match[2], int(match[3] or 0))


def _frame(code: CodeType) -> Frame:
    return Frame(code.co_qualname, place(code.co_filename), code.co_firstlineno)


def _codes(frame: FrameType | None) -> tuple[CodeType, ...]:
    codes: list[CodeType] = []
    while frame is not None and len(codes) < DEPTH:
        codes.append(frame.f_code)
        frame = frame.f_back
    return tuple(reversed(codes))


def _spent_s() -> dict[int, float]:
    """The CPU time of each of Python's threads so far.

    # Design: the clock of a thread by its kernel id (MAKE_THREAD_CPUCLOCK), which is refused for one that has ended,
    # where `time.pthread_getcpuclockid` would read freed memory. Unlike a file in /proc it does not give up the
    # interpreter's lock, which a busy thread hands back only after 5 ms.
    """
    spent = {}
    for thread in threading.enumerate():
        if thread.ident is not None and thread.native_id is not None:
            with suppress(OSError):
                spent[thread.ident] = time.clock_gettime(~thread.native_id << 3 | THREAD_CPU_CLOCK)
    return spent


def _let_read(pid: int) -> None:
    """Let a process and its descendants read this one where Linux asks (Yama); 0: nobody but its parents."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
