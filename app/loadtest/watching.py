"""What the service tells of itself meanwhile: its /metrics, read once a second."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from app.loadtest.service import Address

EVERY_S = 1.0
WITHIN_S = 2.0
CPU = "process_cpu_seconds_total"
MEMORY = "process_resident_memory_bytes"
MAX_FDS = "process_max_fds"
WORKERS = "service_workers"
LAG = "event_loop_lag_seconds_bucket"

Buckets = Mapping[float, float]


class Sample(NamedTuple):
    """One look. at: on the monotonic clock.  lag: counts up to each bound of seconds."""

    at: float
    cpu_s: float | None
    memory: float | None
    lag: Buckets
    max_fds: float | None
    workers: float | None


class Reading(NamedTuple):
    """One second of the service: cores, bytes, seconds; None where it is not known."""

    cpu: float | None
    memory: float | None
    lag_s: float | None


def read(text: str, at: float) -> Sample:
    """A sample from the text format of Prometheus."""
    plain: dict[str, float] = {}
    lag: dict[float, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name in (CPU, MEMORY, MAX_FDS, WORKERS):
            plain[name] = float(value)
        elif name.startswith(LAG) and 'le="' in name:
            lag[float(name.split('le="')[1].split('"')[0])] = float(value)
    return Sample(at, plain.get(CPU), plain.get(MEMORY), lag, plain.get(MAX_FDS), plain.get(WORKERS))


class Watch:
    """Looks once a second, in a thread, until the block is left. What cannot be read is left out."""

    def __init__(self, address: Address) -> None:
        self.samples: list[Sample] = []
        self._address = address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loadtest-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(WITHIN_S + 1)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ended.wait(EVERY_S):
            try:
                if connection is None:
                    connection = self._address.connection(WITHIN_S)
                sample = look(self._address, connection)
                if sample is not None:
                    self.samples.append(sample)
            except (OSError, http.client.HTTPException, ValueError):
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()


def look(address: Address, connection: http.client.HTTPConnection) -> Sample | None:
    """One look; None where the service does not let this machine or this key look."""
    connection.request("GET", "/metrics", headers=address.headers)
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    return read(text, time.monotonic()) if response.status == 200 else None


def first_look(address: Address) -> Sample | None:
    """A look on a connection of its own; None where there is nothing to be seen."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        connection = address.connection(WITHIN_S)
        try:
            return look(address, connection)
        finally:
            connection.close()
    return None


def readings(samples: Sequence[Sample], begun: float, seconds: int) -> list[Reading]:
    """Of each second. begun: of the first.

    The service itself looks at its CPU and memory now and then: between two looks of its own the CPU is their mean.
    """
    changes: list[Sample] = []
    for sample in samples:
        if sample.cpu_s is not None and (not changes or sample.cpu_s != changes[-1].cpu_s):
            changes.append(sample)
    return [_reading(samples, changes, begun + second, begun + second + 1) for second in range(seconds)]


def _reading(samples: Sequence[Sample], changes: Sequence[Sample], start: float, end: float) -> Reading:
    cpu = memory = lag_s = None
    middle = (start + end) / 2
    for before, after in pairwise(changes):
        if before.at <= middle < after.at and before.cpu_s is not None and after.cpu_s is not None:
            # A worker that ended may take what it counted with it.
            cpu = max(0.0, after.cpu_s - before.cpu_s) / (after.at - before.at)
    earlier = [sample for sample in samples if sample.at < start]
    within = [sample for sample in samples if start <= sample.at < end]
    if within:
        memory = within[-1].memory
        if earlier:
            lag_s = _p99(earlier[-1].lag, within[-1].lag)
    return Reading(cpu, memory, lag_s)


def _p99(before: Buckets, after: Buckets) -> float | None:
    """The bound that a hundredth of what was counted in between exceeds, at most."""
    counts = sorted((bound, count - before.get(bound, 0.0)) for bound, count in after.items())
    if not counts or counts[-1][1] <= 0:
        return None
    finite = [bound for bound, _ in counts if bound != float("inf")]
    for bound, count in counts:
        if count >= 0.99 * counts[-1][1]:
            return min(bound, finite[-1]) if finite else None
    return None
