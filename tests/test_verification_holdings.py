"""Whatever somebody does to what is on record, past the trail, is found and named: nothing signed was touched."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from attacker import Attacker
from audited import FOREVER_S, KEY, Audited, nothing, trail_of, verified
from deciding import (
    ANA,
    APPROVE,
    BEN,
    DECLINE,
    DOUBTFUL,
    HIGH,
    IN_LIQUIDATION,
    REVIEW,
    SOUND,
    TENANT,
    Pod,
    business,
)
from keyed import ALL, LIMITS, SECRET
from records import BACKENDS, Backend, disposition, list_version, row

from app import ids
from app.audit.checkpoints import Checkpoints
from app.audit.report import Report
from app.audit.verification import verify
from app.ids import Uuid7, text
from app.keys import Keys
from app.redaction import redact
from app.store.base import Row
from app.store.chain import leaf
from app.store.trail import SYSTEM_TENANT, act

GONE_BUSINESS = business("healthy-manufacturer", id="gone")
SNAPSHOT = b"names"


@dataclass
class World:
    """What was done in a database, by everything that the service can do. Ids of the assessments and keys concerned."""

    attacker: Attacker
    plain: bytes = b""
    twice: bytes = b""
    pending: bytes = b""
    approved: bytes = b""
    erased: bytes = b""
    first: bytes = b""
    second: bytes = b""
    key: str = ""
    revoked: str = ""
    rotated: str = ""
    aside: bytes = b""
    leaf: bytes = b""
    rows: dict[str, Row] = field(default_factory=dict)


async def forgotten(_: str) -> None:
    """No other process is there to be told."""


async def live(store: Any, world: World) -> None:
    """Fill a database as the service does."""
    pod = Pod(store)
    world.plain, world.twice = await pod.assessed(SOUND), await pod.assessed(DOUBTFUL)
    world.pending, world.approved = await pod.assessed(IN_LIQUIDATION), await pod.assessed(IN_LIQUIDATION)
    world.first = (await pod.decide(world.twice, level=HIGH)).id
    world.second = (await pod.decide(world.twice, decision=DECLINE, by=BEN)).id
    await pod.decide(world.pending, decision=APPROVE)
    await pod.approve(await pod.decide(world.approved, decision=APPROVE), BEN)
    world.erased = await pod.assessed(GONE_BUSINESS)
    await pod.decide(world.erased, decision=REVIEW)
    found = await store.get(TENANT, world.erased)
    world.leaf = leaf(found)
    made = msgspec.structs.replace(
        disposition(found), tenant_id=TENANT, business_id="gone", reason="Gone Ltd is another"
    )
    for one in (made, msgspec.structs.replace(made, id=Uuid7().new(), business=b"o" * 32, business_id="stays")):
        told = {"disposition": text(one.id), "list": one.list, "entity_id": one.entity_id}
        reason = sha256(str(one.reason).encode()).hexdigest()
        told_of = act(TENANT, "disposition.made", one.actor, [one.assessment_id], **told, reason_sha256=reason)
        assert await store.add_disposition(one, told_of)
        world.aside = one.id
    await store.erase(TENANT, "gone", reason="asked", redact=redact, now_ms=ids.now_ms())

    keys = Keys(store, SECRET, "test", LIMITS, forgotten)
    make: dict[str, Any] = {"actor": "cli", "limit": ALL}
    _, key = await keys.create(TENANT, "reader", "analyst", scopes=["read"], networks=["10.0.0.0/8"], **make)
    _, revoked = await keys.create(TENANT, "gone", "admin", expires_ms=ids.now_ms() + 10**9, **make)
    _, rotated = await keys.create(TENANT, "old", "viewer", **make)
    world.key, world.revoked, world.rotated = key.id, revoked.id, rotated.id
    await keys.revoke(TENANT, revoked.id, "cli", even_last=True)
    await keys.rotate(TENANT, rotated.id, "cli", 3600.0, limit=ALL)

    day = dt.date.today() - dt.timedelta(days=400)
    at_ms = int(dt.datetime.combine(day, dt.time(12), dt.UTC).timestamp() * 1000)
    old = Uuid7(lambda: at_ms)
    await store.add([row(TENANT, id=old.new()) for _ in range(3)], actor="key-a")
    await store.set_retention(TENANT, 365)
    assert await store.drop_past(dt.date.today())

    version = list_version("ofac", 1, SNAPSHOT)
    told = {"list": "ofac", "number": 1, "content_sha256": version.content_sha256.hex()}
    assert await store.put_list(version, SNAPSHOT, act(SYSTEM_TENANT, "watchlist.updated", "service", **told))
    assert await Checkpoints(store, KEY, FOREVER_S, nothing).cover()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.fixture
def world(backend: Backend) -> World:
    made = World(Attacker(backend.place))

    async def scenario(store: Audited) -> None:
        await live(store, made)

    backend.run(scenario)
    report = verified(backend)
    assert report.faults == []
    there = trail_of(report, TENANT).assessments
    assert there is not None
    assert (there.proven, there.erased, there.missing, there.unproven, there.altered) == (5, 1, 3, 0, 0)
    assert (there.untold, there.lost) == (0, 0)
    return made


def found(report: Report) -> list[tuple[str, str]]:
    return [(fault.kind, fault.detail) for fault in report.faults]


HELD = ("assessments", "overrides", "api_keys", "dispositions", "watchlist_versions", "watchlists")


@contextmanager
def undone(attacker: Attacker) -> Iterator[None]:
    """What is done in the block to anything but the trail is not there any more afterwards."""
    kept = {table: attacker.run(f"SELECT * FROM {table}") for table in HELD}
    yield
    statements: list[tuple[Any, ...]] = []
    for table, rows in kept.items():
        statements.append((f"DELETE FROM {table}",))
        for values in rows:
            marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
            statements.append((f"INSERT INTO {table} VALUES ({marks})", *values))
    attacker.run_all(statements)


def named(id: bytes) -> str:
    return f"the assessment {text(id)}"


Attack = Callable[[World], Sequence[tuple[Any, ...]]]

COPY = """\
INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record)
SELECT tenant_id, $1, business_id, span, level, decision, score, model_sha256, input, record
FROM assessments WHERE id = $2"""
UNEXPLAINED = "is not there, and no entry tells that it was dropped"
UNTOLD = "is there, and no entry tells of it"
LOOKS_ERASED = "looks erased, and no entry tells that it was"
NOT_AS_LEFT = "is not what was left when it was erased"
ERASE = "UPDATE assessments SET leaf = $1, input = NULL, input_sha256 = $2, business_id = NULL WHERE id = $3"
FORGED = Uuid7().new()

ON_ASSESSMENTS: dict[str, tuple[Attack, str, Callable[[World], str]]] = {
    "made to look erased, and then changed": (
        lambda w: [
            (ERASE, w.rows["plain"].leaf, b"s" * 32, w.plain),
            ("UPDATE assessments SET level = 3, decision = 2, score = 1 WHERE id = $1", w.plain),
        ],
        "assessment.altered",
        lambda w: f"{named(w.plain)} {LOOKS_ERASED}",
    ),
    "an erased one changed": (
        lambda w: [("UPDATE assessments SET score = 1 WHERE id = $1", w.erased)],
        "assessment.altered",
        lambda w: f"{named(w.erased)} {NOT_AS_LEFT}",
    ),
    "what an erased one was recorded as": (
        lambda w: [("UPDATE assessments SET original_level = 3 WHERE id = $1", w.erased)],
        "assessment.altered",
        lambda w: f"{named(w.erased)} {NOT_AS_LEFT}",
    ),
    "an erased one given a business": (
        lambda w: [("UPDATE assessments SET business_id = 'other' WHERE id = $1", w.erased)],
        "assessment.altered",
        lambda w: f"{named(w.erased)} {NOT_AS_LEFT}",
    ),
    "a forged one": (
        lambda w: [(COPY, FORGED, w.plain)],
        "assessment.untold",
        lambda w: f"{named(FORGED)} {UNTOLD}",
    ),
    "a deleted one": (
        lambda w: [("DELETE FROM assessments WHERE id = $1", w.plain)],
        "assessment.missing",
        lambda w: f"{named(w.plain)} {UNEXPLAINED}",
    ),
    "rolled back to an earlier override": (
        lambda w: [
            ("UPDATE assessments SET override_id = $1, level = 2, decision = 1 WHERE id = $2", w.first, w.twice)
        ],
        "assessment.altered",
        lambda w: f"what is in force over {named(w.twice)} is not the override that the trail tells of last",
    ),
}


def test_what_is_done_to_an_assessment_is_found(backend: Backend, world: World) -> None:
    async def leaves(store: Audited) -> None:
        plain = await store.get(TENANT, world.plain)
        assert plain is not None
        world.rows["plain"] = msgspec.structs.replace(plain, leaf=leaf(plain))

    backend.run(leaves)
    for name, (attack, kind, detail) in ON_ASSESSMENTS.items():
        with undone(world.attacker):
            world.attacker.run_all(attack(world))
            assert (name, found(verified(backend))) == (name, [(kind, detail(world))])


ON_OVERRIDES: dict[str, tuple[Attack, str, str]] = {
    "its reason": (
        lambda w: [("UPDATE overrides SET reason = 'x' WHERE id = $1", w.first)],
        "override.altered",
        "is not as the trail tells: reason",
    ),
    "its reason taken away": (
        lambda w: [("UPDATE overrides SET reason = NULL WHERE id = $1", w.first)],
        "override.altered",
        "is not as the trail tells: reason",
    ),
    "who asked for it": (
        lambda w: [("UPDATE overrides SET actor = $1 WHERE id = $2", BEN, w.first)],
        "override.altered",
        "is not as the trail tells: actor",
    ),
    "what it decided": (
        lambda w: [("UPDATE overrides SET level = 0, decision = 0 WHERE id = $1", w.first)],
        "override.altered",
        "is not as the trail tells: level, decision",
    ),
    "who approved it": (
        lambda w: [("UPDATE overrides SET approver = $1, approved_ms = 7 WHERE assessment_id = $2", ANA, w.approved)],
        "override.altered",
        "is not as the trail tells: approver, approval",
    ),
    "an approval that nobody gave": (
        lambda w: [("UPDATE overrides SET state = 'applied' WHERE assessment_id = $1", w.pending)],
        "override.altered",
        "is not as the trail tells: state",
    ),
    "a deleted one": (
        lambda w: [("DELETE FROM overrides WHERE id = $1", w.first)],
        "override.missing",
        "was made, says the trail, and is not there",
    ),
    "a forged one": (
        lambda w: [
            (
                "INSERT INTO overrides (tenant_id, assessment_id, id, level, decision, reason, actor, state)"
                " VALUES ($1, $2, $3, 0, 0, 'x', 'y', 'pending')",
                TENANT,
                w.plain,
                FORGED,
            )
        ],
        "override.untold",
        "is there, and no entry tells of it",
    ),
}


def test_what_is_done_to_an_override_is_found(backend: Backend, world: World) -> None:
    for name, (attack, kind, detail) in ON_OVERRIDES.items():
        with undone(world.attacker):
            world.attacker.run_all(attack(world))
            [(found_kind, told)] = found(verified(backend))
            assert (name, found_kind, told[:13]) == (name, kind, "the override ")
            assert told.endswith(detail), (name, told)


ON_KEYS: dict[str, tuple[Attack, str]] = {
    "a role": (lambda w: [("UPDATE api_keys SET role = 'admin' WHERE id = $1", w.key)], "role"),
    "its scopes": (lambda w: [("UPDATE api_keys SET scopes = NULL WHERE id = $1", w.key)], "scopes"),
    "its digest": (lambda w: [("UPDATE api_keys SET digest = $1 WHERE id = $2", b"d" * 32, w.key)], "digest"),
    "a tenant's rate": (lambda w: [("UPDATE api_keys SET rate = 'unlimited' WHERE id = $1", w.key)], "rate"),
    "an end": (lambda w: [("UPDATE api_keys SET expires_ms = 7 WHERE id = $1", w.key)], "end"),
    "a revocation taken back": (
        lambda w: [("UPDATE api_keys SET revoked_ms = NULL WHERE id = $1", w.revoked)],
        "revocation",
    ),
    "an end taken back": (lambda w: [("UPDATE api_keys SET expires_ms = NULL WHERE id = $1", w.rotated)], "end"),
}


def test_what_is_done_to_a_key_is_found(backend: Backend, world: World) -> None:
    for attack, changed in ON_KEYS.values():
        with undone(world.attacker):
            statements = attack(world)
            world.attacker.run_all(statements)
            assert found(verified(backend)) == [
                ("key.altered", f"the key {statements[0][-1]} is not as the trail tells: {changed}")
            ]


def test_a_forged_key_and_one_that_vanished_are_found(backend: Backend, world: World) -> None:
    world.attacker.run("UPDATE api_keys SET id = 'ForgedForged' WHERE id = $1", world.key)
    assert found(verified(backend)) == [
        ("key.untold", "the key ForgedForged is there, and no entry tells that it was made"),
        ("key.missing", f"the key {world.key} was made, says the trail, and is not there"),
    ]


ON_THE_REST: dict[str, tuple[Attack, str]] = {
    "a disposition of another entry": (
        lambda w: [("UPDATE dispositions SET entity_id = 'x' WHERE id = $1", w.aside)],
        "disposition.altered",
    ),
    "a disposition's reason": (
        lambda w: [("UPDATE dispositions SET reason = 'x' WHERE id = $1", w.aside)],
        "disposition.altered",
    ),
    "a disposition ended by nobody": (
        lambda w: [("UPDATE dispositions SET ended_ms = 7 WHERE id = $1", w.aside)],
        "disposition.altered",
    ),
    "a disposition deleted": (lambda w: [("DELETE FROM dispositions WHERE id = $1", w.aside)], "disposition.missing"),
    "a list of other content": (
        lambda w: [("UPDATE watchlist_versions SET content_sha256 = $1", b"x" * 32)],
        "list.altered",
    ),
    "a list renamed": (
        lambda w: [("UPDATE watchlist_versions SET name = 'x'",), ("UPDATE watchlists SET name = 'x'",)],
        "list.untold",
    ),
}


def test_what_is_done_to_dispositions_and_lists_is_found(backend: Backend, world: World) -> None:
    for name, (attack, kind) in ON_THE_REST.items():
        with undone(world.attacker):
            world.attacker.run_all(attack(world))
            assert (name, [kind_found for kind_found, _ in found(verified(backend))]) == (name, [kind])


def test_a_tenant_without_a_trail_is_found(backend: Backend, world: World) -> None:
    for table in ("audit_entries", "audit_checkpoints", "audit_heads"):
        world.attacker.run(f"DELETE FROM {table} WHERE tenant_id = $1", TENANT)
    told = [("trail.missing", "something of this tenant is on record, and there is no trail that tells of it")]
    assert found(verified(backend)) == told
    assert found(verified(backend, tenant_id=TENANT)) == told


def test_an_assessment_dropped_for_its_age_and_put_back_is_found(backend: Backend) -> None:
    attacker, old = Attacker(backend.place), Uuid7(lambda: 1_600_000_000_000).new()

    async def scenario(store: Audited) -> None:
        await store.add([row(id=old), row()], actor="key-a")
        await store.set_retention("acme", 365)
        assert await store.drop_past(dt.date.today())
        assert (await verify(store, KEY, store)).faults == []
        await store.set_retention("acme", None)
        [mine] = await store.page("acme", limit=1)
        await asyncio.to_thread(attacker.run, COPY, old, mine.id)
        report = await verify(store, KEY, store)
        told = f"{named(old)} was dropped, says the trail, and is there"
        assert found(report) == [("assessment.untold", told)]

    backend.run(scenario)


def test_very_many_that_no_entry_tells_of_are_counted(backend: Backend) -> None:
    attacker = Attacker(backend.place)

    async def scenario(store: Audited) -> None:
        mine = row()
        await store.add([mine], actor="key-a")
        forged = [Uuid7(lambda at=n: 1_600_000_000_000 + at * 600_000).new() for n in range(150)]
        await asyncio.to_thread(attacker.run_all, [(COPY, id, mine.id) for id in forged])
        report = await verify(store, KEY, store)
        assert {kind for kind, _ in found(report)} == {"assessment.untold"}
        assert len(report.faults) + report.more == 150
        assert [fault.detail for fault in report.faults if text(forged[0]) in fault.detail]

    backend.run(scenario)


def test_an_erasure_vouches_for_no_row_that_somebody_made_look_erased(backend: Backend) -> None:
    attacker = Attacker(backend.place)

    async def scenario(store: Audited) -> None:
        mine, other = row(business_id="cust-1"), row(business_id="cust-1")
        await store.add([mine], actor="key-a")
        await store.add([other], actor="key-a")
        forged = "UPDATE assessments SET leaf = $1, input = NULL, input_sha256 = $2, score = 1 WHERE id = $3"
        await asyncio.to_thread(attacker.run, forged, leaf(mine), b"s" * 32, mine.id)
        beside = "UPDATE assessments SET leaf = $1, score = 1 WHERE id = $2"
        await asyncio.to_thread(attacker.run, beside, leaf(other), other.id)
        erased = await store.erase("acme", "cust-1", reason="asked", redact=bytes, now_ms=1)
        assert erased.assessments == 2
        report = await verify(store, KEY, store)
        assert found(report) == [
            ("assessment.altered", f"{named(other.id)} is not as it was recorded"),
            ("assessment.altered", f"{named(mine.id)} {LOOKS_ERASED}"),
        ]

    backend.run(scenario)


def test_what_is_recorded_dropped_and_erased_while_it_is_verified_is_no_fault(backend: Backend) -> None:
    async def scenario(store: Audited) -> None:
        at_ms = 1_600_000_000_000
        old = Uuid7(lambda: at_ms)
        await store.set_retention("acme", 365)

        async def work() -> None:
            for number in range(12):
                await store.add([row(business_id=f"b{number}"), row(id=old.new())], actor="key-a")
                await store.erase("acme", f"b{number}", reason="asked", redact=bytes, now_ms=number)
                await store.drop_past(dt.date.today())

        working = asyncio.create_task(work())
        times = 0
        while not working.done():
            assert found(await verify(store, KEY, store)) == []
            times += 1
        await working
        assert times > 1
        report = await verify(store, KEY, store)
        assert report.faults == []
        there = trail_of(report, "acme").assessments
        assert there is not None
        assert (there.missing, there.lost) == (12, 0)

    backend.run(scenario)
