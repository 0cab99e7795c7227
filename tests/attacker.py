"""Somebody who can write the database of the audit trail, and knows all but the signing key."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from typing import Any

import asyncpg
from databases import CALL_LIMIT_S

from app.audit.balance import split
from app.audit.checkpoints import checkpoint_hash, signature
from app.store.chain import AuditEntry, entry_hash
from app.store.trail import Checkpoint, packed_heads, unpacked_heads

ENTRY = "tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash"
INSERT = f"INSERT INTO audit_entries ({ENTRY}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
DELETE = "DELETE FROM audit_entries WHERE tenant_id = $1 AND segment = $2 AND number = $3"
GUARDED = ("audit_entries", "audit_checkpoints")
CHECKPOINT = "tenant_id, number, at_ms, entries, heads, previous, hash, mac"


class Attacker:
    """Writes SQL past the service, as who owns the tables can: without the triggers that refuse it, which are there
    again afterwards. place: a path of SQLite, or a URL of PostgreSQL.

    In statements, values stand as $1, $2; ids are 16 bytes.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.is_postgres = place.startswith("postgresql:")

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        return self.run_all([(sql, *values)])

    def run_all(self, statements: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The rows of the last of some statements, each with its values behind it, in one transaction."""
        if self.is_postgres:
            return asyncio.run(self._postgres(statements))
        rows: list[tuple[Any, ...]] = []
        connection = sqlite3.connect(self.place, timeout=CALL_LIMIT_S)
        try:
            with connection:
                triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
                for name, _ in triggers:
                    connection.execute(f"DROP TRIGGER {name}")
                for sql, *values in statements:
                    rows = connection.execute(sql.replace("$", "?"), values).fetchall()
                for _, trigger in triggers:
                    connection.execute(trigger)
        finally:
            connection.close()
        return rows

    async def _postgres(self, statements: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        connection = await asyncpg.connect(self.place, timeout=CALL_LIMIT_S, command_timeout=CALL_LIMIT_S)
        try:
            await connection.set_type_codec("uuid", schema="pg_catalog", format="binary", encoder=bytes, decoder=bytes)
            async with connection.transaction():
                for table in GUARDED:
                    await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                for sql, *values in statements:
                    rows = [tuple(record) for record in await connection.fetch(sql, *values)]
                for table in GUARDED:
                    await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        finally:
            await connection.close()
        return rows

    # What is there

    def entries(self, tenant_id: str) -> dict[bytes, list[AuditEntry]]:
        """By segment, the entries of a tenant, in order."""
        found: dict[bytes, list[AuditEntry]] = {}
        for row in self.run(f"SELECT {ENTRY} FROM audit_entries WHERE tenant_id = $1 ORDER BY 2, 3", tenant_id):
            found.setdefault(row[1], []).append(AuditEntry(*row))
        return found

    def longest(self, tenant_id: str) -> list[AuditEntry]:
        """The entries of the segment with the most."""
        return max(self.entries(tenant_id).values(), key=len)

    def checkpoints(self, tenant_id: str) -> list[Checkpoint]:
        rows = self.run(f"SELECT {CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = $1 ORDER BY 2", tenant_id)
        return [Checkpoint(*row[:4], unpacked_heads(row[4]), *row[5:]) for row in rows]

    # What is done to it

    def change(self, entry: AuditEntry, column: str, value: object) -> None:
        where = "tenant_id = $2 AND segment = $3 AND number = $4"
        self.run(
            f"UPDATE audit_entries SET {column} = $1 WHERE {where}", value, entry.tenant_id, entry.segment, entry.number
        )

    def delete(self, entries: Iterable[AuditEntry]) -> None:
        self.run_all([(DELETE, entry.tenant_id, entry.segment, entry.number) for entry in entries])

    def restamp(self, entries: Iterable[AuditEntry]) -> None:
        """Link the entries anew, as they stand now, from the first on: numbers, hashes and all."""
        entries = list(entries)
        self.delete(entries)
        number, previous = entries[0].number, entries[0].previous
        statements = []
        for one in entries:
            facts = (one.tenant_id, one.segment, number, one.at_ms, one.act, one.actor, one.detail, one.subjects)
            digest = entry_hash(*facts, previous)
            statements.append((INSERT, *facts, previous, digest))
            number, previous = number + 1, digest
        self.run_all(statements)

    def replace(self, checkpoint: Checkpoint, key: bytes) -> None:
        """Put a checkpoint in the place of the one with its number, its hash computed anew and signed with a key."""
        one = checkpoint
        digest = checkpoint_hash(one.tenant_id, one.number, one.at_ms, one.entries, one.heads, one.previous)
        self.run(
            "UPDATE audit_checkpoints SET at_ms = $1, entries = $2, heads = $3, previous = $4, hash = $5, mac = $6"
            " WHERE tenant_id = $7 AND number = $8",
            one.at_ms,
            one.entries,
            packed_heads(one.heads),
            one.previous,
            digest,
            signature(key, digest),
            one.tenant_id,
            one.number,
        )

    def cut_checkpoints(self, tenant_id: str, first: int) -> None:
        """Delete the checkpoints from a number on, and nothing that tells of them."""
        self.run("DELETE FROM audit_checkpoints WHERE tenant_id = $1 AND number >= $2", tenant_id, first)

    def cut_all(self, tenant_id: str, first: int) -> None:
        """Delete the checkpoints from a number on with all that they cover, and every trace of it, the assessments that
        were recorded since included."""
        self.cut_checkpoints(tenant_id, first)
        covered = {head.segment: head.number for one in self.checkpoints(tenant_id) for head in one.heads}
        self.run("DELETE FROM audit_heads WHERE tenant_id = $1", tenant_id)
        for segment, entries in self.entries(tenant_id).items():
            left = covered.get(segment, 0)
            self.delete(entries[left:])
            recorded = [id for entry in entries[left:] for id in split(entry.subjects)]
            self.run_all(
                [("DELETE FROM assessments WHERE tenant_id = $1 AND id = $2", tenant_id, id) for id in recorded]
            )
            if left:
                sql = "INSERT INTO audit_heads (tenant_id, segment, number) VALUES ($1, $2, $3)"
                self.run(sql, tenant_id, segment, left)
