"""The batcher and the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.batcher import Batcher, Closed, Overloaded


class Gate:
    """A send that records its batches and answers them when it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int | BaseException]:
        self.batches.append(items)
        await self.open.wait()
        return [ValueError(item) if item < 0 else item * 2 for item in items]


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_items_of_one_turn_leave_in_one_batch() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        batcher = Batcher(gate)
        assert await asyncio.gather(*map(batcher.submit, range(5))) == [0, 2, 4, 6, 8]
        assert gate.batches == [[0, 1, 2, 3, 4]]
        assert (batcher.batches, batcher.items) == (1, 5)

    asyncio.run(scenario())


def test_items_that_come_while_the_lane_is_busy_leave_together_when_it_is_free() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_batch=3)
        waiting = [batcher.put(0)]
        await turn()
        for item in range(1, 6):
            waiting.append(batcher.put(item))
            await turn()
        assert gate.batches == [[0]]
        assert batcher.waiting == 5
        gate.open.set()
        await asyncio.gather(*waiting)
        assert gate.batches == [[0], [1, 2, 3], [4, 5]]

    asyncio.run(scenario())


def test_an_error_in_the_answers_goes_to_its_item_only() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        batcher = Batcher(gate)
        answers = await asyncio.gather(*map(batcher.submit, (1, -1, 2)), return_exceptions=True)
        assert answers[0::2] == [2, 4]
        assert isinstance(answers[1], ValueError)

    asyncio.run(scenario())


def test_an_error_of_the_send_goes_to_every_item_and_the_next_batch_is_sent() -> None:
    async def scenario() -> None:
        async def send(items: list[int]) -> list[int]:
            if 0 in items:
                raise OSError("line is down")
            return items

        batcher = Batcher(send)
        failed = await asyncio.gather(*map(batcher.submit, range(3)), return_exceptions=True)
        assert [type(answer) for answer in failed] == [OSError] * 3
        assert await batcher.submit(7) == 7

    asyncio.run(scenario())


def test_a_send_that_loses_answers_is_an_error_for_its_batch() -> None:
    async def scenario() -> None:
        async def send(items: list[int]) -> list[int]:
            return items[1:]

        with pytest.raises(RuntimeError, match="0 of 1"):
            await Batcher(send).submit(1)

    asyncio.run(scenario())


def test_a_cancelled_waiter_leaves_its_neighbours_alone() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        sent, neighbour = batcher.put(1), batcher.put(2)
        await turn()
        unsent, later = batcher.put(3), batcher.put(4)
        sent.cancel()
        unsent.cancel()
        gate.open.set()
        assert await neighbour == 4
        assert await later == 8
        assert gate.batches == [[1, 2], [4]]

    asyncio.run(scenario())


def test_a_full_queue_refuses() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_queue=2)
        first = batcher.put(0)
        await turn()
        waiting = [first, batcher.put(1), batcher.put(2)]
        with pytest.raises(Overloaded) as refused:
            batcher.put(3)
        assert (refused.value.waiting, refused.value.limit) == (2, 2)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert await batcher.submit(3) == 6

    asyncio.run(scenario())


def test_closing_sends_what_waits_and_then_refuses() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_batch=2)
        waiting = [batcher.put(item) for item in range(5)]
        closing = asyncio.create_task(batcher.close())
        await turn()
        with pytest.raises(Closed):
            batcher.put(9)
        gate.open.set()
        await closing
        assert [future.result() for future in waiting] == [0, 2, 4, 6, 8]
        await batcher.close()

    asyncio.run(scenario())


def test_a_loop_that_ends_cancels_the_waiters() -> None:
    async def scenario() -> list[asyncio.Future[int]]:
        batcher = Batcher(Gate())
        waiting = [batcher.put(1)]
        await turn()
        return [*waiting, batcher.put(2)]

    assert all(future.cancelled() for future in asyncio.run(scenario()))


@given(st.lists(st.one_of(st.integers(-3, 50), st.just("turn"), st.just("cancel")), max_size=60), st.integers(1, 7))
def test_whatever_happens_each_waiter_gets_the_answer_to_its_own_item(steps: list[int | str], max_batch: int) -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_batch=max_batch)
        waiting: list[tuple[int, asyncio.Future[int]]] = []
        for step in steps:
            if isinstance(step, int):
                waiting.append((step, batcher.put(step)))
            elif step == "turn":
                gate.open.set()
                await turn()
                gate.open.clear()
            elif waiting:
                waiting[len(waiting) // 2][1].cancel()
        gate.open.set()
        await batcher.close()
        for item, future in waiting:
            assert future.done()
            if future.cancelled():
                continue
            assert (type(future.exception()) is ValueError) if item < 0 else (future.result() == item * 2)
        assert max(map(len, gate.batches), default=0) <= max_batch
        assert batcher.items == sum(map(len, gate.batches))

    asyncio.run(scenario())
