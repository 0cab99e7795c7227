"""The links to the nodes of a cluster, and what they come to together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from app.cache.link import Exchange, Link
from app.cache.pool import Pool
from app.cache.slots import Address
from app.resilience.breaker import Breaker, State
from app.settings.urls import place_of

Told = Callable[[int, float], None]

_WORST: Sequence[State] = ("open", "half_open", "closed")


class Node(Link):
    """The link to one node. `used_s`: when it was last listed, or made for what others had been asked; monotonic."""

    __slots__ = ("address", "used_s")

    def __init__(
        self, address: Address, pool: Pool, breaker: Breaker, exchange: Exchange, errors: Counter[str]
    ) -> None:
        super().__init__(pool, breaker, exchange=exchange, errors=errors)
        self.address = address
        self.used_s = time.monotonic()

    def __str__(self) -> str:
        return place_of(self.address)


class Nodes:
    """Links by address. `listed`: those to the nodes that have slots.

    make: a link to an address.  What a link has counted that is gone by now still counts.
    """

    def __init__(self, make: Callable[[Address], Node]) -> None:
        self._make = make
        self._nodes: dict[Address, Node] = {}
        self._gone: Counter[str] = Counter()
        self._on_sent: Told | None = None
        self.listed: list[Node] = []
        self.breaker = Worst(self)

    def links(self) -> Iterator[Node]:
        """All there are now."""
        return iter(tuple(self._nodes.values()))

    def at(self, address: Address) -> Node:
        """The link to a node, a new one where there was none."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._make(address)
            node.on_sent = self._on_sent
        return node

    def drop(self, node: Node) -> None:
        """Have no link to it any more. It is still to be closed."""
        del self._nodes[node.address]
        for name, count in _COUNTED.items():
            self._gone[name] += count(node)  # type: ignore[assignment]

    def counted(self, name: str) -> float:
        """How many, or how much, of a name of _COUNTED."""
        return self._gone[name] + sum(map(_COUNTED[name], self.links()))

    @property
    def batches(self) -> int:
        """So far, those that failed included."""
        return int(self.counted("batches"))

    @property
    def waiting(self) -> int:
        """Commands not yet sent."""
        return sum(node.waiting for node in self.links())

    @property
    def on_sent(self) -> Told | None:
        """Told of each batch how many commands it had and how many seconds it took."""
        return self._on_sent

    @on_sent.setter
    def on_sent(self, told: Told | None) -> None:
        self._on_sent = told
        for node in self.links():
            node.on_sent = told

    @property
    def connections(self) -> tuple[int, int]:
        """Open ones, and how many of them are in use."""
        each = [node.connections for node in self.links()]
        return sum(opened for opened, _ in each), sum(in_use for _, in_use in each)

    @property
    def size(self) -> int:
        """The most connections."""
        return sum(node.size for node in self.links())

    @property
    def waits(self) -> int:
        return int(self.counted("waits"))

    @property
    def waited_s(self) -> float:
        return self.counted("waited_s")

    @property
    def exhausted(self) -> int:
        return int(self.counted("exhausted"))


_COUNTED: Mapping[str, Callable[[Node], float]] = {
    "batches": lambda node: node.batches,
    "waits": lambda node: node.waits,
    "waited_s": lambda node: node.waited_s,
    "exhausted": lambda node: node.exhausted,
    "opened": lambda node: node.breaker.opened,
    "rejected": lambda node: node.breaker.rejected,
}


class Worst:
    """The breakers of all nodes as one, for who watches: in the worst state that one of them is in."""

    name = "redis"

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    @property
    def state(self) -> State:
        states = {node.breaker.state for node in self._nodes.listed}
        return next((state for state in _WORST if state in states), "closed")

    @property
    def state_age_s(self) -> float:
        """For how long one has been in it."""
        worst = self.state
        ages = [node.breaker.state_age_s for node in self._nodes.listed if node.breaker.state == worst]
        return max(ages, default=0.0)

    @property
    def opened(self) -> int:
        return int(self._nodes.counted("opened"))

    @property
    def rejected(self) -> int:
        return int(self._nodes.counted("rejected"))
