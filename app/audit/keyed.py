"""Whether API keys are as the trail tells that they were made and ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256

import msgspec
from msgspec import Struct

from app import ids
from app.audit.report import Faults
from app.store.access import StoredKey
from app.store.chain import AuditEntry
from app.store.holdings import Holdings

ATTEMPTS = 3


class _Made(Struct, frozen=True):
    """Of an act `key.created`, and whoever did it."""

    id: str
    name: str
    role: str
    digest_sha256: str
    scopes: tuple[str, ...] | None = None
    networks: tuple[str, ...] = ()
    tier: str | None = None
    rate: str | None = None
    expires_at: str | None = None
    created_by: str = ""


class _Revoked(Struct, frozen=True):
    id: str
    revoked_at: str


class _Rotated(Struct, frozen=True):
    id: str
    ends_at: str


_decode_made = msgspec.json.Decoder(_Made).decode
_decode_revoked = msgspec.json.Decoder(_Revoked).decode
_decode_rotated = msgspec.json.Decoder(_Rotated).decode


class KeyCheck:
    """Of one tenant's keys; what is kept is a place for each."""

    __slots__ = ("_ends", "_faults", "_holdings", "_made", "_revoked", "_tenant_id")

    def __init__(self, holdings: Holdings, faults: Faults, tenant_id: str) -> None:
        self._holdings = holdings
        self._faults = faults
        self._tenant_id = tenant_id
        self._made: dict[str, _Made] = {}
        self._revoked: dict[str, str] = {}
        self._ends: dict[str, list[str]] = {}

    def see(self, entry: AuditEntry) -> None:
        """Take note of a key that was made or ended. Raises ValueError."""
        if entry.act == "key.created":
            made = msgspec.structs.replace(_decode_made(entry.detail), created_by=entry.actor)
            self._made[made.id] = made
        elif entry.act == "key.revoked":
            revoked = _decode_revoked(entry.detail)
            self._revoked[revoked.id] = revoked.revoked_at
        elif entry.act == "key.rotated":
            rotated = _decode_rotated(entry.detail)
            self._ends.setdefault(rotated.id, []).append(rotated.ends_at)

    async def finish(self, read_on: Callable[[], Awaitable[None]]) -> None:
        """Compare them. read_on: has what was entered meanwhile seen."""
        wrong: list[tuple[str, str, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                await read_on()
            wrong = self._compared(await self._holdings.keys(self._tenant_id))
            if not wrong:
                return
        for kind, id, detail in wrong:
            self._faults.add(kind, self._tenant_id, f"the key {id} {detail}")  # type: ignore[arg-type]

    def _compared(self, keys: list[StoredKey]) -> list[tuple[str, str, str]]:
        """Kind, id and what is wrong."""
        wrong = []
        for key in keys:
            if key.id not in self._made:
                wrong.append(("key.untold", key.id, "is there, and no entry tells that it was made"))
            elif changed := [name for name, told, found in self._facts(key) if told != found]:
                wrong.append(("key.altered", key.id, f"is not as the trail tells: {', '.join(changed)}"))
        for id in sorted(self._made.keys() - {key.id for key in keys}):
            wrong.append(("key.missing", id, "was made, says the trail, and is not there"))
        return wrong

    def _facts(self, key: StoredKey) -> list[tuple[str, object, object]]:
        """What each fact is by the trail, and by the key's row."""
        made = self._made[key.id]
        ends = [*self._ends.get(key.id, ()), *([made.expires_at] if made.expires_at else ())]
        return [
            ("name", made.name, key.name),
            ("role", made.role, key.role),
            ("scopes", made.scopes, key.scopes),
            ("networks", made.networks, key.networks),
            ("tier", made.tier, key.tier),
            ("rate", made.rate, key.rate),
            ("who made it", made.created_by, key.created_by),
            ("digest", made.digest_sha256, sha256(key.digest).hexdigest()),
            # Written alike, the times sort as they are.
            ("end", min(ends, default=None), None if key.expires_ms is None else ids.instant(key.expires_ms)),
            ("revocation", self._revoked.get(key.id), None if key.revoked_ms is None else ids.instant(key.revoked_ms)),
        ]
