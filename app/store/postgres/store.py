"""The store in PostgreSQL: rows by group commit over one connection, reads over others."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from asyncpg.pgproto.pgproto import UUID

from app import ids
from app.resilience.batcher import Batcher, Closed
from app.resilience.breaker import Breaker, BreakerOpen
from app.resilience.retry import Retry
from app.store.base import (
    Row,
    StoredModel,
    StoreRefused,
    StoreUnavailable,
)
from app.store.lists import Disposition
from app.store.postgres import partitions, schema, statements
from app.store.postgres.access import PostgresAccess
from app.store.postgres.dispositions import Business, PostgresDispositions
from app.store.postgres.holdings import PostgresHoldings
from app.store.postgres.keeping import PostgresKeeping
from app.store.postgres.link import (
    CONNECTING_FAILS,
    Down,
    Link,
    Lost,
    Session,
    Slow,
    Timeouts,
)
from app.store.postgres.lists import PostgresLists
from app.store.postgres.refusals import refusal
from app.store.postgres.rows import row_of
from app.store.postgres.spans import DAY_SPANS, span_of_day
from app.store.postgres.writing import NO_ID, PostgresWriting, closed

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

START_PATIENCE_S = 5.0
TIDY_S = 60.0
TIDY_KEYS = 500


class PostgresStore(
    PostgresWriting, PostgresKeeping, PostgresAccess, PostgresLists, PostgresDispositions, PostgresHoldings
):
    """The `Store` kept in PostgreSQL, shared by any number of processes.

    connections: this process's share, at least 2: one writes.  idle: how many are kept open.
    lifetime_s: the age at which a connection is made anew.  pooled: PgBouncer in transaction mode stands between.
    key_ttl_s: how long an idempotency key is kept.  key_wait_s: how long one that is busy elsewhere is waited for.
    months_ahead: partitions made ahead of time.
    write_breaker, read_breaker: made with `WRITE_FAILURES` and `READ_FAILURES`.  retry: made with `RETRIED`.
    """

    WRITE_FAILURES = (Down, Slow)
    # A list that takes too long says nothing of the others' look-ups.
    READ_FAILURES = (Down,)
    RETRIED = (Lost,)

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        idle: int = 1,
        lifetime_s: float = 3600.0,
        pooled: bool = False,
        timeouts: Timeouts | None = None,
        key_ttl_s: float = 86_400.0,
        key_wait_s: float = 0.5,
        months_ahead: int = 3,
        write_breaker: Breaker,
        read_breaker: Breaker,
        retry: Retry,
        max_batch: int = 512,
    ) -> None:
        super().__init__(key_ttl_s=key_ttl_s, key_wait_s=key_wait_s, max_batch=max_batch)
        timeouts = timeouts or Timeouts()
        self.place = schema.database_place(url)
        self._pooled = pooled
        self._writing = Link(
            url, size=1, idle=1, lifetime_s=lifetime_s, timeouts=timeouts, writable=True, pooled=pooled
        )
        self._reading = Link(
            url, size=connections - 1, idle=idle - 1, lifetime_s=lifetime_s, timeouts=timeouts, pooled=pooled
        )
        self.write_breaker = write_breaker
        self.read_breaker = read_breaker
        self.retry = retry
        self._months_ahead = months_ahead
        self.reads: Batcher[tuple[str, bytes], Row | None] = Batcher(self._send_ids, max_batch)
        self.businesses: Batcher[Business, list[Disposition]] = Batcher(self._send_businesses, max_batch)
        self._tidying: asyncio.Task[None] | None = None

    @property
    def schema_version(self) -> str:
        """The schema that this service works on. Of others it takes a later one that says it works as well."""
        return schema.REVISIONS[-1]

    @property
    def batchers(self) -> dict[str, Batcher[Any, Any]]:
        """By name, for who watches."""
        return {
            "records": self.writes,
            "idempotency": self.polls,
            "reads": self.reads,
            "dispositions": self.businesses,
        }

    @property
    def links(self) -> dict[str, Link]:
        """By name, for who watches."""
        return {"database_writes": self._writing, "database_reads": self._reading}

    async def open(self) -> None:
        """Connect and check the schema. Raises StoreRefused.

        A server that does not answer is asked again for START_PATIENCE_S: nobody waits for an answer yet.
        """
        end = time.monotonic() + START_PATIENCE_S
        while not await self._connect(is_last=time.monotonic() >= end):
            pass
        try:
            # Before the first row: those that come without a partition have to be moved into it.
            await self._make_partitions()
        except StoreUnavailable as error:
            log.warning("the partition of this month could not be looked after: %s", error)
        self._tidying = asyncio.create_task(self._tidy_for_ever())

    async def _connect(self, is_last: bool) -> bool:
        """Connect and check the schema; False where the server did not answer. Raises StoreRefused.

        is_last: nothing is tried after it, so a server that does not answer is an error like others.
        """
        try:
            await self._writing.open()
            await self._reading.open()
            async with self._writing.session(transaction=self._pooled) as session:
                found = await schema.revision(session)
                schema.check(found, self.place, await schema.works_since(session))
                if found != self.schema_version:
                    log.warning(
                        "the database %s has schema %s, which works with this version of the service; its own is %s",
                        self.place,
                        found,
                        self.schema_version,
                    )
                await self._warn(session)
        except (StoreUnavailable, *CONNECTING_FAILS) as error:
            if not is_last and (isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)):
                await self._writing.close()
                await self._reading.close()
                return False
            await self.close()
            raise refusal(error, self.place) from error
        except StoreRefused:
            await self.close()
            raise
        return True

    async def _warn(self, session: Session) -> None:
        for name in ("synchronous_commit", "fsync"):
            if await session.fetchval(f"SHOW {name}") == "off":
                log.warning("the database %s has %s = off: a crash may lose what was acknowledged", self.place, name)

    async def close(self) -> None:
        """Record what was submitted, then close every connection."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait((self._tidying,))
        await self.writes.close()
        await self.reads.close()
        await self.businesses.close()
        await self.polls.close()
        await self._writing.close()
        await self._reading.close()

    async def check(self) -> None:
        """Commit something, and so prove that rows could be."""

        async def beat() -> None:
            async with self._writing.session() as session:
                await session.execute(statements.PULSE, os.getpid() % 1024)

        await self._guarded(self.write_breaker, beat)

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""
        try:
            return await self.reads.put((tenant_id, id))
        except Closed:
            raise closed() from None

    async def get_each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """As `get` for each id, in order."""
        try:
            return await asyncio.gather(*[self.reads.put((tenant_id, id)) for id in ids])
        except Closed:
            raise closed() from None

    async def page(
        self,
        tenant_id: str,
        *,
        business_id: str | None = None,
        level: int | None = None,
        decision: int | None = None,
        since_id: bytes | None = None,
        until_id: bytes | None = None,
        before_id: bytes | None = None,
        limit: int,
    ) -> list[Row]:
        """At most `limit` of the tenant's assessments, newest id first: since_id <= id <= until_id, id < before_id."""
        sql = statements.page(business_id is not None, level is not None, decision is not None)
        filters = [value for value in (level, decision) if value is not None]

        async def read() -> list[Row]:
            async with self._reading.session(transaction=self._pooled) as session:
                [(first, last)] = await session.fetch(statements.EDGES, tenant_id)
                if first is None:
                    return []
                low = max(since_id or NO_ID, first.bytes)
                ends = [end for end in (before_id, until_id and _after(until_id), _after(last.bytes)) if end]
                rows: list[Row] = []
                for month, begin, end in partitions.backwards(low, min(ends)):
                    if begin >= end:
                        continue
                    values: list[Any] = [tenant_id, UUID(begin), UUID(end), limit - len(rows)]
                    if business_id is not None:
                        spans = (span_of_day(begin), span_of_day(end) + DAY_SPANS - 1)
                        values += [business_id, *spans, UUID(month.low), UUID(month.high)]
                    rows += [row_of(record) for record in await session.fetch(sql, *values, *filters)]
                    if len(rows) >= limit:
                        break
                return rows

        return await self._guarded(self.read_breaker, read)

    async def save_model(self, sha256: bytes, model_id: str, version: str, definition: bytes) -> None:
        """Keep a model's definition under its hash; one already kept stays as it is."""

        async def save() -> None:
            async with self._writing.session() as session:
                await session.execute(statements.SAVE_MODEL, sha256, model_id, version, definition)

        await self._guarded(self.write_breaker, save)

    async def model(self, sha256: bytes) -> bytes | None:
        """The definition with that hash."""
        found = await self._fetch(statements.MODEL, sha256)
        return found[0]["definition"] if found else None

    async def models(self) -> list[StoredModel]:
        """All models ever kept, by id and version."""
        return [StoredModel(*record) for record in await self._fetch(statements.MODELS)]

    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        chosen = link or self._reading

        async def read() -> list[Any]:
            async with chosen.session() as session:
                return list(await session.fetch(sql, *values))

        return await self._guarded(self.read_breaker if chosen is self._reading else self.write_breaker, read)

    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call, behind the breaker; repeated within the budget where the connection broke."""
        try:
            return await self.retry.run(lambda: breaker.call(call, weight))
        except BreakerOpen as error:
            raise StoreUnavailable(str(error)) from None

    # Reads

    async def _send_ids(self, wanted: list[tuple[str, bytes]]) -> list[Row | None]:
        return await self._read_ids(wanted, self._reading)

    async def _read_ids(self, wanted: Sequence[tuple[str, bytes]], link: Link) -> list[Row | None]:
        tenants, keys = [tenant_id for tenant_id, _ in wanted], [UUID(id) for _, id in wanted]
        records = await self._fetch(statements.GET, tenants, keys, min(keys), max(keys), link=link)
        found = {(row.tenant_id, row.id): row for row in map(row_of, records)}
        return [found.get(one) for one in wanted]

    # What is done besides

    async def _tidy_for_ever(self) -> None:
        while True:
            try:
                await self.tidy()
            except StoreUnavailable as error:
                log.warning("expired keys and coming partitions wait: %s", error)
            await asyncio.sleep(TIDY_S * random.uniform(0.8, 1.2))

    async def tidy(self) -> None:
        """Delete receipts that are past their time, and make the partitions of the coming months."""
        limit_ms = ids.now_ms() - self._key_ttl_ms
        deleted = TIDY_KEYS
        while deleted == TIDY_KEYS:
            deleted = await self._drop_receipts(limit_ms)
        await self._make_partitions()

    async def _drop_receipts(self, limit_ms: int) -> int:
        async def drop() -> int:
            async with self._writing.session() as session:
                status = await session.execute(statements.DROP_RECEIPTS, limit_ms, TIDY_KEYS)
                return int(status.rpartition(" ")[2])

        return await self._guarded(self.write_breaker, drop)

    async def _make_partitions(self) -> None:
        async def make() -> list[str]:
            async with self._writing.session(transaction=True) as session:
                there = await partitions.present(session)
                wanted = partitions.tables(ids.now_ms(), self._months_ahead)
                return await partitions.make(session, ids.now_ms(), self._months_ahead) if wanted - there else []

        made = await self._guarded(self.write_breaker, make)
        if made:
            log.info("made the partitions %s", ", ".join(made))


def _after(id: bytes) -> bytes:
    """The next 16 bytes after an id."""
    return min(int.from_bytes(id, "big") + 1, 2**128 - 1).to_bytes(16, "big")
