"""Whatever somebody does to entries behind the back of the trail is found and named."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from audited import KEY, OTHER_KEY, ROUNDS, anchor_of, filled, kinds, only, verified
from memorytrail import MemoryTrail, Shelf
from records import BACKENDS, Backend

from app.audit.report import MOST_OF_A_KIND
from app.audit.verification import verify
from app.ids import text
from app.store.chain import GENESIS
from app.store.trail import act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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


def test_of_very_many_faults_a_hundred_of_a_kind_are_listed() -> None:
    async def scenario() -> None:
        trail = MemoryTrail(Shelf())
        for number in range(MOST_OF_A_KIND + 50):
            await trail.note([act("acme", "role.refused", "cli", id=number)])
        trail.shelf.entries[:] = [msgspec.structs.replace(one, actor="else") for one in trail.shelf.entries]
        report = await verify(trail, KEY, None)
        assert (len(report.faults), report.more) == (MOST_OF_A_KIND, 50)

    asyncio.run(scenario())
