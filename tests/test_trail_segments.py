"""Segments of the trail, by themselves: entries follow each other, and a doubt begins another segment."""

from __future__ import annotations

import threading
from itertools import pairwise

import msgspec
from records import row
from trails import FIRST_MS

from app.ids import time_ms
from app.store.chain import GENESIS, entry_hash, leaf, merkle_root
from app.store.segments import LONGEST_MS, Segments, recorded
from app.store.trail import RECORDED, Act, Head, act


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
