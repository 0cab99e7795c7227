"""A real Valkey cluster of the tests' own, whose nodes can be killed and whose slots can be moved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from databases import START_LIMIT_S, Valkey
from proxy import HOST, reserve_port
from redis.crc import key_slot
from service import wait_until

SLOTS = 16384
NODES = 3
SHARES = [(SLOTS * number // NODES, SLOTS * (number + 1) // NODES - 1) for number in range(NODES)]
"""The slots of each, first and last, as they are at first."""

FORMING_MS = 500
"""A node that lost sight of most others waits so long before it serves again, and so does one that is new."""
STEADY_MS = 15_000
"""For how long a node may be silent before the others take it for dead, where a test is not about that."""


class Node(Valkey):
    """One node. Where a slot is nobody's, it serves the others."""

    def __init__(self) -> None:
        super().__init__()
        self._held_bus = reserve_port()
        self.bus_port: int = self._held_bus.getsockname()[1]

    def command_line(self) -> Sequence[str | Path]:
        settings = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(FORMING_MS),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            # A node that gave all its slots away stays what it is.
            "cluster-allow-replica-migration": "no",
        }
        return [*super().command_line(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    @property
    def id(self) -> str:
        return str(self.command("CLUSTER", "MYID").decode())

    def info(self) -> dict[str, str]:
        return dict(self.command("CLUSTER INFO"))

    def spans(self) -> list[tuple[int, int]]:
        """Its slots, as first and last of each run of them."""
        told = self.command("CLUSTER", "SLOTS")
        return [(first, last) for first, last, (_, port, *_), *_ in told if port == self.port]

    def give(self, spans: Sequence[tuple[int, int]], target: Node) -> None:
        """Have the slots moved to another node by the servers themselves, at once and with all that is in them."""
        for first, last in spans:
            self.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id)

        def has_them() -> bool:
            return all(any(low <= first and last <= high for low, high in target.spans()) for first, last in spans)

        wait_until(has_them, "the slots have moved", START_LIMIT_S)

    def settle(self) -> None:
        """Give up all moves of slots that were begun and not ended."""
        for slot in re.findall(r"\[(\d+)-[<>]-", self.command("CLUSTER", "NODES").decode()):
            self.command("CLUSTER", "SETSLOT", slot, "STABLE")

    def errors(self, name: str) -> int:
        """How often it has answered with this error."""
        found = self.command("INFO", "errorstats").get(f"errorstat_{name}", {"count": 0})
        return int(found["count"])

    def calls(self, name: str) -> int:
        """How often it was asked for this command."""
        return int(self.command("INFO", "commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])

    def remove(self) -> None:
        super().remove()
        self._held_bus.close()


class ValkeyCluster:
    """Three nodes with a third of the slots each, and further ones without, each the replica of one of these.

    `with` starts it, and removes it with all that it kept.
    """

    def __init__(self, replicas: int = 0) -> None:
        self.nodes = [Node() for _ in range(NODES + replicas)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._form()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def primaries(self) -> list[Node]:
        return self.nodes[:NODES]

    def url(self, *nodes: Node) -> str:
        """Of these nodes, or else of all."""
        return "redis://" + ",".join(f"{HOST}:{node.port}" for node in nodes or self.nodes)

    def owner(self, key: str | bytes) -> Node:
        """Which of the running nodes has the slot of a key."""
        slot = self.slot(key)
        for first, last, (_, port, *_), *_ in self._anybody().command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has the slot {slot}")

    def slot(self, key: str | bytes) -> int:
        return int(self._anybody().command("CLUSTER", "KEYSLOT", key))

    def tenant_of(self, node: Node, start: int = 0) -> str:
        """A tenant whose keys are kept by the node. start: another number, another tenant."""
        had = node.spans()
        assert had, "it has no slots, so no tenants either"
        for number in count(start):
            slot = key_slot(b"tenant-%d" % number)
            if any(first <= slot <= last for first, last in had):
                return f"tenant-{number}"
        raise AssertionError("numbers have no end")

    def command(self, key: str, *args: Any) -> Any:
        """The answer of whoever has the key."""
        return self.owner(key).command(*args)

    def begin_move(self, slot: int, source: Node, target: Node) -> None:
        """From now on what is not at the source is asked of the target."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, source: Node, target: Node, *keys: str | bytes) -> None:
        source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, source: Node, target: Node) -> None:
        """Move what is left in the slot, and have all know who has it now."""
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.move_keys(source, target, *keys)
        for node in (target, source, *self.primaries):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def wait_until_well(self) -> None:
        """Wait until every node that runs serves all slots."""

        def is_well(node: Node) -> bool:
            told = node.info()
            return told["cluster_state"] == "ok" and told["cluster_slots_ok"] == str(SLOTS)

        running = [node for node in self.nodes if node.running]
        wait_until(lambda: all(map(is_well, running)), "the cluster serves all slots", START_LIMIT_S)

    def mend(self) -> None:
        """Have it as it was at first, and empty."""
        for node in self.nodes:
            node.resume()
            if not node.running:
                node.start()
            node.config("cluster-require-full-coverage", "no")
        self.wait_until_well()
        for node in self.primaries:
            node.flush()
            node.settle()
        for node, (first, last) in zip(self.primaries, SHARES, strict=True):
            for other in self.primaries:
                theirs = [(max(first, start), min(last, end)) for start, end in other.spans() if other is not node]
                other.give([span for span in theirs if span[0] <= span[1]], node)
        self.wait_until_well()
        for node in self.nodes:
            node.config("cluster-node-timeout", str(STEADY_MS))

    def _form(self) -> None:
        for node, share in zip(self.primaries, SHARES, strict=True):
            node.command("CLUSTER", "ADDSLOTSRANGE", *share)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", HOST, first.port, first.bus_port)
        known = str(len(self.nodes))
        all_met = f"{known} nodes know each other"
        wait_until(lambda: all(n.info()["cluster_known_nodes"] == known for n in self.nodes), all_met, START_LIMIT_S)
        for replica, node in zip(self.nodes[NODES:], self.primaries, strict=False):
            replica.command("CLUSTER", "REPLICATE", node.id)
            wait_until(lambda replica=replica: _follows(replica), "a replica follows", START_LIMIT_S)
        self.wait_until_well()
        for node in self.nodes:
            node.config("cluster-node-timeout", str(STEADY_MS))

    def _anybody(self) -> Node:
        return next(node for node in self.nodes if node.running and node._guard is None)


def _follows(replica: Node) -> bool:
    with suppress(redis.ResponseError):
        return bool(replica.command("INFO", "replication").get("master_link_status") == "up")
    return False
