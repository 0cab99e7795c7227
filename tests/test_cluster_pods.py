"""Two services on one database and one Redis Cluster: what one does holds for the other, and nobody pays for a node."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from clusters import Node, ValkeyCluster
from databases import Postgres, Valkey
from outage import prepared
from service import Client, Service, keep_key, named, serving, unique, wait_until

from app.cache.invalidation import CHANNEL
from app.credentials import mint
from app.settings import load


class Pods(NamedTuple):
    one: Service
    two: Service
    cluster: ValkeyCluster

    def key(self, tenant: str, tier: str = "unlimited", role: str = "admin") -> str:
        """The text of a new key of the tenant."""
        text = mint("test").text
        settings = load({"DATA_DIR": str(self.one.folder / "data"), **self.one.settings}).settings
        asyncio.run(keep_key(settings, text, role, tenant, tier=tier))  # type: ignore[arg-type]
        return text

    def clients(self, text: str) -> tuple[Client, Client]:
        return self.one.client(text), self.two.client(text)

    @property
    def listeners(self) -> int:
        """How many processes hear what caches have to forget."""
        return sum(int(node.command("PUBSUB", "NUMSUB", CHANNEL)[1]) for node in self.cluster.nodes if node.running)


@pytest.fixture(scope="module")
def _pods(
    postgres: Postgres, lasting_cluster: ValkeyCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("pods")
    settings = {
        "DATABASE_URL": prepared(postgres),
        "REDIS_CLUSTER": "true",
        "RATE_TIERS": "standard 200/s burst 400, few 1/h burst 40, unlimited unlimited",
        "RATE_SERVICE": "100000/s",
        "MAX_REPLICAS": "2",
    }
    first, *others = lasting_cluster.nodes
    with (
        serving(folder / "one", REDIS_URL=lasting_cluster.url(first), **settings) as one,
        serving(folder / "two", REDIS_URL=lasting_cluster.url(*others), **settings) as two,
    ):
        yield Pods(one, two, lasting_cluster)


@pytest.fixture
def pods(_pods: Pods, cluster: ValkeyCluster) -> Iterator[Pods]:
    """Both hear of what becomes invalid, before and after."""
    wait_until(lambda: _pods.listeners == 2, "both listen")
    yield _pods
    cluster.mend()
    wait_until(lambda: _pods.listeners == 2, "both listen again")
    for pod in (_pods.one, _pods.two):
        wait_until(lambda pod=pod: redis_of(pod)["status"] == "ok", "Redis is whole again")


def redis_of(pod: Service) -> dict[str, object]:
    """What a pod finds of its Redis."""
    components = pod.client().get("/health/detailed").json["components"]
    return next(one for one in components if one["name"] == "redis")


def granted(client: Client, times: int) -> int:
    return [client.get("/v1/assessments").status for _ in range(times)].count(200)


def test_the_rate_of_a_key_is_granted_once_by_both_wherever_it_is_kept(pods: Pods) -> None:
    for node in pods.cluster.nodes:
        clients = pods.clients(pods.key(pods.cluster.tenant_of(node), "few"))
        with ThreadPoolExecutor() as threads:
            assert sum(threads.map(granted, clients, itertools.repeat(30))) == 40


def decision(client: Client, path: str) -> str:
    return str(client.get(path).json["effective"]["decision"])


def test_what_one_changes_the_other_forgets_whichever_node_has_it(pods: Pods) -> None:
    for node in pods.cluster.nodes:
        writer, reader = pods.clients(pods.key(pods.cluster.tenant_of(node)))
        id = writer.recorded(named("Changed Ltd", id=unique("changed")))["id"]
        path = f"/v1/assessments/{id}"
        there = reader, path
        for client in (writer, reader):
            assert decision(client, path) != "decline"
        made = writer.post(f"{path}/overrides", {"decision": "decline", "reason": "seen by a person"})
        assert made.status in (200, 201), made
        wait_until(lambda there=there: decision(*there) == "decline", "the other has heard", 2.0)


def test_both_find_the_cluster_whole(pods: Pods) -> None:
    for pod in (pods.one, pods.two):
        found = redis_of(pod)
        assert (found["status"], found["breaker"]) == ("ok", "closed")
        figures = found["figures"]
        assert isinstance(figures, dict)
        assert (figures["nodes"], figures["slots_uncovered"]) == (3, 0)


def test_while_a_node_is_away_all_are_answered_and_it_is_told(pods: Pods) -> None:
    gone = pods.cluster.nodes[1]
    lost, kept = (pods.cluster.tenant_of(node) for node in (gone, pods.cluster.nodes[2]))
    exact = pods.key(kept, "few")
    away, there = pods.key(lost, "few"), pods.key(lost)
    clients = pods.clients(there)
    ids = [client.recorded(named("Lost Ltd", id=unique("lost")))["id"] for client in clients]
    gone.kill()
    for client, other in (clients, clients[::-1]):
        for id in ids:
            assert other.get(f"/v1/assessments/{id}").status == 200
        for _ in range(20):
            client.recorded(named("Late Ltd", id=unique("late")))
    # Of the node that is away each grants its part, of the others both together what there is.
    assert sum(granted(client, 45) for client in pods.clients(away)) == 40
    assert sum(granted(client, 30) for client in pods.clients(exact)) == 40
    for pod in (pods.one, pods.two):
        wait_until(lambda pod=pod: redis_of(pod)["status"] == "down", "it is told")
        assert is_named(gone, redis_of(pod)["problem"])
        assert pod.client().get("/health/ready").status == 200


def is_named(node: Node, problem: object) -> bool:
    return f"127.0.0.1:{node.port}" in str(problem) or "failed or was slow" in str(problem)


def test_a_slot_that_moves_under_load_costs_no_request(pods: Pods) -> None:
    old, new = pods.cluster.nodes[0], pods.cluster.nodes[1]
    tenant = pods.cluster.tenant_of(old)
    slot = pods.cluster.slot(tenant)
    text = pods.key(tenant)
    ids = [pods.one.client(text).recorded(named("Moved Ltd", id=unique("moved")))["id"] for _ in range(20)]

    def read(pod: Service) -> set[int]:
        client = pod.client(text)
        return {client.get(f"/v1/assessments/{id}").status for _ in range(10) for id in ids}

    with ThreadPoolExecutor() as threads:
        reading = threads.map(read, [pods.one, pods.two])
        old.give([(slot, slot)], new)
        assert [*reading] == [{200}, {200}]


def test_a_server_that_is_no_cluster_is_none_to_the_service(valkey: Valkey, tmp_path: Path) -> None:
    with serving(tmp_path, REDIS_URL=valkey.url(), REDIS_CLUSTER="true") as pod:
        assert pod.client().post("/v1/assessments?dry_run=true", named("Alone Ltd")).status == 200
        assert redis_of(pod)["problem"] == "no node of the cluster answers"
