"""Keys as people are shown them: never their texts."""

from __future__ import annotations

from typing import Any

from app import ids, wire
from app.keys.validity import permissions, works
from app.roles import PERMISSIONS
from app.store.access import StoredKey


def shown(key: StoredKey, now_ms: int) -> wire.Key:
    """The key without its text and digest."""
    return wire.Key(**_members(key, now_ms))


def shown_once(key: StoredKey, text: str, now_ms: int) -> wire.NewKey:
    """A key that was just made, with its text."""
    return wire.NewKey(**_members(key, now_ms), key=text)


def _members(key: StoredKey, now_ms: int) -> dict[str, Any]:
    held = permissions(key)
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "role": key.role,
        "scopes": None if key.scopes is None else list(key.scopes),
        "permissions": [permission for permission in PERMISSIONS if permission in held],
        "networks": list(key.networks),
        "tier": key.tier,
        "rate": key.rate,
        "status": _status(key, now_ms),
        "created_at": ids.instant(key.created_ms),
        "created_by": key.created_by,
        "replaces": key.replaces,
        "expires_at": _instant(key.expires_ms),
        "revoked_at": _instant(key.revoked_ms),
        "last_used_at": _instant(key.last_used_ms),
    }


def _status(key: StoredKey, now_ms: int) -> wire.KeyStatus:
    if works(key, now_ms):
        return "active"
    return "expired" if key.revoked_ms is None else "revoked"


def _instant(time_ms: int | None) -> str | None:
    return None if time_ms is None else ids.instant(time_ms)
