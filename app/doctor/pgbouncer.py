"""PgBouncer, where it stands between: its pools against what the fleet may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import asyncpg

from app.doctor.console import Console, ConsoleFailed, Row
from app.doctor.findings import Finding, by_measure, by_share, counted, judged, look, ok, sentence, time_text, wrong
from app.settings import Settings
from app.settings.budget import BEHIND_POOLER
from app.store.postgres.link import CONNECTING_FAILS
from app.store.postgres.refusals import refusal
from app.store.postgres.schema import database_place

ANSWER_S = 2.0
WAIT_S = (0.001, 1.0)

_MAY_NOT = "Add the user of DATABASE_URL to stats_users of PgBouncer, which lets it see and no more."


async def examined(settings: Settings, connect_s: float) -> list[Finding]:
    """What its console tells of the pools of this database."""
    url = settings.database.url
    assert url is not None
    try:
        console = await Console.opened(url, connect_s)
    except asyncpg.PostgresError as error:
        return [look("pooler", f"the console of {_place(url)} does not let this user in: {error}", _MAY_NOT)]
    except CONNECTING_FAILS as error:
        told = refusal(error, _place(url))
        return [wrong("pooler", f"PgBouncer at {sentence(told.fault).removeprefix('the database ')}", told.remedy)]
    try:
        config = {row["key"]: row["value"] or "" for row in await console.show("CONFIG", ANSWER_S)}
        pools = await console.show("POOLS", ANSWER_S)
        databases = await console.show("DATABASES", ANSWER_S)
    except ConsoleFailed as failed:
        return [look("pooler", f"the console of {_place(url)} does not tell: {failed}", _MAY_NOT)]
    except TimeoutError:
        return [wrong("pooler", f"{_place(url)} does not answer", "Check that PgBouncer runs, and its load.")]
    finally:
        console.close()
    name = urlsplit(url).path.removeprefix("/")
    own = [row for row in pools if row["database"] == name]
    return [*_clients(settings, config, pools), *_pools(own), *_size(config, databases, name, settings)]


def _place(url: str) -> str:
    return database_place(url).partition("/")[0]


def _clients(settings: Settings, config: dict[str | None, str], pools: Sequence[Row]) -> list[Finding]:
    most = int(config.get("max_client_conn") or 0)
    used = sum(_number(row, "cl_active") + _number(row, "cl_waiting") for row in pools)
    fleet = BEHIND_POOLER * (settings.scaling.max_replicas or 1) * settings.server.workers
    seen = f"{used:,} of max_client_conn {most:,} in use; the fleet may hold {fleet:,}"
    figures = {"used": used, "most": most, "fleet": fleet}
    if fleet > most:
        return [wrong("pooler clients", seen, f"Raise max_client_conn to {fleet:,} or more.", **figures)]
    return [judged("pooler clients", by_share(used, most, 0.8, 0.95), seen, "Raise max_client_conn.", **figures)]


def _pools(own: Sequence[Row]) -> list[Finding]:
    if not own:
        return [ok("pool", "nobody has used this database yet")]
    waiting = sum(_number(row, "cl_waiting") for row in own)
    longest_s = max(_number(row, "maxwait") + _number(row, "maxwait_us") / 1e6 for row in own)
    active = sum(_number(row, "sv_active") for row in own)
    idle = sum(_number(row, "sv_idle") + _number(row, "sv_used") for row in own)
    modes = {row.get("pool_mode") for row in own} - {None}
    findings = [
        judged(
            "pool",
            by_measure(longest_s, *WAIT_S) if waiting else "ok",
            f"{counted(active, 'server connection')} at work, {idle:,} idle, {counted(waiting, 'client')} waiting"
            + (f", the longest for {time_text(longest_s)}" if waiting else ""),
            "Look for what holds them (transactions, locks); else raise default_pool_size within the server's "
            "max_connections.",
            active=active,
            idle=idle,
            waiting=waiting,
            longest_s=longest_s,
        )
    ]
    if modes - {"transaction"}:
        mode = ", ".join(sorted(mode for mode in modes if mode))
        findings.append(
            look(
                "pool mode",
                f"{mode}: each client keeps its connection to the server",
                "Set pool_mode = transaction, which the service is made for.",
            )
        )
    return findings


def _size(config: dict[str | None, str], databases: Sequence[Row], name: str, settings: Settings) -> list[Finding]:
    row = next((row for row in databases if row["name"] == name), None)
    if row is not None and (_number(row, "paused") or _number(row, "disabled")):
        return [wrong("pool size", "PgBouncer holds this database paused or disabled", f"RESUME or ENABLE {name}.")]
    size = _number(row, "pool_size") if row is not None else int(config.get("default_pool_size") or 0)
    budget = settings.database.max_connections
    seen = f"{size:,} connections to the server at most, of DB_MAX_CONNECTIONS {budget:,}"
    remedy = "Lower default_pool_size, or raise DB_MAX_CONNECTIONS and with it the server's max_connections."
    return [judged("pool size", "look" if size > budget else "ok", seen, remedy, size=size, budget=budget)]


def _number(row: Row, name: str) -> int:
    text = row.get(name) or "0"
    return int(text) if text.isdigit() else 0
