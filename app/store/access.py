"""Who may come in, and what people decided over the model: the structs and the protocol of every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from app.roles import Permission, Role
from app.store.trail import Act

OverrideState = Literal["applied", "pending", "approved"]


class StoredKey(Struct, frozen=True):
    """An API key as it is kept: never its text.

    id: 12 letters and digits.  digest: HMAC-SHA256 of the text.  scopes: what of its role it is narrowed to, None for
    all of it.  networks: CIDR ranges it may be used from, empty for everywhere.  tier: of the settings, None for the
    default one.  rate: as `100/s burst 200`, None for the tier's.  created_by: the id of a key, or `cli`, `service`.
    replaces: the key that it was made in place of.  Times: Unix, milliseconds.
    """

    id: str
    tenant_id: str
    name: str
    role: Role
    scopes: tuple[Permission, ...] | None
    digest: bytes
    networks: tuple[str, ...]
    tier: str | None
    rate: str | None
    created_ms: int
    created_by: str
    expires_ms: int | None = None
    revoked_ms: int | None = None
    last_used_ms: int | None = None
    replaces: str | None = None


class StoredOverride(Struct, frozen=True):
    """What a person decided over an assessment. id: UUIDv7, 16 bytes, whose time is when it was asked for.

    level, decision: in force once it is applied or approved; both are always given.  actor, approver: ids of keys.
    reason: None once it was erased.
    """

    tenant_id: str
    assessment_id: bytes
    id: bytes
    level: int
    decision: int
    reason: str | None
    actor: str
    state: OverrideState
    approver: str | None = None
    approved_ms: int | None = None


class Access(Protocol):
    """Keys and overrides. Every method raises StoreUnavailable as those of `Store` do; what it changes and the act that
    tells of it are committed together."""

    async def add_key(self, key: StoredKey, act: Act) -> None:
        """Keep a key. Raises RowRefused where its id is taken."""

    async def key(self, id: str) -> StoredKey | None:
        """The key of that id, revoked or expired ones too; from the server that takes the writes."""

    async def keys(self, tenant_id: str | None) -> list[StoredKey]:
        """The tenant's keys, or all, newest first."""

    async def end_key(self, tenant_id: str, id: str, *, revoked_ms: int, act: Act) -> StoredKey | None:
        """Revoke a key of the tenant; as it is now, None where there is none. One revoked before stays as it was, and
        then nothing is noted."""

    async def replace_key(
        self, tenant_id: str, id: str, successor: StoredKey, *, expires_ms: int, acts: Sequence[Act]
    ) -> bool:
        """Keep the successor and have the old key end at `expires_ms`, unless it ends before. False, and nothing is
        changed, where there is no such key of the tenant or it was revoked."""

    async def touch_keys(self, used_ms: Mapping[str, int]) -> None:
        """Note when keys were last used; an earlier time than the one noted changes nothing."""

    async def has_key(self, now_ms: int) -> bool:
        """Whether any key works at that time."""

    async def overrides(self, tenant_id: str, assessment_id: bytes) -> list[StoredOverride]:
        """All of an assessment, oldest first; from the server that takes the writes."""

    async def add_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Keep an override; one that is `applied` takes effect in the same transaction: the assessment's level,
        decision and override_id become its own, and its first level and decision are kept (`Row.original_level`).

        over: the override_id that the assessment had when this was decided. False, and nothing is changed, where the
        assessment is not there or has another by now.
        """

    async def approve_override(self, override: StoredOverride, act: Act, *, over: bytes | None) -> bool:
        """Turn a pending override into the approved one given (same id, with approver and approved_ms), and have it
        take effect as `add_override` says. False, and nothing is changed, where it is no longer pending, too."""
