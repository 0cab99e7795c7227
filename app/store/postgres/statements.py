"""The SQL of the store. Rows travel as one array a column: one statement, whatever their number."""

from __future__ import annotations

from functools import cache

from app.store.base import DECISIONS, LEVELS

COLUMNS = (
    "tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256,"
    " override_id, original_level, original_decision, leaf"
)

_ADDED = "tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record"
_ARRAYS = (
    "$1::text[], $2::uuid[], $3::text[], $4::integer[], $5::smallint[], $6::smallint[], $7::smallint[],"
    " $8::bytea[], $9::bytea[], $10::bytea[]"
)

ENTRY = "tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash"
_ENTRY_TYPES = ("text", "uuid", "bigint", "bigint", "text", "text", "bytea", "bytea", "bytea", "bytea")

RECEIPT = "tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms"
_RECEIPT_ARRAYS = (
    "$21::text[], $22::text[], $23::bytea[], $24::smallint[], $25::bytea[], $26::smallint[], $27::smallint[],"
    " $28::bytea[], $29::text[], $30::integer[], $31::bigint[]"
)


@cache
def enter(alone: bool, first: int = 1) -> str:
    """The insertion of entries of the trail, from the parameter of that number. alone: of one, not of arrays.

    PERF: of one, as almost every commit has, it saves 28 us of the 220 that a lone row takes.
    """
    marks = ", ".join(f"${n}::{kind}{'' if alone else '[]'}" for n, kind in enumerate(_ENTRY_TYPES, first))
    return f"INSERT INTO audit_entries ({ENTRY}) {f'VALUES ({marks})' if alone else f'SELECT * FROM unnest({marks})'}"


@cache
def add(keyed: bool, alone: bool) -> str:
    """The insertion of rows together with the entries of the trail that tell of them, and of receipts where keyed.

    The entries tell of all rows, so where a key is taken nothing may be recorded: then it divides by zero, before any
    row is inserted. Parameters: the columns of the rows, the entries as `enter` takes them, the columns of the
    receipts, and how long these are kept.
    """
    rows = f"INSERT INTO assessments ({_ADDED}) SELECT * FROM unnest({_ARRAYS})"
    if not keyed:
        return f"WITH added AS ({rows}) {enter(alone, 11)}"
    # Keys are claimed in their order, so that two writers who want the same cannot wait for each other in a circle.
    return f"""\
WITH held AS (
    INSERT INTO idempotency AS i ({RECEIPT})
    SELECT * FROM unnest({_RECEIPT_ARRAYS}) ORDER BY 1, 2
    ON CONFLICT (tenant_id, key) DO UPDATE SET
        ({RECEIPT}) = ROW ({", ".join(f"EXCLUDED.{name}" for name in RECEIPT.split(", "))})
        WHERE i.created_ms < EXCLUDED.created_ms - $32::bigint
    RETURNING 1
), added AS ({rows}), entered AS ({enter(alone, 11)})
SELECT 1 / (count(*) = cardinality($21::text[]))::integer FROM held"""


RECEIPTS = f"""\
SELECT i.* FROM unnest($1::text[], $2::text[]) AS q (tenant_id, key)
CROSS JOIN LATERAL (
    SELECT {RECEIPT} FROM idempotency i WHERE i.tenant_id = q.tenant_id AND i.key = q.key LIMIT 1
) i"""

DROP_RECEIPTS = """\
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_ms < $1 ORDER BY created_ms LIMIT $2 FOR UPDATE SKIP LOCKED))"""

GET = f"""\
SELECT a.* FROM unnest($1::text[], $2::uuid[]) AS q (tenant_id, id)
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM assessments a
    WHERE a.tenant_id = q.tenant_id AND a.id = q.id AND a.id BETWEEN $3 AND $4 LIMIT 1
) a"""
"""The rows of these ids. $3 and $4, the least and the greatest of them, tell the planner their months: without, it
looks at every partition each time where statements are not kept prepared."""

EDGES = """\
SELECT (SELECT id FROM assessments WHERE tenant_id = $1 ORDER BY id LIMIT 1),
       (SELECT id FROM assessments WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1)"""
"""The tenant's first and last id."""

SAVE_MODEL = """\
INSERT INTO models (sha256, model_id, version, definition) VALUES ($1, $2, $3, $4) ON CONFLICT (sha256) DO NOTHING"""
MODEL = "SELECT definition FROM models WHERE sha256 = $1"
MODELS = "SELECT sha256, model_id, version FROM models ORDER BY model_id, version, sha256"

PULSE = "INSERT INTO pulse (place, at) VALUES ($1, now()) ON CONFLICT (place) DO UPDATE SET at = EXCLUDED.at"


@cache
def page(by_business: bool, by_level: bool, by_decision: bool) -> str:
    """The query of a page within one month, newest first.

    Parameters: tenant, low <= id < high, limit; with a business also it, first <= span <= last and the month's own
    low <= id < high; then level and decision where they are filtered by.
    """
    found = f"SELECT {COLUMNS} FROM assessments a"
    if by_business:
        after = iter((10, 11))
        return f"""\
WITH RECURSIVE s (span) AS (
    SELECT (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND span BETWEEN $6 AND $7 ORDER BY span DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND a.span < s.span AND a.span >= $6 ORDER BY a.span DESC LIMIT 1) FROM s WHERE s.span IS NOT NULL
)
SELECT p.* FROM s CROSS JOIN LATERAL (
    {found} WHERE tenant_id = $1 AND a.span = s.span AND business_id = $5 AND id >= $2 AND id < $3
    {f"AND level = ${next(after)}" if by_level else ""} {f"AND decision = ${next(after)}" if by_decision else ""}
    ORDER BY id DESC LIMIT $4
) p WHERE s.span IS NOT NULL ORDER BY p.id DESC LIMIT $4"""
    if not by_level and not by_decision:
        return f"{found} WHERE tenant_id = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4"
    after = iter((5, 6))
    levels = [f"${next(after)}"] if by_level else LEVELS
    decisions = [f"${next(after)}"] if by_decision else DECISIONS
    ranges = [
        f"({found} WHERE tenant_id = $1 AND level = {level} AND decision = {decision} AND id >= $2 AND id < $3"
        " ORDER BY id DESC LIMIT $4)"
        for level in levels
        for decision in decisions
    ]
    return f"SELECT * FROM ({' UNION ALL '.join(ranges)}) a ORDER BY id DESC LIMIT $4"
