"""The cache over a real Redis Cluster: each key where it belongs, whatever moves, whoever is away."""

from __future__ import annotations

import asyncio

import pytest
from cached import KEY, PATIENCE_S, TIMEOUT_S, Pod, Source, play, running, until
from clusters import FORMING_MS, Node, ValkeyCluster
from hypothesis import given
from hypothesis import strategies as st

from app.cache.envelope import tenant_bytes
from app.cache.invalidation import CHANNEL
from app.cache.local import MISSING
from app.cache.redis import OWED_AT_ONCE
from app.cache.slots import slot_of, spans, tag
from app.limits.census import SCRIPT, Census


def over(cluster: ValkeyCluster, *seeds: Node, timeout_s: float = 5.0, claim_ttl_s: float = 30.0) -> Pod:
    return Pod(cluster.url(*seeds), claim_ttl_s, timeout_s, cluster=True)


def place(pod: Pod, tenant: str, key: bytes = KEY) -> bytes:
    return pod.cache._places(tenant, key)[0]


async def learnt(pod: Pod, key: bytes, node: Node) -> None:
    """Wait until the pod takes this node to have the key."""

    def known() -> bool:
        found = pod.nodes.node_of(key)
        return found is not None and found.address[1] == node.port

    await until(known, "the pod knows who has the key")


async def until_answered(pod: Pod, key: bytes) -> None:
    async with asyncio.timeout(30):
        while True:
            if (await pod.redis.get(key)).answered:
                return
            await asyncio.sleep(0.01)


@given(
    st.text(max_size=12),
    st.sampled_from(["", "{", "}", "{}", "}{", "a}", "%7D", "%"]),
    st.binary(min_size=1, max_size=3),
)
def test_what_belongs_to_one_tenant_is_in_one_slot(text: str, odd: str, key: bytes) -> None:
    tenant = odd + text
    pod = Pod(None)
    value, claim = pod.cache._places(tenant, key)
    assert slot_of(value) == slot_of(claim)
    if tenant:
        whose = tag(tenant_bytes(tenant))
        assert {slot_of(b"kyb:limit:{%b}:tenant" % whose), slot_of(whose)} == {slot_of(value)}


@given(st.text(max_size=5), st.text(max_size=5))
def test_no_two_tenants_are_taken_for_one(one: str, other: str) -> None:
    if one != other:
        assert tag(tenant_bytes(one)) != tag(tenant_bytes(other))


def test_slots_are_as_the_servers_have_them(cluster: ValkeyCluster) -> None:
    for key in (b"", b"kyb", b"{a}b", b"a{b}c", b"{}a", b"a{b", b"a}b{c}", b"{a}{b}", bytes(range(256))):
        assert slot_of(key) == cluster.slot(key)


def test_what_is_no_list_of_slots_is_refused() -> None:
    at = ("127.0.0.1", 7000)
    assert spans([[0, 5, [b"", 7001, b"id"]], [6, 9, [None, 7002, b"id", []], [b"r", 1, b"id"]]], at) == [
        (0, 5, ("127.0.0.1", 7001)),
        (6, 9, ("127.0.0.1", 7002)),
    ]
    assert spans([[0, 5, [b"?", 7001, b"id"]], [0, 20000, [b"a", 7001, b"id"]]], at) == []
    for told in (None, b"OK", [1], [[0, 1]], [[0, 1, 2]], [[b"a", 1, [b"h", 1]]]):
        with pytest.raises(ValueError, match="CLUSTER SLOTS"):
            spans(told, at)


def test_pods_share_what_one_has_loaded_wherever_it_is_kept(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one, two = over(cluster), over(cluster, cluster.nodes[1])
        tenants = [f"shared-{number}" for number in range(40)]
        async with running(one, two):
            await asyncio.gather(*(one.get(Source(name.encode()), tenant_id=name) for name in tenants))
            await asyncio.gather(*(one.redis.get(place(one, name)) for name in tenants))
            source = Source(b"loaded again")
            assert await asyncio.gather(*(two.get(source, tenant_id=name) for name in tenants)) == [
                name.encode() for name in tenants
            ]
            assert source.asked == 0
            assert {cluster.owner(place(one, name)).port for name in tenants} == {n.port for n in cluster.nodes}
            assert not one.redis.errors
            assert not two.redis.errors

    play(scenario)


def test_what_one_turn_wants_is_one_call_to_each_node_and_one_read_of_each_slot(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod = over(cluster)
        tenants = [cluster.tenant_of(node, start) for node in cluster.nodes for start in (0, 500)]
        keys = [place(pod, tenant, b"%d" % number) for number in range(20) for tenant in tenants]
        async with running(pod, linked=False):
            for node in cluster.nodes:
                await until(lambda node=node: not pod.redis.way.waiting)
            reads, sent = [node.calls("mget") for node in cluster.nodes], pod.redis.round_trips
            found = await asyncio.gather(*(pod.redis.get(key) for key in keys))
            assert all(answered for answered, _ in found)
            # Who has which slots is asked for meanwhile, too.
            assert 3 <= pod.redis.round_trips - sent <= 4
            assert [node.calls("mget") - read for node, read in zip(cluster.nodes, reads, strict=True)] == [2, 2, 2]

    play(scenario)


def test_all_pods_hear_what_became_invalid_whichever_node_they_listen_to(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pods = [over(cluster) for _ in range(4)]
        tenants = [cluster.tenant_of(node) for node in cluster.nodes]
        # The tests before may have left some there.
        source = Source(b"old")
        async with running(*pods):
            heard_at = [int(node.command("PUBSUB", "NUMSUB", CHANNEL)[1]) for node in cluster.nodes]
            assert sum(heard_at) == 4
            for tenant in tenants:
                assert await pods[0].cache.invalidate(tenant, [KEY])
                for pod in pods:
                    assert await pod.get(source, tenant_id=tenant) == b"old"
                assert await pods[0].cache.invalidate(tenant, [KEY])
                await until(lambda t=tenant: all(pod.cache.peek(t, KEY) is MISSING for pod in pods), "all have heard")
                assert cluster.command(place(pods[0], tenant).decode(), "EXISTS", place(pods[0], tenant)) == 0

    play(scenario)


def test_each_process_that_listens_is_counted_once(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pods = [over(cluster) for _ in range(5)]
        async with running(*pods):
            assert len(await pods[0].redis.evaluate_each(SCRIPT, CHANNEL)) == 3
            told: list[int] = []
            census = Census(pods[0].redis, 1, told.append)
            census.start()
            await until(lambda: told == [5], "all are counted")
            await census.stop()

    play(scenario)


def test_a_slot_that_moves_keeps_its_values_and_its_new_place_is_learnt(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod, source = over(cluster), Source(b"value")
        old, new = cluster.nodes[0], cluster.nodes[1]
        tenant = cluster.tenant_of(old)
        keys = [b"%d" % number for number in range(30)]
        slot = cluster.slot(place(pod, tenant))
        async with running(pod, linked=False):
            await asyncio.gather(*(pod.get(source, key, tenant) for key in keys))
            await pod.redis.get(place(pod, tenant))
            asking = asyncio.create_task(asked_on_and_on(pod, tenant, keys))
            await asyncio.to_thread(cluster.begin_move, slot, old, new)
            half = [place(pod, tenant, key) for key in keys[::2]]
            await asyncio.to_thread(cluster.move_keys, old, new, *half)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(cluster.end_move, slot, old, new)
            await learnt(pod, place(pod, tenant), new)
            asking.cancel()
            assert await asked(pod, tenant, keys) == [b"value"] * 30
            assert old.errors("ASK") > 0
            moved = old.errors("MOVED")
            assert await asked(pod, tenant, keys) == [b"value"] * 30
            assert old.errors("MOVED") == moved
            with pytest.raises(asyncio.CancelledError):
                await asking

    play(scenario)


async def asked(pod: Pod, tenant: str, keys: list[bytes]) -> list[bytes]:
    """What Redis has for these keys, without the local tier; each has to be answered."""
    found = await asyncio.gather(*(pod.redis.get(place(pod, tenant, key)) for key in keys))
    assert all(one.answered for one in found)
    assert all(one.value is not None for one in found)
    return [b"value" if one.value and b"value" in one.value else b"" for one in found]


async def asked_on_and_on(pod: Pod, tenant: str, keys: list[bytes]) -> None:
    while True:
        assert await asked(pod, tenant, keys) == [b"value"] * len(keys)


def test_where_a_slot_has_moved_to_is_known_from_the_first_answer(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod = over(cluster)
        pod.nodes._every_s = 3600
        old, new = cluster.nodes[1], cluster.nodes[2]
        tenant = cluster.tenant_of(old)
        slot = cluster.slot(tenant)
        async with running(pod, linked=False):
            assert (await pod.redis.get(place(pod, tenant))).answered
            old.give([(slot, slot)], new)
            assert (await pod.redis.get(place(pod, tenant))).answered
            found = pod.nodes.node_of(place(pod, tenant))
            assert found is not None
            assert found.address[1] == new.port

    play(scenario)


def test_while_a_slot_moves_what_needs_several_of_its_keys_is_refused_and_the_rest_done(
    cluster: ValkeyCluster,
) -> None:
    async def scenario() -> None:
        pod, other = over(cluster, claim_ttl_s=0.3), over(cluster, claim_ttl_s=0.3)
        old, new = cluster.nodes[2], cluster.nodes[0]
        tenant = cluster.tenant_of(old)
        here, there = b"here", b"there"
        slot = cluster.slot(place(pod, tenant))
        async with running(pod, other):
            for key in (here, there):
                await pod.get(Source(b"old"), key, tenant)
                await pod.redis.get(place(pod, tenant, key))
            cluster.begin_move(slot, old, new)
            cluster.move_keys(old, new, place(pod, tenant, there))
            # Both are deleted, wherever they are, and all hear of it.
            await other.get(Source(b"unused"), here, tenant)
            assert other.cache.peek(tenant, here) == b"old"
            assert await pod.cache.invalidate(tenant, [here, there])
            await until(lambda: other.cache.peek(tenant, here) is MISSING)
            for node in (old, new):
                assert node.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
            # A value that cannot be put there is answered all the same.
            source = Source(b"new")
            assert await pod.timed_get(source, b"another", tenant) < PATIENCE_S
            cluster.end_move(slot, old, new)
            await learnt(pod, place(pod, tenant), new)
            assert await pod.get(source, b"later", tenant) == b"new"
            await pod.redis.get(place(pod, tenant, b"later"))
            assert new.command("EXISTS", place(pod, tenant, b"later")) == 1

    play(scenario)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_node_that_is_away_costs_time_and_no_answer(cluster: ValkeyCluster, fault: str) -> None:
    async def scenario() -> None:
        pod = over(cluster, timeout_s=TIMEOUT_S)
        gone = cluster.nodes[1]
        lost, kept = cluster.tenant_of(gone), cluster.tenant_of(cluster.nodes[2])
        async with running(pod, linked=False):
            await pod.get(Source(b"kept"), tenant_id=kept)
            await pod.redis.get(place(pod, kept))
            if fault == "killed":
                gone.kill()
            else:
                gone.pause()
            for number in range(20):
                source = Source(b"%d" % number)
                assert await pod.timed_get(source, b"%d" % number, lost) < PATIENCE_S
                assert source.asked == 1
                assert (await pod.redis.get(place(pod, kept))).value is not None
            assert await pod.redis.way.problem() == f"of 3 nodes 1 without an answer: 127.0.0.1:{gone.port}"
            assert (pod.redis.way.breaker.state, pod.redis.way.is_away) == ("open", False)
            if fault == "killed":
                gone.start()
            else:
                gone.resume()
            cluster.wait_until_well()
            await until_answered(pod, place(pod, lost))
            await until(lambda: pod.redis.way.breaker.state == "closed")
            await pod.get(Source(b"again"), b"again", lost)
            assert (await pod.redis.get(place(pod, lost, b"again"))).value is not None
            assert await pod.redis.way.problem() is None

    play(scenario)


def test_a_node_that_hangs_holds_up_nobody_elses_keys(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod = over(cluster, timeout_s=1.5)
        gone = cluster.nodes[0]
        lost, kept = cluster.tenant_of(gone), cluster.tenant_of(cluster.nodes[1])
        async with running(pod, linked=False):
            gone.pause()
            waiting = asyncio.create_task(pod.redis.get(place(pod, lost)))
            for _ in range(20):
                assert (await pod.redis.get(place(pod, kept))).answered
            assert not waiting.done()
            assert not (await waiting).answered
            gone.resume()

    play(scenario)


def test_a_cluster_that_refuses_to_serve_as_it_is_not_whole_costs_no_answer(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod = over(cluster)
        tenant = cluster.tenant_of(cluster.nodes[0])
        async with running(pod, linked=False):
            await pod.get(Source(), tenant_id=tenant)
            cluster.nodes[2].kill()
            await until(lambda: cluster.nodes[0].info()["cluster_state"] == "fail", limit_s=60)
            refused = pod.redis.errors["refused"]
            for number in range(20):
                assert await pod.timed_get(Source(b"value"), b"%d" % number, tenant) < PATIENCE_S
            assert pod.redis.errors["refused"] > refused
            problem = await pod.redis.way.problem()
            assert problem is not None
            assert f"127.0.0.1:{cluster.nodes[2].port}" in problem
            cluster.nodes[2].start()
            cluster.wait_until_well()
            await until_answered(pod, place(pod, tenant))

    for node in cluster.nodes:
        node.config("cluster-node-timeout", str(FORMING_MS))
        node.config("cluster-require-full-coverage", "yes")
    play(scenario)


@pytest.mark.slow
def test_a_replica_that_takes_over_is_found() -> None:
    async def scenario() -> None:
        pod = over(cluster, timeout_s=TIMEOUT_S)
        # Who looks for it is whoever misses it.
        pod.nodes._every_s = 3600
        old, new = cluster.nodes[0], cluster.nodes[3]
        tenant = cluster.tenant_of(old)
        async with running(pod):
            await pod.get(Source(), tenant_id=tenant)
            await pod.redis.get(place(pod, tenant))
            old.kill()
            await until_answered(pod, place(pod, tenant))
            await learnt(pod, place(pod, tenant), new)
            assert (await pod.redis.get(place(pod, tenant))).value is not None
            await until(lambda: pod.link.linked)
            assert sorted(node.address[1] for node in pod.nodes.listed) == sorted(n.port for n in cluster.nodes[1:])

    with ValkeyCluster(replicas=1) as cluster:
        for node in cluster.nodes:
            node.config("cluster-node-timeout", str(FORMING_MS))
        play(scenario)


def test_a_cluster_that_nobody_answers_for_at_first_is_used_once_it_is_there(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        for node in cluster.nodes:
            node.kill()
        pod = over(cluster, *cluster.nodes[:2], timeout_s=TIMEOUT_S)
        async with running(pod, linked=False):
            pod.link.start()
            assert await pod.timed_get(Source(), b"early") < PATIENCE_S
            assert pod.redis.errors["uncovered"] > 0
            assert await pod.redis.way.problem() == "no node of the cluster answers"
            # One of those that are named has to be there.
            for node in cluster.nodes[1:]:
                node.start()
            await until(lambda: len(pod.nodes.listed) == 3)
            cluster.nodes[0].start()
            cluster.wait_until_well()
            await until(lambda: pod.link.linked)
            await until_answered(pod, place(pod, "any"))
            await pod.link.stop()

    play(scenario)


def test_who_listens_to_a_node_that_leaves_listens_to_another(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod, teller = over(cluster), over(cluster)
        async with running(pod, teller):
            leaver = next(n for n in cluster.nodes if int(n.command("PUBSUB", "NUMSUB", CHANNEL)[1]))
            others = [node for node in cluster.nodes if node is not leaver]
            had = leaver.spans()
            leaver.give(had, others[0])
            await until(lambda: leaver.port not in [node.address[1] for node in pod.nodes.listed])
            await until(lambda: int(leaver.command("PUBSUB", "NUMSUB", CHANNEL)[1]) == 0)
            await until(lambda: pod.link.linked and teller.link.linked)
            await pod.get(Source(b"old"), tenant_id="left")
            assert await teller.cache.invalidate("left", [KEY])
            await until(lambda: pod.cache.peek("left", KEY) is MISSING)
            others[0].give(had, leaver)
            await until(lambda: len(pod.nodes.listed) == 3)

    play(scenario)


def test_nobody_is_told_to_forget_what_is_still_there(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod, other = over(cluster, timeout_s=TIMEOUT_S), over(cluster)
        async with running(pod, other):
            gone = next(n for n in cluster.nodes if not int(n.command("PUBSUB", "NUMSUB", CHANNEL)[1]))
            tenant = cluster.tenant_of(gone)
            await other.get(Source(b"old"), tenant_id=tenant)
            gone.pause()
            assert not await pod.cache.invalidate(tenant, [KEY])
            assert not await pod.cache.invalidate(tenant, [KEY])
            # What is said later is heard later.
            there = cluster.tenant_of(next(node for node in cluster.nodes if node is not gone))
            heard = other.link.messages
            assert await pod.cache.invalidate(there, [KEY])
            await until(lambda: other.link.messages > heard, "it is heard")
            assert other.cache.peek(tenant, KEY) == b"old"
            gone.resume()
            await until(lambda: not pod.redis.owed)
            await until(lambda: other.cache.peek(tenant, KEY) is MISSING, "all have heard")

    play(scenario)


def test_what_a_node_could_not_be_told_it_is_told_later_and_the_others_at_once(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        pod = over(cluster, timeout_s=TIMEOUT_S)
        gone, there = cluster.nodes[0], cluster.nodes[1]
        lost, kept = cluster.tenant_of(gone), cluster.tenant_of(there)
        async with running(pod, linked=False):
            for tenant in (lost, kept):
                await pod.get(Source(b"old"), tenant_id=tenant)
                await pod.redis.get(place(pod, tenant))
            gone.pause()
            for number in range(OWED_AT_ONCE + 1):
                assert not await pod.cache.invalidate(lost, [KEY, b"%d" % number])
            assert await pod.cache.invalidate(kept, [KEY])
            assert there.command("EXISTS", place(pod, kept)) == 0
            there.pause()
            assert not await pod.cache.invalidate(kept, [b"more"])
            there.resume()
            # Behind all those of the node that is away still.
            await until(lambda: pod.redis.owed == OWED_AT_ONCE + 1)
            gone.resume()
            await until(lambda: not pod.redis.owed)
            assert gone.command("EXISTS", place(pod, lost)) == 0

    play(scenario)
