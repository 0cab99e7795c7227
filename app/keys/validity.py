"""Whether a key works, and what it may do while it does."""

from __future__ import annotations

import datetime as dt

from app.roles import Permission, granted
from app.store.access import StoredKey


def works(key: StoredKey, now_ms: int) -> bool:
    """Whether the key is neither revoked nor expired."""
    return key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms)


def permissions(key: StoredKey) -> frozenset[Permission]:
    """What the key may do."""
    return granted(key.role, key.scopes)


def instant(time_ms: int) -> str:
    """A time as it is told: RFC 3339, UTC, to the millisecond."""
    moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
