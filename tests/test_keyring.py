"""Keys are recognised as long as they work, and no longer: whoever revokes them, and whatever is away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cached import Pod, running, until
from databases import Postgres, migrated, postgres_store
from keyed import KEPT_S, Clock, Door, House, id_of, key_of
from msgspec.structs import replace
from records import BACKENDS, Backend, Records, play

from app.credentials import _checksum as checksum
from app.credentials import mint, recognise
from app.ids import now_ms
from app.keys import Ended, Principal, ring
from app.store.base import StoreUnavailable
from app.store.sqlite import SqliteStore
from app.store.trail import act

REVOKED_WITHIN_S = 5.0


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "records.db")


async def settled(house: House) -> None:
    """Every look-up that was begun in passing has come to an end."""
    await until(lambda: not house.ring._tasks, "keys are renewed")


async def end(store: Any, raw: bytes) -> None:
    """Revoke a key in the store, and tell nobody."""
    key = await key_of(store, raw)
    told = act(key.tenant_id, "key.revoked", "tests")
    assert await store.end_key(key.tenant_id, key.id, revoked_ms=now_ms(), act=told) is not None


# Recognising


def test_a_key_is_recognised_as_what_it_was_made_for(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        networks = ("10.0.0.0/8", "2001:db8::/32")
        raw = await house.made("analyst", scopes=["read", "replay"], networks=networks, rate="5/s burst 7")
        principal = await house.ring.find(raw)
        assert principal == Principal(
            key_id=id_of(raw),
            tenant_id="acme",
            role="analyst",
            permissions=frozenset(("read", "replay")),
            networks=tuple(map(ip_network, networks)),
            expires_ms=None,
            allowance=("allowance", None, "5/s burst 7"),
        )
        assert house.ring.known(raw) is principal

    backend.run(scenario)


@pytest.mark.parametrize("raw", [b"", b"kyb", b"kyb_live_short", b"\xff" * 60, b"k" * 20_000])
def test_what_is_no_key_is_nobodys_and_the_store_is_not_asked(sqlite: SqliteStore, raw: bytes) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(Door(store))
        assert await house.caller(raw) is None
        assert house.store.asked == []

    play(sqlite, scenario)


def test_a_key_that_nobody_made_is_compared_all_the_same(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(ring, "compare_digest", compare)

    async def scenario(store: Records) -> None:
        house = House(store)
        assert await house.caller(mint("test").text.encode()) is None
        assert compared == [(32, 32)]
        raw = await house.made()
        assert await house.caller(raw) is not None
        assert compared == [(32, 32)] * 2

    backend.run(scenario)


def test_the_id_of_a_key_is_not_enough(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        raw, other = await house.made(), mint("test").text.encode()
        # The right id with another's secret, and a checksum that fits.
        body = raw[:21] + other[21:48]
        forged = body + checksum(body).encode()
        assert recognise(forged) == id_of(raw)
        assert await house.caller(raw) is not None
        assert await house.caller(forged) is None
        assert await house.caller(raw) is not None

    backend.run(scenario)


def test_a_key_hashed_under_another_secret_is_nobodys(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        raw = await House(store).made()
        assert await House(store, secret=b"another secret").caller(raw) is None

    backend.run(scenario)


def test_a_key_is_recognised_without_the_store_being_asked_again(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        raw = await house.made()
        found = await asyncio.gather(*(house.caller(raw) for _ in range(50)))
        assert door.asked.count("key") == 1
        assert len({id(principal) for principal in found}) == 1
        clock.now += 0.49
        assert house.ring.known(raw) is not None
        await settled(house)
        assert door.asked.count("key") == 1

    play(sqlite, scenario)


def test_a_key_in_use_never_waits_and_one_that_rested_does(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        raw = await house.made()
        await house.ring.find(raw)
        for _ in range(40):
            clock.now += 0.3
            assert house.ring.known(raw) is not None
            await settled(house)
        assert 12 / 1.5 / 2 <= door.asked.count("key") <= 12
        clock.now += 1.0
        assert house.ring.known(raw) is None

    play(sqlite, scenario)


def test_a_key_that_expires_is_good_until_then(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock)
        raw = await house.made(expires_ms=clock.now_ms() + 300)
        principal = await house.caller(raw)
        assert principal is not None
        assert principal.expires_ms == clock.now_ms() + 300
        clock.now += 0.299
        assert house.ring.known(raw) is not None
        await settled(house)
        clock.now += 0.001
        assert house.ring.known(raw) is None
        assert await house.ring.find(raw) == Ended(id_of(raw), "acme", "expired")

    backend.run(scenario)


def test_no_more_keys_are_remembered_than_there_is_room_for(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "MOST_SEEN", 3)

    async def scenario(store: SqliteStore) -> None:
        clock = Clock()
        house = House(store, clock)
        raws = [await house.made() for _ in range(5)]
        for raw in raws:
            assert await house.caller(raw) is not None
        assert [house.ring.known(raw) is not None for raw in raws] == [False, False, True, True, True]
        clock.now += 1
        await house.caller(raws[0])
        await house.caller(raws[1])
        assert len(house.ring._seen) == 2

    play(sqlite, scenario)


# Revocation


def test_a_key_revoked_here_stops_at_once(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        raw = await house.made()
        assert await house.caller(raw) is not None
        await house.keys.revoke("acme", id_of(raw), "tests")
        assert house.ring.known(raw) is None
        assert await house.ring.find(raw) == Ended(id_of(raw), "acme", "revoked")

    backend.run(scenario)


def test_a_key_revoked_while_it_is_looked_up_is_not_remembered(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(store)
        raw = await house.made()
        stored = await store.key(id_of(raw))
        answer = asyncio.get_running_loop().create_future()
        slow = House(SimpleNamespace(key=lambda id: answer))
        early = asyncio.create_task(slow.ring.find(raw))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await slow.ring.forget(id_of(raw))
        answer.set_result(stored)
        assert await early is not None
        assert slow.ring.known(raw) is None
        assert await slow.ring.find(raw) is not None
        assert slow.ring.known(raw) is not None

    play(sqlite, scenario)


def test_a_key_revoked_elsewhere_stops_in_time_though_nobody_is_told(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock)
        raw = await house.made()
        assert await house.caller(raw) is not None
        await end(store, raw)
        revoked_at = clock.now
        while await house.caller(raw) is not None:
            await settled(house)
            clock.now += 0.1
            assert clock.now - revoked_at < REVOKED_WITHIN_S
        assert clock.now - revoked_at > 1

    backend.run(scenario)


def test_a_key_revoked_in_one_pod_stops_in_the_other(database: str, redis_url: str) -> None:
    async def scenario(store: Any) -> None:
        here, there = Pod(redis_url), Pod(redis_url)
        async with running(here, there):
            one, two = House(store, pod=here), House(store, pod=there)
            raw = await one.made()
            assert await one.caller(raw) is not None
            assert await two.caller(raw) is not None
            await one.keys.revoke("acme", id_of(raw), "tests")
            assert await one.caller(raw) is None
            loop = asyncio.get_running_loop()
            told_at = loop.time()
            while await two.caller(raw) is not None:
                assert loop.time() - told_at < 2
                await asyncio.sleep(0.02)
            await two.ring.stop()
            await one.ring.stop()

    play(postgres_store(migrated(database)), scenario)


def test_a_key_revoked_past_the_cache_stops_in_every_pod(database: str, redis_url: str) -> None:
    async def scenario(store: Any) -> None:
        here, there = Pod(redis_url), Pod(redis_url)
        async with running(here, there):
            houses = [House(store, pod=here), House(store, pod=there)]
            raw = await houses[0].made()
            for house in houses:
                assert await house.caller(raw) is not None
            await end(store, raw)
            loop = asyncio.get_running_loop()
            revoked_at = loop.time()
            # Used without a pause, and by turns: each pod may take from Redis what the other put there last.
            while [await house.caller(raw) for house in houses] != [None, None]:
                assert loop.time() - revoked_at < REVOKED_WITHIN_S
                await asyncio.sleep(0.02)
            for house in houses:
                await house.ring.stop()

    play(postgres_store(migrated(database)), scenario)


def test_what_was_put_into_redis_by_others_gives_nobody_a_role(database: str, redis_url: str) -> None:
    async def scenario(store: Any) -> None:
        pod, forger = Pod(redis_url), Pod(redis_url)
        async with running(pod, forger):
            house = House(store, pod=pod)
            raw = await house.made("viewer")
            key = await key_of(store, raw)

            async def raised(id: str) -> Any:
                return replace(key, role="admin")

            # Whoever can write to Redis knows everything but the secret.
            forged = House(SimpleNamespace(key=raised), pod=forger, secret=b"a guess")
            await forged.ring.find(raw)
            await forger.settle()
            principal = await house.caller(raw)
            assert principal is not None
            assert principal.role == "viewer"

    play(postgres_store(migrated(database)), scenario)


# While the store is away


def test_a_key_that_was_good_works_on_while_the_store_is_away(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        raw = await house.made()
        assert await house.caller(raw) is not None
        door.is_shut = True
        for _ in range(int(KEPT_S * 0.9) - 1):
            clock.now += 1
            assert await house.caller(raw) is not None
            await settled(house)
        # What the cache said after the door was shut counts as well.
        clock.now += KEPT_S / 10 + 1 + ring.CACHED_S
        with pytest.raises(StoreUnavailable):
            await house.caller(raw)
        door.is_shut = False
        assert await house.caller(raw) is not None

    backend.run(scenario)


def test_a_key_that_was_good_waits_only_briefly_for_a_store_that_stands_still(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        raw, other = await house.made(), await house.made()
        assert await house.caller(raw) is not None
        clock.now += 5
        door.opens.clear()
        async with asyncio.timeout(1):
            assert await house.caller(raw) is not None
        unknown = asyncio.create_task(house.caller(other))
        await until(lambda: door.asked.count("key") == 3)
        assert not unknown.done()
        door.opens.set()
        assert await unknown is not None

    play(sqlite, scenario)


def test_a_revocation_that_is_found_too_late_for_one_request_holds_for_the_next(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        raw = await house.made()
        assert await house.caller(raw) is not None
        await end(store, raw)
        clock.now += 5
        door.opens.clear()
        assert await house.caller(raw) is not None
        door.opens.set()
        await settled(house)
        assert await house.caller(raw) is None
        # Longer than the cache has it.
        clock.now += 5
        door.is_shut = True
        assert await house.caller(raw) is None

    play(sqlite, scenario)


def test_a_key_that_nobody_knows_is_not_refused_while_the_store_is_away(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door = Door(store)
        house = House(door)
        raw = await house.made()
        door.is_shut = True
        with pytest.raises(StoreUnavailable):
            await house.caller(raw)
        with pytest.raises(StoreUnavailable):
            await house.caller(mint("test").text.encode())
        assert await house.caller(b"no key at all") is None

    play(sqlite, scenario)


def test_a_key_that_was_not_good_does_not_become_so_while_the_store_is_away(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock)
        revoked, expiring = await house.made(), await house.made(expires_ms=clock.now_ms() + 2500)
        for raw in (revoked, expiring):
            assert await house.caller(raw) is not None
        # Found out by the way of time, so nothing was invalidated.
        await end(store, revoked)
        clock.now += 2
        assert await house.caller(revoked) is None
        assert await house.caller(expiring) is not None
        door.is_shut = True
        clock.now += 2
        assert await house.caller(revoked) is None
        assert await house.caller(expiring) is None

    play(sqlite, scenario)


def test_what_is_kept_is_dropped_by_a_revocation_elsewhere(database: str, redis_url: str) -> None:
    async def scenario(store: Any) -> None:
        here, there = Pod(redis_url), Pod(redis_url)
        async with running(here, there):
            door = Door(store)
            one, two = House(store, pod=here), House(door, pod=there)
            raw = await one.made()
            assert await two.caller(raw) is not None
            door.is_shut = True
            await one.keys.revoke("acme", id_of(raw), "tests")
            loop = asyncio.get_running_loop()
            told_at = loop.time()
            with suppress(StoreUnavailable):
                while await two.caller(raw) is not None:
                    assert loop.time() - told_at < REVOKED_WITHIN_S
                    await asyncio.sleep(0.02)
            with pytest.raises(StoreUnavailable):
                await two.caller(raw)
            await two.ring.stop()

    play(postgres_store(migrated(database)), scenario)


def test_a_key_outlives_its_database(own_postgres: Postgres) -> None:
    async def scenario(store: Any) -> None:
        house = House(store, timeout_s=0.8)
        raw = await house.made()
        assert await house.caller(raw) is not None
        own_postgres.kill()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + REVOKED_WITHIN_S
        # Longer than any tier of the cache has it.
        while loop.time() < end_s:
            asked_at = loop.time()
            assert await house.caller(raw) is not None
            assert loop.time() - asked_at < 1
            await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await house.caller(mint("test").text.encode())
        await house.ring.stop()

    play(postgres_store(migrated(own_postgres.create_database())), scenario)


# When they were last used


async def used(store: Any, raw: bytes) -> None:
    """Wait until it is on record that the key was used."""
    async with asyncio.timeout(10):
        while (await key_of(store, raw)).last_used_ms is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_it_is_written_when_keys_were_last_used(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock, uses_every_s=0.01)
        house.ring.start()
        raw, unused = await house.made(), await house.made()
        await house.caller(raw)
        await used(store, raw)
        assert (await key_of(store, raw)).last_used_ms == clock.now_ms()
        assert (await key_of(store, unused)).last_used_ms is None
        await house.ring.stop()

    backend.run(scenario)


def test_the_last_uses_are_written_when_the_service_stops(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        clock = Clock()
        house = House(store, clock)
        house.ring.start()
        raw = await house.made()
        await house.caller(raw)
        await house.ring.stop()
        assert (await key_of(store, raw)).last_used_ms == clock.now_ms()

    play(sqlite, scenario)


def test_uses_wait_while_the_store_is_away(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door, clock = Door(store), Clock()
        house = House(door, clock, uses_every_s=0.01)
        raw = await house.made()
        await house.caller(raw)
        door.is_shut = True
        house.ring.start()
        await until(lambda: door.asked.count("touch_keys") > 2)
        door.is_shut = False
        await used(store, raw)
        await house.ring.stop()

    play(sqlite, scenario)


def test_uses_that_cannot_be_written_at_the_end_are_told(sqlite: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(store: SqliteStore) -> None:
        door = Door(store)
        house = House(door)
        await house.caller(await house.made())
        house.ring.start()
        door.is_shut = True
        await house.ring.stop()

    play(sqlite, scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 keys" in caplog.text
