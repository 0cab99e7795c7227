"""Making, listing, ending and replacing keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import sha256
from ipaddress import ip_network

from msgspec.structs import replace

from app import ids
from app.credentials import ID_CHARS, digest, mint
from app.errors import BodyRefused, Conflict, NotFound, clipped
from app.faults import pointer
from app.keys import within
from app.keys.validity import permissions, works
from app.keys.within import Within
from app.roles import PERMISSIONS, ROLES, Permission, Role
from app.settings.kinds import Malformed
from app.settings.rates import RATE, parse_rate
from app.settings.tree import Limits
from app.store.access import Access, StoredKey
from app.store.trail import Act, act
from app.wire import Fault

MAY_CHANGE_KEYS: Permission = "keys"
LATEST_MS = 253_370_764_800_000
"""The first moment of the year 9999, which in every zone is a time that can be written."""


class Keys:
    """The keys of all tenants.

    secret: what their texts are hashed under.  environment: stands in each.  limits: the tiers that a key may have.
    forget: has every process look a key up anew.  now_ms: Unix time.
    """

    def __init__(
        self,
        store: Access,
        secret: bytes,
        environment: str,
        limits: Limits,
        forget: Callable[[str], Awaitable[object]],
        now_ms: Callable[[], int] = ids.now_ms,
    ) -> None:
        self._store = store
        self._secret = secret
        self._environment = environment
        self._limits = limits
        self._forget = forget
        self._now_ms = now_ms

    async def create(
        self,
        tenant_id: str,
        name: str,
        role: Role,
        *,
        scopes: Sequence[Permission] | None = None,
        networks: Sequence[str] = (),
        tier: str | None = None,
        rate: str | None = None,
        expires_ms: int | None = None,
        actor: str,
        limit: Within,
    ) -> tuple[str, StoredKey]:
        """A new key, and its text, which is nowhere else.

        limit: how far whoever makes it reaches; the key may reach no further.
        Raises BodyRefused with every fault, by its pointer in a `wire.KeyRequest`; Forbidden, KeyWider.
        """
        now_ms = self._now_ms()
        faults = [
            *_name_faults(name),
            *_scope_faults(role, scopes),
            *_network_faults(networks),
            *_rate_faults(self._limits.tiers, tier, rate),
        ]
        if expires_ms is not None and not now_ms < expires_ms <= LATEST_MS:
            faults.append(Fault("/expires_at", "expected a time to come, before the year 9999"))
        if faults:
            raise BodyRefused(faults)
        text, id = mint(self._environment)
        key = StoredKey(
            id=id,
            tenant_id=tenant_id,
            name=name,
            role=role,
            # Each once, in the order of all.
            scopes=None if scopes is None else tuple(one for one in PERMISSIONS if one in scopes),
            digest=digest(text.encode("ascii"), self._secret),
            networks=tuple(dict.fromkeys(str(ip_network(network)) for network in networks)),
            tier=tier,
            rate=rate,
            created_ms=now_ms,
            created_by=actor,
            expires_ms=expires_ms,
        )
        within.check(key, limit, self._limits)
        await self._store.add_key(key, created(key, actor))
        return text, key

    async def read(self, tenant_id: str, id: str) -> StoredKey:
        """A key of the tenant, one that ended too. Raises NotFound."""
        return await self._key(tenant_id, id)

    async def list(self, tenant_id: str | None) -> list[StoredKey]:
        """The tenant's keys, or all, newest first; those that ended too."""
        return await self._store.keys(tenant_id)

    async def keepers(self, tenant_id: str) -> Sequence[StoredKey]:
        """The tenant's working keys that may change keys."""
        now_ms = self._now_ms()
        keys = await self._store.keys(tenant_id)
        return [key for key in keys if works(key, now_ms) and MAY_CHANGE_KEYS in permissions(key)]

    async def revoke(self, tenant_id: str | None, id: str, actor: str, *, even_last: bool = False) -> StoredKey:
        """End a key of the tenant, or, for None, whoever's it is; one revoked before stays as it was.

        even_last: also where the tenant is left without a key that may change keys.  Raises NotFound, Conflict.
        """
        key = await self._key(tenant_id, id)
        if not even_last and await self._is_last(key):
            raise Conflict(
                "This is the tenant's last working key that may change keys. Make another one first, or use `kyb keys`."
            )
        now_ms = self._now_ms()
        told = act(
            key.tenant_id, "key.revoked", actor, id=id, name=key.name, role=key.role, revoked_at=ids.instant(now_ms)
        )
        try:
            ended = await self._store.end_key(key.tenant_id, id, revoked_ms=now_ms, act=told)
        finally:
            # Where the commit was lost sight of, too.
            await self._forget(id)
        if ended is None:
            raise _unknown(id)
        return ended

    async def rotate(
        self,
        tenant_id: str | None,
        id: str,
        actor: str,
        overlap_s: float = 0.0,
        *,
        limit: Within,
    ) -> tuple[str, StoredKey]:
        """A successor with the same rights and the same end, and its text; the old key ends after the overlap.

        tenant_id: as of `revoke`.  limit: as of `create`.
        Raises NotFound, Conflict for a key that does not work any more, Forbidden, KeyWider.
        """
        old = await self._key(tenant_id, id)
        now_ms = self._now_ms()
        if not works(old, now_ms):
            raise _ended(old)
        within.check(old, limit, self._limits)
        text, new_id = mint(self._environment)
        successor = replace(
            old,
            id=new_id,
            digest=digest(text.encode("ascii"), self._secret),
            created_ms=now_ms,
            created_by=actor,
            last_used_ms=None,
            replaces=id,
        )
        ends_ms = now_ms + round(overlap_s * 1000)
        if old.expires_ms is not None:
            ends_ms = min(ends_ms, old.expires_ms)
        rotated = act(
            old.tenant_id, "key.rotated", actor, id=id, name=old.name, successor=new_id, ends_at=ids.instant(ends_ms)
        )
        acts = (rotated, created(successor, actor))
        try:
            done = await self._store.replace_key(old.tenant_id, id, successor, expires_ms=ends_ms, acts=acts)
        finally:
            await self._forget(id)
        if not done:
            raise _ended(await self._key(tenant_id, id))
        return text, successor

    async def _key(self, tenant_id: str | None, id: str) -> StoredKey:
        key = await self._store.key(id) if len(id) == ID_CHARS and id.isascii() and id.isalnum() else None
        if key is None or tenant_id not in (None, key.tenant_id):
            raise _unknown(id)
        return key

    async def _is_last(self, key: StoredKey) -> bool:
        """Whether without the key nobody of its tenant could change keys any more."""
        return [other.id for other in await self.keepers(key.tenant_id)] == [key.id]


def created(key: StoredKey, actor: str) -> Act:
    """The act that tells of a new key, and enough to find out whether its row was changed since. Of what is compared
    with the key's text only the hash: who reads the trail is to learn nothing of it."""
    return act(
        key.tenant_id,
        "key.created",
        actor,
        id=key.id,
        name=key.name,
        role=key.role,
        scopes=key.scopes,
        networks=key.networks or None,
        tier=key.tier,
        rate=key.rate,
        expires_at=None if key.expires_ms is None else ids.instant(key.expires_ms),
        digest_sha256=sha256(key.digest).hexdigest(),
    )


def _name_faults(name: str) -> list[Fault]:
    if not name.strip() or not name.isprintable():
        return [Fault("/name", "expected a name on one line, in characters that can be read")]
    return []


def _scope_faults(role: Role, scopes: Sequence[Permission] | None) -> list[Fault]:
    held = ROLES[role]
    listed = ", ".join(one for one in PERMISSIONS if one in held)
    if scopes is not None and not scopes:
        return [Fault("/scopes", f"a key without any permission is of no use; the role {role} has {listed}")]
    return [
        Fault(pointer("/scopes", index), f"the role {role} does not hold {scope}; it has {listed}")
        for index, scope in enumerate(scopes or ())
        if scope not in held
    ]


def _network_faults(networks: Sequence[str]) -> list[Fault]:
    faults = []
    for index, network in enumerate(networks):
        try:
            if "%" in network:
                raise ValueError("a zone means nothing here")
            ip_network(network)
        except ValueError as error:
            right = "expected a network or an address, such as 10.0.0.0/8 or 2001:db8::1"
            bits = "; it has bits set behind its prefix" if "host bits" in str(error) else ""
            faults.append(Fault(pointer("/networks", index), f'{right}, got "{clipped(network, 40)}"{bits}'))
    return faults


def _rate_faults(tiers: Collection[str], tier: str | None, rate: str | None) -> list[Fault]:
    if tier is not None and rate is not None:
        return [Fault("/rate", "given beside a tier; a key has one of the two")]
    if tier is not None and tier not in tiers:
        return [Fault("/tier", f'expected one of {", ".join(tiers)}, got "{clipped(tier, 40)}"')]
    if rate is not None:
        try:
            parse_rate(rate)
        except Malformed:
            return [Fault("/rate", f'expected {RATE.right}, got "{clipped(rate, 40)}"')]
    return []


def _unknown(id: str) -> NotFound:
    return NotFound(f"key {clipped(id)}")


def _ended(key: StoredKey) -> Conflict:
    how = "expired" if key.revoked_ms is None else "was revoked"
    return Conflict(f"The key {key.id} {how}, so there is nothing to replace. Make a new one.")
