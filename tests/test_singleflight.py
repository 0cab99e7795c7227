"""One load for all who want the same thing at the same time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.deadline import Deadline, remaining_s
from app.resilience.singleflight import SingleFlight

trace: ContextVar[str] = ContextVar("trace", default="none")


class Source:
    """Loads that end when told to. loads: those begun, in order."""

    def __init__(self) -> None:
        self.loads: list[asyncio.Future[object]] = []

    async def __call__(self) -> object:
        self.loads.append(asyncio.get_running_loop().create_future())
        return await self.loads[-1]


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The scenario to its end, in which the loop must have nothing to complain of. Who waits in vain is an error."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with asyncio.timeout(60):
            await scenario()
        await turn()

    asyncio.run(watched())
    assert complaints == []


def test_all_who_ask_during_a_load_get_its_value() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        waiting = [asyncio.create_task(flights.run("key", source)) for _ in range(3)]
        await turn()
        waiting += [asyncio.create_task(flights.run("key", source)) for _ in range(3)]
        await turn()
        assert (len(source.loads), flights.flying) == (1, 1)
        value = object()
        source.loads[0].set_result(value)
        assert all(got is value for got in await asyncio.gather(*waiting))

    run(scenario)


def test_nothing_is_kept_after_a_load() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        for value in (1, 2):
            waiting = asyncio.create_task(flights.run("key", source))
            await turn()
            source.loads[-1].set_result(value)
            assert await waiting == value
            assert flights.flying == 0

    run(scenario)


def test_keys_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        one, two = (asyncio.create_task(flights.run(key, source)) for key in ("one", "two"))
        await turn()
        assert (len(source.loads), flights.flying) == (2, 2)
        source.loads[1].set_result(2)
        assert await two == 2
        assert (one.done(), flights.flying) == (False, 1)
        source.loads[0].set_result(1)
        assert await one == 1

    run(scenario)


def test_a_cancelled_leader_does_not_fail_its_followers() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        leader = asyncio.create_task(flights.run("key", source))
        await turn()
        follower = asyncio.create_task(flights.run("key", source))
        await turn()
        leader.cancel()
        await turn()
        assert leader.cancelled()
        assert flights.flying == 1
        source.loads[0].set_result("value")
        assert await follower == "value"

    run(scenario)


def test_a_cancelled_follower_leaves_the_load_and_its_neighbours_alone() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        leader, follower, neighbour = (asyncio.create_task(flights.run("key", source)) for _ in range(3))
        await turn()
        follower.cancel()
        await turn()
        assert follower.cancelled()
        source.loads[0].set_result("value")
        assert await asyncio.gather(leader, neighbour) == ["value", "value"]

    run(scenario)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_waiter_cancelled_while_the_answer_is_on_its_way_leaves_its_neighbours_alone(turns: int) -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        first, second = (asyncio.create_task(flights.run("key", source)) for _ in range(2))
        await turn()
        source.loads.pop().set_exception(OSError("line is down"))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not first.done()
        first.cancel()
        with pytest.raises(OSError, match="line is down"):
            await second
        assert first.cancelled()
        del first, second
        gc.collect()

    run(scenario)


def test_an_error_goes_to_all_who_wait_and_the_next_call_loads_anew() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        waiting = [asyncio.create_task(flights.run("key", source)) for _ in range(3)]
        await turn()
        error = OSError("line is down")
        source.loads[0].set_exception(error)
        assert await asyncio.gather(*waiting, return_exceptions=True) == [error] * 3
        assert flights.flying == 0
        again = asyncio.create_task(flights.run("key", source))
        await turn()
        source.loads[1].set_result("value")
        assert await again == "value"

    run(scenario)


def test_a_load_that_fails_before_it_waits_fails_for_all() -> None:
    def fail() -> Coroutine[Any, Any, object]:
        raise OSError("no line")

    async def scenario() -> None:
        flights = SingleFlight[str, object]()
        errors = await asyncio.gather(*(flights.run("key", fail) for _ in range(2)), return_exceptions=True)
        assert [str(error) for error in errors] == ["no line"] * 2
        assert flights.flying == 0

    run(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_a_load_that_everyone_has_given_up_ends_quietly(fails: bool) -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        waiting = [asyncio.create_task(flights.run("key", source)) for _ in range(3)]
        await turn()
        for waiter in waiting:
            waiter.cancel()
        await turn()
        assert flights.flying == 1
        if fails:
            source.loads.pop().set_exception(OSError("nobody listens"))
        else:
            source.loads.pop().set_result("value")
        await turn()
        assert flights.flying == 0
        gc.collect()

    run(scenario)


def test_a_load_that_was_cancelled_cancels_who_waits() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        waiting = [asyncio.create_task(flights.run("key", source)) for _ in range(2)]
        await turn()
        source.loads[0].cancel()
        await turn()
        assert [waiter.cancelled() for waiter in waiting] == [True, True]
        assert flights.flying == 0

    run(scenario)


def test_a_load_carries_nothing_of_the_caller_that_began_it() -> None:
    async def look() -> tuple[str, float | None]:
        return trace.get(), remaining_s()

    async def scenario() -> None:
        trace.set("the leader's")
        flights = SingleFlight[str, tuple[str, float | None]]()
        assert await Deadline(60).run(flights.run("key", look)) == ("none", None)

    run(scenario)


def test_waiters_that_gave_up_are_not_collected_while_a_load_goes_on() -> None:
    def futures() -> int:
        gc.collect()
        return sum(issubclass(type(thing), asyncio.Future) for thing in gc.get_objects())

    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        leader = asyncio.create_task(flights.run("key", source))
        await turn()
        before = futures()
        for _ in range(100):
            waiter = asyncio.create_task(flights.run("key", source))
            await asyncio.sleep(0)
            waiter.cancel()
            await turn()
        del waiter
        assert futures() <= before
        source.loads[0].set_result("value")
        assert await leader == "value"

    run(scenario)


def test_five_thousand_waiters_cost_one_task() -> None:
    async def scenario() -> None:
        flights, source = SingleFlight[str, object](), Source()
        callers = [asyncio.create_task(flights.run("key", source)) for _ in range(5000)]
        await turn()
        assert len(asyncio.all_tasks()) == len(callers) + 2
        source.loads[0].set_result("value")
        assert await asyncio.gather(*callers) == ["value"] * 5000
        assert len(source.loads) == 1

    run(scenario)


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "ask", "cancel", "answer", "fail"]), st.integers(0, 3)), max_size=40
    )
)
def test_whatever_happens_each_waiter_gets_what_the_load_it_came_to_ended_with(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        flights = SingleFlight[int, object]()
        under_way: dict[int, asyncio.Future[object]] = {}
        asked: list[tuple[asyncio.Task[object], asyncio.Future[object]]] = []
        cancelled: set[asyncio.Task[object]] = set()
        for step, number in steps:
            if step == "ask":
                source = Source()
                caller = asyncio.create_task(flights.run(number, source))
                await turn()
                # It began a load where none was under way, and only there.
                assert len(source.loads) == (number not in under_way)
                if source.loads:
                    under_way[number] = source.loads[0]
                asked.append((caller, under_way[number]))
            elif step == "cancel" and asked:
                caller, _ = asked[number % len(asked)]
                if not caller.done():
                    caller.cancel()
                    cancelled.add(caller)
                    await turn()
            elif number in under_way:
                load = under_way.pop(number)
                if step == "fail":
                    load.set_exception(OSError("line is down"))
                else:
                    load.set_result(object())
                await turn()
            assert flights.flying == len(under_way)
        for load in under_way.values():
            load.set_result(object())
        await turn()
        for caller, load in asked:
            if caller in cancelled:
                assert caller.cancelled()
            elif load.exception() is not None:
                assert caller.exception() is load.exception()
            else:
                assert caller.result() is load.result()

    run(scenario)


def test_an_error_is_forgotten_with_the_last_who_was_told() -> None:
    """It does not stay in a circle with those who waited until garbage is collected."""

    class Failed(Exception):
        pass

    def left() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, Failed)]

    async def fail() -> object:
        await asyncio.sleep(0)
        raise Failed

    async def scenario() -> None:
        flights = SingleFlight[str, object]()
        for _ in range(3):
            with pytest.raises(Failed):
                await flights.run("key", fail)
        await turn()
        assert not left()

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()
