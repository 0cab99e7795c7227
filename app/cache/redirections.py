"""What a node of a cluster does not do itself, done by whoever does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from redis.exceptions import AskError, MovedError, TryAgainError

from app.cache.pipeline import Call
from app.cache.slots import Address

MOST_HOPS = 5
"""How often a call is sent on."""

_APART = (b"MGET", b"DEL")
"""Calls of several keys that may as well be made key by key."""


class Redirection(NamedTuple):
    """Where to make a call instead. asking: there the slot is still to arrive."""

    address: Address
    asking: bool


Send = Callable[[Redirection, list[Call]], Awaitable[Sequence[object]]]
"""The reply to each call, an error in place of one that was refused or could not be made."""


async def follow(calls: Sequence[Call], replies: list[object], asked: Address, send: Send) -> dict[int, Address]:
    """Have made elsewhere what `asked` sent elsewhere, and put the replies in their places; the slots that have moved,
    and to whom.

    While a slot moves, some of its keys are here and some there: what reads or deletes several is made for each alone,
    what does more with them is refused.
    """
    left = [place for place, reply in enumerate(replies) if _is_redirected(calls[place], reply)]
    if not left:
        return {}
    parts = _Parts([calls[place] for place in left], [replies[place] for place in left], asked)
    moved: dict[int, Address] = {}
    for _ in range(MOST_HOPS):
        onward = parts.onward(moved)
        if not onward:
            break
        answers = await asyncio.gather(*[send(to, [parts.calls[n] for n in which]) for to, which in onward.items()])
        for (to, which), told in zip(onward.items(), answers, strict=True):
            parts.put(to.address, which, told)
    for place, reply in zip(left, parts.whole(), strict=True):
        replies[place] = reply
    return moved


def _is_redirected(call: Call, reply: object) -> bool:
    return isinstance(reply, AskError) or (isinstance(reply, TryAgainError) and call[0] in _APART)


class _Parts:
    """Calls taken apart where they may be. `calls`: all the parts."""

    __slots__ = ("_asked", "_counts", "_replies", "calls")

    def __init__(self, calls: Sequence[Call], replies: Sequence[object], asked: Address) -> None:
        self.calls: list[Call] = []
        self._replies: list[object] = []
        self._counts: list[int] = []
        for call, reply in zip(calls, replies, strict=True):
            parts: list[Call] = [(call[0], key) for key in call[1:]] if call[0] in _APART else [call]
            self.calls += parts
            self._replies += [reply] * len(parts)
            self._counts.append(len(parts))
        self._asked = [asked] * len(self.calls)

    def onward(self, moved: dict[int, Address]) -> dict[Redirection, list[int]]:
        """Which parts are to be made where, in their order; notes in `moved` what has."""
        onward: dict[Redirection, list[int]] = {}
        for number, (call, reply) in enumerate(zip(self.calls, self._replies, strict=True)):
            if not _is_redirected(call, reply):
                continue
            to = Redirection(self._asked[number], False)
            if isinstance(reply, AskError):
                # Where no host is named, it is the one that was asked.
                to = Redirection((reply.host or self._asked[number][0], reply.port), not isinstance(reply, MovedError))
                if not to.asking:
                    moved[reply.slot_id] = to.address
            onward.setdefault(to, []).append(number)
        return onward

    def put(self, asked: Address, numbers: Sequence[int], replies: Sequence[object]) -> None:
        for number, reply in zip(numbers, replies, strict=True):
            self._asked[number] = asked
            self._replies[number] = reply

    def whole(self) -> Iterator[object]:
        """The reply to each call; of one taken apart that of all its parts, or the first error among them."""
        at = 0
        for count in self._counts:
            replies = self._replies[at : at + count]
            at += count
            failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
            if failed is not None or count == 1:
                yield failed or replies[0]
            elif isinstance(replies[0], list):
                yield [value for reply in replies for value in reply]  # type: ignore[attr-defined]
            else:
                yield sum(replies)  # type: ignore[arg-type]
