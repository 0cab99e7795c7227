"""One connection to a Redis, each wait for it bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from app.cache.pool import Pool
from app.doctor.reaching import looked_up
from app.settings.urls import redis_hosts

LOOK_UP_S = 2.0
CONNECT_S = 2.0
ANSWER_S = 2.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AbstractConnection]:
    """A connection to the server that a URL of Redis names. Raises one of FAILURES of app.cache.pool, and Unknown."""
    for host, port in redis_hosts(url):
        await looked_up(host, port, LOOK_UP_S)
    pool = Pool(url, connections=1, min_idle=0, max_age_s=60, timeout_s=CONNECT_S, acquire_timeout_s=CONNECT_S)
    try:
        connection = await pool.take()
        yield connection
        await pool.release(connection)
    finally:
        await pool.disconnect()


async def ask(connection: AbstractConnection, *command: str | int) -> Any:
    """The answer to a command. Raises one of FAILURES of app.cache.pool."""
    async with asyncio.timeout(ANSWER_S):
        await connection.send_command(*command)
        return await connection.read_response()


async def allowed(connection: AbstractConnection, *command: str | int) -> Any:
    """The answer, None where this user may not ask it, or the server does not know it."""
    try:
        return await ask(connection, *command)
    except ResponseError:
        return None


def fields(told: bytes | str) -> dict[str, Any]:
    """The fields of INFO and CLUSTER INFO: whole numbers as such, everything else as text."""
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    found: dict[str, Any] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            found[name] = int(value) if value.removeprefix("-").isdigit() else value
    return found
