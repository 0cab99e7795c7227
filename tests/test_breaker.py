"""The circuit breaker, driven by a clock of its own and compared with a plain ledger of events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator
from itertools import pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.resilience.breaker import Breaker, BreakerOpen, State


class Down(Exception):
    """The neighbour is not well."""


class Refused(Exception):
    """The neighbour is well and says no."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Neighbour:
    """Answers one call, in the way and at the time it is told."""

    def __init__(self) -> None:
        self.called = False
        self._error: BaseException | None = None

    def __call__(self) -> Awaitable[str]:
        self.called = True
        return self

    def __await__(self) -> Generator[None, None, str]:
        yield
        if self._error is not None:
            raise self._error
        return "answer"

    def fail(self, error: BaseException) -> None:
        self._error = error


class Call:
    """A call through a breaker, begun and not ended. Needs no event loop."""

    def __init__(self, breaker: Breaker, weight: int = 1) -> None:
        self._neighbour = Neighbour()
        self._running = breaker.call(self._neighbour, weight)
        try:
            self._running.send(None)
        except BreakerOpen:
            assert not self._neighbour.called
            raise

    def end(self, error: BaseException | None = None) -> None:
        """The neighbour answers, or with an error; either has to come back unchanged."""
        if error is not None:
            self._neighbour.fail(error)
        with pytest.raises(StopIteration if error is None else type(error)) as ended:
            self._running.send(None)
        if error is None:
            assert ended.value.value == "answer"
        else:
            assert ended.value is error

    def cancel(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            self._running.throw(asyncio.CancelledError())


def make(clock: Clock, **settings: Any) -> Breaker:
    return Breaker("neighbour", **{"failures": (Down,), "clock": clock, "random": lambda: 0.5} | settings)


def made(breaker: Breaker, error: BaseException | None = None, *, weight: int = 1) -> None:
    """One call from begin to end."""
    Call(breaker, weight).end(error)


def opened(clock: Clock, **settings: Any) -> Breaker:
    breaker = make(clock, min_calls=1, **settings)
    made(breaker, Down())
    assert breaker.state == "open"
    return breaker


def test_it_opens_at_the_share_of_failures_and_no_sooner() -> None:
    breaker = make(Clock(), failure_rate=0.5, min_calls=10)
    for _ in range(6):
        made(breaker)
    for _ in range(5):
        made(breaker, Down())
    assert breaker.state == "closed"
    made(breaker, Down())
    assert (breaker.state, breaker.opened) == ("open", 1)


def test_it_does_not_judge_by_too_few_calls() -> None:
    breaker = make(Clock(), min_calls=10)
    for _ in range(9):
        made(breaker, Down())
    assert breaker.state == "closed"
    made(breaker)
    assert breaker.state == "open"


def test_a_call_counts_as_many_times_as_requests_stand_behind_it() -> None:
    breaker = make(Clock(), min_calls=10)
    made(breaker, weight=21)
    made(breaker, Down(), weight=20)
    assert breaker.state == "closed"
    made(breaker, Down())
    assert breaker.state == "open"


def test_three_failures_in_a_row_open_it_however_good_the_window_was() -> None:
    clock = Clock()
    breaker = make(clock, min_calls=10)
    made(breaker, weight=100_000)
    for _ in range(2):
        made(breaker, Down(), weight=100)
    assert breaker.state == "closed"
    made(breaker)
    for _ in range(3):
        made(breaker, Down(), weight=3)
    assert breaker.state == "closed"
    made(breaker, Down(), weight=1)
    assert breaker.state == "open"


def test_an_open_breaker_does_not_call_and_says_when_to_come_back() -> None:
    clock = Clock()
    breaker = opened(clock, open_s=2)
    clock.now += 0.5
    with pytest.raises(BreakerOpen, match=r"^neighbour: failed .* 1\.5 s$") as refused:
        Call(breaker)
    assert (refused.value.name, refused.value.retry_after_s) == ("neighbour", 1.5)
    assert (breaker.opened, breaker.rejected) == (1, 1)


@pytest.mark.parametrize(("chance", "open_s"), [(0.0, 1.8), (1.0, 2.2)])
def test_the_time_it_stays_open_varies_by_a_tenth(chance: float, open_s: float) -> None:
    clock = Clock()
    breaker = opened(clock, open_s=2, random=lambda: chance)
    with pytest.raises(BreakerOpen) as refused:
        Call(breaker)
    assert refused.value.retry_after_s == pytest.approx(open_s)


def test_errors_that_are_no_failures_pass_and_count_as_answers() -> None:
    breaker = make(Clock(), min_calls=1)
    for _ in range(30):
        made(breaker, Refused())
    assert breaker.state == "closed"
    half = opened(clock := Clock(), probes=1)
    clock.now += 2
    made(half, Refused())
    assert half.state == "closed"


@pytest.mark.parametrize("error", [None, Refused()])
def test_slow_calls_open_it_though_they_succeed(error: Exception | None) -> None:
    clock = Clock()
    breaker = make(clock, slow_rate=0.8, slow_s=0.5)
    made(breaker, weight=2)
    for _ in range(8):
        assert breaker.state == "closed"
        call = Call(breaker)
        clock.now += 0.5
        call.end(error)
    assert breaker.state == "open"


def test_infinitely_slow_is_never() -> None:
    clock = Clock()
    breaker = make(clock, slow_s=math.inf, min_calls=1)
    call = Call(breaker)
    clock.now += 1e9
    call.end()
    assert breaker.state == "closed"


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = Clock()
    breaker = make(clock, min_calls=10, window_s=10)
    for _ in range(9):
        made(breaker, Down())
    clock.now += 10
    made(breaker, Down())
    assert breaker.state == "closed"
    clock.now += 1e6
    for _ in range(9):
        made(breaker, Down())
    assert breaker.state == "closed"
    made(breaker, Down())
    assert breaker.state == "open"


@pytest.mark.parametrize("slow", [False, True])
def test_bad_calls_of_long_ago_are_not_held_against_the_good_ones_since(slow: bool) -> None:
    clock = Clock()
    breaker = make(clock, min_calls=10, window_s=10)
    call = Call(breaker, 9)
    clock.now += 0.5 * slow
    call.end(None if slow else Down())
    clock.now += 10
    made(breaker, weight=11)
    made(breaker, Down())
    assert breaker.state == "closed"


def test_the_state_is_told_without_a_call() -> None:
    clock = Clock()
    changes: list[tuple[str, str]] = []
    breaker = opened(clock, open_s=2, on_change=lambda old, new: changes.append((old, new)))
    clock.now += 1.75
    assert breaker.state == "open"
    clock.now += 0.25
    assert breaker.state == "half_open"
    assert changes == [("closed", "open")]


def test_a_half_open_breaker_lets_as_many_through_at_once_as_it_has_probes() -> None:
    clock = Clock()
    breaker = opened(clock, probes=3, open_s=2, slow_s=0.5)
    clock.now += 2
    probes = [Call(breaker) for _ in range(3)]
    with pytest.raises(BreakerOpen) as refused:
        Call(breaker)
    assert refused.value.retry_after_s == 0.5
    assert breaker.rejected == 1
    probes[0].end()
    probes.append(Call(breaker))
    with pytest.raises(BreakerOpen):
        Call(breaker)
    probes[1].end()
    assert breaker.state == "half_open"
    probes[2].end()
    assert breaker.state == "closed"


def test_good_probes_close_it_and_it_begins_with_an_empty_window() -> None:
    clock = Clock()
    changes: list[tuple[str, str]] = []
    breaker = make(clock, min_calls=10, probes=2, on_change=lambda old, new: changes.append((old, new)))
    made(breaker, Down(), weight=10)
    clock.now += 2
    made(breaker)
    made(breaker)
    assert changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    made(breaker, Down(), weight=9)
    assert breaker.state == "closed"
    made(breaker)
    assert breaker.state == "open"
    assert breaker.opened == 2


@pytest.mark.parametrize("slow", [False, True])
def test_one_bad_probe_opens_it_again_for_the_whole_time(slow: bool) -> None:
    clock = Clock()
    breaker = opened(clock, probes=3, open_s=2)
    clock.now += 2
    made(breaker)
    made(breaker)
    bad = Call(breaker)
    if slow:
        clock.now += 0.5
    bad.end(None if slow else Down())
    assert (breaker.state, breaker.opened) == ("open", 2)
    clock.now += 1.75
    assert breaker.state == "open"
    clock.now += 0.25
    made(breaker)
    made(breaker)
    assert breaker.state == "half_open"
    made(breaker)
    assert breaker.state == "closed"


def test_a_cancelled_call_counts_as_nothing() -> None:
    clock = Clock()
    breaker = make(clock, min_calls=1)
    for _ in range(20):
        call = Call(breaker)
        clock.now += 1
        call.cancel()
    assert breaker.state == "closed"


def test_a_cancelled_probe_frees_its_place() -> None:
    clock = Clock()
    breaker = opened(clock, probes=2)
    clock.now += 2
    for _ in range(5):
        probes = [Call(breaker), Call(breaker)]
        with pytest.raises(BreakerOpen):
            Call(breaker)
        for probe in probes:
            probe.cancel()
    assert breaker.state == "half_open"
    made(breaker)
    made(breaker)
    assert breaker.state == "closed"


def test_calls_begun_before_the_last_change_of_state_are_out_of_date() -> None:
    clock = Clock()
    breaker = make(clock, min_calls=10, probes=1)
    failing, answering, late = Call(breaker, 50), Call(breaker), Call(breaker, 50)
    made(breaker, Down(), weight=10)
    clock.now += 1
    failing.end(Down())
    assert breaker.opened == 1
    clock.now += 1
    assert breaker.state == "half_open"
    probe = Call(breaker)
    answering.end()
    assert breaker.state == "half_open"
    probe.end()
    assert breaker.state == "closed"
    late.end(Down())
    assert breaker.state == "closed"


def test_probes_that_hang_keep_their_places_when_it_opens_again() -> None:
    clock = Clock()
    breaker = opened(clock, probes=2)
    clock.now += 2
    hanging, bad = Call(breaker), Call(breaker)
    bad.end(Down())
    clock.now += 2
    probe = Call(breaker)
    with pytest.raises(BreakerOpen):
        Call(breaker)
    hanging.end(Down())
    assert breaker.state == "half_open"
    probe.end()
    made(breaker)
    assert breaker.state == "closed"


def test_a_call_that_fails_before_it_waits_is_a_failure() -> None:
    def fail() -> Awaitable[None]:
        raise Down

    async def scenario() -> None:
        breaker = make(Clock(), min_calls=1)
        with pytest.raises(Down):
            await breaker.call(fail)
        assert breaker.state == "open"

    asyncio.run(scenario())


def test_it_needs_no_settings_but_a_name_and_the_failures() -> None:
    async def fail() -> None:
        raise Down

    async def scenario() -> None:
        breaker = Breaker("neighbour", failures=(Down,))
        for _ in range(10):
            with pytest.raises(Down):
                await breaker.call(fail)
        with pytest.raises(BreakerOpen) as refused:
            await breaker.call(fail)
        assert 0 < refused.value.retry_after_s <= 2.2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("failures", (asyncio.CancelledError,)),
        ("failure_rate", 0),
        ("failure_rate", 1.01),
        ("slow_rate", -0.1),
        ("slow_rate", math.nan),
        ("slow_s", 0),
        ("min_calls", 0),
        ("window_s", 0),
        ("open_s", 0),
        ("open_s", 10.5),
        ("open_s", math.nan),
        ("probes", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        make(Clock(), **{setting: value})


def test_a_call_nobody_stands_behind_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Call(make(Clock()), 0)


class Ledger:
    """What a breaker must do, the slow way: every event is kept, and every question is asked of all of them."""

    def __init__(self, failure_rate: float, slow_rate: float, min_calls: int, probes: int) -> None:
        self.failure_rate, self.slow_rate = failure_rate, slow_rate
        self.min_calls, self.probes = min_calls, probes
        self.events: list[tuple[float, int, str]] = []
        self.changes: list[tuple[State, float]] = [("closed", 0.0)]
        self.probing = self.proven = self.rejected = 0

    def state(self, now: float) -> State:
        state, since = self.changes[-1]
        return "half_open" if state == "open" and now >= since + OPEN_S else state

    def begin(self, now: float) -> tuple[bool, int] | None:
        """Whether the call is a probe, and which change of state came before it; None where it is not made."""
        state = self.state(now)
        if state == "open":
            self.rejected += 1
            return None
        if state != self.changes[-1][0]:
            self.change(state, now)
        if state == "half_open":
            if self.probing == self.probes:
                self.rejected += 1
                return None
            self.probing += 1
        return state == "half_open", len(self.changes)

    def end(self, begun: tuple[bool, int], now: float, weight: int, outcome: str) -> None:
        probe, change = begun
        self.probing -= probe
        if change != len(self.changes) or outcome == "cancelled":
            return
        if not probe:
            self.events.append((now, weight, outcome))
            if self.is_too_much(now):
                self.change("open", now)
        elif "failed" in outcome or "slow" in outcome:
            self.change("open", now)
        else:
            self.proven += 1
            if self.proven == self.probes:
                self.change("closed", now)

    def is_too_much(self, now: float) -> bool:
        # The window of ten seconds has buckets of one: the tenth second back counts with its bucket or not at all.
        inside = [event for event in self.events if math.floor(now) - math.floor(event[0]) < 10]
        total = sum(weight for _, weight, _ in inside)
        failed = sum(weight for _, weight, outcome in inside if "failed" in outcome)
        slow = sum(weight for _, weight, outcome in inside if "slow" in outcome)
        row = list(takewhile(lambda event: "failed" in event[2], reversed(self.events)))
        in_a_row = len(row) >= 3 and sum(weight for _, weight, _ in row) >= self.min_calls
        shares = failed >= self.failure_rate * total or slow >= self.slow_rate * total
        return total >= self.min_calls and (shares or in_a_row)

    def change(self, state: State, now: float) -> None:
        self.changes.append((state, now))
        self.events.clear()
        self.proven = 0


OPEN_S = 2.0
SLOW_S = 0.5

OUTCOMES = ["answer", "answer", "failed", "failed", "refused", "cancelled"]
ENDS = {"answer": None, "refused": Refused(), "failed": Down()}

soon = st.integers(0, 3).map(lambda quarter: quarter / 4)
later = st.integers(0, 50).map(lambda quarter: quarter / 4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), soon, st.integers(1, 12)),
        st.tuples(st.sampled_from(OUTCOMES), soon, st.integers(0, 5)),
        st.tuples(st.just("wait"), later, st.just(0)),
    ),
    min_size=20,
    max_size=80,
)


@settings(max_examples=300)
@given(
    steps,
    # Shares that have no rounding error, as the ledger multiplies and the breaker divides.
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from([0.5, 0.75, 1.0]),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_whatever_happens_it_does_what_a_ledger_of_all_events_says(
    steps: list[tuple[str, float, int]], failure_rate: float, slow_rate: float, min_calls: int, probes: int
) -> None:
    clock = Clock()
    changes: list[tuple[str, str]] = []
    rates = {"failure_rate": failure_rate, "slow_rate": slow_rate, "min_calls": min_calls, "probes": probes}
    told: Callable[[str, str], None] = lambda old, new: changes.append((old, new))  # noqa: E731
    breaker = make(clock, slow_s=SLOW_S, open_s=OPEN_S, window_s=10, on_change=told, **rates)
    ledger = Ledger(**rates)
    running: list[tuple[Call, tuple[bool, int], float, int]] = []
    for step, seconds, number in steps:
        clock.now += seconds
        if step == "begin":
            begun = ledger.begin(clock.now)
            if begun is not None:
                running.append((Call(breaker, number), begun, clock.now, number))
            else:
                with pytest.raises(BreakerOpen):
                    Call(breaker, number)
        elif step != "wait" and running:
            call, begun, started, weight = running.pop(number % len(running))
            slow = " slow" if clock.now - started >= SLOW_S else ""
            if step == "cancelled":
                call.cancel()
                slow = ""
            else:
                call.end(ENDS[step])
            ledger.end(begun, clock.now, weight, step + slow)
        assert breaker.state == ledger.state(clock.now)
    states = [state for state, _ in ledger.changes]
    assert changes == list(pairwise(states))
    assert breaker.opened == states.count("open")
    assert breaker.rejected == ledger.rejected
    for call, *_ in running:
        call.cancel()
