"""Keys and overrides in the SQLite file: each change is one transaction with the acts that tell of it."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from app.resilience.batcher import Batcher
from app.store.access import StoredKey, StoredOverride
from app.store.lane import Lane
from app.store.sqlite_trail import Change, Done
from app.store.trail import Act

Answer = TypeVar("Answer")

_KEY = (
    "id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms,"
    " last_used_ms, replaces"
)
_ADD_KEY = f"INSERT INTO api_keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND_KEY = f"SELECT {_KEY} FROM api_keys WHERE id = ?"
_TENANTS_KEYS = f"SELECT {_KEY} FROM api_keys WHERE tenant_id = ? ORDER BY created_ms DESC, id DESC"
_ALL_KEYS = f"SELECT {_KEY} FROM api_keys ORDER BY created_ms DESC, id DESC"
_REVOKE = "UPDATE api_keys SET revoked_ms = ? WHERE tenant_id = ? AND id = ? AND revoked_ms IS NULL"
_TENANTS_KEY = f"SELECT {_KEY} FROM api_keys WHERE tenant_id = ? AND id = ?"
_EXPIRE = """\
UPDATE api_keys SET expires_ms = min(coalesce(expires_ms, :expires_ms), :expires_ms)
WHERE tenant_id = :tenant AND id = :id AND revoked_ms IS NULL"""
_TOUCH = "UPDATE api_keys SET last_used_ms = :used WHERE id = :id AND coalesce(last_used_ms < :used, true)"
_HAS_KEY = """\
SELECT EXISTS (SELECT 1 FROM api_keys WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?))"""

OVERRIDE = "tenant_id, assessment_id, id, level, decision, reason, actor, state, approver, approved_ms"
_ADD_OVERRIDE = f"INSERT INTO overrides ({OVERRIDE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OVERRIDES = f"SELECT {OVERRIDE} FROM overrides WHERE tenant_id = ? AND assessment_id = ? ORDER BY id"
_APPROVE = """\
UPDATE overrides SET state = :state, approver = :approver, approved_ms = :approved_ms
WHERE tenant_id = :tenant_id AND assessment_id = :assessment_id AND id = :id AND state = 'pending'"""
_IS_OVER = "SELECT 1 FROM assessments WHERE tenant_id = ? AND id = ? AND override_id IS ?"
_TAKE_EFFECT = """\
UPDATE assessments SET level = :level, decision = :decision, override_id = :id,
    original_level = coalesce(original_level, level), original_decision = coalesce(original_decision, decision)
WHERE tenant_id = :tenant_id AND id = :assessment_id"""


class SqliteAccess(ABC):
    """The `Access` of the SQLite file, to be mixed into its store."""

    _writer: Lane
    _pager: Lane
    reads: Batcher[Any, list[Any]]

    @abstractmethod
    async def _apply(self, change: Change[Answer]) -> Answer:
        """Make the change and note its acts, in one transaction."""

    @abstractmethod
    async def _ask(self, batcher: Batcher[Any, list[Any]], sql: str, values: Sequence[object]) -> list[Any]:
        """The rows of one statement."""

    async def add_key(self, key: StoredKey, act: Act) -> None:
        """Keep a key. Raises RowRefused where its id is taken."""
        await self._apply(partial(_add_key, key, act))

    async def key(self, id: str) -> StoredKey | None:
        """The key of that id, revoked or expired ones too."""
        rows = await self._ask(self.reads, _FIND_KEY, (id,))
        return _key(rows[0]) if rows else None

    async def keys(self, tenant_id: str | None) -> list[StoredKey]:
        """The tenant's keys, or all, newest first."""
        query = (_ALL_KEYS,) if tenant_id is None else (_TENANTS_KEYS, (tenant_id,))
        rows = await self._pager.run(lambda connection: connection.execute(*query).fetchall())
        return [_key(row) for row in rows]

    async def end_key(self, tenant_id: str, id: str, *, revoked_ms: int, act: Act) -> StoredKey | None:
        """Revoke a key of the tenant; as it is now, None where there is none."""
        return await self._apply(partial(_end_key, tenant_id, id, revoked_ms, act))

    async def replace_key(
        self, tenant_id: str, id: str, successor: StoredKey, *, expires_ms: int, acts: Sequence[Act]
    ) -> bool:
        """Keep the successor and have the old key end, as `Access.replace_key` says."""
        old = {"tenant": tenant_id, "id": id, "expires_ms": expires_ms}
        return await self._apply(partial(_replace_key, old, successor, acts))

    async def touch_keys(self, used_ms: Mapping[str, int]) -> None:
        """Note when keys were last used; an earlier time than the one noted changes nothing."""
        if used_ms:
            await self._writer.run(partial(_touch_keys, dict(used_ms)))

    async def has_key(self, now_ms: int) -> bool:
        """Whether any key works at that time."""
        [(found,)] = await self._ask(self.reads, _HAS_KEY, (now_ms,))
        return bool(found)

    async def overrides(self, tenant_id: str, assessment_id: bytes) -> list[StoredOverride]:
        """All of an assessment, oldest first."""
        rows = await self._ask(self.reads, _OVERRIDES, (tenant_id, assessment_id))
        return [StoredOverride(*row) for row in rows]

    async def add_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Keep an override, and have an applied one take effect, as `Access.add_override` says."""
        return await self._apply(partial(_add_override, override, act, over))

    async def approve_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Approve a pending override and have it take effect, as `Access.approve_override` says."""
        return await self._apply(partial(_approve_override, override, act, over))


def _add_key(key: StoredKey, act: Act, connection: sqlite3.Connection) -> Done[None]:
    connection.execute(_ADD_KEY, _key_values(key))
    return Done(None, (act,))


def _end_key(
    tenant_id: str, id: str, revoked_ms: int, act: Act, connection: sqlite3.Connection
) -> Done[StoredKey | None]:
    ended = connection.execute(_REVOKE, (revoked_ms, tenant_id, id)).rowcount
    found = connection.execute(_TENANTS_KEY, (tenant_id, id)).fetchone()
    return Done(None if found is None else _key(found), (act,) if ended else ())


def _replace_key(
    old: dict[str, object], successor: StoredKey, acts: Sequence[Act], connection: sqlite3.Connection
) -> Done[bool]:
    if not connection.execute(_EXPIRE, old).rowcount:
        return Done(False)
    connection.execute(_ADD_KEY, _key_values(successor))
    return Done(True, acts)


def _touch_keys(used_ms: dict[str, int], connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_TOUCH, [{"id": id, "used": used} for id, used in used_ms.items()])
    connection.execute("COMMIT")


def _add_override(override: StoredOverride, act: Act, over: bytes | None, connection: sqlite3.Connection) -> Done[bool]:
    if not _is_over(override, over, connection):
        return Done(False)
    connection.execute(_ADD_OVERRIDE, msgspec.structs.astuple(override))
    if override.state == "applied":
        connection.execute(_TAKE_EFFECT, msgspec.structs.asdict(override))
    return Done(True, (act,))


def _approve_override(
    override: StoredOverride, act: Act, over: bytes | None, connection: sqlite3.Connection
) -> Done[bool]:
    values = msgspec.structs.asdict(override)
    if not _is_over(override, over, connection) or not connection.execute(_APPROVE, values).rowcount:
        return Done(False)
    connection.execute(_TAKE_EFFECT, values)
    return Done(True, (act,))


def _is_over(override: StoredOverride, over: bytes | None, connection: sqlite3.Connection) -> bool:
    """Whether the assessment still has the override that the new one was decided over."""
    return connection.execute(_IS_OVER, (override.tenant_id, override.assessment_id, over)).fetchone() is not None


def _key_values(key: StoredKey) -> list[object]:
    values = msgspec.structs.asdict(key)
    values["scopes"] = None if key.scopes is None else _json(key.scopes)
    values["networks"] = _json(key.networks)
    return list(values.values())


def _json(texts: Sequence[str]) -> str:
    return msgspec.json.encode(texts).decode()


def _key(row: Sequence[Any]) -> StoredKey:
    id, tenant_id, name, role, scopes, digest, networks, *others = row
    return StoredKey(id, tenant_id, name, role, _texts(scopes), digest, _texts(networks) or (), *others)


def _texts(stored: str | None) -> Any:
    return None if stored is None else tuple(msgspec.json.decode(stored))
