"""Watchlists, what was screened against, and dispositions; an audit trail that is only added to; and of a key, the one
that it replaces.

Lists are everybody's and have no tenant. A snapshot stands in rows of a size that one statement carries; it is large
and compressed already where that pays. `watchlists` keeps the greatest number that each list ever had, and a list is in
force where a version of that number is there.

Nothing of the service changes or deletes an entry of the trail or a checkpoint. The database refuses that to everybody,
by mistake or on purpose, who does not first take the triggers away: only the owner of the tables can.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_TABLES = """\
CREATE TABLE watchlists (
    name text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL
);

CREATE TABLE watchlist_versions (
    name text COLLATE "C" NOT NULL,
    number bigint NOT NULL CHECK (number > 0),
    title text NOT NULL,
    source text NOT NULL,
    format text NOT NULL,
    published text,
    content_sha256 bytea NOT NULL,
    snapshot bytea NOT NULL,
    size bigint NOT NULL,
    engine integer NOT NULL,
    entities bigint NOT NULL,
    names bigint NOT NULL,
    added_ms bigint NOT NULL,
    checked_ms bigint NOT NULL,
    validators bytea NOT NULL,
    PRIMARY KEY (name, number)
);

CREATE TABLE watchlist_parts (
    snapshot bytea NOT NULL CHECK (length(snapshot) = 32),
    part integer NOT NULL,
    created_ms bigint NOT NULL,
    content bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (snapshot, part)
);

CREATE TABLE rescreenings (
    name text COLLATE "C" PRIMARY KEY,
    base bigint NOT NULL,
    target bigint NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    before_id uuid,
    compared bigint NOT NULL,
    recorded bigint NOT NULL
);

CREATE TABLE screened_against (
    digest bytea PRIMARY KEY CHECK (length(digest) = 16),
    lists bytea NOT NULL
);

CREATE TABLE dispositions (
    tenant_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    business bytea NOT NULL,
    business_id text COLLATE "C",
    assessment_id uuid NOT NULL,
    list text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    entity_digest bytea NOT NULL,
    matched_name text NOT NULL,
    subject text NOT NULL,
    reason text,
    actor text NOT NULL,
    ended_ms bigint,
    ended_by text,
    PRIMARY KEY (tenant_id, id)
);

CREATE INDEX dispositions_by_business ON dispositions (tenant_id, business, id) WHERE ended_ms IS NULL;

CREATE UNIQUE INDEX dispositions_in_force ON dispositions (tenant_id, business, list, entity_id, entity_digest)
    WHERE ended_ms IS NULL;

CREATE INDEX dispositions_by_business_id ON dispositions (tenant_id, business_id, id) WHERE business_id IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN replaces text;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit trail is only added to: % of % is refused', TG_OP, TG_TABLE_NAME; END $$;

CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
