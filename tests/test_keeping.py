"""Every store keeps records as long as it is told, and takes the names out of those of a business that is erased."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import BACKENDS, Backend, Records, override, receipt, row

from app.ids import Uuid7, ceiling, floor
from app.store.base import Row, StoreUnavailable
from app.store.chain import leaf
from app.store.keeping import MAX_DAYS, Dropped, Erased, Erasure, Relationship, Retention, business_sha256, first_id
from app.store.trail import act

TODAY = dt.date(2026, 7, 1)
DAY_MS = 86_400_000


def ms(day: dt.date) -> int:
    """Unix time of the first millisecond of a day (UTC)."""
    return (day - dt.date(1970, 1, 1)).days * DAY_MS


def made_on(day: dt.date, tenant_id: str = "acme", business_id: str | None = None, *, at_ms: int = 0) -> Row:
    """A row of that day. at_ms: the time of the day."""
    return row(tenant_id, id=Uuid7(lambda: ms(day) + at_ms).new(), business_id=business_id)


def days_ago(days: int) -> dt.date:
    return TODAY - dt.timedelta(days)


def blank(record: bytes) -> bytes:
    """A record without what names people."""
    return record.replace(b"Maria", b"*****")


async def left(store: Records, rows: Sequence[Row]) -> list[Row]:
    """Those of the rows that are still on record."""
    return [each for each in rows if await store.get(each.tenant_id, each.id) == each]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


# How long


def test_the_settings_are_read_back_as_they_were_made(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert await store.retentions() == []
        await store.set_retention("zeta", 30)
        await store.set_retention("acme", MAX_DAYS)
        await store.set_retention("zeta", 1)
        assert await store.retentions() == [Retention("acme", MAX_DAYS), Retention("zeta", 1)]
        await store.set_retention("acme", None)
        await store.set_retention("nobody", None)
        assert await store.retentions() == [Retention("zeta", 1)]
        for days in (0, -1, MAX_DAYS + 1):
            with pytest.raises(ValueError, match=f"1 to {MAX_DAYS}"):
                await store.set_retention("zeta", days)

    async def reopened(store: Records) -> None:
        assert await store.retentions() == [Retention("zeta", 1)]

    backend.run(scenario)
    backend.run(reopened)


def test_the_relationships_are_read_back_as_they_were_made(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert await store.relationships("acme") == []
        await store.set_relationship("acme", "b", days_ago(3))
        await store.set_relationship("acme", "a", None)
        await store.set_relationship("acme", "c", days_ago(1))
        await store.set_relationship("acme", "c", None)
        await store.set_relationship("acme", "a", days_ago(2))
        await store.set_relationship("other", "a", None)
        assert await store.relationships("acme") == [
            Relationship("a", days_ago(2)),
            Relationship("b", days_ago(3)),
            Relationship("c", None),
        ]
        assert await store.relationships("other") == [Relationship("a", None)]

    backend.run(scenario)


def test_without_a_setting_nothing_is_ever_dropped(backend: Backend) -> None:
    rows = [made_on(dt.date(1971, 1, 1)), made_on(days_ago(9_000), business_id="a")]

    async def scenario(store: Records) -> None:
        await store.add_each(rows)
        await store.set_relationship("acme", "a", days_ago(9_000))
        assert await store.drop_past(dt.date.max) == []
        assert await left(store, rows) == rows

    backend.run(scenario)


def test_an_assessment_is_dropped_on_the_day_after_its_last(backend: Backend) -> None:
    last_ms = made_on(days_ago(31), at_ms=DAY_MS - 1)
    rows = [made_on(days_ago(31)), last_ms, made_on(days_ago(30)), made_on(TODAY), made_on(days_ago(-5))]
    others = [made_on(days_ago(31), "other"), made_on(days_ago(31), "acme2")]

    async def scenario(store: Records) -> None:
        await store.add_each(rows + others)
        await store.set_retention("acme", 30)
        await store.set_retention("other", 31)
        assert await store.drop_past(days_ago(1)) == []
        assert await left(store, rows) == rows
        assert await store.drop_past(TODAY) == [Dropped("acme", 2)]
        assert await left(store, rows) == rows[2:]
        assert await store.page("acme", limit=9) == sorted(rows[2:], key=lambda each: each.id)[::-1]
        assert await store.drop_past(TODAY) == []
        assert await left(store, others) == others
        assert await store.drop_past(days_ago(-1)) == [Dropped("acme", 1), Dropped("other", 1)]

    backend.run(scenario)


def test_the_clock_of_a_business_starts_when_the_relationship_ends(backend: Backend) -> None:
    years_ago = days_ago(4_000)
    ongoing, ended, long_ended, unknown, none = (
        made_on(years_ago, business_id=business) for business in ("ongoing", "ended", "long-ended", "unknown", None)
    )
    after_the_end = made_on(days_ago(1_826), business_id="long-ended")
    elsewhere = made_on(years_ago, "other", "ongoing")

    async def scenario(store: Records) -> None:
        await store.add_each([ongoing, ended, long_ended, after_the_end, unknown, none, elsewhere])
        for tenant_id in ("acme", "other"):
            await store.set_retention(tenant_id, 1_826)
        await store.set_relationship("acme", "ongoing", None)
        await store.set_relationship("acme", "ended", days_ago(1_826))
        await store.set_relationship("acme", "long-ended", days_ago(1_827))
        assert await store.drop_past(TODAY) == [Dropped("acme", 3), Dropped("other", 1)]
        held = [ongoing, ended, after_the_end]
        assert await left(store, [*held, long_ended, unknown, none, elsewhere]) == held
        assert await store.drop_past(days_ago(-1)) == [Dropped("acme", 2)]
        assert await left(store, held) == [ongoing]
        await store.set_relationship("acme", "ongoing", TODAY)
        assert await store.drop_past(TODAY + dt.timedelta(1_826)) == []
        assert await store.drop_past(TODAY + dt.timedelta(1_827)) == [Dropped("acme", 1)]

    backend.run(scenario)


def test_a_dry_run_drops_nothing(backend: Backend) -> None:
    rows = [made_on(days_ago(40)) for _ in range(25)] + [made_on(days_ago(5))]

    async def scenario(store: Records) -> None:
        await store.add_each(rows)
        await store.set_retention("acme", 30)
        assert await store.drop_past(TODAY, dry_run=True) == [Dropped("acme", 25)]
        assert await left(store, rows) == rows
        assert await store.drop_past(TODAY) == [Dropped("acme", 25)]
        assert await store.drop_past(TODAY, dry_run=True) == []

    backend.run(scenario)


def test_thousands_of_assessments_are_dropped(backend: Backend) -> None:
    held = [made_on(days_ago(40), business_id="ongoing") for _ in range(1_500)]
    past = [made_on(days_ago(40), business_id=f"b{number % 7}") for number in range(2_500)]
    young = [made_on(TODAY) for _ in range(100)]

    async def scenario(store: Records) -> None:
        await store.add_each(held + past + young)
        await store.set_retention("acme", 30)
        await store.set_relationship("acme", "ongoing", None)
        assert await store.drop_past(TODAY, dry_run=True) == [Dropped("acme", 2_500)]
        assert await store.drop_past(TODAY) == [Dropped("acme", 2_500)]
        kept = sorted(held + young, key=lambda each: each.id, reverse=True)
        assert await store.page("acme", limit=5_000) == kept
        assert await store.page("acme", business_id="b1", limit=9) == []

    backend.run(scenario)


def test_a_key_whose_assessment_was_dropped_still_answers_its_receipt(backend: Backend) -> None:
    old = made_on(days_ago(40))
    kept = receipt("k", old)

    async def scenario(store: Records) -> None:
        await store.add([old], kept)
        await store.set_retention("acme", 30)
        await store.drop_past(TODAY)
        again = row()
        assert await store.add([again], receipt("k", again)) == kept
        assert await store.get("acme", old.id) is None

    backend.run(scenario)


def test_the_overrides_of_an_assessment_are_dropped_with_it(backend: Backend) -> None:
    old, young, held = made_on(days_ago(40)), made_on(days_ago(5)), made_on(days_ago(40), business_id="ongoing")
    theirs = row("other", id=old.id, business_id=None)

    async def scenario(store: Records) -> None:
        await store.add_each([old, young, held, theirs])
        await store.set_retention("acme", 30)
        await store.set_relationship("acme", "ongoing", None)
        kept = {}
        for each in (old, young, held, theirs):
            first, second = override(each), override(each, state="pending")
            for one, over in ((first, None), (second, first.id)):
                assert await store.add_override(one, act(each.tenant_id, "override.created", "k"), over=over)
            kept[each.tenant_id, each.id] = [first, second]
        assert await store.drop_past(TODAY, dry_run=True) == [Dropped("acme", 1)]
        assert await store.overrides("acme", old.id) == kept["acme", old.id]
        assert await store.drop_past(TODAY) == [Dropped("acme", 1)]
        assert await store.overrides("acme", old.id) == []
        for each in (young, held, theirs):
            assert await store.overrides(each.tenant_id, each.id) == kept[each.tenant_id, each.id]

    backend.run(scenario)


@dataclass(frozen=True)
class World:
    """What a tenant has. The days are relative to the day of the dropping: 3 is three days before it."""

    days: int | None
    relationships: dict[str, int | None]
    assessments: list[tuple[int, str | None]]

    def past(self) -> list[int]:
        """The places of the assessments that must go, told plainly."""
        return [
            place
            for place, (age, business_id) in enumerate(self.assessments)
            if self.days is not None and self._days_since_start(age, business_id) > self.days
        ]

    def _days_since_start(self, age: int, business_id: str | None) -> float:
        if business_id not in self.relationships:
            return age
        ended = self.relationships[business_id]
        return float("-inf") if ended is None else min(age, ended)


BUSINESSES = st.sampled_from("abc")
# Close together, so that first and last days are met often.
AGES = st.integers(-2, 8) | st.integers(-400, 4_000)
WORLDS = st.builds(
    World,
    days=st.none() | st.integers(1, 8) | st.integers(1, 4_000),
    relationships=st.dictionaries(BUSINESSES, st.none() | AGES, max_size=3),
    assessments=st.lists(st.tuples(AGES, st.none() | BUSINESSES | st.just("d")), max_size=12),
)


def test_exactly_what_is_past_goes(backend: Backend) -> None:
    numbers = count()

    with asyncio.Runner() as runner:
        store = backend.make()
        runner.run(store.open())

        @settings(max_examples=80)
        @given(st.lists(WORLDS, min_size=1, max_size=3), st.booleans())
        def check(worlds: list[World], dry_run: bool) -> None:
            runner.run(scenario(worlds, dry_run))

        async def scenario(worlds: list[World], dry_run: bool) -> None:
            # Tenants of their own for every example, who sort in the order of their worlds.
            tenants = {f"tenant-{next(numbers):06}": world for world in worlds}
            rows: dict[str, list[Row]] = {}
            for tenant_id, world in tenants.items():
                rows[tenant_id] = [
                    made_on(days_ago(age), tenant_id, business_id, at_ms=place * DAY_MS // 12)
                    for place, (age, business_id) in enumerate(world.assessments)
                ]
                await store.add_each(rows[tenant_id])
                await store.set_retention(tenant_id, world.days)
                for business_id, ended in world.relationships.items():
                    await store.set_relationship(tenant_id, business_id, None if ended is None else days_ago(ended))
            dropped = await store.drop_past(TODAY, dry_run=dry_run)
            assert dropped == [Dropped(name, len(world.past())) for name, world in tenants.items() if world.past()]
            for tenant_id, world in tenants.items():
                gone = set() if dry_run else set(world.past())
                kept = [each for place, each in enumerate(rows[tenant_id]) if place not in gone]
                assert await left(store, rows[tenant_id]) == kept
                assert await store.page(tenant_id, limit=99) == sorted(kept, key=lambda each: each.id, reverse=True)
                await store.set_retention(tenant_id, None)

        try:
            check()
        finally:
            runner.run(store.close())


def test_the_first_id_of_a_day_parts_the_days() -> None:
    for day in (dt.date(1970, 1, 1), dt.date(2026, 7, 1), dt.date.max):
        first = first_id(day.toordinal())
        assert first < floor(ms(day))
        if ms(day):
            assert first > ceiling(ms(day) - 1)
    assert first_id(0) == first_id(-(10**6)) == bytes(6)


# What is left


def test_an_erased_business_leaves_results_and_a_note(backend: Backend) -> None:
    rows = [made_on(days_ago(9 - number), business_id="gone", at_ms=number) for number in range(3)]
    rows = [msgspec.structs.replace(each, record=b"owner Maria, score 23", level=2, score=700) for each in rows]
    others = [made_on(days_ago(3), business_id="kept"), made_on(days_ago(3)), made_on(days_ago(3), "other", "gone")]

    async def scenario(store: Records) -> None:
        await store.add_each(rows + others)
        await store.set_relationship("acme", "gone", None)
        await store.set_relationship("acme", "kept", None)
        erased = await store.erase("acme", "gone", reason="asked on 2026-06-30", redact=blank, now_ms=1_234)
        assert erased == Erased(3, [each.id for each in rows])
        for each in rows:
            expected = msgspec.structs.replace(
                each,
                business_id=None,
                input=None,
                input_sha256=sha256(each.input or b"").digest(),
                record=b"owner *****, score 23",
                leaf=leaf(each),
            )
            assert await store.get("acme", each.id) == expected
            assert expected in await store.page("acme", level=2, limit=9)
        assert await store.page("acme", business_id="gone", limit=9) == []
        assert await left(store, others) == others
        assert await store.page("other", business_id="gone", limit=9) == [others[2]]
        assert await store.relationships("acme") == [Relationship("kept", None)]
        note = Erasure(sha256(b"acme\0gone").digest(), 1_234, 3, "asked on 2026-06-30")
        assert note.business_sha256 == business_sha256("acme", "gone")
        assert await store.erasures("acme") == [note]
        assert await store.erasures("other") == []

    backend.run(scenario)


def test_a_business_is_erased_once(backend: Backend) -> None:
    later = row(business_id="gone")

    async def scenario(store: Records) -> None:
        await store.add_each([row(business_id="gone") for _ in range(5)])
        assert (await store.erase("acme", "gone", reason="asked", redact=blank, now_ms=1)).assessments == 5
        for business_id in ("gone", "nobody"):
            again = await store.erase("acme", business_id, reason="again", redact=blank, now_ms=2)
            assert again == Erased(0, [])
        assert [note.reason for note in await store.erasures("acme")] == ["asked"]
        # Whoever comes back can be erased again.
        await store.add([later])
        assert await store.erase("acme", "gone", reason="once more", redact=blank, now_ms=3) == Erased(1, [later.id])
        notes = [(note.erased_ms, note.assessments, note.reason) for note in await store.erasures("acme")]
        assert notes == [(1, 5, "asked"), (3, 1, "once more")]

    backend.run(scenario)


def test_a_relationship_alone_is_erased_too(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        await store.set_relationship("acme", "gone", days_ago(5))
        assert await store.erase("acme", "gone", reason="asked", redact=blank, now_ms=1) == Erased(0, [])
        assert await store.relationships("acme") == []
        assert [note.assessments for note in await store.erasures("acme")] == [0]

    backend.run(scenario)


def test_a_record_that_cannot_be_redacted_is_left_as_it_was(backend: Backend) -> None:
    rows = [row(business_id="gone", record=record) for record in (b"Maria", b"damaged")]

    def picky(record: bytes) -> bytes:
        if record == b"damaged":
            raise ValueError("not a record")
        return blank(record)

    async def scenario(store: Records) -> None:
        await store.add_each(rows)
        await store.set_relationship("acme", "gone", None)
        with pytest.raises(ValueError, match="not a record"):
            await store.erase("acme", "gone", reason="asked", redact=picky, now_ms=1)
        # Few enough for one transaction: nothing of it took place.
        assert await left(store, rows) == rows
        assert await store.relationships("acme") == [Relationship("gone", None)]
        assert await store.erasures("acme") == []

    backend.run(scenario)


def test_an_erased_assessment_counts_from_its_own_day(backend: Backend) -> None:
    old = made_on(days_ago(40), business_id="gone")

    async def scenario(store: Records) -> None:
        await store.add([old])
        await store.set_retention("acme", 30)
        await store.set_relationship("acme", "gone", None)
        assert await store.drop_past(TODAY) == []
        await store.erase("acme", "gone", reason="asked", redact=blank, now_ms=1)
        assert await store.drop_past(TODAY) == [Dropped("acme", 1)]
        assert [note.assessments for note in await store.erasures("acme")] == [1]

    backend.run(scenario)


def test_a_large_business_is_erased_while_others_are_recorded(backend: Backend) -> None:
    rows = [row(business_id="gone", record=b"Maria") for _ in range(3_000)]

    async def scenario(store: Records) -> None:
        await store.add_each(rows)
        erasing = asyncio.create_task(store.erase("acme", "gone", reason="asked", redact=blank, now_ms=1))
        busy: list[Row] = []
        while not erasing.done():
            busy.append(row("busy"))
            await store.add([busy[-1]])
        erased = await erasing
        assert erased.assessments == 3_000
        assert sorted(erased.ids) == sorted(each.id for each in rows)
        assert [note.assessments for note in await store.erasures("acme")] == [3_000]
        found = await store.page("acme", limit=5_000)
        assert {(each.input, each.business_id, each.record) for each in found} == {(None, None, b"*****")}
        assert len(found) == 3_000
        assert len(await store.page("busy", limit=10**5)) == len(busy)

    backend.run(scenario)


def test_a_closed_store_says_so(backend: Backend) -> None:
    async def scenario() -> None:
        store = backend.make()
        await store.open()
        await store.close()
        for late in (
            store.set_retention("acme", 1),
            store.retentions(),
            store.set_relationship("acme", "a", None),
            store.relationships("acme"),
            store.drop_past(TODAY),
            store.erase("acme", "a", reason="asked", redact=blank, now_ms=1),
            store.erasures("acme"),
        ):
            with pytest.raises(StoreUnavailable):
                await late

    asyncio.run(scenario())
