"""A whole trail is found to be whole, and whatever somebody does to the database behind its back is found and named."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import msgspec
import pytest
from attacker import Attacker
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from memorytrail import MemoryTrail, Shelf
from records import BACKENDS, Backend, Records, ids, override, play, row

from app.audit.anchors import Anchor
from app.audit.checkpoints import Checkpoints
from app.audit.report import MOST_OF_A_KIND, Assessments, Fault, Report, TrailReport
from app.audit.verification import verify
from app.ids import Uuid7, now_ms, text
from app.store.base import Row, opened
from app.store.chain import GENESIS, leaf
from app.store.sqlite import SqliteStore
from app.store.trail import RECORDED, SYSTEM_TENANT, Checkpoint, Trail, act

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ROUNDS = 8
ADDED_A_ROUND = 12


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


class Audited(Records, Trail):
    """A store with everything that it can do, the trail included."""


def nothing(checkpoint: Checkpoint) -> None:
    """An anchor that keeps nothing."""


async def fill(store: Audited, rounds: int = ROUNDS, *, covered: bool = True) -> list[Checkpoint]:
    """Record assessments and acts for several tenants, a checkpoint after each round; those made."""
    made: list[Checkpoint] = []
    checkpoints = Checkpoints(store, KEY, 3600.0, made.append)
    for number in range(rounds):
        for _ in range(ADDED_A_ROUND):
            await store.add([row()], actor="key-a")
        await store.add([row() for _ in range(5)], actor="key-b")
        assert await store.add_each([row("zeta"), row(), row("zeta")], actor="key-c") == [None] * 3
        await store.note([act("acme", "key.created", "cli", id=f"key-{number}"), act("zeta", "key.revoked", "cli")])
        await store.note([act(SYSTEM_TENANT, "login.refused", "", address="192.0.2.7", number=number)])
        if covered:
            assert await checkpoints.cover()
    return made


def verified(backend: Backend, **options: object) -> Report:
    """What a verification of the store says. options: for `verify`; key: another signing key."""
    reports: list[Report] = []

    async def scenario(store: Audited) -> None:
        key = options.pop("key", KEY)
        reports.append(await verify(store, key, store.get_each, **options))

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
    """The one fault that there is."""
    [fault] = report.faults
    assert not report.intact
    return fault


def kinds(report: Report) -> set[str]:
    assert report.intact == (not report.faults)
    return {fault.kind for fault in report.faults}


def trail_of(report: Report, tenant_id: str) -> TrailReport:
    return next(trail for trail in report.trails if trail.tenant_id == tenant_id)


def anchor_of(made: Sequence[Checkpoint], tenant_id: str) -> Anchor:
    last = [one for one in made if one.tenant_id == tenant_id][-1]
    return Anchor(tenant_id, last.number, last.hash)


# What is no fault


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
    assert trail_of(verified(backend, tenant_id="acme"), "acme") == acme
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
        await store.note([act("acme", "key.revoked", "cli"), act("acme", "key.created", "cli")])
        await store.note([act("new", "key.created", "cli")])
        report = await verify(store, KEY, store.get_each)
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
        report = await verify(store, KEY, store.get_each)
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
        report = await verify(store, KEY, store.get_each)
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
        assert kinds(await verify(store, KEY, store.get_each)) == {"assessment.altered"}

    backend.run(scenario)


def test_a_trail_that_is_written_while_it_is_verified_is_whole(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        await fill(store, 2)
        filling = asyncio.create_task(fill(store, 10))
        verifications = 0
        while not filling.done():
            report = await verify(store, KEY, store.get_each)
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
            report = await verify(other, KEY, other.get_each)
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
        await store.note([act("acme", "key.created", "cli")])
        say(text(made.id))
"""


def test_what_a_killed_process_entered_is_covered_by_the_next_start(backend: Backend) -> None:
    with backend.child(WRITES) as child:
        assert child.stdout is not None
        recorded = [json.loads(child.stdout.readline())[0] for _ in range(20)]
        child.send_signal(signal.SIGKILL)

    async def scenario(store: Audited) -> None:
        before = await verify(store, KEY, store.get_each)
        assert before.intact
        left = trail_of(before, "acme")
        assert left.after == left.entries >= 2 * len(recorded)
        checkpoints = Checkpoints(store, KEY, 3600.0, nothing)
        checkpoints.start()
        await checkpoints.stop()
        after = await verify(store, KEY, store.get_each)
        assert after.intact
        assert (trail_of(after, "acme").entries, trail_of(after, "acme").after) == (left.entries, 0)

    backend.run(scenario)


# Attacks on entries


def test_an_edited_entry_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entry = attacker.longest("acme")[20]
    attacker.change(entry, "actor", "somebody-else")
    fault = only(verified(backend))
    assert (fault.kind, fault.tenant_id, fault.segment, fault.entry) == (
        "entry.edited",
        "acme",
        text(entry.segment),
        21,
    )
    assert str(fault) == (
        f"entry.edited: tenant acme, segment {text(entry.segment)}, entry 21: it does not hash to its own hash"
    )


def test_an_edited_entry_with_its_own_hash_computed_anew_is_found(backend: Backend) -> None:
    attacker, made = filled(backend)
    entries = attacker.longest("acme")
    heads = {head.number for one in made for head in one.heads if head.segment == entries[0].segment}
    place = next(number for number in range(20, 40) if number + 1 not in heads)
    attacker.restamp([msgspec.structs.replace(entries[place], actor="somebody-else")])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry) == ("entry.unlinked", place + 2)


def test_an_edited_entry_with_all_later_hashes_computed_anew_is_found(backend: Backend) -> None:
    attacker, made = filled(backend)
    entries = attacker.longest("acme")
    attacker.restamp([msgspec.structs.replace(entries[20], detail=b"{}"), *entries[21:]])
    heads = {head.number: one.number for one in made for head in one.heads if head.segment == entries[0].segment}
    first, last_right = min(number for number in heads if number > 20), max(number for number in heads if number <= 20)
    # Those it made of an assessment's entry another one of are told, too.
    report = verified(backend, tenant_id="acme")
    [fault] = [fault for fault in report.faults if fault.kind != "entry.unreadable"]
    assert (fault.kind, fault.entry) == ("entry.restamped", first)
    assert f"after entry {last_right}, which is as checkpoint {heads[last_right]} says" in fault.detail


def test_a_restamped_chain_with_a_new_signature_needs_the_key(backend: Backend) -> None:
    attacker, made = filled(backend)
    entries = attacker.longest("acme")
    attacker.restamp([msgspec.structs.replace(entries[0], actor="somebody-else"), *entries[1:]])
    hashes = {entry.number: entry.hash for entry in attacker.longest("acme")}
    previous = GENESIS
    for one in attacker.checkpoints("acme"):
        heads = [
            msgspec.structs.replace(head, hash=hashes[head.number]) if head.segment == entries[0].segment else head
            for head in one.heads
        ]
        attacker.replace(msgspec.structs.replace(one, heads=tuple(heads), previous=previous), OTHER_KEY)
        previous = attacker.checkpoints("acme")[one.number - 1].hash
    report = verified(backend, anchors=[anchor_of(made, "acme")])
    forged = [fault for fault in report.faults if fault.kind == "checkpoint.forged"]
    assert [(fault.tenant_id, fault.checkpoint) for fault in forged] == [("acme", n + 1) for n in range(ROUNDS)]
    assert kinds(report) == {"checkpoint.forged", "checkpoint.replaced"}
    # Of this tenant alone, it could as well be the key that is wrong.
    assert kinds(verified(backend, tenant_id="acme")) == {"key.wrong"}


def test_a_deleted_entry_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.delete(attacker.longest("acme")[20:21])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry, fault.detail) == (
        "entry.deleted",
        21,
        "entry 21 is missing, and entry 22 is there",
    )


def test_entries_deleted_at_the_beginning_are_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.delete(attacker.longest("acme")[:30])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry) == ("entry.deleted", 1)
    assert "the entries 1 to 30 are missing" in fault.detail


def test_a_deleted_entry_in_a_chain_linked_and_numbered_anew_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entries = attacker.longest("acme")
    attacker.delete(entries[20:])
    attacker.restamp([entries[20], *entries[22:]])
    assert kinds(verified(backend)) == {"entry.restamped", "trail.truncated"}


def test_a_truncated_segment_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entries = attacker.longest("acme")
    attacker.delete(entries[-5:])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry) == ("trail.truncated", len(entries) - 4)
    assert f"the entries {len(entries) - 4} to {len(entries)} are missing at its end" in fault.detail
    assert f"checkpoint {ROUNDS} covers them" in fault.detail


def test_a_truncated_segment_that_goes_on_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entries = attacker.longest("acme")
    attacker.delete(entries[60:-1])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry) == ("entry.deleted", 61)


def test_a_deleted_segment_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entries = attacker.longest("acme")
    attacker.delete(entries)
    fault = only(verified(backend))
    assert (fault.kind, fault.segment, fault.entry) == ("segment.deleted", text(entries[0].segment), 1)


def test_an_entry_below_the_first_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    entry = attacker.longest("acme")[0]
    attacker.change(entry, "number", -5)
    assert kinds(verified(backend)) == {"entry.edited", "entry.deleted"}


# Attacks on checkpoints


def test_a_forged_checkpoint_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    last = attacker.checkpoints("acme")[-1]
    attacker.replace(msgspec.structs.replace(last, at_ms=last.at_ms + 1), OTHER_KEY)
    fault = only(verified(backend))
    assert (fault.kind, fault.checkpoint) == ("checkpoint.forged", ROUNDS)


@pytest.mark.parametrize(
    ("column", "value"), [("entries", 3), ("at_ms", 0), ("previous", b"p" * 32), ("hash", b"h" * 32)]
)
def test_an_edited_checkpoint_is_found(backend: Backend, column: str, value: object) -> None:
    attacker, _ = filled(backend)
    attacker.run(f"UPDATE audit_checkpoints SET {column} = $1 WHERE tenant_id = 'acme' AND number = 3", value)
    fault = only(verified(backend))
    assert (fault.kind, fault.tenant_id, fault.checkpoint) == ("checkpoint.edited", "acme", 3)


def test_a_deleted_checkpoint_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.run("DELETE FROM audit_checkpoints WHERE tenant_id = 'acme' AND number IN (3, 4)")
    fault = only(verified(backend))
    assert (fault.kind, fault.checkpoint) == ("checkpoint.deleted", 3)
    assert "the checkpoints 3 to 4 are missing" in fault.detail


def test_a_deleted_checkpoint_in_a_chain_numbered_anew_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.run("DELETE FROM audit_checkpoints WHERE tenant_id = 'acme' AND number = 3")
    for number in range(4, ROUNDS + 1):
        attacker.run(
            "UPDATE audit_checkpoints SET number = $1 WHERE tenant_id = 'acme' AND number = $2", number - 1, number
        )
    assert "checkpoint.edited" in kinds(verified(backend))


def test_a_checkpoint_whose_heads_cannot_be_read_hides_no_other(backend: Backend) -> None:
    attacker, _ = filled(backend)
    attacker.run("UPDATE audit_checkpoints SET heads = $1 WHERE tenant_id = 'acme' AND number = 3", b"no heads")
    attacker.run("UPDATE audit_checkpoints SET entries = 0 WHERE tenant_id = 'acme' AND number = 6")
    faults = verified(backend).faults
    assert [(fault.kind, fault.checkpoint) for fault in faults] == [
        ("checkpoint.unreadable", 3),
        ("checkpoint.edited", 6),
    ]
    attacker.run("UPDATE audit_checkpoints SET heads = $1 WHERE tenant_id = 'acme'", b"no heads")
    assert kinds(verified(backend)) == {"checkpoint.unreadable"}


def test_the_last_checkpoints_deleted_are_found_by_the_heads_that_they_covered(backend: Backend) -> None:
    attacker, made = filled(backend)
    attacker.cut_checkpoints("acme", ROUNDS - 1)
    assert kinds(verified(backend)) == {"checkpoint.deleted"}
    faults = verified(backend, anchors=[anchor_of(made, "acme")]).faults
    assert f"the checkpoints {ROUNDS - 1} to {ROUNDS} are missing" in faults[-1].detail


def test_the_last_checkpoints_deleted_with_all_that_they_covered_are_found_by_what_is_kept_outside(
    backend: Backend,
) -> None:
    attacker, made = filled(backend)
    attacker.cut_all("acme", ROUNDS - 1)
    assert verified(backend).intact
    fault = only(verified(backend, anchors=[anchor_of(made, "acme")]))
    assert (fault.kind, fault.checkpoint) == ("checkpoint.deleted", ROUNDS - 1)
    assert f"the checkpoints {ROUNDS - 1} to {ROUNDS} are missing" in fault.detail


def test_a_trail_deleted_altogether_is_found_by_what_is_kept_outside(backend: Backend) -> None:
    attacker, made = filled(backend)
    attacker.cut_all("acme", 1)
    assert verified(backend).intact
    fault = only(verified(backend, anchors=[anchor_of(made, "acme")]))
    assert (fault.kind, fault.tenant_id, fault.checkpoint) == ("checkpoint.deleted", "acme", 1)


def test_a_trail_that_went_on_after_it_was_cut_is_found_by_what_is_kept_outside(backend: Backend) -> None:
    attacker, made = filled(backend)
    attacker.cut_all("acme", 3)
    filled(backend)
    assert verified(backend).intact
    fault = only(verified(backend, anchors=[anchor_of(made, "acme")]))
    assert (fault.kind, fault.checkpoint) == ("checkpoint.replaced", ROUNDS)


def test_a_checkpoint_of_a_trail_that_was_cut_is_found_in_the_one_that_went_on(backend: Backend) -> None:
    attacker, made = filled(backend)
    attacker.cut_all("acme", 3)
    filled(backend)
    # With the right signature, and in its old place.
    attacker.replace(next(one for one in made if (one.tenant_id, one.number) == ("acme", 5)), KEY)
    faults = [(fault.kind, fault.checkpoint) for fault in verified(backend).faults if fault.checkpoint is not None]
    assert faults == [("checkpoint.unlinked", 5), ("checkpoint.unlinked", 6)]


@pytest.mark.parametrize("change", ["number - 1", "number + 1", "0"])
def test_an_edited_head_is_found(backend: Backend, change: str) -> None:
    attacker, _ = filled(backend)
    attacker.run(f"UPDATE audit_heads SET number = {change} WHERE tenant_id = 'acme'")
    assert kinds(verified(backend)) <= {"heads.edited", "checkpoint.deleted"}
    assert not verified(backend).intact


def test_a_checkpoint_made_after_a_head_was_edited_is_found_to_be_miscounted(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        checkpoints = Checkpoints(store, KEY, 3600.0, nothing)
        for edited in (False, False, True, False):
            await store.note([act("acme", "key.created", "cli")])
            if edited:
                await asyncio.to_thread(Attacker(backend.place).run, "UPDATE audit_heads SET number = 1")
            assert await checkpoints.cover()
        fault = only(await verify(store, KEY, store.get_each))
        assert (fault.kind, fault.checkpoint) == ("checkpoint.miscounted", 3)
        assert fault.detail == "it counts 4 entries, and its heads with those before it make 3"

    backend.run(scenario)


def test_a_wrong_key_is_said_to_be_wrong(backend: Backend) -> None:
    filled(backend)
    fault = only(verified(backend, key=OTHER_KEY))
    assert (fault.kind, fault.tenant_id) == ("key.wrong", None)
    assert "wrong AUDIT_SIGNING_KEY" in str(fault)


# Attacks on assessments


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score", 1),
        ("level", 0),
        ("decision", 0),
        ("record", b"r"),
        ("input", b"i"),
        ("model_sha256", b"s" * 32),
    ],
)
def test_an_altered_assessment_is_found(backend: Backend, column: str, value: object) -> None:
    attacker, _ = filled(backend)
    alone = next(one for one in attacker.longest("acme") if one.act == RECORDED and len(one.subjects) == 16)
    attacker.run(f"UPDATE assessments SET {column} = $1 WHERE id = $2", value, alone.subjects)
    report = verified(backend)
    fault = only(report)
    assert (fault.kind, fault.entry) == ("assessment.altered", alone.number)
    assert fault.detail == f"the assessment {text(alone.subjects)} is not as it was recorded"
    there = trail_of(report, "acme").assessments
    assert there is not None
    assert there.altered == 1


def test_an_assessment_with_a_number_that_none_has_is_altered(tmp_path: Path) -> None:
    path = str(tmp_path / "records.db")

    async def scenario(store: Audited) -> None:
        await store.add([row()], actor="key-a")
        # PostgreSQL does not take it.
        await asyncio.to_thread(Attacker(path).run, "UPDATE assessments SET score = $1", 2**40)
        assert kinds(await verify(store, KEY, store.get_each)) == {"assessment.altered"}

    play(SqliteStore(path), scenario)  # type: ignore[type-var]


def test_an_altered_assessment_of_a_group_is_found(backend: Backend) -> None:
    attacker, _ = filled(backend)
    group = next(one for one in attacker.longest("acme") if one.act == RECORDED and len(one.subjects) == 5 * 16)
    attacker.run("UPDATE assessments SET score = 0 WHERE id = $1", group.subjects[32:48])
    fault = only(verified(backend))
    assert (fault.kind, fault.entry) == ("assessment.altered", group.number)
    assert f"of the 5 assessments from {text(group.subjects[:16])} to {text(group.subjects[-16:])}" in fault.detail


OVERRIDDEN = "override_id = $1, level = 3, decision = 2, original_level = 1, original_decision = 1"


async def decide(store: Audited, over: Row) -> None:
    """A person decides over an assessment, and the act says so as the service does."""
    decided = override(over)
    to = {"level": "critical", "decision": "decline"}
    told = act(over.tenant_id, "override.applied", "key-b", [over.id], override=text(decided.id), to=to)
    assert await store.add_override(decided, told, over=None)


def overridden(backend: Backend) -> tuple[Attacker, bytes, bytes]:
    """A database with an assessment that a person decided over; its id and that of another one."""
    mine, other = row(), row()

    async def scenario(store: Audited) -> None:
        await store.add([mine, other], actor="key-a")
        await decide(store, mine)
        assert (await verify(store, KEY, store.get_each)).faults == []

    backend.run(scenario)
    return Attacker(backend.place), mine.id, other.id


@pytest.mark.parametrize(
    "change",
    [
        "level = 0",
        "decision = 0",
        "level = 1, decision = 1, override_id = NULL, original_level = NULL, original_decision = NULL",
        "override_id = NULL",
    ],
)
def test_an_override_changed_or_taken_back_without_an_act_is_found(backend: Backend, change: str) -> None:
    attacker, id, _ = overridden(backend)
    attacker.run(f"UPDATE assessments SET {change} WHERE id = $1", id)
    fault = only(verified(backend))
    assert (fault.kind, fault.detail) == (
        "assessment.altered",
        f"what is in force over the assessment {text(id)} is no override that the trail tells of",
    )


def test_an_override_without_an_act_is_found(backend: Backend) -> None:
    attacker, _, id = overridden(backend)
    attacker.run(f"UPDATE assessments SET {OVERRIDDEN} WHERE id = $2", ids.new(), id)
    assert text(id) in only(verified(backend)).detail


def test_an_override_made_while_the_trail_is_verified_is_no_fault(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        mine = row()
        await store.add([mine], actor="key-a")
        asked = False

        async def late(tenant_id: str, wanted: list[bytes]) -> list[Row | None]:
            nonlocal asked
            if not asked:
                asked = True
                await decide(store, mine)
            return await store.get_each(tenant_id, wanted)

        report = await verify(store, KEY, late)
        assert report.faults == []
        assert trail_of(report, "acme").entries == 2

    backend.run(scenario)


# Anything


COLUMNS = {
    "audit_entries": [
        "tenant_id",
        "segment",
        "number",
        "at_ms",
        "act",
        "actor",
        "detail",
        "subjects",
        "previous",
        "hash",
    ],
    "audit_checkpoints": ["tenant_id", "number", "at_ms", "entries", "heads", "previous", "hash", "mac"],
    "audit_heads": ["tenant_id", "segment", "number"],
}


def changed(value: object, place: int, by: int) -> object:
    """The value with one byte changed. An integer has eight of them; a text keeps to ASCII."""
    if isinstance(value, int):
        packed = bytearray(value.to_bytes(8, "big", signed=True))
        packed[place % 8] ^= by
        return int.from_bytes(packed, "big", signed=True)
    if isinstance(value, str):
        packed = bytearray(value.encode("ascii"))
        packed[place % len(packed)] = (packed[place % len(packed)] ^ by) & 0x7F or 0x20
        return packed.decode("ascii")
    assert isinstance(value, bytes)
    packed = bytearray(value)
    packed[place % len(packed)] ^= by
    return bytes(packed)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def _any_byte(runner: asyncio.Runner, store: Audited, attacker: Attacker, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(COLUMNS)))
    column = data.draw(st.sampled_from(COLUMNS[table]))
    place, by = data.draw(st.integers(0, 400)), data.draw(st.integers(1, 255))
    keys = COLUMNS[table][: 3 if table != "audit_checkpoints" else 2]
    rows = attacker.run(f"SELECT {', '.join(keys)}, {column} FROM {table} ORDER BY {', '.join(keys)}")
    *key, value = data.draw(st.sampled_from(rows))
    assume(value not in ("", b""))
    other = changed(value, place, by)
    assume(other != value)
    where = " AND ".join(f"{name} = ${number}" for number, name in enumerate(keys, 2))
    try:
        attacker.run(f"UPDATE {table} SET {column} = $1 WHERE {where}", other, *key)
    except (sqlite3.IntegrityError, asyncpg.UniqueViolationError):
        # The database itself does not let it be.
        return
    report = runner.run(verify(store, KEY, None))
    now = [other if name == column else was for name, was in zip(keys, key, strict=True)]
    attacker.run(f"UPDATE {table} SET {column} = $1 WHERE {where}", value, *now)
    assert not report.intact, (table, column, key, value, other)


def test_any_byte_changed_anywhere_in_the_trail_is_found(backend: Backend) -> None:
    store: Audited = backend.make()  # type: ignore[assignment]
    with asyncio.Runner() as runner:
        runner.run(store.open())
        try:
            runner.run(fill(store, 3))
            runner.run(store.note([act("acme", "key.created", "cli"), act("acme", "key.revoked", "cli")]))
            assert runner.run(verify(store, KEY, None)).intact
            _any_byte(runner, store, Attacker(backend.place))
            assert runner.run(verify(store, KEY, None)).intact
        finally:
            runner.run(store.close())


def test_of_very_many_faults_a_hundred_of_a_kind_are_listed() -> None:
    async def scenario() -> None:
        trail = MemoryTrail(Shelf())
        for number in range(MOST_OF_A_KIND + 50):
            await trail.note([act("acme", "key.created", "cli", id=number)])
        trail.shelf.entries[:] = [msgspec.structs.replace(one, actor="else") for one in trail.shelf.entries]
        report = await verify(trail, KEY, None)
        assert (len(report.faults), report.more) == (MOST_OF_A_KIND, 50)

    asyncio.run(scenario())


def test_a_server_for_reads_that_is_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.audit.verification.LAG_PAUSE_S", 0.0)

    async def scenario() -> None:
        trail = MemoryTrail()
        made: list[Checkpoint] = []
        checkpoints = Checkpoints(trail, KEY, 3600.0, made.append)
        for _ in range(3):
            await trail.note([act("acme", "key.created", "cli")])
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
