"""Every store keeps the hits that people set aside, each once, until it is taken back or its business erased."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from records import BACKENDS, Backend, Records, disposition, ids, row

from app.store.base import RowRefused, StoreUnavailable
from app.store.keeping import Erasure, business_sha256
from app.store.lists import Disposition
from app.store.trail import Act, act

NOW_MS = 1_800_000_000_000
ROW = row()
MADE = act("acme", "disposition.created", "key-of-one")
ENDED = act("acme", "disposition.ended", "key-of-another")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


async def with_dispositions(store: Records, *made: Disposition) -> None:
    for each in made:
        assert await store.add_disposition(each, act(each.tenant_id, "disposition.created", each.actor))


async def told(store: Records, tenant_id: str = "acme") -> list[str]:
    """What was done but for recording, oldest first."""
    entries = await store.entries(tenant_id, limit=99)
    return [entry.act for entry in reversed(entries) if entry.act != "assessment.recorded"]


async def insistently(call: Callable[[], Awaitable[object]]) -> object:
    """The call's answer, made again where another held what it needs for longer than it may wait."""
    while True:
        with suppress(StoreUnavailable):
            return await call()


def apart(**fields: Any) -> list[Disposition]:
    """Dispositions of one business that differ in one thing each."""
    differences: list[dict[str, Any]] = [{}, {"list": "un"}, {"entity_id": "6"}, {"entity_digest": b"f" * 32}]
    return [disposition(ROW, **fields, **different) for different in differences]


def test_a_disposition_is_read_back_as_it_was_made(backend: Backend) -> None:
    bare = disposition(row(business_id=None), reason=None, subject="", matched_name="", entity_id="")
    full = disposition(ROW, reason='Ünïcode, "quotes"', entity_id="NK-\U0001f600", ended_ms=NOW_MS, ended_by="k")

    async def add(store: Records) -> None:
        await with_dispositions(store, bare, full)

    async def read(store: Records) -> None:
        for each in (bare, full):
            assert await store.disposition("acme", each.id) == each
            assert await store.disposition("other", each.id) is None
        assert await store.disposition("acme", ids.new()) is None
        assert await told(store) == ["disposition.created"] * 2

    backend.run(add)
    backend.run(read)


def test_those_of_a_business_are_told_oldest_first_without_ended_ones_and_others(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        made = apart()
        ended = disposition(ROW, list="eu", ended_ms=NOW_MS, ended_by="k")
        other = disposition(row(business_id="cust-2"))
        theirs = disposition(row("other"))
        await with_dispositions(store, *reversed(made), ended, other, theirs)
        for _ in range(2):
            # Asked for at once, and some twice.
            answers = await asyncio.gather(
                *[store.dispositions("acme", made[0].business) for _ in range(3)],
                store.dispositions("acme", other.business),
                store.dispositions("other", made[0].business),
                store.dispositions("other", other.business),
                store.dispositions("acme", b"unknown"),
            )
            assert answers == [made, made, made, [other], [theirs], [], []]

    backend.run(scenario)


def test_one_entry_is_set_aside_once_for_a_business(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        made = apart()
        await with_dispositions(store, *made)
        for each in made:
            for again in (each, replace(each, id=ids.new(), subject="/business/name", reason="again")):
                assert not await store.add_disposition(again, MADE)
        assert await store.dispositions("acme", made[0].business) == made
        # For another business or tenant it is another finding.
        await with_dispositions(store, disposition(row(business_id="cust-2")), disposition(row("other")))
        assert await told(store) == ["disposition.created"] * 5
        # One that ended stands in nobody's way.
        await with_dispositions(store, replace(made[0], id=ids.new(), ended_ms=NOW_MS))
        await store.end_disposition("acme", made[0].id, ended_ms=NOW_MS, ended_by="k", act=ENDED)
        again = replace(made[0], id=ids.new())
        await with_dispositions(store, again)
        assert await store.dispositions("acme", made[0].business) == [*made[1:], again]

    backend.run(scenario)


def test_an_id_that_is_taken_is_refused(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        kept, *_ = apart()
        await with_dispositions(store, kept)
        with pytest.raises(RowRefused):
            await store.add_disposition(replace(kept, list="un"), MADE)
        assert await store.disposition("acme", kept.id) == kept
        assert await told(store) == ["disposition.created"]
        await with_dispositions(store, replace(kept, tenant_id="other"))
        assert await store.disposition("acme", kept.id) == kept

    backend.run(scenario)


def test_of_two_who_set_an_entry_aside_at_once_one_does(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        other = backend.make()
        await other.open()
        try:
            for number in range(8):
                rivals = [disposition(ROW, entity_id=str(number), reason=reason) for reason in "ab"]
                calls = [partial(at.add_disposition, one, MADE) for at, one in zip((store, other), rivals, strict=True)]
                done = await asyncio.gather(*map(insistently, calls))
                assert sorted(done) == [False, True]
                winner = rivals[done.index(True)]
                assert (await other.dispositions("acme", winner.business))[-1] == winner
                assert await other.disposition("acme", rivals[done.index(False)].id) is None
        finally:
            await other.close()
        assert await told(store) == ["disposition.created"] * 8

    backend.run(scenario)


def test_a_disposition_is_taken_back_once_and_by_its_own_tenant(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        made, other, *_ = apart()
        await with_dispositions(store, made, other)

        async def end(tenant_id: str, id: bytes, ended_ms: int = NOW_MS) -> Disposition | None:
            return await store.end_disposition(tenant_id, id, ended_ms=ended_ms, ended_by="key-of-another", act=ENDED)

        assert await end("other", made.id) is None
        assert await end("acme", ids.new()) is None
        assert await store.disposition("acme", made.id) == made
        assert await told(store) == ["disposition.created"] * 2
        ended = replace(made, ended_ms=NOW_MS, ended_by="key-of-another")
        assert await end("acme", made.id) == ended
        assert await end("acme", made.id, NOW_MS + 5) == ended
        assert await store.disposition("acme", made.id) == ended
        assert await store.dispositions("acme", made.business) == [other]
        assert await told(store) == ["disposition.created"] * 2 + ["disposition.ended"]

    backend.run(scenario)


@pytest.mark.parametrize("business_id", [None, "cust-1", "cust-2", "unknown"])
@pytest.mark.parametrize("limit", [1, 3, 99])
def test_pages_walk_over_every_disposition_once_newest_first(
    backend: Backend, business_id: str | None, limit: int
) -> None:
    async def scenario(store: Records) -> None:
        made = []
        for number in range(10):
            of = row(business_id=("cust-1", "cust-2", None)[number % 3])
            ended_ms = NOW_MS if number % 4 == 0 else None
            made.append(disposition(of, entity_id=str(number), ended_ms=ended_ms))
        await with_dispositions(store, *made, disposition(row("other")))
        chosen = [each for each in reversed(made) if business_id in (None, each.business_id)]
        seen: list[Disposition] = []
        before_id = None
        while page := await store.disposition_page("acme", business_id=business_id, before_id=before_id, limit=limit):
            assert len(page) <= limit
            seen += page
            before_id = page[-1].id
        assert seen == chosen
        assert await store.disposition_page("nobody", business_id=business_id, limit=limit) == []

    backend.run(scenario)


# With erasure and retention


def erased(one: Disposition, ended_ms: int) -> Disposition:
    return replace(one, business_id=None, reason=None, matched_name="", ended_ms=ended_ms)


def test_the_dispositions_of_an_erased_business_name_nobody_and_end(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        gone, kept = row(business_id="gone"), row(business_id="kept")
        theirs = row("other", business_id="gone")
        await store.add_each([gone, kept, theirs])
        active = disposition(gone)
        ended = disposition(gone, list="un", ended_ms=5, ended_by="k")
        others = [disposition(kept), disposition(theirs)]
        await with_dispositions(store, active, ended, *others)
        done = await store.erase("acme", "gone", reason="asked", redact=bytes, now_ms=NOW_MS)
        assert done.ids == [gone.id]
        assert await store.disposition("acme", active.id) == erased(active, NOW_MS)
        assert await store.disposition("acme", ended.id) == erased(ended, 5)
        assert await store.dispositions("acme", active.business) == []
        assert await store.disposition_page("acme", business_id="gone", limit=9) == []
        assert [each.id for each in await store.disposition_page("acme", limit=9)] == [
            others[0].id,
            ended.id,
            active.id,
        ]
        for each in others:
            assert await store.disposition(each.tenant_id, each.id) == each
        # Whom the business becomes again may be found again.
        await with_dispositions(store, replace(active, id=ids.new()))

    backend.run(scenario)


def test_dispositions_alone_are_erased_once_and_noted(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        made = apart()
        await with_dispositions(store, *made)
        for now_ms in (NOW_MS, NOW_MS + 1):
            done = await store.erase("acme", "cust-1", reason="asked", redact=bytes, now_ms=now_ms)
            assert done.assessments == 0
        assert await store.erasures("acme") == [Erasure(business_sha256("acme", "cust-1"), NOW_MS, 0, "asked")]
        assert await store.disposition_page("acme", limit=9) == [erased(each, NOW_MS) for each in reversed(made)]

    backend.run(scenario)


def test_an_erasure_that_cannot_be_made_leaves_the_dispositions(backend: Backend) -> None:
    def failing(_: bytes) -> bytes:
        raise ValueError("no record of this version")

    async def scenario(store: Records) -> None:
        await store.add([ROW])
        made, *_ = apart()
        await with_dispositions(store, made)
        with pytest.raises(ValueError, match="no record"):
            await store.erase("acme", "cust-1", reason="asked", redact=failing, now_ms=NOW_MS)
        assert await store.dispositions("acme", made.business) == [made]

    backend.run(scenario)


def test_an_assessment_that_is_dropped_leaves_the_dispositions_of_its_business(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        await store.add([ROW])
        made = apart()
        await with_dispositions(store, *made)
        await store.set_retention("acme", 1)
        assert await store.drop_past(dt.date(2999, 1, 1))
        assert await store.get("acme", ROW.id) is None
        assert await store.dispositions("acme", made[0].business) == made

    backend.run(scenario)


# With the trail


@pytest.mark.parametrize("change", ["add_disposition", "end_disposition"])
def test_a_change_that_cannot_be_told_of_is_not_made(backend: Backend, change: str) -> None:
    # No text of any database holds a lone surrogate.
    untold = act("acme", "untold", "\ud800")

    async def scenario(store: Records) -> None:
        made, other, *_ = apart()
        await with_dispositions(store, made)
        calls: dict[str, Callable[[Act], Awaitable[object]]] = {
            "add_disposition": lambda told: store.add_disposition(other, told),
            "end_disposition": lambda told: store.end_disposition("acme", made.id, ended_ms=1, ended_by="k", act=told),
        }
        with pytest.raises((ValueError, RowRefused)):
            await calls[change](untold)
        assert await store.disposition_page("acme", limit=9) == [made]
        assert await told(store) == ["disposition.created"]
        assert await calls[change](act("acme", "told", "cli"))
        assert await told(store) == ["disposition.created", "told"]

    backend.run(scenario)


def test_a_closed_store_says_so_of_dispositions(backend: Backend) -> None:
    async def scenario() -> None:
        store = backend.make()
        await store.open()
        await store.close()
        late: list[Awaitable[object]] = [
            store.add_disposition(disposition(ROW), MADE),
            store.dispositions("acme", b"b"),
            store.disposition("acme", ids.new()),
            store.disposition_page("acme", limit=1),
            store.end_disposition("acme", ids.new(), ended_ms=1, ended_by="k", act=ENDED),
        ]
        for call in late:
            with pytest.raises(StoreUnavailable):
                await call

    asyncio.run(scenario())
