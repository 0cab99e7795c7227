"""Acts noted in passing: collected, and entered in the trail together soon after."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple

import msgspec

from app.store.base import StoreUnavailable
from app.store.trail import SYSTEM_TENANT, Act, Trail, act
from app.telemetry.log import event

log = logging.getLogger(__name__)

DROPPED = "notes.dropped"
"""The act that tells how many others of a name were not entered, `{"of": <name>, "dropped": <how many>}`."""
MOST_A_ROOM = 200
MOST_OF_NO_TENANT = 1_000
"""Different acts of one name in a window: of a tenant, and of the service itself, where all callers' logins meet."""
MOST_ROOMS = 1_000
"""Tenants and names of acts that have something to be entered at the same time."""
ACTS_A_COMMIT = 1_000
"""About as many are entered in one transaction."""
LONGEST_WINDOW_S = 60.0
LONGEST_PAUSE_S = 5.0
STOP_S = 2.0
"""How long acts that the store does not take are still tried when the service stops."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Place(NamedTuple):
    """Whose room it is, and of which acts."""

    tenant_id: str
    name: str


class _Many:
    """Equal acts of a window. sample: further facts of the first of them."""

    __slots__ = ("sample", "times")

    def __init__(self, sample: Mapping[str, object], times: int) -> None:
        self.sample = sample
        self.times = times


class _Room:
    """The acts of one place that wait. due: when they are to be entered, on the loop's clock.  window_s: how long they
    are collected.  uncounted: those that found no room."""

    __slots__ = ("acts", "due", "uncounted", "window_s")

    def __init__(self, due: float, window_s: float) -> None:
        self.acts: dict[Act, _Many] = {}
        self.uncounted = 0
        self.due = due
        self.window_s = window_s

    def keep(self, act: Act, sample: Mapping[str, object], times: int, most: int) -> int:
        """How many of so many equal acts found no room."""
        known = self.acts.get(act)
        if known is not None:
            known.times += times
        elif len(self.acts) < most:
            self.acts[act] = _Many(sample, times)
        else:
            self.uncounted += times
            return times
        return 0


class Notes:
    """Enters acts that nobody waits for.

    every_s: how long acts are collected before they are entered.  most, most_of_no_tenant: different acts of one name
    in a window, of a tenant and of the service itself.  rooms: as MOST_ROOMS.  stop_s: as STOP_S.  random: 0 to 1.
    `dropped` counts the acts that were not entered, for want of room or because they were refused.

    # Design: whoever floods the service with what is refused must neither fill the database with that, nor the memory
    while the database is away, nor push out what others did. So every tenant and name of act has a room of its own.
    Equal acts of a window are one entry, with a count and a sample of what was not equal; a room has place for `most`
    different ones, the rest is one number in the same trail, and a room that was full collects for twice as long the
    next time, up to LONGEST_WINDOW_S. Only where more rooms than `rooms` are in use is there none for another.
    """

    __slots__ = (
        "_end",
        "_every_s",
        "_homeless",
        "_most",
        "_most_of_no_tenant",
        "_most_rooms",
        "_next",
        "_random",
        "_rooms",
        "_stop_s",
        "_stopping",
        "_task",
        "_trail",
        "_woken",
        "dropped",
        "entered",
    )

    def __init__(
        self,
        trail: Trail,
        every_s: float = 0.5,
        *,
        most: int = MOST_A_ROOM,
        most_of_no_tenant: int = MOST_OF_NO_TENANT,
        rooms: int = MOST_ROOMS,
        stop_s: float = STOP_S,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._trail = trail
        self._every_s = every_s
        self._most = most
        self._most_of_no_tenant = most_of_no_tenant
        self._most_rooms = rooms
        self._stop_s = stop_s
        self._random = random
        self._rooms: dict[Place, _Room] = {}
        self._homeless: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._woken = asyncio.Event()
        self._next = -math.inf
        self._end = math.inf
        self.dropped = 0
        self.entered = 0

    def note(self, act: Act, sample: Mapping[str, object] | None = None) -> None:
        """Have an act entered soon. Needs a running event loop.

        sample: facts that do not make it another act, such as the path of a request; those of the first are entered.
        None among them is left out.
        """
        self._keep(act, sample or {}, 1)
        if self._task is None or self._task.done():
            # A context of its own: the task must not carry the trace of whichever request came first.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-notes", context=Context())

    def window_s(self, tenant_id: str, name: str) -> float:
        """How long such acts are collected now."""
        room = self._rooms.get(Place(tenant_id, name))
        return self._every_s if room is None else room.window_s

    async def stop(self) -> None:
        """Enter what is left. While the store is away that is tried for a short time, then said in the log."""
        self._end = asyncio.get_running_loop().time() + self._stop_s
        self._stopping = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait((self._task,))
            self._task.result()

    def _keep(self, act: Act, sample: Mapping[str, object], times: int) -> None:
        place = Place(act.tenant_id, act.name)
        room = self._rooms.get(place)
        if room is None:
            if len(self._rooms) >= self._most_rooms:
                self._homeless[act.name] = self._homeless.get(act.name, 0) + times
                self.dropped += times
                return
            due = self._now() + self._every_s
            room = self._rooms[place] = _Room(due, self._every_s)
            if due < self._next:
                self._woken.set()
        most = self._most_of_no_tenant if act.tenant_id == SYSTEM_TENANT else self._most
        self.dropped += room.keep(act, sample, times, most)

    async def _run(self) -> None:
        failures = 0
        while self._rooms:
            if failures:
                # Nobody who comes meanwhile has a store tried again that is away.
                self._next = -math.inf
                await self._pause(self._pause_s(failures))
            else:
                self._next = min(room.due for room in self._rooms.values())
                await self._pause(self._next - self._now())
            if await self._enter():
                if failures:
                    log.info("the audit trail takes acts again", extra=event("audit_back"))
                failures = 0
                continue
            failures += 1
            if failures == 1:
                log.warning("acts wait for the audit trail: the store is unavailable", extra=event("audit_away"))
            if self._stopping:
                if self._now() + self._every_s >= self._end:
                    left = sum(len(room.acts) for room in self._rooms.values())
                    log.error("%d acts could not be entered in the audit trail before the end", left)
                    return
                await asyncio.sleep(self._every_s)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _pause_s(self, failures: int) -> float:
        longest_s = min(math.ldexp(self._every_s, min(failures, 10)), LONGEST_PAUSE_S)
        return longest_s * (1 - self._random() / 2)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until a room is to be entered before `_next`, or this is told to stop."""
        if not self._stopping:
            self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._woken.wait()

    async def _enter(self) -> bool:
        """Enter the rooms that are due; False where the store is unavailable, and then what is in them is kept.

        What the store lost sight of is entered again: better twice than never.
        """
        now = self._now()
        due = [place for place, room in self._rooms.items() if room.due <= now or self._stopping]
        due.reverse()
        while due:
            taken: dict[Place, _Room] = {}
            acts = 0
            while due and acts < ACTS_A_COMMIT:
                place = due.pop()
                taken[place] = self._rooms.pop(place)
                acts += len(taken[place].acts)
            homeless, self._homeless = self._homeless, {}
            try:
                await self._note([*_told(taken), *_uncounted(SYSTEM_TENANT, homeless)])
            except StoreUnavailable:
                self._put_back(taken, homeless)
                return False
            for place, room in taken.items():
                if room.uncounted and not self._stopping:
                    self._widen(place, room.window_s)
        return True

    def _widen(self, place: Place, window_s: float) -> None:
        """Have a room that was full collect for twice as long; left empty, it is given up when that is over."""
        window_s = min(window_s * 2, max(LONGEST_WINDOW_S, self._every_s))
        due = self._now() + window_s
        room = self._rooms.setdefault(place, _Room(due, window_s))
        room.due, room.window_s = due, window_s

    def _put_back(self, taken: Mapping[Place, _Room], homeless: Mapping[str, int]) -> None:
        """Keep what could not be entered, before what came meanwhile."""
        for name, times in homeless.items():
            self._homeless[name] = self._homeless.get(name, 0) + times
        for place, room in taken.items():
            added = self._rooms.get(place)
            self._rooms[place] = room
            if added is not None:
                room.uncounted += added.uncounted
                for one, many in added.acts.items():
                    self._keep(one, many.sample, many.times)

    async def _note(self, acts: list[Act]) -> None:
        """Enter the acts, and where the store refuses them, each that it takes. Raises StoreUnavailable."""
        try:
            if acts:
                await self._trail.note(acts)
                self.entered += len(acts)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(acts) == 1:
                self.dropped += 1
                log.error("the act %r cannot be entered in the audit trail: %s", acts[0].name, type(error).__name__)
                return
            for one in acts:
                await self._note([one])


def _told(rooms: Mapping[Place, _Room]) -> list[Act]:
    """What is entered of the rooms: their acts, and of each that was full, how many found no room."""
    told = []
    for place, room in rooms.items():
        told += [_counted(one, many) for one, many in room.acts.items()]
        if room.uncounted:
            told += _uncounted(place.tenant_id, {place.name: room.uncounted})
    return told


def _uncounted(tenant_id: str, of: Mapping[str, int]) -> list[Act]:
    return [act(tenant_id, DROPPED, "service", of=name, dropped=times) for name, times in of.items()]


def _counted(act: Act, many: _Many) -> Act:
    """The act with its sample, and with how often it was noted where that was more than once."""
    more: dict[str, Any] = {fact: value for fact, value in many.sample.items() if value is not None}
    if many.times > 1:
        more["times"] = many.times
    if not more:
        return act
    detail: dict[str, Any] = msgspec.json.decode(act.detail)
    return msgspec.structs.replace(act, detail=_encode({**detail, **more}))
