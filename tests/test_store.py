"""Every store keeps its promises."""

from __future__ import annotations

import asyncio
import json
import random
import signal

import msgspec
import pytest
from records import BACKENDS, OTHER_FINGERPRINT, Backend, Records, ids, receipt, row

from app.ids import Uuid7, ceiling, floor, text, time_ms
from app.store.base import KeyReused, Row, RowRefused, StoredModel, StoreUnavailable


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


def test_a_row_is_read_back_as_it_was_added(backend: Backend) -> None:
    full, bare = row(), row(business_id=None, input=b"", record=b"")

    async def add(store: Records) -> None:
        assert await store.add([full]) is None
        assert await store.add([bare]) is None
        assert await store.get("acme", full.id) == full

    async def read(store: Records) -> None:
        assert await store.get("acme", full.id) == full
        assert await store.get("acme", bare.id) == bare
        assert await store.get("acme", ids.new()) is None

    backend.run(add)
    backend.run(read)


def test_rows_are_read_by_their_ids_in_order(backend: Backend) -> None:
    rows = [row() for _ in range(700)]
    elsewhere = row("other")
    wanted = [rows[9].id, ids.new(), elsewhere.id, rows[0].id, rows[9].id, *(each.id for each in rows)]

    async def scenario(store: Records) -> None:
        await store.add_each([*rows, elsewhere])
        assert await store.get_each("acme", wanted) == [rows[9], None, None, rows[0], rows[9], *rows]
        assert await store.get_each("acme", []) == []
        assert await store.get_each("nobody", [rows[0].id]) == [None]

    backend.run(scenario)


def test_nothing_crosses_tenants(backend: Backend) -> None:
    mine = row("acme")

    async def scenario(store: Records) -> None:
        await store.add([mine], receipt("k", mine))
        assert await store.get("other", mine.id) is None
        assert await store.get_each("other", [mine.id]) == [None]
        for filters in ({}, {"business_id": "cust-1"}, {"level": 1}, {"decision": 1}, {"level": 1, "decision": 1}):
            assert await store.page("other", limit=9, **filters) == []
            assert await store.page("acme", limit=9, **filters) == [mine]
        theirs = row("other")
        assert await store.add([theirs], receipt("k", theirs, fingerprint=OTHER_FINGERPRINT)) is None
        # Even the same id may stand once in each tenant.
        assert await store.add([row("other", id=mine.id)]) is None

    backend.run(scenario)


def test_a_key_used_again_answers_the_first_receipt(backend: Backend) -> None:
    first, again, other = row(), row(), row()
    kept = receipt("k", first, explain=1, renderer=7, request_id="of the first", as_of=739_123)

    async def scenario(store: Records) -> None:
        assert await store.add([first], kept) is None
        assert await store.add([again], receipt("k", again)) == kept
        with pytest.raises(KeyReused) as reused:
            await store.add([other], receipt("k", other, fingerprint=OTHER_FINGERPRINT))
        assert reused.value.key == "k"
        assert await store.page("acme", limit=9) == [first]

    async def reopened(store: Records) -> None:
        assert await store.add([again], receipt("k", again)) == kept

    backend.run(scenario)
    backend.run(reopened)


def test_rows_are_recorded_with_their_receipt(backend: Backend) -> None:
    rows = [row() for _ in range(1_000)]
    kept = receipt("k", rows[0], None, *rows[1:], None, status=200)
    nothing = receipt("l", None, None, status=200)

    async def scenario(store: Records) -> None:
        assert await store.add(rows, kept) is None
        assert await store.page("acme", limit=2_000) == rows[::-1]
        assert await store.add([], nothing) is None
        again = row()
        assert await store.add([again], receipt("k", again)) == kept
        assert await store.add([again], receipt("l", again)) == nothing
        assert await store.get("acme", again.id) is None

    backend.run(scenario)


def test_rows_are_recorded_all_or_none(backend: Backend) -> None:
    rows = [row() for _ in range(30)]
    broken = [*rows[:20], row(record=None), *rows[20:]]

    async def scenario(store: Records) -> None:
        with pytest.raises(RowRefused):
            await store.add(broken)
        with pytest.raises(RowRefused):
            await store.add(broken, receipt("k", *broken))
        assert await store.page("acme", limit=99) == []
        # Nor is the key used up.
        assert await store.add(rows, receipt("k", *rows)) is None
        assert await store.page("acme", limit=99) == rows[::-1]

    backend.run(scenario)


def test_a_key_is_used_once_among_those_who_come_together(backend: Backend) -> None:
    first, same, other, neighbour, plain = (row() for _ in range(5))
    kept = receipt("k", first)

    async def scenario(store: Records) -> None:
        answers = await asyncio.gather(
            store.add([first], kept),
            store.add([same], receipt("k", same, request_id="another")),
            store.add([other], receipt("k", other, fingerprint=OTHER_FINGERPRINT)),
            store.add([neighbour], receipt("l", neighbour)),
            store.add([plain]),
            return_exceptions=True,
        )
        assert answers[:2] == [None, kept]
        assert isinstance(answers[2], KeyReused)
        assert answers[3:] == [None, None]
        assert {found.id for found in await store.page("acme", limit=9)} == {first.id, neighbour.id, plain.id}

    backend.run(scenario)


def test_a_key_is_used_once_among_many_rows_that_come_together(backend: Backend) -> None:
    batches = [[row() for _ in range(300)] for _ in range(6)]
    receipts = [receipt(f"k{number // 2}", *rows) for number, rows in enumerate(batches)]

    async def scenario(store: Records) -> None:
        adding = [store.add(rows, kept) for rows, kept in zip(batches, receipts, strict=True)]
        answers = await asyncio.gather(*adding)
        assert answers == [None, receipts[0], None, receipts[2], None, receipts[4]]
        found = await store.page("acme", limit=5_000)
        assert sorted(each.id for each in found) == sorted(each.id for rows in batches[::2] for each in rows)

    backend.run(scenario)


def test_a_key_is_free_again_once_its_receipt_has_expired(backend: Backend) -> None:
    first, early, late = row(), row(), row()
    kept = receipt("k", first)
    still = receipt("k", early, created_ms=kept.created_ms + 60_000)
    after = receipt("k", late, created_ms=kept.created_ms + 60_001, fingerprint=OTHER_FINGERPRINT)

    async def scenario(store: Records) -> None:
        await store.add([first], kept)
        assert await store.add([early], still) == kept
        assert await store.add([late], after) is None
        again = row()
        assert await store.add([again], msgspec.structs.replace(after, ids=(again.id,))) == after
        assert {found.id for found in await store.page("acme", limit=9)} == {first.id, late.id}

    backend.run(scenario, key_ttl_s=60.0)


def test_a_receipt_is_kept_for_a_day(backend: Backend) -> None:
    first, second = row(), row()
    kept = receipt("k", first)

    async def scenario(store: Records) -> None:
        await store.add([first], kept)
        at_the_end = receipt("k", second, created_ms=kept.created_ms + 86_400_000)
        assert await store.add([second], at_the_end) == kept
        after_it = msgspec.structs.replace(at_the_end, created_ms=kept.created_ms + 86_400_001)
        assert await store.add([second], after_it) is None

    backend.run(scenario)


def test_what_is_sent_again_is_recorded_once(backend: Backend) -> None:
    plain, keyed = row(), row()
    many = [row() for _ in range(40)]
    kept, kept_of_many = receipt("k", keyed), receipt("m", *many)

    async def scenario(store: Records) -> None:
        for _ in range(2):
            assert await store.add_each([plain]) == [None]
            assert await store.add([keyed], kept) is None
            assert await store.add(many, kept_of_many) is None
        assert await store.add_each([plain, plain]) == [None, None]
        assert await asyncio.gather(*(store.add([keyed], kept) for _ in range(3))) == [None] * 3
        for changed in (msgspec.structs.replace(plain, score=1), msgspec.structs.replace(plain, input=b"other")):
            with pytest.raises(RowRefused):
                await store.add([changed])
        assert await store.page("acme", limit=99) == sorted([plain, keyed, *many], key=lambda row: row.id)[::-1]

    backend.run(scenario)


def test_a_bad_row_fails_alone(backend: Backend) -> None:
    bad = [row(id=b"short"), row(level=9), row(score=2**70), row(business_id="\ud800"), row(record=None)]
    good = [row(), row(), row()]

    async def scenario(store: Records) -> None:
        keyed, spoiled = row(), row()
        each, *others = await asyncio.gather(
            store.add_each([good[0], *bad, *good[1:]]),
            store.add([keyed], receipt("k", keyed)),
            store.add([bad[-1]], receipt("l", bad[-1])),
            store.add([spoiled], receipt("m", spoiled, status=2**70)),
            store.add([spoiled], receipt("\ud800", spoiled)),
            store.add([spoiled], receipt("n", spoiled, ids=(b"short",))),
            store.add([spoiled], receipt("o", spoiled, ids=(b"8 bytes!", b"and more"))),
            return_exceptions=True,
        )
        assert [type(answer) for answer in each] == [type(None), *[RowRefused] * len(bad), type(None), type(None)]
        assert [type(answer) for answer in others] == [type(None), *[RowRefused] * 5]
        assert {found.id for found in await store.page("acme", limit=20)} == {each.id for each in (*good, keyed)}

    backend.run(scenario)


def test_many_rows_added_at_once_are_all_there(backend: Backend) -> None:
    rows = [row(f"tenant-{number % 3}") for number in range(1_500)]
    keyed = [(each, receipt(f"k{number}", each)) for number, each in enumerate(row() for _ in range(700))]

    async def scenario(store: Records) -> None:
        adding = [store.add([each], kept) for each, kept in keyed]
        each, *others = await asyncio.gather(store.add_each(rows), *adding)
        assert (each, others) == ([None] * 1_500, [None] * 700)
        found = await asyncio.gather(*(store.get(each.tenant_id, each.id) for each in rows))
        assert found == rows
        assert await store.get_each("acme", [each.id for each, _ in keyed]) == [each for each, _ in keyed]

    backend.run(scenario)


def test_pages_hold_what_the_filters_say_newest_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small spans, so that a search by business crosses several.
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 20)
    monkeypatch.setattr("app.store.sqlite_file.SPAN_ROWS", 30)
    draw = random.Random(7)
    clock = iter(range(1_000, 2_000))
    new = Uuid7(lambda: next(clock)).new
    rows = [
        row(
            draw.choice(("acme", "other")),
            id=new(),
            business_id=draw.choice((None, "a", "b", "c")),
            level=draw.randrange(4),
            decision=draw.randrange(3),
        )
        for _ in range(400)
    ]
    # Not quite in the order of their ids, as several processes would add them.
    order = sorted(rows, key=lambda each: time_ms(each.id) + draw.randrange(40))

    async def scenario(store: Records) -> None:
        for start in range(0, len(order), 10):
            await store.add_each(order[start : start + 10])
            await store.check()
        times = sorted(draw.sample(range(990, 1_420), 2))
        for _ in range(300):
            filters = {
                "business_id": draw.choice((None, None, "a", "b", "nobody")),
                "level": draw.choice((None, 0, 1, 2, 3)),
                "decision": draw.choice((None, 0, 1, 2)),
            }
            bounds = {
                "since_id": draw.choice((None, floor(times[0]), draw.choice(rows).id)),
                "until_id": draw.choice((None, ceiling(times[1]), draw.choice(rows).id)),
                "before_id": draw.choice((None, None, draw.choice(rows).id)),
            }
            expected = [
                each
                for each in reversed(rows)
                if each.tenant_id == "acme"
                and all(value is None or getattr(each, name) == value for name, value in filters.items())
                and (bounds["since_id"] is None or each.id >= bounds["since_id"])
                and (bounds["until_id"] is None or each.id <= bounds["until_id"])
                and (bounds["before_id"] is None or each.id < bounds["before_id"])
            ]
            limit = draw.choice((1, 5, 200))
            assert await store.page("acme", limit=limit, **filters, **bounds) == expected[:limit]

    backend.run(scenario)


def test_a_list_is_walked_by_its_last_id(backend: Backend) -> None:
    rows = [row() for _ in range(25)]

    async def scenario(store: Records) -> None:
        await store.add_each(rows)
        seen: list[Row] = []
        while page := await store.page("acme", business_id="cust-1", before_id=seen[-1].id if seen else None, limit=10):
            seen += page
        assert seen == rows[::-1]

    backend.run(scenario)


def test_a_model_is_kept_once_under_its_hash(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert await store.model(b"1" * 32) is None
        await store.save_model(b"1" * 32, "kyb", "1.0.0", b"definition")
        await store.save_model(b"1" * 32, "kyb", "1.0.0", b"another")
        await store.save_model(b"2" * 32, "kyb", "0.9.0", b"older")
        assert await store.model(b"1" * 32) == b"definition"
        assert await store.models() == [StoredModel(b"2" * 32, "kyb", "0.9.0"), StoredModel(b"1" * 32, "kyb", "1.0.0")]

    backend.run(scenario)


def test_closing_records_what_was_submitted_and_then_refuses(backend: Backend) -> None:
    rows = [row() for _ in range(700)]
    many = [[row() for _ in range(150)] for _ in range(10)]

    async def submit() -> None:
        store = backend.make()
        await store.open()
        adding = [asyncio.create_task(store.add(some)) for some in (*([each] for each in rows), *many)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*adding) == [None] * 710
        for late in (
            store.add([row()]),
            store.add([row(), row()]),
            store.get("acme", rows[0].id),
            store.get_each("acme", [rows[0].id]),
            store.check(),
            store.page("acme", limit=1),
        ):
            with pytest.raises(StoreUnavailable):
                await late
        await store.close()

    async def count(store: Records) -> None:
        assert len(await store.page("acme", limit=5_000)) == 2_200

    asyncio.run(submit())
    backend.run(count)


def test_processes_share_the_database_and_its_keys(backend: Backend) -> None:
    body = """
from app.store.base import KeyBusy

async def add(store, key):
    mine = row("acme")
    while True:
        try:
            kept = await store.add([mine], receipt(key, mine))
        except KeyBusy:
            continue
        return text(mine.id if kept is None else kept.ids[0])

async def main(store, arguments):
    say("ready")
    sys.stdin.readline()
    for start in range(0, 300, 10):
        say(*await asyncio.gather(*(add(store, f"k{n}") for n in range(start, start + 10))))
    """
    children = [backend.child(body) for _ in range(3)]
    said: list[list[str]] = []
    for child in children:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == ["ready"]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        output, _ = child.communicate()
        assert child.returncode == 0
        said.append([id for line in output.splitlines() for id in json.loads(line)])
    # Whoever came first, all three were answered the same assessment for the same key.
    assert said[0] == said[1] == said[2]
    assert len(set(said[0])) == 300

    async def scenario(store: Records) -> None:
        assert {text(found.id) for found in await store.page("acme", limit=1_000)} == set(said[0])

    backend.run(scenario)


def test_a_killed_process_loses_nothing_it_acknowledged(backend: Backend) -> None:
    body = """
async def main(store, arguments):
    async def user(number):
        for turn in range(10**9):
            rows = [row("acme") for _ in range(1 + number % 3)]
            await store.add(rows, receipt(f"{number}-{turn}", rows[0]) if number % 2 else None)
            say(*[text(each.id) for each in rows])
    await asyncio.gather(*map(user, range(20)))
    """
    with backend.child(body) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2_000)]
        child.send_signal(signal.SIGKILL)
        lines += [line for line in child.stdout if line.endswith("]\n")]
    acknowledged = {id for line in lines for id in json.loads(line)}

    async def scenario(store: Records) -> None:
        assert acknowledged <= {text(found.id) for found in await store.page("acme", limit=10**6)}
        await store.add([row()])

    backend.run(scenario)
