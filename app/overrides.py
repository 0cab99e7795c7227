"""What people decide over assessments, beside the record and never in its place.

What holds, whoever decides:

- What is not given stays as it is in force.
- A legal floor of the record cannot be undercut, neither its level nor its decision.
- Once an assessment was declined, by its record or by an override in force, nobody approves it alone. An approval is
  recorded as pending and takes effect when another key approves it: neither the one that asked for it, nor one that
  lowered the decision since it was last decline. So no key reaches an approval in two steps (decline, review, approve).
  Nor does a person with two keys, as far as keys tell (app.keys.owners).
- What took effect after a pending override was asked for makes it void: it was asked for in view of something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from app import wire
from app.errors import BodyRefused, Conflict, NotFound
from app.ids import Uuid7, instant, now_ms, text, time_ms
from app.keys.owners import Owners
from app.records import Records
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.store.access import Access, StoredOverride
from app.store.base import Row, StoreUnavailable
from app.store.trail import Act, act

MOST_OVERRIDES = 200
"""Of one assessment, pending ones too."""
ATTEMPTS = 4
FIRST_PAUSE_S = 0.02
"""After an attempt that was overtaken, and twice as long after each other: what is read may be of a standby, behind."""
APPROVE, DECLINE = wire.DECISIONS.index("approve"), wire.DECISIONS.index("decline")

_OF_ONE_HAND = (
    ", nor can one that replaced it, was made or replaced with it, or with which it was. "
    "Have the owner of another key do it."
)
_OVERTAKEN = "Others decide over this assessment at the same time. Read it again before you repeat this."

Answer = TypeVar("Answer")


class _Judged(Struct, frozen=True):
    """What of a rendered answer says how far a person may go."""

    overrides: list[wire.AppliedOverride]


_decode_judged = msgspec.json.Decoder(_Judged).decode


class History(NamedTuple):
    """What was decided over an assessment so far.

    declined: by its record, or by an override that took effect.  lowered_by: the keys that lowered the decision since
    it was last decline.
    """

    declined: bool
    lowered_by: frozenset[str]


class Overrides:
    """Records what people decide, and has it take effect where the rules allow.

    timeout_s: how long the database is waited for.  clock: Unix time in ms.
    """

    def __init__(
        self,
        records: Records,
        store: Access,
        ids: Uuid7,
        *,
        timeout_s: float,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._records = records
        self._store = store
        self._ids = ids
        self._deadline = Deadline(timeout_s)
        self._clock = clock
        self._under_way: set[asyncio.Task[bool]] = set()

    async def of(self, tenant_id: str, assessment_id: bytes) -> list[StoredOverride]:
        """All of an assessment, oldest first. Raises NotFound."""
        return (await self._read(tenant_id, assessment_id))[1]

    async def decide(
        self, tenant_id: str, assessment_id: bytes, *, level: int | None, decision: int | None, reason: str, actor: str
    ) -> StoredOverride:
        """Record a decision; in force at once, or pending where it takes a second key.

        Raises NotFound, BodyRefused, Conflict, and what the store raises.
        """
        if level is None and decision is None:
            raise BodyRefused([wire.Fault("", "expected a level, a decision or both")])
        if not any(c.isalnum() for c in reason):
            raise BodyRefused([wire.Fault("/reason", "expected why, in words that somebody can read")])
        for attempt in range(ATTEMPTS):
            row, known = await self._read(tenant_id, assessment_id, attempt)
            if len(known) >= MOST_OVERRIDES:
                raise Conflict(f"This assessment has {MOST_OVERRIDES} overrides already, and takes no more.")
            decided = StoredOverride(
                tenant_id=tenant_id,
                assessment_id=assessment_id,
                id=self._ids.new(),
                level=row.level if level is None else level,
                decision=row.decision if decision is None else decision,
                reason=reason,
                actor=actor,
                state="applied",
            )
            await self._check_floors(row, decided)
            if decided.decision == APPROVE and row.decision != APPROVE and history(row, known).declined:
                decided = msgspec.structs.replace(decided, state="pending")
            told = _act(f"override.{decided.state}", row, decided, actor)
            if await self._commit(self._store.add_override(decided, told, over=row.override_id), decided):
                return decided
        raise Conflict(_OVERTAKEN)

    async def approve(self, tenant_id: str, assessment_id: bytes, override_id: bytes, actor: str) -> StoredOverride:
        """Have a pending override take effect, by the word of a second key. Raises NotFound, Conflict, and what the
        store raises."""
        for attempt in range(ATTEMPTS):
            row, known = await self._read(tenant_id, assessment_id, attempt)
            asked = next((override for override in known if override.id == override_id), None)
            if asked is None:
                raise NotFound(f"override {text(override_id)} of this assessment")
            _check_approval(known, asked)
            _check_approver(row, known, asked, actor, Owners(await self._within(self._store.keys(tenant_id))))
            approved = msgspec.structs.replace(asked, state="approved", approver=actor, approved_ms=self._clock())
            told = _act("override.approved", row, approved, actor, asked_by=asked.actor)
            if await self._commit(self._store.approve_override(approved, told, over=row.override_id), approved):
                return approved
        raise Conflict(_OVERTAKEN)

    async def _read(self, tenant_id: str, assessment_id: bytes, attempt: int = 0) -> tuple[Row, list[StoredOverride]]:
        """The assessment, from the database, and all overrides that led to it. Raises NotFound."""
        if attempt:
            await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        # In this order: an override that comes in between is among those read, and the row is then seen to be old.
        [row] = await self._records.each(tenant_id, (assessment_id,))
        if row is None:
            raise NotFound(f"assessment {text(assessment_id)}")
        return row, await self._within(self._store.overrides(tenant_id, assessment_id))

    async def _within(self, read: Awaitable[Answer]) -> Answer:
        try:
            return await self._deadline.run(read)
        except DeadlineExceeded as late:
            raise StoreUnavailable(f"the database did not answer within {late.timeout_s:g} s") from None

    async def _check_floors(self, row: Row, decided: StoredOverride) -> None:
        """Raises Conflict where a legal floor of the record would be undercut, or the record cannot be read."""
        judged = _decode_judged((await self._records.restored(row, as_recorded=True)).render(False))
        for rule in judged.overrides:
            level, decision = wire.LEVELS.index(rule.floor), wire.DECISIONS.index(rule.decision)
            if rule.legal and (decided.level < level or decided.decision < decision):
                raise Conflict(
                    f"The law sets a floor that nobody may undercut: {rule.code} takes at least the level {rule.floor} "
                    f"and the decision {rule.decision}. {rule.message}"
                )

    async def _commit(self, committed: Awaitable[bool], override: StoredOverride) -> bool:
        """Whether it was committed. It goes on when the caller is cancelled: caches must follow what takes effect."""
        task = asyncio.ensure_future(self._settle(committed, override))
        self._under_way.add(task)
        task.add_done_callback(self._end)
        return await self._deadline.run(asyncio.shield(task))

    async def _settle(self, committed: Awaitable[bool], override: StoredOverride) -> bool:
        try:
            return await committed
        finally:
            # Also where sight of the commit was lost: it may have taken effect.
            if override.state != "pending":
                await self._records.forget(override.tenant_id, override.assessment_id)

    def _end(self, task: asyncio.Task[bool]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Whoever waited for it may be gone, and then nobody asks for what it raised.
            task.exception()


def history(row: Row, known: Iterable[StoredOverride]) -> History:
    """What was decided over the assessment. known: all of its overrides."""
    decision = row.decision if row.original_decision is None else row.original_decision
    declined = decision == DECLINE
    lowered_by: set[str] = set()
    for override in sorted((one for one in known if one.state != "pending"), key=_effective_from):
        if override.decision == DECLINE:
            declined = True
            lowered_by.clear()
        elif override.decision < decision:
            lowered_by.add(override.actor)
        decision = override.decision
    return History(declined, frozenset(lowered_by))


def _check_approval(known: Iterable[StoredOverride], asked: StoredOverride) -> None:
    """Raises Conflict where nobody may approve this override now."""
    if asked.state != "pending":
        raise Conflict("This override took effect before: there is nothing to approve.")
    if later := after(asked, known):
        raise Conflict(
            f"The override {text(later[-1].id)} took effect after this one was asked for, which so no longer holds. "
            "Ask for it again."
        )


def _check_approver(
    row: Row, known: Iterable[StoredOverride], asked: StoredOverride, actor: str, owners: Owners
) -> None:
    """Raises Conflict where this key may not approve this override."""
    if owners.may_be_one(actor, asked.actor):
        raise Conflict(f"The key that asked for an override cannot approve it{_OF_ONE_HAND}")
    if any(owners.may_be_one(actor, one) for one in history(row, known).lowered_by):
        raise Conflict(
            f"The key that lowered the decision since it was last decline cannot approve as well{_OF_ONE_HAND}"
        )


def after(asked: StoredOverride, known: Iterable[StoredOverride]) -> list[StoredOverride]:
    """What took effect after an override was asked for, of all that are known. As long as that one is pending, any of
    them makes it void."""
    return [one for one in known if one.state != "pending" and _effective_from(one) > (time_ms(asked.id), asked.id)]


def _effective_from(override: StoredOverride) -> tuple[int, bytes]:
    """When an override took effect, to sort by."""
    asked_ms = time_ms(override.id)
    return asked_ms if override.approved_ms is None else override.approved_ms, override.id


def _act(name: str, row: Row, override: StoredOverride, actor: str, **more: str) -> Act:
    """Of the reason only the hash: it may name people, and can be erased where the trail cannot."""
    detail: dict[str, object] = {
        "override": text(override.id),
        "from": {"level": wire.LEVELS[row.level], "decision": wire.DECISIONS[row.decision]},
        "to": {"level": wire.LEVELS[override.level], "decision": wire.DECISIONS[override.decision]},
        "over": None if row.override_id is None else text(row.override_id),
        "approved_at": None if override.approved_ms is None else instant(override.approved_ms),
        "reason_sha256": None if override.reason is None else sha256(override.reason.encode()).hexdigest(),
    }
    return act(override.tenant_id, name, actor, (override.assessment_id,), **detail, **more)
