"""Trails filled with acts and checkpoints, and what a verification says of them."""

from __future__ import annotations

from collections.abc import Sequence

from attacker import Attacker
from memorytrail import MemoryTrail
from records import Backend, Records, row

from app.audit.anchors import Anchor
from app.audit.checkpoints import Checkpoints
from app.audit.report import Fault, Report, TrailReport
from app.audit.verification import verify
from app.store.holdings import Holdings
from app.store.trail import SYSTEM_TENANT, Checkpoint, Trail, act

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
FOREVER_S = 3600.0
SOON_S = 0.001
ROUNDS = 8
ADDED_A_ROUND = 12


class Audited(Records, Trail, Holdings):
    """A store with everything that it can do, the trail included."""


def nothing(checkpoint: Checkpoint) -> None:
    """An anchor that keeps nothing."""


async def noted(trail: MemoryTrail, tenant_id: str, times: int = 1) -> None:
    """Acts entered, each in a transaction of its own."""
    for number in range(times):
        await trail.note([act(tenant_id, "audit.exported", "cli", number=number)])


async def fill(store: Audited, rounds: int = ROUNDS, *, covered: bool = True) -> list[Checkpoint]:
    """Record assessments and acts for several tenants, a checkpoint after each round; those made."""
    made: list[Checkpoint] = []
    checkpoints = Checkpoints(store, KEY, 3600.0, made.append)
    for number in range(rounds):
        for _ in range(ADDED_A_ROUND):
            await store.add([row()], actor="key-a")
        await store.add([row() for _ in range(5)], actor="key-b")
        assert await store.add_each([row("zeta"), row(), row("zeta")], actor="key-c") == [None] * 3
        await store.note([act("acme", "audit.exported", "cli", number=number), act("zeta", "audit.exported", "cli")])
        await store.note([act(SYSTEM_TENANT, "login.refused", "", address="192.0.2.7", number=number)])
        if covered:
            assert await checkpoints.cover()
    return made


def verified(backend: Backend, **options: object) -> Report:
    """What a verification of the store says. options: for `verify`; key: another signing key."""
    reports: list[Report] = []

    async def scenario(store: Audited) -> None:
        key = options.pop("key", KEY)
        reports.append(await verify(store, key, store, **options))

    backend.run(scenario)
    return reports[0]


def filled(backend: Backend) -> tuple[Attacker, list[Checkpoint]]:
    """A database with a trail that is whole, and the checkpoints that were made of it."""
    made: list[Checkpoint] = []

    async def scenario(store: Audited) -> None:
        made.extend(await fill(store))

    backend.run(scenario)
    return Attacker(backend.place), made


def only(report: Report) -> Fault:
    """The one fault that there is, what follows of it for the assessments aside."""
    [fault] = [fault for fault in report.faults if "that is left tells" not in fault.detail]
    assert not report.intact
    return fault


def kinds(report: Report) -> set[str]:
    assert report.intact == (not report.faults)
    return {fault.kind for fault in report.faults if "that is left tells" not in fault.detail}


def trail_of(report: Report, tenant_id: str) -> TrailReport:
    return next(trail for trail in report.trails if trail.tenant_id == tenant_id)


def anchor_of(made: Sequence[Checkpoint], tenant_id: str) -> Anchor:
    last = [one for one in made if one.tenant_id == tenant_id][-1]
    return Anchor(tenant_id, last.number, last.hash)
