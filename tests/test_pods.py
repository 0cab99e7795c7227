"""Several pods on one database and one Redis: what one does holds for all, whoever dies, is cut off or hangs up."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from databases import Postgres, Valkey, query
from outage import LATER_THREADS, Callers, held, prepared
from proxy import ABORT, HOST, Proxy
from service import KEY, TENANT, Answer, Client, Crowd, Json, Service, named, serving, unique, wait_until

from app.cache.invalidation import CHANNEL
from app.ids import now_ms
from app.neighbours import Tiers, make_store
from app.redaction import redact
from app.settings import load
from app.store.keeping import Keeping

ERASURE_LIMIT_S = 1.0
"""How long after an erasure any pod may still show what was erased."""

CUT_OFF_LIMIT_S = 2.0
"""The same for a pod that cannot hear of it: it has to notice that first."""

WARM_UP_S = 1.0
HANG_UP_S = 2.0
GROWTH_BYTES = 16 * 2**20
"""Of a process that was warm: what it once needed for many batches at a time, it keeps."""

COMPLAINTS = ("Traceback", '"stack":', '"status":500', "never retrieved", "was destroyed", "never awaited")
"""What a log must not hold, however clients behave."""


class Pods(NamedTuple):
    """Two services on the same database. redis_link: between Redis and the second."""

    one: Service
    two: Service
    url: str
    valkey: Valkey
    database_link: Proxy
    redis_link: Proxy

    @property
    def both(self) -> tuple[Service, Service]:
        return self.one, self.two


@pytest.fixture(scope="module")
def pods(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("pods")
    url = prepared(postgres)
    with Valkey() as valkey, Proxy(postgres.port) as database_link, Proxy(valkey.port) as redis_link:
        settings = {"DATABASE_URL": url.replace(f":{postgres.port}/", f":{database_link.port}/")}
        link_url = valkey.url().replace(f":{valkey.port}/", f":{redis_link.port}/")
        with (
            serving(folder / "one", REDIS_URL=valkey.url(), **settings) as one,
            serving(folder / "two", REDIS_URL=link_url, **settings) as two,
        ):
            yield Pods(one, two, url, valkey, database_link, redis_link)


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test finds both pods linked to Redis, and leaves them so."""
    yield
    if "pods" in request.fixturenames:
        pods: Pods = request.getfixturevalue("pods")
        pods.redis_link.heal()
        wait_until(lambda: listeners(pods.valkey) == 2, "both pods listen")


def listeners(valkey: Valkey) -> int:
    """How many pods hear of invalidations."""
    return int(valkey.command("PUBSUB", "NUMSUB", CHANNEL)[1])


# Many requests at once: threads would take turns.


def request(method: str, path: str, document: Json = None, **headers: str) -> bytes:
    body = b"" if document is None else json.dumps(document).encode()
    told = {"Host": HOST, "X-API-Key": KEY, "Content-Type": "application/json", "Content-Length": str(len(body))}
    told |= headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def keyed(path: str, document: Json, key: str) -> bytes:
    return request("POST", path, document, **{"Idempotency-Key": key})


def reading(id: str) -> bytes:
    return request("GET", f"/v1/assessments/{id}")


async def next_answer(reader: asyncio.StreamReader) -> Answer:
    head, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    answer = Answer(int(head.split()[1]), headers, b"")
    answer.body = await reader.readexactly(int(answer.headers.get("content-length", "0")))
    return answer


def converse(conversations: Sequence[tuple[Service, Sequence[bytes]]]) -> list[list[Answer]]:
    """The answers of each. Every conversation has a connection of its own, and all begin at once."""

    async def one(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], requests: Sequence[bytes]) -> list[Answer]:
        reader, writer = stream
        answers = []
        for data in requests:
            writer.write(data)
            answers.append(await next_answer(reader))
        writer.close()
        return answers

    async def all_of_them() -> list[list[Answer]]:
        connecting = [asyncio.open_connection(HOST, service.port) for service, _ in conversations]
        streams = await asyncio.gather(*connecting)
        async with asyncio.timeout(60):
            return await asyncio.gather(*map(one, streams, [requests for _, requests in conversations]))

    return asyncio.run(all_of_them())


def ask_both(pods: Pods, connections: int, *requests: bytes) -> list[Answer]:
    """All answers to the same requests over so many connections, to the pods in turn."""
    answers = converse([(pods.both[number % 2], requests) for number in range(connections)])
    return [answer for told in answers for answer in told]


def ask_each(service: Service, requests: Sequence[bytes], connections: int = 32) -> list[Answer]:
    """The answer to each request, in order."""
    told = converse([(service, requests[first::connections]) for first in range(connections)])
    return [told[place % connections][place // connections] for place in range(len(requests))]


def is_repeated(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def recorded(url: str, business_id: str) -> list[str]:
    """The ids of a business's assessments."""
    return [str(id) for (id,) in query(url, "SELECT id FROM assessments WHERE business_id = $1", business_id)]


# Idempotency


def test_five_hundred_requests_with_one_key_to_two_pods_record_once(pods: Pods) -> None:
    for _ in range(3):
        business_id, key = unique("business"), unique("key")
        profile = named("Once Ltd", id=business_id)
        answers = ask_both(pods, 500, keyed("/v1/assessments", profile, key))
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body for answer in answers}) == 1
        assert len({answer.headers["location"] for answer in answers}) == 1
        assert sum(not is_repeated(answer) for answer in answers) == 1
        assert recorded(pods.url, business_id) == [answers[0].json["id"]]


def test_a_batch_with_one_key_to_two_pods_is_recorded_once(pods: Pods) -> None:
    business_id, key = unique("business"), unique("key")
    items = [named(f"Item {place} Ltd", id=business_id) for place in range(50)]
    items[7] = {"business": {"name": "Nowhere Ltd"}}
    answers = ask_both(pods, 40, keyed("/v1/assessments/batch", {"items": items}, key))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert sum(not is_repeated(answer) for answer in answers) == 1
    told = [item["assessment"]["id"] for item in answers[0].json["items"] if item["status"] == 201]
    assert len(told) == 49
    assert sorted(recorded(pods.url, business_id)) == sorted(told)


@pytest.mark.parametrize("path", ["/v1/assessments", "/v1/assessments/batch"])
def test_a_key_used_in_one_pod_is_refused_for_another_body_in_the_other(path: str, pods: Pods) -> None:
    business_id, key = unique("business"), {"Idempotency-Key": unique("key")}
    mine, other = (named(name, id=business_id) for name in ("Mine Ltd", "Other Ltd"))
    if path.endswith("batch"):
        mine, other = {"items": [mine]}, {"items": [other]}
    one, two = (pod.client() for pod in pods.both)
    first = one.post(path, mine, key)
    assert first.status in (200, 201)
    refused = two.post(path, other, key)
    assert (refused.status, refused.json["type"]) == (422, "/problems/idempotency-key-reused")
    again = two.post(path, mine, key)
    assert (again.status, again.body, is_repeated(again)) == (first.status, first.body, True)
    assert len(recorded(pods.url, business_id)) == 1


def test_a_key_used_in_a_pod_that_was_killed_is_repeated_by_another(pods: Pods) -> None:
    """What was acknowledged is given again; what was not, takes effect once."""
    told: dict[str, Answer] = {}
    names = [unique("killed") for _ in range(2000)]
    unasked = iter(names)

    def work(client: Client) -> None:
        name = next(unasked)
        told[name] = client.assess(named("Killed Ltd", id=name), {"Idempotency-Key": name})

    with serving(pods.one.folder.parent / "killed", **pods.one.settings) as killed:
        crowd = Crowd(killed, 8, work)
        with crowd:
            wait_until(lambda: len(told) >= 200, "the pod records")
            killed.kill()
            wait_until(lambda: crowd.lost, "the pod is gone")
    # Of those asked for last it is not known whether they were recorded.
    sent = names[: len(told) + 8]
    acknowledged = {name: answer.body for name, answer in told.items()}
    assert {answer.status for answer in told.values()} == {201}
    for pod in pods.both:
        answers = ask_each(pod, [keyed("/v1/assessments", named("Killed Ltd", id=name), name) for name in sent])
        assert {answer.status for answer in answers} == {201}
        for name, answer in zip(sent, answers, strict=True):
            assert answer.body == acknowledged.setdefault(name, answer.body)
    counts = query(
        pods.url, "SELECT business_id, count(*) FROM assessments WHERE business_id LIKE 'killed-%' GROUP BY 1"
    )
    assert sorted((name, count) for name, count in counts) == sorted((name, 1) for name in sent)


# The cache that they share


def cold(pod: Service, number: int) -> list[str]:
    """The ids of so many new assessments. What a batch records no pod keeps."""
    items = [named(f"Cold {place} Ltd", id=unique("cold")) for place in range(number)]
    answer = pod.client().post("/v1/assessments/batch", {"items": items})
    return [item["assessment"]["id"] for item in answer.json["items"]]


def test_however_many_ask_two_pods_for_a_cold_assessment_the_database_is_asked_once(pods: Pods) -> None:
    for_one, *for_many = cold(pods.one, 4)
    once = times_sent(pods, for_one, connections=1)
    assert once
    for id in for_many:
        assert times_sent(pods, id, connections=500) == once, [pod.logged()[-1000:] for pod in pods.both]


def times_sent(pods: Pods, id: str, connections: int) -> int:
    """How often an id goes to the database while so many connections to both pods read it ten times each.

    A query may hold it more than once.
    """
    pattern = uuid.UUID(id).bytes
    before = pods.database_link.count(pattern)
    answers = ask_both(pods, connections, *[reading(id)] * 10)
    assert len(answers) == connections * 10
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    return pods.database_link.count(pattern) - before


def erase(pods: Pods, business_id: str) -> None:
    """Take a business's name from its assessments as a process of its own would: in the database, then in every pod."""
    settings = load({"DATABASE_URL": pods.url, "REDIS_URL": pods.valkey.url()}).settings

    async def run() -> None:
        store, tiers = make_store(settings), Tiers(settings)
        await store.open()
        await tiers.open()
        try:
            keeping = cast(Keeping, store)
            done = await keeping.erase(TENANT, business_id, reason="asked", redact=redact, now_ms=now_ms())
            assert done.assessments
            assert await tiers.of_assessments().invalidate(TENANT, done.ids)
        finally:
            await tiers.close()
            await store.close()

    asyncio.run(run())


class Read:
    """An assessment that both pods have at hand."""

    def __init__(self, pods: Pods) -> None:
        self.business_id = unique("erased")
        self.id = pods.one.client().recorded(named("Erased Ltd", id=self.business_id))["id"]
        self._clients = {pod: pod.client() for pod in pods.both}
        for pod in pods.both:
            assert self.shown(pod) == self.business_id

    def shown(self, pod: Service) -> str | None:
        """The business that a pod says it is of."""
        answer = self._clients[pod].get(f"/v1/assessments/{self.id}")
        assert answer.status == 200, answer
        return answer.json["business_id"]

    def wait_for_erasure(self, pod: Service, limit_s: float) -> None:
        wait_until(lambda: self.shown(pod) is None, "the pod shows the assessment as it is now", limit_s)


def test_an_erasure_reaches_every_pod_within_a_second(pods: Pods) -> None:
    read = Read(pods)
    erase(pods, read.business_id)
    for pod in pods.both:
        read.wait_for_erasure(pod, ERASURE_LIMIT_S)


@pytest.mark.parametrize("cut", [Proxy.black_hole, Proxy.reset], ids=["silent", "reset"])
def test_a_pod_cut_off_from_redis_does_not_go_on_showing_what_was_erased(
    cut: Callable[[Proxy], None], pods: Pods
) -> None:
    read = Read(pods)
    cut(pods.redis_link)
    erase(pods, read.business_id)
    read.wait_for_erasure(pods.two, CUT_OFF_LIMIT_S)
    read.wait_for_erasure(pods.one, ERASURE_LIMIT_S)
    pods.redis_link.heal()
    wait_until(lambda: listeners(pods.valkey) == 2, "the pod listens again")
    again = Read(pods)
    erase(pods, again.business_id)
    again.wait_for_erasure(pods.two, ERASURE_LIMIT_S)


# Clients that hang up


class Fickle:
    """Callers who send a request under a key and are gone at a random moment.  asked: the items under each key."""

    def __init__(self, service: Service) -> None:
        self.asked: dict[str, list[Json]] = {}
        self._port = service.port

    def run(self, callers: int, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(lambda seed: self._hang_up_until(end, random.Random(seed)), range(callers)))

    def _hang_up_until(self, end: float, chance: random.Random) -> None:
        while time.monotonic() < end:
            key = unique("fickle")
            items = [named("Fickle Ltd", id=f"{key}-{place}") for place in range(chance.choice((1, 1, 1, 8)))]
            self.asked[key] = items
            self._hang_up(keyed_items(items, key), chance)

    def _hang_up(self, data: bytes, chance: random.Random) -> None:
        with socket.create_connection((HOST, self._port)) as connection, suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            manner = chance.choice(("while sending", "at once", "while waiting", "while reading"))
            connection.sendall(data[: chance.randrange(len(data))] if manner == "while sending" else data)
            if manner == "while waiting":
                time.sleep(chance.random() * 0.01)
            elif manner == "while reading":
                connection.recv(chance.randrange(1, 4096))


def keyed_items(items: Sequence[Json], key: str) -> bytes:
    """A request under a key: a batch where there are many items."""
    if len(items) == 1:
        return keyed("/v1/assessments", items[0], key)
    return keyed("/v1/assessments/batch?explain=full", {"items": items}, key)


def test_clients_that_hang_up_leave_nothing_behind_and_take_effect_once(
    postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    url = prepared(postgres)
    # All connections that there may be are open from the start.
    settings = {"DATABASE_URL": url, "REDIS_URL": valkey.url(2), "DB_MAX_CONNECTIONS": "14", "DB_IDLE_CONNECTIONS": "4"}
    with serving(tmp_path / "service", "cache: {local_bytes: 1MiB}\n", **settings) as service:
        [worker] = service.workers()
        before = held(worker)
        fickle, callers = Fickle(service), Callers()
        with callers.among(service, 2) as crowd:
            fickle.run(8, WARM_UP_S)
            warm = held(worker)
            fickle.run(8, HANG_UP_S)
        assert crowd.lost == 0
        assert not callers.refused
        wait_until(lambda: held(worker).files <= before.files, "no connection is left open")
        after = held(worker)
        assert after.threads <= before.threads + LATER_THREADS
        assert after.memory_bytes <= warm.memory_bytes + GROWTH_BYTES
        answers = ask_each(service, [keyed_items(items, key) for key, items in fickle.asked.items()])
        assert {answer.status for answer in answers} == {200, 201}
        # Some took effect although nobody waited for it, others did not.
        assert {is_repeated(answer) for answer in answers} == {True, False}
        businesses = [item["business"]["id"] for items in fickle.asked.values() for item in items]
        found = query(url, "SELECT business_id FROM assessments WHERE business_id LIKE 'fickle-%'")
        assert sorted(business_id for (business_id,) in found) == sorted(businesses)
        callers.check(url, service)
        assert service.terminate() == 0
        assert not [complaint for complaint in COMPLAINTS if complaint in service.logged()], service.logged()
