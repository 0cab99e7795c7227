"""Dispositions in PostgreSQL: each change is one transaction with the act that tells of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app.resilience.batcher import Batcher, Closed
from app.store.base import StoreUnavailable
from app.store.lists import Disposition, columns_of
from app.store.postgres.link import Link, Session, Unfit
from app.store.trail import Act

Answer = TypeVar("Answer")
Business = tuple[str, bytes]
"""A tenant, and what names one of its businesses."""

_DISPOSITION = columns_of(Disposition)
_ADD = f"""\
INSERT INTO dispositions ({_DISPOSITION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (tenant_id, business, list, entity_id, entity_digest) WHERE ended_ms IS NULL DO NOTHING RETURNING 1"""
_BY_BUSINESS = f"""\
SELECT d.* FROM unnest($1::text[], $2::bytea[]) AS q (tenant_id, business)
CROSS JOIN LATERAL (
    SELECT {_DISPOSITION} FROM dispositions d
    WHERE d.tenant_id = q.tenant_id AND d.business = q.business AND d.ended_ms IS NULL ORDER BY d.id
) d"""
_FIND = f"SELECT {_DISPOSITION} FROM dispositions WHERE tenant_id = $1 AND id = $2"
# In two steps: asked at once for what has not ended, the planner may look through the index of those by business.
_HOLD = "SELECT ended_ms FROM dispositions WHERE tenant_id = $1 AND id = $2 FOR UPDATE"
_END = f"""\
UPDATE dispositions SET ended_ms = $3, ended_by = $4 WHERE tenant_id = $1 AND id = $2 RETURNING {_DISPOSITION}"""


@cache
def page_sql(by_business: bool, before: bool) -> str:
    """The query of a page, newest first. Parameters: tenant, the business and an id above all where there is one,
    limit."""
    after = iter(range(2, 5))
    return (
        f"SELECT {_DISPOSITION} FROM dispositions WHERE tenant_id = $1"
        + (f" AND business_id = ${next(after)}" if by_business else "")
        + (f" AND id < ${next(after)}" if before else "")
        + f" ORDER BY id DESC LIMIT ${next(after)}"
    )


class PostgresDispositions(ABC):
    """What `Lists` says of dispositions, in PostgreSQL; to be mixed into its store.

    `businesses` asks for those of several businesses at once, as they come.
    """

    _writing: Link
    businesses: Batcher[Business, list[Disposition]]

    @abstractmethod
    async def _act(
        self, work: Callable[[Session], Awaitable[Answer]], acts: Sequence[Act] | Callable[[Answer], Sequence[Act]]
    ) -> Answer:
        """Do the work and append its acts to the trail, in one transaction that takes effect once."""

    @abstractmethod
    async def _fits(self, work: Callable[[Session], Awaitable[None]], acts: Sequence[Act]) -> bool:
        """Do the work and note its acts; False, and nothing is changed, where what is there does not allow it."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    async def add_disposition(self, disposition: Disposition, act: Act) -> bool:
        """Keep a disposition; False where one of the same business and entry has not ended. Raises RowRefused."""

        async def add(session: Session) -> None:
            if not await session.fetchval(_ADD, *_values(disposition)):
                raise Unfit("the entry is set aside for this business already")

        return await self._fits(add, (act,))

    async def dispositions(self, tenant_id: str, business: bytes) -> list[Disposition]:
        """Those of the business that have not ended, oldest first; from the server that takes the writes."""
        try:
            return await self.businesses.put((tenant_id, business))
        except Closed:
            raise StoreUnavailable("the store is closed") from None

    async def disposition(self, tenant_id: str, id: bytes) -> Disposition | None:
        """One of the tenant's, ended ones too; from the server that takes the writes."""
        found = await self._fetch(_FIND, tenant_id, UUID(id), link=self._writing)
        return _disposition(found[0]) if found else None

    async def disposition_page(
        self, tenant_id: str, *, business_id: str | None = None, before_id: bytes | None = None, limit: int
    ) -> list[Disposition]:
        """The tenant's, newest first, ended ones too."""
        values = [value for value in (business_id, before_id and UUID(before_id)) if value is not None]
        sql = page_sql(business_id is not None, before_id is not None)
        return [_disposition(record) for record in await self._fetch(sql, tenant_id, *values, limit)]

    async def end_disposition(
        self, tenant_id: str, id: bytes, *, ended_ms: int, ended_by: str, act: Act
    ) -> Disposition | None:
        """Take a disposition back; as it is now, None where there is none."""

        async def end(session: Session) -> Disposition:
            held = await session.fetch(_HOLD, tenant_id, UUID(id))
            if not held or held[0]["ended_ms"] is not None:
                raise Unfit("there is no such disposition, or it ended before")
            [ended] = await session.fetch(_END, tenant_id, UUID(id), ended_ms, ended_by)
            return _disposition(ended)

        try:
            return await self._act(end, (act,))
        except Unfit:
            return await self.disposition(tenant_id, id)

    async def _send_businesses(self, wanted: list[Business]) -> list[list[Disposition]]:
        found: dict[Business, list[Disposition]] = {business: [] for business in wanted}
        for record in await self._fetch(_BY_BUSINESS, *map(list, zip(*found, strict=True)), link=self._writing):
            one = _disposition(record)
            found[one.tenant_id, one.business].append(one)
        return [found[business] for business in wanted]


def _values(disposition: Disposition) -> tuple[Any, ...]:
    tenant_id, id, business, business_id, assessment_id, *others = msgspec.structs.astuple(disposition)
    return tenant_id, UUID(id), business, business_id, UUID(assessment_id), *others


def _disposition(record: Any) -> Disposition:
    tenant_id, id, business, business_id, assessment_id, *others = record
    return Disposition(tenant_id, id.bytes, business, business_id, assessment_id.bytes, *others)
