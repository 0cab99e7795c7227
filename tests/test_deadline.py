"""One deadline for many waits, and what is left of the nearest."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from contextvars import Context

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.deadline import Deadline, DeadlineExceeded, remaining_s


class LoopClock:
    """The running loop's time, standing still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        asyncio.get_running_loop().time = lambda: self.now

    async def move(self, seconds: float) -> None:
        """Let time pass, and everything run that is then due."""
        self.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)


def nothing() -> asyncio.Future[None]:
    """A wait without end."""
    return asyncio.get_running_loop().create_future()


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


def test_an_answer_that_lay_unread_while_the_loop_was_busy_is_in_time() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        asking, answering = socket.socketpair()
        with asking, answering:
            asking.setblocking(False)

            async def read() -> bytes:
                return await loop.sock_recv(asking, 1)

            async def handed_on() -> bytes:
                return await asyncio.create_task(read())

            deadline = Deadline(0.05)
            asked = asyncio.create_task(deadline.run(handed_on()))
            await asyncio.sleep(0.01)
            answering.send(b"x")
            time.sleep(0.1)  # noqa: ASYNC251
            assert await asked == b"x"
            with pytest.raises(DeadlineExceeded):
                await deadline.run(handed_on())

    for run in (asyncio.run, uvloop.run):
        run(scenario())


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


def test_what_remains_is_told_within_a_wait_and_nowhere_else() -> None:
    async def scenario() -> None:
        clock = LoopClock()
        seen: list[float | None] = []

        async def look() -> None:
            seen.append(remaining_s())
            clock.now += 1.5
            seen.append(remaining_s())
            clock.now += 1
            seen.append(remaining_s())

        assert remaining_s() is None
        await Deadline(2).run(look())
        assert seen == [2, 0.5, 0]
        assert remaining_s() is None

    asyncio.run(scenario())
    assert remaining_s() is None


def test_a_deadline_that_is_not_told_ends_waits_and_leaves_those_around_it_in_force() -> None:
    async def scenario() -> None:
        clock = LoopClock()

        async def look() -> float | None:
            clock.now += 1
            return remaining_s()

        silent = Deadline(2, told=False)
        assert await silent.run(look()) is None
        assert await Deadline(5).run(silent.run(look())) == 4
        with pytest.raises(DeadlineExceeded):
            await Deadline(0, told=False).run(nothing())

    asyncio.run(scenario())


def test_nothing_remains_in_force_after_a_wait_that_was_late_failed_or_was_cancelled() -> None:
    async def fail() -> None:
        raise OSError

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await Deadline(0).run(nothing())
        assert remaining_s() is None
        with pytest.raises(OSError):  # noqa: PT011
            await Deadline(60).run(fail())
        assert remaining_s() is None

        async def cancelled() -> float | None:
            with suppress(asyncio.CancelledError):
                await Deadline(60).run(nothing())
            return remaining_s()

        waiting = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        waiting.cancel()
        assert await waiting is None

    asyncio.run(scenario())


@pytest.mark.parametrize(("outer_s", "inner_s", "nearest_s"), [(2, 0.5, 0.5), (0.5, 2, 0.5), (1, 1, 1)])
def test_of_nested_deadlines_the_earlier_end_stays_in_force(outer_s: float, inner_s: float, nearest_s: float) -> None:
    async def scenario() -> None:
        LoopClock()

        async def look() -> float | None:
            return remaining_s()

        async def inside() -> None:
            assert remaining_s() == outer_s
            assert await Deadline(inner_s).run(look()) == nearest_s
            assert remaining_s() == outer_s

        await Deadline(outer_s).run(inside())
        assert remaining_s() is None

    asyncio.run(scenario())


def test_what_remains_travels_into_tasks_and_not_into_empty_contexts() -> None:
    async def look() -> float | None:
        return remaining_s()

    async def scenario() -> None:
        LoopClock()
        loop = asyncio.get_running_loop()

        async def inside() -> None:
            assert await loop.create_task(look()) == 3
            assert await loop.create_task(look(), context=Context()) is None

        await Deadline(3).run(inside())

    asyncio.run(scenario())


@pytest.mark.parametrize(("outer_s", "inner_s"), [(2, 0.9), (0.9, 2)])
def test_the_deadline_that_is_late_first_raises_at_its_own_level(outer_s: float, inner_s: float) -> None:
    async def scenario() -> None:
        clock = LoopClock()
        levels: list[str] = []

        async def inside() -> str:
            try:
                await Deadline(inner_s).run(nothing())
            except DeadlineExceeded as late:
                levels.append(f"inner {late.timeout_s}")
            return await asyncio.sleep(0, "went on")

        async def outside() -> str:
            try:
                return await Deadline(outer_s).run(inside())
            except DeadlineExceeded as late:
                levels.append(f"outer {late.timeout_s}")
            return await asyncio.sleep(0, "gave up")

        waiting = asyncio.create_task(outside())
        await clock.move(0)
        await clock.move(0.89)
        assert not waiting.done()
        await clock.move(0.02)
        assert waiting.done()
        if inner_s < outer_s:
            assert (await waiting, levels) == ("went on", ["inner 0.9"])
        else:
            assert (await waiting, levels) == ("gave up", ["outer 0.9"])
        assert waiting.cancelling() == 0

    asyncio.run(scenario())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 5))
def test_however_deadlines_nest_the_earliest_ends_the_wait_and_of_equals_the_outermost(
    timeouts_s: list[int], answer_s: int
) -> None:
    async def scenario() -> None:
        clock = LoopClock()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        raised: list[tuple[int, float]] = []

        async def nest(level: int) -> str:
            if level == len(timeouts_s):
                return await answer
            try:
                return await Deadline(timeouts_s[level]).run(nest(level + 1))
            except DeadlineExceeded as late:
                raised.append((level, late.timeout_s))
                return "late"

        waiting = asyncio.create_task(nest(0))
        await clock.move(0)
        for second in range(1, 6):
            if second == answer_s and not answer.done():
                answer.set_result("answer")
                await clock.move(0)
            await clock.move(1)
        assert waiting.done()
        first_s = min(timeouts_s)
        if answer_s <= first_s:
            assert (await waiting, raised) == ("answer", [])
        else:
            assert (await waiting, raised) == ("late", [(timeouts_s.index(first_s), first_s)])
        assert waiting.cancelling() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("late", [False, True])
def test_a_cancellation_from_elsewhere_passes_all_levels_even_when_they_are_late(late: bool) -> None:
    async def scenario() -> None:
        clock = LoopClock()
        waiting = asyncio.create_task(Deadline(2).run(Deadline(1).run(nothing())))
        await clock.move(0)
        if late:
            clock.now += 3
            # The timers are due in this same turn, after the cancellation and before the task runs.
            asyncio.get_running_loop().call_soon(waiting.cancel)
        else:
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waiting.cancelling() == 1

    asyncio.run(scenario())


def test_a_wait_that_will_not_be_interrupted_leaves_no_cancellation_behind() -> None:
    async def scenario() -> None:
        clock = LoopClock()

        async def stubborn() -> str:
            with suppress(asyncio.CancelledError):
                await nothing()
            return "all the same"

        waiting = asyncio.create_task(Deadline(1).run(stubborn()))
        await clock.move(0)
        await clock.move(2)
        assert waiting.done()
        assert await waiting == "all the same"
        assert waiting.cancelling() == 0

    asyncio.run(scenario())


def test_what_a_cancelled_task_does_before_it_goes_is_held_to_deadlines_too() -> None:
    async def scenario() -> None:
        clock = LoopClock()
        told: list[str] = []

        async def tidy() -> None:
            try:
                await nothing()
            finally:
                try:
                    await Deadline(1).run(nothing())
                except DeadlineExceeded as late:
                    told.append(str(late))

        waiting = asyncio.create_task(tidy())
        await clock.move(0)
        waiting.cancel()
        await clock.move(0)
        await clock.move(2)
        assert waiting.done()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert told == ["no answer within 1 s"]

    asyncio.run(scenario())


def test_a_deadline_within_itself_adds_nothing() -> None:
    async def scenario() -> None:
        clock = LoopClock()
        deadline = Deadline(2)

        async def inside() -> int:
            clock.now += 1
            assert await deadline.run(asyncio.sleep(0, 4)) == 4
            assert remaining_s() == 1
            return await deadline.run(asyncio.sleep(0, 5))

        assert await deadline.run(inside()) == 5
        waiting = asyncio.create_task(deadline.run(deadline.run(nothing())))
        await clock.move(0)
        await clock.move(3)
        assert waiting.done()
        with pytest.raises(DeadlineExceeded):
            await waiting

    asyncio.run(scenario())


def test_a_wait_thrown_away_from_another_context_ends_quietly() -> None:
    waits = []

    async def scenario() -> None:
        wait = Deadline(60).run(asyncio.sleep(60))
        waits.append(wait)

        async def begin() -> None:
            wait.send(None)

        await asyncio.create_task(begin())

    asyncio.run(scenario())
    waits[0].close()
