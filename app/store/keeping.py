"""How long records are kept, and what is left of a business that is erased: the structs and the protocol."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

from app.store.base import Row
from app.store.chain import erased_hash
from app.store.trail import Act, act

MAX_DAYS = 36_525
"""The longest retention, a hundred years."""

ERASED = "assessment.erased"
"""The act of a slice of an erasure. Its subjects are the ids, its detail `{"rows": ["<hex>", ...]}` tells in their
order what is left of each, as `app.store.chain.erased_hash`."""
GONE = "assessment.dropped"
"""The act of a slice of assessments that were past their retention and deleted. Its subjects are their ids."""
IDS_AN_ACT = 1_000
"""An act of GONE has no more subjects."""

_DAY_MS = 86_400_000
_EPOCH = dt.date(1970, 1, 1).toordinal()


class Retention(Struct, frozen=True):
    """How many days a tenant's assessments are kept."""

    tenant_id: str
    days: int


class Relationship(Struct, frozen=True):
    """The relationship with a business. ended_on: its last day, None while it is ongoing."""

    business_id: str
    ended_on: dt.date | None


class Dropped(Struct, frozen=True):
    """How many of a tenant's assessments were dropped, or would be."""

    tenant_id: str
    assessments: int


class Erased(Struct, frozen=True):
    """What a call of `erase` did. ids: of the assessments that it erased, oldest first."""

    assessments: int
    ids: list[bytes]


class Erasure(Struct, frozen=True):
    """The trace of an erasure, which names nobody. business_sha256: as `business_sha256` makes it."""

    business_sha256: bytes
    erased_ms: int
    assessments: int
    reason: str


class Keeping(Protocol):
    """What the law and people ask of a store. Every method raises StoreUnavailable as those of `Store` do."""

    async def set_retention(self, tenant_id: str, days: int | None) -> None:
        """Keep the tenant's assessments for so many days, 1 to MAX_DAYS, or for ever, as without a setting.

        Raises ValueError for another number.
        """

    async def retentions(self) -> list[Retention]:
        """The settings of all tenants that have one, by tenant."""

    async def set_relationship(self, tenant_id: str, business_id: str, ended_on: dt.date | None) -> None:
        """The relationship with the business ended on that day, or is ongoing.

        While it is ongoing the assessments of the business are kept whatever their age; once it has ended, the clock of
        all of them starts on that day, or on the day of the assessment if that is later.
        """

    async def relationships(self, tenant_id: str) -> list[Relationship]:
        """The tenant's relationships, by business."""

    async def drop_past(self, today: dt.date, *, dry_run: bool = False, actor: str = "cli") -> list[Dropped]:
        """Delete the assessments that are past their tenant's retention; for each tenant that has any, how many.

        An assessment is past it when `start + days < today`. start: the day (UTC) of the time in its id, or the last
        day of the relationship with its business if that is later. dry_run: only count.
        Works in short transactions, each of which looks again at the settings it relies on, so that others write in
        between; ended on the way, it goes on with the next call. The overrides of an assessment go with it. Receipts
        that name a dropped assessment may stay until they expire. Each transaction enters acts of GONE, by the actor,
        with the ids of what it deleted.
        """

    async def erase(
        self,
        tenant_id: str,
        business_id: str,
        *,
        reason: str,
        redact: Callable[[bytes], bytes],
        now_ms: int,
        actor: str = "cli",
    ) -> Erased:
        """Take from the tenant's assessments of the business what names it or its people; the results stay.

        Their input becomes None beside its SHA-256, their business_id None, their record `redact(record)`, which may
        run in another thread; what the audit trail holds of them stays in their leaf. The reasons of their overrides
        become None. The dispositions of the business lose business_id, reason and matched_name, which resembles one of
        its people's, and end now unless they ended before; that a digest of the business set aside an entry of a list
        stays. The relationship is deleted, and the erasure noted.

        A business of a few hundred assessments is erased in one transaction. One of many is erased in slices, so that
        others write in between: the first notes the erasure, each that follows adds its assessments to the note's
        count, so the note is true whenever the work ends early, and the same call again does the rest under a note of
        its own. With nothing left to erase it answers 0 and leaves no note. What `redact` raises ends the call.
        Each slice enters an act of ERASED, by the actor, in its transaction.
        """

    async def erasures(self, tenant_id: str) -> list[Erasure]:
        """The tenant's erasures, oldest first."""


def erased_act(tenant_id: str, actor: str, rows: Sequence[Row]) -> Act:
    """What tells of assessments that were erased. rows: as they are now."""
    return act(tenant_id, ERASED, actor, [row.id for row in rows], rows=[erased_hash(row).hex() for row in rows])


def gone_acts(tenant_id: str, actor: str, ids: Sequence[bytes]) -> list[Act]:
    """What tells of assessments that were dropped, none where none were."""
    return [act(tenant_id, GONE, actor, ids[start : start + IDS_AN_ACT]) for start in range(0, len(ids), IDS_AN_ACT)]


def checked_days(days: int) -> int:
    """The days of a retention. Raises ValueError when they are none."""
    if not 1 <= days <= MAX_DAYS:
        raise ValueError(f"{days} is no number of days to keep assessments for: it must be 1 to {MAX_DAYS}")
    return days


def kept_from(today: dt.date, days: int) -> int:
    """The proleptic ordinal of the first day that is not past a retention of so many days."""
    return today.toordinal() - days


def first_id(day: int) -> bytes:
    """What no id of that day or later is below and every earlier one is: 6 bytes. day: proleptic ordinal."""
    return max(0, (day - _EPOCH) * _DAY_MS).to_bytes(6, "big")


def business_sha256(tenant_id: str, business_id: str) -> bytes:
    """SHA-256 of the tenant, NUL and the business."""
    return sha256(f"{tenant_id}\0{business_id}".encode()).digest()
