"""Dispositions in the SQLite file: each change is one transaction with the act that tells of it."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, TypeVar

import msgspec

from app.resilience.batcher import Batcher
from app.store.lists import Disposition, columns_of
from app.store.sqlite_trail import Change, Done
from app.store.trail import Act

Answer = TypeVar("Answer")

_DISPOSITION = columns_of(Disposition)
_ADD = f"INSERT INTO dispositions ({_DISPOSITION}) VALUES ({', '.join('?' * (_DISPOSITION.count(',') + 1))})"
_IS_SET_ASIDE = """\
SELECT 1 FROM dispositions INDEXED BY dispositions_in_force
WHERE tenant_id = ? AND business = ? AND list = ? AND entity_id = ? AND entity_digest = ? AND ended_ms IS NULL"""
BY_BUSINESS = f"""\
SELECT {_DISPOSITION} FROM dispositions INDEXED BY dispositions_by_business
WHERE tenant_id = ? AND business = ? AND ended_ms IS NULL ORDER BY id"""
_FIND = f"SELECT {_DISPOSITION} FROM dispositions WHERE tenant_id = ? AND id = ?"
_END = """\
UPDATE dispositions SET ended_ms = ?, ended_by = ? WHERE tenant_id = ? AND id = ? AND ended_ms IS NULL"""


@cache
def page_sql(by_business: bool, before: bool) -> str:
    """The query of a page, newest first. Parameters: tenant, the business and an id above all where there is one,
    limit."""
    indexed = "INDEXED BY dispositions_by_business_id" if by_business else ""
    filters = (" AND business_id = ?" if by_business else "") + (" AND id < ?" if before else "")
    return f"SELECT {_DISPOSITION} FROM dispositions {indexed} WHERE tenant_id = ?{filters} ORDER BY id DESC LIMIT ?"


class SqliteDispositions(ABC):
    """What `Lists` says of dispositions, in the SQLite file; to be mixed into its store."""

    reads: Batcher[Any, list[Any]]

    @abstractmethod
    async def _ask(self, batcher: Batcher[Any, list[Any]], sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of one statement."""

    @abstractmethod
    async def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of a query that may take a while."""

    @abstractmethod
    async def _apply(self, change: Change[Answer]) -> Answer:
        """Make the change and note its acts, in one transaction."""

    async def add_disposition(self, disposition: Disposition, act: Act) -> bool:
        """Keep a disposition; False where one of the same business and entry has not ended. Raises RowRefused."""
        return await self._apply(partial(_add, disposition, act))

    async def dispositions(self, tenant_id: str, business: bytes) -> list[Disposition]:
        """Those of the business that have not ended, oldest first."""
        return [Disposition(*row) for row in await self._ask(self.reads, BY_BUSINESS, (tenant_id, business))]

    async def disposition(self, tenant_id: str, id: bytes) -> Disposition | None:
        """One of the tenant's, ended ones too."""
        rows = await self._ask(self.reads, _FIND, (tenant_id, id))
        return Disposition(*rows[0]) if rows else None

    async def disposition_page(
        self, tenant_id: str, *, business_id: str | None = None, before_id: bytes | None = None, limit: int
    ) -> list[Disposition]:
        """The tenant's, newest first, ended ones too."""
        values = [value for value in (tenant_id, business_id, before_id) if value is not None]
        sql = page_sql(business_id is not None, before_id is not None)
        return [Disposition(*row) for row in await self._rows(sql, (*values, limit))]

    async def end_disposition(
        self, tenant_id: str, id: bytes, *, ended_ms: int, ended_by: str, act: Act
    ) -> Disposition | None:
        """Take a disposition back; as it is now, None where there is none."""
        return await self._apply(partial(_end, tenant_id, id, ended_ms, ended_by, act))


def _add(disposition: Disposition, act: Act, connection: sqlite3.Connection) -> Done[bool]:
    one = disposition
    entry = (one.tenant_id, one.business, one.list, one.entity_id, one.entity_digest)
    if one.ended_ms is None and connection.execute(_IS_SET_ASIDE, entry).fetchone():
        return Done(False)
    connection.execute(_ADD, msgspec.structs.astuple(one))
    return Done(True, (act,))


def _end(
    tenant_id: str, id: bytes, ended_ms: int, ended_by: str, act: Act, connection: sqlite3.Connection
) -> Done[Disposition | None]:
    ended = connection.execute(_END, (ended_ms, ended_by, tenant_id, id)).rowcount
    found = connection.execute(_FIND, (tenant_id, id)).fetchone()
    return Done(None if found is None else Disposition(*found), (act,) if ended else ())
