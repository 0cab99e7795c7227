"""A connection that only asks: read-only, one transaction a question, every wait bounded on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from app.store.postgres import schema

QUESTION_S = 2.0
LOCK_S = 0.5
CLOSE_S = 1.0

MARK = "/* kyb doctor */"
"""Stands in each statement behind its first word, where statistics of statements keep it: so it can be told from the
service's own."""

_BEGIN = (
    f"BEGIN READ ONLY; SET LOCAL statement_timeout = {round(QUESTION_S * 1000)}; "
    f"SET LOCAL lock_timeout = {round(LOCK_S * 1000)}; SET LOCAL idle_in_transaction_session_timeout = 5000; "
    "SET LOCAL jit = off"
)


class Session:
    """place: what may be shown of where it leads."""

    def __init__(self, connection: asyncpg.Connection, place: str) -> None:
        self.place = place
        self._connection = connection

    @classmethod
    async def opened(
        cls,
        url: str,
        connect_s: float,
        *,
        hosts: Sequence[tuple[str, int]] = (),
        attributes: SessionAttribute | None = None,
        pooled: bool = False,
    ) -> Self:
        """hosts: instead of those of the URL.  pooled: PgBouncer stands between, which takes no settings at the start.

        Raises one of CONNECTING_FAILS.
        """
        instead: dict[str, Any] = {}
        if hosts:
            instead = {"host": [host for host, _ in hosts], "port": [port for _, port in hosts]}
        connection = await asyncpg.connect(
            url,
            timeout=connect_s,
            command_timeout=QUESTION_S + 1,
            statement_cache_size=0,
            server_settings={} if pooled else {"application_name": "kyb doctor"},
            target_session_attrs=attributes,
            **instead,
        )
        return cls(connection, schema.database_place(url))

    @property
    def is_lost(self) -> bool:
        """Whether no further question makes sense."""
        return self._connection.is_closed()

    async def rows(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """The answer to one question, a SELECT. Raises one of CONNECTING_FAILS."""
        connection = self._connection
        try:
            await connection.execute(_BEGIN)
            found = await connection.fetch(sql.replace("SELECT", f"SELECT {MARK}", 1), *args)
            await connection.execute("ROLLBACK")
        except asyncpg.PostgresError:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        except BaseException:
            # What it says next would answer the question before.
            connection.terminate()
            raise
        return list(found)

    async def row(self, sql: str, *args: Any) -> asyncpg.Record:
        """The only row of an answer that has one."""
        (found,) = await self.rows(sql, *args)
        return found

    async def value(self, sql: str, *args: Any) -> Any:
        """The first value of the first row, None without one."""
        found = await self.rows(sql, *args)
        return found[0][0] if found else None

    async def ping(self) -> None:
        await self._connection.execute(f"SELECT {MARK} 1")

    async def clock_s(self) -> float:
        """Unix time as the server has it."""
        return float(await self.value("SELECT extract(epoch FROM clock_timestamp())::float8"))

    async def close(self) -> None:
        with suppress(OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._connection.close(timeout=CLOSE_S)
        self._connection.terminate()
