"""Acts noted in passing: collected, and entered in the trail together soon after."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

import msgspec

from app.store.base import StoreUnavailable
from app.store.trail import SYSTEM_TENANT, Act, Trail, act

log = logging.getLogger(__name__)

DROPPED = "notes.dropped"
"""The act that tells how many others were not entered, `{"dropped": <how many>}`."""
MOST_A_WINDOW = 1_000
LONGEST_WINDOW_S = 60.0
LONGEST_PAUSE_S = 5.0
STOP_S = 2.0
"""How long acts that the store does not take are still tried when the service stops."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Notes:
    """Enters acts that nobody waits for.

    every_s: how long acts are collected before they are entered in one transaction.  most: different acts a window.
    stop_s: as STOP_S.  random: 0 to 1.  `dropped` counts the acts that were not entered, for want of room or because
    they were refused; `window_s` is how long acts are collected now.

    # Design: whoever floods the service with refused logins must neither fill the database with them nor the memory
    while the database is away. So equal acts of a window are one entry, a window has room for `most` different ones,
    the rest is one number, and the window after a full one is twice as long, up to LONGEST_WINDOW_S.
    """

    __slots__ = (
        "_end",
        "_every_s",
        "_most",
        "_random",
        "_stop_s",
        "_stopping",
        "_task",
        "_trail",
        "_uncounted",
        "_window",
        "dropped",
        "window_s",
    )

    def __init__(
        self,
        trail: Trail,
        every_s: float = 0.5,
        *,
        most: int = MOST_A_WINDOW,
        stop_s: float = STOP_S,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._trail = trail
        self._every_s = every_s
        self._most = most
        self._stop_s = stop_s
        self._random = random
        self._window: dict[Act, int] = {}
        self._uncounted = 0
        self.window_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._end = math.inf
        self.dropped = 0

    def note(self, act: Act) -> None:
        """Have an act entered soon. Needs a running event loop."""
        self._keep(act, 1)
        if self._task is None or self._task.done():
            # A context of its own: the task must not carry the trace of whichever request came first.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-notes", context=Context())

    async def stop(self) -> None:
        """Enter what is left. While the store is away that is tried for a short time, then said in the log."""
        self._end = asyncio.get_running_loop().time() + self._stop_s
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,))
            self._task.result()

    def _keep(self, act: Act, times: int) -> None:
        if act in self._window or len(self._window) < self._most:
            self._window[act] = self._window.get(act, 0) + times
        else:
            self._uncounted += times
            self.dropped += times

    async def _run(self) -> None:
        failures = 0
        while self._window:
            await self._pause(self._pause_s(failures))
            if await self._enter():
                if failures:
                    log.info("the audit trail takes acts again")
                failures = 0
                continue
            failures += 1
            if failures == 1:
                log.warning("acts wait for the audit trail: the store is unavailable")
            if self._stopping.is_set():
                if asyncio.get_running_loop().time() + self._every_s >= self._end:
                    log.error("%d acts could not be entered in the audit trail before the end", len(self._window))
                    return
                await asyncio.sleep(self._every_s)

    def _pause_s(self, failures: int) -> float:
        if not failures:
            return self.window_s
        longest_s = min(math.ldexp(self._every_s, min(failures, 10)), LONGEST_PAUSE_S)
        return longest_s * (1 - self._random() / 2)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _enter(self) -> bool:
        """Enter the window; False where the store is unavailable, and then all of it is kept for later.

        What the store lost sight of is entered again: better twice than never.
        """
        taken, uncounted = self._window, self._uncounted
        self._window, self._uncounted = {}, 0
        acts = [_counted(one, times) for one, times in taken.items()]
        if uncounted:
            acts.append(act(SYSTEM_TENANT, DROPPED, "service", dropped=uncounted))
        try:
            await self._note(acts)
        except StoreUnavailable:
            added = self._window
            self._window = taken
            self._uncounted += uncounted
            for one, times in added.items():
                self._keep(one, times)
            return False
        self.window_s = min(self.window_s * 2, max(LONGEST_WINDOW_S, self._every_s)) if uncounted else self._every_s
        return True

    async def _note(self, acts: list[Act]) -> None:
        """Enter the acts, and where the store refuses them, each that it takes. Raises StoreUnavailable."""
        try:
            await self._trail.note(acts)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(acts) == 1:
                self.dropped += 1
                log.error("the act %r cannot be entered in the audit trail: %r", acts[0].name, error)
                return
            for one in acts:
                await self._note([one])


def _counted(act: Act, times: int) -> Act:
    """The act, with how often it was noted where that was more than once."""
    if times == 1:
        return act
    detail: dict[str, Any] = msgspec.json.decode(act.detail)
    return msgspec.structs.replace(act, detail=_encode({**detail, "times": times}))
