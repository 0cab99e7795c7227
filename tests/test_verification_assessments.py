"""An assessment that is not as it was recorded, or overridden without an act, is found and named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker
from audited import KEY, Audited, filled, kinds, only, trail_of, verified
from records import BACKENDS, Backend, ids, override, play, row

from app.audit.verification import verify
from app.ids import text
from app.store.base import Row
from app.store.sqlite import SqliteStore
from app.store.trail import RECORDED, act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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
        assert kinds(await verify(store, KEY, store)) == {"assessment.altered"}

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
    reason = sha256(str(decided.reason).encode()).hexdigest()
    facts = {"override": text(decided.id), "to": to, "reason_sha256": reason}
    told = act(over.tenant_id, "override.applied", decided.actor, [over.id], **facts)
    assert await store.add_override(decided, told, over=None)


def overridden(backend: Backend) -> tuple[Attacker, bytes, bytes]:
    """A database with an assessment that a person decided over; its id and that of another one."""
    mine, other = row(), row()

    async def scenario(store: Audited) -> None:
        await store.add([mine, other], actor="key-a")
        await decide(store, mine)
        assert (await verify(store, KEY, store)).faults == []

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
        f"what is in force over the assessment {text(id)} is not the override that the trail tells of last",
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

        class Late:
            """In which somebody decides as soon as assessments are looked at."""

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def get_each(self, tenant_id: str, wanted: Sequence[bytes]) -> list[Row | None]:
                nonlocal asked
                if not asked:
                    asked = True
                    await decide(store, mine)
                return await store.get_each(tenant_id, wanted)

        report = await verify(store, KEY, Late())
        assert report.faults == []
        assert trail_of(report, "acme").entries == 2

    backend.run(scenario)
