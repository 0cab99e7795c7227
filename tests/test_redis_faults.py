"""Redis is killed, cut off, stopped, filled and poisoned under running services: nobody is refused or waits for long,
and it is used again once it is well."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import pytest
import redis
from databases import Postgres, Valkey
from outage import (
    LATER_THREADS,
    NOBODY,
    RECOVERY_LIMIT_S,
    Held,
    backends,
    held,
    prepared,
    refused_in_time,
    timed,
    unavailable,
)
from proxy import Proxy
from service import TENANT, Answer, Client, Crowd, Service, named, serving, unique, wait_until

from app.cache.envelope import seal
from app.cache.invalidation import CHANNEL

CONFIG = """\
cache:
  local_entries: 100    # fewer than the tests read in turn, so that Redis is asked every time
breaker:
  window: 1s            # how soon it opens under a load that is steady until then
"""

ASSESSMENTS = 300
CALLERS = 8
DATABASE_CONNECTIONS = 4

ANSWER_LIMIT_S = 1.0
"""The longest that anybody waits, whatever becomes of Redis."""

REVOCATION_LIMIT_S = 5.0
"""The longest that a key works on which was revoked where this pod cannot see it."""

UNHELD_S = 0.1
"""Nine of ten are answered sooner while the breaker is open. Who waits for Redis in vain waits three times as long."""

GROWTH_BYTES = 16 * 2**20


class Reads:
    """Assessments that are read in turn, and what each read is answered."""

    def __init__(self, service: Service, number: int) -> None:
        items = [named(f"Read {place} Ltd", id=unique("read")) for place in range(number)]
        client = service.client()
        # What a batch records, no pod keeps.
        answer = client.post("/v1/assessments/batch", {"items": items})
        assert {item["status"] for item in answer.json["items"]} == {201}, answer
        self.ids: list[str] = [item["assessment"]["id"] for item in answer.json["items"]]
        self.bodies = {item["assessment"]["id"]: item["assessment"] for item in answer.json["items"]}

    def read(self, client: Client, id: str) -> Answer:
        answer = client.get(f"/v1/assessments/{id}")
        assert answer.status == 200, answer
        assert answer.json == self.bodies[id]
        return answer


class Pod(NamedTuple):
    """A service that reaches its Redis over a link, and what is read of it."""

    service: Service
    valkey: Valkey
    link: Proxy
    reads: Reads
    postgres: Postgres

    @property
    def worker(self) -> int:
        [worker] = self.service.workers()
        return worker

    def held(self) -> Held:
        """What its worker holds, without connections to the database: one that was lost is made anew when needed."""
        connected = len(backends(self.postgres, self.service.settings["DATABASE_URL"]))
        assert connected <= DATABASE_CONNECTIONS
        holding = held(self.worker)
        return holding._replace(files=holding.files - connected)

    def wait_until_it_listens(self) -> None:
        wait_until(lambda: subscriptions(self.valkey), "it hears what other pods made invalid", RECOVERY_LIMIT_S)


@pytest.fixture(scope="module")
def pod(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Every test leaves its Redis well and used."""
    with Valkey() as valkey, Proxy(valkey.port) as link:
        settings = {"DATABASE_URL": prepared(postgres), "REDIS_URL": through(link, valkey)}
        # All connections to the database that there may be are open from the start.
        settings |= {"DB_MAX_CONNECTIONS": "14", "DB_IDLE_CONNECTIONS": "4"}
        with serving(tmp_path_factory.mktemp("pod"), CONFIG, **settings) as service:
            yield Pod(service, valkey, link, Reads(service, ASSESSMENTS), postgres)


def through(link: Proxy, valkey: Valkey) -> str:
    return valkey.url().replace(f":{valkey.port}/", f":{link.port}/")


def hits(valkey: Valkey) -> int:
    """How often a key was found since the server was started."""
    return int(valkey.command("INFO", "stats")["keyspace_hits"])


class Load:
    """Callers who read in turn and record now and then, none of them ever refused.  took_s: of each request."""

    def __init__(self, pod: Pod) -> None:
        self.took_s: list[float] = []
        self._pod = pod
        self._turns = itertools.count()
        self._ids = itertools.cycle(pod.reads.ids)

    @contextmanager
    def on(self) -> Iterator[None]:
        crowd = Crowd(self._pod.service, CALLERS, self._work)
        with crowd:
            yield
        assert crowd.lost == 0
        assert max(self.took_s) <= ANSWER_LIMIT_S

    def wait_for_requests(self, number: int) -> Sequence[float]:
        """How long each of so many more took."""
        done = len(self.took_s)
        wait_until(lambda: len(self.took_s) >= done + number, f"{number} more requests are answered")
        return self.took_s[done : done + number]

    def wait_for_hits(self, number: int) -> None:
        """Wait until Redis is used: it has so many answers."""
        valkey = self._pod.valkey
        reached = hits(valkey) + number
        wait_until(lambda: hits(valkey) >= reached, "Redis is used again", RECOVERY_LIMIT_S)

    def _work(self, client: Client) -> None:
        if next(self._turns) % 10 == 0:
            profile = named("Written Ltd", id=unique("written"))
            answer, took_s = timed(lambda: client.assess(profile, {"Idempotency-Key": profile["business"]["id"]}))
            assert answer.status == 201, answer
        else:
            id = next(self._ids)
            _, took_s = timed(lambda: self._pod.reads.read(client, id))
        self.took_s.append(took_s)


@contextmanager
def steady(pod: Pod) -> Iterator[Load]:
    """A load on a pod that is as it was before in the end, and used Redis all the time before and after the block."""
    load = Load(pod)
    with load.on():
        load.wait_for_hits(ASSESSMENTS)
        pod.wait_until_it_listens()
        before = pod.held()
        yield load
        load.wait_for_hits(ASSESSMENTS)
        pod.wait_until_it_listens()
        wait_until(lambda: pod.held().files <= before.files, "nothing is left open", RECOVERY_LIMIT_S)
        after = pod.held()
        assert after.threads <= before.threads + LATER_THREADS
        assert after.memory_bytes <= before.memory_bytes + GROWTH_BYTES


FAULTS: dict[str, tuple[Callable[[Pod], Any], Callable[[Pod], Any]]] = {
    "killed": (lambda pod: pod.valkey.kill(), lambda pod: pod.valkey.start()),
    "stopped": (lambda pod: pod.valkey.pause(), lambda pod: pod.valkey.resume()),
    "silent": (lambda pod: pod.link.black_hole(), lambda pod: pod.link.heal()),
    "reset": (lambda pod: pod.link.reset(), lambda pod: pod.link.heal()),
}
"""What is done to Redis, and how it ends."""


def breakers(client: Client) -> dict[str, str]:
    """The states of a pod's breakers, by what they stand before."""
    components = client.get("/health/detailed").json["components"]
    return {one["name"]: one["breaker"] for one in components if "breaker" in one}


@pytest.mark.parametrize("fault", FAULTS)
def test_with_redis_away_nobody_is_refused_or_waits_long_and_then_it_is_used_again(fault: str, pod: Pod) -> None:
    hurt, heal = FAULTS[fault]
    client = pod.service.client()
    assert breakers(client)["redis"] == "closed"
    with steady(pod) as load:
        hurt(pod)
        wait_until(lambda: breakers(client)["redis"] == "open", "the breaker opens")
        *_, slow_s = quantiles(load.wait_for_requests(1000), n=10)
        assert slow_s <= UNHELD_S
        heal(pod)


def test_a_full_redis_costs_nobody_an_answer_and_is_used_again_once_there_is_room(pod: Pod) -> None:
    with steady(pod) as load:
        pod.valkey.config("maxmemory", "1")
        pod.valkey.flush()
        load.wait_for_requests(2 * ASSESSMENTS)
        assert pod.valkey.command("DBSIZE") == 0
        pod.valkey.config("maxmemory", "0")


def place(id: str, tenant_id: str = TENANT) -> bytes:
    """Where Redis holds an assessment."""
    return f"kyb:assessment:{{{tenant_id}}}:{id.replace('-', '')}".encode()


POISONS: dict[str, Callable[[Any, bytes, bytes, bytes], Any]] = {
    "another's": lambda client, place, own, other: client.set(place, other),
    "another tenant's": lambda client, place, own, other: client.set(place, own.replace(b"default", b"foreign")),
    "truncated": lambda client, place, own, other: client.set(place, own[: len(own) // 2]),
    "altered": lambda client, place, own, other: client.set(place, own[:-9] + bytes([own[-9] ^ 1]) + own[-8:]),
    "of an old version": lambda client, place, own, other: client.set(
        place, seal("assessment", "0", TENANT, bytes.fromhex(place.decode().rpartition(":")[2]), b"old")
    ),
    "garbage": lambda client, place, own, other: client.set(place, random.Random(place).randbytes(1000)),
    "empty": lambda client, place, own, other: client.set(place, b""),
    "of another type": lambda client, place, own, other: client.rpush(place, b"poison"),
}


def test_what_others_put_in_the_place_of_an_assessment_is_never_shown_and_replaced(pod: Pod) -> None:
    places = [place(id) for id in pod.reads.ids]
    with redis.Redis.from_url(pod.valkey.url()) as client, steady(pod) as load:
        wait_until(lambda: client.exists(*places) == len(places), "all are in Redis")
        own = dict(zip(places, client.mget(places), strict=True))
        for number, poison in enumerate(itertools.islice(itertools.cycle(POISONS.values()), len(places))):
            client.delete(places[number])
            poison(client, places[number], own[places[number]], own[places[number - 1]])
        load.wait_for_requests(2 * ASSESSMENTS)
        wait_until(lambda: client.mget(places) == list(own.values()), "all are as they were", RECOVERY_LIMIT_S)


def test_claims_that_nobody_will_end_hold_nobody_up_for_long(pod: Pod) -> None:
    with redis.Redis.from_url(pod.valkey.url()) as client, steady(pod):
        places = [place(id) for id in pod.reads.ids[:32]]
        for number, at in enumerate(places):
            claim = at + b":claim"
            client.delete(at, claim)
            if number % 2:
                client.set(claim, b"somebody's")
            else:
                client.rpush(claim, b"something else")
        wait_until(lambda: client.exists(*places) == len(places), "all are in Redis again", RECOVERY_LIMIT_S)


# Without the database


class Two(NamedTuple):
    """Two services on a database and a Redis that a test may do with what it likes."""

    one: Service
    two: Service
    postgres: Postgres
    valkey: Valkey


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Every test leaves both well."""
    with Postgres() as own_postgres, Valkey() as own_valkey:
        folder = tmp_path_factory.mktemp("two")
        settings = {"DATABASE_URL": prepared(own_postgres), "REDIS_URL": own_valkey.url()}
        with serving(folder / "one", **settings) as one, serving(folder / "two", **settings) as other:
            yield Two(one, other, own_postgres, own_valkey)


AWAY: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "killed": (lambda server: server.kill(), lambda server: server.start()),
    "stopped": (lambda server: server.pause(), lambda server: server.resume()),
}


@pytest.mark.parametrize("fault", AWAY)
def test_without_the_database_what_is_in_redis_is_answered_by_a_pod_that_never_saw_it(fault: str, two: Two) -> None:
    hurt, heal = AWAY[fault]
    known, unknown = Reads(two.one, 20), Reads(two.one, 1)
    mine, other = two.one.client(), two.two.client()
    for id in known.ids:
        known.read(mine, id)
    wait_until(lambda: two.valkey.command("EXISTS", *map(place, known.ids)) == len(known.ids), "all are in Redis")
    hurt(two.postgres)
    for id in known.ids:
        _, took_s = timed(lambda: known.read(other, id))  # noqa: B023
        assert took_s <= ANSWER_LIMIT_S
    for path in (f"/v1/assessments/{unknown.ids[0]}", f"/v1/assessments/{NOBODY}", "/v1/assessments"):
        refused_in_time(lambda: other.get(path))  # noqa: B023
    refused_in_time(lambda: other.assess(named("Late Ltd")))
    heal(two.postgres)
    for client in (mine, other):
        wait_until(lambda: is_well(client), "all is as it was", RECOVERY_LIMIT_S)  # noqa: B023
    unknown.read(other, unknown.ids[0])


@pytest.mark.parametrize("fault", AWAY)
def test_without_database_and_redis_a_pod_answers_until_it_knows_and_then_says_so(fault: str, two: Two) -> None:
    hurt, heal = AWAY[fault]
    known, unknown = Reads(two.one, 1), Reads(two.one, 1)
    client = two.one.client()
    [id] = known.ids
    known.read(client, id)
    # At once, as when a site loses its network.
    hurt(two.valkey)
    hurt(two.postgres)
    end = time.monotonic() + 1.0
    answer = client.get(f"/v1/assessments/{id}")
    while answer.status == 200:
        assert answer.json == known.bodies[id]
        assert time.monotonic() < end, "it goes on answering what it cannot know to be so still"
        answer, took_s = timed(lambda: client.get(f"/v1/assessments/{id}"))
        assert took_s <= ANSWER_LIMIT_S
    unavailable(answer)
    for path in (f"/v1/assessments/{id}", f"/v1/assessments/{unknown.ids[0]}", "/v1/assessments"):
        refused_in_time(lambda: client.get(path))  # noqa: B023
    refused_in_time(lambda: client.assess(named("Late Ltd")))
    # Nor can it know whose a key is: of that it hears over the same link.
    dry = partial(client.assess, named("Dry Ltd"), dry_run=True)
    wait_until(
        lambda: dry().status != 200, "a key that may have been revoked is no longer believed", REVOCATION_LIMIT_S
    )
    refused_in_time(dry)
    assert client.get("/health").status == 200
    heal(two.postgres)
    heal(two.valkey)
    for each in (client, two.two.client()):
        wait_until(lambda: is_well(each), "all is as it was", RECOVERY_LIMIT_S)  # noqa: B023
    for reads in (known, unknown):
        reads.read(client, reads.ids[0])


def is_well(client: Client) -> bool:
    """Whether a pod records and reads, and leaves neither its database nor its Redis alone."""
    batch = client.post("/v1/assessments/batch", {"items": [named("Well Ltd")]})
    if batch.status != 200:
        # It cannot tell yet whose the key is.
        unavailable(batch)
        return False
    recorded = [item["assessment"]["id"] for item in batch.json["items"] if item["status"] == 201]
    paths = ["/v1/assessments", *(f"/v1/assessments/{id}" for id in recorded)]
    statuses = [client.get(path).status for path in paths]
    return statuses == [200, 200] and set(breakers(client).values()) == {"closed"}


# Its connections

POOL_CONFIG = """\
cache: {local_entries: 100}
redis: {min_idle_conns: 4, max_conn_age: 1s}
"""
POOL_SIZE = 8
WORKERS = 2
KEPT_OPEN = 4 + WORKERS
"""By both workers together while nobody asks: the idle ones, and a subscription each."""


def connections(valkey: Valkey) -> dict[int, dict[str, str]]:
    """The connections to a Redis by their ids, but for the one that asks."""
    lines = valkey.command("CLIENT", "LIST").decode().splitlines()
    found = [dict(field.split("=", 1) for field in line.split()) for line in lines]
    return {int(one["id"]): one for one in found if one["cmd"] != "client|list"}


def subscriptions(valkey: Valkey) -> set[int]:
    return {id for id, one in connections(valkey).items() if one["sub"] != "0"}


def test_a_pod_keeps_to_its_connections_and_renews_them(postgres: Postgres, tmp_path: Path) -> None:
    with Valkey() as valkey:
        settings = {"DATABASE_URL": prepared(postgres), "REDIS_URL": valkey.url()}
        settings |= {"WORKERS": str(WORKERS), "REDIS_POOL_SIZE": str(POOL_SIZE)}
        with serving(tmp_path / "service", POOL_CONFIG, **settings) as service:
            wait_until(
                lambda: (len(connections(valkey)), len(subscriptions(valkey))) == (KEPT_OPEN, WORKERS),
                "the idle connections and the subscriptions are open",
            )
            reads = Reads(service, 200)
            ids = itertools.cycle(reads.ids)
            for crowd in (nullcontext(), Crowd(service, 16, lambda client: reads.read(client, next(ids)))):
                first = set(connections(valkey)) - subscriptions(valkey)
                with crowd:
                    wait_until(lambda: keeps_to(valkey) and not first & set(connections(valkey)), "all were renewed")  # noqa: B023
            with Crowd(service, 16, lambda client: reads.read(client, next(ids))):
                for _ in range(3):
                    before = set(connections(valkey))
                    for kind in ("normal", "pubsub"):
                        valkey.command("CLIENT", "KILL", "TYPE", kind)
                    wait_until(
                        lambda: keeps_to(valkey) and len(subscriptions(valkey) - before) == WORKERS,  # noqa: B023
                        "both listen again",
                    )
                wait_until(
                    lambda: keeps_to(valkey) and len(connections(valkey)) == KEPT_OPEN, "as many as before are open"
                )


def keeps_to(valkey: Valkey) -> bool:
    assert len(connections(valkey)) <= POOL_SIZE
    return True


# At the start


def test_a_pod_starts_without_redis_says_so_once_and_uses_it_when_it_appears(
    postgres: Postgres, tmp_path: Path
) -> None:
    valkey = Valkey()
    settings = {"DATABASE_URL": prepared(postgres), "REDIS_URL": valkey.url(), "LOG_LEVEL": "info"}
    try:
        with serving(tmp_path / "service", CONFIG, **settings) as service:
            reads, client = Reads(service, 200), service.client()
            for id in reads.ids:
                _, took_s = timed(lambda: reads.read(client, id))  # noqa: B023
                assert took_s <= ANSWER_LIMIT_S
            [once] = said(service)
            assert "Redis is away" in once
            valkey.start()
            wait_until(lambda: is_well(client) and hits(valkey), "Redis is used", RECOVERY_LIMIT_S)
            wait_until(lambda: valkey.command("PUBSUB", "NUMSUB", CHANNEL)[1] == 1, "it listens", RECOVERY_LIMIT_S)
            assert "there again" in said(service)[-1]
            assert len(said(service)) == 2
    finally:
        valkey.remove()


def said(service: Service) -> list[str]:
    """What the cache has logged."""
    return [line for line in service.logged().splitlines() if '"logger":"app.cache' in line]
