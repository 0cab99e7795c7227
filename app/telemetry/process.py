"""What the process itself takes, sampled now and then: CPU, memory, descriptors, the event loop, the collector."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from collections.abc import Mapping
from contextvars import Context

from app.telemetry import catalogue
from app.telemetry.meters import Counter, Histogram, Meters

LAG_EVERY_S = 0.25
"""How often the event loop is asked how late it is."""
FEW_S = 1.0
"""How often what is counted elsewhere is taken over, so that another process of the pod can tell it."""
PAGE_BYTES = resource.getpagesize()
OPEN_FILES = "/proc/self/fd"


class ProcessWatch:
    """Samples this process while it runs.

    sampled: whether the event loop, the collector and the process are looked at; what is polled always is.
    every_s: how often the process is.
    """

    def __init__(self, meters: Meters, *, sampled: bool, every_s: float) -> None:
        self._meters = meters
        self._sampled = sampled
        self._every_s = every_s
        self._tasks: list[asyncio.Task[None]] = []
        self._lag: Histogram | None = None
        self._pauses: list[Histogram] = []
        self._collecting = 0.0
        meters.counter(catalogue.MAX_FDS).set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        meters.counter(catalogue.START_TIME).set(time.time())
        self._starts: Counter = meters.counter(catalogue.WORKER_STARTS)

    def start(self) -> None:
        """Go on until `stop`."""
        self._starts.add()
        self._meters.counter(catalogue.WORKERS).set(1)
        self.take()
        self._spawn("metrics-poll", self._poll())
        if self._sampled:
            self._lag = self._meters.histogram(catalogue.LOOP_LAG)
            self._pauses = [self._meters.histogram(catalogue.GC_PAUSE, str(number)) for number in range(3)]
            gc.callbacks.append(self._collected)
            self._spawn("metrics-lag", self._measure_lag(self._lag))
            self._spawn("metrics-process", self._sample())

    async def stop(self) -> None:
        """Take a last look, and end."""
        if self._pauses:
            gc.callbacks.remove(self._collected)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._meters.refresh()
        self.take()

    def take(self) -> None:
        """Look at the process now."""
        if not self._sampled:
            return
        meters, times = self._meters, os.times()
        meters.counter(catalogue.CPU).set(times.user + times.system)
        meters.counter(catalogue.MEMORY).set(resident_bytes())
        meters.counter(catalogue.OPEN_FDS).set(open_files())

    def _spawn(self, name: str, work: object) -> None:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(work, name=name, context=Context()))  # type: ignore[arg-type]

    async def _poll(self) -> None:
        while True:
            self._meters.refresh()
            await asyncio.sleep(FEW_S)

    async def _sample(self) -> None:
        while True:
            self.take()
            await asyncio.sleep(self._every_s)

    async def _measure_lag(self, lag: Histogram) -> None:
        loop = asyncio.get_running_loop()
        every_s = min(LAG_EVERY_S, self._every_s)
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            lag.observe(max(0.0, loop.time() - due))

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        # Collections do not overlap, whichever thread they come up in.
        if phase == "start":
            self._collecting = time.perf_counter()
        elif self._collecting:
            self._pauses[info["generation"]].observe(time.perf_counter() - self._collecting)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def open_files() -> int:
    """File descriptors of this process.

    # PERF: with 10,000 connections their names take 9 ms, in which nobody is answered; the size of the folder, which
    # Linux tells from 6.2 on, 5 us.
    """
    return os.stat(OPEN_FILES).st_size or len(os.listdir(OPEN_FILES))
