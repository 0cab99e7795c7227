"""Who may do what: permissions, and the roles that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Permission = Literal["read", "assess", "replay", "models", "override", "audit", "keys", "lists", "debug", "monitor"]
Role = Literal["viewer", "assessor", "analyst", "auditor", "admin"]

PERMISSIONS: tuple[Permission, ...] = get_args(Permission)

_VIEWER: frozenset[Permission] = frozenset(("read",))
_ASSESSOR: frozenset[Permission] = _VIEWER | {"assess"}
_ANALYST: frozenset[Permission] = _ASSESSOR | {"replay", "models", "override"}

ROLES: dict[Role, frozenset[Permission]] = {
    "viewer": _VIEWER,
    "assessor": _ASSESSOR,
    "analyst": _ANALYST,
    "auditor": _VIEWER | {"audit"},
    "admin": frozenset(PERMISSIONS),
}
"""What each role may do. Every route asks for one permission, or for none (`app.api.permissions`)."""


def granted(role: Role, scopes: Iterable[Permission] | None) -> frozenset[Permission]:
    """What a key may do. scopes: what of its role it is narrowed to, None for all of it."""
    return ROLES[role] if scopes is None else ROLES[role].intersection(scopes)
