"""The trail in every store tells of what was recorded, of each row once, and of nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from databases import Postgres, migrated, postgres_store, query
from proxy import Proxy
from records import BACKENDS, OTHER_FINGERPRINT, Backend, Records, ids, override, play, receipt, row

from app.ids import now_ms, time_ms
from app.store import sqlite_file, sqlite_trail, trail_search
from app.store.base import KeyBusy, KeyReused, Row, RowRefused, StoreUnavailable, Unconfirmed, opened
from app.store.chain import GENESIS, AuditEntry, entry_hash, leaf, merkle_root
from app.store.postgres import link
from app.store.postgres import trail as postgres_trail
from app.store.postgres.link import Session
from app.store.postgres.store import PostgresStore
from app.store.segments import LONGEST_MS, Segments, recorded
from app.store.sqlite import SqliteStore
from app.store.trail import RECORDED, Act, Checkpoint, Head, Position, act
from app.store.trail_search import Wanted, position

FIRST_MS = 1_790_000_000_000
"""Some time of these days."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.fixture
def ready(database: str) -> str:
    return migrated(database)


def split(entry: AuditEntry) -> list[bytes]:
    return [entry.subjects[at : at + 16] for at in range(0, len(entry.subjects), 16)]


async def whole(store: Records, tenant_id: str = "acme") -> list[AuditEntry]:
    """All entries of the tenant, segment by segment, once each was found to follow from the one before."""
    entries: list[AuditEntry] = []
    for segment in await store.segments(tenant_id):
        number, previous = 0, GENESIS
        while some := await store.segment(tenant_id, segment, after=number, limit=7):
            for entry in some:
                assert (entry.number, entry.previous) == (number + 1, previous)
                *facts, digest = msgspec.structs.astuple(entry)
                assert digest == entry_hash(*facts)
                number, previous = entry.number, entry.hash
            entries += some
    return entries


async def actors(store: Records, tenant_id: str = "acme") -> dict[bytes, str]:
    """Who recorded each row that the trail tells of, once it was found to tell of just the rows on record."""
    found: dict[bytes, str] = {}
    for entry in await whole(store, tenant_id):
        if entry.act != RECORDED:
            continue
        told = json.loads(entry.detail)
        assert list(told) == ["actors", "root"]
        rows = await store.get_each(tenant_id, split(entry))
        assert told["root"] == merkle_root([leaf(one) for one in rows if one is not None]).hex()
        of_each = [actor for actor, count in told["actors"] for _ in range(count)]
        assert entry.actor == (told["actors"][0][0] if len(told["actors"]) == 1 else "")
        for one, actor in zip(rows, of_each, strict=True):
            assert one is not None
            assert one.id not in found
            found[one.id] = actor
    on_record = await store.page(tenant_id, limit=10**6)
    assert sorted(found) == sorted(one.id for one in on_record)
    return found


# Segments, by themselves


class Clock:
    def __init__(self) -> None:
        self.now_ms = FIRST_MS

    def __call__(self) -> int:
        return self.now_ms


def test_entries_follow_each_other_within_a_proposal_and_from_one_to_the_next() -> None:
    chain = Segments()
    first = chain.propose(
        [act("acme", "a", "k"), act("other", "b", "k"), act("acme", "c", "k", [b"1" * 16, b"2" * 16])]
    )
    chain.confirm(first)
    second = chain.propose([act("acme", "d", "k"), act("", "e", "k")])
    assert [(one.tenant_id, one.number) for one in (*first, *second)] == [
        ("acme", 1),
        ("other", 1),
        ("acme", 2),
        ("acme", 3),
        ("", 1),
    ]
    acme = [one for one in (*first, *second) if one.tenant_id == "acme"]
    assert len({one.segment for one in acme}) == 1
    assert len({one.segment for one in (*first, *second)}) == 3
    assert acme[0].previous == GENESIS
    assert all(after.previous == before.hash for before, after in pairwise(acme))
    assert acme[1].subjects == b"1" * 16 + b"2" * 16
    for one in (*first, *second):
        *facts, digest = msgspec.structs.astuple(one)
        assert digest == entry_hash(*facts)


def test_what_was_rolled_back_is_proposed_again_in_its_place() -> None:
    chain = Segments()
    chain.confirm(chain.propose([act("acme", "a", "k")]))
    undone = chain.propose([act("acme", "b", "k"), act("acme", "c", "k")])
    again = chain.propose([act("acme", "d", "k")])
    assert (again[0].segment, again[0].number, again[0].previous) == (undone[0].segment, 2, undone[0].previous)


def test_a_doubt_begins_another_segment_for_those_it_concerns() -> None:
    chain = Segments()
    before = chain.propose([act("acme", "a", "k"), act("other", "a", "k")])
    chain.confirm(before)
    chain.doubt(chain.propose([act("acme", "b", "k")]))
    acme, other = chain.propose([act("acme", "c", "k"), act("other", "c", "k")])
    assert (acme.number, acme.previous) == (1, GENESIS)
    assert acme.segment > before[0].segment
    assert (other.segment, other.number) == (before[1].segment, 2)
    chain.close()
    assert [one.number for one in chain.propose([act("acme", "d", "k"), act("other", "d", "k")])] == [1, 1]


def test_a_segment_ends_after_half_a_day() -> None:
    clock = Clock()
    chain = Segments(clock)
    first = chain.propose([act("acme", "a", "k")])
    chain.confirm(first)
    clock.now_ms += LONGEST_MS - 1
    last = chain.propose([act("acme", "b", "k")])
    chain.confirm(last)
    clock.now_ms += 1
    [after] = chain.propose([act("acme", "c", "k")])
    assert (last[0].segment, last[0].number) == (first[0].segment, 2)
    assert (after.segment > last[0].segment, after.number) == (True, 1)
    assert time_ms(after.segment) == after.at_ms == FIRST_MS + LONGEST_MS


def test_heads_that_moved_are_told_once() -> None:
    chain = Segments()
    assert chain.moved() == {}
    first = chain.propose([act("acme", "a", "k"), act("acme", "b", "k"), act("other", "c", "k")])
    assert chain.moved() == {}
    chain.confirm(first)
    chain.doubt(chain.propose([act("acme", "d", "k")]))
    second = chain.propose([act("acme", "e", "k")])
    chain.confirm(second)
    heads = [Head(one.segment, one.number, one.hash) for one in (*first, *second)]
    assert chain.moved() == {"acme": (heads[1], heads[3]), "other": (heads[2],)}
    assert chain.moved() == {}


def test_no_head_is_missed_by_another_thread() -> None:
    chain = Segments()
    last: dict[bytes, int] = {}
    done = threading.Event()

    def move() -> None:
        for _ in range(3_000):
            chain.confirm(chain.propose([act("acme", "a", "k")]))
        done.set()

    def look() -> None:
        for head in chain.moved().get("acme", ()):
            assert head.number > last.get(head.segment, 0)
            last[head.segment] = head.number

    mover = threading.Thread(target=move)
    mover.start()
    while not done.is_set():
        look()
    mover.join()
    look()
    assert list(last.values()) == [3_000]


def test_a_group_commit_is_an_act_of_each_tenant_with_its_rows_by_actor() -> None:
    rows = [row("acme"), row("other"), row("acme"), row("acme"), row("acme")]
    acme, other = recorded([("k1", rows[:2]), ("k2", rows[2:3]), ("k1", rows[3:4]), ("", rows[4:])])
    in_order = [rows[0], rows[3], rows[2], rows[4]]
    root = merkle_root([leaf(one) for one in in_order]).hex()
    assert acme == Act(
        "acme",
        RECORDED,
        "",
        b'{"actors":[["k1",2],["k2",1],["",1]],"root":"%s"}' % root.encode(),
        tuple(one.id for one in in_order),
    )
    assert (other.tenant_id, other.actor, other.subjects) == ("other", "k1", (rows[1].id,))
    assert recorded([("k1", ())]) == []


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


# Finding entries


async def fill(store: Records) -> list[Row]:
    """Group commits of two keys and of both, and acts between them."""
    rows = []
    for number in range(30):
        some = [row(), row()]
        rows += some
        await asyncio.gather(
            store.add(some[:1], actor=f"k{number % 2}"),
            store.add(some[1:], actor=f"k{number % 3 % 2}"),
        )
        if number % 5 == 0:
            await store.note([act("acme", "assessment.replayed", f"k{number % 2}", [some[0].id])])
        if number % 7 == 0:
            await store.note([act("acme", "key.created", "cli"), act("other", "key.created", "cli")])
    return rows


def is_by(entry: AuditEntry, actor: str) -> bool:
    return entry.actor == actor or (
        entry.act == RECORDED and entry.actor == "" and actor in [one for one, _ in json.loads(entry.detail)["actors"]]
    )


def test_entries_are_found_by_what_they_say_newest_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_search, "SLICE", 7)

    async def scenario(store: Records) -> None:
        rows = await fill(store)
        everything = sorted(await whole(store), key=position, reverse=True)
        middle = everything[len(everything) // 2]
        for name, actor, assessment in product(
            (None, RECORDED, "assessment.replayed", "key.created", "no.such"),
            (None, "k0", "cli", "k"),
            (None, rows[0].id, rows[-1].id, ids.new()),
        ):
            for bounds in ({}, {"since_ms": middle.at_ms}, {"before_ms": middle.at_ms}, {"before": position(middle)}):
                since_ms, before_ms = bounds.get("since_ms", 0), bounds.get("before_ms", 2**62)
                expected = [
                    one
                    for one in everything
                    if (name is None or one.act == name)
                    and (actor is None or is_by(one, actor))
                    and (assessment is None or assessment in split(one))
                    and since_ms <= one.at_ms < before_ms
                    and ("before" not in bounds or position(one) < position(middle))
                ]
                wanted: dict[str, Any] = {"act": name, "actor": actor, "assessment": assessment, **bounds}
                assert await store.entries("acme", limit=1_000, **wanted) == expected, wanted
                assert await store.entries("acme", limit=3, **wanted) == expected[:3], wanted
        assert await store.entries("nobody", limit=9) == []

    backend.run(scenario)


@pytest.mark.parametrize("filters", [{}, {"actor": "k1"}, {"act": RECORDED}])
def test_entries_are_walked_by_the_last_position(filters: dict[str, Any], backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        await fill(store)
        seen: list[AuditEntry] = []
        while page := await store.entries("acme", limit=4, before=position(seen[-1]) if seen else None, **filters):
            seen += page
        assert seen == await store.entries("acme", limit=1_000, **filters)
        assert len(seen) > 8

    backend.run(scenario)


def test_a_search_that_takes_too_long_tells_what_it_found_or_to_narrow_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_search, "SLICE", 5)
    monkeypatch.setattr(trail_search, "SEARCH_S", 0.0)

    async def scenario(store: Records) -> None:
        for number in range(12):
            await store.add([row()], actor=f"k{number // 8}")
        newest = await store.entries("acme", limit=12)
        assert await store.entries("acme", actor="k1", limit=12) == newest[:4]
        with pytest.raises(StoreUnavailable, match="narrower"):
            await store.entries("acme", actor="k0", before=position(newest[3]), act="key.created", limit=12) or (
                await store.entries("acme", actor="nobody", limit=12)
            )

    backend.run(scenario)


def test_two_ids_side_by_side_are_not_taken_for_a_third(backend: Backend) -> None:
    subjects = [ids.new(), ids.new()]
    across = (subjects[0] + subjects[1])[8:24]

    async def scenario(store: Records) -> None:
        await store.note([act("acme", "assessment.replayed", "k1", subjects)])
        [entry] = await store.entries("acme", assessment=subjects[1], limit=9)
        assert split(entry) == subjects
        between = Wanted("acme", acts_only=True, assessment=across)
        low, high = Position(0, bytes(16), 0), Position(2**62, bytes(16), 0)
        assert await store._walk(between, low, high, 9, 0.0) == ([], None)  # type: ignore[attr-defined]

    backend.run(scenario)


# Checkpoints


def checkpoint(number: int, *heads: Head, tenant_id: str = "acme", **fields: Any) -> Checkpoint:
    made = Checkpoint(tenant_id, number, FIRST_MS + number, 7, heads, b"p" * 32, b"h" * 32, b"m" * 32)
    return msgspec.structs.replace(made, **fields)


def test_checkpoints_are_kept_in_order_and_each_number_once(backend: Backend) -> None:
    heads = sorted(Head(ids.new(), number, b"x" * 32) for number in (5, 9))
    first, second = checkpoint(1, *heads), checkpoint(2)
    theirs = checkpoint(1, tenant_id="other")

    async def scenario(store: Records) -> None:
        assert await store.last_checkpoint("acme") is None
        assert await store.head_number("acme", heads[0].segment) == 0
        assert await store.add_checkpoint(first)
        # The same again is the same: its first commit may have been lost sight of.
        assert await store.add_checkpoint(first)
        assert not await store.add_checkpoint(checkpoint(1, Head(heads[0].segment, 99, b"y" * 32), mac=b"n" * 32))
        assert await store.head_number("acme", heads[0].segment) == 5
        assert await store.add_checkpoint(second)
        assert await store.add_checkpoint(theirs)
        assert await store.last_checkpoint("acme") == second
        assert await store.checkpoints("acme", after=0, limit=9) == [first, second]
        assert await store.checkpoints("acme", after=0, limit=1) == [first]
        assert await store.checkpoints("acme", after=1, limit=9) == [second]
        assert await store.trails() == ["acme", "other"]

    backend.run(scenario)


def test_the_greatest_number_of_a_segment_is_what_is_covered(backend: Backend) -> None:
    segment = ids.new()

    async def scenario(store: Records) -> None:
        for place, number in enumerate((4, 9, 6), 1):
            assert await store.add_checkpoint(checkpoint(place, Head(segment, number, b"x" * 32)))
        assert await store.head_number("acme", segment) == 9
        assert await store.head_number("other", segment) == 0

    backend.run(scenario)


def test_of_two_who_make_the_same_checkpoint_one_does(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        async with opened(backend.make()) as other:
            for number in range(1, 20):
                mine, theirs = checkpoint(number, mac=b"1" * 32), checkpoint(number, mac=b"2" * 32)
                kept = await asyncio.gather(store.add_checkpoint(mine), other.add_checkpoint(theirs))
                assert sorted(kept) == [False, True]

    backend.run(scenario)


def test_heads_that_no_checkpoint_holds_are_found_of_segments_begun_since(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        since_ms = now_ms()
        assert await store.uncovered(since_ms) == {}
        for tenant_id in ("", "acme", "other", "acme"):
            await store.note([act(tenant_id, "a", "k")])
        await store.add([row("acme"), row("third")])
        moved = store.moved()
        assert sorted(moved) == ["", "acme", "other", "third"]
        assert store.moved() == {}
        assert await store.uncovered(since_ms) == moved
        assert await store.uncovered(now_ms() + 1_000) == {}
        assert await store.add_checkpoint(checkpoint(1, *moved["acme"]))
        assert await store.add_checkpoint(checkpoint(1, tenant_id="third"))
        left = {tenant_id: heads for tenant_id, heads in moved.items() if tenant_id != "acme"}
        assert await store.uncovered(since_ms) == left
        await store.note([act("acme", "a", "k")])
        assert await store.uncovered(since_ms) == left | store.moved()

    async def after_a_restart(store: Records) -> None:
        begun_ms = [time_ms(segment) for segment in await store.segments("acme")]
        await store.note([act("acme", "b", "k")])
        segments = await store.segments("acme")
        assert len(segments) > len(begun_ms)
        assert sorted(segments) == segments
        assert len((await store.uncovered(max(begun_ms) + 1))["acme"]) == 1

    backend.run(scenario)
    asyncio.run(asyncio.sleep(0.002))
    backend.run(after_a_restart)


# Commits whose end is not known


class Faulty:
    """A connection to SQLite one of whose commits fails, before or after it took effect."""

    def __init__(self, connection: sqlite3.Connection, faults: list[str], code: int) -> None:
        self._connection = connection
        self._faults = faults
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT" and self._faults:
            if self._faults.pop() == "after":
                self._connection.execute(sql)
            error = sqlite3.OperationalError("as a test")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *values)


# After the one the connection is made anew, after the other it is not.
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL])
@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_commit_of_the_file_that_fails_leaves_a_whole_trail(
    code: int, fault: str, is_keyed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    connect = sqlite_file.connect
    monkeypatch.setattr(
        "app.store.sqlite.connect", lambda *given, **named: Faulty(connect(*given, **named), faults, code)
    )
    first, lost, after = row(), row(), row()
    kept = receipt("k", lost) if is_keyed else None

    async def scenario(store: SqliteStore) -> None:
        await store.add([first], actor="k1")
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await store.add([lost], kept, actor="k1")
        assert (await store.get("acme", lost.id) is not None) == (fault == "after")
        await store.add([after], actor="k1")
        assert len(await store.segments("acme")) == 2
        assert await store.add([lost], kept, actor="k1") is None
        assert await actors(store) == {one.id: "k1" for one in (first, lost, after)}
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await store.note([act("acme", "a", "k")])
        await store.note([act("acme", "b", "k")])
        assert [one.act for one in await whole(store) if one.act != RECORDED] == ["a", "b"][fault == "before" :]

    play(SqliteStore(tmp_path / "records.db"), scenario)


def test_a_file_put_in_the_place_of_another_begins_segments_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    kept, lost, after = row(), row(), row()

    async def keep(store: SqliteStore) -> None:
        await store.add([kept], actor="k1")

    async def scenario(store: SqliteStore) -> None:
        await store.add([lost], actor="k1")
        await store.check()
        for left in ("-wal", "-shm"):
            os.unlink(f"{path}{left}")
        os.rename(backup, path)
        await store.add([after], actor="k1")
        assert await actors(store) == {kept.id: "k1", after.id: "k1"}

    play(SqliteStore(path), keep)
    backup = tmp_path / "backup"
    backup.write_bytes(path.read_bytes())
    play(SqliteStore(path), scenario)


class Breaking(link.Aging):
    """A connection to PostgreSQL that breaks when something was entered in the trail, once for each of `faults`.

    before: nothing of the statement arrived.  after: its answer did not.  silent: nor did anything else, in time.
    late: it is held up, and takes effect after it was looked for.  pending: after the caller of the test commits.
    """

    url: str
    ends: str
    faults: list[str]
    held: list[asyncpg.Connection]
    late: bool
    looks: list[object]

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        if not self.faults or self.ends not in query:
            return await super().execute(query, *args, **options)
        fault = self.faults.pop(0)
        if fault in ("late", "pending"):
            other = await asyncpg.connect(self.url)
            await other.execute("BEGIN")
            await other.execute(query, *args)
            self.held.append(other)
        elif fault != "before":
            await super().execute(query, *args, **options)
        raise TimeoutError if fault == "silent" else ConnectionResetError(fault)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        found = await super().fetchval(query, *args, **options)
        if query == postgres_trail._ON_RECORD:
            self.looks.append(found)
            if self.late:
                await self.release()
        return found

    @classmethod
    async def release(cls) -> None:
        while cls.held:
            connection = cls.held.pop()
            await connection.execute("COMMIT")
            await connection.close()


@pytest.fixture
def breaking(ready: str, monkeypatch: pytest.MonkeyPatch) -> type[Breaking]:
    """The connections that stores make from now on."""

    class Own(Breaking):
        faults: list[str] = []  # noqa: RUF012
        held: list[asyncpg.Connection] = []  # noqa: RUF012
        looks: list[object] = []  # noqa: RUF012
        url = ready
        ends = "INTO audit_entries"
        late = False

    monkeypatch.setattr(link, "Aging", Own)
    return Own


@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize("fault", ["before", "after", "late"])
def test_a_commit_that_was_lost_sight_of_is_recognised(
    fault: str, is_keyed: bool, ready: str, breaking: type[Breaking]
) -> None:
    first, after = row(), row()
    lost = [row(), row("other"), row()]

    async def scenario(store: PostgresStore) -> None:
        await store.add([first], actor="k1")
        breaking.faults.append(fault)
        breaking.late = fault == "late"
        adding = [store.add([one], receipt(one.id.hex(), one) if is_keyed else None, actor="k2") for one in lost]
        assert await asyncio.gather(*adding) == [None] * 3
        assert [bool(look) for look in breaking.looks] == {"before": [False], "after": [True], "late": [False, True]}[
            fault
        ]
        await store.add([after], actor="k1")
        assert await actors(store) == {first.id: "k1", lost[0].id: "k2", lost[2].id: "k2", after.id: "k1"}
        assert await actors(store, "other") == {lost[1].id: "k2"}
        entries = await whole(store)
        assert [one.number for one in entries] == [1, 2, 3]
        assert store.moved()["acme"] == (Head(entries[-1].segment, 3, entries[-1].hash),)

    play(postgres_store(ready), scenario)


@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize(
    "faults", [["silent"], ["before", "before"], ["pending"], ["before", "after"], ["before", "silent"]]
)
def test_a_commit_whose_end_is_not_known_closes_its_segment(
    faults: list[str], is_keyed: bool, ready: str, breaking: type[Breaking]
) -> None:
    first, lost, after = row(), row(), row()
    kept = receipt("k", lost) if is_keyed else None

    async def scenario(store: PostgresStore) -> None:
        await store.add([first], actor="k1")
        breaking.faults += faults
        with pytest.raises((StoreUnavailable, KeyBusy) if faults == ["pending"] else Unconfirmed):
            await store.add([lost], kept, actor="k2")
        await store.add([after], actor="k1")
        await breaking.release()
        assert await store.add([lost], kept, actor="k2") is None
        assert await actors(store) == {first.id: "k1", lost.id: "k2", after.id: "k1"}
        assert len(await store.segments("acme")) == 2

    # A key that is busy is waited for in vain.
    play(postgres_store(ready, key_wait_s=0.1), scenario)


@pytest.mark.parametrize("faults", [["before"], ["after"], ["silent"], ["before", "before"], ["before", "after"]])
@pytest.mark.parametrize("ends", ["INTO audit_entries", "COMMIT"])
def test_work_and_its_acts_take_effect_once(faults: list[str], ends: str, ready: str, breaking: type[Breaking]) -> None:
    breaking.ends = ends
    done: list[int] = []

    async def work(session: Session) -> int:
        done.append(len(done))
        await session.execute("INSERT INTO pulse (place, at) VALUES ($1, now())", done[-1])
        return done[-1]

    def acts(place: int) -> list[Act]:
        return [act("acme", "key.created", "cli", place=place)]

    async def scenario(store: PostgresStore) -> None:
        assert await store._act(work, acts) == 0
        breaking.faults += faults
        told = None
        try:
            told = await store._act(work, acts)
        except Unconfirmed:
            assert faults[-1] == "silent" or len(faults) == 2
        last = await store._act(work, acts)
        on_record = [json.loads(one.detail)["place"] for one in await whole(store)]
        pulses = [place for (place,) in await asyncio.to_thread(query, ready, "SELECT place FROM pulse ORDER BY place")]
        assert sorted(on_record) == pulses
        took_effect = faults[-1] in ("after", "silent") and ends == "COMMIT"
        assert len(pulses) == (3 if took_effect or told is not None else 2)
        assert {told, last} <= {None, *pulses}

    play(postgres_store(ready), scenario)


def test_work_found_done_by_an_attempt_before_does_not_take_its_number_again(
    ready: str, breaking: type[Breaking]
) -> None:
    done: list[bool] = []

    async def work(session: Session) -> bool:
        done.append(bool(done))
        return done[-1]

    async def scenario(store: PostgresStore) -> None:
        await store.note([act("acme", "a", "k")])
        breaking.faults.append("late")
        breaking.late = True
        assert await store._act(work, lambda again: [] if again else [act("acme", "b", "k")])
        await store.note([act("acme", "c", "k")])
        assert [one.act for one in await whole(store)] == ["a", "b", "c"]

    play(postgres_store(ready), scenario)


def test_work_that_fails_or_has_no_acts_leaves_the_trail_as_it_is(ready: str) -> None:
    async def nothing(session: Session) -> str:
        return "nothing"

    async def fail(session: Session) -> str:
        await session.execute("INSERT INTO pulse (place, at) VALUES (1, now())")
        raise RowRefused("as a test")

    async def scenario(store: PostgresStore) -> None:
        assert await store._act(nothing, [act("acme", "a", "k")]) == "nothing"
        assert await store._act(nothing, lambda told: []) == "nothing"
        with pytest.raises(RowRefused):
            await store._act(fail, [act("acme", "b", "k")])
        assert await store._act(nothing, [act("acme", "c", "k")]) == "nothing"
        entries = await whole(store)
        assert [(one.act, one.number) for one in entries] == [("a", 1), ("c", 2)]
        assert len({one.segment for one in entries}) == 1
        assert await asyncio.to_thread(query, ready, "SELECT 1 FROM pulse") == []

    play(postgres_store(ready), scenario)


def test_acts_and_group_commits_do_not_wait_for_each_other(ready: str) -> None:
    async def work(session: Session) -> None:
        await session.execute("SELECT 1")

    async def scenario(store: PostgresStore) -> None:
        rows = [row() for _ in range(200)]
        noting = [store.note([act("acme", "a", "k")]) for _ in range(20)]
        acting = [store._act(work, [act("acme", "b", "k")]) for _ in range(20)]
        await asyncio.gather(*noting, store.add_each(rows, actor="k1"), *acting)
        assert len(await actors(store)) == 200
        # One of the group commits, one of all acts.
        entries = await whole(store)
        assert len({one.segment for one in entries}) == 2
        assert sum(one.act in ("a", "b") for one in entries) == 40

    play(postgres_store(ready), scenario)


def test_an_act_that_is_given_up_leaves_a_whole_trail(ready: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        reached = asyncio.Event()

        async def wait(session: Session) -> None:
            reached.set()
            await asyncio.Event().wait()

        await store.note([act("acme", "a", "k")])
        acting = asyncio.create_task(store._act(wait, [act("acme", "b", "k")]))
        await reached.wait()
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        await store.note([act("acme", "c", "k")])
        assert sorted(one.act for one in await whole(store)) == ["a", "c"]

    play(postgres_store(ready), scenario)


def test_whatever_becomes_of_connections_the_trail_tells_what_is_on_record(postgres: Postgres, ready: str) -> None:
    async def scenario() -> None:
        with Proxy(postgres.port) as proxy:
            url = ready.replace(f":{postgres.port}/", f":{proxy.port}/")
            acknowledged: dict[bytes, str] = {}
            stopped = asyncio.Event()

            async def until_acknowledged(send: Callable[[], Awaitable[object]]) -> None:
                while True:
                    try:
                        assert await send() is None
                    except StoreUnavailable:
                        await asyncio.sleep(0.002)
                    else:
                        return

            async def write(store: PostgresStore, number: int) -> None:
                while not stopped.is_set():
                    rows = [row() for _ in range(number % 3 + 1)]
                    kept = receipt(rows[0].id.hex(), *rows) if number % 2 else None
                    await until_acknowledged(lambda: store.add(rows, kept, actor=f"k{number}"))  # noqa: B023
                    acknowledged.update({one.id: f"k{number}" for one in rows})

            async with opened(postgres_store(url)) as one, opened(postgres_store(url)) as other:
                writing = [asyncio.create_task(write(store, number)) for store in (one, other) for number in range(12)]
                for _ in range(12):
                    before = len(acknowledged)
                    while len(acknowledged) < before + 60:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    await asyncio.to_thread(proxy.reset)
                    await asyncio.to_thread(proxy.heal)
                stopped.set()
                await asyncio.gather(*writing)
        async with opened(postgres_store(ready)) as store:
            assert await actors(store) == acknowledged

    asyncio.run(scenario())


# Plans


def test_the_file_is_looked_through_by_its_indexes_alone(tmp_path: Path) -> None:
    async def nothing(store: SqliteStore) -> None:
        """Only open and close."""

    play(SqliteStore(tmp_path / "records.db"), nothing)
    values: dict[str, object] = {"tenant": "acme", "below": b"", "limit": 9}
    values |= sqlite_trail._values(Wanted("acme", False, "a", "k", b"i" * 16), *ends(), 9)
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        for sql in (
            *(sqlite_trail.edge_sql(*by) for by in product((False, True), repeat=2)),
            *(sqlite_trail.stretch_sql(*by) for by in product((False, True), repeat=5)),
        ):
            [step] = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert "INDEX audit_" in step, sql
            assert "(tenant_id=? AND (at_ms,segment,number)>(?,?,?) AND (at_ms,segment,number)<(?,?,?))" in step, step
        for sql, given in (
            (sqlite_trail._SEGMENT, ("acme", b"", 0, 9)),
            (sqlite_trail._SEGMENTS, values),
            (sqlite_trail._TENANTS.format("audit_entries"), ()),
            (sqlite_trail._TENANTS.format("audit_checkpoints"), ()),
            (sqlite_trail._UNCOVERED, values),
            (sqlite_trail._CHECKPOINTS, ("acme", 0, 9)),
            (sqlite_trail._LAST, ("acme",)),
            (sqlite_trail._HEAD_NUMBER, ("acme", b"")),
        ):
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
            # The first of all tenants stands at the beginning of an index.
            read = [step for step in plan if step.startswith("SCAN") and "COVERING INDEX" not in step]
            assert set(read) <= {"SCAN s", "SCAN t", "SCAN audit_checkpoints", "SCAN CONSTANT ROW"}, plan
            assert not [step for step in plan if "TEMP B-TREE" in step], plan


def ends() -> tuple[Position, Position]:
    """All of time."""
    return Position(0, bytes(16), 0), Position(2**62, bytes(16), 0)


SEGMENTS = 40
SEGMENT_ENTRIES = 1_000
FEW_BLOCKS = 600
"""Of 8 kB: a fourth of what these entries take."""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_the_trail_in_postgres_is_looked_through_by_its_indexes_alone(
    mode: str, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, tuple[Any, ...]] = {}

    class Heard(link.Aging):
        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            heard[query] = args
            return await super().fetch(query, *args, **options)

    monkeypatch.setattr(link, "Aging", Heard)
    fill = f"""\
INSERT INTO audit_entries SELECT 'acme', (lpad(to_hex($1::bigint + s * 3600000::bigint), 12, '0') || '70008' ||
        lpad(to_hex(s), 15, '0'))::uuid, n, $1::bigint + s * 3600000::bigint + n * 3000,
    CASE WHEN n % 100 = 0 THEN 'key.created' ELSE '{RECORDED}' END, 'k' || n % 3, '{{}}', sha256(n::text::bytea),
    sha256(n::text::bytea), sha256(n::text::bytea)
FROM generate_series(1, $2) s, generate_series(1, $3) n"""

    async def scenario(store: PostgresStore) -> None:
        await asyncio.to_thread(query, ready, fill, FIRST_MS, SEGMENTS, SEGMENT_ENTRIES)
        [segment, *_] = await store.segments("acme")
        assert len((await store.uncovered(FIRST_MS))["acme"]) == SEGMENTS
        await store.segment("acme", segment, after=500, limit=9)
        await store.trails()
        await store.checkpoints("acme", after=0, limit=9)
        await store.last_checkpoint("acme")
        await store.head_number("acme", segment)
        for name, actor, assessment in product((None, RECORDED, "key.created"), (None, "k1"), (None, segment)):
            await store.entries("acme", act=name, actor=actor, assessment=assessment, limit=9)
        assert len(heard) > 15
        connection = await asyncpg.connect(ready)
        try:
            for name, value in (*link._PLANNING.items(), ("plan_cache_mode", mode)):
                await connection.execute(f"SET {name} = {value}")
            for sql, values in heard.items():
                if "audit_" not in sql:
                    continue
                [(told,)] = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *values)
                plan = json.loads(told)[0]["Plan"]
                for node in nodes(plan):
                    assert node["Node Type"] not in ("Seq Scan", "Sort", "Incremental Sort"), (sql, node)
                assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= FEW_BLOCKS, (sql, plan)
        finally:
            await connection.close()

    play(postgres_store(ready), scenario)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
