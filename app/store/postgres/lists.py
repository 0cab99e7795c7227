"""Watchlists in PostgreSQL: snapshots part by part, and versions that come into force at once."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app import ids
from app.resilience.breaker import Breaker
from app.store.base import StoreUnavailable
from app.store.lists import (
    ORPHAN_MS,
    ROUNDS,
    ListVersion,
    PartsMissing,
    Rescreening,
    checked_snapshot,
    columns_of,
    part_of,
    parts_of,
)
from app.store.postgres.link import Link, Session, Unfit
from app.store.postgres.schema import LISTS_LOCK
from app.store.trail import Act

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

REST_S = 0.01
PARTS_A_DROP = 4
TENANTS_A_LOOK = 100

_VERSION = columns_of(ListVersion)
_LISTS = f"""\
SELECT {_VERSION} FROM watchlist_versions v
WHERE number = (SELECT w.number FROM watchlists w WHERE w.name = v.name) ORDER BY name"""
_FIND_VERSION = f"SELECT {_VERSION} FROM watchlist_versions WHERE name = $1 AND number = $2"
_NUMBER = "SELECT number FROM watchlists WHERE name = $1"
_LOCK = f"SELECT pg_advisory_xact_lock({LISTS_LOCK})"
_COUNT = """\
INSERT INTO watchlists (name, number) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET number = EXCLUDED.number"""
_ADD_VERSION = f"""\
INSERT INTO watchlist_versions ({_VERSION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"""
_FORGET = """\
DELETE FROM watchlist_versions v WHERE v.name = $1 AND v.number < $2 - 1 AND NOT EXISTS (
    SELECT 1 FROM rescreenings r WHERE r.name = $1 AND v.number IN (r.base, r.target))
RETURNING v.snapshot"""
_DROP = "DELETE FROM watchlist_versions WHERE name = $1 RETURNING snapshot"
_DROP_RESCREENING = "DELETE FROM rescreenings WHERE name = $1"
_CHECK = """\
UPDATE watchlist_versions SET checked_ms = $3, validators = $4
WHERE name = $1 AND number = $2 AND number = (SELECT w.number FROM watchlists w WHERE w.name = $1) RETURNING 1"""

_PUT_PART = """\
INSERT INTO watchlist_parts (snapshot, part, created_ms, content) VALUES ($1, $2, $3, $4)
ON CONFLICT (snapshot, part) DO UPDATE SET created_ms = EXCLUDED.created_ms"""
_TOUCH_PARTS = "UPDATE watchlist_parts SET created_ms = $2 WHERE snapshot = $1 RETURNING part"
_PARTS = "SELECT count(*), coalesce(sum(length(content)), 0)::bigint FROM watchlist_parts WHERE snapshot = $1"
_PART = "SELECT content FROM watchlist_parts WHERE snapshot = $1 AND part = $2"
# Not what somebody is writing again at this moment.
_DROP_PARTS = """\
DELETE FROM watchlist_parts WHERE ctid = ANY (ARRAY(
    SELECT p.ctid FROM watchlist_parts p WHERE (p.created_ms < $1 OR p.snapshot = ANY ($2::bytea[]))
    AND NOT EXISTS (SELECT 1 FROM watchlist_versions v WHERE v.snapshot = p.snapshot)
    ORDER BY p.snapshot, p.part LIMIT $3 FOR UPDATE OF p SKIP LOCKED))"""

_RESCREENING = columns_of(Rescreening)
_FIND_RESCREENING = f"SELECT {_RESCREENING} FROM rescreenings WHERE name = $1"
_SAVE_RESCREENING = f"""\
INSERT INTO rescreenings ({_RESCREENING}) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) DO UPDATE SET ({_RESCREENING}) = ROW (EXCLUDED.*)"""
_SAVE_SCREENED = "INSERT INTO screened_against (digest, lists) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING"
_SCREENED = "SELECT lists FROM screened_against WHERE digest = $1"

# From one tenant to the next by the index, however many rows each has; of each partition, so only so many at a time.
_TENANTS = """\
WITH RECURSIVE t (tenant_id) AS (
    (SELECT a.tenant_id FROM assessments a WHERE a.tenant_id >= $1 ORDER BY a.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT a.tenant_id FROM assessments a WHERE a.tenant_id > t.tenant_id ORDER BY a.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT t.tenant_id FROM t WHERE t.tenant_id IS NOT NULL LIMIT $2"""


class PostgresLists(ABC):
    """What `Lists` says of watchlists and screenings, in PostgreSQL; to be mixed into its store.

    What never changes is asked of any server, and where that does not have it, of the one that takes the writes.
    """

    _writing: Link
    write_breaker: Breaker

    @abstractmethod
    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call, behind the breaker; repeated within the budget where the connection broke."""

    @abstractmethod
    async def _act(
        self, work: Callable[[Session], Awaitable[Answer]], acts: Sequence[Act] | Callable[[Answer], Sequence[Act]]
    ) -> Answer:
        """Do the work and append its acts to the trail, in one transaction that takes effect once."""

    @abstractmethod
    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The call's answer; made again for a time while another transaction stands in its way."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    @abstractmethod
    async def _change(self, sql: str, *values: object) -> None:
        """Do one statement."""

    async def lists(self) -> list[ListVersion]:
        """The version in force of every list, by name; from the server that takes the writes."""
        return [ListVersion(*record) for record in await self._fetch(_LISTS, link=self._writing)]

    async def list_version(self, name: str, number: int) -> ListVersion | None:
        """A version of a list, as long as it is kept."""
        found = await self._fetch(_FIND_VERSION, name, number, link=self._writing)
        return ListVersion(*found[0]) if found else None

    async def list_number(self, name: str) -> int:
        """The greatest number that a version of the list ever had, 0 for none; from the server that takes the
        writes."""
        found = await self._fetch(_NUMBER, name, link=self._writing)
        return found[0]["number"] if found else 0

    async def put_list(self, version: ListVersion, snapshot: bytes | memoryview, act: Act) -> bool:
        """Keep a snapshot and have the version come into force, as `Lists.put_list` says."""
        content = await asyncio.to_thread(checked_snapshot, version, snapshot)
        if await self.list_number(version.name) != version.number - 1:
            return False
        for _ in range(ROUNDS):
            await self._put_parts(version.snapshot, content)
            try:
                unneeded = await self._patiently(partial(self._act, partial(_enter, version), (act,)))
            except PartsMissing as missing:
                failure = missing
                continue
            except Unfit:
                return False
            await self._drop_parts(unneeded)
            return True
        raise StoreUnavailable(f"the snapshot of {version.name} was not kept: {failure.reason}") from failure

    async def check_list(self, name: str, number: int, checked_ms: int, validators: bytes) -> bool:
        """Note that the version is still the newest; False where it is not in force any more."""
        return bool(await self._fetch(_CHECK, name, number, checked_ms, validators, link=self._writing))

    async def drop_list(self, name: str, act: Act) -> bool:
        """Take a list out of force; False where there is none."""
        try:
            unneeded = await self._patiently(partial(self._act, partial(_drop, name), (act,)))
        except Unfit:
            return False
        await self._drop_parts(unneeded)
        return True

    async def snapshot_part(self, snapshot: bytes, part: int) -> bytes | None:
        """A part of a snapshot, None where it is not kept."""
        found = await self._sought(_PART, snapshot, part)
        return found[0]["content"] if found else None

    async def rescreening(self, name: str) -> Rescreening | None:
        """How far the list's rescreening has come; from the server that takes the writes."""
        found = await self._fetch(_FIND_RESCREENING, name, link=self._writing)
        if not found:
            return None
        name, base, target, tenant_id, before_id, compared, recorded = found[0]
        return Rescreening(name, base, target, tenant_id, before_id and before_id.bytes, compared, recorded)

    async def save_rescreening(self, state: Rescreening) -> None:
        """Note how far it has come."""
        *place, before_id, compared, recorded = msgspec.structs.astuple(state)
        await self._change(_SAVE_RESCREENING, *place, before_id and UUID(before_id), compared, recorded)

    async def save_screened_against(self, digest: bytes, rows: bytes) -> None:
        """Keep what an assessment was screened against under its digest; what is kept already stays as it is."""
        await self._change(_SAVE_SCREENED, digest, rows)

    async def screened_against(self, digest: bytes) -> bytes | None:
        """What is kept under that digest."""
        found = await self._sought(_SCREENED, digest)
        return found[0]["lists"] if found else None

    async def tenants(self) -> list[str]:
        """Every tenant with an assessment on record, in order."""
        tenants: list[str] = []
        while True:
            last = tenants[-1:]
            found = [name for (name,) in await self._fetch(_TENANTS, last[0] if last else "", TENANTS_A_LOOK)]
            tenants += found[1:] if found[:1] == last else found
            if len(found) < TENANTS_A_LOOK:
                return tenants

    async def _sought(self, sql: str, *values: object) -> list[Any]:
        """The rows of a query of what never changes."""
        # A standby may not have it yet.
        return await self._fetch(sql, *values) or await self._fetch(sql, *values, link=self._writing)

    async def _put_parts(self, snapshot: bytes, content: memoryview) -> None:
        """Write those parts of the snapshot that are not there, each in a transaction of its own."""
        touch = partial(self._fetch, _TOUCH_PARTS, snapshot, ids.now_ms(), link=self._writing)
        there = {part for (part,) in await self._patiently(touch)}
        for part in range(parts_of(len(content))):
            if part not in there:
                start_s = time.monotonic()
                values = (snapshot, part, ids.now_ms(), part_of(content, part))
                await self._patiently(partial(self._change, _PUT_PART, *values))
                await asyncio.sleep(max(REST_S, time.monotonic() - start_s))

    async def _drop_parts(self, snapshots: Sequence[bytes]) -> None:
        """Delete the parts of these snapshots that nothing names any more, and those that nothing came to name in time.

        What is left because the database does not do it now is found by its age by a later call.
        """
        older_ms = ids.now_ms() - ORPHAN_MS

        async def drop() -> int:
            async with self._writing.session(transaction=True) as session:
                await session.execute(_LOCK)
                status = await session.execute(_DROP_PARTS, older_ms, snapshots, PARTS_A_DROP)
                return int(status.rpartition(" ")[2])

        try:
            gone = PARTS_A_DROP
            while gone:
                gone = await self._patiently(partial(self._guarded, self.write_breaker, drop))
                await asyncio.sleep(REST_S)
        except StoreUnavailable as failure:
            log.warning("parts of snapshots that are not needed any more stay for now: %s", failure)


async def _enter(version: ListVersion, session: Session) -> list[bytes]:
    """Have the version come into force: the snapshots of those that are not kept any more.

    Raises PartsMissing, and Unfit where its number is not the next.
    """
    await session.execute(_LOCK)
    number = await session.fetchval(_NUMBER, version.name) or 0
    if version.number != number + 1:
        raise Unfit(f"the newest version of {version.name} has the number {number}")
    [kept] = await session.fetch(_PARTS, version.snapshot)
    if tuple(kept) != (parts_of(version.size), version.size):
        raise PartsMissing
    await session.execute(_COUNT, version.name, version.number)
    await session.execute(_ADD_VERSION, *msgspec.structs.astuple(version))
    return [snapshot for (snapshot,) in await session.fetch(_FORGET, version.name, version.number)]


async def _drop(name: str, session: Session) -> list[bytes]:
    """The snapshots of all versions that there were. Raises Unfit for none."""
    await session.execute(_LOCK)
    dropped = [snapshot for (snapshot,) in await session.fetch(_DROP, name)]
    if not dropped:
        raise Unfit(f"there is no list {name}")
    await session.execute(_DROP_RESCREENING, name)
    return dropped
