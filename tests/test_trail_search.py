"""Entries are found in every store by what they say, newest first, and a search ends in time."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from typing import Any

import pytest
from records import BACKENDS, Backend, Records, ids, row
from trails import split, whole

from app.store import trail_search
from app.store.base import Row, StoreUnavailable
from app.store.chain import AuditEntry
from app.store.trail import RECORDED, Position, act
from app.store.trail_search import Wanted, position


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


async def fill(store: Records) -> list[Row]:
    """Group commits of two keys and of both, and acts between them."""
    rows = []
    for number in range(30):
        some = [row(), row()]
        rows += some
        await asyncio.gather(
            store.add(some[:1], actor=f"k{number % 2}"),
            store.add(some[1:], actor=f"k{number % 3 % 2}"),
        )
        if number % 5 == 0:
            await store.note([act("acme", "assessment.replayed", f"k{number % 2}", [some[0].id])])
        if number % 7 == 0:
            await store.note([act("acme", "key.created", "cli"), act("other", "key.created", "cli")])
    return rows


def is_by(entry: AuditEntry, actor: str) -> bool:
    return entry.actor == actor or (
        entry.act == RECORDED and entry.actor == "" and actor in [one for one, _ in json.loads(entry.detail)["actors"]]
    )


def test_entries_are_found_by_what_they_say_newest_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_search, "SLICE", 7)

    async def scenario(store: Records) -> None:
        rows = await fill(store)
        everything = sorted(await whole(store), key=position, reverse=True)
        middle = everything[len(everything) // 2]
        for name, actor, assessment in product(
            (None, RECORDED, "assessment.replayed", "key.created", "no.such"),
            (None, "k0", "cli", "k"),
            (None, rows[0].id, rows[-1].id, ids.new()),
        ):
            for bounds in ({}, {"since_ms": middle.at_ms}, {"before_ms": middle.at_ms}, {"before": position(middle)}):
                since_ms, before_ms = bounds.get("since_ms", 0), bounds.get("before_ms", 2**62)
                expected = [
                    one
                    for one in everything
                    if (name is None or one.act == name)
                    and (actor is None or is_by(one, actor))
                    and (assessment is None or assessment in split(one))
                    and since_ms <= one.at_ms < before_ms
                    and ("before" not in bounds or position(one) < position(middle))
                ]
                wanted: dict[str, Any] = {"act": name, "actor": actor, "assessment": assessment, **bounds}
                assert await store.entries("acme", limit=1_000, **wanted) == expected, wanted
                assert await store.entries("acme", limit=3, **wanted) == expected[:3], wanted
        assert await store.entries("nobody", limit=9) == []

    backend.run(scenario)


@pytest.mark.parametrize("filters", [{}, {"actor": "k1"}, {"act": RECORDED}])
def test_entries_are_walked_by_the_last_position(filters: dict[str, Any], backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        await fill(store)
        seen: list[AuditEntry] = []
        while page := await store.entries("acme", limit=4, before=position(seen[-1]) if seen else None, **filters):
            seen += page
        assert seen == await store.entries("acme", limit=1_000, **filters)
        assert len(seen) > 8

    backend.run(scenario)


def test_a_search_that_takes_too_long_tells_what_it_found_or_to_narrow_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_search, "SLICE", 5)
    monkeypatch.setattr(trail_search, "SEARCH_S", 0.0)

    async def scenario(store: Records) -> None:
        for number in range(12):
            await store.add([row()], actor=f"k{number // 8}")
        newest = await store.entries("acme", limit=12)
        assert await store.entries("acme", actor="k1", limit=12) == newest[:4]
        with pytest.raises(StoreUnavailable, match="narrower"):
            await store.entries("acme", actor="k0", before=position(newest[3]), act="key.created", limit=12) or (
                await store.entries("acme", actor="nobody", limit=12)
            )

    backend.run(scenario)


def test_two_ids_side_by_side_are_not_taken_for_a_third(backend: Backend) -> None:
    subjects = [ids.new(), ids.new()]
    across = (subjects[0] + subjects[1])[8:24]

    async def scenario(store: Records) -> None:
        await store.note([act("acme", "assessment.replayed", "k1", subjects)])
        [entry] = await store.entries("acme", assessment=subjects[1], limit=9)
        assert split(entry) == subjects
        between = Wanted("acme", acts_only=True, assessment=across)
        low, high = Position(0, bytes(16), 0), Position(2**62, bytes(16), 0)
        assert await store._walk(between, low, high, 9, 0.0) == ([], None)  # type: ignore[attr-defined]

    backend.run(scenario)
