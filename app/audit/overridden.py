"""Whether what is in force over assessments is what people decided: no override without its act, no act without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from app import ids, wire
from app.audit.report import Faults
from app.store.base import Row
from app.store.chain import AuditEntry

Rows = Callable[[str, list[bytes]], Awaitable[list[Row | None]]]
"""The tenant's assessments with these ids, in order, as `Store.get_each` gives them."""

IDS_A_CALL = 256
EFFECTIVE = ("override.applied", "override.approved")
"""The acts with which an override took effect."""


class Outcome(Struct, frozen=True):
    level: str
    decision: str


class Effect(Struct, frozen=True):
    """Of an act of EFFECTIVE. override: its UUID.  to: what came into force."""

    override: str
    to: Outcome


_decode = msgspec.json.Decoder(Effect).decode


class OverrideCheck:
    """Compares the overrides of one tenant's assessments with the acts of its trail. What is kept is one place for each
    override; people make them, and they are few."""

    __slots__ = ("_effects", "_faults", "_overridden", "_rows", "_tenant_id")

    def __init__(self, rows: Rows, faults: Faults, tenant_id: str) -> None:
        self._rows = rows
        self._faults = faults
        self._tenant_id = tenant_id
        self._effects: dict[bytes, set[Effect]] = {}
        self._overridden: set[bytes] = set()

    def see_entry(self, entry: AuditEntry) -> None:
        """Take note of an override that took effect. Raises ValueError where it cannot be read."""
        if entry.act in EFFECTIVE:
            self._effects.setdefault(entry.subjects, set()).add(_decode(entry.detail))

    def see_row(self, row: Row) -> None:
        """Take note of an assessment that has an override."""
        if (row.override_id, row.original_level, row.original_decision) != (None, None, None):
            self._overridden.add(row.id)

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> int:
        """Compare them; how many assessments are not as the trail tells. read_on: reads what was entered meanwhile."""
        wanted = sorted({*self._effects, *self._overridden})
        untold: list[tuple[bytes, Effect | None]] = []
        for start in range(0, len(wanted), IDS_A_CALL):
            rows = await self._rows(self._tenant_id, wanted[start : start + IDS_A_CALL])
            found = [(row.id, _effect(row)) for row in rows if row is not None]
            untold += [one for one in found if not self._is_told(*one)]
        if untold:
            await read_on()
            untold = [one for one in untold if not self._is_told(*one)]
        for id, _ in untold:
            detail = f"what is in force over the assessment {ids.text(id)} is no override that the trail tells of"
            self._faults.add("assessment.altered", self._tenant_id, detail)
        return len(untold)

    def _is_told(self, id: bytes, effect: Effect | None) -> bool:
        return effect in self._effects.get(id, ())


def _effect(row: Row) -> Effect | None:
    """What the row says of its override, None where that is no override at all."""
    if row.override_id is None or row.original_level is None or row.original_decision is None:
        return None
    return Effect(ids.text(row.override_id), Outcome(wire.LEVELS[row.level], wire.DECISIONS[row.decision]))
