"""What is entered in the trail comes under signed checkpoints, whoever else makes some and whatever is away."""

from __future__ import annotations

import asyncio
import logging
import threading

import msgspec
import pytest
from audited import FOREVER_S, KEY, SOON_S, noted, nothing
from cached import until
from memorytrail import MemoryTrail, Shelf

from app import ids
from app.audit.checkpoints import ADOPT_EVERY_MS, ADOPTED_MS, Checkpoints, checkpoint_hash, signature
from app.audit.verification import verify
from app.store.chain import GENESIS
from app.store.trail import SYSTEM_TENANT, Checkpoint, Head


def test_a_checkpoint_covers_what_moved_since_the_one_before() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        seen: list[Checkpoint] = []
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, seen.append, clock=lambda: 1_700_000_000_000)
        await noted(trail, "acme", 3)
        await noted(trail, "zeta", 2)
        assert await checkpoints.cover()
        assert await checkpoints.cover()
        await noted(trail, "acme", 4)
        assert await checkpoints.cover()
        assert seen == trail.shelf.checkpoints
        assert [(one.tenant_id, one.number, one.entries) for one in seen] == [
            ("acme", 1, 3),
            ("zeta", 1, 2),
            ("acme", 2, 7),
        ]
        first, _, second = seen
        assert (first.previous, second.previous) == (GENESIS, first.hash)
        assert second.heads == trail.shelf.checkpoints[2].heads
        assert [head.number for head in second.heads] == [7]
        assert second.hash == checkpoint_hash("acme", 2, 1_700_000_000_000, 7, second.heads, first.hash)
        assert second.mac == signature(KEY, second.hash)
        assert (await verify(trail, KEY, None)).intact

    asyncio.run(scenario())


def test_every_fact_of_a_checkpoint_changes_its_hash() -> None:
    facts = ("acme", 1, 2, 3, (), GENESIS)
    others = ("acmf", 2, 3, 4, [Head(b"s" * 16, 1, b"h" * 32)], b"\1" * 32)
    changed = [checkpoint_hash(*facts[:n], other, *facts[n + 1 :]) for n, other in enumerate(others)]
    assert len({checkpoint_hash(*facts), *changed}) == 7


def test_a_number_taken_by_another_process_is_tried_again_from_the_last_one() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        mine, theirs = MemoryTrail(shelf), MemoryTrail(shelf)
        ours = Checkpoints(mine, KEY, FOREVER_S, nothing, random=lambda: 0.0)
        others = Checkpoints(theirs, KEY, FOREVER_S, nothing)
        add, races = mine.add_checkpoint, 3

        async def late(checkpoint: Checkpoint) -> bool:
            nonlocal races
            if races:
                races -= 1
                await noted(theirs, "acme")
                assert await others.cover()
            return await add(checkpoint)

        mine.add_checkpoint = late  # type: ignore[method-assign]
        assert await others.cover()
        await noted(mine, "acme", 5)
        assert await ours.cover()
        assert [one.entries for one in shelf.checkpoints] == [1, 2, 3, 8]
        report = await verify(mine, KEY, None)
        assert (report.intact, report.trails[0].after) == (True, 0)

    asyncio.run(scenario())


def test_what_could_not_be_covered_waits_for_the_next_round() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing, random=lambda: 0.0)
        add = trail.add_checkpoint

        async def taken(checkpoint: Checkpoint) -> bool:
            return False

        await noted(trail, "acme", 2)
        trail.add_checkpoint = taken  # type: ignore[method-assign]
        assert not await checkpoints.cover()
        trail.add_checkpoint = add  # type: ignore[method-assign]
        await noted(trail, "zeta")
        assert await checkpoints.cover()
        assert [(one.tenant_id, one.entries) for one in trail.shelf.checkpoints] == [("acme", 2), ("zeta", 1)]

    asyncio.run(scenario())


def test_while_the_store_is_away_heads_wait_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        await noted(trail, "acme", 2)
        trail.is_away = True
        for _ in range(3):
            assert not await checkpoints.cover()
        trail.is_away = False
        assert await checkpoints.cover()
        assert [one.entries for one in trail.shelf.checkpoints] == [2]

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert caplog.text.count("waits for its checkpoint") == 1
    assert caplog.text.count("takes checkpoints again") == 1


def test_the_task_covers_what_moves_and_a_stop_covers_the_rest() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, SOON_S, nothing)
        checkpoints.start()
        for entries in (1, 2):
            await noted(trail, "acme")
            await until(lambda entries=entries: checkpoints.made >= entries)
        await noted(trail, "acme", 3)
        await checkpoints.stop()
        assert trail.shelf.checkpoints[-1].entries == 5

        idle = Checkpoints(trail, KEY, FOREVER_S, nothing)
        idle.start()
        await asyncio.sleep(0)
        await noted(trail, "acme")
        await idle.stop()
        assert trail.shelf.checkpoints[-1].entries == 6

    asyncio.run(scenario())


def test_what_a_killed_process_left_is_adopted_at_the_start_and_from_time_to_time() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        killed = MemoryTrail(shelf)
        await noted(killed, "acme", 3)
        await noted(killed, SYSTEM_TENANT)
        now_ms = ids.now_ms()
        checkpoints = Checkpoints(MemoryTrail(shelf), KEY, FOREVER_S, nothing, clock=lambda: now_ms)
        assert await checkpoints.cover()
        assert {one.tenant_id: one.entries for one in shelf.checkpoints} == {SYSTEM_TENANT: 1, "acme": 3}

        await noted(killed, "acme")
        assert await checkpoints.cover()
        assert len(shelf.checkpoints) == 2
        now_ms += ADOPT_EVERY_MS
        assert await checkpoints.cover()
        assert shelf.checkpoints[-1].entries == 4

        # What began longer ago is no more of a process that was killed just now.
        await noted(killed, "acme")
        now_ms += ADOPTED_MS
        assert await checkpoints.cover()
        assert len(shelf.checkpoints) == 3

    asyncio.run(scenario())


def test_an_anchor_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def full(checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, full)
        for _ in range(2):
            await noted(trail, "acme")
            assert await checkpoints.cover()
        assert len(trail.shelf.checkpoints) == 2

    asyncio.run(scenario())
    assert "could not be anchored: [Errno 28]" in caplog.text


def test_an_anchor_is_told_outside_of_the_event_loop() -> None:
    threads: list[threading.Thread] = []

    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, lambda _: threads.append(threading.current_thread()))
        await noted(trail, "acme")
        assert await checkpoints.cover()

    asyncio.run(scenario())
    assert threads
    assert threading.main_thread() not in threads


def test_a_checkpoint_that_is_gone_is_noticed_by_who_saw_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        for _ in range(3):
            await noted(trail, "ac\nme")
            assert await checkpoints.cover()
        assert "is gone" not in caplog.text
        del trail.shelf.checkpoints[-1]
        await noted(trail, "ac\nme")
        assert await checkpoints.cover()

    asyncio.run(scenario())
    assert 'a checkpoint is gone {"tenant":"ac\\nme","number":3' in caplog.text


def test_one_tenant_whose_checkpoints_cannot_be_read_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        last = trail.last_checkpoint

        async def broken(tenant_id: str) -> Checkpoint | None:
            if tenant_id == "acme":
                raise msgspec.DecodeError("not heads")
            return await last(tenant_id)

        trail.last_checkpoint = broken  # type: ignore[method-assign]
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        for _ in range(2):
            await noted(trail, "acme")
            await noted(trail, "zeta")
            assert not await checkpoints.cover()
        assert [(one.tenant_id, one.entries) for one in trail.shelf.checkpoints] == [("zeta", 1), ("zeta", 2)]

    asyncio.run(scenario())
    assert caplog.text.count("no checkpoint can be made") == 1
