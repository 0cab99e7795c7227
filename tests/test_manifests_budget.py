"""Whether the numbers in the manifests fit each other: pods and quota, connections, memory, times."""

from __future__ import annotations

import configparser
import math
import re
from pathlib import Path

import pytest
from manifests import (
    ALONE,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    SERVICE,
    Document,
    Manifests,
    Pod,
    edited,
    manifests,
    quantity,
    share_of,
    with_components,
)
from monitored import series

from app.settings import Settings, load
from app.settings.budget import BEHIND_POOLER, KEPT_BACK, database_share, redis_share

TEN_K = "overlays/10k"
HPA = f"{SERVICE}-hpa"
REPLICAS = (1, 3, 20, 50)
"""What the one value may say; fifty is what quota and PgBouncer are sized for."""

USERS = 10_000
REQUESTS_A_SECOND = 2_000
CPU_A_REQUEST_S = 800e-6
"""As measured at 400/s a pod (benchmarks/README.md), which is what five have of them."""
IDLE_BYTES, CONNECTION_BYTES = 139e6, 12.3e3
FLAT_OUT_BYTES = 450e6
"""As measured: a worker with 100 connections, each connection more, and 10,000 flat out."""

REDIS_CLIENTS = 10_000
"""`maxclients` of Redis and Valkey as they are shipped."""
POSTGRES_CONNECTIONS, OF_SUPERUSERS = 100, 3
"""`max_connections` of PostgreSQL as it is shipped, and how many of them are the superusers'."""
MIGRATION_CONNECTIONS = 2
LOG_S = 2.0
"""What the log is given to be written at the end (docs/operations.md)."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return manifests(TEN_K).settings(tmp_path)


def needs(pod: Pod) -> dict[str, float]:
    """What one pod counts for in a quota, by the quota's names."""
    (container,) = pod.spec["containers"]
    sizes = container["resources"]
    told = {f"{kind}.{name}": quantity(size) for kind in ("requests", "limits") for name, size in sizes[kind].items()}
    return {"pods": 1.0, **told}


def most_pods(pooled: Manifests, replicas: int) -> list[tuple[int, Pod]]:
    """Every pod that may be there at once, and how many of it: during a rollout at the most replicas."""
    deployment, pooler = pooled.one("Deployment"), pooled.one("Deployment", "pgbouncer")
    poolers = pooler["spec"]["replicas"]
    counted = [
        # Those that end count until they have ended, and all of the version before may be ending.
        (2 * replicas + surge(deployment, replicas), pooled.pod("Deployment")),
        (poolers + surge(pooler, poolers) + 1, pooled.pod("Deployment", "pgbouncer")),
    ]
    # A job that forbids a second run has one pod.
    counted += [(1, pod) for pod in pooled.pods() if pod.owner.startswith("CronJob/")]
    return counted + [(1, pod) for of in ALONE for pod in manifests(of).pods()]


def surge(deployment: Document, replicas: int) -> int:
    return share_of(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], replicas)


def test_the_quota_admits_all_pods_that_may_be_there_at_once() -> None:
    pooled = manifests(TEN_K)
    replicas = pooled.one("HorizontalPodAutoscaler", HPA)["spec"]["maxReplicas"]
    hard = {name: quantity(size) for name, size in pooled.one("ResourceQuota", "kyb-platform")["spec"]["hard"].items()}
    wanted = dict.fromkeys(hard, 0.0)
    for count, pod in most_pods(pooled, replicas):
        assert set(hard) == set(needs(pod)), "a quota refuses pods that do not say what it counts"
        for name, size in needs(pod).items():
            wanted[name] += count * size
    assert {name: size for name, size in wanted.items() if size > hard[name]} == {}
    # And not so much more that it would bound nothing.
    assert {name: size for name, size in wanted.items() if size < 0.8 * hard[name]} == {}


@pytest.mark.parametrize("of", [*OVERLAYS, *ALONE])
def test_every_container_says_what_it_needs_within_what_one_may(of: str) -> None:
    (limits,) = manifests(of).one("LimitRange", "containers")["spec"]["limits"]
    for pod in manifests(of).pods():
        (container,) = pod.spec["containers"]
        for name, most in limits["max"].items():
            asked, limit = (quantity(container["resources"][kind][name]) for kind in ("requests", "limits"))
            assert 0 < asked <= limit <= quantity(most)


@pytest.mark.parametrize("of", [*OVERLAYS, *ALONE])
def test_what_may_be_written_fits_what_is_given(of: str) -> None:
    for pod in manifests(of).pods():
        (container,) = pod.spec["containers"]
        folders = sum(quantity(one["emptyDir"]["sizeLimit"]) for one in pod.spec["volumes"] if "emptyDir" in one)
        assert folders < quantity(container["resources"]["limits"]["ephemeral-storage"])


def test_the_autoscaler_scales_the_deployment_between_what_the_settings_say(settings: Settings) -> None:
    spec = manifests(TEN_K).one("HorizontalPodAutoscaler", HPA)["spec"]
    target = manifests(TEN_K).one("Deployment")
    assert spec["scaleTargetRef"] == {"apiVersion": target["apiVersion"], "kind": "Deployment", "name": SERVICE}
    assert "replicas" not in target["spec"], "each apply would undo the autoscaler"
    scaling = settings.scaling
    assert (spec["minReplicas"], spec["maxReplicas"]) == (scaling.min_replicas, scaling.max_replicas) == (5, 50)
    measured = {one["resource"]["name"]: one["resource"]["target"]["averageUtilization"] for one in spec["metrics"]}
    assert measured == {"cpu": scaling.target_cpu_percent, "memory": scaling.target_memory_percent}
    assert measured == {"cpu": 70, "memory": 80}


def test_the_overlay_and_the_settings_file_say_the_same_number() -> None:
    told = load({"CONFIG_FILE": str(ROOT / "configs" / "performance_10k.yaml")}).settings.scaling
    given = manifests(TEN_K).variables(manifests(TEN_K).pod("Deployment"))
    assert (told.min_replicas, told.max_replicas) == (int(given["MIN_REPLICAS"]), int(given["MAX_REPLICAS"]))


def test_it_grows_fast_and_shrinks_slowly() -> None:
    behaviour = manifests(TEN_K).one("HorizontalPodAutoscaler", HPA)["spec"]["behavior"]
    up, down = behaviour["scaleUp"], behaviour["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert down["stabilizationWindowSeconds"] >= 300
    pods, seconds = 5, 0
    while pods < 50:
        pods += max(math.ceil(pods * up["policies"][0]["value"] / 100), up["policies"][1]["value"])
        seconds += up["policies"][0]["periodSeconds"]
    assert seconds <= 60
    assert all(policy["value"] <= 10 and policy["periodSeconds"] >= 60 for policy in down["policies"])


@pytest.mark.parametrize("replicas", REPLICAS)
def test_one_value_sets_everything(tmp_path: Path, replicas: int) -> None:
    """Autoscaler, the share of connections and rates of each pod, and nothing that would have to be changed with it."""
    least = min(5, replicas)
    changes = (("MIN_REPLICAS=5", f"MIN_REPLICAS={least}"), ("MAX_REPLICAS=50", f"MAX_REPLICAS={replicas}"))
    changed = edited(tmp_path, TEN_K, "settings.env", *[pair for pair in changes if pair[0] != pair[1]])
    spec = changed.one("HorizontalPodAutoscaler", HPA)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (least, replicas)
    scaling = changed.settings(tmp_path).scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (least, replicas)
    hard = changed.one("ResourceQuota", "kyb-platform")["spec"]["hard"]
    for name, size in hard.items():
        assert sum(count * needs(pod)[name] for count, pod in most_pods(changed, replicas)) <= quantity(size)


def test_a_changed_value_starts_new_pods(tmp_path: Path) -> None:
    changed = edited(tmp_path, TEN_K, "settings.env", ("MAX_REPLICAS=50", "MAX_REPLICAS=49"))
    assert changed.pod("Deployment").spec != manifests(TEN_K).pod("Deployment").spec


def test_one_pod_alone_needs_no_autoscaler(tmp_path: Path) -> None:
    single = manifests("overlays/single")
    assert single.all("HorizontalPodAutoscaler", "ResourceQuota") == []
    assert "replicas" not in single.one("Deployment")["spec"]
    scaling = single.settings(tmp_path).scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 1)


def test_requests_in_flight_can_be_looked_at_too(tmp_path: Path, settings: Settings) -> None:
    more = with_components(tmp_path, TEN_K, "requests-in-flight").one("HorizontalPodAutoscaler", HPA)["spec"]["metrics"]
    (added,) = [metric for metric in more if metric["type"] != "Resource"]
    assert len(more) == 3
    assert {"namespace", "pod"} <= series()[added["pods"]["metric"]["name"]]
    assert quantity(added["pods"]["target"]["averageValue"]) == settings.concurrency.max_concurrent_requests / 2


@pytest.mark.parametrize("of", OVERLAYS)
@pytest.mark.parametrize("replicas", [1, 2, 5, 50])
def test_a_node_can_be_emptied_and_most_pods_stay(of: str, replicas: int) -> None:
    for budget in manifests(of).all("PodDisruptionBudget"):
        assert "minAvailable" not in budget["spec"]
        away = share_of(budget["spec"]["maxUnavailable"], replicas)
        assert 1 <= away <= max(1, replicas // 5)


@pytest.mark.parametrize("of", OVERLAYS)
def test_a_rollout_takes_no_pod_away_before_another_is_ready(of: str) -> None:
    rolling = manifests(of).one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0
    assert surge(manifests(of).one("Deployment"), 1) == 1


def pgbouncer() -> dict[str, int]:
    """The numbers of its settings."""
    read = configparser.ConfigParser(interpolation=None)
    text: str = manifests(TEN_K).one("ConfigMap", "pgbouncer")["data"]["pgbouncer.ini"]
    read.read_string("\n".join(line for line in text.splitlines() if not line.startswith("%")))
    return {name: int(value) for name, value in read["pgbouncer"].items() if value.isdecimal()}


def test_pgbouncer_stays_within_the_budget_of_connections(settings: Settings) -> None:
    said = pgbouncer()
    instances = manifests(TEN_K).one("Deployment", "pgbouncer")["spec"]
    assert instances["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    held = instances["replicas"] * said["max_db_connections"]
    assert said["default_pool_size"] == said["max_db_connections"]
    assert held <= settings.database.max_connections - KEPT_BACK
    assert settings.database.max_connections <= POSTGRES_CONNECTIONS
    assert held + MIGRATION_CONNECTIONS <= POSTGRES_CONNECTIONS - OF_SUPERUSERS
    # As many as there may be for their use.
    assert held + instances["replicas"] > settings.database.max_connections - KEPT_BACK


def test_pgbouncer_lets_in_all_clients_even_where_one_instance_has_all(settings: Settings) -> None:
    assert settings.database.pooler == "pgbouncer"
    assert database_share(settings).connections == BEHIND_POOLER
    clients = 0
    for count, pod in most_pods(manifests(TEN_K), settings.scaling.max_replicas or 1):
        if pod.labels.get("app.kubernetes.io/name") == SERVICE:
            clients += count * BEHIND_POOLER * settings.server.workers
    assert clients <= pgbouncer()["max_client_conn"]


def test_pgbouncer_gives_a_client_up_after_it_has_given_up_itself(settings: Settings) -> None:
    assert pgbouncer()["query_wait_timeout"] > settings.database.command_timeout
    assert settings.database.connect_timeout < pgbouncer()["server_connect_timeout"]


def test_without_pgbouncer_two_pods_of_a_rollout_stay_within_the_connections(tmp_path: Path) -> None:
    settings = manifests("overlays/single").settings(tmp_path)
    assert settings.database.pooler == "none"
    pods = 1 + surge(manifests("overlays/single").one("Deployment"), 1)
    held = pods * database_share(settings).connections
    assert held + MIGRATION_CONNECTIONS + KEPT_BACK <= POSTGRES_CONNECTIONS - OF_SUPERUSERS


def test_redis_takes_the_clients_of_all_pods(settings: Settings) -> None:
    (count, _), *_ = most_pods(manifests(TEN_K), settings.scaling.max_replicas or 1)
    assert redis_share(settings).connections == settings.redis.pool_size
    assert count * settings.redis.pool_size < REDIS_CLIENTS


@pytest.mark.parametrize("of", OVERLAYS)
def test_one_process_serves_in_a_pod(of: str, tmp_path: Path) -> None:
    assert manifests(of).settings(tmp_path).server.workers == 1


@pytest.mark.parametrize("of", OVERLAYS)
def test_a_request_ends_before_its_worker_is_killed_and_that_before_the_pod_is(of: str, tmp_path: Path) -> None:
    server, pod = manifests(of).settings(tmp_path).server, manifests(of).pod("Deployment").spec
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["kyb", "drain"]
    assert server.request_deadline < server.body_timeout + server.request_deadline < server.shutdown_grace
    assert 2 * server.drain_time + server.shutdown_grace + LOG_S < pod["terminationGracePeriodSeconds"]
    # A proxy has heard of it by then: probes take that long to notice what nobody told it.
    probe = pod["containers"][0]["readinessProbe"]
    assert server.drain_time > probe["periodSeconds"] * probe["failureThreshold"]


def test_pgbouncer_is_given_the_time_that_it_takes_to_end() -> None:
    pod = manifests(TEN_K).pod("Deployment", "pgbouncer").spec
    script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert sum(map(int, re.findall(r"sleep (\d+)", script))) < pod["terminationGracePeriodSeconds"]


def test_the_least_pods_carry_ten_thousand_users_without_a_new_one() -> None:
    spec = manifests(TEN_K).one("HorizontalPodAutoscaler", HPA)["spec"]
    of_pod = needs(manifests(TEN_K).pod("Deployment"))
    cpu, memory = ({"cpu": 0.7, "memory": 0.8}[name] * of_pod[f"requests.{name}"] for name in ("cpu", "memory"))
    pods = spec["minReplicas"]
    assert CPU_A_REQUEST_S * REQUESTS_A_SECOND / pods < cpu / 2
    assert IDLE_BYTES + CONNECTION_BYTES * USERS / pods < memory / 2


def test_memory_says_scale_when_a_pod_is_full_and_not_because_callers_stay_connected(settings: Settings) -> None:
    of_pod = needs(manifests(TEN_K).pod("Deployment"))
    mark = 0.8 * of_pod["requests.memory"]
    assert IDLE_BYTES + CONNECTION_BYTES * settings.server.backpressure < mark < FLAT_OUT_BYTES
    # The memory of a list of a million names that is compiled again (docs/screening.md).
    assert of_pod["limits.memory"] > FLAT_OUT_BYTES + 0.5e9


def test_the_figures_are_those_that_were_measured() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| connections | 100 /"))
    *_, memory = [cell.strip() for cell in line.strip("|").split("|")]
    assert memory.startswith(f"{IDLE_BYTES / 1e6:.0f} /")
    assert memory.endswith(f"{CONNECTION_BYTES / 1e3:.1f} kB each")
    comment = (KUBERNETES / "base" / "deployment.yaml").read_text("utf-8")
    told = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    for figure in (f"{CPU_A_REQUEST_S * 1e6:.0f} µs", "139 MB", "12.3 kB", "450 MB"):
        assert figure in comment
        assert figure in told
    assert f"| 400/s | {CPU_A_REQUEST_S * 1e6:.0f} µs" in text


def test_the_quota_says_the_sum_that_it_is() -> None:
    lines = (KUBERNETES / TEN_K / "quota.yaml").read_text("utf-8").splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    replicas = manifests(TEN_K).one("HorizontalPodAutoscaler", HPA)["spec"]["maxReplicas"]
    ahead = surge(manifests(TEN_K).one("Deployment"), replicas)
    assert f"{replicas} of the new version, the {ahead} that it may be ahead, {replicas} of the old" in comment
