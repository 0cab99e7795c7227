"""The way to a Redis Cluster: each command to the node that has its key, whoever that is by now."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from asyncio import Future, Task
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection

from app.cache.link import ended, refused
from app.cache.nodes import Node, Nodes
from app.cache.pipeline import Answer, Call, Command, converse
from app.cache.pool import FAILURES, Pool
from app.cache.redirections import Redirection, follow
from app.cache.slots import SLOTS, Address, Layout, Span, slot_of, spans
from app.resilience.breaker import Breaker, BreakerOpen
from app.telemetry.log import event

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""How often a node is asked who has which slots."""
PAUSE_S = 0.25
"""How long nobody is asked after that, whatever gives reason to."""
LINGER_S = 10.0
"""How long a link is kept that is neither listed nor used."""

ASKING: Call = (b"ASKING",)


class Cluster(Nodes):
    """A link to each node, each with its pool, breaker and batches: one that is away holds up nobody else's keys.

    seeds: who is asked first, and again when nobody else answers.  pool_at, breaker_at: of a link.
    every_s: how often it is asked who has which slots.
    `errors`: commands not done, by reason, of all links; and uncovered, where nobody is known to have the key's slot.
    `patience_s`: the longest that a batch may take.

    # Design: who has a slot is learnt from one node now and then, soon after something fails, and from whoever says
    # that a slot has moved: once what it sent on is done, so that no later command for the slot overtakes an earlier.
    """

    keeps_order = False
    """Each link does; where a slot moves, two of them have to do with it for a moment."""

    def __init__(
        self,
        seeds: Sequence[Address],
        pool_at: Callable[[Address], Pool],
        breaker_at: Callable[[Address], Breaker],
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__(self._link_to)
        self._seeds = tuple(seeds)
        self._pool_at = pool_at
        self._breaker_at = breaker_at
        self._every_s = every_s
        self._slots: list[Node | None] = [None] * SLOTS
        self._view: list[Span] = []
        self._doubted = asyncio.Event()
        self._following: Task[None] | None = None
        self._tasks: set[Task[None]] = set()
        self._lines: WeakKeyDictionary[AbstractConnection, Node] = WeakKeyDictionary()
        self._turn = random.randrange(SLOTS)
        self.errors: Counter[str] = Counter()
        pool = pool_at(self._seeds[0])
        self.patience_s = pool.timeout_s + pool.acquire_timeout_s

    @property
    def is_away(self) -> bool:
        """Whether nothing is sent to anybody now."""
        return all(node.is_away for node in self.listed)

    @property
    def uncovered(self) -> int:
        """Slots that nobody is known to have."""
        return self._slots.count(None)

    def node_of(self, key: bytes) -> Node | None:
        """Who is taken to have a key."""
        return self._slots[slot_of(key)]

    def make(self) -> AbstractConnection:
        """A connection of its own to one of the nodes, another each time, not open yet."""
        nodes = self.listed or [self.at(seed) for seed in self._seeds]
        self._turn += 1
        node = nodes[self._turn % len(nodes)]
        connection = node.pool.make()
        self._lines[connection] = node
        return connection

    def holds(self, connection: AbstractConnection) -> bool:
        """Whether what was made leads to a node that still has slots: one that left hears nothing any more."""
        return not self.listed or self._lines[connection] in self.listed

    async def open(self) -> None:
        """Learn who has which slots, and go on to. Where nobody answers, that is counted, and tried again."""
        await self._learn()
        loop = asyncio.get_running_loop()
        self._following = loop.create_task(self._follow(), name="redis-cluster", context=Context())

    async def close(self) -> None:
        """Send what waits, then close all connections. Raises what ended the learning before, if anything did."""
        await ended(self._following)
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*[node.close() for node in self.links()])

    def post(self, command: Command) -> Future[Answer | None]:
        """Have a command done by who has its key, with the next batch. The future gives None where it was not."""
        key = command.at or command.keys[0]
        node = self._slots[slot_of(key)]
        if node is None:
            self._doubted.set()
            self.errors["uncovered"] += 1
            return refused()
        return node.post(command)

    def post_each(self, command: Command) -> list[Future[Answer | None]]:
        """Have a command without keys done by every node."""
        return [node.post(command) for node in self.listed]

    def deletions(self, keys: Sequence[bytes]) -> list[Command]:
        """What deletes these keys, those of one slot in their order."""
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            by_slot.setdefault(slot_of(key), []).append(key)
        return [Command((b"DEL", *together), at=together[0]) for together in by_slot.values()]

    async def problem(self) -> str | None:
        """What is wrong with the cluster, as far as asking every node tells; None for nothing."""
        if not self.listed:
            return "no node of the cluster answers"
        asked = {str(node): node.post(Command((b"CLUSTER", b"INFO"))) for node in self.listed}
        await asyncio.wait(asked.values(), timeout=self.patience_s)
        told = {place: future.result() if future.done() else None for place, future in asked.items()}
        silent = sorted(place for place, answer in told.items() if answer is None)
        if silent:
            return f"of {len(told)} nodes {len(silent)} without an answer: {', '.join(silent)}"
        unwell = sorted(place for place, answer in told.items() if not _is_well(answer))
        if unwell:
            return f"the cluster is down, say {', '.join(unwell)}"
        return f"{self.uncovered} slots are nobody's" if self.uncovered else None

    def _link_to(self, address: Address) -> Node:
        async def exchange(_: Pool, commands: Sequence[Command], timeout_s: float) -> list[Answer | None]:
            return await self._exchange(node, commands, timeout_s)

        node = Node(address, self._pool_at(address), self._breaker_at(address), exchange, self.errors)
        self._spawn(node.open())
        return node

    async def _exchange(self, node: Node, commands: Sequence[Command], timeout_s: float) -> list[Answer | None]:
        """An answer to each command, from this node or from whom it names. Raises one of FAILURES where it is away."""
        end = asyncio.get_running_loop().time() + timeout_s
        layout = Layout(commands)
        try:
            replies = await converse(node.pool, layout.calls, timeout_s)
        except FAILURES:
            self._doubted.set()
            raise
        moved = await follow(layout.calls, replies, node.address, partial(self._send_on, end))
        for slot, address in moved.items():
            self._slots[slot] = self.at(address)
            self._view = []
            self._doubted.set()
        return list(layout.answers(replies))

    async def _send_on(self, end: float, to: Redirection, calls: list[Call]) -> Sequence[object]:
        """The reply to each call of the node they were sent on to, beside what waits for it."""
        node = self.at(to.address)
        node.used_s = time.monotonic()
        sent = [call for wanted in calls for call in (ASKING, wanted)] if to.asking else calls
        left_s = end - asyncio.get_running_loop().time()
        if left_s <= 0:
            return [TimeoutError()] * len(calls)
        try:
            replies = await node.breaker.call(lambda: converse(node.pool, sent, left_s), len(calls))
        except BreakerOpen as error:
            return [error] * len(calls)
        except FAILURES as error:
            return [error] * len(calls)
        return replies[1::2] if to.asking else replies

    async def _follow(self) -> None:
        """Learn again and again who has which slots."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._doubted.wait()
            self._doubted.clear()
            await self._learn()
            await asyncio.sleep(PAUSE_S)

    async def _learn(self) -> None:
        """Take over what the first node tells that finds its cluster well; if none does, what the first of all does."""
        told: list[Span] = []
        for node in self._advisers():
            view, is_well = await self._asked(node)
            if view and (is_well or not told):
                told = view
            if view and is_well:
                break
        if told and told != self._view:
            self._take(told)
        now_s = time.monotonic()
        for node in self.listed:
            node.used_s = now_s
        for node in self.links():
            if now_s - node.used_s > LINGER_S:
                self.drop(node)
                self._spawn(node.close())

    def _advisers(self) -> Iterator[Node]:
        """Whom to ask, one after the other: those with slots, in any order but the silent ones last, then the seeds."""
        known = random.sample(self.listed, len(self.listed))
        yield from sorted(known, key=lambda node: node.is_away)
        for seed in self._seeds:
            node = self.at(seed)
            if node not in known:
                node.used_s = time.monotonic()
                yield node

    async def _asked(self, node: Node) -> tuple[list[Span], bool]:
        """Who has which slots, as the node has it, and whether it finds the cluster well; nothing where it is away."""
        posted = [node.post(Command((b"CLUSTER", what))) for what in (b"SLOTS", b"INFO")]
        await asyncio.wait(posted, timeout=self.patience_s)
        slots, info = [future.result() if future.done() else None for future in posted]
        try:
            return [] if slots is None else spans(slots.reply, node.address), _is_well(info)
        except ValueError as error:
            log.warning("%s does not tell who has which slots: %s", node, error)
            return [], False

    def _take(self, view: list[Span]) -> None:
        """Send commands to whom the view names from now on."""
        slots: list[Node | None] = [None] * SLOTS
        for first, last, address in view:
            slots[first : last + 1] = [self.at(address)] * (last + 1 - first)
        before = self.listed
        self._slots, self._view = slots, view
        self.listed = [self.at(address) for address in dict.fromkeys(span.address for span in view)]
        if self.listed != before:
            nodes = ", ".join(sorted(map(str, self.listed)))
            told = event("redis_nodes", nodes=nodes, uncovered=self.uncovered)
            log.info("the nodes of the Redis Cluster are %s", nodes, extra=told)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="redis-node", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_well(info: Answer | None) -> bool:
    return info is not None and isinstance(info.reply, bytes) and b"cluster_state:ok" in info.reply
