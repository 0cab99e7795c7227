"""Places: who gets one, who waits, who is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.edge.admission import BATCH, READ, REFUSED_A_TURN, WRITE, Admission
from app.errors import Saturated

MAX_WAIT_S = 1.5
KINDS = (READ, WRITE, BATCH)


class LoopClock:
    """A loop's time, standing still until it is moved."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = 100.0
        loop.time = lambda: self.now  # type: ignore[method-assign]

    async def move(self, seconds: float) -> None:
        """Let time pass, and everything run that is then due."""
        self.now += seconds
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Caller:
    """A request that wants a place, holds it until told to leave, and keeps in `entered` the order of those who got
    one."""

    def __init__(self, admission: Admission, kind: int, name: str = "", entered: list[str] | None = None) -> None:
        self.kind = kind
        self.inside = False
        self._admission = admission
        self._name = name
        self._entered = entered if entered is not None else []
        self._done = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        place = self._admission.enter(self.kind)
        if place is not None:
            await self._admission.wait(place)
        self.inside = True
        self._entered.append(self._name)
        try:
            await self._done.wait()
        finally:
            self.inside = False
            self._admission.leave()

    def finish(self) -> None:
        self._done.set()

    @property
    def is_refused(self) -> bool:
        return self.task.done() and not self.task.cancelled() and isinstance(self.task.exception(), Saturated)


def played(scenario: Callable[[LoopClock], Awaitable[None]]) -> None:
    """Run a scenario on a clock that stands still."""

    async def run() -> None:
        await scenario(LoopClock(asyncio.get_running_loop()))
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(run())


def counts(admission: Admission) -> tuple[int, int, int]:
    return admission.in_flight, admission.waiting, admission.refused


def test_who_finds_a_place_does_not_wait() -> None:
    admission = Admission(2, 10, MAX_WAIT_S)
    # Outside any loop: a place that is free costs no future and no timer.
    assert admission.enter(WRITE) is None
    assert admission.enter(BATCH) is None
    assert counts(admission) == (2, 0, 0)
    admission.leave()
    admission.leave()
    assert counts(admission) == (0, 0, 0)


def test_a_place_that_comes_free_goes_to_the_most_urgent_and_then_to_the_first() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission, entered = Admission(1, 10, MAX_WAIT_S), []
        first = Caller(admission, WRITE, "first", entered)
        await settle()
        waiting = [
            Caller(admission, kind, name, entered)
            for number in (1, 2)
            for kind, name in ((BATCH, f"batch {number}"), (WRITE, f"write {number}"), (READ, f"read {number}"))
        ]
        await settle()
        assert counts(admission) == (1, 6, 0)
        for caller in (first, *waiting):
            caller.finish()
        await settle()
        assert entered == ["first", "read 1", "read 2", "write 1", "write 2", "batch 1", "batch 2"]
        assert counts(admission) == (0, 0, 0)

    played(scenario)


def test_nobody_waits_longer_than_told_and_each_only_from_when_it_came() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10, MAX_WAIT_S)
        holder = Caller(admission, READ)
        await settle()
        early = [Caller(admission, kind) for kind in (BATCH, READ)]
        await settle()
        await clock.move(1.0)
        late = Caller(admission, WRITE)
        await settle()
        await clock.move(MAX_WAIT_S - 1.0 - 0.001)
        assert not any(caller.task.done() for caller in (*early, late))
        await clock.move(0.002)
        assert all(caller.is_refused for caller in early)
        assert not late.task.done()
        assert counts(admission) == (1, 1, 2)
        later = Caller(admission, BATCH)
        await settle()
        await clock.move(0.5)
        last = Caller(admission, READ)
        await settle()
        await clock.move(0.5)
        assert late.is_refused
        await clock.move(0.5)
        assert later.is_refused
        await clock.move(0.499)
        assert not last.task.done()
        await clock.move(0.002)
        assert last.is_refused
        assert counts(admission) == (1, 0, 5)
        holder.finish()
        await settle()
        assert counts(admission) == (0, 0, 5)
        assert admission.enter(BATCH) is None

    played(scenario)


def test_those_who_come_after_a_time_without_waiters_are_watched_too() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10, MAX_WAIT_S)
        holder = Caller(admission, READ)
        for _ in range(3):
            await settle()
            waiter = Caller(admission, READ)
            await settle()
            await clock.move(MAX_WAIT_S + 0.001)
            assert waiter.is_refused
            await clock.move(10)
        holder.finish()

    played(scenario)


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 2, MAX_WAIT_S)
        holder = Caller(admission, READ)
        waiting = [Caller(admission, READ), Caller(admission, READ)]
        await settle()
        with pytest.raises(Saturated) as refused:
            admission.enter(READ)
        assert dict(refused.value.headers())[b"retry-after"] == b"1"
        assert counts(admission) == (1, 2, 1)
        holder.finish()
        await settle()
        assert waiting[0].inside
        assert admission.enter(READ) is not None

    played(scenario)


def test_in_a_full_queue_the_youngest_of_the_least_urgent_makes_way_for_one_more_urgent() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 4, MAX_WAIT_S)
        holder = Caller(admission, READ)
        await settle()
        batches = [Caller(admission, BATCH) for _ in range(2)]
        writes = [Caller(admission, WRITE) for _ in range(2)]
        await settle()
        another_batch, write, read = (Caller(admission, kind) for kind in (BATCH, WRITE, READ))
        await settle()
        assert another_batch.is_refused
        assert [batch.is_refused for batch in batches] == [True, True]
        one_more = Caller(admission, READ)
        await settle()
        assert [caller.is_refused for caller in (*writes, write)] == [False, False, True]
        last_write = Caller(admission, WRITE)
        await settle()
        assert last_write.is_refused
        assert not any(caller.task.done() for caller in (holder, *writes, read, one_more))
        assert counts(admission) == (1, 4, 5)

    played(scenario)


def test_a_waiter_that_goes_away_leaves_its_room_in_the_queue_and_takes_no_place() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 2, MAX_WAIT_S)
        holder = Caller(admission, READ)
        gone, next_one = Caller(admission, READ), Caller(admission, READ)
        await settle()
        gone.task.cancel()
        await settle()
        assert counts(admission) == (1, 1, 0)
        third = Caller(admission, READ)
        await settle()
        assert not third.task.done()
        holder.finish()
        await settle()
        assert next_one.inside
        next_one.finish()
        await settle()
        assert third.inside

    played(scenario)


@pytest.mark.parametrize("given_first", [True, False])
def test_a_place_given_to_one_who_is_cancelled_in_the_same_turn_goes_on(given_first: bool) -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10, MAX_WAIT_S)
        assert admission.enter(READ) is None
        cancelled, next_one = Caller(admission, WRITE), Caller(admission, WRITE)
        await settle()
        if given_first:
            admission.leave()
            cancelled.task.cancel()
        else:
            cancelled.task.cancel()
            admission.leave()
        await settle()
        assert cancelled.task.cancelled()
        assert next_one.inside
        assert counts(admission) == (1, 0, 0)
        next_one.finish()
        await settle()
        assert counts(admission) == (0, 0, 0)

    played(scenario)


@pytest.mark.parametrize("refused_first", [True, False])
def test_one_who_is_refused_and_cancelled_in_the_same_turn_gives_nothing_back(refused_first: bool) -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 1, MAX_WAIT_S)
        assert admission.enter(READ) is None
        batch = Caller(admission, BATCH)
        await settle()
        if not refused_first:
            batch.task.cancel()
        assert admission.enter(READ) is not None
        if refused_first:
            batch.task.cancel()
        await settle()
        assert batch.task.cancelled()
        assert counts(admission) == (1, 1, 1 if refused_first else 0)

    played(scenario)


def test_a_waiter_whose_wait_is_thrown_away_unfinished_is_forgotten() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10, MAX_WAIT_S)
        assert admission.enter(READ) is None
        place = admission.enter(READ)
        assert place is not None
        wait: Coroutine[Any, Any, None] = admission.wait(place)
        wait.send(None)
        wait.close()
        assert counts(admission) == (1, 0, 0)
        admission.leave()
        assert counts(admission) == (0, 0, 0)

    played(scenario)


def test_urgent_requests_without_end_are_served_and_a_batch_among_them_is_told_to_come_back() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10, MAX_WAIT_S)
        inside = Caller(admission, READ)
        await settle()
        batch = Caller(admission, BATCH)
        while not batch.task.done():
            following = Caller(admission, READ)
            await settle()
            inside.finish()
            await clock.move(0.1)
            assert following.inside
            inside = following
            assert clock.now < 100 + 2 * MAX_WAIT_S
        assert batch.is_refused

    played(scenario)


def test_where_many_have_waited_long_enough_at_once_others_run_between_their_refusals() -> None:
    async def scenario(clock: LoopClock) -> None:
        admission = Admission(1, 10_000, MAX_WAIT_S)
        holder = Caller(admission, READ)
        await settle()
        waiting = [Caller(admission, kind) for kind in KINDS for _ in range(REFUSED_A_TURN)]
        await settle()
        clock.now += MAX_WAIT_S + 0.001
        told = []
        while admission.waiting:
            await asyncio.sleep(0)
            told.append(admission.refused)
        await settle()
        assert told[-3:] == [REFUSED_A_TURN, 2 * REFUSED_A_TURN, 3 * REFUSED_A_TURN]
        assert all(caller.is_refused for caller in waiting)
        assert not holder.task.done()

    played(scenario)


class Places(RuleBasedStateMachine):
    """Whatever callers do, and whenever they give up: never more inside than places, nobody lost, nobody overtaken."""

    PLACES, MAX_QUEUE = 3, 6

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = LoopClock(self.loop)
        self.admission = Admission(self.PLACES, self.MAX_QUEUE, MAX_WAIT_S)
        self.callers: list[Caller] = []
        self.came: dict[Caller, float] = {}

    def teardown(self) -> None:
        self.loop.run_until_complete(self._leave_all())
        self.loop.close()
        assert (self.admission.in_flight, self.admission.waiting) == (0, 0)

    async def _leave_all(self) -> None:
        for caller in self.callers:
            caller.finish()
        while any(not caller.task.done() for caller in self.callers):
            await self.clock.move(0.1)

    def run(self, work: Callable[[], Any]) -> None:
        async def turn() -> None:
            work()
            await settle()

        self.loop.run_until_complete(turn())

    def inside(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.inside]

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.inside and not caller.task.done()]

    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    def come(self, kinds: list[int]) -> None:
        def work() -> None:
            for kind in kinds:
                caller = Caller(self.admission, kind)
                self.callers.append(caller)
                self.came[caller] = self.clock.now

        self.run(work)

    @precondition(lambda self: self.inside())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.run(data.draw(st.sampled_from(self.inside())).finish)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.run(data.draw(st.sampled_from(self.waiting())).task.cancel)

    @precondition(lambda self: self.inside() and self.waiting())
    @rule(data=st.data(), first=st.booleans())
    def finish_and_give_up_in_one_turn(self, data: st.DataObject, first: bool) -> None:
        finishes = data.draw(st.sampled_from(self.inside()))
        gives_up = data.draw(st.sampled_from(self.waiting()))

        def work() -> None:
            # The place is handed over within the turn, before the waiter could take it.
            finishes.finish()
            if first:
                gives_up.task.cancel()
            else:
                self.loop.call_soon(gives_up.task.cancel)

        self.run(work)

    @rule(seconds=st.sampled_from([0.2, 0.7, MAX_WAIT_S, 3.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.run_until_complete(self.clock.move(seconds))

    @invariant()
    def nobody_is_lost(self) -> None:
        inside, waiting = self.inside(), self.waiting()
        assert len(inside) <= self.PLACES
        assert len(waiting) <= self.MAX_QUEUE
        assert (self.admission.in_flight, self.admission.waiting) == (len(inside), len(waiting))
        assert not waiting or len(inside) == self.PLACES
        assert self.admission.refused == sum(caller.is_refused for caller in self.callers)

    @invariant()
    def nobody_waits_too_long(self) -> None:
        assert all(self.clock.now < self.came[caller] + MAX_WAIT_S for caller in self.waiting())

    @invariant()
    def nobody_is_overtaken_within_its_kind(self) -> None:
        for kind in KINDS:
            order = [caller.inside for caller in self.callers if caller.kind == kind and not caller.task.done()]
            assert order == sorted(order, reverse=True)


Places.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPlaces = Places.TestCase
