"""Keys and overrides in PostgreSQL: each change is one transaction with the acts that tell of it.

Whatever changes an override locks the row of its assessment first, as retention and erasure do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app.store.access import StoredKey, StoredOverride
from app.store.postgres.link import Link, Present, Session, Unfit
from app.store.trail import Act

Answer = TypeVar("Answer")

_KEY = (
    "id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms,"
    " last_used_ms, replaces"
)
_ADD_KEY = f"""\
INSERT INTO api_keys ({_KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (id) DO NOTHING RETURNING 1"""
_FIND_KEY = f"SELECT {_KEY} FROM api_keys WHERE id = $1"
_KEYS = f"SELECT {_KEY} FROM api_keys {{}} ORDER BY created_ms DESC, id DESC"
_TENANTS_KEYS, _ALL_KEYS = _KEYS.format("WHERE tenant_id = $1"), _KEYS.format("")
_TENANTS_KEY = f"SELECT {_KEY} FROM api_keys WHERE tenant_id = $1 AND id = $2"
_REVOKE = f"""\
UPDATE api_keys SET revoked_ms = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_ms IS NULL RETURNING {_KEY}"""
_EXPIRE = """\
UPDATE api_keys SET expires_ms = least(expires_ms, $3)
WHERE tenant_id = $1 AND id = $2 AND revoked_ms IS NULL RETURNING 1"""
# In the order of their ids, so that two processes who note the same keys cannot wait for each other in a circle.
_TOUCH = """\
WITH used AS (SELECT * FROM unnest($1::text[], $2::bigint[]) AS u (id, used_ms)),
held AS (
    SELECT k.id FROM api_keys k JOIN used u ON u.id = k.id WHERE coalesce(k.last_used_ms < u.used_ms, true)
    ORDER BY k.id FOR UPDATE OF k
)
UPDATE api_keys k SET last_used_ms = greatest(k.last_used_ms, u.used_ms) FROM held h JOIN used u ON u.id = h.id
WHERE k.id = h.id"""
_HAS_KEY = """\
SELECT EXISTS (SELECT 1 FROM api_keys WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $1))"""

OVERRIDE = "tenant_id, assessment_id, id, level, decision, reason, actor, state, approver, approved_ms"
_ADD_OVERRIDE = f"""\
INSERT INTO overrides ({OVERRIDE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, assessment_id, id) DO NOTHING RETURNING 1"""
_OVERRIDES = f"SELECT {OVERRIDE} FROM overrides WHERE tenant_id = $1 AND assessment_id = $2 ORDER BY id"
_APPROVE = """\
UPDATE overrides SET state = $4, approver = $5, approved_ms = $6
WHERE tenant_id = $1 AND assessment_id = $2 AND id = $3 AND state = 'pending' RETURNING 1"""
_HOLD = """\
SELECT 1 FROM assessments WHERE tenant_id = $1 AND id = $2 AND override_id IS NOT DISTINCT FROM $3 FOR UPDATE"""
_TAKE_EFFECT = """\
UPDATE assessments SET override_id = $3, level = $4, decision = $5,
    original_level = coalesce(original_level, level), original_decision = coalesce(original_decision, decision)
WHERE tenant_id = $1 AND id = $2"""


class PostgresAccess(ABC):
    """The `Access` of the store in PostgreSQL, to be mixed into it."""

    _writing: Link

    @abstractmethod
    async def _act(
        self, work: Callable[[Session], Awaitable[Answer]], acts: Sequence[Act] | Callable[[Answer], Sequence[Act]]
    ) -> Answer:
        """Do the work and append its acts to the trail, in one transaction that takes effect once."""

    @abstractmethod
    async def _fits(self, work: Callable[[Session], Awaitable[None]], acts: Sequence[Act]) -> bool:
        """Do the work and note its acts; False, and nothing is changed, where what is there does not allow it."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    @abstractmethod
    async def _change(self, sql: str, *values: object) -> None:
        """Do one statement."""

    async def add_key(self, key: StoredKey, act: Act) -> None:
        """Keep a key. Raises RowRefused where its id is taken."""

        async def add(session: Session) -> None:
            await _add_key(session, key)

        await self._act(add, (act,))

    async def key(self, id: str) -> StoredKey | None:
        """The key of that id, revoked or expired ones too; from the server that takes the writes."""
        found = await self._fetch(_FIND_KEY, id, link=self._writing)
        return _key(found[0]) if found else None

    async def keys(self, tenant_id: str | None) -> list[StoredKey]:
        """The tenant's keys, or all, newest first; from the server that takes the writes."""
        values = () if tenant_id is None else (tenant_id,)
        found = await self._fetch(_TENANTS_KEYS if values else _ALL_KEYS, *values, link=self._writing)
        return [_key(record) for record in found]

    async def end_key(self, tenant_id: str, id: str, *, revoked_ms: int, act: Act) -> StoredKey | None:
        """Revoke a key of the tenant; as it is now, None where there is none."""

        async def end(session: Session) -> StoredKey:
            ended = await session.fetchrow(_REVOKE, tenant_id, id, revoked_ms)
            if ended is None:
                raise Unfit("there is no such key, or it was revoked before")
            return _key(ended)

        try:
            return await self._act(end, (act,))
        except Unfit:
            found = await self._fetch(_TENANTS_KEY, tenant_id, id, link=self._writing)
            return _key(found[0]) if found else None

    async def replace_key(
        self, tenant_id: str, id: str, successor: StoredKey, *, expires_ms: int, acts: Sequence[Act]
    ) -> bool:
        """Keep the successor and have the old key end, as `Access.replace_key` says."""

        async def replace(session: Session) -> None:
            if not await session.fetchval(_EXPIRE, tenant_id, id, expires_ms):
                raise Unfit("there is no such key, or it was revoked")
            await _add_key(session, successor)

        return await self._fits(replace, acts)

    async def touch_keys(self, used_ms: Mapping[str, int]) -> None:
        """Note when keys were last used; an earlier time than the one noted changes nothing."""
        if used_ms:
            await self._change(_TOUCH, list(used_ms), list(used_ms.values()))

    async def has_key(self, now_ms: int) -> bool:
        """Whether any key works at that time; from the server that takes the writes."""
        [(found,)] = await self._fetch(_HAS_KEY, now_ms, link=self._writing)
        return bool(found)

    async def overrides(self, tenant_id: str, assessment_id: bytes) -> list[StoredOverride]:
        """All of an assessment, oldest first; from the server that takes the writes."""
        found = await self._fetch(_OVERRIDES, tenant_id, UUID(assessment_id), link=self._writing)
        return [override_of(record) for record in found]

    async def add_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Keep an override, and have an applied one take effect, as `Access.add_override` says."""

        async def add(session: Session) -> None:
            await _hold(session, override, over)
            if not await session.fetchval(_ADD_OVERRIDE, *_override_values(override)):
                raise Present("another override has its id")
            if override.state == "applied":
                await _take_effect(session, override)

        return await self._fits(add, (act,))

    async def approve_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Approve a pending override and have it take effect, as `Access.approve_override` says."""
        approval = (*_override_values(override)[:3], override.state, override.approver, override.approved_ms)

        async def approve(session: Session) -> None:
            await _hold(session, override, over)
            if not await session.fetchval(_APPROVE, *approval):
                raise Unfit("it is no longer pending")
            await _take_effect(session, override)

        return await self._fits(approve, (act,))


async def _add_key(session: Session, key: StoredKey) -> None:
    if not await session.fetchval(_ADD_KEY, *msgspec.structs.astuple(key)):
        raise Present("another key has its id")


async def _hold(session: Session, override: StoredOverride, over: bytes | None) -> None:
    """Lock the assessment. Raises Unfit where it does not have the override that the new one was decided over."""
    values = (override.tenant_id, UUID(override.assessment_id), over and UUID(over))
    if not await session.fetchval(_HOLD, *values):
        raise Unfit("the assessment is not there, or has another override by now")


async def _take_effect(session: Session, override: StoredOverride) -> None:
    await session.execute(_TAKE_EFFECT, *_override_values(override)[:5])


def _override_values(override: StoredOverride) -> tuple[Any, ...]:
    tenant_id, assessment_id, id, *others = msgspec.structs.astuple(override)
    return tenant_id, UUID(assessment_id), UUID(id), *others


def override_of(record: Any) -> StoredOverride:
    """The override of a record of OVERRIDE."""
    tenant_id, assessment_id, id, *others = record
    return StoredOverride(tenant_id, assessment_id.bytes, id.bytes, *others)


def _key(record: Any) -> StoredKey:
    id, tenant_id, name, role, scopes, digest, networks, *others = record
    return StoredKey(
        id, tenant_id, name, role, None if scopes is None else tuple(scopes), digest, tuple(networks), *others
    )
