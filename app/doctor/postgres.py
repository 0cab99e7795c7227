"""PostgreSQL: whether it can be used as the service uses it, and what goes on in it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from app import ids
from app.doctor import activity, pgbouncer, space, statements
from app.doctor.findings import Finding, judged, look, ok, refused, time_text, worst, wrong
from app.doctor.reaching import Unknown, looked_up
from app.doctor.session import QUESTION_S, Session
from app.settings import Settings
from app.store.base import StoreRefused
from app.store.postgres import partitions, schema
from app.store.postgres.link import CONNECTING_FAILS, translated
from app.store.postgres.refusals import refusal

LOOK_UP_S = 2.0
CONNECT_S = 3.0
EXAMINATION_S = 20.0
PINGS = 5

_DEFAULT_PORT = 5432


async def examined(settings: Settings) -> list[Finding]:
    """All findings. Where the server does not answer, that is the last of them."""
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(EXAMINATION_S):
            await _examine(settings, findings)
    except TimeoutError:
        findings.append(
            wrong(
                "time",
                f"what there is to ask took more than {time_text(EXAMINATION_S)} and was not all asked",
                "Look at the server's load, and at the network between.",
            )
        )
    return findings


async def _examine(settings: Settings, findings: list[Finding]) -> None:
    database = settings.database
    assert database.url is not None
    pooled = database.pooler == "pgbouncer"
    if pooled:
        findings += await pgbouncer.examined(settings, CONNECT_S)
        if database.direct_url is not None and worst(findings) != "wrong":
            findings += await _through_the_pooler(database.url)
    url = database.direct_url or database.url
    setting = "DATABASE_DIRECT_URL" if database.direct_url else "DATABASE_URL"
    session = await opened(url, setting, pooled and database.direct_url is None, findings)
    if session is None:
        return
    try:
        for about, ask in _QUESTIONS:
            try:
                findings += await ask(session, settings)
            except StoreRefused as refusal_:
                findings.append(refused(about, refusal_))
            except CONNECTING_FAILS as error:
                findings.append(_unanswered(about, error))
                if session.is_lost:
                    return
    finally:
        await session.close()


async def opened(url: str, setting: str, pooled: bool, findings: list[Finding]) -> Session | None:
    """A session, or None; either way with findings that say how it came about. setting: what named the URL."""
    place = schema.database_place(url)
    hosts, unknown = await _known(url)
    findings += [
        wrong("address", f"{place}: {problem}", f"Check {setting}, and the name servers.") for problem in unknown
    ]
    if not hosts and unknown:
        return None
    began = time.monotonic()
    writable = not pooled
    while True:
        try:
            session = await Session.opened(
                url,
                CONNECT_S,
                # Of several hosts those that are known; else the driver would look the others up as long as it takes.
                hosts=hosts if unknown else (),
                attributes=SessionAttribute.read_write if writable else None,
                pooled=pooled,
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            findings.append(refused("writes", refusal(error, place, setting=setting)))
            writable = False
            continue
        except CONNECTING_FAILS as error:
            findings.append(refused("connection", refusal(error, place, setting=setting)))
            return None
        findings.append(ok("connection", f"{place}, connected in {time_text(time.monotonic() - began)}"))
        return session


async def _through_the_pooler(url: str) -> list[Finding]:
    """Whether the way that the service itself takes is open."""
    findings: list[Finding] = []
    session = await opened(url, "DATABASE_URL", True, findings)
    if session is not None:
        try:
            findings += await _latency(session, None)
        except CONNECTING_FAILS as error:
            findings.append(_unanswered("latency", error))
        finally:
            await session.close()
    return [Finding(f"pooled {f.about}", f.verdict, f.seen, f.action, f.figures) for f in findings]


async def _known(url: str) -> tuple[list[tuple[str, int]], list[str]]:
    """The hosts of a URL that have an address, with their ports, and what is wrong with the others."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", [""])[-1]
    hosts = [_host(place) for place in places.split(",") if not place.startswith(("/", "%2F", "%2f"))]
    asked = await asyncio.gather(*[looked_up(*host, LOOK_UP_S) for host in hosts], return_exceptions=True)
    answers = list(zip(hosts, asked, strict=True))
    return (
        [host for host, answer in answers if not isinstance(answer, BaseException)],
        [str(answer) for _, answer in answers if isinstance(answer, Unknown)],
    )


def _host(place: str) -> tuple[str, int]:
    """Name and port of `name`, `name:port`, `[::1]` or `[::1]:port`."""
    name, _, port = place.rpartition(":")
    if not port.isdigit():
        name, port = place, str(_DEFAULT_PORT)
    return name.strip("[]"), int(port)


def _unanswered(about: str, error: BaseException) -> Finding:
    told = translated(error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return look(about, f"not shown to this user: {error}", "GRANT pg_monitor TO it, which lets it see and no more.")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return look(
            about, "not known: another transaction holds what has to be read", "See the locks; ask again without them."
        )
    if isinstance(error, asyncpg.QueryCanceledError):
        return look(
            about,
            f"not known: it took the server more than {time_text(QUESTION_S)}",
            "Ask again when it has less to do.",
        )
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError):
        return look(about, f"not known: {error}", "Ask a database administrator what this user lacks.")
    return wrong(about, f"{told}, after it had let us in", "Check that the server runs, and the network between.")


async def _latency(session: Session, _: Settings | None) -> list[Finding]:
    times = []
    for _ping in range(PINGS):
        began = time.monotonic()
        await session.ping()
        times.append(time.monotonic() - began)
    median_s = statistics.median(times)
    return [
        judged(
            "latency",
            "look" if median_s >= 0.02 else "ok",
            f"an answer takes {time_text(median_s)}, at most {time_text(max(times))}",
            "Bring service and database nearer to each other, or look at the load of either.",
            median_s=median_s,
            most_s=max(times),
        )
    ]


async def _server(session: Session, settings: Settings) -> list[Finding]:
    row = await session.row(
        "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,"
        " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_s,"
        " current_setting('fsync') AS fsync,"
        " current_setting('synchronous_commit') AS synchronous_commit,"
        " current_setting('full_page_writes') AS full_page_writes"
    )
    role = "standby" if row["standby"] else "primary"
    seen = f"PostgreSQL {row['version'].split()[0]}, {role}, up for {time_text(row['up_s'])}"
    findings = [ok("server", seen, version=row["version"], up_s=row["up_s"])]
    if row["up_s"] < 300:
        findings[0] = look("server", f"{seen}: it was restarted", "See in its log why.", up_s=row["up_s"])
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if row[name] == "off"]
    if off:
        findings.append(
            wrong(
                "durability",
                f"{' and '.join(off)} off: what was acknowledged may be lost",
                f"Set {', '.join(f'{name} = on' for name in off)}.",
            )
        )
    else:
        findings.append(ok("durability", f"fsync on, synchronous_commit {row['synchronous_commit']}"))
    return findings


async def _schema(session: Session, settings: Settings) -> list[Finding]:
    found = None
    if await session.value("SELECT to_regclass('alembic_version') IS NOT NULL"):
        found = await session.value("SELECT version_num FROM alembic_version")
    schema.check(found, session.place, schema.noted(await session.value(schema.READ_NOTE)))
    own = schema.REVISIONS[-1]
    if found == own:
        findings = [ok("schema", f"{found}, as this version of the service needs it", found=found)]
    else:
        said = f"{found}, later than {own} of this version of the service, and works with it"
        findings = [
            look("schema", said, "Expected during a rollout, and after going back to an earlier version.", found=found)
        ]
    there = {name for (name,) in await session.rows(partitions.PRESENT)}
    now_ms, ahead = ids.now_ms(), settings.database.partitions_ahead
    wanted = partitions.tables(now_ms, ahead)
    this_month = partitions.tables(now_ms, 0)
    lacking = sorted(wanted - there)
    if this_month - there:
        findings.append(
            look(
                "partitions",
                f"there is none for this month ({', '.join(this_month)}): its rows go to assessments_other",
                "Run `kyb migrate`.",
                lacking=lacking,
            )
        )
    elif lacking:
        findings.append(look("partitions", f"{', '.join(lacking)} not made yet", "Run `kyb migrate`.", lacking=lacking))
    else:
        findings.append(ok("partitions", f"{len(there) - 1} months, {ahead} of them ahead", lacking=[]))
    return findings


_QUESTIONS: Sequence[tuple[str, Any]] = (
    ("latency", _latency),
    ("server", _server),
    ("schema", _schema),
    ("activity", activity.states),
    ("transactions", activity.transactions),
    ("locks", activity.locks),
    ("connections", activity.connections),
    ("statements", statements.slow),
    ("size", space.database_size),
    ("tables", space.tables),
    ("transaction ids", space.transaction_ids),
    ("replication", space.replication),
)
