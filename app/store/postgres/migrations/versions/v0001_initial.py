"""The tables of the first version.

Every key leads with tenant_id, so that the tables can be distributed by it. Assessments are partitioned by month: a
UUIDv7 begins with its time, so a month is a range of ids, and an id tells its partition.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

# An input and its record have 2 kB together. Compressing that costs more than writing it.
_TABLES = """\
CREATE TABLE assessments (
    tenant_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    business_id text COLLATE "C",
    span integer NOT NULL,
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision smallint NOT NULL CHECK (decision BETWEEN 0 AND 2),
    score smallint NOT NULL,
    model_sha256 bytea NOT NULL,
    input bytea STORAGE EXTERNAL,
    record bytea STORAGE EXTERNAL NOT NULL,
    input_sha256 bytea,
    PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);

CREATE INDEX assessments_by_outcome ON assessments (tenant_id, level, decision, id);

-- Business ids come in any order. An index over all of them touches a page of its own for every row, and after each
-- checkpoint writes all of it to the log; within spans only the few pages of the newest are touched.
CREATE INDEX assessments_by_business ON assessments (tenant_id, span, business_id, id, level, decision)
    WHERE business_id IS NOT NULL;

-- A row of a month that has no partition yet is kept, not refused.
CREATE TABLE assessments_other PARTITION OF assessments DEFAULT WITH (toast_tuple_target = 8160);

CREATE TABLE idempotency (
    tenant_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    ids bytea NOT NULL,
    explain smallint NOT NULL,
    renderer smallint NOT NULL,
    answer_sha256 bytea NOT NULL,
    request_id text NOT NULL,
    as_of integer NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

CREATE INDEX idempotency_by_age ON idempotency (created_ms);

CREATE TABLE models (
    sha256 bytea PRIMARY KEY,
    model_id text NOT NULL,
    version text NOT NULL,
    definition bytea NOT NULL
);

-- Written to prove that a commit is possible.
CREATE TABLE pulse (
    place integer PRIMARY KEY,
    at timestamptz NOT NULL
);

CREATE TABLE retention (
    tenant_id text COLLATE "C" PRIMARY KEY,
    days integer NOT NULL CHECK (days > 0)
);

CREATE TABLE relationships (
    tenant_id text COLLATE "C" NOT NULL,
    business_id text COLLATE "C" NOT NULL,
    ended_on date,
    PRIMARY KEY (tenant_id, business_id)
);

CREATE TABLE erasures (
    tenant_id text COLLATE "C" NOT NULL,
    business_sha256 bytea NOT NULL,
    erased_ms bigint NOT NULL,
    assessments bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (tenant_id, business_sha256, erased_ms)
);
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
