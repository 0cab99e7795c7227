"""What an operator does to the records: `kyb retention`, `kyb relationship`, `kyb erase`, `kyb erasures`."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from app import ids
from app.cli import setup
from app.cli.exits import FAILED, INTERRUPTED, UNREADABLE, Stopped, printable
from app.cli.output import Output, complain
from app.main import Tiers, make_store
from app.redaction import redact
from app.settings import Settings
from app.settings.budget import DATABASE_LEAST, KEPT_BACK, REDIS_LEAST
from app.store.base import StoreRefused, StoreUnavailable, opened
from app.store.keeping import MAX_DAYS, Erased
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore

Answer = TypeVar("Answer")
Kept = SqliteStore | PostgresStore

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
    dropped = _with_store(settings, lambda store: store.drop_past(today, dry_run=dry_run))
    if as_json:
        _write_json({"dry_run": dry_run, "dropped": dropped})
        return
    done = "would be deleted" if dry_run else "deleted"
    rows = [(one.tenant_id, f"{_counted(one.assessments)} {done}") for one in dropped]
    _write_rows(rows, "nothing is past its retention")


def set_retention(config: str | None, tenant_id: str, days: str) -> None:
    """days: as `days_of` reads it."""
    tenant_id, number = _text("TENANT", tenant_id), days_of(days)
    settings = setup.settings(config, {}).settings
    _with_store(settings, lambda store: store.set_retention(tenant_id, number))
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
    found = _with_store(settings, lambda store: store.retentions())
    if as_json:
        _write_json({"retentions": found})
        return
    _write_rows([(one.tenant_id, f"{one.days} d") for one in found], "no tenant has a retention: all is kept for ever")


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
    tenant_id, business_id = _text("TENANT", tenant_id), _text("BUSINESS", business_id)
    ended_on = None if ended == "ongoing" else _day(ended)
    settings = setup.settings(config, {}).settings
    _with_store(settings, lambda store: store.set_relationship(tenant_id, business_id, ended_on))
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
    found = _with_store(settings, lambda store: store.relationships(_text("TENANT", tenant_id)))
    if as_json:
        _write_json({"relationships": found})
        return
    rows = [(one.business_id, "ongoing" if one.ended_on is None else f"ended on {one.ended_on}") for one in found]
    _write_rows(rows, f"{printable(tenant_id)} has no relationships on record")


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
    tenant_id, business_id = _text("TENANT", tenant_id), _text("BUSINESS", business_id)
    reason = _text("the reason", reason).strip()
    if not yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise Stopped("erasing cannot be undone, and nobody can be asked here: repeat it with --yes", UNREADABLE)
    settings = setup.settings(config, {}).settings
    found = _with_store(settings, lambda store: _ids_of(store, tenant_id, business_id))
    what = f"{_counted(len(found))} of {printable(tenant_id)}"
    if not yes and not click.confirm(f"Erase {printable(business_id)} from {what}? This cannot be undone.", err=True):
        raise Stopped("nothing was erased", INTERRUPTED)
    try:
        erased = _with_store(settings, lambda store: _erase(store, tenant_id, business_id, reason))
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
        Note(_instant(one.erased_ms), one.business_sha256.hex(), one.assessments, one.reason)
        for one in _with_store(settings, lambda store: store.erasures(_text("TENANT", tenant_id)))
    ]
    if as_json:
        _write_json({"erasures": found})
        return
    rows = [(one.erased_at, one.business_sha256, _counted(one.assessments), one.reason) for one in found]
    _write_rows(rows, f"nothing was erased for {printable(tenant_id)}")


def _instant(time_ms: int) -> str:
    return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")


async def _ids_of(store: Kept, tenant_id: str, business_id: str) -> list[bytes]:
    found: list[bytes] = []
    while True:
        before = found[-1] if found else None
        rows = await store.page(tenant_id, business_id=business_id, before_id=before, limit=PAGE_ROWS)
        found += [row.id for row in rows]
        if len(rows) < PAGE_ROWS:
            return found


async def _erase(store: Kept, tenant_id: str, business_id: str, reason: str) -> Erased:
    try:
        return await store.erase(tenant_id, business_id, reason=reason, redact=redact, now_ms=ids.now_ms())
    except ValueError as error:
        raise Stopped(f"an assessment of {business_id} cannot be erased: {error}", FAILED) from None


async def _tell(settings: Settings, tenant_id: str, found: Sequence[bytes]) -> bool:
    """Have Redis and all running services forget the assessments; whether they were told."""
    if settings.redis.url is None or not found:
        return True
    tiers = Tiers(_frugal(settings))
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


# The store, and what is written


def _with_store(settings: Settings, work: Callable[[Kept], Awaitable[Answer]]) -> Answer:
    """What `work` makes of the opened store. Raises Stopped where the database does not do its part."""
    database = settings.database
    if not database.is_postgres and not database.sqlite_file.exists():
        raise Stopped(
            f"there is no database {database.sqlite_file}; name its folder in DATA_DIR, or make it with `kyb migrate`",
            FAILED,
        )

    async def run() -> Answer:
        async with opened(make_store(_frugal(settings))) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except StoreRefused as refused:
        raise Stopped(str(refused), FAILED) from None
    except StoreUnavailable as unavailable:
        raise Stopped(f"{unavailable}; repeat the command, it goes on where this one ended", FAILED) from None


def _frugal(settings: Settings) -> Settings:
    """The settings, with as many connections as one command needs: of those that no worker gets."""
    replace = msgspec.structs.replace
    return replace(
        settings,
        server=replace(settings.server, workers=1),
        scaling=replace(settings.scaling, min_replicas=1, max_replicas=None),
        database=replace(settings.database, max_connections=KEPT_BACK + DATABASE_LEAST, min_connections=0),
        redis=replace(settings.redis, pool_size=REDIS_LEAST, min_idle_conns=0),
    )


def _text(name: str, value: str) -> str:
    """A text that a database can hold. Raises Stopped."""
    if not value.strip():
        raise Stopped(f"{name} is empty", UNREADABLE)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Stopped(f"{name} is not text in UTF-8", UNREADABLE) from None
    return value


def _counted(assessments: int) -> str:
    return f"{assessments} assessment{'' if assessments == 1 else 's'}"


def _write_json(document: Any) -> None:
    with Output() as out:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _write_rows(rows: Sequence[tuple[str, ...]], nothing: str) -> None:
    """Lines for people, the columns aligned. nothing: what is said where there are none."""
    shown = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    with Output() as out:
        for row in shown:
            out.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
        if not shown:
            out.write(f"{nothing}\n")
