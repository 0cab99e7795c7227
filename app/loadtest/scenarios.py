"""What is asked of the service, and for how long: the scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from app.loadtest.process import Point

FULL_USERS = 10_000
FLAT_OUT_BUSINESSES = 1000
QUICK_USERS = 1000
BASELINE_USERS = 100
STRESS = (1.0, 1.2, 1.5, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
"""The stages of a stress test, in multiples of the full number of users."""
LEAST_S = 5
"""Of a phase, however much times are shrunk: every user sends once in so long."""
MINUTE = 60
SOAK_S = 10 * MINUTE
WARM_S = 90.0
"""By then every connection of a soak has carried the largest of its requests: what it takes of the service for that is
no growth. By chance alone, of one request in a hundred it takes a user who asks every 5 s an hour."""


class Phase(NamedTuple):
    """So many seconds in which the users become `last` from `first`, in a straight line."""

    seconds: int
    first: int
    last: int


class Plan(NamedTuple):
    """A scenario before it has run.

    is_staged: each phase is judged by itself as well.  seeks_limit: it ends with the first phase that misses a target.
    flat_out: users send as soon as they are answered.  businesses: that are assessed, 0 for ever new ones.
    """

    name: str
    description: str
    phases: tuple[Phase, ...]
    is_staged: bool = False
    seeks_limit: bool = False
    flat_out: bool = False
    businesses: int = 0

    @property
    def seconds(self) -> int:
        """How long it takes, at most."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def users(self) -> int:
        """The most there are at a time."""
        return max(max(phase.first, phase.last) for phase in self.phases)

    @property
    def is_soak(self) -> bool:
        """Whether as many users stay for so long that memory has to stay as it is."""
        is_steady = len({users for phase in self.phases for users in (phase.first, phase.last)}) == 1
        return is_steady and not self.flat_out and self.seconds >= SOAK_S

    @property
    def warm_s(self) -> float:
        """In how many seconds every user has asked for the most of the mix; 0 where memory is not looked at."""
        return WARM_S if self.is_soak else 0.0

    def points(self) -> list[Point]:
        """The users over time, for the generator."""
        at, found = 0, []
        for phase in self.phases:
            found += [Point(at, phase.first), Point(at + phase.seconds, phase.last)]
            at += phase.seconds
        return found


def _steady(seconds: float, users: float) -> Phase:
    return Phase(round(seconds), round(users), round(users))


def _baseline(users: int) -> Plan:
    few = min(users, BASELINE_USERS)
    return Plan("baseline", f"{few:,} users", (_steady(MINUTE, few),))


def _ramp_up(users: int) -> Plan:
    return Plan("ramp-up", f"from none to {users:,} users", (Phase(5 * MINUTE, 0, users),))


def _sustained(users: int) -> Plan:
    return Plan("sustained", f"{users:,} users", (_steady(30 * MINUTE, users),))


def _spike(users: int) -> Plan:
    high = round(users * 1.5)
    return Plan(
        "spike",
        f"{users:,} users, {high:,} at once, {users:,} again",
        (_steady(2 * MINUTE, users), _steady(2 * MINUTE, high), _steady(3 * MINUTE, users)),
        is_staged=True,
    )


def _stress(users: int) -> Plan:
    return Plan(
        "stress",
        f"from {users:,} users on, more and more until a target is missed",
        tuple(_steady(2 * MINUTE, users * times) for times in STRESS),
        is_staged=True,
        seeks_limit=True,
    )


def _endurance(users: int) -> Plan:
    return Plan("endurance", f"{users:,} users for long", (_steady(120 * MINUTE, users),))


def _flat_out(users: int) -> Plan:
    return Plan(
        "flat-out",
        f"{users:,} users, each sending as soon as it is answered, {FLAT_OUT_BUSINESSES:,} businesses",
        (_steady(MINUTE, users),),
        flat_out=True,
        businesses=FLAT_OUT_BUSINESSES,
    )


SCENARIOS: Mapping[str, Callable[[int], Plan]] = {
    "baseline": _baseline,
    "ramp-up": _ramp_up,
    "sustained": _sustained,
    "spike": _spike,
    "stress": _stress,
    "endurance": _endurance,
    "flat-out": _flat_out,
}
USUAL = ("baseline", "ramp-up", "sustained", "spike", "stress")


def quick(users: int) -> list[Plan]:
    """Two minutes: baseline, ramp-up, and a spike to twice as many."""
    return [
        Plan("baseline", f"{min(users, BASELINE_USERS):,} users", (_steady(30, min(users, BASELINE_USERS)),)),
        Plan("ramp-up", f"from none to {users:,} users", (Phase(30, 0, users),)),
        Plan(
            "spike",
            f"{users:,} users, {2 * users:,} at once, {users:,} again",
            (_steady(15, users), _steady(15, 2 * users), _steady(25, users)),
            is_staged=True,
        ),
    ]


def lasting(plan: Plan, seconds: float | None, scale: float) -> Plan:
    """The plan in another time. seconds: for all of it, or for each stage where it seeks the limit; None for its own.
    scale: of the time; no phase gets shorter than LEAST_S."""
    whole = plan.phases[0].seconds if plan.seeks_limit else plan.seconds
    factor = (1.0 if seconds is None else seconds / whole) * scale
    phases = tuple(
        phase._replace(seconds=max(LEAST_S, math.ceil(round(phase.seconds * factor, 6)))) for phase in plan.phases
    )
    return plan._replace(phases=phases)
