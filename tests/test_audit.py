"""What is done in passing is entered in the trail, put under signed checkpoints, anchored elsewhere, and exported."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from cached import until
from hypothesis import given
from hypothesis import strategies as st
from memorytrail import MemoryTrail, Shelf

from app import ids
from app.audit import anchors
from app.audit.anchors import Anchor, AnchorTorn, AnchorUnreadable, FileAnchor, log_anchor
from app.audit.checkpoints import ADOPT_EVERY_MS, ADOPTED_MS, Checkpoints, checkpoint_hash, signature
from app.audit.export import COLUMNS, ENTRIES_A_PAGE, Format, export, safe_cell
from app.audit.lines import line
from app.audit.notes import DROPPED, MOST_A_WINDOW, Notes
from app.audit.verification import verify
from app.store.base import StoreUnavailable
from app.store.chain import GENESIS
from app.store.trail import SYSTEM_TENANT, Act, Checkpoint, Head, act

KEY = b"k" * 32
FOREVER_S = 3600.0
SOON_S = 0.001

refused = act(SYSTEM_TENANT, "login.refused", "", reason="unknown", address="192.0.2.7")


def nothing(checkpoint: Checkpoint) -> None:
    """An anchor that keeps nothing."""


def names(trail: MemoryTrail) -> list[str]:
    return [entry.act for entry in trail.shelf.entries]


async def noted(trail: MemoryTrail, tenant_id: str, times: int = 1) -> None:
    """Acts entered, each in a transaction of its own."""
    for number in range(times):
        await trail.note([act(tenant_id, "key.created", "cli", id=number)])


# Notes


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
        for number in range(MOST_A_WINDOW + 500):
            notes.note(act(SYSTEM_TENANT, "login.refused", "", address=f"2001:db8::{number:x}"))
        # Those that have their place count on.
        notes.note(act(SYSTEM_TENANT, "login.refused", "", address="2001:db8::0"))
        await notes.stop()
        told = trail.told()
        assert len(told) == MOST_A_WINDOW + 1
        assert told[0] == (SYSTEM_TENANT, "login.refused", {"address": "2001:db8::0", "times": 2})
        assert told[-1] == (SYSTEM_TENANT, DROPPED, {"dropped": 500})
        assert notes.dropped == 500

    asyncio.run(scenario())


def test_while_the_flood_lasts_acts_are_collected_for_longer() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        notes = Notes(trail, SOON_S, most=2)
        for number in range(3):
            notes.note(act("acme", "role.refused", "key", number=number))
        await until(lambda: len(trail.shelf.entries) == 3)
        assert notes.window_s == 2 * SOON_S
        notes.note(refused)
        await until(lambda: len(trail.shelf.entries) == 4)
        assert notes.window_s == SOON_S
        await notes.stop()

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
        await until(lambda: len(trail.shelf.entries) == 4)
        await notes.stop()
        assert trail.told() == [
            (SYSTEM_TENANT, "login.refused", {"address": "192.0.2.7", "reason": "unknown", "times": 2}),
            ("acme", "role.refused", {"number": 0}),
            ("acme", "role.refused", {"number": 1}),
            (SYSTEM_TENANT, DROPPED, {"dropped": 3}),
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
        await until(lambda: len(trail.shelf.entries) == 3)
        await notes.stop()
        assert trail.told() == [
            (SYSTEM_TENANT, "login.refused", {"address": "192.0.2.7", "reason": "unknown", "times": 2}),
            ("acme", "role.refused", {"number": 0}),
            (SYSTEM_TENANT, DROPPED, {"dropped": 2}),
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


# Checkpoints


def test_a_checkpoint_covers_what_moved_since_the_one_before() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        seen: list[Checkpoint] = []
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, seen.append, clock=lambda: 1_700_000_000_000)
        await noted(trail, "acme", 3)
        await noted(trail, "zeta", 2)
        assert await checkpoints.cover()
        assert await checkpoints.cover()
        await noted(trail, "acme", 4)
        assert await checkpoints.cover()
        assert seen == trail.shelf.checkpoints
        assert [(one.tenant_id, one.number, one.entries) for one in seen] == [
            ("acme", 1, 3),
            ("zeta", 1, 2),
            ("acme", 2, 7),
        ]
        first, _, second = seen
        assert (first.previous, second.previous) == (GENESIS, first.hash)
        assert second.heads == trail.shelf.checkpoints[2].heads
        assert [head.number for head in second.heads] == [7]
        assert second.hash == checkpoint_hash("acme", 2, 1_700_000_000_000, 7, second.heads, first.hash)
        assert second.mac == signature(KEY, second.hash)
        assert (await verify(trail, KEY, None)).intact

    asyncio.run(scenario())


def test_every_fact_of_a_checkpoint_changes_its_hash() -> None:
    facts = ("acme", 1, 2, 3, (), GENESIS)
    others = ("acmf", 2, 3, 4, [Head(b"s" * 16, 1, b"h" * 32)], b"\1" * 32)
    changed = [checkpoint_hash(*facts[:n], other, *facts[n + 1 :]) for n, other in enumerate(others)]
    assert len({checkpoint_hash(*facts), *changed}) == 7


def test_a_number_taken_by_another_process_is_tried_again_from_the_last_one() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        mine, theirs = MemoryTrail(shelf), MemoryTrail(shelf)
        ours = Checkpoints(mine, KEY, FOREVER_S, nothing, random=lambda: 0.0)
        others = Checkpoints(theirs, KEY, FOREVER_S, nothing)
        add, races = mine.add_checkpoint, 3

        async def late(checkpoint: Checkpoint) -> bool:
            nonlocal races
            if races:
                races -= 1
                await noted(theirs, "acme")
                assert await others.cover()
            return await add(checkpoint)

        mine.add_checkpoint = late  # type: ignore[method-assign]
        assert await others.cover()
        await noted(mine, "acme", 5)
        assert await ours.cover()
        assert [one.entries for one in shelf.checkpoints] == [1, 2, 3, 8]
        report = await verify(mine, KEY, None)
        assert (report.intact, report.trails[0].after) == (True, 0)

    asyncio.run(scenario())


def test_what_could_not_be_covered_waits_for_the_next_round() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing, random=lambda: 0.0)
        add = trail.add_checkpoint

        async def taken(checkpoint: Checkpoint) -> bool:
            return False

        await noted(trail, "acme", 2)
        trail.add_checkpoint = taken  # type: ignore[method-assign]
        assert not await checkpoints.cover()
        trail.add_checkpoint = add  # type: ignore[method-assign]
        await noted(trail, "zeta")
        assert await checkpoints.cover()
        assert [(one.tenant_id, one.entries) for one in trail.shelf.checkpoints] == [("acme", 2), ("zeta", 1)]

    asyncio.run(scenario())


def test_while_the_store_is_away_heads_wait_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        await noted(trail, "acme", 2)
        trail.is_away = True
        for _ in range(3):
            assert not await checkpoints.cover()
        trail.is_away = False
        assert await checkpoints.cover()
        assert [one.entries for one in trail.shelf.checkpoints] == [2]

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert caplog.text.count("waits for its checkpoint") == 1
    assert caplog.text.count("takes checkpoints again") == 1


def test_the_task_covers_what_moves_and_a_stop_covers_the_rest() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, SOON_S, nothing)
        checkpoints.start()
        for entries in (1, 2):
            await noted(trail, "acme")
            await until(lambda entries=entries: checkpoints.made >= entries)
        await noted(trail, "acme", 3)
        await checkpoints.stop()
        assert trail.shelf.checkpoints[-1].entries == 5

        idle = Checkpoints(trail, KEY, FOREVER_S, nothing)
        idle.start()
        await asyncio.sleep(0)
        await noted(trail, "acme")
        await idle.stop()
        assert trail.shelf.checkpoints[-1].entries == 6

    asyncio.run(scenario())


def test_what_a_killed_process_left_is_adopted_at_the_start_and_from_time_to_time() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        killed = MemoryTrail(shelf)
        await noted(killed, "acme", 3)
        await noted(killed, SYSTEM_TENANT)
        now_ms = ids.now_ms()
        checkpoints = Checkpoints(MemoryTrail(shelf), KEY, FOREVER_S, nothing, clock=lambda: now_ms)
        assert await checkpoints.cover()
        assert {one.tenant_id: one.entries for one in shelf.checkpoints} == {SYSTEM_TENANT: 1, "acme": 3}

        await noted(killed, "acme")
        assert await checkpoints.cover()
        assert len(shelf.checkpoints) == 2
        now_ms += ADOPT_EVERY_MS
        assert await checkpoints.cover()
        assert shelf.checkpoints[-1].entries == 4

        # What began longer ago is no more of a process that was killed just now.
        await noted(killed, "acme")
        now_ms += ADOPTED_MS
        assert await checkpoints.cover()
        assert len(shelf.checkpoints) == 3

    asyncio.run(scenario())


def test_an_anchor_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def full(checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, full)
        for _ in range(2):
            await noted(trail, "acme")
            assert await checkpoints.cover()
        assert len(trail.shelf.checkpoints) == 2

    asyncio.run(scenario())
    assert "could not be anchored: [Errno 28]" in caplog.text


def test_an_anchor_is_told_outside_of_the_event_loop() -> None:
    threads: list[threading.Thread] = []

    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, lambda _: threads.append(threading.current_thread()))
        await noted(trail, "acme")
        assert await checkpoints.cover()

    asyncio.run(scenario())
    assert threads
    assert threading.main_thread() not in threads


def test_a_checkpoint_that_is_gone_is_noticed_by_who_saw_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        for _ in range(3):
            await noted(trail, "ac\nme")
            assert await checkpoints.cover()
        assert "is gone" not in caplog.text
        del trail.shelf.checkpoints[-1]
        await noted(trail, "ac\nme")
        assert await checkpoints.cover()

    asyncio.run(scenario())
    assert 'a checkpoint is gone {"tenant":"ac\\nme","number":3' in caplog.text


def test_one_tenant_whose_checkpoints_cannot_be_read_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        last = trail.last_checkpoint

        async def broken(tenant_id: str) -> Checkpoint | None:
            if tenant_id == "acme":
                raise msgspec.DecodeError("not heads")
            return await last(tenant_id)

        trail.last_checkpoint = broken  # type: ignore[method-assign]
        checkpoints = Checkpoints(trail, KEY, FOREVER_S, nothing)
        for _ in range(2):
            await noted(trail, "acme")
            await noted(trail, "zeta")
            assert not await checkpoints.cover()
        assert [(one.tenant_id, one.entries) for one in trail.shelf.checkpoints] == [("zeta", 1), ("zeta", 2)]

    asyncio.run(scenario())
    assert caplog.text.count("no checkpoint can be made") == 1


# Anchors


def made(number: int, *, tenant_id: str = "acme", trail: str = "first") -> Checkpoint:
    """A checkpoint of one of two trails that differ from their beginning."""

    def digest(of: int) -> bytes:
        return f"{trail} {of}".encode().ljust(32)

    return Checkpoint(tenant_id, number, 0, number, (), digest(number - 1), digest(number), bytes(32))


def test_a_checkpoint_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_anchor(made(3, tenant_id="a\x85\nb\u2028\x7f"))
    [record] = caplog.records
    assert record.getMessage() == (
        'audit checkpoint {"tenant":"a\\u0085\\nb\\u2028\\u007f","number":3,"hash":"' + made(3).hash.hex() + '"}'
    )


def test_the_file_keeps_the_newest_checkpoint_of_each_tenant_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / anchors.FILE
    anchor = FileAnchor(path)
    assert anchor.anchors() == []
    anchor.make_folder()
    for checkpoint in (made(1), made(2), made(1), made(7, tenant_id=""), made(2)):
        anchor(checkpoint)
    assert anchor.anchors() == [Anchor("", 7, made(7).hash), Anchor("acme", 2, made(2).hash)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [anchors.FILE]
    assert anchors.read(path.read_bytes(), "it") == anchor.anchors()


def test_a_folder_that_vanishes_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / anchors.FILE
    anchor = FileAnchor(path)
    anchor.make_folder()
    anchor(made(1))
    path.parent.rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError):
        anchor(made(2))
    (tmp_path / "kept").rename(path.parent)
    anchor(made(3))
    assert anchor.anchors() == [Anchor("acme", 3, made(3).hash)]


def test_who_writes_the_file_at_the_same_time_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / anchors.FILE
    reached, released = threading.Event(), threading.Event()

    class Slow(FileAnchor):
        def _replace(self, text: bytes) -> None:
            reached.set()
            released.wait()
            super()._replace(text)

    slow = threading.Thread(target=Slow(path), args=(made(1, tenant_id="a"),))
    slow.start()
    reached.wait()
    other = threading.Thread(target=FileAnchor(path), args=(made(1, tenant_id="b"),))
    other.start()
    # Without a lock it would be done by now.
    other.join(0.2)
    released.set()
    slow.join()
    other.join()
    assert [one.tenant_id for one in FileAnchor(path).anchors()] == ["a", "b"]


@pytest.mark.parametrize("number", [5, 6])
def test_a_checkpoint_of_another_trail_leaves_the_anchor_in_its_place_for_good(tmp_path: Path, number: int) -> None:
    anchor = FileAnchor(tmp_path / anchors.FILE)
    anchor(made(5))
    anchor(made(4, trail="second"))
    with pytest.raises(AnchorTorn, match="cut or rewritten"):
        anchor(made(number, trail="second"))
    for later in range(number, 20):
        anchor(made(later, trail="second"))
    assert anchor.anchors() == [Anchor("acme", 5, made(5).hash)]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"acme": 3}', b'{"acme": {"number": 1, "hash": "00"}}', b'{"acme": {"number": 0, "hash": ""}}'],
)
def test_a_file_that_holds_no_checkpoints_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / anchors.FILE
    path.write_bytes(text)
    with pytest.raises(AnchorUnreadable, match=anchors.FILE):
        FileAnchor(path).anchors()
    with pytest.raises(AnchorUnreadable):
        FileAnchor(path)(made(1))
    assert path.read_bytes() == text


# Export


def exported(trail: MemoryTrail, form: Format, *tenants: str, **times: int) -> str:
    async def read() -> bytes:
        return b"".join([piece async for piece in export(trail, tenants, form, **times)])

    return asyncio.run(read()).decode("utf-8")


def test_an_export_holds_every_entry_newest_first_trail_by_trail() -> None:
    trail = MemoryTrail()
    many = 2 * ENTRIES_A_PAGE + 1
    asyncio.run(noted(trail, "acme", many))
    asyncio.run(noted(trail, "zeta", 2))
    documents = [json.loads(each) for each in exported(trail, "jsonl", "acme", "zeta").splitlines()]
    assert [(one["tenant_id"], one["number"]) for one in documents] == [
        *[("acme", number) for number in range(many, 0, -1)],
        ("zeta", 2),
        ("zeta", 1),
    ]
    last = trail.shelf.entries[-1]
    assert documents[-2] == {
        "tenant_id": "zeta",
        "at": documents[-2]["at"],
        "act": "key.created",
        "actor": "cli",
        "detail": {"id": 1},
        "subjects": [],
        "segment": ids.text(last.segment),
        "number": 2,
        "previous": last.previous.hex(),
        "hash": last.hash.hex(),
    }
    assert documents[-2]["at"].endswith("Z")
    rows = list(csv.DictReader(io.StringIO(exported(trail, "csv", "acme", "zeta"), newline="")))
    assert [
        {**row, "number": int(row["number"]), "detail": json.loads(row["detail"]), "subjects": []} for row in rows
    ] == (documents)


def test_an_export_can_be_of_some_time() -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme", 3))
    for number, entry in enumerate(trail.shelf.entries):
        trail.shelf.entries[number] = msgspec.structs.replace(entry, at_ms=1000 * number)
    text = exported(trail, "jsonl", "acme", since_ms=1000, before_ms=2000)
    assert [json.loads(each)["at"] for each in text.splitlines()] == ["1970-01-01T00:00:01.000Z"]
    assert exported(trail, "jsonl", "nobody") == ""
    assert exported(trail, "csv", "nobody") == ",".join(COLUMNS) + "\r\n"


HOSTILE = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("=+-@\t\r\n\0\x7f\x85\u2028\x1b'\""))


@given(HOSTILE, HOSTILE, HOSTILE)
def test_whatever_is_in_an_entry_it_is_one_line_of_json(tenant_id: str, actor: str, fact: str) -> None:
    trail = MemoryTrail()
    asyncio.run(trail.note([act(tenant_id, "role.refused", actor, (b"s" * 16,), fact=fact)]))
    text = exported(trail, "jsonl", tenant_id)
    assert text.endswith("\n")
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    document = json.loads(text)
    assert (document["tenant_id"], document["actor"], document["detail"]["fact"]) == (tenant_id, actor, fact)
    assert document["subjects"] == [ids.text(b"s" * 16)]


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_cell_of_a_csv_begins_a_formula(tenant_id: str, actor: str, fact: str) -> None:
    trail = MemoryTrail()
    asyncio.run(trail.note([act(tenant_id, "role.refused", actor, fact=fact)]))
    header, row = csv.reader(io.StringIO(exported(trail, "csv", tenant_id), newline=""))
    assert header == list(COLUMNS)
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    told = dict(zip(header, row, strict=True))
    assert told["actor"] in (actor, f"'{actor}")
    assert json.loads(told["detail"]) == {"fact": fact}


def test_only_what_could_begin_a_formula_is_quoted() -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "acme", "a=1", "", "'", " ="]
    assert [safe_cell(cell) for cell in cells] == [f"'{cell}" for cell in cells[:6]] + cells[6:]


def test_a_detail_that_is_no_json_any_more_is_exported_as_its_text() -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme"))
    trail.shelf.entries[0] = msgspec.structs.replace(trail.shelf.entries[0], detail=b'{"a": \xff\n')
    assert json.loads(exported(trail, "jsonl", "acme"))["detail"] == '{"a": \\xff\n'
    assert '"{""a"": \\xff' in exported(trail, "csv", "acme")


@pytest.mark.parametrize("at_ms", [2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_ends_no_export(at_ms: int) -> None:
    trail = MemoryTrail()
    asyncio.run(noted(trail, "acme", 2))
    trail.shelf.entries[0] = msgspec.structs.replace(trail.shelf.entries[0], at_ms=at_ms)
    assert len(exported(trail, "jsonl", "acme").splitlines()) == 2


def test_a_line_is_plain_ascii() -> None:
    assert line({"a": "\x7f\n\x1b\u2028ä"}) == '{"a":"\\u007f\\n\\u001b\\u2028\\u00e4"}'
