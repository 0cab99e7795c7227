"""Hearing that the server is told to stop while requests are at work: the lifespan's end comes only after them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def when_told_to_stop(call: Callable[[], None]) -> None:
    """Have it called on this event loop at a signal that the server handles already, as it goes on doing.

    # Design: an event loop hears of a signal through its wake-up descriptor (`signal.set_wakeup_fd`), and its Python
    # handler has nothing to do: another can stand in its place.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        before = signal.getsignal(number)
        if not callable(before) or before is signal.default_int_handler:
            # Nobody would stop the process any more.
            continue

        def heard(number: int, frame: FrameType | None, before: Callable[..., object] = before) -> None:
            loop.call_soon_threadsafe(call)
            before(number, frame)

        signal.signal(number, heard)
        signal.siginterrupt(number, False)
