"""When a list changes: which recorded businesses are assessed anew, and that it goes on where it was ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screened import Lists, party, registered

from app import wire
from app.profiles import read_profile
from app.rescreening import Rescreened, Rescreener, changed
from app.store.base import Row
from core.entities import Entity, digest_of
from core.names import NameIndex

TENANT = "acme"
WIDGETS = party("w1", "Veridian Shadow Trading", identifiers=registered("HE 900417", "CY"))
HARMLESS = party("h1", "Quorblax Zentrumsgesellschaft")


def body(name: str, **business: Any) -> bytes:
    return json.dumps({"business": {"name": name, "jurisdiction": "DE", **business}}).encode()


async def assess(lists: Lists, sent: bytes, tenant_id: str = TENANT) -> bytes:
    reply = await lists.assembly.assessor.assess(
        tenant_id, read_profile(sent), sent, full=False, dry_run=False, keyed=None, actor="tests"
    )
    assert reply.id is not None
    return reply.id


def rescreener_of(lists: Lists, store: Any = None) -> Rescreener:
    return Rescreener(
        lists.store if store is None else store,
        lists.store,
        lists.assembly.assessor,
        threshold=lists.assembly.lists.loaded.threshold,
        actor="cli",
        tell=lambda *_: None,
    )


async def rescreen(lists: Lists, name: str = "mine", store: Any = None) -> Rescreened | None:
    [version] = [one for one in await lists.store.lists() if one.name == name]
    return await rescreener_of(lists, store).run(version)


async def rows(lists: Lists, tenant_id: str = TENANT) -> list[Row]:
    """Newest first."""
    return await lists.store.page(tenant_id, limit=200)


def status(row: Row) -> str:
    return str(msgspec.json.decode(msgspec.msgpack.decode(row.record)[3], type=wire.Screening).status)


def test_whom_a_new_entry_concerns_is_assessed_anew_and_nobody_else(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS)
        for name, id in (("Veridian Shadow Trading", "b1"), ("Harmless Bakery", "b2")):
            await assess(lists, body(name, id=id))
        await assess(lists, body("Veridian Shadow Trading", id="b1"), "other-tenant")
        first = await rescreen(lists)
        assert first is not None
        assert (first.change.new, first.recorded) == (1, 0)
        await lists.put("mine", HARMLESS, WIDGETS)
        done = await rescreen(lists)
        assert done is not None
        assert (done.change.new, done.change.changed, done.change.removed) == (1, 0, 0)
        assert (done.businesses, done.recorded) == (3, 2)
        newest, *others = await rows(lists)
        assert (newest.business_id, status(newest), len(others)) == ("b1", "potential", 2)
        assert status((await rows(lists, "other-tenant"))[0]) == "potential"
        assert await rescreen(lists) is None
        assert len(await rows(lists)) == 3

    Lists(tmp_path).run(work)


def test_a_removed_and_a_changed_entry_concern_whom_they_matched(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS, WIDGETS)
        await assess(lists, body("Veridian Shadow Trading", id="b1"))
        await rescreen(lists)
        await lists.put("mine", HARMLESS, msgspec.structs.replace(WIDGETS, countries=("CY",)))
        changed_entry = await rescreen(lists)
        assert changed_entry is not None
        assert (changed_entry.change.changed, changed_entry.recorded) == (1, 1)
        await lists.put("mine", HARMLESS)
        removed = await rescreen(lists)
        assert removed is not None
        assert (removed.change.removed, removed.recorded) == (1, 1)
        assert [status(row) for row in await rows(lists)] == ["not_screened", "potential", "potential"]

    Lists(tmp_path).run(work)


def test_a_business_counts_by_its_latest_assessment(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS)
        await assess(lists, body("Veridian Shadow Trading", id="b1"))
        await assess(lists, body("Renamed Since", id="b1"))
        await assess(lists, body("Veridian Shadow Trading", registration_number="HRB 7"))
        await assess(lists, body("Renamed Too", registration_number="hrb7"))
        await assess(lists, body("Veridian Shadow Trading"))
        await rescreen(lists)
        await lists.put("mine", HARMLESS, WIDGETS)
        done = await rescreen(lists)
        assert done is not None
        assert (done.businesses, done.left_out, done.recorded) == (2, 1, 0)

    Lists(tmp_path).run(work)


def test_who_was_assessed_with_the_new_list_is_not_assessed_again(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS)
        await rescreen(lists)
        await lists.put("mine", HARMLESS, WIDGETS)
        await assess(lists, body("Veridian Shadow Trading", id="b1"))
        done = await rescreen(lists)
        assert done is not None
        assert (done.businesses, done.recorded) == (1, 0)

    Lists(tmp_path).run(work)


def test_a_removed_list_concerns_whose_screening_names_it(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS, WIDGETS)
        await lists.put("other", HARMLESS)
        for name, id in (("Veridian Shadow Trading", "b1"), ("Harmless Bakery", "b2")):
            await assess(lists, body(name, id=id))
        await rescreen(lists)
        await lists.drop("mine")
        rescreener = rescreener_of(lists)
        done = await rescreener.run_removed("mine")
        assert (done.businesses, done.recorded) == (2, 1)
        newest, *_ = await rows(lists)
        assert (newest.business_id, status(newest)) == ("b1", "not_screened")
        again = await rescreener_of(lists).run_removed("mine")
        assert (again.businesses, again.recorded) == (2, 0)
        # Back in force, it is compared from the beginning.
        await lists.put("mine", HARMLESS, WIDGETS)
        back = await rescreen(lists)
        assert back is not None
        assert (back.change.new, back.recorded) == (2, 1)

    Lists(tmp_path).run(work)


class Ending:
    """A store that is gone after so many pages."""

    def __init__(self, store: Any, pages: int) -> None:
        self._store = store
        self._left = pages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def page(self, *given: Any, **named: Any) -> Any:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return await self._store.page(*given, **named)


def test_ended_on_the_way_it_goes_on_and_records_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.rescreening.PAGE_ROWS", 3)

    async def work(lists: Lists) -> None:
        await lists.put("mine", HARMLESS)
        for number in range(10):
            await assess(lists, body("Veridian Shadow Trading", id=f"b{number}"))
        # An older assessment of a business whose newest one is in a page that is done before the end.
        await rescreen(lists)
        await lists.put("mine", HARMLESS, WIDGETS)
        with pytest.raises(KeyboardInterrupt):
            await rescreen(lists, store=Ending(lists.store, 2))
        before = len(await rows(lists))
        assert 10 < before < 20
        done = await rescreen(lists)
        assert done is not None
        found = await rows(lists)
        assert len(found) == 20
        assert sorted(row.business_id or "" for row in found if status(row) == "potential") == sorted(
            f"b{number}" for number in range(10)
        )
        assert await rescreen(lists) is None

    Lists(tmp_path).run(work)


def test_what_was_set_aside_stays_set_aside(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        from app.dispositions import Namesakes
        from app.ids import Uuid7, text

        await lists.put("mine", HARMLESS, WIDGETS)
        id = await assess(lists, body("Veridian Shadow Trading", id="b1"))
        namesakes = Namesakes(lists.assembly.records, lists.store, lists.assembly.dispositions, Uuid7())
        await namesakes.set_aside(TENANT, wire.DispositionRequest(text(id), "mine", "w1", "another one"), "tests")
        await assess(lists, body("Veridian Shadow Trading", id="b1"))
        await rescreen(lists)
        await lists.put("mine", HARMLESS, WIDGETS, party("x1", "Somebody Else Entirely"))
        done = await rescreen(lists)
        assert done is not None
        assert done.recorded == 0

    Lists(tmp_path).run(work)


NAMES = st.sampled_from(["Veridian Shadow", "Quorblax Zentrum", "Nordwind Maschinen", "Sonnenhof Handel"])
ENTITIES = st.dictionaries(st.sampled_from("abcdef"), NAMES, min_size=1).map(
    lambda told: [party(id, name) for id, name in told.items()]
)


@settings(max_examples=100, deadline=None)
@given(ENTITIES, ENTITIES)
def test_what_differs_is_what_a_comparison_of_dictionaries_says(old: list[Entity], new: list[Entity]) -> None:
    before, after = {one.id: one for one in old}, {one.id: one for one in new}
    change = changed(NameIndex(NameIndex.build(old)), NameIndex(NameIndex.build(new)))
    assert change.new == len(after.keys() - before.keys())
    assert change.removed == len(before.keys() - after.keys())
    both = before.keys() & after.keys()
    assert change.changed == sum(digest_of(before[id]) != digest_of(after[id]) for id in both)
    assert (change.entries is None) == (before == after)
