"""Who is connected to PostgreSQL, for how long, and who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from app.doctor.findings import (
    Finding,
    Verdict,
    by_measure,
    by_share,
    counted,
    judged,
    look,
    ok,
    share_text,
    time_text,
    wrong,
)
from app.doctor.masking import masked
from app.doctor.session import Session
from app.settings import Settings
from app.settings.budget import KEPT_BACK, BudgetTooSmall, database_share

Row = asyncpg.Record

SHOWN = 5
LONG_TRANSACTION_S = (60.0, 1800.0)
"""From when an open transaction is to be looked at, and from when it is wrong: no row that died since is cleaned up."""
IDLE_TRANSACTION_S = (5.0, 60.0)
"""The same for one in which nothing is done."""
WAITED_S = 1.0
PREPARED_S = 300.0

HIDDEN = "<insufficient privilege>"
"""What stands for the statement of another user's session."""

_STATES = """\
SELECT CASE WHEN query = $1 THEN 'hidden' ELSE coalesce(state, 'starting') END AS state, count(*) AS sessions
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1 ORDER BY 2 DESC, 1"""  # noqa: E501

_TRANSACTIONS = """\
SELECT pid, state, application_name, client_addr::text AS client, query, backend_type,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS open_s,
    extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_s
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    AND backend_type = 'client backend'
ORDER BY xact_start LIMIT $1"""

_PREPARED = """\
SELECT count(*) AS transactions, extract(epoch FROM max(clock_timestamp() - prepared))::float8 AS oldest_s
FROM pg_prepared_xacts WHERE database = current_database()"""

_WAITING = """\
SELECT l.pid, l.mode, l.locktype, c.relname, a.application_name, a.client_addr::text AS client, a.query,
    array_to_string(pg_blocking_pids(l.pid), ' ') AS blockers,
    extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.state_change))::float8 AS waited_s,
    count(*) OVER () AS waiting
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_class c ON c.oid = l.relation
WHERE NOT l.granted AND (a.datname = current_database() OR a.datname IS NULL)
ORDER BY waited_s DESC NULLS LAST LIMIT $1"""

_BLOCKERS = """\
SELECT pid, state, application_name, client_addr::text AS client, query,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS open_s,
    extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_s
FROM pg_stat_activity WHERE pid = ANY(string_to_array($1, ' ')::int[])"""

_CONNECTIONS = """\
SELECT count(*) FILTER (WHERE coalesce(backend_type, 'client backend') = 'client backend') AS used,
    count(*) FILTER (WHERE datname = current_database() AND application_name = 'kyb') AS service,
    current_setting('max_connections')::int AS most,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved
FROM pg_stat_activity WHERE datid IS NOT NULL"""


async def states(session: Session, _: Settings) -> list[Finding]:
    """How many sessions there are in each state."""
    found = {row["state"]: row["sessions"] for row in await session.rows(_STATES, HIDDEN)}
    hidden = found.pop("hidden", 0)
    seen = ", ".join(f"{count:,} {state}" for state, count in found.items()) or "no other session"
    stuck = found.get("idle in transaction (aborted)", 0)
    findings = [
        judged(
            "activity",
            "look" if stuck else "ok",
            seen,
            "Look for the program that goes on in a transaction that has failed.",
            **{state.replace(" ", "_"): count for state, count in found.items()},
        )
    ]
    if hidden:
        findings.append(
            look(
                "activity of others",
                f"{counted(hidden, 'session')} of other users, of which this one sees no more than that",
                "GRANT pg_monitor TO the user of the service, which lets it see and no more.",
                hidden=hidden,
            )
        )
    return findings


async def transactions(session: Session, settings: Settings) -> list[Finding]:
    """The transactions that are open for longest, one that is prepared and waits for its end among them."""
    rows = await session.rows(_TRANSACTIONS, SHOWN)
    findings = [finding for finding in map(_transaction, rows) if finding.verdict != "ok"]
    if not findings:
        longest_s = max((row["open_s"] for row in rows), default=0.0)
        seen = f"the longest is open for {time_text(longest_s)}" if rows else "none is open"
        findings.append(ok("transactions", seen, longest_s=longest_s))
    prepared = await session.row(_PREPARED)
    if prepared["transactions"] and prepared["oldest_s"] >= PREPARED_S:
        findings.append(
            wrong(
                "prepared transactions",
                f"{prepared['transactions']} keep their locks, the oldest for {time_text(prepared['oldest_s'])}",
                "End it: see pg_prepared_xacts, then ROLLBACK PREPARED or COMMIT PREPARED.",
                oldest_s=prepared["oldest_s"],
            )
        )
    return findings


def _transaction(row: Row) -> Finding:
    idle = row["state"].startswith("idle")
    verdict = by_measure(row["open_s"], *LONG_TRANSACTION_S)
    if idle and (of_idle := by_measure(row["state_s"], *IDLE_TRANSACTION_S)) != "ok":
        verdict = "wrong" if "wrong" in (verdict, of_idle) else of_idle
    return judged(
        "transaction",
        verdict,
        f"{_session(row)} is open for {time_text(row['open_s'])}, {_doing(row)}",
        f"Find out what that program waits for, or end it: SELECT pg_terminate_backend({row['pid']}).",
        pid=row["pid"],
        open_s=row["open_s"],
        state=row["state"],
        client=row["client"],
        application=row["application_name"],
    )


async def locks(session: Session, settings: Settings) -> list[Finding]:
    """Who waits for a lock, for how long, and who holds it."""
    rows = await session.rows(_WAITING, SHOWN)
    if not rows:
        return [ok("locks", "nobody waits for one", waiting=0)]
    pids = {pid for row in rows for pid in _pids(row)}
    holders = {row["pid"]: row for row in await session.rows(_BLOCKERS, " ".join(map(str, pids)))}
    waiting = {row["pid"] for row in rows}
    limit_s = max(WAITED_S, settings.database.lock_timeout)
    findings = [_wait(row, holders, waiting, limit_s) for row in rows]
    if rows[0]["waiting"] > len(rows):
        more = rows[0]["waiting"] - len(rows)
        findings.append(
            look("lock", f"{counted(more, 'session')} more, waiting for less long", "Begin with those above.")
        )
    return findings


def _wait(row: Row, holders: Mapping[int, Row], waiting: set[int], limit_s: float) -> Finding:
    waited_s = row["waited_s"] or 0.0
    verdict: Verdict = "wrong" if waited_s >= limit_s else "look"
    ends = [pid for pid in _pids(row) if pid and pid not in waiting]
    held = " and ".join(_holder(pid, holders, waiting) for pid in _pids(row)) or "somebody who just let it go"
    end = " or ".join(f"SELECT pg_terminate_backend({pid})" for pid in ends)
    return Finding(
        "lock",
        verdict,
        f"{_session(row)} waits for {time_text(waited_s)} for {_locked(row)}, held by {held}; "
        f"it wants to: {masked(row['query'])}",
        f"Let the holder finish, or end it: {end}." if end else "Begin with what the holder itself waits for.",
        {
            "pid": row["pid"],
            "waited_s": waited_s,
            "mode": row["mode"],
            "relation": row["relname"],
            "blockers": _pids(row),
        },
    )


def _pids(row: Row) -> list[int]:
    # As text, since the driver would first ask the server what an array is.
    return [int(pid) for pid in row["blockers"].split()]


def _holder(pid: int, holders: Mapping[int, Row], waiting: set[int]) -> str:
    if pid == 0:
        return "a prepared transaction (see pg_prepared_xacts)"
    row = holders.get(pid)
    if row is None:
        return f"pid {pid}, which has ended"
    if pid in waiting:
        return f"{_session(row)}, which itself waits"
    return f"{_session(row)}, {_doing(row)}"


def _locked(row: Row) -> str:
    if row["relname"] is not None:
        kind = "a row of " if row["locktype"] == "tuple" else ""
        return f"{kind}{row['relname']} ({row['mode']})"
    return {"transactionid": "a row that another transaction wrote", "advisory": "an advisory lock"}.get(
        row["locktype"], f"a lock of kind {row['locktype']}"
    )


def _session(row: Row) -> str:
    named = [row["application_name"] or ""]
    if row.get("client"):
        named.append(f"at {row['client'].partition('/')[0]}")
    inside = " ".join(filter(None, named))
    return f"pid {row['pid']} ({inside})" if inside else f"pid {row['pid']}"


def _doing(row: Row) -> str:
    """What a session does, or did last."""
    if row["state"] is None or row["query"] == HIDDEN:
        return "and what it does is hidden from this user"
    if row["state"] == "active":
        return f"at work on: {masked(row['query'])}"
    return f"{row['state']} for {time_text(row['state_s'])}, last: {masked(row['query'])}"


async def connections(session: Session, settings: Settings) -> list[Finding]:
    """The server's connections, and whether the fleet's share of them is within."""
    row = await session.row(_CONNECTIONS)
    # Ourselves aside.
    used, most, reserved = row["used"] - 1, row["most"], row["reserved"]
    free_for_all = most - reserved
    findings = [
        judged(
            "connections",
            by_share(used, free_for_all, 0.8, 0.95),
            f"{used:,} of {free_for_all:,} in use ({share_text(used, free_for_all)}); max_connections {most:,}, "
            f"{reserved:,} of them reserved",
            "End programs that do not need theirs, lower DB_MAX_CONNECTIONS, put PgBouncer between, "
            "or raise max_connections.",
            used=used,
            most=most,
            reserved=reserved,
        )
    ]
    return findings + _budget(settings, row["service"], most, free_for_all)


def _budget(settings: Settings, held: int, most: int, free_for_all: int) -> list[Finding]:
    database, replicas, workers = settings.database, settings.scaling.max_replicas or 1, settings.server.workers
    try:
        share = database_share(settings).connections
    except BudgetTooSmall as small:
        return [wrong("budget", str(small), "Give one of these.")]
    if database.pooler == "pgbouncer":
        # Its console tells the rest.
        return [ok("budget", f"PgBouncer holds it; a worker has at most {share} connections to it", share=share)]
    fleet = share * replicas * workers
    seen = (
        f"{held:,} of at most {fleet:,} held by the service ({share} a worker, {counted(workers, 'worker')}, "
        f"{counted(replicas, 'replica')}), of DB_MAX_CONNECTIONS {database.max_connections:,} less {KEPT_BACK}"
    )
    figures = {"held": held, "fleet": fleet, "share": share, "max_connections": database.max_connections}
    if fleet > free_for_all:
        remedy = (
            f"Lower DB_MAX_CONNECTIONS to {free_for_all + KEPT_BACK} at most, or raise max_connections of the server."
        )
        return [wrong("budget", f"{seen}: more than the server's {free_for_all:,}", remedy, **figures)]
    if database.max_connections > most:
        remedy = f"Lower DB_MAX_CONNECTIONS to {most} at most, or raise max_connections of the server."
        return [look("budget", f"{seen}: more than the server has", remedy, **figures)]
    if held > fleet:
        remedy = "Raise MAX_REPLICAS to what runs, or look for services that run with other settings."
        return [look("budget", f"{seen}: more than it should", remedy, **figures)]
    return [ok("budget", seen, **figures)]
