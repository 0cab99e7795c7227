"""What is on record, read through from one end to the other, so that it can be compared with the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.store.access import StoredKey, StoredOverride
from app.store.base import Row
from app.store.lists import Disposition, ListVersion

BEFORE_ALL = (bytes(16), bytes(16))
"""Before the first override."""


class Holdings(Protocol):
    """Every method raises StoreUnavailable as those of `Store` do."""

    async def holders(self) -> list[str]:
        """Every tenant that anything is on record of besides its trail, in order."""

    async def get_each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """The tenant's assessments with these ids, in order."""

    async def assessment_ids(self, tenant_id: str, *, first: bytes, last: bytes, limit: int) -> list[bytes]:
        """The ids of the tenant's assessments, in order: first <= id <= last, 16 bytes each."""

    async def keys(self, tenant_id: str | None) -> list[StoredKey]:
        """The tenant's keys."""

    async def override_stretch(self, tenant_id: str, *, after: tuple[bytes, bytes], limit: int) -> list[StoredOverride]:
        """The tenant's overrides after one, which is named by the ids of assessment and override, in their order."""

    async def disposition_page(
        self, tenant_id: str, *, business_id: str | None = None, before_id: bytes | None = None, limit: int
    ) -> Sequence[Disposition]:
        """The tenant's dispositions, newest first, ended ones too."""

    async def lists(self) -> list[ListVersion]:
        """The version in force of every watchlist."""
