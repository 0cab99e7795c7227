"""What PostgreSQL keeps: sizes, dead rows and who cleans them up, and what standbys have not got yet."""

from __future__ import annotations

import datetime as dt
from typing import Any

import asyncpg

from app.doctor.findings import (
    Finding,
    by_measure,
    bytes_text,
    counted,
    judged,
    look,
    ok,
    share_text,
    time_text,
    wrong,
)
from app.doctor.session import Session
from app.settings import Settings

SHOWN = 8
DEAD_ROWS = 10_000
DEAD_SHARE = 0.25
LAG_S = (10.0, 300.0)
LAG_BYTES = (256e6, 4e9)
TRANSACTION_IDS = (1e9, 1.8e9)
"""Of the two thousand million after which the server takes no writes; autovacuum begins at 200 million."""

_TABLES = """\
SELECT relname, pg_total_relation_size(relid) AS bytes, n_live_tup AS live, n_dead_tup AS dead,
    greatest(last_autovacuum, last_vacuum) AS vacuumed, greatest(last_autoanalyze, last_analyze) AS analysed,
    count(*) OVER () AS tables, clock_timestamp() AS now
FROM pg_stat_user_tables WHERE schemaname = ANY(current_schemas(false))
ORDER BY 2 DESC, 1 LIMIT $1"""

_REPLICAS = """\
SELECT application_name, state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 AS behind,
    extract(epoch FROM replay_lag)::float8 AS lag_s
FROM pg_stat_replication ORDER BY 4 DESC NULLS FIRST LIMIT $1"""

_SLOTS = """\
SELECT slot_name, active, wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 AS kept
FROM pg_replication_slots WHERE NOT active ORDER BY 4 DESC NULLS LAST LIMIT $1"""

_STANDBY = """\
SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS lag_s,
    pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AS level"""


async def database_size(session: Session, _: Settings) -> list[Finding]:
    row = await session.row(
        "SELECT pg_database_size(current_database()) AS bytes, d.deadlocks, d.temp_bytes,"
        " d.blks_hit::float8 AS hits, d.blks_read::float8 AS reads, d.stats_reset"
        " FROM pg_stat_database d WHERE d.datname = current_database()"
    )
    asked = row["hits"] + row["reads"]
    return [
        ok(
            "size",
            f"{bytes_text(row['bytes'])}; {share_text(row['hits'], asked)} of its pages found in memory, "
            f"{counted(row['deadlocks'], 'deadlock')}, {bytes_text(row['temp_bytes'])} written to temporary files",
            bytes=row["bytes"],
            hit_rate=row["hits"] / asked if asked else None,
            deadlocks=row["deadlocks"],
            temp_bytes=row["temp_bytes"],
        )
    ]


async def tables(session: Session, _: Settings) -> list[Finding]:
    """The largest tables and partitions, and how they are cleaned up."""
    rows = await session.rows(_TABLES, SHOWN)
    findings = [_table(row) for row in rows]
    if rows and rows[0]["tables"] > len(rows):
        findings.append(ok("tables", f"{rows[0]['tables'] - len(rows):,} more, smaller than these"))
    # Found by its statistics; the table itself may be locked.
    other = await session.value(
        "SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass('assessments_other')"
    )
    if other:
        findings.append(
            look(
                "partitions",
                f"about {other:,} rows lie in assessments_other, which came before the partition of their month",
                "Run `kyb migrate`, which makes the partition and moves them.",
                rows=other,
            )
        )
    return findings


def _table(row: asyncpg.Record) -> Finding:
    live, dead = row["live"], row["dead"]
    neglected = dead >= DEAD_ROWS and dead >= DEAD_SHARE * (live + dead)
    return judged(
        f"table {row['relname']}",
        "look" if neglected else "ok",
        f"{bytes_text(row['bytes'])}, {counted(live, 'row')}, {dead:,} dead ({share_text(dead, live + dead)}), "
        f"{_since('vacuumed', row['vacuumed'], row['now'])}, {_since('analysed', row['analysed'], row['now'])}",
        f"Look for long transactions, which keep dead rows; else VACUUM (ANALYZE) {row['relname']}, and let autovacuum "
        "do more at a time (autovacuum_vacuum_cost_limit).",
        bytes=row["bytes"],
        live=live,
        dead=dead,
        vacuumed=row["vacuumed"] and row["vacuumed"].isoformat(),
        analysed=row["analysed"] and row["analysed"].isoformat(),
    )


def _since(done: str, at: dt.datetime | None, now: dt.datetime) -> str:
    return f"never {done}" if at is None else f"{done} {time_text(max(0.0, (now - at).total_seconds()))} ago"


async def transaction_ids(session: Session, _: Settings) -> list[Finding]:
    """How near the server is to the end of its transaction numbers, where it stops taking writes."""
    age = await session.value("SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
    return [
        judged(
            "transaction ids",
            by_measure(age, *TRANSACTION_IDS),
            f"{age:,} since the oldest that is not frozen; at 2,000,000,000 the server takes no more writes",
            "End what is open for long, and VACUUM (FREEZE) the oldest tables.",
            age=age,
        )
    ]


async def replication(session: Session, _: Settings) -> list[Finding]:
    """How far standbys are behind, and what is kept for those that are gone."""
    if await session.value("SELECT pg_is_in_recovery()"):
        row = await session.row(_STANDBY)
        lag_s = 0.0 if row["level"] else row["lag_s"] or 0.0
        return [
            judged(
                "replication",
                by_measure(lag_s, *LAG_S),
                f"this server is a standby, {time_text(lag_s)} behind",
                "Look at its load and at the network to the primary.",
                lag_s=lag_s,
            )
        ]
    rows = await session.rows(_REPLICAS, SHOWN)
    findings = [_replica(row) for row in rows] or [ok("replication", "no standby is connected")]
    for row in await session.rows(_SLOTS, SHOWN):
        kept = row["kept"] or 0.0
        verdict = by_measure(kept, *LAG_BYTES)
        lost = row["wal_status"] == "lost"
        findings.append(
            judged(
                f"replication slot {row['slot_name']}",
                "look" if lost and verdict == "ok" else verdict,
                f"nobody reads it, and the server keeps {bytes_text(kept)} of its log for it"
                + ("; what it needs is gone already" if lost else ""),
                f"Bring its standby back, or SELECT pg_drop_replication_slot('{row['slot_name']}').",
                kept_bytes=kept,
            )
        )
    return findings


def _replica(row: asyncpg.Record) -> Finding:
    about = f"standby {row['application_name']}"
    if row["state"] is None:
        return look(
            about,
            "how far it is behind is hidden from this user",
            "GRANT pg_monitor TO the user of the service, which lets it see and no more.",
        )
    behind, lag_s = row["behind"] or 0.0, row["lag_s"] or 0.0
    if row["state"] != "streaming":
        return wrong(
            about,
            f"{row['state']}, {bytes_text(behind)} behind",
            "Look at its log.",
            behind_bytes=behind,
        )
    figures: dict[str, Any] = {"behind_bytes": behind, "lag_s": lag_s, "sync": row["sync_state"]}
    verdict = max(by_measure(behind, *LAG_BYTES), by_measure(lag_s, *LAG_S), key=("ok", "look", "wrong").index)
    return judged(
        about,
        verdict,
        f"{row['sync_state']}, {bytes_text(behind)} and {time_text(lag_s)} behind",
        "Look at its load and at the network between.",
        **figures,
    )
