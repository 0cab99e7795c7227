"""The SQLite file as earlier versions of the service made it: the statements, in order."""

from __future__ import annotations

from app.store.sqlite_schema import APPLICATION_ID

VERSION_1 = [
    """\
CREATE TABLE spans (
    span INTEGER PRIMARY KEY,
    start BLOB NOT NULL UNIQUE,
    first_row INTEGER NOT NULL
) STRICT""",
    """\
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
) STRICT""",
    "CREATE UNIQUE INDEX assessments_by_id ON assessments (tenant_id, id)",
    "CREATE INDEX assessments_by_outcome ON assessments (tenant_id, level, decision, id)",
    """\
CREATE INDEX assessments_by_business ON assessments (tenant_id, span, business_id, id, level, decision)
    WHERE business_id IS NOT NULL""",
    """\
CREATE TABLE idempotency (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    assessment_id BLOB NOT NULL,
    PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID""",
    """\
CREATE TABLE models (
    sha256 BLOB PRIMARY KEY NOT NULL,
    model_id TEXT NOT NULL,
    version TEXT NOT NULL,
    definition BLOB NOT NULL
) STRICT""",
    "INSERT INTO spans (start, first_row) VALUES (x'', 1)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    "PRAGMA user_version = 1",
]
"""A file as version 1 made it."""

VERSION_2 = [
    VERSION_1[0],
    """\
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
) STRICT""",
    *VERSION_1[2:5],
    """\
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
    "CREATE INDEX idempotency_by_created ON idempotency (created_ms)",
    VERSION_1[6],
    """\
CREATE TABLE retentions (
    tenant_id TEXT PRIMARY KEY NOT NULL,
    days INTEGER NOT NULL CHECK (days >= 1)
) STRICT, WITHOUT ROWID""",
    """\
CREATE TABLE relationships (
    tenant_id TEXT NOT NULL,
    business_id TEXT NOT NULL,
    ended_on INTEGER,
    PRIMARY KEY (tenant_id, business_id)
) STRICT, WITHOUT ROWID""",
    """\
CREATE TABLE erasures (
    erasure INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    business_sha256 BLOB NOT NULL,
    erased_ms INTEGER NOT NULL,
    assessments INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT""",
    "CREATE INDEX erasures_by_tenant ON erasures (tenant_id, erased_ms)",
    *VERSION_1[7:9],
    "PRAGMA user_version = 2",
]
"""A file as version 2 made it."""

VERSION_3 = [
    VERSION_2[0],
    """\
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
    *VERSION_2[2:12],
    """\
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
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_ms)",
    """\
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
    """\
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
    "CREATE UNIQUE INDEX audit_entries_by_segment ON audit_entries (tenant_id, segment, number)",
    "CREATE INDEX audit_entries_by_time ON audit_entries (tenant_id, at_ms, segment, number)",
    """\
CREATE INDEX audit_acts_by_time ON audit_entries (tenant_id, at_ms, segment, number)
    WHERE act <> 'assessment.recorded'""",
    """\
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
    """\
CREATE TABLE audit_heads (
    tenant_id TEXT NOT NULL,
    segment BLOB NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, segment)
) STRICT, WITHOUT ROWID""",
    *VERSION_1[7:9],
    "PRAGMA user_version = 3",
]
"""A file as version 3 made it."""
