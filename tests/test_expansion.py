"""A migration only expands: whatever the version before sends goes on working, beside the new one and after going back.

What is contracted after all is listed here, with what makes that safe.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NamedTuple

import asyncpg
import msgspec
import pytest
from catalogue import Tables, contracted, tables
from databases import Postgres, migrated, query
from frozen import FOLDER, frozen
from records import row

from app.cache import envelope
from app.errors import Conflict
from app.evidence.base import NOT_SCREENED, Findings
from app.records import RENDERER_VERSION, Record, screening_of
from app.store.base import Row
from app.store.postgres import schema
from core.scorer import RECORD_FORMAT

CONTRACTED: dict[str, dict[str, str]] = {
    "0003": {
        "audit_entries: trigger only_added_to is new": "entries were never changed nor deleted, by any version",
        "audit_checkpoints: trigger only_added_to is new": "checkpoints neither",
    },
}
"""By revision, what a migration takes away or narrows, and since which release nothing needs it (docs/rolling.md)."""

STEPS = list(pairwise(schema.REVISIONS))
STILL_AT_WORK = schema.REVISIONS[schema.REVISIONS.index(schema.WORKS_SINCE) : -1]
"""Schemas whose services work on the last one."""
FROZEN = sorted(file.stem for file in FOLDER.glob("*.sql"))


def migrated_to(url: str, revision: str) -> str:
    asyncio.run(schema.migrate(url, schema.database_place(url), to=revision))
    return url


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_migration_takes_nothing_away_and_narrows_nothing(database: str, before: str, after: str) -> None:
    earlier = tables(migrated_to(database, before))
    assert earlier
    assert contracted(earlier, tables(migrated_to(database, after))) == set(CONTRACTED.get(after, {}))


# Of the whole schema, one thing each: the comparison finds it.
CONTRACTIONS = {
    "DROP TABLE pulse": "pulse is gone",
    "ALTER TABLE pulse RENAME TO beat": "pulse is gone",
    "ALTER TABLE models DROP COLUMN version": "models.version is gone",
    "ALTER TABLE api_keys RENAME COLUMN tier TO grade": "api_keys.tier is gone",
    "ALTER TABLE api_keys ADD COLUMN owner text NOT NULL": "api_keys.owner is new and has to be given",
    "ALTER TABLE models ALTER COLUMN version DROP NOT NULL": "models.version may be null now",
    "ALTER TABLE api_keys ALTER COLUMN tier SET NOT NULL": "api_keys.tier takes no null any more",
    "ALTER TABLE models ALTER COLUMN version TYPE varchar(8)": "models.version is character varying(8) and was text",
    'ALTER TABLE models ALTER COLUMN version TYPE text COLLATE "C"': 'models.version is text COLLATE "C" and was text',
    "ALTER TABLE assessments ALTER COLUMN score TYPE integer": "assessments.score is integer and was smallint",
    "ALTER TABLE retention ADD CONSTRAINT short CHECK (days < 9999)": "retention: constraint short is new",
    "ALTER TABLE retention DROP CONSTRAINT retention_days_check": "retention: constraint retention_days_check is gone",
    "ALTER TABLE models DROP CONSTRAINT models_pkey": "models: constraint models_pkey is gone",
    "CREATE UNIQUE INDEX one_name ON api_keys (name)": "api_keys: unique index one_name is new",
    "DROP INDEX dispositions_in_force": "dispositions: unique index dispositions_in_force is gone",
    "DROP TRIGGER only_added_to ON audit_entries": "audit_entries: trigger only_added_to is gone",
    "ALTER TABLE pulse ENABLE ROW LEVEL SECURITY": "pulse: row security is new",
    "CREATE RULE mute AS ON UPDATE TO pulse DO INSTEAD NOTHING": "pulse: rule mute is new",
    "ALTER TABLE overrides DROP CONSTRAINT overrides_level_check, "
    "ADD CONSTRAINT overrides_level_check CHECK (level < 3)": "overrides: constraint overrides_level_check is another",
}
EXPANSIONS = (
    "CREATE TABLE more (id integer PRIMARY KEY, name text NOT NULL UNIQUE)",
    "ALTER TABLE assessments ADD COLUMN note text",
    "ALTER TABLE api_keys ADD COLUMN owner text NOT NULL DEFAULT ''",
    "CREATE INDEX api_keys_by_name ON api_keys (name)",
    "ALTER TABLE models ALTER COLUMN version SET DEFAULT '1'",
)


class Whole(NamedTuple):
    url: str
    tables: Tables


@pytest.fixture(scope="module")
def whole(postgres: Postgres) -> Whole:
    url = migrated(postgres.create_database())
    return Whole(url, tables(url))


def changed(whole: Whole, postgres: Postgres, change: str) -> set[str]:
    """What of a change is a contraction."""
    name = whole.url.rpartition("/")[2]
    copy = f"{name}_copy"
    query(postgres.admin_url(), f"CREATE DATABASE {copy} TEMPLATE {name} OWNER kyb")
    try:
        url = postgres.url(copy)
        query(url, change)
        return contracted(whole.tables, tables(url))
    finally:
        query(postgres.admin_url(), f"DROP DATABASE {copy} WITH (FORCE)")


@pytest.mark.parametrize("change", CONTRACTIONS, ids=lambda change: change[:40])
def test_a_contraction_is_found(whole: Whole, postgres: Postgres, change: str) -> None:
    assert changed(whole, postgres, change) == {CONTRACTIONS[change]}


@pytest.mark.parametrize("change", EXPANSIONS, ids=lambda change: change[:40])
def test_an_expansion_is_let_pass(whole: Whole, postgres: Postgres, change: str) -> None:
    assert changed(whole, postgres, change) == set()


# The statements themselves


class Meaning(NamedTuple):
    """What a statement takes, and what it gives: types in order, and names."""

    takes: tuple[str, ...]
    gives: tuple[tuple[str, str], ...]


async def meanings(url: str, statements: list[str]) -> dict[str, Meaning | str]:
    """Of each, or what the database says against it. It is planned, too: what ON CONFLICT needs shows only there."""
    connection = await asyncpg.connect(url)
    found: dict[str, Meaning | str] = {}
    try:
        for statement in statements:
            try:
                prepared = await connection.prepare(statement)
                await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
            except asyncpg.PostgresError as error:
                found[statement] = f"{type(error).__name__}: {error}"
                continue
            found[statement] = Meaning(
                tuple(one.name for one in prepared.get_parameters()),
                tuple((one.name, one.type.name) for one in prepared.get_attributes()),
            )
    finally:
        await connection.close()
    return found


def differing(before: str, after: str, statements: list[str]) -> dict[str, tuple[Meaning | str, Meaning | str]]:
    """The statements that mean something else in the second database, or nothing."""
    earlier, later = (asyncio.run(meanings(url, statements)) for url in (before, after))
    return {
        statement: (earlier[statement], later[statement])
        for statement in statements
        if isinstance(earlier[statement], str) or earlier[statement] != later[statement]
    }


@pytest.mark.parametrize("revision", FROZEN)
def test_what_an_earlier_version_sends_means_the_same(postgres: Postgres, database: str, revision: str) -> None:
    before = migrated_to(postgres.create_database(), revision)
    assert differing(before, migrated(database), frozen(revision)) == {}


def test_every_earlier_version_that_still_works_has_its_statements_frozen() -> None:
    assert set(STILL_AT_WORK) <= set(FROZEN) <= set(schema.REVISIONS)
    for revision in FROZEN:
        statements = frozen(revision)
        for table in ("assessments", "idempotency", "overrides", "api_keys", "audit_entries", "audit_checkpoints"):
            assert any(f"INSERT INTO {table}" in each for each in statements), (revision, table)
        assert len(statements) > 50


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ("ALTER TABLE pulse RENAME COLUMN at TO time", "INSERT INTO pulse (place, at) VALUES ($1, now())"),
        ("ALTER TABLE pulse ALTER COLUMN place TYPE bigint", "SELECT place FROM pulse"),
        ("ALTER TABLE pulse ADD COLUMN more text", "SELECT * FROM pulse"),
        ("ALTER TABLE pulse DROP CONSTRAINT pulse_pkey",
         "INSERT INTO pulse VALUES ($1, now()) ON CONFLICT (place) DO NOTHING"),
    ],
)  # fmt: skip
def test_a_statement_that_means_something_else_is_found(
    postgres: Postgres, database: str, change: str, statement: str
) -> None:
    before = migrated(postgres.create_database())
    query(migrated(database), change)
    assert list(differing(before, database, [statement, "SELECT 1"])) == [statement]


# What versions read of each other besides tables


def test_what_versions_read_of_each_other_is_as_it_was() -> None:
    """A change of one of these is one of what all versions read that share a database or a Redis. First a release reads
    both forms, a later one writes the new (docs/rolling.md)."""
    assert Record.__struct_fields__ == (
        "engine", "result", "findings", "screening", "evidence", "degraded", "against",
    )  # fmt: skip
    assert Findings.__struct_fields__ == ("screening", "external")
    assert Row.__struct_fields__ == (
        "tenant_id", "id", "business_id", "level", "decision", "score", "model_sha256", "input", "record",
        "input_sha256", "override_id", "original_level", "original_decision", "leaf",
    )  # fmt: skip
    assert (RECORD_FORMAT, RENDERER_VERSION, envelope.FORMAT) == (1, 1, 1)


def test_a_record_to_which_a_later_version_added_something_is_refused_and_not_half_read() -> None:
    record = Record(1, b"", NOT_SCREENED.findings, b"{}", b"[]", False)
    later = msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(record)), b"new"])
    assert screening_of(row(record=msgspec.msgpack.encode(record))) == b"{}"
    with pytest.raises(Conflict, match="cannot be read by this version of the service"):
        screening_of(row(record=later))
