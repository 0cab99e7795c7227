"""What operators read: without a key from this machine and the networks that are named, with one from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from app.edge.addresses import Addresses
from app.edge.authentication import Guard
from app.edge.gate import Answer, Endpoint
from app.edge.request import Request
from app.errors import Forbidden
from app.roles import Permission

LOOPBACK = ("127.0.0.0/8", "::1/128")


class Nearby:
    """Lets a request through that comes from near, or has a key that may.

    networks: besides this machine itself.

    # Design: such routes are under no rate and no admission, since what they tell is wanted most when nothing else is
    answered. A request that a proxy handed on is never this machine's own, unless the proxy is trusted and says so.
    """

    def __init__(self, guard: Guard, addresses: Addresses, networks: Sequence[str]) -> None:
        self._guard = guard
        self._addresses = addresses
        self._networks = tuple(ip_network(network) for network in (*LOOPBACK, *networks))

    def only(self, endpoint: Endpoint, permission: Permission) -> Endpoint:
        """The endpoint for them. Raises Unauthorized and what else the guard raises, and Forbidden."""

        async def answer(request: Request) -> Answer:
            if not self._is_near(request):
                principal = self._guard.known(request) or await self._guard.find(request)
                request.principal = principal
                if permission not in principal.permissions:
                    raise Forbidden(permission)
            return await endpoint(request)

        return answer

    def _is_near(self, request: Request) -> bool:
        told = self._addresses.of(request)
        if told == request.peer and (request.forwarded is not None or request.x_forwarded_for is not None):
            return False
        try:
            address = ip_address(told)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
