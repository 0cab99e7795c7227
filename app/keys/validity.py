"""Whether a key works, and what it may do while it does."""

from __future__ import annotations

from app.roles import Permission, granted
from app.store.access import StoredKey


def works(key: StoredKey, now_ms: int) -> bool:
    """Whether the key is neither revoked nor expired."""
    return key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms)


def permissions(key: StoredKey) -> frozenset[Permission]:
    """What the key may do."""
    return granted(key.role, key.scopes)
