"""Whose requests are taken from which buckets: of a key, its tenant and the whole service, and of an address."""

from __future__ import annotations

import logging
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from app.cache.envelope import tenant_bytes
from app.cache.slots import tag
from app.limits.allowance import Allowance, Bucket
from app.settings.rates import Rate, parse_rate
from app.settings.tree import Limits
from app.store.access import StoredKey

log = logging.getLogger(__name__)

MOST_KEPT = 10_000
HOST_BITS = 64
"""Of an IPv6 address: one host commonly has as many addresses as these bits can tell apart."""


class Allowances:
    """The allowances that the settings give to keys, and to the refused logins of an address.

    failures: None where refused logins are not limited.  most: how many of each kind are kept; the same key with the
    same tier or rate then has the same allowance. `None` for one is unlimited.
    """

    __slots__ = ("_made_for_address", "_made_for_key")

    def __init__(self, limits: Limits, failures: Rate | None, most: int = MOST_KEPT) -> None:
        service = _bucket("service", b"service", limits.service)

        def for_key(tenant_id: str, id: str, tier: str | None, rate: str | None) -> Allowance | None:
            if rate is None and tier is not None and tier not in limits.tiers:
                log.warning(
                    "the key %s has the tier %s, which limits.tiers does not name; it gets the default one", id, tier
                )
            # On a cluster what stands in braces keeps a tenant's buckets together.
            whose = tag(tenant_bytes(tenant_id))
            buckets = (
                *_bucket("key", b"{%b}:key:%b" % (whose, id.encode("ascii")), rate_of(limits, tier, rate)),
                *_bucket("tenant", b"{%b}:tenant" % whose, limits.tenant),
                *service,
            )
            return Allowance(buckets) if buckets else None

        def for_address(address: str) -> Allowance | None:
            buckets = _bucket(None, b"address:" + neighbourhood(address).encode("ascii"), failures)
            return Allowance(buckets) if buckets else None

        self._made_for_key = lru_cache(most)(for_key)
        self._made_for_address = lru_cache(most)(for_address)

    def of_key(self, key: StoredKey) -> Allowance | None:
        """What the key's requests are taken from: first its own bucket, then its tenant's, then the service's."""
        return self._made_for_key(key.tenant_id, key.id, key.tier, key.rate)

    def of_address(self, address: str) -> Allowance | None:
        """What refused logins are taken from, of an IPv4 address or of the /64 of an IPv6 address. Not told to callers.

        Whatever else stands for an address shares one bucket.
        """
        return self._made_for_address(address)


def _bucket(name: str | None, place: bytes, rate: Rate | None) -> tuple[Bucket, ...]:
    return () if rate is None else (Bucket(name, b"kyb:limit:" + place, rate),)


def rate_of(limits: Limits, tier: str | None, rate: str | None) -> Rate | None:
    """A key's own rate, or else its tier's; a tier that the settings do not name any more is the default one."""
    if rate is not None:
        return parse_rate(rate)
    return limits.tiers[tier if tier is not None and tier in limits.tiers else limits.default_tier]


def neighbourhood(address: str) -> str:
    """Whose refused logins count together: an IPv4 address, the /64 of an IPv6 address, `unknown` for anything else."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is None:
            return f"{IPv6Address(int(found) >> HOST_BITS << HOST_BITS)}/{HOST_BITS}"
        found = found.ipv4_mapped
    return str(found)
