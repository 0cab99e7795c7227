"""Keys, overrides, and the audit trail.

An entry of the trail is read by its segment, to be verified, and by its time; what is no group commit is found among
the many that are by an index of its own. Which segment and number a checkpoint covers stands in a table of its own, so
that it is found without reading every checkpoint.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES = """\
ALTER TABLE assessments
    ADD COLUMN override_id uuid,
    ADD COLUMN original_level smallint,
    ADD COLUMN original_decision smallint,
    ADD COLUMN leaf bytea;

CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    scopes text[],
    digest bytea NOT NULL,
    networks text[] NOT NULL,
    tier text,
    rate text,
    created_ms bigint NOT NULL,
    created_by text NOT NULL,
    expires_ms bigint,
    revoked_ms bigint,
    last_used_ms bigint
);

CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_ms);

CREATE TABLE overrides (
    tenant_id text COLLATE "C" NOT NULL,
    assessment_id uuid NOT NULL,
    id uuid NOT NULL,
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision smallint NOT NULL CHECK (decision BETWEEN 0 AND 2),
    reason text,
    actor text NOT NULL,
    state text NOT NULL CHECK (state IN ('applied', 'pending', 'approved')),
    approver text,
    approved_ms bigint,
    PRIMARY KEY (tenant_id, assessment_id, id)
);

CREATE TABLE audit_entries (
    tenant_id text COLLATE "C" NOT NULL,
    segment uuid NOT NULL,
    number bigint NOT NULL,
    at_ms bigint NOT NULL,
    act text NOT NULL,
    actor text NOT NULL,
    detail bytea NOT NULL,
    subjects bytea NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, segment, number)
);

CREATE INDEX audit_entries_by_time ON audit_entries (tenant_id, at_ms, segment, number);

CREATE INDEX audit_acts_by_time ON audit_entries (tenant_id, at_ms, segment, number)
    WHERE act <> 'assessment.recorded';

CREATE TABLE audit_checkpoints (
    tenant_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    at_ms bigint NOT NULL,
    entries bigint NOT NULL,
    heads bytea NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (tenant_id, number)
);

CREATE TABLE audit_heads (
    tenant_id text COLLATE "C" NOT NULL,
    segment uuid NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (tenant_id, segment)
);
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
