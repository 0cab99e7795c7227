"""Whether hits that people set aside, and watchlists in force, are as the trail tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256

import msgspec
from msgspec import Struct

from app import ids
from app.audit.balance import ATTEMPTS
from app.audit.report import Faults, Kind
from app.store.chain import AuditEntry
from app.store.holdings import Holdings
from app.store.lists import Disposition
from app.store.trail import SYSTEM_TENANT

ROWS_A_PAGE = 500
MADE, ENDED = "disposition.made", "disposition.ended"
UPDATED, REMOVED = "watchlist.updated", "watchlist.removed"


class _Told(Struct, frozen=True):
    """Of an act on a disposition. disposition: its UUID.  actor: who did it."""

    disposition: str
    list: str
    entity_id: str
    reason_sha256: str | None = None
    actor: str = ""


class _List(Struct, frozen=True):
    """Of an act on a watchlist; a removal has its name alone."""

    list: str
    number: int = 0
    content_sha256: str | None = None


_decode = msgspec.json.Decoder(_Told).decode
_decode_list = msgspec.json.Decoder(_List).decode


class DispositionCheck:
    """Of one tenant's dispositions; what is kept is a place for each. erased: the ids of assessments whose erasure the
    trail tells of: it ends the dispositions of their business."""

    __slots__ = ("_ended", "_erased", "_faults", "_holdings", "_made", "_tenant_id")

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str, erased: Collection[bytes]) -> None:
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._erased = erased
        self._made: dict[str, _Told] = {}
        self._ended: dict[str, str] = {}

    def see(self, entry: AuditEntry) -> None:
        """Take note of a disposition that was made or ended. Raises ValueError."""
        if entry.act == MADE:
            told = msgspec.structs.replace(_decode(entry.detail), actor=entry.actor)
            self._made[told.disposition] = told
        elif entry.act == ENDED:
            self._ended[_decode(entry.detail).disposition] = entry.actor

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> None:
        """Compare them. read_on: has what was entered meanwhile seen."""
        wrong: list[tuple[Kind, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                await read_on()
            wrong = await self._wrong()
            if not wrong:
                return
        for kind, detail in wrong:
            self._faults.add(kind, self._tenant_id, detail)

    async def _wrong(self) -> list[tuple[Kind, str]]:
        wrong: list[tuple[Kind, str]] = []
        seen: set[str] = set()
        before: bytes | None = None
        while page := await self._holdings.disposition_page(self._tenant_id, before_id=before, limit=ROWS_A_PAGE):
            for row in page:
                named = ids.text(row.id)
                seen.add(named)
                if named not in self._made:
                    wrong.append(("disposition.untold", f"the disposition {named} is there, and no entry tells of it"))
                elif changed := await self._changed(row, self._made[named]):
                    wrong.append(
                        ("disposition.altered", f"the disposition {named} is not as the trail tells: {changed}")
                    )
            before = page[-1].id
        for named in sorted(self._made.keys() - seen):
            wrong.append(("disposition.missing", f"the disposition {named} was made, says the trail, and is not there"))
        return wrong

    async def _changed(self, row: Disposition, made: _Told) -> str:
        """What of a row is not as the acts tell."""
        facts: list[tuple[str, object, object]] = [
            ("list", made.list, row.list),
            ("entry", made.entity_id, row.entity_id),
            ("actor", made.actor, row.actor),
        ]
        ended_by = self._ended.get(ids.text(row.id))
        is_erased = row.reason is None and row.business_id is None and await self._is_erased(row)
        if not is_erased:
            reason = None if row.reason is None else sha256(row.reason.encode()).hexdigest()
            facts += [
                ("reason", made.reason_sha256, reason),
                ("end", ended_by is not None, row.ended_ms is not None),
                ("who ended it", ended_by, row.ended_by),
            ]
        return ", ".join(name for name, told, found in facts if told != found)

    async def _is_erased(self, row: Disposition) -> bool:
        """Whether the assessment that it was made over was erased, or dropped before its business was."""
        if row.assessment_id in self._erased:
            return True
        [found] = await self._holdings.get_each(self._tenant_id, [row.assessment_id])
        return found is None


class ListCheck:
    """Of the watchlists in force, which are everybody's: the service's own trail tells of them."""

    __slots__ = ("_faults", "_holdings", "_last")

    def __init__(self, holdings: Holdings, faults: Faults) -> None:
        self._holdings = holdings
        self._faults = faults
        self._last: dict[str, _List] = {}

    def see(self, entry: AuditEntry) -> None:
        """Take note of a list that came into force. Raises ValueError."""
        if entry.act == UPDATED:
            told = _decode_list(entry.detail)
            known = self._last.get(told.list)
            # Numbers of a list go on counting, also after it was removed.
            if known is None or known.number < told.number:
                self._last[told.list] = told

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> None:
        """Compare them. read_on: has what was entered meanwhile seen."""
        wrong: list[tuple[Kind, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                await read_on()
            wrong = [
                one
                for found in await self._holdings.lists()
                if (one := self._compared(found.name, found.number, found.content_sha256))
            ]
            if not wrong:
                return
        for kind, detail in wrong:
            self._faults.add(kind, SYSTEM_TENANT, detail)

    def _compared(self, name: str, number: int, content_sha256: bytes) -> tuple[Kind, str] | None:
        told = self._last.get(name)
        if told is None:
            return "list.untold", f"the list {name} is in force, and no entry tells of it"
        if told.number != number:
            return (
                "list.altered",
                f"version {number} of the list {name} is in force, and the trail tells of {told.number}",
            )
        if told.content_sha256 != content_sha256.hex():
            return "list.altered", f"version {number} of the list {name} has other content than the trail tells"
        return None
