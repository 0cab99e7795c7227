"""What an auditor asks of the trail: `kyb audit verify`, `kyb audit export`, `kyb audit checkpoint`."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path

from app import ids
from app.audit import anchors
from app.audit.anchors import Anchor, AnchorUnreadable, Kept
from app.audit.export import Format
from app.audit.export import export as export_trails
from app.audit.report import Report, TrailReport
from app.audit.verification import verify as verify_trails
from app.cli import setup
from app.cli.exits import (
    CONFIG_REFUSED,
    FAILED,
    FAULTS_FOUND,
    NOT_ANCHORED,
    SCORED,
    UNREADABLE,
    Stopped,
    printable,
    reason,
)
from app.cli.opening import Kept as Store
from app.cli.opening import cover, database_text, with_store
from app.cli.output import Output, complain, write_json
from app.secrets import SecretsMissing, secrets_of
from app.settings import Settings
from app.store.trail import act

EXPORTED = "audit.exported"

_DAY = dt.timedelta(days=1)


def verify(
    config: str | None, tenant_id: str | None, anchors_file: str | None, *, with_rows: bool, as_json: bool
) -> int:
    """Verify a trail or all, and say what was found; the exit code."""
    tenant_id = _tenant(tenant_id)
    settings = setup.settings(config, {}).settings
    known = _anchors(settings, anchors_file)

    async def work(store: Store) -> Report:
        key = _signing_key(settings)
        holdings = store if with_rows else None
        return await verify_trails(store, key, holdings, tenant_id=tenant_id, anchors=known)

    report = with_store(settings, work)
    if as_json:
        write_json(report)
    else:
        with Output() as out:
            for text in _told(report):
                out.write(f"{printable(text)}\n")
    if not report.intact:
        return FAULTS_FOUND
    return SCORED if report.anchored else NOT_ANCHORED


def export(
    config: str | None,
    tenant_id: str | None,
    form: Format,
    output: str | None,
    first: dt.date | None,
    last: dt.date | None,
) -> None:
    """Write out a trail or all, from a first day to a last one, and enter that in each."""
    tenant_id = _tenant(tenant_id)
    settings = setup.settings(config, {}).settings
    since_ms = None if first is None else _start_ms(first)
    before_ms = None if last is None else _start_ms(last + _DAY)

    async def work(store: Store) -> int:
        key = _signing_key(settings)
        tenants = [one for one in await store.trails() if tenant_id in (None, one)]
        days: dict[str, object] = {"from": first and str(first), "to": last and str(last)}
        # Entered before anything leaves: an export that is interrupted was one, too.
        await store.note([act(one, EXPORTED, "cli", (), format=form, **days) for one in tenants])
        try:
            with Output(output) as out:
                async for piece in export_trails(store, tenants, form, since_ms=since_ms, before_ms=before_ms):
                    out.write_bytes(piece)
        finally:
            await cover(settings, store, key)
        return len(tenants)

    if not with_store(settings, work):
        complain(f"kyb: {_nothing(tenant_id)}")


def checkpoint(config: str | None, tenant_id: str | None) -> None:
    """Print the newest checkpoint of a trail or of all, as `verify` reads them."""
    tenant_id = _tenant(tenant_id)
    settings = setup.settings(config, {}).settings

    async def work(store: Store) -> dict[str, Kept]:
        tenants = await store.trails() if tenant_id is None else [tenant_id]
        found = [await store.last_checkpoint(one) for one in tenants]
        return {one.tenant_id: anchors.as_kept(one) for one in found if one is not None}

    found = with_store(settings, work)
    with Output() as out:
        out.write_bytes(anchors.written(found))
    if not found:
        complain(f"kyb: {_nothing(tenant_id)}")


def _tenant(tenant_id: str | None) -> str | None:
    return None if tenant_id is None else database_text("TENANT", tenant_id)


def _nothing(tenant_id: str | None) -> str:
    whose = "any tenant" if tenant_id is None else f"the tenant {tenant_id}"
    return f"nothing is in the audit trail of {whose}"


def _start_ms(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) * 1000


def _signing_key(settings: Settings) -> bytes:
    """To be asked for once the database is there: with it goes the folder that secrets are made in."""
    try:
        return secrets_of(settings).audit_signing
    except SecretsMissing as missing:
        raise Stopped(f"the settings cannot be used: {missing}", CONFIG_REFUSED) from None
    except OSError as error:
        raise Stopped(f"the secrets cannot be read or made in {error.filename}: {reason(error)}", FAILED) from None


# What is kept outside of the database


def _anchors(settings: Settings, name: str | None) -> list[Anchor]:
    """Those of a file, and those that the service keeps. name: `-` is standard input."""
    try:
        beside = anchors.anchor_of(settings)
        found = [] if beside is None else beside.anchors()
        if name is not None:
            text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            found += anchors.read(text, "standard input" if name == "-" else name)
    except AnchorUnreadable as error:
        raise Stopped(str(error), UNREADABLE) from None
    except OSError as error:
        raise Stopped(f"{error.filename or name} cannot be read: {reason(error)}", UNREADABLE) from None
    return found


# What is said


def _told(report: Report) -> Iterator[str]:
    for trail in report.trails:
        yield _summary(trail)
    yield from map(str, report.faults)
    if report.more:
        yield f"and {report.more} faults more of these kinds"
    if not report.intact:
        yield f"the audit trail has {_counted(len(report.faults) + report.more, 'fault')}"
    elif report.anchored:
        yield "the audit trail is intact"
    else:
        of = "" if not report.anchors else f" of {', '.join(_unanchored(report))}"
        yield (
            f"no fault in what is there, but no checkpoint{of} that was kept outside of the database was compared: "
            "were the last ones cut off with all that they cover, it would not show"
        )


def _unanchored(report: Report) -> list[str]:
    return [_named(trail.tenant_id) for trail in report.trails if trail.checkpoints and not trail.anchored]


def _summary(trail: TrailReport) -> str:
    last = f", the last is {trail.checkpoint} of {ids.instant(trail.checkpoint_ms)}" if trail.checkpoint_ms else ""
    parts = [
        f"{_counted(trail.entries, 'entry')} in {_counted(trail.segments, 'segment')}",
        f"{_counted(trail.checkpoints, 'checkpoint')}{last}",
        f"{trail.after} under no checkpoint yet",
    ]
    if trail.assessments is not None:
        there = trail.assessments
        told = [
            f"{there.proven} proven ({there.erased} of them erased)",
            f"{there.missing - there.lost} no longer kept",
        ]
        others = (
            (there.unproven, "not provable without those"),
            (there.altered, "altered, or recorded together with an altered one"),
            (there.untold, "that no entry tells of"),
            (there.lost, "lost"),
        )
        told += [f"{count} {what}" for count, what in others if count]
        parts.append(f"assessments: {', '.join(told)}")
    return f"{_named(trail.tenant_id)}: {'; '.join(parts)}"


def _named(tenant_id: str) -> str:
    return f"tenant {tenant_id}" if tenant_id else "the service itself"


def _counted(count: int, thing: str) -> str:
    plural = "entries" if thing == "entry" else f"{thing}s"
    return f"{count} {thing if count == 1 else plural}"
