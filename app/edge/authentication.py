"""Who calls: a key's principal, or a refusal that tells a guesser nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Protocol

from app.credentials import recognise
from app.edge.addresses import Addresses
from app.edge.request import Request
from app.errors import TooManyRequests, Unauthorized
from app.keys import Ended, Principal
from app.limits.allowances import neighbourhood
from app.limits.limiter import Allowance, Limiter
from app.roles import PERMISSIONS
from app.store.trail import SYSTEM_TENANT, Act, act

REFUSAL_S = 0.02
"""How long every refusal takes at least, whatever it is refused for and wherever that was found out."""


REFUSED = "login.refused"


class Authenticator(Protocol):
    """One way to tell who sent a credential. API keys are one; tokens of an identity provider would be another."""

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, if that is known without waiting."""

    def remembers(self, credential: bytes) -> bool:
        """Whether it may be somebody's who was let in here some time ago."""

    async def find(self, credential: bytes) -> Principal | Ended | None:
        """Whose it is or was, None for nobody's. Raises StoreUnavailable where that cannot be found out now."""


class Guard(Protocol):
    """What the gate asks who a request comes from."""

    def known(self, request: Request) -> Principal | None:
        """The principal, if that is known without waiting."""

    async def find(self, request: Request) -> Principal:
        """The principal. Raises Unauthorized, TooManyRequests, StoreUnavailable."""


class Authentication:
    """Finds the principal of a request.

    failures_of: the allowance that refused logins of an address are taken from, None where they are not limited.
    note: told of each refused login, and of what does not make it another one.  refusal_s: as REFUSAL_S.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        addresses: Addresses,
        limiter: Limiter,
        failures_of: Callable[[str], Allowance | None],
        note: Callable[[Act, Mapping[str, object]], None],
        *,
        refusal_s: float = REFUSAL_S,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._addresses = addresses
        self._limiter = limiter
        self._failures_of = failures_of
        self._note = note
        self._refusal_s = refusal_s

    def known(self, request: Request) -> Principal | None:
        """The principal of a credential that was seen a moment ago."""
        credential = request.credential
        if not credential:
            return None
        for authenticator in self._authenticators:
            principal = authenticator.known(credential)
            if principal is not None:
                return principal if not principal.networks or self._is_near(principal, request) else None
        return None

    async def find(self, request: Request) -> Principal:
        """The principal. Raises Unauthorized, TooManyRequests after too many refusals, StoreUnavailable."""
        loop = asyncio.get_running_loop()
        told_at = loop.time() + self._refusal_s
        failures = self._failures_of(self._addresses.of(request))
        wait_s = 0.0 if failures is None else self._limiter.refusal(failures)
        credential = request.credential
        # Whoever guesses beside others, behind the same address, must not lock them out.
        if wait_s > 0 and not (credential and any(one.remembers(credential) for one in self._authenticators)):
            raise _too_many(wait_s)
        ended: Ended | None = None
        if credential:
            for authenticator in self._authenticators:
                found = await authenticator.find(credential)
                if isinstance(found, Ended):
                    ended = found
                elif found is not None:
                    if self._is_near(found, request):
                        return found
                    ended = Ended(found.key_id, found.tenant_id, "network")
        raise await self._refusal(request, ended, failures, told_at)

    async def _refusal(
        self, request: Request, ended: Ended | None, failures: Allowance | None, told_at: float
    ) -> Exception:
        """What a request without a key that works is told, once enough time has gone by. ended: the key that it has."""
        self._note_refusal(request, ended)
        taken = None if failures is None else await self._limiter.take(failures, 1)
        await asyncio.sleep(told_at - asyncio.get_running_loop().time())
        if taken is not None and not taken.granted:
            return _too_many(taken.wait_s)
        return Unauthorized()

    def _note_refusal(self, request: Request, ended: Ended | None) -> None:
        """Tell the service's own trail, and that of the tenant whose key it was. Of one address the sum is told."""
        address = self._addresses.of(request)
        network = neighbourhood(address)
        named = recognise(request.credential) if request.credential else None
        self._note(act(SYSTEM_TENANT, REFUSED, "", network=network), {"address": address, "key": named})
        if ended is not None:
            told = act(ended.tenant_id, REFUSED, "", key=ended.key_id, why=ended.why, network=network)
            self._note(told, {"address": address})

    def _is_near(self, principal: Principal, request: Request) -> bool:
        """Whether the key may be used from where the request comes from."""
        if not principal.networks:
            return True
        try:
            address = ip_address(self._addresses.of(request))
        except ValueError:
            return False
        return any(address in network for network in principal.networks)


class Anyone:
    """The guard of a service whose authentication is switched off: everybody is its administrator."""

    def __init__(self, tenant_id: str) -> None:
        self.principal = Principal(
            key_id="anyone", tenant_id=tenant_id, role="admin", permissions=frozenset(PERMISSIONS), networks=(),
            expires_ms=None, allowance=None,
        )  # fmt: skip

    def known(self, request: Request) -> Principal | None:
        """The administrator, whoever asks."""
        return self.principal

    async def find(self, request: Request) -> Principal:
        """The same."""
        return self.principal


def _too_many(wait_s: float) -> TooManyRequests:
    return TooManyRequests("Too many logins were refused for this address. Wait before the next.", wait_s)
