"""Models: those known, which is active, and what each says."""

from __future__ import annotations

import msgspec

from app import wire
from app.edge.gate import Answer
from app.edge.request import Request
from app.errors import NotFound, clipped
from app.queries import Query, parse_query
from app.registry import Registry
from app.store.base import Store

_encode = msgspec.json.Encoder().encode


class Models:
    """The endpoints under /v1/models."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store

    async def list(self, request: Request) -> Answer:
        parse_query(request.query, Query)
        return Answer(200, _encode(wire.ModelList(await self._registry.known(self._store))))

    async def read(self, request: Request) -> Answer:
        parse_query(request.query, Query)
        model_id, version = request.path_params["id"], request.path_params["version"]
        found = await self._registry.detail(model_id, version, self._store)
        if not found:
            raise NotFound(f"model {clipped(model_id)} in version {clipped(version)}")
        return Answer(200, _encode(found[0]))
