"""A whole trail is found to be whole, also while it is written, and what is not proven in it is counted."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal

import pytest
from attacker import Attacker
from audited import ADDED_A_ROUND, KEY, ROUNDS, Audited, anchor_of, fill, filled, kinds, nothing, trail_of, verified
from memorytrail import MemoryTrail
from records import BACKENDS, Backend, row

from app.audit.checkpoints import Checkpoints
from app.audit.report import Assessments
from app.audit.verification import verify
from app.ids import Uuid7, now_ms
from app.store.base import opened
from app.store.chain import leaf
from app.store.trail import SYSTEM_TENANT, Checkpoint, act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


def test_a_whole_trail_is_whole_and_counted(backend: Backend) -> None:
    _, made = filled(backend)
    report = verified(backend, anchors=[anchor_of(made, "acme"), anchor_of(made, SYSTEM_TENANT)])
    assert (report.intact, report.faults, report.more, report.anchors) == (True, [], 0, 2)
    assert [trail.tenant_id for trail in report.trails] == [SYSTEM_TENANT, "acme", "zeta"]
    acme = trail_of(report, "acme")
    # A group commit of several tenants is an entry for each.
    assert acme.entries == ROUNDS * (ADDED_A_ROUND + 3)
    assert (acme.after, acme.checkpoints, acme.checkpoint) == (0, ROUNDS, ROUNDS)
    assert acme.assessments == Assessments(proven=ROUNDS * (ADDED_A_ROUND + 6))
    assert trail_of(report, "zeta").assessments == Assessments(proven=2 * ROUNDS)
    anchors = [anchor_of(made, "acme")]
    assert trail_of(verified(backend, tenant_id="acme", anchors=anchors), "acme") == acme
    assert [trail.tenant_id for trail in verified(backend, tenant_id="acme").trails] == ["acme"]


def test_without_rows_no_assessment_is_looked_at(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.run("DELETE FROM assessments")

    async def scenario(store: Audited) -> None:
        report = await verify(store, KEY, None)
        assert report.intact
        assert trail_of(report, "acme").assessments is None

    backend.run(scenario)


def test_what_no_checkpoint_covers_yet_is_counted(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        await fill(store, 2)
        await store.note([act("acme", "role.refused", "cli"), act("acme", "role.refused", "cli")])
        await store.note([act("new", "role.refused", "cli")])
        report = await verify(store, KEY, store)
        assert report.intact
        assert [(trail.tenant_id, trail.after) for trail in report.trails] == [
            (SYSTEM_TENANT, 0),
            ("acme", 2),
            ("new", 1),
            ("zeta", 0),
        ]
        assert trail_of(report, "new").checkpoint is None

    backend.run(scenario)


def test_assessments_dropped_by_their_retention_leave_the_trail_whole(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        await fill(store, 2)
        old = [row(id=one) for one in _ids_of(dt.date.today() - dt.timedelta(days=40), 3)]
        await store.add(old[:1], actor="key-a")
        await store.add([*old[1:], row()], actor="key-a")
        await store.set_retention("acme", 30)
        [dropped] = await store.drop_past(dt.date.today())
        assert dropped.assessments == 3
        report = await verify(store, KEY, store)
        assert report.intact
        there = trail_of(report, "acme").assessments
        assert there == Assessments(proven=2 * (ADDED_A_ROUND + 6), missing=3, unproven=1)

    backend.run(scenario)


def _ids_of(day: dt.date, count: int) -> list[bytes]:
    at_ms = int(dt.datetime.combine(day, dt.time(12), dt.UTC).timestamp() * 1000)
    made = Uuid7(lambda: at_ms)
    return [made.new() for _ in range(count)]


def test_assessments_whose_input_was_erased_are_proven_by_the_leaf_that_was_kept(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        await store.add([row(business_id="gone"), row(business_id="stays")], actor="key-a")
        await store.add([row(business_id="gone")], actor="key-a")
        erased = await store.erase("acme", "gone", reason="asked", redact=lambda _: b"", now_ms=now_ms())
        assert erased.assessments == 2
        report = await verify(store, KEY, store)
        assert report.intact
        assert trail_of(report, "acme").assessments == Assessments(proven=3, erased=2)

    backend.run(scenario)
    attacker = Attacker(backend.place)
    attacker.run("UPDATE assessments SET leaf = $1 WHERE leaf IS NOT NULL", b"x" * 32)
    assert kinds(verified(backend)) == {"assessment.altered"}


def test_a_leaf_beside_an_input_that_is_there_proves_nothing(backend: Backend) -> None:
    attacker, _ = filled(backend)

    async def scenario(store: Audited) -> None:
        [mine] = await store.page("acme", limit=1)
        await asyncio.to_thread(
            attacker.run, "UPDATE assessments SET leaf = $1, score = 1 WHERE id = $2", leaf(mine), mine.id
        )
        assert kinds(await verify(store, KEY, store)) == {"assessment.altered"}

    backend.run(scenario)


def test_a_trail_that_is_written_while_it_is_verified_is_whole(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        await fill(store, 2)
        filling = asyncio.create_task(fill(store, 10))
        verifications = 0
        while not filling.done():
            report = await verify(store, KEY, store)
            assert report.faults == []
            verifications += 1
        await filling
        assert verifications > 1

    backend.run(scenario)


def test_two_processes_checkpoint_the_same_trails_at_once(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        other: Audited = backend.make()  # type: ignore[assignment]
        async with opened(other):
            await asyncio.gather(fill(store), fill(other))
            last = [Checkpoints(one, KEY, 3600.0, nothing) for one in (store, other)]
            assert await last[0].cover()
            report = await verify(other, KEY, other)
        assert report.faults == []
        assert {trail.after for trail in report.trails} == {0}
        assert trail_of(report, "acme").entries == 2 * ROUNDS * (ADDED_A_ROUND + 3)

    backend.run(scenario)


WRITES = """
from app.store.trail import act

async def main(store, arguments):
    while True:
        made = row("acme")
        await store.add([made], actor="key-a")
        await store.note([act("acme", "role.refused", "cli")])
        say(text(made.id))
"""


def test_what_a_killed_process_entered_is_covered_by_the_next_start(backend: Backend) -> None:
    with backend.child(WRITES) as child:
        assert child.stdout is not None
        recorded = [json.loads(child.stdout.readline())[0] for _ in range(20)]
        child.send_signal(signal.SIGKILL)

    async def scenario(store: Audited) -> None:
        before = await verify(store, KEY, store)
        assert before.intact
        left = trail_of(before, "acme")
        assert left.after == left.entries >= 2 * len(recorded)
        checkpoints = Checkpoints(store, KEY, 3600.0, nothing)
        checkpoints.start()
        await checkpoints.stop()
        after = await verify(store, KEY, store)
        assert after.intact
        assert (trail_of(after, "acme").entries, trail_of(after, "acme").after) == (left.entries, 0)

    backend.run(scenario)


def test_a_server_for_reads_that_is_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.audit.verification.LAG_PAUSE_S", 0.0)

    async def scenario() -> None:
        trail = MemoryTrail()
        made: list[Checkpoint] = []
        checkpoints = Checkpoints(trail, KEY, 3600.0, made.append)
        for _ in range(3):
            await trail.note([act("acme", "role.refused", "cli")])
            assert await checkpoints.cover()
        read, calls = trail.checkpoints, 0

        async def behind(tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
            nonlocal calls
            calls += 1
            return [one for one in await read(tenant_id, after=after, limit=limit) if one.number <= calls // 3]

        trail.checkpoints = behind  # type: ignore[method-assign]
        report = await verify(trail, KEY, None, anchors=[anchor_of(made, "acme")])
        assert report.faults == []

    asyncio.run(scenario())
