"""Screening alone: POST /match/{dataset}, in the shape of yente."""

from __future__ import annotations

import asyncio
from time import perf_counter

import msgspec

from app.edge.gate import Answer
from app.edge.rates import Rates
from app.edge.request import Request
from app.errors import BatchTooLarge, NotFound, clipped
from app.evidence.lists import ListsInForce
from app.evidence.loaded import LoadedList
from app.evidence.matching import found, query_of, result
from app.profiles import read_body
from app.queries import MatchQuery, parse_query
from app.yente import MATCHER, MatchAnswer, MatchRequest, MatchResponse, Total

ALL = "default"
MOST_QUERIES = 500
CUTOFF = 0.5
SLICE_S = 0.002

_encode = msgspec.json.Encoder().encode


class Matching:
    """The endpoint /match/{dataset}."""

    def __init__(self, lists: ListsInForce, rates: Rates) -> None:
        self._lists = lists
        self._rates = rates

    async def match(self, request: Request) -> Answer:
        """Search for each query. A dataset is a list's name, or `default` for all of them."""
        query = parse_query(request.query, MatchQuery)
        lists = self._named(request.path_params["dataset"])
        asked = read_body(request.body, MatchRequest).queries
        if len(asked) > MOST_QUERIES:
            raise BatchTooLarge(MOST_QUERIES)
        await self._rates.charge(request, len(asked))
        threshold = self._lists.loaded.threshold if query.threshold is None else query.threshold
        cutoff = min(CUTOFF, threshold) if query.cutoff is None else query.cutoff
        responses: dict[str, MatchResponse] = {}
        slice_end = perf_counter() + SLICE_S
        for name, one in asked.items():
            sought = query_of(one.schema, one.properties)
            matches = [] if sought is None else found(sought, lists, cutoff, query.limit)
            results = [result(listed, match, threshold) for listed, match in matches]
            responses[name] = MatchResponse(200, results, Total(len(results)), one)
            if perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        return Answer(200, _encode(MatchAnswer(responses, MATCHER, query.limit)))

    def _named(self, dataset: str) -> tuple[LoadedList, ...]:
        loaded = self._lists.loaded
        if dataset == ALL:
            return loaded.lists
        listed = loaded.named(dataset)
        if listed is None:
            raise NotFound(f"watchlist {clipped(dataset)}")
        return (listed,)
