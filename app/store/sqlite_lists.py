"""Watchlists in the SQLite file: snapshots part by part, and versions that come into force at once."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from app.resilience.batcher import Batcher
from app.store.base import StoreUnavailable
from app.store.lane import Job, Lane
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
from app.store.sqlite_keeping import SLICE_S
from app.store.sqlite_log import cut_log
from app.store.sqlite_trail import TENANTS, Change, Done
from app.store.trail import Act

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PARTS_A_LOOK = 16

_VERSION = columns_of(ListVersion)
_LISTS = f"""\
SELECT {_VERSION} FROM watchlist_versions v
WHERE number = (SELECT w.number FROM watchlists w WHERE w.name = v.name) ORDER BY name"""
_FIND_VERSION = f"SELECT {_VERSION} FROM watchlist_versions WHERE name = ? AND number = ?"
_NUMBER = "SELECT number FROM watchlists WHERE name = ?"
_COUNT = """\
INSERT INTO watchlists (name, number) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET number = excluded.number"""
_ADD_VERSION = f"INSERT INTO watchlist_versions ({_VERSION}) VALUES ({', '.join('?' * (_VERSION.count(',') + 1))})"
_FORGET = """\
DELETE FROM watchlist_versions WHERE name = :name AND number < :number - 1 AND NOT EXISTS (
    SELECT 1 FROM rescreenings r WHERE r.name = :name AND watchlist_versions.number IN (r.base, r.target))
RETURNING snapshot"""
_DROP = "DELETE FROM watchlist_versions WHERE name = ? RETURNING snapshot"
_CHECK = """\
UPDATE watchlist_versions SET checked_ms = :checked_ms, validators = :validators
WHERE name = :name AND number = :number AND number = (SELECT w.number FROM watchlists w WHERE w.name = :name)"""

_PUT_PART = """\
INSERT INTO watchlist_parts (snapshot, part, created_ms, content) VALUES (?, ?, ?, ?)
ON CONFLICT (snapshot, part) DO UPDATE SET created_ms = excluded.created_ms"""
_TOUCH_PARTS = "UPDATE watchlist_parts SET created_ms = ? WHERE snapshot = ? RETURNING part"
_PARTS = "SELECT count(*), coalesce(sum(length(content)), 0) FROM watchlist_parts WHERE snapshot = ?"
_PART = "SELECT content FROM watchlist_parts WHERE snapshot = ? AND part = ?"
_DROP_PART = "DELETE FROM watchlist_parts WHERE rowid = ?"

_RESCREENING = columns_of(Rescreening)
_FIND_RESCREENING = f"SELECT {_RESCREENING} FROM rescreenings WHERE name = ?"
_SAVE_RESCREENING = f"INSERT OR REPLACE INTO rescreenings ({_RESCREENING}) VALUES (?, ?, ?, ?, ?, ?, ?)"
SAVE_SCREENED = "INSERT INTO screened_against (digest, lists) VALUES (?, ?) ON CONFLICT DO NOTHING"
_SCREENED = "SELECT lists FROM screened_against WHERE digest = ?"


def find_unneeded_sql(snapshots: int) -> str:
    """The query of some parts that no version names. Parameters: a time that they are older than, or their snapshot is
    one of so many; how many parts."""
    return f"""\
SELECT p.rowid FROM watchlist_parts p
WHERE (p.created_ms < ? OR p.snapshot IN ({", ".join("?" * snapshots)}))
AND NOT EXISTS (SELECT 1 FROM watchlist_versions v WHERE v.snapshot = p.snapshot) LIMIT ?"""


class SqliteLists(ABC):
    """What `Lists` says of watchlists and screenings, in the SQLite file; to be mixed into its store."""

    _writer: Lane
    _clock: Callable[[], int]
    reads: Batcher[Any, list[Any]]
    _screened: tuple[bytes, bytes] | None

    @abstractmethod
    async def _ask(self, batcher: Batcher[Any, list[Any]], sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of one statement."""

    @abstractmethod
    async def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of a query that may take a while."""

    @abstractmethod
    async def _apply(self, change: Change[Answer]) -> Answer:
        """Make the change and note its acts, in one transaction."""

    @abstractmethod
    async def _change(self, sql: str, *values: object) -> None:
        """Do one statement."""

    @abstractmethod
    async def _in_turn(self, job: Job[Answer]) -> Answer:
        """Do a slice of some work, then leave the file to others for about as long."""

    async def lists(self) -> list[ListVersion]:
        """The version in force of every list, by name."""
        return [ListVersion(*row) for row in await self._ask(self.reads, _LISTS, ())]

    async def list_version(self, name: str, number: int) -> ListVersion | None:
        """A version of a list, as long as it is kept."""
        rows = await self._ask(self.reads, _FIND_VERSION, (name, number))
        return ListVersion(*rows[0]) if rows else None

    async def list_number(self, name: str) -> int:
        """The greatest number that a version of the list ever had, 0 for none."""
        rows = await self._ask(self.reads, _NUMBER, (name,))
        return rows[0][0] if rows else 0

    async def put_list(self, version: ListVersion, snapshot: bytes | memoryview, act: Act) -> bool:
        """Keep a snapshot and have the version come into force, as `Lists.put_list` says."""
        content = await asyncio.to_thread(checked_snapshot, version, snapshot)
        if await self.list_number(version.name) != version.number - 1:
            return False
        for _ in range(ROUNDS):
            await self._put_parts(version.snapshot, content)
            try:
                unneeded = await self._apply(partial(_enter, version, act))
            except PartsMissing as missing:
                failure = missing
                continue
            if unneeded is None:
                return False
            await self._drop_parts(unneeded)
            return True
        raise StoreUnavailable(f"the snapshot of {version.name} was not kept: {failure.reason}") from failure

    async def check_list(self, name: str, number: int, checked_ms: int, validators: bytes) -> bool:
        """Note that the version is still the newest; False where it is not in force any more."""
        values = {"name": name, "number": number, "checked_ms": checked_ms, "validators": validators}
        return await self._writer.run(lambda connection: connection.execute(_CHECK, values).rowcount == 1)

    async def drop_list(self, name: str, act: Act) -> bool:
        """Take a list out of force; False where there is none."""
        unneeded = await self._apply(partial(_drop, name, act))
        if unneeded:
            await self._drop_parts(unneeded)
        return bool(unneeded)

    async def snapshot_part(self, snapshot: bytes, part: int) -> bytes | None:
        """A part of a snapshot, None where it is not kept."""
        rows = await self._rows(_PART, (snapshot, part))
        return rows[0][0] if rows else None

    async def rescreening(self, name: str) -> Rescreening | None:
        """How far the list's rescreening has come."""
        rows = await self._ask(self.reads, _FIND_RESCREENING, (name,))
        return Rescreening(*rows[0]) if rows else None

    async def save_rescreening(self, state: Rescreening) -> None:
        """Note how far it has come."""
        await self._change(_SAVE_RESCREENING, *msgspec.structs.astuple(state))

    async def save_screened_against(self, digest: bytes, rows: bytes) -> None:
        """Keep what an assessment was screened against under its digest; what is kept already stays as it is."""
        await self._change(SAVE_SCREENED, digest, rows)
        self._screened = (digest, rows)

    async def screened_against(self, digest: bytes) -> bytes | None:
        """What is kept under that digest."""
        rows = await self._ask(self.reads, _SCREENED, (digest,))
        return rows[0][0] if rows else None

    async def tenants(self) -> list[str]:
        """Every tenant with an assessment on record, in order."""
        return [tenant_id for (tenant_id,) in await self._rows(TENANTS.format("assessments"), ())]

    async def _put_parts(self, snapshot: bytes, content: memoryview) -> None:
        """Write those parts of the snapshot that are not there, each in a transaction of its own."""
        there = await self._writer.run(partial(_touch, snapshot, self._clock()))
        for part in range(parts_of(len(content))):
            if part not in there:
                values = (snapshot, part, self._clock(), part_of(content, part))
                await self._in_turn(partial(_put_part, values))

    async def _drop_parts(self, snapshots: Sequence[bytes]) -> None:
        """Delete the parts of these snapshots that nothing names any more, and those that nothing came to name in time.

        What is left because the file cannot be written now is found by its age by a later call.
        """
        older_ms = self._clock() - ORPHAN_MS
        try:
            while await self._in_turn(partial(_drop_slice, older_ms, snapshots)):
                pass
            await self._writer.run(cut_log)
        except StoreUnavailable as failure:
            log.warning("parts of snapshots that are not needed any more stay for now: %s", failure)


def _touch(snapshot: bytes, now_ms: int, connection: sqlite3.Connection) -> set[int]:
    """The parts of the snapshot that are there, which nobody takes for orphans from now on."""
    return {part for (part,) in connection.execute(_TOUCH_PARTS, (now_ms, snapshot)).fetchall()}


def _put_part(values: Sequence[object], connection: sqlite3.Connection) -> None:
    connection.execute(_PUT_PART, values)


def _enter(version: ListVersion, act: Act, connection: sqlite3.Connection) -> Done[list[bytes] | None]:
    """Have the version come into force: the snapshots of those that are not kept any more, None where its number is
    not the next. Raises PartsMissing."""
    [(number,)] = connection.execute(_NUMBER, (version.name,)).fetchall() or [(0,)]
    if version.number != number + 1:
        return Done(None)
    if connection.execute(_PARTS, (version.snapshot,)).fetchone() != (parts_of(version.size), version.size):
        raise PartsMissing
    connection.execute(_COUNT, (version.name, version.number))
    connection.execute(_ADD_VERSION, msgspec.structs.astuple(version))
    forgotten = connection.execute(_FORGET, {"name": version.name, "number": version.number}).fetchall()
    return Done([snapshot for (snapshot,) in forgotten], (act,))


def _drop(name: str, act: Act, connection: sqlite3.Connection) -> Done[list[bytes]]:
    """The snapshots of all versions that there were."""
    dropped = connection.execute(_DROP, (name,)).fetchall()
    connection.execute("DELETE FROM rescreenings WHERE name = ?", (name,))
    return Done([snapshot for (snapshot,) in dropped], (act,) if dropped else ())


def _drop_slice(older_ms: int, snapshots: Sequence[bytes], connection: sqlite3.Connection) -> int:
    """Delete as many parts that nothing names as a slice has time for; how many there were, 0 at the end."""
    connection.execute("BEGIN IMMEDIATE")
    end_s = perf_counter() + SLICE_S
    sql = find_unneeded_sql(len(snapshots))
    gone = 0
    for found in connection.execute(sql, (older_ms, *snapshots, PARTS_A_LOOK)).fetchall():
        if gone and perf_counter() >= end_s:
            break
        connection.execute(_DROP_PART, found)
        gone += 1
    connection.execute("COMMIT")
    return gone
