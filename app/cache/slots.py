"""The slots of a cluster: which one a key is in, and who has which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from redis.crc import key_slot

from app.cache.pipeline import Answer, Call, Command

SLOTS = 16384

Address = tuple[str, int]
"""Host and port of a node."""


def tag(tenant: bytes) -> bytes:
    """A tenant as it stands in the braces of its keys: what would end them early is written otherwise."""
    return tenant.replace(b"%", b"%25").replace(b"}", b"%7D")


def slot_of(key: bytes) -> int:
    """The slot of a key. Keys with the same text in braces have the same."""
    return key_slot(key)


class Span(NamedTuple):
    """Slots from first to last, and who has them."""

    first: int
    last: int
    address: Address


def spans(told: object, asked: Address) -> list[Span]:
    """Which primary has which slots, as CLUSTER SLOTS tells. asked: who told it, meant where no host is named.

    Raises ValueError for anything else.
    """
    found = []
    try:
        for first, last, (host, port, *_), *_ in told:  # type: ignore[attr-defined]
            name = host.decode() if host else asked[0]
            # So it stands for who does not know its own name.
            if name != "?" and 0 <= first <= last < SLOTS:
                found.append(Span(first, last, (name, int(port))))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is no answer to CLUSTER SLOTS: {error}") from None
    return found


class Layout:
    """One batch for one node. `calls`: those of the commands in their order, then one MGET for each slot."""

    __slots__ = ("_commands", "_reads", "calls")

    def __init__(self, commands: Sequence[Command]) -> None:
        by_slot: dict[int, list[bytes]] = {}
        for command in commands:
            for key in command.keys:
                by_slot.setdefault(slot_of(key), []).append(key)
        self._commands = commands
        self._reads = list(by_slot.values())
        self.calls: list[Call] = [command.call for command in commands if command.call is not None]
        self.calls += [(b"MGET", *keys) for keys in self._reads]

    def answers(self, replies: Sequence[object]) -> Iterator[Answer | None]:
        """An answer to each command, None for one that was refused. replies: to `calls`."""
        values: dict[bytes, bytes | None] = {}
        made = len(self.calls) - len(self._reads)
        for keys, reply in zip(self._reads, replies[made:], strict=True):
            if isinstance(reply, Sequence):
                values.update(zip(keys, reply, strict=True))
        rest = iter(replies)
        for command in self._commands:
            reply = None if command.call is None else next(rest)
            if isinstance(reply, Exception) or any(key not in values for key in command.keys):
                yield None
            else:
                yield Answer(reply, [values[key] for key in command.keys])
