"""What an operator does to the records: `kyb retention`, `kyb relationship`, `kyb erase`, `kyb erasures`."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import sys
from collections.abc import Sequence

import click
import msgspec

from app import ids
from app.cli import setup
from app.cli.exits import FAILED, INTERRUPTED, UNREADABLE, Stopped, printable
from app.cli.opening import Kept, cover_if_keyed, database_text, frugal, with_store
from app.cli.output import Output, complain, write_json, write_rows
from app.neighbours import Tiers
from app.redaction import redact
from app.settings import Settings
from app.store.keeping import MAX_DAYS, Dropped, Erased

PAGE_ROWS = 200
KEYS_A_MESSAGE = 500
TELL_S = 3.0
TELL_PAUSE_S = 0.1


class Note(msgspec.Struct, frozen=True):
    """An erasure, as it is shown."""

    erased_at: str
    business_sha256: str
    assessments: int
    reason: str


# How long


def drop_past(config: str | None, dry_run: bool, as_json: bool) -> None:
    """Delete what is past its tenant's retention, or count it."""
    settings = setup.settings(config, {}).settings
    today = dt.datetime.now(dt.UTC).date()

    async def work(store: Kept) -> list[Dropped]:
        try:
            return await store.drop_past(today, dry_run=dry_run)
        finally:
            await cover_if_keyed(settings, store)

    dropped = with_store(settings, work)
    if as_json:
        write_json({"dry_run": dry_run, "dropped": dropped})
        return
    done = "would be deleted" if dry_run else "deleted"
    rows = [(one.tenant_id, f"{_counted(one.assessments)} {done}") for one in dropped]
    write_rows(rows, "nothing is past its retention")


def set_retention(config: str | None, tenant_id: str, days: str) -> None:
    """days: as `days_of` reads it."""
    tenant_id, number = database_text("TENANT", tenant_id), days_of(days)
    settings = setup.settings(config, {}).settings
    with_store(settings, lambda store: store.set_retention(tenant_id, number))
    meaning = (
        "are kept for ever"
        if number is None
        else f"are kept for {number} {'day' if number == 1 else 'days'} after the day they were made, or after the end "
        "of the relationship with their business if that is later; `kyb retention` deletes what is older"
    )
    with Output() as out:
        out.write(f"the assessments of {printable(tenant_id)} {meaning}\n")


def list_retentions(config: str | None, as_json: bool) -> None:
    """The tenants with a retention."""
    settings = setup.settings(config, {}).settings
    found = with_store(settings, lambda store: store.retentions())
    if as_json:
        write_json({"retentions": found})
        return
    write_rows([(one.tenant_id, f"{one.days} d") for one in found], "no tenant has a retention: all is kept for ever")


def days_of(text: str) -> int | None:
    """The days of 1826, 1826d or 5y, None for `forever`. Years are as long as they can be with their leap days.

    Raises Stopped.
    """
    if text == "forever":
        return None
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ("d", "y") else (text, "d")
    if number.isascii() and number.isdigit() and len(number) <= 9:
        count = int(number)
        days = count if unit == "d" else 365 * count + math.ceil(count / 4)
        if 1 <= days <= MAX_DAYS:
            return days
    raise Stopped(
        f"{text} is no time to keep assessments for; give days (1826 or 1826d, 1 to {MAX_DAYS}), years (5y) or forever",
        UNREADABLE,
    )


# Relationships


def set_relationship(config: str | None, tenant_id: str, business_id: str, ended: str) -> None:
    """ended: `ongoing`, or the last day as YYYY-MM-DD."""
    tenant_id, business_id = database_text("TENANT", tenant_id), database_text("BUSINESS", business_id)
    ended_on = None if ended == "ongoing" else _day(ended)
    settings = setup.settings(config, {}).settings
    with_store(settings, lambda store: store.set_relationship(tenant_id, business_id, ended_on))
    meaning = (
        "is ongoing: its assessments are kept whatever their age"
        if ended_on is None
        else f"ended on {ended_on}: the retention of its assessments counts from that day, or from their own if later"
    )
    with Output() as out:
        out.write(f"the relationship of {printable(tenant_id)} with {printable(business_id)} {meaning}\n")


def list_relationships(config: str | None, tenant_id: str, as_json: bool) -> None:
    """A tenant's relationships."""
    settings = setup.settings(config, {}).settings
    found = with_store(settings, lambda store: store.relationships(database_text("TENANT", tenant_id)))
    if as_json:
        write_json({"relationships": found})
        return
    rows = [(one.business_id, "ongoing" if one.ended_on is None else f"ended on {one.ended_on}") for one in found]
    write_rows(rows, f"{printable(tenant_id)} has no relationships on record")


def _day(text: str) -> dt.date:
    try:
        if len(text) == len("2026-11-23"):
            return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        pass
    raise Stopped(f"{text} is no day; give the last day of the relationship as YYYY-MM-DD, or ongoing", UNREADABLE)


# Erasure


def erase(config: str | None, tenant_id: str, business_id: str, reason: str, yes: bool) -> None:
    """Take from the records what names a business, once somebody agreed, and have every cache forget it."""
    tenant_id, business_id = database_text("TENANT", tenant_id), database_text("BUSINESS", business_id)
    reason = database_text("the reason", reason).strip()
    if not yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise Stopped("erasing cannot be undone, and nobody can be asked here: repeat it with --yes", UNREADABLE)
    settings = setup.settings(config, {}).settings
    found = with_store(settings, lambda store: _ids_of(store, tenant_id, business_id))
    what = f"{_counted(len(found))} of {printable(tenant_id)}"
    if not yes and not click.confirm(f"Erase {printable(business_id)} from {what}? This cannot be undone.", err=True):
        raise Stopped("nothing was erased", INTERRUPTED)
    try:
        erased = with_store(settings, lambda store: _erase(settings, store, tenant_id, business_id, reason))
    except BaseException:
        # Part of it may be erased, and must not be read from a cache any more.
        asyncio.run(_tell(settings, tenant_id, found))
        raise
    told = asyncio.run(_tell(settings, tenant_id, sorted({*found, *erased.ids})))
    with Output() as out:
        out.write(f"erased {printable(business_id)} from {_counted(erased.assessments)} of {printable(tenant_id)}\n")
    # A copy is kept that long in Redis, and a copy of that copy in a process.
    longest_s = settings.cache.ttl * 2 * (1 + settings.cache.ttl_jitter_percent / 100)
    if not told:
        raise Stopped(
            "the records are erased, but Redis could not be told: "
            f"running services may answer with what they remember for up to {longest_s:.0f} s",
            FAILED,
        )
    if settings.redis.url is None and erased.assessments:
        complain(
            "kyb: there is no Redis to tell them by, so running services may answer with what they remember "
            f"for up to {longest_s / 2:.0f} s; a restart ends it at once"
        )


def list_erasures(config: str | None, tenant_id: str, as_json: bool) -> None:
    """The notes of a tenant's erasures."""
    settings = setup.settings(config, {}).settings
    found = [
        Note(ids.instant(one.erased_ms), one.business_sha256.hex(), one.assessments, one.reason)
        for one in with_store(settings, lambda store: store.erasures(database_text("TENANT", tenant_id)))
    ]
    if as_json:
        write_json({"erasures": found})
        return
    rows = [(one.erased_at, one.business_sha256, _counted(one.assessments), one.reason) for one in found]
    write_rows(rows, f"nothing was erased for {printable(tenant_id)}")


async def _ids_of(store: Kept, tenant_id: str, business_id: str) -> list[bytes]:
    found: list[bytes] = []
    while True:
        before = found[-1] if found else None
        rows = await store.page(tenant_id, business_id=business_id, before_id=before, limit=PAGE_ROWS)
        found += [row.id for row in rows]
        if len(rows) < PAGE_ROWS:
            return found


async def _erase(settings: Settings, store: Kept, tenant_id: str, business_id: str, reason: str) -> Erased:
    try:
        return await store.erase(tenant_id, business_id, reason=reason, redact=redact, now_ms=ids.now_ms())
    except ValueError as error:
        raise Stopped(f"an assessment of {business_id} cannot be erased: {error}", FAILED) from None
    finally:
        await cover_if_keyed(settings, store)


async def _tell(settings: Settings, tenant_id: str, found: Sequence[bytes]) -> bool:
    """Have Redis and all running services forget the assessments; whether they were told."""
    if settings.redis.url is None or not found:
        return True
    tiers = Tiers(frugal(settings))
    cache = tiers.of_assessments()
    loop = asyncio.get_running_loop()
    end = loop.time() + TELL_S
    try:
        for start in range(0, len(found), KEYS_A_MESSAGE):
            while not await cache.invalidate(tenant_id, found[start : start + KEYS_A_MESSAGE]):
                if loop.time() >= end:
                    return False
                await asyncio.sleep(TELL_PAUSE_S)
        return True
    finally:
        await tiers.close()


def _counted(assessments: int) -> str:
    return f"{assessments} assessment{'' if assessments == 1 else 's'}"
