"""The schema of the SQLite file: what it is, whether a file has it, and how a file of an earlier version gets it."""

from __future__ import annotations

import sqlite3

from app.store.base import StoreRefused

APPLICATION_ID = 0x4B594253
SCHEMA_VERSION = 4

# A span is a stretch of ids: it holds those from its start to the start of the next. Business ids come in any order;
# an index over all of them touches a page of its own for every row, one within spans only the few pages of the newest.
# PERF: with 200,000 rows on file the plain index took 49 us and 34 kB of writes a row, this one 20 us and 12 kB. In
# return a search by business looks into every span, 2,500 of them in ten million rows.
SCHEMA = {
    "spans": """\
CREATE TABLE spans (
    span INTEGER PRIMARY KEY,
    start BLOB NOT NULL UNIQUE,
    first_row INTEGER NOT NULL
) STRICT""",
    "assessments": """\
CREATE TABLE assessments (
    tenant_id TEXT NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    business_id TEXT,
    span INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 2),
    score INTEGER NOT NULL,
    model_sha256 BLOB NOT NULL,
    input BLOB,
    record BLOB NOT NULL,
    input_sha256 BLOB,
    override_id BLOB,
    original_level INTEGER,
    original_decision INTEGER,
    leaf BLOB,
    CHECK ((input IS NULL) = (input_sha256 IS NOT NULL))
) STRICT""",
    "assessments_by_id": "CREATE UNIQUE INDEX assessments_by_id ON assessments (tenant_id, id)",
    # One index for level, decision and both: a level is three ranges of it, a decision four, merged by id.
    "assessments_by_outcome": "CREATE INDEX assessments_by_outcome ON assessments (tenant_id, level, decision, id)",
    "assessments_by_business": """\
CREATE INDEX assessments_by_business ON assessments (tenant_id, span, business_id, id, level, decision)
    WHERE business_id IS NOT NULL""",
    "idempotency": """\
CREATE TABLE idempotency (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status INTEGER NOT NULL,
    ids BLOB NOT NULL CHECK (length(ids) % 16 = 0),
    explain INTEGER NOT NULL,
    renderer INTEGER NOT NULL,
    answer_sha256 BLOB NOT NULL,
    request_id TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID""",
    "idempotency_by_created": "CREATE INDEX idempotency_by_created ON idempotency (created_ms)",
    "models": """\
CREATE TABLE models (
    sha256 BLOB PRIMARY KEY NOT NULL,
    model_id TEXT NOT NULL,
    version TEXT NOT NULL,
    definition BLOB NOT NULL
) STRICT""",
    "retentions": """\
CREATE TABLE retentions (
    tenant_id TEXT PRIMARY KEY NOT NULL,
    days INTEGER NOT NULL CHECK (days >= 1)
) STRICT, WITHOUT ROWID""",
    # ended_on: proleptic ordinal of the day, NULL while the relationship is ongoing.
    "relationships": """\
CREATE TABLE relationships (
    tenant_id TEXT NOT NULL,
    business_id TEXT NOT NULL,
    ended_on INTEGER,
    PRIMARY KEY (tenant_id, business_id)
) STRICT, WITHOUT ROWID""",
    "erasures": """\
CREATE TABLE erasures (
    erasure INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    business_sha256 BLOB NOT NULL,
    erased_ms INTEGER NOT NULL,
    assessments INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT""",
    "erasures_by_tenant": "CREATE INDEX erasures_by_tenant ON erasures (tenant_id, erased_ms)",
    # scopes, networks: JSON lists.
    "api_keys": """\
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT,
    digest BLOB NOT NULL,
    networks TEXT NOT NULL,
    tier TEXT,
    rate TEXT,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER,
    last_used_ms INTEGER,
    replaces TEXT
) STRICT, WITHOUT ROWID""",
    "api_keys_by_tenant": "CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_ms)",
    "overrides": """\
CREATE TABLE overrides (
    tenant_id TEXT NOT NULL,
    assessment_id BLOB NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 2),
    reason TEXT,
    actor TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('applied', 'pending', 'approved')),
    approver TEXT,
    approved_ms INTEGER,
    PRIMARY KEY (tenant_id, assessment_id, id)
) STRICT, WITHOUT ROWID""",
    "audit_entries": """\
CREATE TABLE audit_entries (
    tenant_id TEXT NOT NULL,
    segment BLOB NOT NULL CHECK (length(segment) = 16),
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    act TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail BLOB NOT NULL,
    subjects BLOB NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT""",
    "audit_entries_by_segment": """\
CREATE UNIQUE INDEX audit_entries_by_segment ON audit_entries (tenant_id, segment, number)""",
    "audit_entries_by_time": """\
CREATE INDEX audit_entries_by_time ON audit_entries (tenant_id, at_ms, segment, number)""",
    # What a person asks for is seldom one of the many group commits.
    "audit_acts_by_time": """\
CREATE INDEX audit_acts_by_time ON audit_entries (tenant_id, at_ms, segment, number)
    WHERE act <> 'assessment.recorded'""",
    "audit_checkpoints": """\
CREATE TABLE audit_checkpoints (
    tenant_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    heads BLOB NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (tenant_id, number)
) STRICT, WITHOUT ROWID""",
    # Which number of a segment the checkpoints cover, so that it is found without reading them all.
    "audit_heads": """\
CREATE TABLE audit_heads (
    tenant_id TEXT NOT NULL,
    segment BLOB NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, segment)
) STRICT, WITHOUT ROWID""",
    # The greatest number of each list that there ever was; in force where a version of that number is there.
    "watchlists": """\
CREATE TABLE watchlists (
    name TEXT PRIMARY KEY NOT NULL,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    # validators: JSON.
    "watchlist_versions": """\
CREATE TABLE watchlist_versions (
    name TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    format TEXT NOT NULL,
    published TEXT,
    content_sha256 BLOB NOT NULL,
    snapshot BLOB NOT NULL,
    size INTEGER NOT NULL,
    engine INTEGER NOT NULL,
    entities INTEGER NOT NULL,
    names INTEGER NOT NULL,
    added_ms INTEGER NOT NULL,
    checked_ms INTEGER NOT NULL,
    validators BLOB NOT NULL,
    PRIMARY KEY (name, number)
) STRICT, WITHOUT ROWID""",
    # The large column last: the others are read without it.
    "watchlist_parts": """\
CREATE TABLE watchlist_parts (
    snapshot BLOB NOT NULL CHECK (length(snapshot) = 32),
    part INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (snapshot, part)
) STRICT""",
    "rescreenings": """\
CREATE TABLE rescreenings (
    name TEXT PRIMARY KEY NOT NULL,
    base INTEGER NOT NULL,
    target INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    before_id BLOB,
    compared INTEGER NOT NULL,
    recorded INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    "screened_against": """\
CREATE TABLE screened_against (
    digest BLOB PRIMARY KEY NOT NULL CHECK (length(digest) = 16),
    lists BLOB NOT NULL
) STRICT, WITHOUT ROWID""",
    "dispositions": """\
CREATE TABLE dispositions (
    tenant_id TEXT NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    business BLOB NOT NULL,
    business_id TEXT,
    assessment_id BLOB NOT NULL CHECK (length(assessment_id) = 16),
    list TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    entity_digest BLOB NOT NULL,
    matched_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT,
    actor TEXT NOT NULL,
    ended_ms INTEGER,
    ended_by TEXT,
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID""",
    "dispositions_by_business": """\
CREATE INDEX dispositions_by_business ON dispositions (tenant_id, business, id) WHERE ended_ms IS NULL""",
    "dispositions_in_force": """\
CREATE UNIQUE INDEX dispositions_in_force ON dispositions (tenant_id, business, list, entity_id, entity_digest)
    WHERE ended_ms IS NULL""",
    "dispositions_by_business_id": """\
CREATE INDEX dispositions_by_business_id ON dispositions (tenant_id, business_id, id)
    WHERE business_id IS NOT NULL""",
    # Nothing of the service changes or deletes any of these.
    **{
        f"{table}_refuse_{change.lower()}": f"""\
CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table}
BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END"""
        for table in ("audit_entries", "audit_checkpoints")
        for change in ("UPDATE", "DELETE")
    },
}

# What each version brought, and the tables as the earlier ones had them.
_NEW_IN = {
    2: ("idempotency", "idempotency_by_created", "retentions", "relationships", "erasures", "erasures_by_tenant"),
    3: (
        "api_keys",
        "api_keys_by_tenant",
        "overrides",
        "audit_entries",
        "audit_entries_by_segment",
        "audit_entries_by_time",
        "audit_acts_by_time",
        "audit_checkpoints",
        "audit_heads",
    ),
    4: (
        "watchlists",
        "watchlist_versions",
        "watchlist_parts",
        "rescreenings",
        "screened_against",
        "dispositions",
        "dispositions_by_business",
        "dispositions_in_force",
        "dispositions_by_business_id",
        "audit_entries_refuse_update",
        "audit_entries_refuse_delete",
        "audit_checkpoints_refuse_update",
        "audit_checkpoints_refuse_delete",
    ),
}
_EARLIER: dict[int, dict[str, str]] = {
    1: {
        "assessments": """\
CREATE TABLE assessments (
    tenant_id TEXT NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    business_id TEXT,
    span INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 2),
    score INTEGER NOT NULL,
    model_sha256 BLOB NOT NULL,
    input BLOB NOT NULL,
    record BLOB NOT NULL
) STRICT"""
    },
    2: {
        "assessments": """\
CREATE TABLE assessments (
    tenant_id TEXT NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    business_id TEXT,
    span INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 2),
    score INTEGER NOT NULL,
    model_sha256 BLOB NOT NULL,
    input BLOB,
    record BLOB NOT NULL,
    input_sha256 BLOB,
    CHECK ((input IS NULL) = (input_sha256 IS NOT NULL))
) STRICT"""
    },
    3: {
        "api_keys": """\
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT,
    digest BLOB NOT NULL,
    networks TEXT NOT NULL,
    tier TEXT,
    rate TEXT,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER,
    last_used_ms INTEGER
) STRICT, WITHOUT ROWID"""
    },
}


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file holds no tables at all."""
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None


def create(connection: sqlite3.Connection) -> None:
    """Make all tables in an empty file, within the transaction that is open."""
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute("INSERT INTO spans (start, first_row) VALUES (x'', 1)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check(connection: sqlite3.Connection, path: str) -> None:
    """Prove that the file has the schema of this version. Raises StoreRefused."""
    version = known_version(connection, path)
    if version < SCHEMA_VERSION:
        raise StoreRefused(_older(path, version), "Run `kyb migrate`.")
    _refuse_changed(connection, path, SCHEMA)


def upgrade(connection: sqlite3.Connection, path: str) -> int:
    """Bring an earlier version to this one within the transaction that is open; the version found.

    Raises StoreRefused. The connection must be closed afterwards: it still knows the table as it was.
    """
    version = known_version(connection, path)
    if version == SCHEMA_VERSION:
        return version
    new = [name for since, names in _NEW_IN.items() if since > version for name in names]
    kept = {name: statement for name, statement in SCHEMA.items() if name not in new}
    earlier = _EARLIER.get(version, {})
    _refuse_changed(connection, path, {**kept, **earlier})
    if version == 1:
        # Their answers were not kept, so nothing could tell whether one was rendered again as it was.
        connection.execute("DROP TABLE idempotency")
    for name in new:
        connection.execute(SCHEMA[name])
    # Columns more at the end and a NOT NULL less leave the rows as they stand in the file, however many there are; so
    # a table's text is changed as https://www.sqlite.org/lang_altertable.html describes. The statements above have
    # already raised the number by which other connections notice a new schema.
    connection.execute("PRAGMA writable_schema = ON")
    for name in earlier:
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (SCHEMA[name], name))
    connection.execute("PRAGMA writable_schema = OFF")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return version


def known_version(connection: sqlite3.Connection, path: str) -> int:
    """The version of the file's schema, 1 or later. Raises StoreRefused for one that this service cannot bring up."""
    application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise StoreRefused(f"The database {path} belongs to another program.", "Give the path of another file.")
    if version > SCHEMA_VERSION:
        raise StoreRefused(
            f"The database {path} has schema {version}, and this version of the service knows {SCHEMA_VERSION}.",
            "Start the version that wrote it or a later one, or restore a backup from before.",
        )
    if version < 1:
        raise StoreRefused(
            _older(path, version), "Start the version that wrote it, or restore a backup with the present schema."
        )
    return version


def _older(path: str, version: int) -> str:
    return f"The database {path} has schema {version}, older than {SCHEMA_VERSION} of this version of the service."


def _refuse_changed(connection: sqlite3.Connection, path: str, expected: dict[str, str]) -> None:
    """Raises StoreRefused when a table, an index or a trigger is not there exactly so."""
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    changed = [name for name, sql in expected.items() if found.get(name) != sql]
    if changed:
        raise StoreRefused(
            f"In the database {path} tables, indexes or triggers are missing or were changed: {', '.join(changed)}.",
            "Restore it from a backup.",
        )
