"""Whether the clock here is right, and goes with that of database and Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from app.doctor import redis as redis_server
from app.doctor.findings import Finding, by_measure, judged, look, ok, time_text
from app.doctor.postgres import opened
from app.doctor.process import clock_is_kept
from app.doctor.reaching import Unknown
from app.settings import Settings
from app.store.postgres.link import CONNECTING_FAILS

SKEW_S = (1.0, 30.0)

_KEEP = "Let a time service (chrony, systemd-timesyncd) keep the clocks."


async def examined(settings: Settings) -> list[Finding]:
    """The clock of this machine, then its skew against each server."""
    skews = []
    if settings.database.is_postgres:
        skews.append(_against_database(settings))
    if settings.redis.url is not None:
        skews.append(_against_redis(settings.redis.url))
    return [_kept(), *await asyncio.gather(*skews)]


def _kept() -> Finding:
    kept = clock_is_kept()
    if kept is None:
        return ok("clock", "the kernel does not say whether it is kept right")
    if not kept:
        return look("clock", "nothing that the kernel knows of keeps it right", _KEEP)
    return ok("clock", "kept right by a time service")


async def _against_database(settings: Settings) -> Finding:
    database = settings.database
    url = database.direct_url or database.url
    assert url is not None
    findings: list[Finding] = []
    pooled = database.pooler == "pgbouncer" and database.direct_url is None
    session = await opened(url, "DATABASE_URL", pooled, findings)
    if session is None:
        return _unknown("database", findings[-1].seen, "kyb doctor db")
    try:
        return await _skew("database", session.clock_s)
    except CONNECTING_FAILS:
        return _unknown("database", "it does not answer", "kyb doctor db")
    finally:
        await session.close()


async def _against_redis(url: str) -> Finding:
    try:
        return await _skew("Redis", lambda: redis_server.clock_s(url))
    except (Unknown, RedisError, OSError):
        return _unknown("Redis", "it does not answer", "kyb doctor redis")


async def _skew(whose: str, ask: Callable[[], Awaitable[float]]) -> Finding:
    """Theirs against ours in the middle of the question, which is right to half of what it took."""
    before = time.time()
    theirs = await ask()
    after = time.time()
    skew_s, doubt_s = theirs - (before + after) / 2, (after - before) / 2
    sure_s = max(0.0, abs(skew_s) - doubt_s)
    way = "ahead of" if skew_s > 0 else "behind"
    seen = f"that of the {whose} is" if whose == "database" else f"that of {whose} is"
    seen += f" {time_text(abs(skew_s))} {way} ours" if sure_s > 0.01 else " the same as ours"
    return judged(
        f"clock of {whose}",
        by_measure(sure_s, *SKEW_S),
        f"{seen}, to within {time_text(doubt_s)}",
        _KEEP,
        skew_s=skew_s,
        doubt_s=doubt_s,
    )


def _unknown(whose: str, why: str, command: str) -> Finding:
    return look(f"clock of {whose}", f"not known: {why}", f"See `{command}`.")
