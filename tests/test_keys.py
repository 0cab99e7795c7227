"""Keys are made, ended and replaced by those who may, and what is wrong with one is told."""

from __future__ import annotations

import json
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keyed import ALL, Clock, Door, House, id_of, key_of
from msgspec.structs import replace
from records import BACKENDS, Backend, Records, play

from app import wire
from app.api.keys import KeyRing
from app.credentials import recognise
from app.errors import BodyRefused, BodyUnreadable, Conflict, Forbidden, KeyWider, NotFound, Refusal
from app.ids import now_ms
from app.keys import Principal
from app.keys.shown import shown
from app.keys.within import Within
from app.roles import ROLES, Permission, Role
from app.settings.rates import Rate
from app.store.base import StoreUnavailable
from app.store.sqlite import SqliteStore


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "records.db")


# Making them


def test_only_a_hash_of_the_key_is_stored_and_nothing_secret_is_told(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        raw = await house.made("assessor", networks=["10.0.0.0/8"], tier="unlimited", scopes=["read"])
        key = await key_of(store, raw)
        text = raw.decode()
        assert text[21:] not in repr(key)
        await house.keys.rotate("acme", key.id, "tests", limit=ALL)
        await house.keys.revoke("acme", (await store.keys("acme"))[0].id, "tests")
        entries = await store.entries("acme", limit=50)
        acts = sorted(entry.act for entry in entries)
        assert acts == ["key.created", "key.created", "key.revoked", "key.rotated"]
        told = next(json.loads(e.detail) for e in entries if e.act == "key.created" and key.id.encode() in e.detail)
        assert told == {
            "id": key.id, "name": "made", "role": "assessor", "scopes": ["read"], "networks": ["10.0.0.0/8"],
            "tier": "unlimited", "digest_sha256": sha256(key.digest).hexdigest(),
        }  # fmt: skip
        for entry in entries:
            assert entry.actor == "tests"
            assert text[21:40].encode() not in entry.detail
            assert key.digest.hex().encode() not in entry.detail

    backend.run(scenario)


@pytest.mark.parametrize(
    ("asked", "pointer", "words"),
    [
        ({"name": "  "}, "/name", "a name on one line"),
        ({"name": "a\nb"}, "/name", "a name on one line"),
        ({"scopes": []}, "/scopes", "the role viewer has read"),
        ({"scopes": ["read", "keys"]}, "/scopes/1", "does not hold keys; it has read"),
        ({"networks": ["10.0.0.0/8", "10.0.0.300"]}, "/networks/1", 'got "10.0.0.300"'),
        ({"networks": ["10.0.0.1/8"]}, "/networks/0", "bits set behind its prefix"),
        ({"tier": "platinum"}, "/tier", "one of standard, unlimited"),
        ({"rate": "fast"}, "/rate", "100/s burst 200"),
        ({"rate": "5/s", "tier": "standard"}, "/rate", "one of the two"),
        ({"expires_ms": 1}, "/expires_at", "a time to come"),
        ({"expires_ms": -(10**17)}, "/expires_at", "a time to come"),
        ({"expires_ms": 10**17}, "/expires_at", "before the year 9999"),
    ],
)
def test_a_key_that_cannot_be_is_explained(
    sqlite: SqliteStore, asked: dict[str, Any], pointer: str, words: str
) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(store)
        name = asked.pop("name", "made")
        with pytest.raises(BodyRefused) as refused:
            await house.keys.create("acme", name, "viewer", actor="tests", limit=ALL, **asked)
        (fault,) = refused.value.faults
        assert fault.pointer == pointer
        assert words in fault.detail
        assert await store.keys(None) == []

    play(sqlite, scenario)


def test_all_that_is_wrong_with_a_key_is_told_at_once(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(BodyRefused) as refused:
            await House(store).keys.create(
                "acme", "", "viewer", scopes=["keys"], networks=["x"], tier="x", expires_ms=1, actor="tests", limit=ALL
            )
        pointers = [fault.pointer for fault in refused.value.faults]
        assert pointers == ["/name", "/scopes/0", "/networks/0", "/tier", "/expires_at"]

    play(sqlite, scenario)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("maker", ["viewer", "analyst", "auditor", "admin"])
def test_nobody_makes_or_gets_a_key_that_may_do_more_than_theirs(sqlite: SqliteStore, role: Role, maker: Role) -> None:
    held: frozenset[Permission] = ROLES[maker] | frozenset[Permission](("keys",))

    async def scenario(store: SqliteStore) -> None:
        keys = House(store).keys
        _, there = await keys.create("acme", "there", role, actor="tests", limit=ALL)
        if ROLES[role] <= held:
            await keys.create("acme", "more", role, actor="tests", limit=Within(held))
            await keys.rotate("acme", there.id, "tests", limit=Within(held))
            assert len(await store.keys("acme")) == 3
            return
        with pytest.raises(Forbidden) as refused:
            await keys.create("acme", "more", role, actor="tests", limit=Within(held))
        assert refused.value.permission in ROLES[role] - held
        with pytest.raises(Forbidden):
            await keys.rotate("acme", there.id, "tests", limit=Within(held))
        assert await store.keys("acme") == [there]

    play(sqlite, scenario)


END_MS = 4_000_000_000_000
NARROW = Within(
    ROLES["admin"],
    Rate(10, 20),
    (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("2001:db8::/32")),
    END_MS,
)
INSIDE: dict[str, Any] = {"networks": ["10.1.0.0/16"], "rate": "10/s burst 20", "expires_ms": END_MS}


@pytest.mark.parametrize(
    ("asked", "pointer", "words"),
    [
        ({"rate": "11/s burst 20"}, "/rate", "at most 10/s burst 20"),
        ({"rate": "10/s burst 21"}, "/rate", "not 10/s burst 21"),
        ({"rate": "unlimited"}, "/rate", "not unlimited"),
        ({"rate": None}, "/rate", "not 200/s burst 400, the default tier's"),
        ({"rate": None, "tier": "standard"}, "/tier", "at most 10/s burst 20"),
        ({"rate": None, "tier": "unlimited"}, "/tier", "not unlimited"),
        ({"expires_ms": None}, "/expires_at", "2096-10-02T07:06:40.000Z at the latest"),
        ({"expires_ms": END_MS + 1}, "/expires_at", "at the latest"),
        ({"networks": []}, "/networks", "within 10.0.0.0/8, 192.0.2.7/32, 2001:db8::/32"),
        ({"networks": ["10.1.0.0/16", "11.0.0.0/8"]}, "/networks/1", "not 11.0.0.0/8"),
        ({"networks": ["10.0.0.0/7"]}, "/networks/0", "not 10.0.0.0/7"),
        ({"networks": ["192.0.2.6/31"]}, "/networks/0", "not 192.0.2.6/31"),
        ({"networks": ["::/0"]}, "/networks/0", "not ::/0"),
        ({"networks": ["0.0.0.0/0"]}, "/networks/0", "not 0.0.0.0/0"),
        ({"networks": ["::ffff:10.0.0.1"]}, "/networks/0", "not ::ffff:"),
    ],
)
def test_nobody_makes_or_gets_a_key_that_reaches_further_than_theirs(
    sqlite: SqliteStore, asked: dict[str, Any], pointer: str, words: str
) -> None:
    async def scenario(store: SqliteStore) -> None:
        keys = House(store).keys
        wide = {**INSIDE, **asked}
        _, there = await keys.create("acme", "there", "viewer", actor="tests", limit=ALL, **wide)
        for attempt in (
            keys.create("acme", "more", "viewer", actor="tests", limit=NARROW, **wide),
            keys.rotate("acme", there.id, "tests", limit=NARROW),
        ):
            with pytest.raises(KeyWider) as refused:
                await attempt
            (fault,) = refused.value.faults
            assert fault.pointer == pointer
            assert words in fault.detail
        assert await store.keys("acme") == [there]

    play(sqlite, scenario)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"rate": "1/min burst 1"},
        {"networks": ["192.0.2.7", "2001:db8:1::/48", "10.0.0.0/8"]},
        {"expires_ms": END_MS - 1},
    ],
)
def test_a_key_may_reach_as_far_as_the_one_it_is_made_with(sqlite: SqliteStore, asked: dict[str, Any]) -> None:
    async def scenario(store: SqliteStore) -> None:
        keys = House(store).keys
        _, made = await keys.create("acme", "x", "admin", actor="tests", limit=NARROW, **{**INSIDE, **asked})
        _, successor = await keys.rotate("acme", made.id, "tests", limit=NARROW)
        assert successor.replaces == made.id
        assert (await store.key(successor.id)) == successor

    play(sqlite, scenario)


def test_a_key_revoked_again_stays_as_it_was(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock)
        raw = await house.made()
        first = await house.keys.revoke("acme", id_of(raw), "tests")
        clock.now += 60
        again = await house.keys.revoke("acme", id_of(raw), "tests")
        assert again == first
        assert first.revoked_ms == clock.now_ms() - 60_000
        assert [e.act for e in await store.entries("acme", limit=9)].count("key.revoked") == 1

    backend.run(scenario)


@pytest.mark.parametrize("id", ["000000000000", "short", "", "ä" * 12, "\udc80" * 12, "0000 0000000", "\0" * 12])
def test_a_key_that_is_not_there_is_not_found(backend: Backend, id: str) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        with pytest.raises(NotFound):
            await house.keys.revoke("acme", id, "tests")
        with pytest.raises(NotFound):
            await house.keys.rotate("acme", id, "tests", limit=ALL)

    backend.run(scenario)


def test_another_tenants_key_is_not_there(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        raw = await house.made(tenant_id="acme")
        with pytest.raises(NotFound):
            await house.keys.revoke("umbrella", id_of(raw), "tests")
        with pytest.raises(NotFound):
            await house.keys.rotate("umbrella", id_of(raw), "tests", limit=ALL)
        assert await house.keys.list("umbrella") == []
        assert await house.caller(raw) is not None
        assert [key.id for key in await house.keys.list("acme")] == [id_of(raw)]

    backend.run(scenario)


def test_the_last_key_that_may_change_keys_is_spared(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock)
        admin, viewer = await house.made("admin"), await house.made("viewer")
        narrowed = await house.made("admin", scopes=["read"])
        ending = await house.made("admin", expires_ms=clock.now_ms() + 1000)
        await house.made("admin", tenant_id="umbrella")
        await house.keys.revoke("acme", id_of(ending), "tests")
        with pytest.raises(Conflict, match="last working key"):
            await house.keys.revoke("acme", id_of(admin), id_of(admin))
        assert await house.caller(admin) is not None
        for raw in (viewer, narrowed, ending):
            await house.keys.revoke("acme", id_of(raw), "tests")
        another = await house.made("admin")
        await house.keys.revoke("acme", id_of(admin), id_of(admin))
        assert await house.caller(admin) is None
        await house.keys.revoke("acme", id_of(another), "cli", even_last=True)
        assert await house.keys.keepers("acme") == []

    backend.run(scenario)


def test_a_successor_has_the_same_rights_and_the_old_key_ends_with_the_overlap(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        clock = Clock()
        house = House(store, clock)
        ends_ms = clock.now_ms() + 86_400_000
        options: dict[str, Any] = {"scopes": ["read"], "networks": ["10.0.0.0/8"], "rate": "5/s", "expires_ms": ends_ms}
        raw = await house.made("analyst", **options)
        assert await house.caller(raw) is not None
        text, successor = await house.keys.rotate("acme", id_of(raw), "tests", 60.0, limit=ALL)
        old = await key_of(store, raw)
        same = ("tenant_id", "name", "role", "scopes", "networks", "tier", "rate")
        assert [getattr(successor, name) for name in same] == [getattr(old, name) for name in same]
        assert successor.expires_ms == ends_ms
        assert old.expires_ms == clock.now_ms() + 60_000
        assert await house.caller(raw) is not None
        clock.now += 60
        assert await house.caller(raw) is None
        principal = await house.caller(text.encode())
        assert principal is not None
        assert principal.permissions == {"read"}

    backend.run(scenario)


def test_without_an_overlap_the_old_key_ends_at_once(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        house = House(store)
        raw = await house.made()
        assert await house.caller(raw) is not None
        text, _ = await house.keys.rotate("acme", id_of(raw), "tests", limit=ALL)
        assert await house.caller(raw) is None
        assert await house.caller(text.encode()) is not None
        with pytest.raises(Conflict, match="expired"):
            await house.keys.rotate("acme", id_of(raw), "tests", limit=ALL)
        await house.keys.revoke("acme", recognise(text.encode()) or "", "tests")
        with pytest.raises(Conflict, match="was revoked"):
            await house.keys.rotate("acme", recognise(text.encode()) or "", "tests", limit=ALL)

    backend.run(scenario)


def test_a_revocation_whose_commit_was_lost_sight_of_is_looked_up_anew(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        door = Door(store)
        house = House(door)
        raw = await house.made()
        assert await house.caller(raw) is not None

        async def lost(*arguments: Any, **options: Any) -> None:
            await store.end_key(*arguments, **options)
            raise StoreUnavailable("the answer did not come")

        vars(door)["end_key"] = lost
        with pytest.raises(StoreUnavailable):
            await house.keys.revoke("acme", id_of(raw), "tests")
        assert await house.caller(raw) is None

    play(sqlite, scenario)


# Over HTTP


def asking(body: object = None, query: bytes = b"", held: frozenset[Permission] = ALL.permissions, id: str = "") -> Any:
    """A request of a caller from acme."""
    principal = Principal(
        key_id="ofthecaller0", tenant_id="acme", role="admin", permissions=held, networks=(), expires_ms=None,
        allowance=None,
    )  # fmt: skip
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SimpleNamespace(query=query, body=sent, principal=principal, path_params={"id": id})


def test_the_text_is_in_the_answer_that_makes_a_key_and_in_no_other(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(store)
        keys = KeyRing(house.keys)
        asked = {"name": "onboarding", "role": "viewer", "expires_at": "2099-01-01T00:00:00+01:00"}
        made = await keys.create(asking(asked))
        told = json.loads(made.body)
        assert made.status == 201
        assert (b"location", b"/v1/keys/" + told["id"].encode()) in made.headers
        assert recognise(told["key"].encode()) == told["id"]
        assert (told["expires_at"], told["created_by"], told["status"]) == (
            "2098-12-31T23:00:00.000Z",
            "ofthecaller0",
            "active",
        )
        answers = [
            await keys.list(asking()),
            await keys.rotate(asking(id=told["id"], query=b"overlap_s=60")),
            await keys.revoke(asking(id=told["id"])),
        ]
        assert [answer.status for answer in answers] == [200, 201, 200]
        digest = (await key_of(store, told["key"].encode())).digest
        for answer in answers:
            assert told["key"][21:].encode() not in answer.body
            assert digest.hex().encode() not in answer.body
            assert b"digest" not in answer.body
        assert json.loads(answers[2].body)["status"] == "revoked"

    play(sqlite, scenario)


@pytest.mark.parametrize(
    ("body", "refusal", "pointers"),
    [
        (b"", BodyUnreadable, []),
        (b"[1", BodyUnreadable, []),
        ([], BodyRefused, [""]),
        ({}, BodyRefused, ["/name", "/role"]),
        ({"name": "x", "role": "owner"}, BodyRefused, ["/role"]),
        (
            {"name": "x", "role": "viewer", "scopes": ["fly"], "networks": [1]},
            BodyRefused,
            ["/scopes/0", "/networks/0"],
        ),
        ({"name": "x", "role": "viewer", "expires_at": "2099-01-01"}, BodyRefused, ["/expires_at"]),
        ({"name": "x", "role": "viewer", "expires_at": "2099-01-01T00:00:00"}, BodyRefused, ["/expires_at"]),
        ({"name": "x", "role": "viewer", "expires_at": "9999-12-31T23:59:59-12:00"}, BodyRefused, ["/expires_at"]),
        ({"name": "x", "role": "viewer", "expires_at": "0001-01-01T00:00:00+12:00"}, BodyRefused, ["/expires_at"]),
        ({"name": "x", "role": "viewer", "tenant_id": "umbrella"}, BodyRefused, ["/tenant_id"]),
        (b'{"name":"x","name":"y","role":"viewer"}', BodyRefused, ["/name"]),
        ({"name": "a\0b", "role": "viewer"}, BodyRefused, ["/name"]),
    ],
)
def test_a_body_that_asks_for_no_key_is_explained(
    sqlite: SqliteStore, body: object, refusal: type[Refusal], pointers: list[str]
) -> None:
    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(refusal) as refused:
            await KeyRing(House(store).keys).create(asking(body))
        assert [fault.pointer for fault in refused.value.faults] == pointers
        assert await store.keys(None) == []

    play(sqlite, scenario)


def test_the_caller_gets_no_more_than_it_holds(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(store)
        keys = KeyRing(house.keys)
        raw = await house.made("analyst")
        held: frozenset[Permission] = frozenset(("keys", "read"))
        with pytest.raises(Forbidden):
            await keys.create(asking({"name": "x", "role": "assessor"}, held=held))
        with pytest.raises(Forbidden):
            await keys.rotate(asking(id=id_of(raw), held=held))
        made = await keys.create(asking({"name": "x", "role": "analyst", "scopes": ["read"]}, held=held))
        assert json.loads(made.body)["permissions"] == ["read"]

    play(sqlite, scenario)


def test_what_is_shown_of_a_key_says_what_became_of_it(sqlite: SqliteStore) -> None:
    async def scenario(store: SqliteStore) -> None:
        house = House(store)
        raw = await house.made("viewer")
        key = await key_of(store, raw)
        assert shown(key, now_ms()).status == "active"
        assert shown(replace(key, expires_ms=5), 5).status == "expired"
        assert shown(replace(key, expires_ms=6), 5).status == "active"
        assert shown(replace(key, expires_ms=5, revoked_ms=4), 5).status == "revoked"
        assert set(wire.Key.__struct_fields__) & {"key", "digest"} == set()

    play(sqlite, scenario)
