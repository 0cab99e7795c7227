"""Virtual users: each holds one connection and intends a request at times of its own, whatever becomes of the last."""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from app.loadtest.histogram import Histogram

TICK_S = 0.001
IDLE_TICKS = 10
GOLDEN = 0.6180339887498949
"""Multiples of it lie evenly within 0 to 1, however many there are."""
SWEEP_S = 0.25
"""How often answers that take too long are given up."""
SWEEPS = 16
"""Parts of it, one after the other."""
CONNECTING = 256
"""Connections that are being made at a time."""
AGAIN_S = 0.1
REFUSED = 400
"""Statuses from here on are errors: nothing is asked that the service should refuse."""
UNSENT = "unsent"
"""The kind of what could not even be sent."""


class Ask(NamedTuple):
    """A request. kind: what the report calls it.  data: its bytes, head and body."""

    kind: str
    data: bytes


class Mix(Protocol):
    """What users ask for."""

    def ask(self) -> Ask:
        """The next request."""

    def ask_most(self) -> Ask:
        """The request that takes the most of a connection."""

    def told(self, kind: str, status: int, head: bytes) -> None:
        """An answer. head: in lower case."""


class Tally:
    """What happened to the requests intended in one second. Times are in microseconds, from the intended moment.

    intended: how many were due.  late: how late this process itself came to them.  users, connections: at its end.
    """

    __slots__ = ("answers", "connections", "errors", "intended", "late", "times", "users")

    def __init__(self) -> None:
        self.intended = 0
        self.users = 0
        self.connections = 0
        self.answers: Counter[tuple[str, int]] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.times: dict[str, Histogram] = {}
        self.late = Histogram()

    def answered(self, kind: str, status: int, took_us: int) -> None:
        """Count an answer, and its time unless it is an error: refusing is quick, and would make the rest look so."""
        self.answers[kind, status] += 1
        if status >= REFUSED:
            return
        times = self.times.get(kind)
        if times is None:
            times = self.times[kind] = Histogram()
        times.add(took_us)


class User(asyncio.Protocol):
    """One connection, kept alive and made again when it was lost, and the requests that are due on it."""

    __slots__ = (
        "_asks_most_at", "_buffer", "_crowd", "_due", "_kind", "_left", "_sent_at", "_transport", "_waiting", "leaves",
    )  # fmt: skip

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._asks_most_at = math.inf
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[float] = deque()
        self._kind = ""
        self._due = 0.0
        self._sent_at = 0.0
        self._buffer = b""
        self._left = -1
        self.leaves = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due and nothing is waited for."""
        return not self._kind and not self._waiting

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    @property
    def wants_connection(self) -> bool:
        """Whether something is due that no connection is there for."""
        return self._transport is None and bool(self._waiting)

    def ask_most_from(self, at: float) -> None:
        """Once, with the first request that is due from then on, ask for the most of the mix."""
        self._asks_most_at = at

    def intend(self, due: float) -> None:
        """A request is due. It is sent as soon as the one before it is answered."""
        if self._kind or self._transport is None:
            self._waiting.append(due)
            if self._transport is None:
                self._crowd.connect(self)
        else:
            self._send(due)

    def _send(self, due: float) -> None:
        if due < self._asks_most_at:
            ask = self._crowd.mix.ask()
        else:
            ask = self._crowd.mix.ask_most()
            self._asks_most_at = math.inf
        self._kind, self._due = ask.kind, due
        self._sent_at = self._crowd.clock()
        assert self._transport is not None
        self._transport.write(ask.data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._crowd.connections += 1
        self.go_on()

    def data_received(self, data: bytes) -> None:
        if self._left > 0:
            self._left -= len(data)
        elif not self._kind:
            # Nothing was asked: the server's last words, such as 408, before it closes.
            self._drop()
            return
        else:
            if self._buffer:
                data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            head = data[:end].lower()
            try:
                self._left = _length(head) - (len(data) - end - 4)
            except ValueError as error:
                self._broken(str(error))
                return
            self._buffer = head
        if self._left == 0:
            self._answered()
        elif self._left < 0:
            self._broken("more than the answer")

    def _answered(self) -> None:
        crowd, head = self._crowd, self._buffer
        kind, due = self._kind, self._due
        self._kind, self._buffer, self._left = "", b"", -1
        status = int(head[9:12])
        now = crowd.clock()
        crowd.tally(due).answered(kind, status, int((now - due) * 1e6))
        crowd.mix.told(kind, status, head)
        if b"\r\nconnection: close" in head:
            self._drop()
        self.go_on()

    def go_on(self) -> None:
        """Do what is next: send what is due, or leave."""
        if self._waiting:
            if self._transport is None:
                self._crowd.connect(self)
            else:
                self._send(self._waiting.popleft())
        elif self.leaves:
            self._drop()
        elif self._crowd.is_flat_out:
            now = self._crowd.clock()
            self._crowd.tally(now).intended += 1
            self.intend(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._crowd.connections -= 1
        if self._kind:
            self._failed(_name(exc) if exc is not None else "closed before the answer")
        if self._waiting or self.leaves or not self._crowd.is_flat_out:
            self.go_on()
        # Else the crowd's next sweep does: where every connection is lost at once, there would be no end of new ones.

    def give_up(self, longest_s: float) -> None:
        """Count what takes too long as an error, and end its connection."""
        now = self._crowd.clock()
        if self._kind and now - self._due > longest_s:
            self._broken("no answer in time")
        while self._waiting and now - self._waiting[0] > longest_s:
            self._crowd.tally(self._waiting[0]).errors[UNSENT, "not sent in time"] += 1
            self._waiting.popleft()

    def refused(self, error: Exception) -> None:
        """Its connection could not be made: what is due fails."""
        for due in self._waiting:
            self._crowd.tally(due).errors[UNSENT, f"connect: {_name(error)}"] += 1
        self._waiting.clear()

    def leave(self) -> None:
        """Go, once nothing is waited for."""
        self.leaves = True
        if self.is_idle:
            self._drop()

    def _broken(self, why: str) -> None:
        self._failed(why)
        self._drop()
        if self._waiting or self.leaves:
            self.go_on()

    def _failed(self, why: str) -> None:
        self._crowd.tally(self._due).errors[self._kind, why] += 1
        self._kind, self._buffer, self._left = "", b"", -1

    def _drop(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            self._crowd.connections -= 1
            transport.abort()


class Crowd:
    """All users of one process.

    target: host and port.  sources: local addresses in turn, none for the system's choice.  period_s: between the
    requests of a user.  flat_out: each sends again as soon as it was answered instead.  longest_s: an answer later than
    this is an error.  warm_s: in so many seconds each in turn has once asked for the most of the mix, 0 for none.
    clock: seconds.
    is_flat_out: whether users send again at once now, which they do from the start on.
    """

    def __init__(
        self,
        target: tuple[str, int],
        mix: Mix,
        *,
        period_s: float = 5.0,
        longest_s: float = 10.0,
        sources: tuple[str, ...] = (),
        flat_out: bool = False,
        warm_s: float = 0.0,
        clock: Callable[[], float],
    ) -> None:
        self.mix = mix
        self.clock = clock
        self.is_flat_out = False
        self.connections = 0
        self._flat_out = flat_out
        self._target = target
        self._sources = sources
        self._longest_s = longest_s
        self._warm_s = warm_s
        self._n_slots = max(1, round(period_s / TICK_S))
        self._slots: list[list[User]] = [[] for _ in range(self._n_slots)]
        self._users: list[tuple[User, int]] = []
        self._leaving: list[User] = []
        self._tallies: dict[int, Tally] = {}
        self._begun = 0.0
        self._tick = 0
        self._n_ticks: int | None = None
        self._made = 0
        self._swept = 0
        self._begun_connecting = 0
        self._connecting: set[User] = set()
        self._slots_free = asyncio.Semaphore(CONNECTING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def users(self) -> int:
        """How many there are."""
        return len(self._users)

    def tally(self, due: float) -> Tally:
        """Of the second in which a request was intended."""
        second = int(due - self._begun)
        found = self._tallies.get(second)
        if found is None:
            found = self._tallies[second] = Tally()
        return found

    def take(self, before: int) -> dict[int, Tally]:
        """The tallies of the seconds before this one, which are forgotten here: nothing is added to them any more, or
        it comes as a further tally of the same second."""
        ready = [second for second in self._tallies if second < before]
        return {second: self._tallies.pop(second) for second in sorted(ready)}

    def start(self, begun: float, seconds: float | None = None) -> None:
        """Begin to intend requests. begun: on the clock; seconds are counted from there.  seconds: nothing is intended
        after so many."""
        self._begun = begun
        if self._warm_s:
            # By number, not by slot: those who are due one after the other are not warm one after the other, too.
            for number, (user, _) in enumerate(self._users):
                user.ask_most_from(begun + number / len(self._users) * self._warm_s)
        self._n_ticks = None if seconds is None else round(seconds / TICK_S)
        self._tick = 0
        self.is_flat_out = self._flat_out
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(0, self._turn)
        self._sweep()

    def resize(self, users: int) -> None:
        """Have so many users. New ones connect at once; the youngest go first."""
        while len(self._users) < users:
            slot = int(self._made * GOLDEN % 1.0 * self._n_slots)
            self._made += 1
            user = User(self)
            self._slots[slot].append(user)
            self._users.append((user, slot))
            self.connect(user)
        while len(self._users) > users:
            user, slot = self._users.pop()
            self._made -= 1
            self._slots[slot].remove(user)
            self._leaving.append(user)
            user.leave()

    async def connected(self) -> None:
        """Wait until every user's connection is made, or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def connect(self, user: User) -> None:
        """Make a user's connection, unless there is one or that is under way."""
        if user in self._connecting or user.is_connected:
            return
        self._connecting.add(user)
        task = asyncio.get_running_loop().create_task(self._connect(user))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Let what is under way be answered, at most as long as an answer may take, and end all connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._turn()
            self._timer.cancel()
            self._timer = None
        self.is_flat_out = False
        everybody = [user for user, _ in self._users] + self._leaving
        for user in everybody:
            user.leave()
        end = self.clock() + self._longest_s + SWEEP_S
        while not all(user.is_idle for user in everybody) and self.clock() < end:
            await asyncio.sleep(SWEEP_S / 5)
            for user in everybody:
                user.give_up(self._longest_s)

    async def _connect(self, user: User) -> None:
        host, port = self._target
        try:
            async with self._slots_free:
                local = None
                if self._sources:
                    local = (self._sources[self._begun_connecting % len(self._sources)], 0)
                self._begun_connecting += 1
                async with asyncio.timeout(self._longest_s):
                    await asyncio.get_running_loop().create_connection(lambda: user, host, port, local_addr=local)
        except (OSError, TimeoutError) as error:
            if not user.is_connected:
                user.refused(error)
        finally:
            self._connecting.discard(user)
        if user.wants_connection:
            # It was lost before this task heard that it had been made.
            asyncio.get_running_loop().call_later(AGAIN_S, self.connect, user)

    def _turn(self) -> None:
        """Intend everything that became due since the last turn."""
        now = self.clock()
        last = int((now - self._begun) / TICK_S)
        if self._n_ticks is not None:
            last = min(last, self._n_ticks - 1)
        while self._tick <= last and not self._flat_out:
            due = self._begun + self._tick * TICK_S
            users = self._slots[self._tick % self._n_slots]
            if users:
                tally = self.tally(due)
                tally.intended += len(users)
                tally.users, tally.connections = len(self._users), self.connections
                late_us = int((self.clock() - due) * 1e6)
                for user in users:
                    tally.late.add(late_us)
                    user.intend(due)
            self._tick += 1
        tally = self.tally(now)
        tally.users, tally.connections = len(self._users), self.connections
        if self._timer is not None:
            loop = asyncio.get_running_loop()
            if self._flat_out:
                wait_s = SWEEP_S / SWEEPS
            else:
                wait_s = max(0.0, self._begun + self._next_tick() * TICK_S - self.clock())
            self._timer = loop.call_later(wait_s, self._turn)

    def _next_tick(self) -> int:
        """The next one in which something is due, or one a little before it: a wakeup for nothing costs as much."""
        for tick in range(self._tick, self._tick + IDLE_TICKS):
            if self._slots[tick % self._n_slots]:
                return tick
        return self._tick + IDLE_TICKS

    def _sweep(self) -> None:
        """Give up what took too long. In parts, so that nothing that is due waits for the whole of it."""
        part, self._swept = self._swept, (self._swept + 1) % SWEEPS
        for user, _ in self._users[part::SWEEPS]:
            user.give_up(self._longest_s)
            if self.is_flat_out and user.is_idle:
                user.go_on()
        if part == 0:
            for user in self._leaving:
                user.give_up(self._longest_s)
            self._leaving = [user for user in self._leaving if not user.is_idle]
        if self._timer is not None:
            asyncio.get_running_loop().call_later(SWEEP_S / SWEEPS, self._sweep)


def _length(head: bytes) -> int:
    """Of an answer's body. head: in lower case.  Raises ValueError, whose text says what is wrong."""
    if not head.startswith(b"http/1.") or not head[9:12].isdigit():
        raise ValueError("not an answer of HTTP/1")
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 17)
        length = head[at + 17 : stop if stop > 0 else len(head)].strip()
        if not length.isdigit():
            raise ValueError("answer with a content-length that is no number")
        return int(length)
    if head[9:12] in (b"204", b"304"):
        return 0
    if b"\r\ntransfer-encoding:" in head:
        raise ValueError("answer in chunks, which are not read")
    raise ValueError("answer without content-length")


def _name(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, str(number)) if number else type(error).__name__
