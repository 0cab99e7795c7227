"""What is done in passing is entered in the trail: soon, equal acts once, and after the store was away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from audited import FOREVER_S, SOON_S
from cached import until
from memorytrail import MemoryTrail

from app.audit.notes import DROPPED, MOST_A_ROOM, MOST_OF_NO_TENANT, Notes
from app.store.base import StoreUnavailable
from app.store.trail import SYSTEM_TENANT, Act, act

refused = act(SYSTEM_TENANT, "login.refused", "", reason="unknown", address="192.0.2.7")


def names(trail: MemoryTrail) -> list[str]:
    return [entry.act for entry in trail.shelf.entries]


def test_acts_of_one_window_are_entered_together_and_equal_ones_once() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, FOREVER_S)
        for _ in range(7):
            notes.note(refused)
        notes.note(act("acme", "role.refused", "key-a", permission="keys"))
        notes.note(act("acme", "role.refused", "key-b", permission="keys"))
        assert trail.calls == 0
        await notes.stop()
        assert trail.calls == 1
        assert trail.told() == [
            (SYSTEM_TENANT, "login.refused", {"address": "192.0.2.7", "reason": "unknown", "times": 7}),
            ("acme", "role.refused", {"permission": "keys"}),
            ("acme", "role.refused", {"permission": "keys"}),
        ]

    asyncio.run(scenario())


def test_acts_are_entered_soon_and_again_after_a_pause() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, SOON_S)
        for times in (1, 2):
            notes.note(refused)
            await until(lambda times=times: len(trail.shelf.entries) == times)
        await notes.stop()
        assert names(trail) == ["login.refused"] * 2

    asyncio.run(scenario())


def test_a_flood_of_different_acts_is_one_number() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, FOREVER_S)
        for number in range(MOST_OF_NO_TENANT + 500):
            notes.note(act(SYSTEM_TENANT, "login.refused", "", address=f"2001:db8::{number:x}"))
        # Those that have their place count on.
        notes.note(act(SYSTEM_TENANT, "login.refused", "", address="2001:db8::0"))
        await notes.stop()
        told = trail.told()
        assert len(told) == MOST_OF_NO_TENANT + 1
        assert told[0] == (SYSTEM_TENANT, "login.refused", {"address": "2001:db8::0", "times": 2})
        assert told[-1] == (SYSTEM_TENANT, DROPPED, {"of": "login.refused", "dropped": 500})
        assert notes.dropped == 500

    asyncio.run(scenario())


def test_a_sample_makes_no_other_act() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, FOREVER_S)
        for number in range(300):
            notes.note(act("acme", "role.refused", "key", route="/v1/keys/{id}"), {"path": f"/v1/keys/{number}"})
        notes.note(act("acme", "role.refused", "key", route="/v1/keys"), {"path": None})
        await notes.stop()
        assert trail.told() == [
            ("acme", "role.refused", {"path": "/v1/keys/0", "route": "/v1/keys/{id}", "times": 300}),
            ("acme", "role.refused", {"route": "/v1/keys"}),
        ]

    asyncio.run(scenario())


def test_the_flood_of_one_costs_no_other_an_entry_and_keeps_nobody_waiting() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, SOON_S)
        for number in range(5 * MOST_A_ROOM):
            notes.note(act("loud", "role.refused", "key", number=number))
            notes.note(act(SYSTEM_TENANT, "login.refused", "", network="192.0.2.7"))
        await until(lambda: len(trail.shelf.entries) == MOST_A_ROOM + 2)
        assert ("loud", DROPPED, {"of": "role.refused", "dropped": 4 * MOST_A_ROOM}) in trail.told()
        assert (SYSTEM_TENANT, "login.refused", {"network": "192.0.2.7", "times": 5 * MOST_A_ROOM}) in trail.told()
        # The room that was full waits, and the others do not.
        room = notes._rooms["loud", "role.refused"]  # type: ignore[index]
        assert room.window_s == 2 * SOON_S
        room.due += FOREVER_S
        notes.note(act("loud", "role.refused", "key", number=0))
        others = [act("loud", "login.refused", "", key="k"), act("quiet", "role.refused", "key"), refused]
        for number, other in enumerate(others, 1):
            notes.note(other)
            await until(lambda number=number: len(trail.shelf.entries) == MOST_A_ROOM + 2 + number)
        assert [act for _, act, _ in trail.told()[-3:]] == [other.name for other in others]
        await notes.stop()
        assert trail.told()[-1] == ("loud", "role.refused", {"number": 0})

    asyncio.run(scenario())


def test_while_a_flood_lasts_its_acts_are_collected_for_longer() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, SOON_S, most=2)
        for factor in (1, 2, 4):
            assert notes.window_s("acme", "role.refused") == factor * SOON_S
            entered = len(trail.shelf.entries)
            for number in range(3):
                notes.note(act("acme", "role.refused", "key", number=number))
            await until(lambda entered=entered: len(trail.shelf.entries) == entered + 3)
        # Once nothing came for as long, the room is given up.
        await until(lambda: notes._rooms == {})
        assert notes.window_s("acme", "role.refused") == SOON_S
        await notes.stop()

    asyncio.run(scenario())


def test_there_are_only_so_many_rooms() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        trail.is_away = True
        notes = Notes(trail, SOON_S, rooms=2, stop_s=FOREVER_S)
        for tenant_id in ("a", "b", "c", "b"):
            notes.note(act(tenant_id, "role.refused", "key"))
        await until(lambda: trail.calls >= 2)
        trail.is_away = False
        await notes.stop()
        assert trail.told() == [
            ("a", "role.refused", {}),
            ("b", "role.refused", {"times": 2}),
            (SYSTEM_TENANT, DROPPED, {"of": "role.refused", "dropped": 1}),
        ]

    asyncio.run(scenario())


def test_while_the_store_is_away_acts_are_kept_and_entered_when_it_is_back() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        trail.is_away = True
        notes = Notes(trail, SOON_S, most=3)
        notes.note(refused)
        await until(lambda: trail.calls >= 2)
        notes.note(refused)
        for number in range(5):
            notes.note(act("acme", "role.refused", "key", number=number))
        tried = trail.calls
        await until(lambda: trail.calls > tried)
        assert trail.shelf.entries == []
        trail.is_away = False
        await until(lambda: len(trail.shelf.entries) == 5)
        await notes.stop()
        assert trail.told() == [
            (SYSTEM_TENANT, "login.refused", {"address": "192.0.2.7", "reason": "unknown", "times": 2}),
            ("acme", "role.refused", {"number": 0}),
            ("acme", "role.refused", {"number": 1}),
            ("acme", "role.refused", {"number": 2}),
            ("acme", DROPPED, {"of": "role.refused", "dropped": 2}),
        ]

    asyncio.run(scenario())


def test_acts_noted_while_others_fail_to_be_entered_join_them() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, SOON_S, most=2)
        enter, failures = trail.note, 1

        async def fail_once(acts: Sequence[Act]) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                notes.note(refused)
                for number in range(3):
                    notes.note(act("acme", "role.refused", "key", number=number))
                raise StoreUnavailable("the trail is away")
            await enter(acts)

        trail.note = fail_once  # type: ignore[method-assign]
        notes.note(refused)
        await until(lambda: len(trail.shelf.entries) == 4)
        await notes.stop()
        assert trail.told() == [
            (SYSTEM_TENANT, "login.refused", {"address": "192.0.2.7", "reason": "unknown", "times": 2}),
            ("acme", "role.refused", {"number": 0}),
            ("acme", "role.refused", {"number": 1}),
            ("acme", DROPPED, {"of": "role.refused", "dropped": 1}),
        ]

    asyncio.run(scenario())


def test_a_stop_while_the_store_is_away_ends_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        trail.is_away = True
        notes = Notes(trail, SOON_S, stop_s=0.0)
        notes.note(refused)
        await notes.stop()
        assert trail.shelf.entries == []

    asyncio.run(scenario())
    assert "1 acts could not be entered" in caplog.text


def test_a_store_that_comes_back_in_time_has_what_was_noted_before_the_stop() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        trail.is_away = True
        notes = Notes(trail, SOON_S, stop_s=FOREVER_S)
        notes.note(refused)
        stopping = asyncio.create_task(notes.stop())
        await until(lambda: trail.calls >= 3)
        trail.is_away = False
        await stopping
        assert names(trail) == ["login.refused"]

    asyncio.run(scenario())


def test_an_act_that_the_store_refuses_keeps_no_other_out(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        trail.refused = {"odd\n"}
        notes = Notes(trail, FOREVER_S)
        for name in ("first", "odd\n", "last"):
            notes.note(act("acme", name, "key"))
        await notes.stop()
        assert names(trail) == ["first", "last"]
        assert notes.dropped == 1

    asyncio.run(scenario())
    assert "the act 'odd\\n' cannot be entered" in caplog.text
