"""Every store keeps keys and what people decide, and tells of each change in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256

import pytest
from msgspec.structs import replace
from records import BACKENDS, Backend, Records, ids, override, row, stored_key

from app.store.access import StoredKey
from app.store.base import Row, RowRefused, StoreUnavailable
from app.store.chain import leaf
from app.store.trail import Act, act

NOW_MS = 1_800_000_000_000
MADE = act("acme", "key.created", "cli")
REVOKED = act("acme", "key.revoked", "cli")
SUCCEEDED = [act("acme", "key.rotated", "cli"), MADE]
DECIDED = act("acme", "override.created", "key-of-one")
APPROVED = act("acme", "override.approved", "key-of-another")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


async def told(store: Records, tenant_id: str = "acme") -> list[str]:
    """What was done but for recording, oldest first."""
    entries = await store.entries(tenant_id, limit=99)
    return [entry.act for entry in reversed(entries) if entry.act != "assessment.recorded"]


async def with_keys(store: Records, *keys: StoredKey) -> None:
    for each in keys:
        await store.add_key(each, act(each.tenant_id, "key.created", "cli"))


async def assessed(store: Records, **fields: object) -> Row:
    """A row on record, of level and decision 1 unless told otherwise."""
    made = row(**fields)
    await store.add([made])
    return made


async def found(store: Records, of: Row) -> Row:
    answer = await store.get(of.tenant_id, of.id)
    assert answer is not None
    return answer


async def insistently(call: Callable[[], Awaitable[object]]) -> object:
    """The call's answer, made again where another held what it needs for longer than it may wait."""
    while True:
        with suppress(StoreUnavailable):
            return await call()


# Keys


def test_a_key_is_read_back_as_it_was_added(backend: Backend) -> None:
    bare = stored_key()
    full = stored_key(
        name='Ünïcode, "quotes"',
        role="assessor",
        scopes=("read", "assess"),
        networks=("10.0.0.0/8", "2001:db8::/32"),
        tier="gold",
        rate="100/s burst 200",
        expires_ms=NOW_MS,
        revoked_ms=NOW_MS + 1,
        last_used_ms=NOW_MS + 2,
    )
    narrow = stored_key(scopes=())

    async def add(store: Records) -> None:
        await with_keys(store, bare, full, narrow)

    async def read(store: Records) -> None:
        assert await store.key("unknown") is None
        for each in (bare, full, narrow):
            assert await store.key(each.id) == each

    backend.run(add)
    backend.run(read)


def test_an_id_that_is_taken_is_refused_and_the_key_stays(backend: Backend) -> None:
    kept = stored_key()

    async def scenario(store: Records) -> None:
        await with_keys(store, kept)
        for other in (stored_key(id=kept.id), stored_key("other", id=kept.id), kept):
            with pytest.raises(RowRefused):
                await store.add_key(other, MADE)
        assert await store.key(kept.id) == kept
        assert await told(store) == ["key.created"]
        assert await told(store, "other") == []

    backend.run(scenario)


def test_keys_are_listed_newest_first_and_apart_by_tenant(backend: Backend) -> None:
    old, young, middle = (stored_key(created_ms=NOW_MS + after) for after in (0, 2, 1))
    theirs = stored_key("other", created_ms=NOW_MS + 3)

    async def scenario(store: Records) -> None:
        assert await store.keys(None) == []
        await with_keys(store, old, young, middle, theirs)
        assert await store.keys("acme") == [young, middle, old]
        assert await store.keys("other") == [theirs]
        assert await store.keys("nobody") == []
        assert await store.keys(None) == [theirs, young, middle, old]

    backend.run(scenario)


def test_a_key_is_revoked_once_and_by_its_own_tenant(backend: Backend) -> None:
    kept = stored_key(expires_ms=NOW_MS + 99)

    async def scenario(store: Records) -> None:
        await with_keys(store, kept)
        assert await store.end_key("other", kept.id, revoked_ms=1, act=REVOKED) is None
        assert await store.end_key("acme", "unknown", revoked_ms=1, act=REVOKED) is None
        assert await store.key(kept.id) == kept
        assert await told(store) == ["key.created"]
        ended = replace(kept, revoked_ms=NOW_MS)
        assert await store.end_key("acme", kept.id, revoked_ms=NOW_MS, act=REVOKED) == ended
        assert await store.end_key("acme", kept.id, revoked_ms=NOW_MS + 5, act=REVOKED) == ended
        assert await store.key(kept.id) == ended
        assert await told(store) == ["key.created", "key.revoked"]

    backend.run(scenario)


def test_a_key_that_is_replaced_ends_when_it_is_told_or_before(backend: Backend) -> None:
    endless, late, early = (stored_key(expires_ms=expires_ms) for expires_ms in (None, NOW_MS + 9, NOW_MS - 9))

    async def scenario(store: Records) -> None:
        await with_keys(store, endless, late, early)
        for old, expires_ms in ((endless, NOW_MS), (late, NOW_MS), (early, NOW_MS - 9)):
            successor = stored_key()
            assert await store.replace_key("acme", old.id, successor, expires_ms=NOW_MS, acts=SUCCEEDED)
            assert await store.key(old.id) == replace(old, expires_ms=expires_ms)
            assert await store.key(successor.id) == successor
        assert await told(store) == ["key.created"] * 3 + ["key.rotated", "key.created"] * 3

    backend.run(scenario)


def test_a_key_that_is_not_there_or_revoked_or_anothers_is_not_replaced(backend: Backend) -> None:
    revoked, theirs = stored_key(revoked_ms=1), stored_key("other")
    successor = stored_key()

    async def scenario(store: Records) -> None:
        await with_keys(store, revoked, theirs)
        for id in ("unknown", revoked.id, theirs.id):
            assert not await store.replace_key("acme", id, successor, expires_ms=NOW_MS, acts=SUCCEEDED)
        assert await store.key(successor.id) is None
        assert await store.key(theirs.id) == theirs
        assert await store.key(revoked.id) == revoked
        assert await told(store) == ["key.created"]

    backend.run(scenario)


def test_a_successor_whose_id_is_taken_leaves_the_old_key_as_it_was(backend: Backend) -> None:
    old, taken = stored_key(), stored_key()

    async def scenario(store: Records) -> None:
        await with_keys(store, old, taken)
        with pytest.raises(RowRefused):
            await store.replace_key("acme", old.id, stored_key(id=taken.id), expires_ms=NOW_MS, acts=SUCCEEDED)
        assert await store.key(old.id) == old
        assert await store.key(taken.id) == taken
        assert await told(store) == ["key.created"] * 2

    backend.run(scenario)


def test_the_last_use_of_a_key_goes_only_forward(backend: Backend) -> None:
    fresh, used, late = stored_key(), stored_key(last_used_ms=NOW_MS), stored_key(last_used_ms=NOW_MS + 9)
    unused = stored_key()

    async def last_used(store: Records) -> list[int | None]:
        keys = await asyncio.gather(*[store.key(each.id) for each in (fresh, used, late, unused)])
        return [each and each.last_used_ms for each in keys]

    async def scenario(store: Records) -> None:
        await with_keys(store, fresh, used, late, unused)
        await store.touch_keys({})
        await store.touch_keys({each.id: NOW_MS + 5 for each in (fresh, used, late)} | {"unknown": NOW_MS})
        assert await last_used(store) == [NOW_MS + 5, NOW_MS + 5, NOW_MS + 9, None]
        await store.touch_keys({fresh.id: NOW_MS})
        assert await last_used(store) == [NOW_MS + 5, NOW_MS + 5, NOW_MS + 9, None]
        # Nothing that anybody did.
        assert await told(store) == ["key.created"] * 4

    backend.run(scenario)


def test_many_processes_note_the_use_of_the_same_keys(backend: Backend) -> None:
    keys = [stored_key() for _ in range(40)]

    async def scenario(store: Records) -> None:
        await with_keys(store, *keys)
        other = backend.make()
        await other.open()
        try:
            for number in range(20):
                noted = {each.id: NOW_MS + number for each in keys}
                turned = {each.id: NOW_MS + number + 1 for each in reversed(keys)}
                calls = (partial(store.touch_keys, noted), partial(other.touch_keys, turned))
                await asyncio.gather(*map(insistently, calls))
        finally:
            await other.close()
        assert {each.last_used_ms for each in await store.keys("acme")} == {NOW_MS + 20}

    backend.run(scenario)


def test_a_key_that_expired_or_was_revoked_is_none_that_works(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert not await store.has_key(NOW_MS)
        await with_keys(store, stored_key(revoked_ms=NOW_MS - 5), stored_key(expires_ms=NOW_MS))
        assert not await store.has_key(NOW_MS)
        assert await store.has_key(NOW_MS - 1)
        endless = stored_key("other")
        await with_keys(store, endless)
        assert await store.has_key(NOW_MS)
        await store.end_key("other", endless.id, revoked_ms=NOW_MS, act=act("other", "key.revoked", "cli"))
        assert not await store.has_key(NOW_MS)

    backend.run(scenario)


# Overrides


def test_an_override_takes_effect_and_the_original_is_kept(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        mine, other = await assessed(store), await assessed(store)
        first = override(mine)
        assert await store.add_override(first, DECIDED, over=None)
        expected = replace(mine, level=3, decision=2, override_id=first.id, original_level=1, original_decision=1)
        assert await store.get("acme", mine.id) == expected
        assert await store.get_each("acme", [other.id, mine.id]) == [other, expected]
        second = override(mine, level=0, decision=0, actor="key-of-another", reason=None)
        assert await store.add_override(second, DECIDED, over=first.id)
        again = replace(expected, level=0, decision=0, override_id=second.id)
        assert await store.get("acme", mine.id) == again
        assert await store.page("acme", limit=9) == [other, again]
        assert await store.overrides("acme", mine.id) == [first, second]
        assert await store.overrides("acme", other.id) == []
        assert await told(store) == ["override.created"] * 2

    backend.run(scenario)


def test_lists_find_an_overridden_assessment_where_it_now_belongs(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        mine, other = await assessed(store), await assessed(store)
        assert await store.add_override(override(mine), DECIDED, over=None)
        now = await found(store, mine)
        for business in ({}, {"business_id": "cust-1"}):
            for before in ({"level": 1}, {"decision": 1}, {"level": 1, "decision": 1}):
                assert await store.page("acme", limit=9, **business, **before) == [other]
            for after in ({"level": 3}, {"decision": 2}, {"level": 3, "decision": 2}):
                assert await store.page("acme", limit=9, **business, **after) == [now]
            assert await store.page("acme", limit=9, **business) == [other, now]

    backend.run(scenario)


def test_nothing_is_decided_over_an_override_that_the_decision_did_not_know(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        mine = await assessed(store)
        first, late = override(mine), override(mine, level=0)
        assert not await store.add_override(first, DECIDED, over=ids.new())
        assert await store.add_override(first, DECIDED, over=None)
        now = await found(store, mine)
        for state in ("applied", "pending"):
            for over in (None, ids.new()):
                assert not await store.add_override(replace(late, state=state), DECIDED, over=over)
        assert await found(store, mine) == now
        assert await store.overrides("acme", mine.id) == [first]
        assert await told(store) == ["override.created"]

    backend.run(scenario)


def test_an_assessment_that_is_not_there_or_anothers_is_not_overridden(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        theirs = await assessed(store, tenant_id="other")
        for of in (row(), replace(theirs, tenant_id="acme")):
            for state in ("applied", "pending"):
                assert not await store.add_override(override(of, state=state), DECIDED, over=None)
            assert not await store.approve_override(override(of, state="approved"), APPROVED, over=None)
            assert await store.overrides("acme", of.id) == []
        assert await found(store, theirs) == theirs
        # Even where both tenants have an assessment of that id.
        mine = await assessed(store, id=theirs.id)
        pending = override(theirs, state="pending")
        assert await store.add_override(override(mine), DECIDED, over=None)
        assert await store.add_override(pending, act("other", "override.asked", "k"), over=None)
        assert await found(store, theirs) == theirs
        assert not await store.approve_override(
            replace(pending, tenant_id="acme", state="approved"), APPROVED, over=(await found(store, mine)).override_id
        )
        assert await store.overrides("other", theirs.id) == [pending]
        assert await told(store) == ["override.created"]

    backend.run(scenario)


def test_of_two_services_that_override_at_once_one_wins(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        rivals = [backend.make(), backend.make()]
        rows = [await assessed(store) for _ in range(12)]
        for rival in rivals:
            await rival.open()
        try:
            for mine in rows:
                decisions = [override(mine, level=level) for level in (2, 3)]
                calls = [
                    partial(rival.add_override, one, DECIDED, over=None)
                    for rival, one in zip(rivals, decisions, strict=True)
                ]
                won = await asyncio.gather(*map(insistently, calls))
                assert sorted(won) == [False, True]
                (winner,) = (one for one, has_won in zip(decisions, won, strict=True) if has_won)
                now = await found(store, mine)
                assert (now.override_id, now.level, now.original_level) == (winner.id, winner.level, 1)
                assert await store.overrides("acme", mine.id) == [winner]
        finally:
            for rival in rivals:
                await rival.close()
        assert await told(store) == ["override.created"] * len(rows)

    backend.run(scenario)


def test_a_pending_override_takes_effect_once_it_is_approved(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        mine = await assessed(store)
        pending = override(mine, level=0, decision=0, state="pending")
        assert await store.add_override(pending, DECIDED, over=None)
        assert await found(store, mine) == mine
        assert await store.overrides("acme", mine.id) == [pending]
        approved = replace(pending, state="approved", approver="key-of-another", approved_ms=NOW_MS)
        assert await store.approve_override(approved, APPROVED, over=None)
        now = replace(mine, level=0, decision=0, override_id=pending.id, original_level=1, original_decision=1)
        assert await found(store, mine) == now
        assert await store.overrides("acme", mine.id) == [approved]
        again = replace(approved, approver="key-of-a-third", approved_ms=NOW_MS + 1)
        for over in (None, pending.id):
            assert not await store.approve_override(again, APPROVED, over=over)
        assert await store.overrides("acme", mine.id) == [approved]
        assert await told(store) == ["override.created", "override.approved"]

    backend.run(scenario)


def test_only_what_is_pending_is_approved_and_over_what_it_was_decided(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        mine = await assessed(store)
        pending = override(mine, level=0, decision=0, state="pending")
        approved = replace(pending, state="approved", approver="key-of-another", approved_ms=NOW_MS)
        assert not await store.approve_override(approved, APPROVED, over=None)
        assert await store.add_override(pending, DECIDED, over=None)
        meanwhile = override(mine)
        assert await store.add_override(meanwhile, DECIDED, over=None)
        now = await found(store, mine)
        assert not await store.approve_override(approved, APPROVED, over=None)
        # One that was in force from the start is not pending.
        assert not await store.approve_override(replace(meanwhile, state="approved"), APPROVED, over=meanwhile.id)
        assert await found(store, mine) == now
        assert await store.overrides("acme", mine.id) == [pending, meanwhile]
        assert await told(store) == ["override.created"] * 2
        assert await store.approve_override(approved, APPROVED, over=meanwhile.id)
        assert (await found(store, mine)).override_id == pending.id
        assert (await found(store, mine)).original_level == 1

    backend.run(scenario)


def test_of_two_who_approve_at_once_one_does(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        other = backend.make()
        await other.open()
        try:
            for _ in range(8):
                mine = await assessed(store)
                pending = override(mine, state="pending")
                await store.add_override(pending, DECIDED, over=None)
                given = [replace(pending, state="approved", approver=name, approved_ms=NOW_MS) for name in "ab"]
                calls = [
                    partial(rival.approve_override, one, APPROVED, over=None)
                    for rival, one in zip((store, other), given, strict=True)
                ]
                done = await asyncio.gather(*map(insistently, calls))
                assert sorted(done) == [False, True]
                assert await store.overrides("acme", mine.id) == [given[done.index(True)]]
        finally:
            await other.close()
        assert sorted(await told(store)) == ["override.approved"] * 8 + ["override.created"] * 8

    backend.run(scenario)


# With erasure


def test_the_leaf_of_an_erased_assessment_is_the_one_it_had(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        rows = [
            await assessed(store, business_id="gone", **fields)
            for fields in (
                {"record": b"Maria", "level": 3, "decision": 2, "score": 10_000},
                {"record": b"", "input": b"", "level": 0, "decision": 0, "score": 0},
                {"record": b"r" * 3_000, "input": b"i" * 50_000},
                {"record": b"overridden"},
            )
        ]
        assert await store.add_override(override(rows[3]), DECIDED, over=None)
        leaves = [leaf(each) for each in rows]
        assert [leaf(await found(store, each)) for each in rows] == leaves
        await store.erase("acme", "gone", reason="asked", redact=lambda _: b"", now_ms=1)
        for each, expected in zip(rows, leaves, strict=True):
            erased = await found(store, each)
            assert erased.record == b""
            assert erased.leaf == expected
            assert leaf(erased) == expected
        # What is decided afterwards is no part of it either.
        assert await store.add_override(override(rows[0], level=0), DECIDED, over=None)
        assert leaf(await found(store, rows[0])) == leaves[0]

    backend.run(scenario)


def test_the_reasons_of_an_erased_business_are_gone_and_what_was_decided_stays(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        gone, kept = await assessed(store, business_id="gone"), await assessed(store, business_id="kept")
        theirs = await assessed(store, tenant_id="other", id=gone.id, business_id="gone")
        first, second = override(gone), override(gone, level=0, state="pending")
        other, elsewhere = override(kept), override(theirs)
        for one, over in ((first, None), (second, first.id), (other, None), (elsewhere, None)):
            assert await store.add_override(one, replace(DECIDED, tenant_id=one.tenant_id), over=over)
        await store.erase("acme", "gone", reason="asked", redact=bytes, now_ms=1)
        assert await store.overrides("acme", gone.id) == [replace(first, reason=None), replace(second, reason=None)]
        assert await store.overrides("acme", kept.id) == [other]
        assert await store.overrides("other", theirs.id) == [elsewhere]
        now = await found(store, gone)
        assert (now.level, now.override_id, now.input_sha256) == (3, first.id, sha256(gone.input or b"").digest())

    backend.run(scenario)


# With the trail


@pytest.mark.parametrize("change", ["add_key", "end_key", "replace_key", "add_override", "approve_override"])
def test_a_change_that_cannot_be_told_of_is_not_made(backend: Backend, change: str) -> None:
    # No text of any database holds a lone surrogate.
    untold = act("acme", "untold", "\ud800")

    async def scenario(store: Records) -> None:
        kept, successor = stored_key(), stored_key()
        mine = await assessed(store)
        pending = override(mine, state="pending")
        await with_keys(store, kept)
        await store.add_override(pending, DECIDED, over=None)
        calls: dict[str, Callable[[Act], Awaitable[object]]] = {
            "add_key": lambda told: store.add_key(successor, told),
            "end_key": lambda told: store.end_key("acme", kept.id, revoked_ms=NOW_MS, act=told),
            "replace_key": lambda told: store.replace_key("acme", kept.id, successor, expires_ms=1, acts=[told]),
            "add_override": lambda told: store.add_override(override(mine), told, over=None),
            "approve_override": lambda told: store.approve_override(
                replace(pending, state="approved", approver="b", approved_ms=1), told, over=None
            ),
        }
        with pytest.raises((ValueError, RowRefused)):
            await calls[change](untold)
        assert await store.keys("acme") == [kept]
        assert await found(store, mine) == mine
        assert await store.overrides("acme", mine.id) == [pending]
        assert await told(store) == ["key.created", "override.created"]
        await calls[change](act("acme", "told", "cli"))
        assert await told(store) == ["key.created", "override.created", "told"]

    backend.run(scenario)


def test_a_closed_store_says_so_of_keys_and_overrides(backend: Backend) -> None:
    async def scenario() -> None:
        store = backend.make()
        await store.open()
        await store.close()
        late: list[Awaitable[object]] = [
            store.add_key(stored_key(), MADE),
            store.key("k"),
            store.keys(None),
            store.end_key("acme", "k", revoked_ms=1, act=REVOKED),
            store.replace_key("acme", "k", stored_key(), expires_ms=1, acts=SUCCEEDED),
            store.touch_keys({"k": 1}),
            store.has_key(NOW_MS),
            store.overrides("acme", bytes(16)),
            store.add_override(override(row()), DECIDED, over=None),
            store.approve_override(override(row()), APPROVED, over=None),
        ]
        for call in late:
            with pytest.raises(StoreUnavailable):
                await call

    asyncio.run(scenario())
