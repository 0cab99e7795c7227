"""Every store keeps each checkpoint once and in order, and finds the heads that none holds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from records import BACKENDS, Backend, Records, ids, row
from trails import FIRST_MS

from app.ids import now_ms, time_ms
from app.store.base import opened
from app.store.trail import Checkpoint, Head, act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


def checkpoint(number: int, *heads: Head, tenant_id: str = "acme", **fields: Any) -> Checkpoint:
    made = Checkpoint(tenant_id, number, FIRST_MS + number, 7, heads, b"p" * 32, b"h" * 32, b"m" * 32)
    return msgspec.structs.replace(made, **fields)


def test_checkpoints_are_kept_in_order_and_each_number_once(backend: Backend) -> None:
    heads = sorted(Head(ids.new(), number, b"x" * 32) for number in (5, 9))
    first, second = checkpoint(1, *heads), checkpoint(2)
    theirs = checkpoint(1, tenant_id="other")

    async def scenario(store: Records) -> None:
        assert await store.last_checkpoint("acme") is None
        assert await store.head_number("acme", heads[0].segment) == 0
        assert await store.add_checkpoint(first)
        # The same again is the same: its first commit may have been lost sight of.
        assert await store.add_checkpoint(first)
        assert not await store.add_checkpoint(checkpoint(1, Head(heads[0].segment, 99, b"y" * 32), mac=b"n" * 32))
        assert await store.head_number("acme", heads[0].segment) == 5
        assert await store.add_checkpoint(second)
        assert await store.add_checkpoint(theirs)
        assert await store.last_checkpoint("acme") == second
        assert await store.checkpoints("acme", after=0, limit=9) == [first, second]
        assert await store.checkpoints("acme", after=0, limit=1) == [first]
        assert await store.checkpoints("acme", after=1, limit=9) == [second]
        assert await store.trails() == ["acme", "other"]

    backend.run(scenario)


def test_the_greatest_number_of_a_segment_is_what_is_covered(backend: Backend) -> None:
    segment = ids.new()

    async def scenario(store: Records) -> None:
        for place, number in enumerate((4, 9, 6), 1):
            assert await store.add_checkpoint(checkpoint(place, Head(segment, number, b"x" * 32)))
        assert await store.head_number("acme", segment) == 9
        assert await store.head_number("other", segment) == 0

    backend.run(scenario)


def test_of_two_who_make_the_same_checkpoint_one_does(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        async with opened(backend.make()) as other:
            for number in range(1, 20):
                mine, theirs = checkpoint(number, mac=b"1" * 32), checkpoint(number, mac=b"2" * 32)
                kept = await asyncio.gather(store.add_checkpoint(mine), other.add_checkpoint(theirs))
                assert sorted(kept) == [False, True]

    backend.run(scenario)


def test_heads_that_no_checkpoint_holds_are_found_of_segments_begun_since(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        since_ms = now_ms()
        assert await store.uncovered(since_ms) == {}
        for tenant_id in ("", "acme", "other", "acme"):
            await store.note([act(tenant_id, "a", "k")])
        await store.add([row("acme"), row("third")])
        moved = store.moved()
        assert sorted(moved) == ["", "acme", "other", "third"]
        assert store.moved() == {}
        assert await store.uncovered(since_ms) == moved
        assert await store.uncovered(now_ms() + 1_000) == {}
        assert await store.add_checkpoint(checkpoint(1, *moved["acme"]))
        assert await store.add_checkpoint(checkpoint(1, tenant_id="third"))
        left = {tenant_id: heads for tenant_id, heads in moved.items() if tenant_id != "acme"}
        assert await store.uncovered(since_ms) == left
        await store.note([act("acme", "a", "k")])
        assert await store.uncovered(since_ms) == left | store.moved()

    async def after_a_restart(store: Records) -> None:
        begun_ms = [time_ms(segment) for segment in await store.segments("acme")]
        await store.note([act("acme", "b", "k")])
        segments = await store.segments("acme")
        assert len(segments) > len(begun_ms)
        assert sorted(segments) == segments
        assert len((await store.uncovered(max(begun_ms) + 1))["acme"]) == 1

    backend.run(scenario)
    asyncio.run(asyncio.sleep(0.002))
    backend.run(after_a_restart)
