"""How far a key may reach: no further than the one that it is made or replaced with."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from app import ids
from app.errors import Forbidden, KeyWider
from app.faults import pointer
from app.keys.validity import permissions
from app.limits.allowances import rate_of
from app.roles import PERMISSIONS, ROLES, Permission
from app.settings.rates import Rate, show_rate
from app.settings.tree import Limits
from app.store.access import StoredKey
from app.wire import Fault

Network = IPv4Network | IPv6Network


class Within(NamedTuple):
    """What a key may be given at most.

    rate: None for as much as it likes.  networks: where from, empty for everywhere.  expires_ms: Unix time, None for
    without an end.
    """

    permissions: frozenset[Permission]
    rate: Rate | None = None
    networks: tuple[Network, ...] = ()
    expires_ms: int | None = None


OPERATOR = Within(ROLES["admin"])
"""Whoever runs the service may give everything."""


def check(key: StoredKey, within: Within, limits: Limits) -> None:
    """Raises Forbidden for a permission that may not be given, KeyWider with everything else that goes too far."""
    held = permissions(key)
    for permission in PERMISSIONS:
        if permission in held and permission not in within.permissions:
            raise Forbidden(permission)
    faults = [*_network_faults(key, within.networks), *_rate_faults(key, within.rate, limits)]
    if within.expires_ms is not None and (key.expires_ms is None or key.expires_ms > within.expires_ms):
        faults.append(Fault("/expires_at", f"expected {ids.instant(within.expires_ms)} at the latest{_ITS_OWN}"))
    if faults:
        raise KeyWider(faults)


_ITS_OWN = ", as the key has that asks"


def _network_faults(key: StoredKey, own: tuple[Network, ...]) -> list[Fault]:
    if not own:
        return []
    right = f"expected networks within {', '.join(map(str, own))}{_ITS_OWN}"
    if not key.networks:
        return [Fault("/networks", right)]
    return [
        Fault(pointer("/networks", index), f"{right}, not {network}")
        for index, network in enumerate(key.networks)
        if not any(_is_inside(ip_network(network), one) for one in own)
    ]


def _is_inside(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _rate_faults(key: StoredKey, own: Rate | None, limits: Limits) -> list[Fault]:
    if own is None:
        return []
    rate = rate_of(limits, key.tier, key.rate)
    if rate is not None and rate.per_s <= own.per_s and rate.burst <= own.burst:
        return []
    place = "/rate" if key.tier is None else "/tier"
    default = ", the default tier's" if key.tier is None and key.rate is None else ""
    return [Fault(place, f"expected at most {show_rate(own)}{_ITS_OWN}, not {show_rate(rate)}{default}")]
