"""One process of the generator: its share of the users, and what it saw, told once a second."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop
from msgspec import Struct

from app.loadtest.histogram import Histogram
from app.loadtest.mix import ServiceMix
from app.loadtest.users import Crowd, Tally

SETTLED_S = 1
"""How long after its end a second is told: most answers are in by then, and the rest follow as further tallies."""
RESIZE_S = 0.01
GROWTH = 64
"""New users at a time, so that what is due meanwhile does not wait for them: more than 6,000 in a second."""
ALL = 1 << 40
CONNECTED_WITHIN_S = 30.0
"""Then it begins with the connections that there are."""


class Point(Struct, frozen=True, array_like=True):
    """So many users from a moment on, in a straight line to the next point. at_s: from the start."""

    at_s: float
    users: float


class Orders(Struct, frozen=True):
    """What one process has to do.

    host, port: to connect to.  shares: of the kinds of requests.  run: text that makes the ids of a run its own.
    number: of this process, from 0.  points: of the users of all processes.  businesses, warm_s: as in scenarios.Plan.
    The rest is of users.Crowd.
    """

    host: str
    port: int
    host_header: str
    key: str
    shares: dict[str, float]
    run: str
    number: int
    processes: int
    points: list[Point]
    period_s: float
    longest_s: float
    sources: tuple[str, ...]
    flat_out: bool
    businesses: int
    warm_s: float = 0.0


class Told(Struct, array_like=True):
    """A second of one process, or what is to be added to one.

    second: counted from the start.  cpu: cores, 0 where it is not known.
    """

    process: int
    second: int
    users: int
    connections: int
    intended: int
    answers: list[tuple[str, int, int]]
    errors: list[tuple[str, str, int]]
    times: dict[str, tuple[int, int, int, list[tuple[int, int]]]]
    late: tuple[int, int, int, list[tuple[int, int]]]
    cpu: float


CONNECTED = b"connected"
_encode = msgspec.msgpack.Encoder().encode


def users_at(points: list[Point], at_s: float) -> float:
    """How many users there are to be at a moment."""
    before = points[0]
    for point in points:
        if point.at_s > at_s:
            span = point.at_s - before.at_s
            return before.users + (point.users - before.users) * (at_s - before.at_s) / span if span else point.users
        before = point
    return before.users


def mine(users: float, number: int, processes: int) -> int:
    """How many of all users belong to one process."""
    whole = round(users)
    return whole // processes + (number < whole % processes)


def generate(orders: Orders, pipe: Connection) -> None:
    """Run until the last point, or until told to stop. The pipe is told CONNECTED, each `Told`, and b"" at the end.

    Once all processes are connected the parent sends the moment to begin, of time.monotonic(); whatever it sends after
    that is the order to stop.
    """
    # Ctrl-C is the parent's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_generate(orders, pipe))


async def _generate(orders: Orders, pipe: Connection) -> None:
    mix = ServiceMix(orders.host_header, orders.key, orders.shares, orders.run, orders.number, orders.businesses)
    crowd = Crowd(
        (orders.host, orders.port),
        mix,
        period_s=orders.period_s,
        longest_s=orders.longest_s,
        sources=orders.sources,
        flat_out=orders.flat_out,
        warm_s=orders.warm_s,
        clock=time.monotonic,
    )
    points = orders.points
    end_s = points[-1].at_s
    crowd.resize(mine(points[0].users, orders.number, orders.processes))
    with suppress(TimeoutError):
        async with asyncio.timeout(CONNECTED_WITHIN_S):
            await crowd.connected()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    pipe.send_bytes(CONNECTED)
    begun = await asyncio.to_thread(pipe.recv)
    await asyncio.sleep(begun - time.monotonic())
    crowd.start(begun, end_s)
    told = 0
    cpu = Cpu()
    while (at_s := time.monotonic() - begun) < end_s and not pipe.poll():
        cpu.look(at_s)
        wanted = mine(users_at(points, at_s), orders.number, orders.processes)
        crowd.resize(min(wanted, crowd.users + GROWTH))
        if at_s - told >= 1 + SETTLED_S:
            told += 1
            _tell(pipe, orders, crowd, cpu, told)
        await asyncio.sleep(RESIZE_S)
    cpu.look(end_s)
    await crowd.stop()
    _tell(pipe, orders, crowd, cpu, ALL)
    pipe.send_bytes(b"")


class Cpu:
    """What this process takes of a core, second by second."""

    def __init__(self) -> None:
        self._at_s, self._cpu_s = 0.0, _cpu_s()
        self._cores: dict[int, float] = {}

    def look(self, at_s: float) -> None:
        """To be called often. at_s: from the start."""
        second = int(self._at_s)
        if int(at_s) > second:
            cpu_s = _cpu_s()
            self._cores[second] = (cpu_s - self._cpu_s) / (at_s - self._at_s)
            self._at_s, self._cpu_s = at_s, cpu_s

    def take(self, second: int) -> float:
        """Of one second, once."""
        return self._cores.pop(second, 0.0)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _tell(pipe: Connection, orders: Orders, crowd: Crowd, cpu: Cpu, before: int) -> None:
    for second, tally in crowd.take(before).items():
        pipe.send_bytes(_encode(_told(orders.number, second, tally, cpu.take(second))))


def _told(number: int, second: int, tally: Tally, cpu: float) -> Told:
    return Told(
        number,
        second,
        tally.users,
        tally.connections,
        tally.intended,
        [(kind, status, count) for (kind, status), count in tally.answers.items()],
        [(kind, why, count) for (kind, why), count in tally.errors.items()],
        {kind: times.packed() for kind, times in tally.times.items()},
        tally.late.packed(),
        cpu,
    )


def histogram(packed: Any) -> Histogram:
    """What a Told holds of times."""
    return Histogram.unpacked(*packed)
