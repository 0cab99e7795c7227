"""Trying again: seldom, after a pause, and never without end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.resilience.deadline import remaining_s

Answer = TypeVar("Answer")


class RetryBudget:
    """How many retries a dependency has to bear, whoever asks for them: at most `ratio` of the first calls.

    # Design: each first call puts `ratio` tokens in, each retry takes one out, and `reserve` tokens are there at the
    start and the most that fit in. So among any n first calls in a row there are at most reserve + ratio * n retries: a
    short fault is retried in full, a long one makes the load 1 + ratio times as high, not `attempts` times.

    It counts in first calls instead of tokens, `1 / ratio` of them to a retry, because ten times 0.1 is less than 1.
    """

    __slots__ = ("_most_calls", "_retry_calls", "_unspent_calls")

    def __init__(self, ratio: float = 0.1, reserve: int = 10) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, not {ratio!r}")
        if reserve < 1:
            raise ValueError(f"reserve must be at least 1, or no retry would ever fit in it, not {reserve!r}")
        self._retry_calls = 1 / ratio
        self._most_calls = reserve * self._retry_calls
        self._unspent_calls = self._most_calls

    @property
    def tokens(self) -> float:
        """Retries that could be made now, fractions included."""
        return self._unspent_calls / self._retry_calls

    def deposit(self) -> None:
        """Take note of a first call."""
        self._unspent_calls = min(self._unspent_calls + 1, self._most_calls)

    def spend(self) -> bool:
        """Take the token for one retry; False, and nothing taken, where there is none."""
        if self._unspent_calls < self._retry_calls:
            return False
        self._unspent_calls -= self._retry_calls
        return True


class Retry:
    """Calls again what failed with one of `retry_on`: `attempts` calls in all, within one budget.

    The pause before the nth retry is anything from 0 to base_s * 2 ** (n - 1) seconds, and cap_s at most (full jitter:
    callers that failed together do not come back together).  random: 0 to 1.  `retries` counts the calls made again.
    """

    __slots__ = ("_attempts", "_base_s", "_cap_s", "_random", "_retry_on", "_sleep", "budget", "retries")

    def __init__(
        self,
        budget: RetryBudget,
        *,
        retry_on: tuple[type[BaseException], ...],
        attempts: int = 2,
        base_s: float = 0.02,
        cap_s: float = 0.25,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        for kind in retry_on:
            if not issubclass(kind, Exception):
                raise ValueError(f"retry_on must hold subclasses of Exception, and {kind.__name__} must not be caught")
        if attempts < 1:
            raise ValueError(f"attempts counts the first call too and must be at least 1, not {attempts!r}")
        if not 0 <= base_s <= cap_s:
            raise ValueError(f"base_s must be from 0 to cap_s, and {base_s!r} is not from 0 to {cap_s!r}")
        self.budget = budget
        self._retry_on = retry_on
        self._attempts = attempts
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random
        self._sleep = sleep
        self.retries = 0

    async def run(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of the first call that gives one.

        Raises the last call's error where it is not one of retry_on, the attempts or the budget are used up, or the
        deadline around the caller would come before the end of the pause.
        """
        self.budget.deposit()
        longest_s = self._base_s
        for _ in range(self._attempts - 1):
            try:
                return await call()
            except self._retry_on:
                pause_s = self._random() * longest_s
                if not _fits(pause_s) or not self.budget.spend():
                    raise
            await self._sleep(pause_s)
            self.retries += 1
            longest_s = min(2 * longest_s, self._cap_s)
        return await call()


def _fits(pause_s: float) -> bool:
    """Whether there is time for a pause and something after it."""
    left_s = remaining_s()
    return left_s is None or pause_s < left_s
