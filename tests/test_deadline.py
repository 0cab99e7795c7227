"""One deadline for many waits."""

from __future__ import annotations

import asyncio

import pytest

from app.resilience.deadline import Deadline, DeadlineExceeded


def test_a_wait_that_ends_in_time_gives_its_answer() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 3

    async def scenario() -> None:
        deadline = Deadline(60)
        assert await deadline.run(answer()) == 3
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        assert await deadline.run(future) == 1

    asyncio.run(scenario())


def test_after_the_deadline_the_wait_is_cancelled_and_the_task_goes_on() -> None:
    async def scenario() -> None:
        deadline = Deadline(0.001)
        for _ in range(3):
            future = asyncio.get_running_loop().create_future()
            with pytest.raises(DeadlineExceeded) as late:
                await deadline.run(future)
            assert late.value.timeout_s == 0.001
            assert future.cancelled()
            assert await asyncio.sleep(0, "still here") == "still here"

    asyncio.run(scenario())


def test_each_wait_has_its_own_end_though_they_share_a_timer() -> None:
    async def wait(deadline: Deadline, future: asyncio.Future[int]) -> int | None:
        try:
            return await deadline.run(future)
        except DeadlineExceeded:
            return None

    async def scenario() -> None:
        deadline = Deadline(0.02)
        loop = asyncio.get_running_loop()
        first, second, third = (loop.create_future() for _ in range(3))
        waits = [asyncio.create_task(wait(deadline, future)) for future in (first, second)]
        await asyncio.sleep(0)
        second.set_result(2)
        assert await asyncio.gather(*waits) == [None, 2]
        assert await wait(deadline, third) is None

    asyncio.run(scenario())


def test_errors_and_cancellation_pass_the_deadline_unchanged() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    async def scenario() -> None:
        deadline = Deadline(60)
        with pytest.raises(TimeoutError, match="its own"):
            await deadline.run(fail())
        waiting = asyncio.create_task(deadline.run(asyncio.get_running_loop().create_future()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await deadline.run(asyncio.sleep(0, 5)) == 5

    asyncio.run(scenario())
