"""Whether overrides, and what is in force by them, are as the trail tells that people decided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256

import msgspec
from msgspec import Struct

from app import ids, wire
from app.audit.balance import ATTEMPTS, IDS_A_CALL
from app.audit.report import Faults, Kind
from app.store.access import StoredOverride
from app.store.base import Row
from app.store.chain import AuditEntry
from app.store.holdings import BEFORE_ALL, Holdings

ROWS_A_PAGE = 500
APPLIED, PENDING, APPROVED = "override.applied", "override.pending", "override.approved"


class Outcome(Struct, frozen=True):
    level: str
    decision: str


class Told(Struct, frozen=True):
    """Of an act on an override. override: its UUID.  to: what came, or would come, into force.  over: the override that
    was in force before.  actor: who did it."""

    override: str
    to: Outcome
    over: str | None = None
    reason_sha256: str | None = None
    approved_at: str | None = None
    actor: str = ""


Effect = tuple[str, Outcome]
"""The UUID of an override, and what it has in force."""
_decode = msgspec.json.Decoder(Told).decode


class OverrideCheck:
    """Compares the overrides of one tenant's assessments with the acts of its trail. What is kept is one place for each
    override; people make them, and they are few. erased: the ids of assessments whose erasure the trail tells of."""

    __slots__ = ("_acts", "_erased", "_faults", "_holdings", "_in_force", "_overridden", "_tenant_id")

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str, erased: Collection[bytes]) -> None:
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._erased = erased
        # By assessment and override, what was done with it.
        self._acts: dict[tuple[bytes, str], dict[str, Told]] = {}
        # By assessment, what took effect, each with what it took the place of.
        self._in_force: dict[bytes, dict[Effect, str | None]] = {}
        self._overridden: set[bytes] = set()

    def see(self, entry: AuditEntry) -> None:
        """Take note of an override that was asked for or took effect. Raises ValueError."""
        if entry.act not in (APPLIED, PENDING, APPROVED):
            return
        told = msgspec.structs.replace(_decode(entry.detail), actor=entry.actor)
        self._acts.setdefault((entry.subjects, told.override), {})[entry.act] = told
        if entry.act != PENDING:
            self._in_force.setdefault(entry.subjects, {})[told.override, told.to] = told.over

    def see_row(self, row: Row) -> None:
        """Take note of an assessment that has an override."""
        if (row.override_id, row.original_level, row.original_decision) != (None, None, None):
            self._overridden.add(row.id)

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> int:
        """Compare them; how many assessments are not as the trail tells. read_on: has what came meanwhile seen."""
        altered: list[bytes] = []
        wrong: list[tuple[Kind, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                await read_on()
            altered = await self._untold_effects()
            wrong = await self._wrong_rows()
            if not altered and not wrong:
                return 0
        for id in altered:
            detail = (
                f"what is in force over the assessment {ids.text(id)} is not the override that the trail tells of last"
            )
            self._faults.add("assessment.altered", self._tenant_id, detail)
        for kind, detail in wrong:
            self._faults.add(kind, self._tenant_id, detail)
        return len(altered)

    # What is in force

    async def _untold_effects(self) -> list[bytes]:
        """The assessments over which something else is in force than what took effect last."""
        wanted = sorted({*self._in_force, *self._overridden})
        untold = []
        for start in range(0, len(wanted), IDS_A_CALL):
            rows = await self._holdings.get_each(self._tenant_id, wanted[start : start + IDS_A_CALL])
            untold += [row.id for row in rows if row is not None and _effect(row) not in self._last(row.id)]
        return untold

    def _last(self, id: bytes) -> set[Effect]:
        """What took effect and had nothing take its place. One, for each names what it took the place of."""
        effects = self._in_force.get(id, {})
        replaced = set(effects.values())
        return {effect for effect in effects if effect[0] not in replaced}

    # The overrides themselves

    async def _wrong_rows(self) -> list[tuple[Kind, str]]:
        wrong: list[tuple[Kind, str]] = []
        seen: set[tuple[bytes, str]] = set()
        after = BEFORE_ALL
        while page := await self._holdings.override_stretch(self._tenant_id, after=after, limit=ROWS_A_PAGE):
            for row in page:
                place = (row.assessment_id, ids.text(row.id))
                seen.add(place)
                if place not in self._acts:
                    wrong.append(("override.untold", f"{_named(*place)} is there, and no entry tells of it"))
                elif changed := self._changed(row, self._acts[place]):
                    wrong.append(("override.altered", f"{_named(*place)} is not as the trail tells: {changed}"))
            after = (page[-1].assessment_id, page[-1].id)
        wrong += [("override.missing", detail) for detail in await self._missing(seen)]
        return wrong

    async def _missing(self, seen: Collection[tuple[bytes, str]]) -> list[str]:
        """Those whose assessment is there: with an assessment its overrides are dropped."""
        gone = sorted(place for place in self._acts if place not in seen)
        missing = []
        for start in range(0, len(gone), IDS_A_CALL):
            some = gone[start : start + IDS_A_CALL]
            rows = await self._holdings.get_each(self._tenant_id, [id for id, _ in some])
            missing += [
                f"{_named(*place)} was made, says the trail, and is not there"
                for place, row in zip(some, rows, strict=True)
                if row is not None
            ]
        return missing

    def _changed(self, row: StoredOverride, acts: dict[str, Told]) -> str:
        """What of a row is not as the acts tell."""
        asked, approved = acts.get(APPLIED) or acts.get(PENDING), acts.get(APPROVED)
        if asked is None:
            return "nothing tells that it was asked for"
        state = "approved" if approved else "applied" if APPLIED in acts else "pending"
        facts = [
            ("level", asked.to.level, _name(wire.LEVELS, row.level)),
            ("decision", asked.to.decision, _name(wire.DECISIONS, row.decision)),
            ("actor", asked.actor, row.actor),
            ("state", state, row.state),
            ("approver", approved and approved.actor, row.approver),
            ("approval", approved and approved.approved_at, row.approved_ms and ids.instant(row.approved_ms)),
        ]
        if row.reason is not None or row.assessment_id not in self._erased:
            reason = None if row.reason is None else sha256(row.reason.encode()).hexdigest()
            facts.append(("reason", asked.reason_sha256, reason))
        return ", ".join(name for name, told, found in facts if told != found)


def _effect(row: Row) -> Effect | None:
    """What the row says of its override, None where that is no override at all."""
    if row.override_id is None or row.original_level is None or row.original_decision is None:
        return None
    return ids.text(row.override_id), Outcome(_name(wire.LEVELS, row.level), _name(wire.DECISIONS, row.decision))


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


def _named(assessment_id: bytes, override: str) -> str:
    return f"the override {override} of the assessment {ids.text(assessment_id)}"
