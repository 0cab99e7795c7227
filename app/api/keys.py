"""Keys: make one, list them, end one, replace one. Of the caller's own tenant."""

from __future__ import annotations

import datetime as dt

import msgspec

from app import ids, wire
from app.edge.gate import JSON_TYPE, Answer
from app.edge.request import Request
from app.keys import Keys, Principal
from app.keys.shown import shown, shown_once
from app.keys.within import Within
from app.limits.allowance import Allowance
from app.profiles import read_body
from app.queries import Query, RotateQuery, parse_query
from app.store.access import StoredKey

_encode = msgspec.json.Encoder().encode
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class KeyRing:
    """The endpoints under /v1/keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def create(self, request: Request) -> Answer:
        """Make a key, which reaches no further than the one it is asked for with."""
        parse_query(request.query, Query)
        asked = read_body(request.body, wire.KeyRequest)
        principal = request.principal
        text, key = await self._keys.create(
            principal.tenant_id,
            asked.name,
            asked.role,
            scopes=asked.scopes,
            networks=asked.networks or (),
            tier=asked.tier,
            rate=asked.rate,
            expires_ms=None if asked.expires_at is None else _unix_ms(asked.expires_at),
            actor=principal.key_id,
            limit=_limit(principal),
        )
        return _made(text, key)

    async def list(self, request: Request) -> Answer:
        """All keys of the tenant, newest first."""
        parse_query(request.query, Query)
        now_ms = ids.now_ms()
        keys = await self._keys.list(request.principal.tenant_id)
        return Answer(200, _encode(wire.KeyList([shown(key, now_ms) for key in keys])))

    async def read(self, request: Request) -> Answer:
        """One of them; those that ended too."""
        parse_query(request.query, Query)
        key = await self._keys.read(request.principal.tenant_id, request.path_params["id"])
        return Answer(200, _encode(shown(key, ids.now_ms())))

    async def revoke(self, request: Request) -> Answer:
        """End a key; again, and nothing changes."""
        parse_query(request.query, Query)
        principal = request.principal
        key = await self._keys.revoke(principal.tenant_id, request.path_params["id"], principal.key_id)
        return Answer(200, _encode(shown(key, ids.now_ms())))

    async def rotate(self, request: Request) -> Answer:
        """Replace a key by one with the same rights."""
        query = parse_query(request.query, RotateQuery)
        principal = request.principal
        text, key = await self._keys.rotate(
            principal.tenant_id,
            request.path_params["id"],
            principal.key_id,
            query.overlap_s,
            limit=_limit(principal),
        )
        return _made(text, key)


def _limit(principal: Principal) -> Within:
    """How far the caller reaches, and so a key that they make."""
    allowance = principal.allowance
    rate = allowance.rate("key") if isinstance(allowance, Allowance) else None
    return Within(principal.permissions, rate, principal.networks, principal.expires_ms)


def _unix_ms(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def _made(text: str, key: StoredKey) -> Answer:
    location = (b"location", b"/v1/keys/" + key.id.encode("ascii"))
    return Answer(201, _encode(shown_once(key, text, ids.now_ms())), (JSON_TYPE, location))
