"""Waiting no longer than is useful."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Answer = TypeVar("Answer")


class DeadlineExceeded(Exception):
    """The answer did not come in time. timeout_s: how long it was waited for, in seconds."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no answer within {timeout_s:g} s")
        self.timeout_s = timeout_s


async def within(awaitable: Awaitable[Answer], timeout_s: float) -> Answer:
    """The awaitable's result, if it comes within timeout_s seconds; otherwise it is cancelled.

    Raises DeadlineExceeded; errors and cancellation, also a TimeoutError of the awaitable's own, pass unchanged.
    """
    if not isinstance(awaitable, asyncio.Future):
        scope = asyncio.timeout(timeout_s)
        try:
            async with scope:
                answer: Answer = await awaitable
                return answer
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded(timeout_s) from None
            raise
    future: asyncio.Future[Answer] = awaitable
    if future.done():
        return future.result()
    # A future needs no scope around a task, only a timer that cancels it: about a third of the price.
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = future.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, expire)
    try:
        return await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if expired and not (task and task.cancelling()):
            raise DeadlineExceeded(timeout_s) from None
        raise
    finally:
        timer.cancel()
