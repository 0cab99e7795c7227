"""What is on record in PostgreSQL, read through from one end to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from app.store.access import StoredOverride
from app.store.postgres.access import OVERRIDE, override_of
from app.store.postgres.link import Link
from app.store.postgres.trail import TENANTS

TABLES = ("assessments", "overrides", "dispositions", "retention", "relationships", "erasures", "api_keys")
"""Those with an index that begins with the tenant."""

_IDS = "SELECT id FROM assessments WHERE tenant_id = $1 AND id >= $2 AND id <= $3 ORDER BY id LIMIT $4"
_OVERRIDES = f"""\
SELECT {OVERRIDE} FROM overrides WHERE tenant_id = $1 AND (assessment_id, id) > ($2, $3)
ORDER BY assessment_id, id LIMIT $4"""


class PostgresHoldings(ABC):
    """What `Holdings` adds to the others, in PostgreSQL; to be mixed into its store."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    async def holders(self) -> list[str]:
        """Every tenant that anything is on record of besides its trail, in order."""
        found = [await self._fetch(TENANTS.format(table)) for table in TABLES]
        return sorted({tenant_id for records in found for (tenant_id,) in records})

    async def assessment_ids(self, tenant_id: str, *, first: bytes, last: bytes, limit: int) -> list[bytes]:
        """The ids of the tenant's assessments, in order: first <= id <= last."""
        return [id.bytes for (id,) in await self._fetch(_IDS, tenant_id, UUID(first), UUID(last), limit)]

    async def override_stretch(self, tenant_id: str, *, after: tuple[bytes, bytes], limit: int) -> list[StoredOverride]:
        """The tenant's overrides after one, in the order of assessments."""
        found = await self._fetch(_OVERRIDES, tenant_id, *map(UUID, after), limit)
        return [override_of(record) for record in found]
