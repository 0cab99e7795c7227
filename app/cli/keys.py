"""API keys for whoever runs the service: `kyb keys create`, `list`, `revoke`, `rotate`."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from app import ids
from app.cli import setup
from app.cli.exits import CONFIG_REFUSED, FAILED, UNREADABLE, Stopped, printable
from app.cli.opening import Kept, cover, database_text, frugal, with_store
from app.cli.output import Output, complain, write_json, write_rows
from app.credentials import recognise
from app.errors import BodyRefused, Refusal, clipped
from app.keys import Keys, first_key
from app.keys.shown import shown, shown_once
from app.keys.validity import permissions
from app.keys.within import OPERATOR
from app.main import make_keys
from app.neighbours import Tiers
from app.roles import PERMISSIONS, Permission, Role
from app.secrets import Secrets, SecretsMissing, secrets_of
from app.settings import Settings
from app.settings.kinds import Malformed, parse_duration
from app.store.access import StoredKey
from app.wire import LONGEST_OVERLAP_S, Key

Answer = TypeVar("Answer")

ACTOR = "cli"
_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_OPTIONS = {"/name": "--name", "/scopes": "--scope", "/networks": "--network", "/tier": "--tier", "/rate": "--rate"}
"""Where the pointers of refused keys lead on the command line."""


class Order(NamedTuple):
    """A key as it is asked for. expires: as `_end_ms` reads it."""

    tenant_id: str
    name: str
    role: Role
    scopes: Sequence[Permission]
    networks: Sequence[str]
    tier: str | None
    rate: str | None
    expires: str | None


def create(config: str | None, order: Order, as_json: bool) -> None:
    """Make a key: its text on standard output, everything else on standard error."""
    tenant_id = database_text("--tenant", order.tenant_id)
    expires_ms = None if order.expires is None else _end_ms(order.expires)
    settings = setup.settings(config, {}).settings

    async def make(keys: Keys) -> tuple[str, StoredKey]:
        return await keys.create(
            tenant_id,
            database_text("--name", order.name),
            order.role,
            scopes=order.scopes or None,
            networks=order.networks,
            tier=order.tier,
            rate=order.rate,
            expires_ms=expires_ms,
            actor=ACTOR,
            limit=OPERATOR,
        )

    text, key = _with_keys(settings, make, first=True)
    _show_text(text, key, as_json)
    complain(f"kyb: made the key {key.id} of {key.tenant_id}: {key.name}, {_rights(key)}{_until(key)}")
    _say_it_is_shown_once()


def show_list(config: str | None, tenant_id: str | None, as_json: bool) -> None:
    """The keys of a tenant, or all: never their texts."""
    settings = setup.settings(config, {}).settings
    chosen = None if tenant_id is None else database_text("--tenant", tenant_id)
    now_ms = ids.now_ms()
    found = [shown(key, now_ms) for key in _with_keys(settings, lambda keys: keys.list(chosen), first=True)]
    if as_json:
        write_json({"keys": found})
        return
    write_rows([_row(key) for key in found], "there is no key; make one with `kyb keys create`")


def revoke(config: str | None, tenant_id: str | None, named: str) -> None:
    """End a key, named by its id or its text."""
    settings = setup.settings(config, {}).settings
    id = _id_of(named)
    now_ms = ids.now_ms()

    async def end(keys: Keys) -> tuple[StoredKey, bool]:
        ended = await keys.revoke(tenant_id, id, ACTOR, even_last=True)
        return ended, bool(await keys.keepers(ended.tenant_id))

    key, has_keepers = _with_keys(settings, end)
    assert key.revoked_ms is not None
    with Output() as out:
        if key.revoked_ms < now_ms:
            out.write(
                f"the key {id} of {printable(key.tenant_id)} was revoked before, at {ids.instant(key.revoked_ms)}\n"
            )
        else:
            out.write(
                f"revoked the key {id} of {printable(key.tenant_id)}: {printable(key.name)}; "
                "it stops working everywhere within 5 s\n"
            )
    if not has_keepers:
        complain(
            f"kyb: no working key of {key.tenant_id} may change keys any more; "
            f"`kyb keys create --tenant {key.tenant_id} --name admin --role admin` makes one"
        )


def rotate(config: str | None, tenant_id: str | None, id: str, overlap: str, as_json: bool) -> None:
    """Replace a key: the text of its successor on standard output, everything else on standard error."""
    overlap_s = _seconds(overlap)
    if overlap_s is None or overlap_s > LONGEST_OVERLAP_S:
        raise Stopped(f"--overlap: {clipped(overlap)} is no time from 0s to 30d, such as 24h or 7d", UNREADABLE)
    settings = setup.settings(config, {}).settings

    async def replace(keys: Keys) -> tuple[str, StoredKey]:
        return await keys.rotate(tenant_id, id, ACTOR, overlap_s, limit=OPERATOR)

    text, key = _with_keys(settings, replace)
    _show_text(text, key, as_json)
    complain(f"kyb: the key {key.id} of {key.tenant_id} replaces {id}: {key.name}, {_rights(key)}{_until(key)}")
    how_long = f"for another {overlap}, unless it ends before" if overlap_s else "no more, within 5 s everywhere"
    complain(f"kyb: {id} works {how_long}")
    _say_it_is_shown_once()


# The parts that a command is made of


def _with_keys(settings: Settings, work: Callable[[Keys], Awaitable[Answer]], *, first: bool = False) -> Answer:
    """What `work` makes of the keys on record. first: on the embedded database, see to it that some key works.

    Raises Stopped where it is refused.
    """
    try:
        secrets = secrets_of(settings)
    except SecretsMissing as missing:
        raise Stopped(str(missing), CONFIG_REFUSED) from None

    async def run(store: Kept) -> Answer:
        if first:
            await _see_to_the_first(settings, store, secrets)
        tiers = Tiers(frugal(settings))
        # Where Redis cannot be told, the services find out by themselves within the same 5 s.
        _, keys = make_keys(settings, secrets, store, tiers)
        try:
            return await work(keys)
        finally:
            await tiers.close()
            await cover(settings, store, secrets.audit_signing)

    try:
        return with_store(settings, run)
    except BodyRefused as refused:
        listed = "".join(f"\n  {_option(fault.pointer)}: {fault.detail}" for fault in refused.faults)
        raise Stopped(f"the key cannot be made:{listed}", UNREADABLE) from None
    except Refusal as refused:
        raise Stopped(refused.detail, FAILED) from None


async def _see_to_the_first(settings: Settings, store: Kept, secrets: Secrets) -> None:
    if settings.database.is_postgres or await store.has_key(ids.now_ms()):
        return
    file = await first_key(settings, store, secrets, actor=ACTOR)
    complain(f"kyb: there was no key that works, so an administrator's was made: it stands in {file}")


def _show_text(text: str, key: StoredKey, as_json: bool) -> None:
    if as_json:
        write_json(shown_once(key, text, ids.now_ms()))
        return
    with Output() as out:
        out.write(f"{text}\n")


def _say_it_is_shown_once() -> None:
    complain(
        "kyb: the key on standard output is kept nowhere and shown this once; "
        "send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
    )


def _rights(key: StoredKey) -> str:
    held = permissions(key)
    may = ", ".join(permission for permission in PERMISSIONS if permission in held)
    where = f", from {', '.join(key.networks)} only" if key.networks else ""
    return f"{key.role} ({may}){where}"


def _until(key: StoredKey) -> str:
    return "" if key.expires_ms is None else f", until {ids.instant(key.expires_ms)}"


def _row(key: Key) -> tuple[str, ...]:
    state = {
        "active": f"until {key.expires_at}" if key.expires_at else "active",
        "expired": f"expired {key.expires_at}",
        "revoked": f"revoked {key.revoked_at}",
    }[key.status]
    role = key.role if key.scopes is None else f"{key.role}: {', '.join(key.permissions)}"
    used = f"used {key.last_used_at}" if key.last_used_at else "not used yet"
    return key.id, key.tenant_id, key.name, role, key.rate or key.tier or "-", state, used, ", ".join(key.networks)


def _id_of(named: str) -> str:
    """The id of a key that is named by it, or by its whole text: what was found where it must not stand."""
    return recognise(named.encode("utf-8", "replace")) or named


def _option(pointer: str) -> str:
    return next((option for place, option in _OPTIONS.items() if pointer.startswith(place)), "--expires")


def _end_ms(text: str) -> int:
    """When a key ends: after 90d or 12h, at a date-time, or with the end of a day (UTC). Raises Stopped."""
    span_s = _seconds(text)
    if span_s:
        return ids.now_ms() + round(span_s * 1000)
    try:
        if len(text) == len("2027-11-23"):
            end = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC) + dt.timedelta(days=1)
        else:
            end = dt.datetime.fromisoformat(text)
        if end.tzinfo is not None:
            return math.floor(end.timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise Stopped(
        f"--expires: {clipped(text)} is no end of a key; give a time such as 90d or 12h, a day such as 2027-11-23, "
        "or a date-time with its offset such as 2027-11-23T14:00:00Z",
        UNREADABLE,
    )


def _seconds(text: str) -> float | None:
    """The time of 7d, 24h, 1h30m or 0s; None for anything else, a number without its unit too."""
    days = _DAYS.fullmatch(text)
    if days is not None:
        return int(days[1]) * 86_400.0
    if text.isdigit():
        return None
    try:
        return parse_duration(text)
    except Malformed:
        return None
