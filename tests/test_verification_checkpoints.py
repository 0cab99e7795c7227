"""Whatever somebody does to checkpoints and heads is found and named, some of it only by what is kept outside."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from attacker import Attacker
from audited import KEY, OTHER_KEY, ROUNDS, Audited, anchor_of, filled, kinds, nothing, only, verified
from records import BACKENDS, Backend

from app.audit.checkpoints import Checkpoints
from app.audit.verification import verify
from app.store.trail import act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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
            await store.note([act("acme", "role.refused", "cli")])
            if edited:
                await asyncio.to_thread(Attacker(backend.place).run, "UPDATE audit_heads SET number = 1")
            assert await checkpoints.cover()
        fault = only(await verify(store, KEY, store))
        assert (fault.kind, fault.checkpoint) == ("checkpoint.miscounted", 3)
        assert fault.detail == "it counts 4 entries, and its heads with those before it make 3"

    backend.run(scenario)


def test_a_wrong_key_is_said_to_be_wrong(backend: Backend) -> None:
    filled(backend)
    fault = only(verified(backend, key=OTHER_KEY))
    assert (fault.kind, fault.tenant_id) == ("key.wrong", None)
    assert "wrong AUDIT_SIGNING_KEY" in str(fault)
