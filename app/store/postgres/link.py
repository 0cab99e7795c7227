"""Connections to PostgreSQL: pools of known size, every wait bounded, every failure told in the store's own words."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from msgspec import Struct

from app.store.base import RowRefused, StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

LIFETIME_JITTER = 0.1


class Down(StoreUnavailable):
    """The database did not answer as one that works."""


class Silent(Down):
    """No answer came in time; whether the statement took effect is not known."""


class Lost(Down):
    """The connection broke; whether the statement took effect is not known."""


class ReadOnly(Down):
    """The server takes no writes: after a failover the connections lead to a standby."""


class Slow(StoreUnavailable):
    """The statement took longer than it may, and the server ended it."""


class Present(RowRefused):
    """A row with this id is on record already."""


class Unfit(RowRefused):
    """What is there does not allow the change. To be raised in the transaction: if a lost attempt was committed after
    all, that is why, and the trail knows it."""


class KeysTaken(StoreUnavailable):
    """A key of the statement belongs to another request; nothing of it took effect."""


class LockBusy(StoreUnavailable):
    """Another transaction holds what this one needs, for longer than it may wait."""


class RowLocked(LockBusy):
    """It is a row or a key that the other one wrote, and no table."""


# All that is asked for is found through an index, in its order. Of a table that has grown since it was last analysed
# the planner does not know that, and would sort a month to find its newest rows.
_PLANNING = {"jit": "off", "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off"}


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds. acquire: for a free connection.  connect: to make one.  command: for an answer.  statement, lock and
    idle_transaction: the limits that the server itself keeps."""

    acquire_s: float = 0.25
    connect_s: float = 0.7
    command_s: float = 0.7
    statement_s: float = 0.6
    lock_s: float = 0.1
    idle_transaction_s: float = 5.0

    def settings(self) -> dict[str, str]:
        """The server's own limits, as its settings want them."""
        return {
            "statement_timeout": f"{round(self.statement_s * 1000)}",
            "lock_timeout": f"{round(self.lock_s * 1000)}",
            "idle_in_transaction_session_timeout": f"{round(self.idle_transaction_s * 1000)}",
        }


class Aging(asyncpg.Connection):
    """A connection that knows when its time is over."""

    __slots__ = ("expires_at",)


Session = asyncpg.Connection


class Link:
    """A pool of at most `size` connections, `idle` of them kept open, each made anew after about `lifetime_s`.

    writable: only connect to a server that takes writes.  pooled: PgBouncer in transaction mode stands between, so
    nothing may outlive a transaction; each session is one.
    `waits`, `waited_s` and `exhausted` count waits for a free connection, their seconds, and those in vain.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int,
        idle: int,
        lifetime_s: float,
        timeouts: Timeouts,
        writable: bool = False,
        pooled: bool = False,
    ) -> None:
        self.size = size
        self._url = url
        self._idle = min(idle, size)
        self._lifetime_s = lifetime_s
        self._timeouts = timeouts
        self._writable = writable
        self._pooled = pooled
        self._free = asyncio.Semaphore(size)
        self.waits = 0
        self.waited_s = 0.0
        self.exhausted = 0
        self._pool: asyncpg.Pool | None = None
        self._settings = {**timeouts.settings(), **_PLANNING}
        self._begin = "BEGIN; " + "; ".join(f"SET LOCAL {name} = {value}" for name, value in self._settings.items())

    async def open(self) -> None:
        """Connect. Raises what asyncpg and the system raise."""
        own = self._timeouts
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=self._idle,
            max_size=self.size,
            max_queries=2**62,
            max_inactive_connection_lifetime=min(300.0, self._lifetime_s),
            connection_class=Aging,
            init=self._date,
            reset=_leave_as_it_is,
            timeout=own.connect_s,
            command_timeout=own.command_s,
            statement_cache_size=0 if self._pooled else 64,
            # The age of a connection bounds the age of what it prepared.
            max_cached_statement_lifetime=0,
            # A pooler would hand these settings to whoever comes next, or refuse them.
            server_settings={} if self._pooled else {"application_name": "kyb", **self._settings},
            # The check would be a query of its own; behind a pooler its parts may go to different servers.
            target_session_attrs=_WRITABLE if self._writable and not self._pooled else None,
        )

    async def close(self) -> None:
        """Close every connection; those that do not answer are cut."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(self._timeouts.command_s):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    @property
    def connections(self) -> tuple[int, int]:
        """Open connections, and how many of them are at work."""
        if self._pool is None:
            return 0, 0
        return self._pool.get_size(), self._pool.get_size() - self._pool.get_idle_size()

    async def renew(self) -> None:
        """Let go of every connection as it comes back: they lead to the wrong server."""
        if self._pool is not None:
            await self._pool.expire_connections()

    @asynccontextmanager
    async def session(self, *, transaction: bool = False, local: str = "") -> AsyncIterator[Session]:
        """A connection for one statement, or for one transaction. local: SET LOCAL statements of the transaction.

        Raises StoreUnavailable, or one of its kinds here, for everything that is the database's fault, and RowRefused
        for what is a value's.
        """
        connection = await self._acquire()
        sound = False
        try:
            if transaction or self._pooled:
                await connection.execute(f"{self._begin}; {local}" if self._pooled else f"BEGIN; {local}")
                yield connection
                await connection.execute("COMMIT")
            else:
                yield connection
            sound = True
        except BaseException as error:
            told = translated(error)
            answered = isinstance(error, asyncpg.PostgresError) and not isinstance(told, Lost)
            # After anything else, whatever it says next belongs to the question before.
            sound = answered or isinstance(told, RowRefused | StoreRefused)
            if sound and connection.is_in_transaction():
                sound = await self._rolled_back(connection)
            if isinstance(told, ReadOnly):
                await self.renew()
            if told is error:
                raise
            raise told from error
        finally:
            await self._release(connection, sound and time.monotonic() < connection.expires_at)

    async def _acquire(self) -> Any:
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the store is not open")
        begun = time.monotonic() if self._free.locked() else 0.0
        try:
            async with asyncio.timeout(self._timeouts.acquire_s):
                await self._free.acquire()
        except TimeoutError:
            self.exhausted += 1
            raise StoreUnavailable(f"all {self.size} connections to the database are busy") from None
        finally:
            if begun:
                self.waits += 1
                self.waited_s += time.monotonic() - begun
        try:
            return await pool.acquire(timeout=self._timeouts.connect_s)
        except BaseException as error:
            self._free.release()
            told = translated(error)
            if told is error:
                raise
            raise told from error

    async def _release(self, connection: Any, sound: bool) -> None:
        try:
            if not sound:
                connection.terminate()
            elif self._pool is not None:
                await self._pool.release(connection, timeout=self._timeouts.command_s)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("a connection to the database was not given back in order: %s", error)
        finally:
            self._free.release()

    async def _rolled_back(self, connection: Any) -> bool:
        try:
            await connection.execute("ROLLBACK")
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async def _date(self, connection: Any) -> None:
        spread = 1 + random.uniform(-LIFETIME_JITTER, LIFETIME_JITTER)
        connection.expires_at = time.monotonic() + self._lifetime_s * spread


async def _leave_as_it_is(connection: Any) -> None:
    """Nothing here changes a session, so nothing needs a round trip to be put back."""


_WRITABLE = SessionAttribute.read_write

CONNECTING_FAILS = (
    OSError,
    EOFError,
    ValueError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What an attempt to connect may end with."""

_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
_VALUE_FAULTS = (
    asyncpg.DataError,
    asyncpg.exceptions.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
)


def translated(error: BaseException) -> BaseException:
    """The store's own exception for one of asyncpg's or of the system; any other stays as it is."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            return ReadOnly("the database takes no writes: it is a standby, or set to read only")
        case asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            # The server says at which row it waited.
            kind = RowLocked if error.context else LockBusy
            return kind(f"the database did not do it: {error}")
        case asyncpg.QueryCanceledError():
            return Slow(f"the database did not do it: {error}")
        case TimeoutError():
            return Silent("the database did not answer in time")
        case asyncpg.PostgresError() if isinstance(error, _LOST):
            return Lost(f"the connection to the database broke: {error}")
        case asyncpg.DivisionByZeroError():
            return KeysTaken("a key is taken")
        case asyncpg.UniqueViolationError():
            return Present(str(error))
        case asyncpg.PostgresError() if isinstance(error, _VALUE_FAULTS):
            return RowRefused(str(error))
        case asyncpg.PostgresError():
            return Down(f"the database did not do it: {error}")
        # What asyncpg itself finds wrong with a value is both.
        case asyncpg.InterfaceError() if isinstance(error, ValueError):
            return RowRefused(str(error))
        case OSError() | EOFError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return Lost(f"the connection to the database broke: {error}")
    return error
