"""What is on record in the SQLite file, read through from one end to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from app.store.access import StoredOverride
from app.store.sqlite_access import OVERRIDE
from app.store.sqlite_trail import TENANTS

TABLES = ("assessments", "overrides", "dispositions", "retentions", "relationships", "erasures")
"""Those with an index that begins with the tenant."""

IDS = """\
SELECT id FROM assessments INDEXED BY assessments_by_id
WHERE tenant_id = ? AND id >= ? AND id <= ? ORDER BY id LIMIT ?"""
OVERRIDES = f"""\
SELECT {OVERRIDE} FROM overrides WHERE tenant_id = ? AND (assessment_id, id) > (?, ?) ORDER BY 2, 3 LIMIT ?"""
_KEYS = "SELECT DISTINCT tenant_id FROM api_keys"


class SqliteHoldings(ABC):
    """What `Holdings` adds to the others, in the SQLite file; to be mixed into its store."""

    @abstractmethod
    async def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of a query that may take a while."""

    async def holders(self) -> list[str]:
        """Every tenant that anything is on record of besides its trail, in order."""
        found = [await self._rows(sql, ()) for sql in (*map(TENANTS.format, TABLES), _KEYS)]
        return sorted({tenant_id for rows in found for (tenant_id,) in rows})

    async def assessment_ids(self, tenant_id: str, *, first: bytes, last: bytes, limit: int) -> list[bytes]:
        """The ids of the tenant's assessments, in order: first <= id <= last."""
        return [id for (id,) in await self._rows(IDS, (tenant_id, first, last, limit))]

    async def override_stretch(self, tenant_id: str, *, after: tuple[bytes, bytes], limit: int) -> list[StoredOverride]:
        """The tenant's overrides after one, in the order of assessments."""
        return [StoredOverride(*row) for row in await self._rows(OVERRIDES, (tenant_id, *after, limit))]
