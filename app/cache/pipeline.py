"""What many callers want of Redis, in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from app.cache.pool import Pool

Call = tuple[bytes | int, ...]
"""A command of Redis and its arguments."""


class Command(NamedTuple):
    """What one caller wants. call: made first, if any.  keys: read after all calls of the batch.
    weight: how many requests stand behind it.  at: a key of the call's, which on a cluster says where it is done; None
    where it is that of `keys`, or any place will do."""

    call: Call | None
    keys: tuple[bytes, ...] = ()
    weight: int = 1
    at: bytes | None = None


class Answer(NamedTuple):
    """reply: to the call, None for nil.  values: of the keys, None for those there are not."""

    reply: object
    values: Sequence[bytes | None]


async def exchange(pool: Pool, commands: Sequence[Command], timeout_s: float) -> list[Answer | None]:
    """An answer to each command, None where Redis refused it: the calls in their order, then one MGET of all keys.

    Raises one of app.cache.pool.FAILURES, after timeout_s at the latest.
    """
    calls = [command.call for command in commands if command.call is not None]
    keys = [key for command in commands for key in command.keys]
    if keys:
        calls.append((b"MGET", *keys))
    replies = await converse(pool, calls, timeout_s)
    values = replies.pop() if keys else ()
    return list(_answers(commands, iter(replies), values if isinstance(values, Sequence) else None))


async def converse(pool: Pool, calls: Sequence[Call], timeout_s: float) -> list[object]:
    """The reply to each call, an error in place of one that was refused.

    Raises one of app.cache.pool.FAILURES, after timeout_s at the latest.
    """
    end = asyncio.get_running_loop().time() + timeout_s
    async with asyncio.timeout_at(end):
        connection = await pool.take()
    try:
        async with asyncio.timeout_at(end):
            # The stub of pack_command allows one argument only.
            await connection.send_packed_command([pack_command(call) for call in calls])  # type: ignore[arg-type]
            return [await _reply(connection) for _ in calls]
    except BaseException:
        # What was not read would answer somebody else's question.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


async def _reply(connection: AbstractConnection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as error:
        if isinstance(error, ReadOnlyError):
            # No longer the primary; its name may lead to the new one.
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        return error


def _answers(
    commands: Sequence[Command], replies: Iterator[object], values: Sequence[bytes | None] | None
) -> Iterator[Answer | None]:
    read = 0
    for command in commands:
        reply = None if command.call is None else next(replies)
        count = len(command.keys)
        if isinstance(reply, ResponseError) or (count and values is None):
            yield None
        else:
            yield Answer(reply, values[read : read + count] if values else ())
        read += count
