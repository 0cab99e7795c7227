"""The trail in every store tells of what was recorded and done, of each row once, and of nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import asyncpg
import msgspec
import pytest
from databases import query
from records import BACKENDS, OTHER_FINGERPRINT, Backend, Records, ids, override, receipt, row
from trails import actors, split, whole

from app.ids import now_ms
from app.store.base import KeyReused, Row, RowRefused, opened
from app.store.chain import GENESIS, AuditEntry
from app.store.trail import RECORDED, Checkpoint, Head, act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


# What is recorded


def test_a_group_commit_has_one_entry_a_tenant(backend: Backend) -> None:
    rows = [row("acme"), row("other"), row("acme"), row("acme")]

    async def scenario(store: Records) -> None:
        before_ms = now_ms()
        adding = [store.add([one], actor=actor) for one, actor in zip(rows, ("k1", "k1", "k2", "k1"), strict=True)]
        assert await asyncio.gather(*adding) == [None] * 4
        [acme] = await whole(store, "acme")
        [other] = await whole(store, "other")
        assert (acme.act, acme.actor, acme.number, acme.previous) == (RECORDED, "", 1, GENESIS)
        assert (other.act, other.actor) == (RECORDED, "k1")
        assert before_ms <= acme.at_ms == other.at_ms <= now_ms()
        assert json.loads(acme.detail)["actors"] == [["k1", 2], ["k2", 1]]
        assert split(acme) == [rows[0].id, rows[3].id, rows[2].id]
        assert await actors(store) == {rows[0].id: "k1", rows[3].id: "k1", rows[2].id: "k2"}
        assert await actors(store, "other") == {rows[1].id: "k1"}
        await store.add([row("acme")], actor="k1")
        again = (await whole(store))[1]
        assert (again.segment, again.number, again.previous) == (acme.segment, 2, acme.hash)

    backend.run(scenario)


def test_many_rows_of_one_request_and_of_one_batch_are_told_of(backend: Backend) -> None:
    many, keyed, each = ([row() for _ in range(1_300)] for _ in range(3))

    async def scenario(store: Records) -> None:
        answers = await asyncio.gather(
            store.add(many, actor="many"),
            store.add(keyed, receipt("k", *keyed), actor="keyed"),
            store.add_each(each, actor="each"),
        )
        assert answers == [None, None, [None] * 1_300]
        told = await actors(store)
        for rows, actor in ((many, "many"), (keyed, "keyed"), (each, "each")):
            assert {told[one.id] for one in rows} == {actor}

    backend.run(scenario)


def test_of_taken_keys_only_what_the_first_recorded_is_told(backend: Backend) -> None:
    first, same, other, neighbour, plain, late, fresh = (row() for _ in range(7))
    kept = receipt("k", first)

    async def scenario(store: Records) -> None:
        answers = await asyncio.gather(
            store.add([first], kept, actor="k1"),
            store.add([same], receipt("k", same, request_id="another"), actor="k2"),
            store.add([other], receipt("k", other, fingerprint=OTHER_FINGERPRINT), actor="k3"),
            store.add([neighbour], receipt("l", neighbour), actor="k4"),
            store.add([plain], actor="k5"),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [type(None), type(kept), KeyReused, type(None), type(None)]
        assert await actors(store) == {first.id: "k1", neighbour.id: "k4", plain.id: "k5"}
        answers = await asyncio.gather(
            store.add([late], receipt("k", late), actor="k6"),
            store.add([late], receipt("l", late, fingerprint=OTHER_FINGERPRINT), actor="k6"),
            store.add([fresh], receipt("m", fresh), actor="k7"),
            store.add([], receipt("n", None)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [type(kept), KeyReused, type(None), type(None)]
        assert (await actors(store))[fresh.id] == "k7"
        entries = len(await whole(store))
        assert entries == 2
        assert len(await store.segments("acme")) == 1
        # What records nothing is not told of.
        await store.add([late], receipt("k", late))
        await store.add([], receipt("o", None))
        assert len(await whole(store)) == entries

    backend.run(scenario)


def test_of_refused_rows_nothing_is_told(backend: Backend) -> None:
    bad = [
        row(id=b"short"),
        row(level=9),
        row(score=2**70),
        row(score=2**40),
        row(business_id="\ud800"),
        row(record=None),
    ]
    good = [row() for _ in range(40)]
    mixed = [*(row() for _ in range(20)), row(level=9)]

    async def scenario(store: Records) -> None:
        each, refused, keyed = await asyncio.gather(
            store.add_each([*good[:20], *bad, *good[20:]], actor="k1"),
            store.add(mixed, actor="k2"),
            store.add(mixed[:20], receipt("\ud800", *mixed), actor="k3"),
            return_exceptions=True,
        )
        assert [type(one) for one in each] == [type(None)] * 20 + [RowRefused] * len(bad) + [type(None)] * 20
        assert isinstance(refused, RowRefused)
        assert isinstance(keyed, RowRefused)
        assert await actors(store) == {one.id: "k1" for one in good}
        await store.add([row()])
        assert len(await store.segments("acme")) == 1

    backend.run(scenario)


def test_what_is_sent_again_is_told_of_once(backend: Backend) -> None:
    plain, keyed, fresh = row(), row(), row()
    many = [row() for _ in range(40)]
    kept, kept_of_many = receipt("k", keyed), receipt("m", *many)

    async def scenario(store: Records) -> None:
        for actor in ("k1", "k2"):
            assert await store.add_each([plain, plain], actor=actor) == [None, None]
            assert await asyncio.gather(*(store.add([keyed], kept, actor=actor) for _ in range(3))) == [None] * 3
            assert await store.add(many, kept_of_many, actor=actor) is None
        # Together with what is new, and under a key of its own.
        assert await store.add_each([plain, fresh, keyed], actor="k3") == [None] * 3
        assert await store.add([plain], receipt("p", plain), actor="k4") is None
        with pytest.raises(RowRefused):
            await store.add([msgspec.structs.replace(plain, score=1)])
        told = await actors(store)
        assert {told.pop(one.id) for one in (plain, keyed, *many)} == {"k1"}
        assert told == {fresh.id: "k3"}
        assert len(await store.segments("acme")) == 1

    backend.run(scenario)


def test_an_entry_of_which_a_part_was_recorded_alone_is_told_of_as_it_is_on_record(backend: Backend) -> None:
    rows = [row() for _ in range(40)]

    async def scenario(store: Records) -> None:
        assert await store.add_each(rows[32:], actor="k1") == [None] * 8
        try:
            await store.add(rows, actor="k2")
        except RowRefused:
            assert len(await actors(store)) == 8
        else:
            assert await actors(store) == {one.id: "k1" if one in rows[32:] else "k2" for one in rows}

    backend.run(scenario)


def test_two_rows_of_one_id_are_refused_together(backend: Backend) -> None:
    mine = row()

    async def scenario(store: Records) -> None:
        with pytest.raises(RowRefused):
            await store.add([mine, row(), msgspec.structs.replace(mine, score=1)])
        assert await actors(store) == {}

    backend.run(scenario)


def test_a_row_that_a_person_decided_on_since_may_be_sent_again(backend: Backend) -> None:
    mine = row()
    decision = override(mine)

    async def scenario(store: Records) -> None:
        await store.add([mine], actor="k1")
        assert await store.add_override(decision, act("acme", "override.applied", "k2", [mine.id]), over=None)
        assert await store.add([mine], actor="k1") is None
        assert await actors(store) == {mine.id: "k1"}

    backend.run(scenario)


def test_whatever_comes_together_is_told_of_as_it_is_on_record(backend: Backend) -> None:
    draw = random.Random(11)
    pool = [row(draw.choice(("acme", "other"))) for _ in range(60)]
    keys = {tenant: [f"k{number}" for number in range(25)] for tenant in ("acme", "other")}

    async def some(store: Records) -> None:
        tenant_id = draw.choice(("acme", "other"))
        mine = [one for one in pool if one.tenant_id == tenant_id]
        rows = draw.sample(mine, draw.choice((1, 1, 1, 2, 20)))
        if draw.random() < 0.1:
            rows.append(row(tenant_id, level=9))
        if draw.random() < 0.5:
            rows = [row(tenant_id) for _ in rows]
        kept = None
        if draw.random() < 0.5:
            fingerprint = draw.choice((b"f" * 32, OTHER_FINGERPRINT))
            kept = receipt(draw.choice(keys[tenant_id]), *rows, fingerprint=fingerprint)
        for _ in range(draw.choice((1, 1, 2))):
            try:
                await store.add(rows, kept, actor=draw.choice(("k1", "k2")))
            except (RowRefused, KeyReused):
                continue

    async def scenario(store: Records) -> None:
        for _ in range(25):
            await asyncio.gather(*(some(store) for _ in range(draw.choice((1, 5, 30)))))
        assert await actors(store)
        assert await actors(store, "other")

    backend.run(scenario)


def test_two_processes_on_one_database_tell_of_their_own(backend: Backend) -> None:
    rows = [row() for _ in range(400)]

    async def add(store: Records, order: Sequence[Row], actor: str) -> None:
        for start in range(0, len(order), 8):
            adding = [store.add([one], receipt(one.id.hex(), one), actor=actor) for one in order[start : start + 8]]
            await asyncio.gather(*adding)
            await store.add([row()], actor=actor)
            await store.note([act("acme", "key.used", actor)])

    async def scenario(store: Records) -> None:
        async with opened(backend.make()) as other:
            await asyncio.gather(add(store, rows, "here"), add(other, rows[::-1], "there"))
            assert set((await actors(store)).values()) == {"here", "there"}
            entries = await whole(store)
            by_actor = {actor: {one.segment for one in entries if one.actor == actor} for actor in ("here", "there")}
            assert not by_actor["here"] & by_actor["there"]
            moved = [each.moved()["acme"] for each in (store, other)]
            heads: dict[bytes, AuditEntry] = {one.segment: one for one in entries}
            assert sorted(head for some in moved for head in some) == sorted(
                Head(one.segment, one.number, one.hash) for one in heads.values()
            )

    backend.run(scenario)


# Acts


def test_acts_are_entered_together_in_order(backend: Backend) -> None:
    subjects = [ids.new(), ids.new()]
    acts = [
        act("acme", "key.created", "cli", key="abc", role="admin"),
        act("", "login.refused", "", address="192.0.2.1"),
        act("acme", "assessment.replayed", "k1", subjects),
    ]

    async def scenario(store: Records) -> None:
        await store.note([])
        assert await store.trails() == []
        await store.note(acts)
        created, replayed = await whole(store)
        [refused] = await whole(store, "")
        told = [(one.act, one.actor, one.detail, split(one)) for one in (created, refused, replayed)]
        assert told == [(one.name, one.actor, one.detail, list(one.subjects)) for one in acts]
        assert await store.trails() == ["", "acme"]
        await store.add([row()])
        await store.note(acts[:1])
        assert len(await whole(store)) == 4

    backend.run(scenario)


def test_an_act_that_cannot_be_stored_is_refused_and_the_next_goes_on(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        await store.note([act("acme", "a", "k")])
        with pytest.raises(ValueError, match="surrogates"):
            await store.note([act("acme", "b", "\ud800")])
        await store.note([act("acme", "c", "k")])
        assert [one.act for one in await whole(store)] == ["a", "c"]

    backend.run(scenario)


@pytest.mark.parametrize("table", ["audit_entries", "audit_checkpoints"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at_ms = 0", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_what_was_entered(backend: Backend, table: str, change: str) -> None:
    async def scenario(store: Records) -> None:
        await store.note([act("acme", "audit.exported", "cli")])
        checkpoint = Checkpoint("acme", 1, 0, 1, (), GENESIS, b"h" * 32, b"m" * 32)
        assert await store.add_checkpoint(checkpoint)
        assert not await store.add_checkpoint(msgspec.structs.replace(checkpoint, hash=b"o" * 32))
        before = (await whole(store), await store.last_checkpoint("acme"))
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="only added to"):
            await asyncio.to_thread(plainly, backend.place, change.format(table))
        assert (await whole(store), await store.last_checkpoint("acme")) == before

    backend.run(scenario)


def plainly(place: str, sql: str) -> None:
    """Do a statement as anybody would who can write there."""
    if place.startswith("postgresql:"):
        query(place, sql)
        return
    with closing(sqlite3.connect(place)) as connection:
        connection.execute(sql)
