"""Retries: when, how many, and after what pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.deadline import Deadline
from app.resilience.retry import Retry, RetryBudget


class Fault(Exception):
    """Passes, perhaps."""


class Refused(Exception):
    """Will be the same next time."""


class Neighbour:
    """Answers with what it is given, in turn; the last again and again."""

    def __init__(self, *outcomes: str | Exception) -> None:
        self.calls = 0
        self._outcomes = outcomes

    async def __call__(self) -> str:
        outcome = self._outcomes[min(self.calls, len(self._outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Pauses(list[float]):
    """Sleeps no time, and knows how long it would have been."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def make(budget: RetryBudget | None = None, **settings: Any) -> Retry:
    given = {"retry_on": (Fault,), "random": lambda: 1.0, "sleep": Pauses()} | settings
    return Retry(budget or RetryBudget(reserve=1000), **given)


def test_a_call_that_succeeds_is_made_once() -> None:
    pauses, neighbour = Pauses(), Neighbour("answer")
    retry = make(sleep=pauses)
    assert asyncio.run(retry.run(neighbour)) == "answer"
    assert (neighbour.calls, retry.retries, pauses) == (1, 0, [])


def test_a_fault_that_passes_is_not_seen_by_the_caller() -> None:
    neighbour = Neighbour(Fault(), "answer")
    retry = make()
    assert asyncio.run(retry.run(neighbour)) == "answer"
    assert (neighbour.calls, retry.retries) == (2, 1)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_after_the_attempts_the_last_error_passes_through(attempts: int) -> None:
    faults = [Fault(number) for number in range(9)]
    neighbour = Neighbour(*faults)
    with pytest.raises(Fault) as raised:
        asyncio.run(make(attempts=attempts).run(neighbour))
    assert raised.value is faults[attempts - 1]
    assert neighbour.calls == attempts


def test_errors_that_would_come_again_are_not_retried() -> None:
    neighbour = Neighbour(Refused())
    budget = RetryBudget()
    with pytest.raises(Refused):
        asyncio.run(make(budget).run(neighbour))
    assert (neighbour.calls, budget.tokens) == (1, 10)


def test_an_empty_budget_ends_the_retries() -> None:
    budget = RetryBudget(reserve=2)
    neighbour = Neighbour(Fault())
    with pytest.raises(Fault):
        asyncio.run(make(budget, attempts=10).run(neighbour))
    assert neighbour.calls == 3
    with pytest.raises(Fault):
        asyncio.run(make(budget, attempts=10).run(neighbour))
    assert neighbour.calls == 4


def test_the_longest_pause_doubles_up_to_the_cap() -> None:
    pauses = Pauses()
    with pytest.raises(Fault):
        asyncio.run(make(attempts=2000, base_s=0.02, cap_s=0.25, sleep=pauses).run(Neighbour(Fault())))
    assert pauses[:6] == [0.02, 0.04, 0.08, 0.16, 0.25, 0.25]
    assert set(pauses[4:]) == {0.25}


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_a_pause_is_any_part_of_the_longest(chances: list[float]) -> None:
    pauses, drawn = Pauses(), iter(chances)
    retry = make(attempts=6, base_s=0.5, cap_s=4, random=lambda: next(drawn), sleep=pauses)
    with pytest.raises(Fault):
        asyncio.run(retry.run(Neighbour(Fault())))
    assert pauses == [chance * longest for chance, longest in zip(chances, [0.5, 1, 2, 4, 4], strict=True)]


@pytest.mark.parametrize(("left_s", "calls"), [(0.5, 1), (1, 1), (1.5, 2), (2.5, 2), (3.5, 3), (60, 3)])
def test_a_pause_that_the_deadline_would_not_outlast_is_not_begun(left_s: float, calls: int) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.time = lambda: now

        async def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        budget, neighbour = RetryBudget(reserve=1000), Neighbour(Fault())
        retry = make(budget, attempts=3, base_s=1, cap_s=2, sleep=sleep)
        # A whole number, so that no sum of it and the pauses is rounded.
        now = 1000.0
        with pytest.raises(Fault):
            await Deadline(left_s).run(retry.run(neighbour))
        assert neighbour.calls == calls
        assert budget.tokens == 1000 - (calls - 1)

    asyncio.run(scenario())


def test_a_cancelled_pause_ends_the_call() -> None:
    async def scenario() -> None:
        neighbour, pausing = Neighbour(Fault()), asyncio.Event()

        async def sleep(seconds: float) -> None:
            pausing.set()
            await asyncio.get_running_loop().create_future()

        running = asyncio.create_task(make(sleep=sleep).run(neighbour))
        await pausing.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert neighbour.calls == 1

    asyncio.run(scenario())


def test_it_pauses_by_the_loop_when_not_told_how() -> None:
    neighbour = Neighbour(Fault(), "answer")
    retry = Retry(RetryBudget(), retry_on=(Fault,), base_s=0.001)
    assert asyncio.run(retry.run(neighbour)) == "answer"


def test_while_a_neighbour_is_down_the_load_on_it_grows_by_a_tenth() -> None:
    async def scenario() -> None:
        budget, neighbour = RetryBudget(), Neighbour(Fault())
        retries = [make(budget, attempts=5) for _ in range(3)]
        for number in range(3000):
            with pytest.raises(Fault):
                await retries[number % 3].run(neighbour)
        assert neighbour.calls == 3000 + sum(retry.retries for retry in retries)
        assert 3300 <= neighbour.calls <= 3310

    asyncio.run(scenario())


def test_ten_calls_with_no_fault_are_worth_one_retry_exactly() -> None:
    budget = RetryBudget(ratio=0.1, reserve=1)
    assert budget.spend()
    for _ in range(9):
        budget.deposit()
        assert not budget.spend()
    budget.deposit()
    assert budget.tokens == 1
    assert budget.spend()
    assert not budget.spend()


def tokens_after(events: list[str], ratio: Fraction, reserve: int) -> Fraction:
    """What a budget holds, worked out from all that ever happened."""
    tokens = Fraction(reserve)
    for event in events:
        tokens = min(tokens + ratio, Fraction(reserve)) if event == "call" else tokens - 1
    return tokens


@given(
    st.lists(st.sampled_from(["call", "call", "retry", "retry", "retry"]), max_size=120),
    st.sampled_from([1, 2, 4, 5, 10, 20, 100]),
    st.integers(1, 12),
)
def test_whatever_is_asked_a_budget_grants_what_its_history_allows(asked: list[str], calls: int, reserve: int) -> None:
    ratio = Fraction(1, calls)
    budget = RetryBudget(float(ratio), reserve)
    events: list[str] = []
    for ask in asked:
        if ask == "call":
            budget.deposit()
            events.append("call")
        else:
            granted = budget.spend()
            assert granted == (tokens_after(events, ratio, reserve) >= 1)
            events += ["retry"] * granted
        assert budget.tokens == pytest.approx(float(tokens_after(events, ratio, reserve)))
    for first in range(len(events)):
        retries = 0
        for last, event in enumerate(events[first:], first + 1):
            retries += event == "retry"
            assert retries <= reserve + ratio * (last - first - retries)


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: RetryBudget(ratio=0), "ratio"),
        (lambda: RetryBudget(ratio=1.5), "ratio"),
        (lambda: RetryBudget(ratio=float("nan")), "ratio"),
        (lambda: RetryBudget(reserve=0), "reserve"),
        (lambda: make(attempts=0), "attempts"),
        (lambda: make(base_s=-1), "base_s"),
        (lambda: make(base_s=2, cap_s=1), "base_s"),
        (lambda: make(retry_on=(OSError, asyncio.CancelledError)), "CancelledError"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build: Callable[[], object], setting: str) -> None:
    with pytest.raises(ValueError, match=setting):
        build()
