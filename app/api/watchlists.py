"""The lists in force: which they are, and how fresh."""

from __future__ import annotations

import msgspec

from app import ids, wire
from app.edge.gate import Answer
from app.edge.request import Request
from app.evidence.lists import ListsInForce
from app.evidence.loaded import Loaded, LoadedList
from app.queries import Query, parse_query

_encode = msgspec.json.Encoder().encode


class Watchlists:
    """The endpoint /v1/watchlists."""

    def __init__(self, lists: ListsInForce) -> None:
        self._lists = lists

    async def list(self, request: Request) -> Answer:
        """All lists in force in this process, by name."""
        parse_query(request.query, Query)
        loaded = self._lists.loaded
        return Answer(
            200,
            _encode(
                wire.WatchlistInfos(loaded.complete, list(loaded.missing), [shown(one, loaded) for one in loaded.lists])
            ),
        )


def shown(one: LoadedList, loaded: Loaded) -> wire.WatchlistInfo:
    """A list as answers show it."""
    known = one.known
    return wire.WatchlistInfo(
        name=known.name,
        title=known.title,
        source=known.source,
        format=known.format,
        version=one.version,
        published=known.published,
        sha256=known.content_sha256.hex(),
        entities=known.entities,
        names=known.names,
        required=known.name in loaded.required,
        stale=known.name in loaded.stale,
        added_at=ids.instant(known.added_ms),
        checked_at=ids.instant(known.checked_ms),
        loaded_at=ids.instant(one.loaded_ms),
    )
