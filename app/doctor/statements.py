"""The slowest statements, from pg_stat_statements."""

from __future__ import annotations

from app.doctor.activity import HIDDEN
from app.doctor.findings import Finding, judged, look, ok, time_text
from app.doctor.masking import masked
from app.doctor.session import MARK, Session
from app.settings import Settings

SHOWN = 5
CALLS = 5
"""Fewer calls of a statement say little of the next: those of a migration, of a person."""

_AVAILABLE = """\
SELECT (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'pg_stat_statements') AS schema,
    EXISTS (SELECT 1 FROM pg_settings WHERE name = 'pg_stat_statements.max') AS loaded,
    EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements') AS available"""

_SLOWEST = """\
SELECT query, calls, mean_exec_time / 1000 AS mean_s, total_exec_time / 1000 AS total_s, max_exec_time / 1000 AS most_s
FROM {schema}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query IS NOT NULL AND query <> $2 AND query NOT LIKE $3
ORDER BY calls >= $4 DESC, mean_exec_time DESC LIMIT $1"""

_LOAD = "add pg_stat_statements to the server's shared_preload_libraries and restart it"
_CREATE = "run CREATE EXTENSION pg_stat_statements in this database as its administrator"


async def slow(session: Session, settings: Settings) -> list[Finding]:
    """The statements that take longest on average, or how to learn of them."""
    about = "slow statements"
    there = await session.row(_AVAILABLE)
    if not there["available"]:
        return [look(about, "not known: the server lacks pg_stat_statements", "Install PostgreSQL's contrib modules.")]
    steps = ([] if there["loaded"] else [_LOAD]) + ([] if there["schema"] else [_CREATE])
    if steps:
        what = "not in this database" if there["loaded"] else "not loaded"
        remedy = ", then ".join(steps)
        return [look(about, f"not known: pg_stat_statements is {what}", f"{remedy[0].upper()}{remedy[1:]}.")]
    rows = await session.rows(_SLOWEST.format(schema=there["schema"]), SHOWN, HIDDEN, f"SELECT {MARK}%", CALLS)
    if not rows:
        return [ok(about, "none on record of those that this user may see")]
    slow_s = settings.breaker.slow_call
    return [
        judged(
            "slow statement",
            "look" if row["mean_s"] >= slow_s and row["calls"] >= CALLS else "ok",
            f"{time_text(row['mean_s'])} on average, {time_text(row['most_s'])} at most, {row['calls']:,} "
            f"call{'s' if row['calls'] != 1 else ''}, {time_text(row['total_s'])} in all: {masked(row['query'])}",
            "Look at its EXPLAIN (ANALYZE, BUFFERS), whether its tables were vacuumed and analysed, and what waits.",
            mean_s=row["mean_s"],
            most_s=row["most_s"],
            calls=row["calls"],
            total_s=row["total_s"],
            statement=masked(row["query"], 4000),
        )
        for row in rows
    ]
