"""Whether what is on record is what a tenant's trail tells, nothing more and nothing less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.audit.aside import DispositionCheck, ListCheck
from app.audit.balance import Balance, See
from app.audit.keyed import KeyCheck
from app.audit.overridden import OverrideCheck
from app.audit.recorded import RecordedCheck
from app.audit.report import Assessments, Faults
from app.store.base import Row
from app.store.chain import AuditEntry
from app.store.holdings import Holdings
from app.store.trail import SYSTEM_TENANT


class HoldingsCheck:
    """Sees every entry of one tenant's trail once, then compares with the tables. `counts`: of the assessments."""

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str) -> None:
        self._faults = faults
        self._balance = Balance(holdings, faults, tenant_id)
        self._recorded = RecordedCheck(holdings, faults, tenant_id, self._see_row)
        self._overrides = OverrideCheck(holdings, faults, tenant_id, self._recorded.erased)
        self._keys = KeyCheck(holdings, faults, tenant_id)
        self._dispositions = DispositionCheck(holdings, faults, tenant_id, self._recorded.erased)
        self._lists = ListCheck(holdings, faults) if tenant_id == SYSTEM_TENANT else None

    @property
    def counts(self) -> Assessments:
        return self._recorded.counts

    def _see_row(self, row: Row) -> None:
        self._overrides.see_row(row)

    async def add(self, entry: AuditEntry) -> None:
        """Take note of what an entry tells."""
        try:
            self._balance.see(entry)
            self._overrides.see(entry)
            self._keys.see(entry)
            self._dispositions.see(entry)
            if self._lists is not None:
                self._lists.see(entry)
            await self._recorded.see(entry)
        except ValueError as error:
            detail = f"what it tells cannot be read: {error}"
            self._faults.add("entry.unreadable", entry.tenant_id, detail, segment=entry.segment, entry=entry.number)

    async def finish(
        self, read_on: Callable[[], Awaitable[None]], read_again: Callable[[See], Awaitable[None]]
    ) -> None:
        """Compare. read_on: has what was entered meanwhile added.  read_again: has all entries seen by something."""
        counts = self.counts
        await self._recorded.finish(read_on)
        counts.untold, counts.lost = await self._balance.finish(read_on, read_again)
        counts.altered += await self._overrides.finish(read_on)
        await self._keys.finish(read_on)
        await self._dispositions.finish(read_on)
        if self._lists is not None:
            await self._lists.finish(read_on)
        await self._recorded.look()
