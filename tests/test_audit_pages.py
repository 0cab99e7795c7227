"""The audit trail as its endpoints hand it out: pages of entries and checkpoints, newest first."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from records import BACKENDS, Backend, ids, row

from app.api import audit
from app.api.audit import AuditTrail
from app.errors import ParameterRefused
from app.ids import text
from app.store.base import StoreUnavailable
from app.store.chain import GENESIS, AuditEntry, entry_hash
from app.store.trail import Checkpoint, Head, Position, act

TENANT = "acme"


class FewAtATime:
    """A trail that gives at most two entries for each question, however many are wanted."""

    def __init__(self, entries: Sequence[AuditEntry], checkpoints: Sequence[Checkpoint] = ()) -> None:
        self._entries = entries
        self._checkpoints = checkpoints
        self.asked = 0

    async def entries(self, tenant_id: str, *, before: Position | None, limit: int, **_: object) -> list[AuditEntry]:
        self.asked += 1
        newest_first = sorted(self._entries, key=position, reverse=True)
        return [one for one in newest_first if before is None or position(one) < before][: min(limit, 2)]

    async def last_checkpoint(self, tenant_id: str) -> Checkpoint | None:
        return self._checkpoints[-1] if self._checkpoints else None

    async def checkpoints(self, tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
        return [one for one in self._checkpoints if one.number > after][:limit]


def position(entry: AuditEntry) -> Position:
    return Position(entry.at_ms, entry.segment, entry.number)


def entry(number: int, at_ms: int, subjects: bytes = b"") -> AuditEntry:
    return AuditEntry(TENANT, b"s" * 16, number, at_ms, "key.created", "cli", b"{}", subjects, GENESIS, GENESIS)


def checkpoint(number: int) -> Checkpoint:
    head = Head(b"s" * 16, number, b"h" * 32)
    return Checkpoint(TENANT, number, 1000 * number, number, (head,), b"p" * 32, b"c" * 32, b"m" * 32)


def asked(query: str = "", tenant_id: str = TENANT) -> Any:
    """A request as the endpoints see it."""
    return SimpleNamespace(query=query.encode(), principal=SimpleNamespace(tenant_id=tenant_id, key_id="key"))


async def walked(read: Callable[[Any], Awaitable[Any]], query: str, tenant_id: str = TENANT) -> list[list[Any]]:
    """The items of all pages."""
    pages, cursor = [], ""
    while True:
        page = json.loads((await read(asked(query + cursor, tenant_id))).body)
        pages.append(page["items"])
        if page["next_cursor"] is None:
            return pages
        cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 11])
def test_pages_are_full_though_the_trail_gives_few_at_a_time_and_the_last_says_so(count: int) -> None:
    # Two at each time, so that pages begin between equals.
    endpoints: Any = AuditTrail(FewAtATime([entry(number, 1000 + number // 2) for number in range(1, count + 1)]))  # type: ignore[arg-type]
    pages = asyncio.run(walked(endpoints.list, "limit=5"))
    assert [item["number"] for page in pages for item in page] == list(range(count, 0, -1))
    assert [len(page) for page in pages[:-1]] == [5] * (len(pages) - 1)
    assert count == 0 or pages[-1]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 11])
def test_pages_of_checkpoints_are_full_and_the_last_says_so(count: int) -> None:
    endpoints = AuditTrail(FewAtATime([], [checkpoint(number) for number in range(1, count + 1)]))  # type: ignore[arg-type]
    pages = asyncio.run(walked(endpoints.checkpoints, "limit=5"))
    assert [item["number"] for page in pages for item in page] == list(range(count, 0, -1))
    assert [len(page) for page in pages[:-1]] == [5] * (len(pages) - 1)
    assert count == 0 or pages[-1]


def test_checkpoints_that_were_deleted_leave_a_gap_and_no_other_is_lost_or_told_twice() -> None:
    there = [number for number in range(1, 31) if number not in (1, 9, 10, 11, 12, 13, 14, 15, 22)]
    endpoints = AuditTrail(FewAtATime([], [checkpoint(number) for number in there]))  # type: ignore[arg-type]
    pages = asyncio.run(walked(endpoints.checkpoints, "limit=4"))
    assert [item["number"] for page in pages for item in page] == there[::-1]


def test_a_checkpoint_is_told_with_all_that_its_hash_covers() -> None:
    endpoints = AuditTrail(FewAtATime([], [checkpoint(1)]))  # type: ignore[arg-type]
    [[told]] = asyncio.run(walked(endpoints.checkpoints, ""))
    assert told == {
        "number": 1,
        "at": "1970-01-01T00:00:01.000Z",
        "entries": 1,
        "heads": [{"segment": text(b"s" * 16), "number": 1, "hash": (b"h" * 32).hex()}],
        "previous": (b"p" * 32).hex(),
        "hash": (b"c" * 32).hex(),
        "mac": (b"m" * 32).hex(),
    }


@pytest.mark.parametrize(
    ("endpoint", "query", "pointer"),
    [
        ("list", "limit=0", "/query/limit"),
        ("list", "limit=201", "/query/limit"),
        ("list", "cursor=AAAA", "/query/cursor"),
        ("list", "cursor=%C3%A4", "/query/cursor"),
        ("list", f"cursor={urlsafe_b64encode(bytes([255]) * 32).decode().rstrip('=')}", "/query/cursor"),
        ("list", f"assessment={'x' * 36}", "/query/assessment"),
        ("list", "assessment=1", "/query/assessment"),
        ("list", "from=yesterday", "/query/from"),
        ("list", "acts=key.created", "/query/acts"),
        ("checkpoints", "cursor=AAAA", "/query/cursor"),
        ("checkpoints", f"cursor={urlsafe_b64encode(bytes(8)).decode().rstrip('=')}", "/query/cursor"),
        ("checkpoints", f"cursor={urlsafe_b64encode(bytes([255]) * 8).decode().rstrip('=')}", "/query/cursor"),
    ],
)
def test_a_wrong_parameter_is_explained(endpoint: str, query: str, pointer: str) -> None:
    endpoints = AuditTrail(FewAtATime([]))  # type: ignore[arg-type]
    with pytest.raises(ParameterRefused) as refused:
        asyncio.run(getattr(endpoints, endpoint)(asked(query)))
    assert [fault.pointer for fault in refused.value.faults] == [pointer]


@pytest.mark.parametrize("stuck", [True, False])
def test_a_page_that_takes_long_to_fill_comes_short_with_a_cursor(monkeypatch: pytest.MonkeyPatch, stuck: bool) -> None:
    class Slow(FewAtATime):
        async def entries(self, tenant_id: str, **named: Any) -> list[AuditEntry]:
            if self.asked % 2:
                self.asked += 1
                if stuck:
                    await asyncio.Event().wait()
                raise StoreUnavailable("too long to be searched")
            return await super().entries(tenant_id, **named)

    monkeypatch.setattr(audit, "FILL_S", 0.001)
    endpoints: Any = AuditTrail(Slow([entry(number, 1000) for number in range(1, 6)]))  # type: ignore[arg-type]
    pages = asyncio.run(walked(endpoints.list, "limit=50"))
    assert [[item["number"] for item in page] for page in pages] == [[5, 4], [3, 2], [1], []]


def test_a_trail_that_cannot_be_searched_is_said_to_be_so() -> None:
    class Away(FewAtATime):
        async def entries(self, tenant_id: str, **named: Any) -> list[AuditEntry]:
            raise StoreUnavailable("too long to be searched")

    with pytest.raises(StoreUnavailable):
        asyncio.run(AuditTrail(Away([])).list(asked()))  # type: ignore[arg-type]


def test_an_entry_with_many_subjects_lets_others_through() -> None:
    endpoints = AuditTrail(FewAtATime([entry(number, 1000, bytes(16 * 20_000)) for number in range(1, 4)]))  # type: ignore[arg-type]

    async def scenario() -> int:
        reading = asyncio.create_task(endpoints.list(asked()))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scenario()) > 3


def test_an_outsider_can_compute_each_hash_from_what_is_told(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        await store.note([act(TENANT, "key.created", "cli", name='ä "quoted" key', id="abc", when=3)])
        await store.add([row(TENANT)], actor="key-1")
        [page] = await walked(AuditTrail(store).list, "")
        assert {item["act"] for item in page} == {"assessment.recorded", "key.created"}
        stored = {one.hash.hex(): one for one in await store.entries(TENANT, limit=9)}
        for item in page:
            raw = json.dumps(item["detail"], separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
            found = stored[item["hash"]]
            computed = entry_hash(
                TENANT,
                found.segment,
                item["number"],
                found.at_ms,
                item["act"],
                item["actor"],
                raw,
                b"".join(bytes.fromhex(subject.replace("-", "")) for subject in item["subjects"]),
                bytes.fromhex(item["previous"]),
            )
            assert computed.hex() == item["hash"]
            assert item["id"] == f"{item['segment']}-{item['number']}"

    backend.run(scenario)


def test_entries_are_found_by_what_they_say(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        recorded = row(TENANT)
        await store.add([recorded], actor="key-1")
        await store.add([row(TENANT)], actor="key-2")
        await store.note(
            [act(TENANT, "assessment.replayed", "key-2", (recorded.id,)), act("other", "key.created", "cli")]
        )
        endpoints = AuditTrail(store)

        async def acts(query: str = "", tenant_id: str = TENANT) -> list[str]:
            # Of one millisecond, entries of several segments stand in the order of these.
            return sorted(item["act"] for page in await walked(endpoints.list, query, tenant_id) for item in page)

        both = ["assessment.recorded", "assessment.replayed"]
        assert await acts() == ["assessment.recorded", *both]
        assert await acts("limit=1") == ["assessment.recorded", *both]
        assert await acts(f"assessment={text(recorded.id)}") == both
        assert await acts(f"assessment={text(ids.new())}") == []
        assert await acts("actor=key-2") == both
        assert await acts("act=assessment.replayed") == both[1:]
        assert await acts("from=2000-01-01&to=2001-01-01") == []
        assert await acts("from=2000-01-01") == ["assessment.recorded", *both]
        assert await acts(tenant_id="other") == ["key.created"]
        assert await acts(tenant_id="nobody") == []

    backend.run(scenario)
