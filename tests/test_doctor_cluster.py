"""`kyb doctor redis` against a real Redis Cluster, whole and not, and against what is taken for one."""

from __future__ import annotations

from clusters import FORMING_MS, ValkeyCluster
from databases import Valkey
from doctored import about, examined, within
from service import wait_until

FAST_S = 20.0


def test_a_cluster_that_is_well_is_told_node_by_node(cluster: ValkeyCluster) -> None:
    first = cluster.nodes[0]
    findings = examined({"REDIS_URL": cluster.url(first), "REDIS_CLUSTER": "true"}, "redis")
    whole = about(findings, "cluster")
    assert (whole["verdict"], whole["figures"]["nodes"], whole["figures"]["slots"]) == ("ok", 3, 16384)
    assert about(findings, "coverage")["verdict"] == "ok"
    for name in ("connection", "latency", "clients", "writes", "slow log"):
        seen = [finding for finding in findings if finding["about"] == name]
        assert [finding["verdict"] for finding in seen] == ["ok"] * 3, name
        for node, finding in zip(cluster.nodes, seen, strict=True):
            assert finding["seen"].startswith(f"127.0.0.1:{node.port}")


def test_a_node_that_is_away_is_named_and_what_its_loss_means(cluster: ValkeyCluster) -> None:
    gone, there = cluster.nodes[0], cluster.nodes[1]
    for node in cluster.nodes:
        node.config("cluster-node-timeout", str(FORMING_MS))
        node.config("cluster-require-full-coverage", "yes")
    gone.kill()
    wait_until(lambda: there.info()["cluster_state"] == "fail", "the others have noticed")
    with within(FAST_S):
        findings = examined({"REDIS_URL": cluster.url(), "REDIS_CLUSTER": "true"}, "redis")
    whole = about(findings, "cluster")
    assert whole["verdict"] == "wrong"
    assert "it is down" in whole["seen"]
    assert about(findings, "coverage")["verdict"] == "look"
    unreached = [finding for finding in findings if "cannot be reached" in finding["seen"]]
    assert [finding["seen"].split()[0] for finding in unreached] == [f"127.0.0.1:{gone.port}"]
    for node in (there, cluster.nodes[2]):
        node.config("cluster-require-full-coverage", "no")
    wait_until(lambda: there.info()["cluster_state"] == "ok", "the others go on")
    partly = about(examined({"REDIS_URL": cluster.url(there), "REDIS_CLUSTER": "true"}, "redis"), "cluster")
    assert (partly["verdict"], "nobody answers" in partly["seen"]) == ("wrong", True)


def test_one_server_is_not_taken_for_a_cluster_nor_a_node_for_one_server(
    valkey: Valkey, cluster: ValkeyCluster
) -> None:
    (single,) = examined({"REDIS_URL": valkey.url(), "REDIS_CLUSTER": "true"}, "redis")
    assert "is no node of one" in single["seen"]
    foreign = cluster.owner("kyb:doctor")
    writes = about(examined({"REDIS_URL": f"redis://127.0.0.1:{foreign.port}"}, "redis"), "server")
    assert (writes["verdict"], "REDIS_CLUSTER=true" in writes["action"]) == ("wrong", True)


def test_clocks_are_told_by_the_first_node_that_answers(cluster: ValkeyCluster) -> None:
    cluster.nodes[0].kill()
    findings = examined({"REDIS_URL": cluster.url(), "REDIS_CLUSTER": "true"}, "limits")
    assert about(findings, "clock of Redis")["verdict"] == "ok"
