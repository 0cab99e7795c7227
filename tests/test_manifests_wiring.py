"""Who finds, reaches and watches whom in the manifests: selectors against labels, ports and paths against ports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml
from manifests import (
    ALONE,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    SERVICE,
    Document,
    Pod,
    chosen,
    manifests,
    ports,
    probes,
)

from app.api.permissions import RULES

TEN_K = "overlays/10k"
ALL = (*OVERLAYS, *ALONE)
GATED = ["from-ingress", "from-prometheus"]

POSTGRESQL, PGBOUNCER, REDIS, HTTPS, DNS = 5432, 6432, 6379, 443, 53
REACHED = {
    TEN_K: {
        f"Deployment/{SERVICE}": {DNS, PGBOUNCER, REDIS, HTTPS},
        "CronJob/watchlist-update": {DNS, PGBOUNCER, REDIS, HTTPS},
        "CronJob/retention": {DNS, PGBOUNCER, REDIS, HTTPS},
        "Deployment/pgbouncer": {DNS, POSTGRESQL},
    },
    "overlays/single": {
        f"Deployment/{SERVICE}": {DNS, POSTGRESQL, REDIS, HTTPS},
        "CronJob/watchlist-update": {DNS, POSTGRESQL, REDIS, HTTPS},
        "CronJob/retention": {DNS, POSTGRESQL, REDIS, HTTPS},
    },
    "migration": {f"Job/{SERVICE}-migrate": {DNS, POSTGRESQL}},
    "toolbox": {"Pod/kyb": {DNS, POSTGRESQL, PGBOUNCER, REDIS, HTTPS}},
}
"""The ports that each pod may open connections to."""

INNER = {"/metrics", "/health/detailed", "/health/live", "/health/ready"}
"""Routes that nobody reaches through the ingress; and none under /debug."""


def policies(of: str, pod: Pod) -> list[Document]:
    """Those that hold for a pod; what is applied alone runs where the overlay is."""
    found = [one for there in {of, TEN_K if of in ALONE else of} for one in manifests(there).all("NetworkPolicy")]
    return [one["spec"] for one in found if chosen(one["spec"]["podSelector"], pod.labels)]


def out(of: str, pod: Pod) -> set[tuple[str, int]]:
    """Protocols and ports that a pod may open connections to."""
    rules = [rule for policy in policies(of, pod) for rule in policy.get("egress", ())]
    assert all(rule["to"] and rule["ports"] for rule in rules), "a rule without either allows everything"
    return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}


def into(of: str, pod: Pod) -> set[int]:
    """The ports of a pod that others may open connections to."""
    rules = [rule for policy in policies(of, pod) for rule in policy.get("ingress", ())]
    assert all(rule["from"] and rule["ports"] for rule in rules), "a rule without either allows everything"
    named = ports(pod)
    return {named.get(port["port"], port["port"]) for rule in rules for port in rule["ports"]}


def started(of: str) -> Iterator[Any]:
    return (pytest.param(of, pod, id=f"{of} {pod.owner}") for pod in manifests(of).pods())


PODS = [param for of in ALL for param in started(of)]


class Chooser(NamedTuple):
    """A document that chooses pods by their labels, and whom it has to choose."""

    of: str
    kind: str
    name: str
    pods: set[str]


STABLE = f"Deployment/{SERVICE}"
POOLER = "Deployment/pgbouncer"
CHOSEN = ("Deployment", "PodDisruptionBudget", "Service")
CHOOSERS = [Chooser(of, kind, SERVICE, {STABLE}) for of in OVERLAYS for kind in CHOSEN]
CHOOSERS += [Chooser(TEN_K, kind, "pgbouncer", {POOLER}) for kind in CHOSEN]


def selector(document: Document) -> Document:
    told: Document = document["spec"]["selector"]
    return {"matchLabels": told} if document["kind"] == "Service" else told


@pytest.mark.parametrize("one", CHOOSERS, ids=lambda one: f"{one.of} {one.kind} {one.name}")
def test_a_selector_takes_its_pods_and_no_others(one: Chooser) -> None:
    # The migration and the toolbox run beside them.
    beside = [pod for other in (one.of, *ALONE) for pod in manifests(other).pods()]
    taken = {pod.owner for pod in beside if chosen(selector(manifests(one.of).one(one.kind, one.name)), pod.labels)}
    assert taken == one.pods


@pytest.mark.parametrize("of", ALL)
def test_everything_that_selects_pods_is_looked_at(of: str) -> None:
    looked = {(one.kind, one.name) for one in CHOOSERS if one.of == of}
    there = manifests(of).all(*CHOSEN)
    assert {(one["kind"], one["metadata"]["name"]) for one in there} == looked


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_pods_are_spread_from_those_of_their_own(of: str, pod: Pod) -> None:
    constraints = pod.spec.get("topologySpreadConstraints", [])
    assert bool(constraints) == pod.owner.startswith("Deployment/")
    assert all(chosen(one["labelSelector"], pod.labels) for one in constraints)


def test_a_canary_beside_gets_requests_and_is_not_taken_for_one_of_the_deployment() -> None:
    canary = {**manifests(TEN_K).pod("Deployment").labels, "track": "canary"}
    assert chosen(selector(manifests(TEN_K).one("Service")), canary)
    assert not chosen(selector(manifests(TEN_K).one("Deployment")), canary)


@pytest.mark.parametrize("of", OVERLAYS)
def test_the_container_listens_where_it_is_said_to(of: str) -> None:
    listened = manifests(of).pod("Deployment")
    told = manifests(of).variables(listened)
    assert ports(listened) == {"http": int(told["PORT"])} == {"http": 8080}
    assert told["HOST"] == "0.0.0.0"


def test_pgbouncer_listens_where_it_is_said_to() -> None:
    (line,) = [line for line in pgbouncer_ini() if line.startswith("listen_port")]
    assert ports(manifests(TEN_K).pod("Deployment", "pgbouncer")) == {"postgresql": int(line.partition("=")[2])}


def pgbouncer_ini() -> list[str]:
    text: str = manifests(TEN_K).one("ConfigMap", "pgbouncer")["data"]["pgbouncer.ini"]
    return text.splitlines()


@pytest.mark.parametrize("of", OVERLAYS)
def test_services_lead_to_ports_that_there_are(of: str) -> None:
    for one in manifests(of).all("Service"):
        (port,) = one["spec"]["ports"]
        assert ports(manifests(of).pod("Deployment", one["metadata"]["name"]))[port["targetPort"]] == port["port"]


@pytest.mark.parametrize("of", OVERLAYS)
def test_probes_ask_for_ports_that_there_are(of: str) -> None:
    for pod in manifests(of).pods():
        for probe in probes(pod):
            asked = probe.get("httpGet") or probe["tcpSocket"]
            assert asked["port"] in ports(pod)
            assert "httpGet" not in probe or ("GET", asked["path"]) in RULES
    service = list(probes(manifests(of).pod("Deployment")))
    assert [probe["httpGet"]["path"] for probe in service] == ["/health/live", "/health/ready", "/health/live"]


@pytest.mark.parametrize("of", OVERLAYS)
def test_a_probe_outlasts_a_busy_moment(of: str) -> None:
    """Slow answers make a pod unready long before they have it killed, and a start is waited for longest."""
    start, ready, live = probes(manifests(of).pod("Deployment"))
    gives_up_s = [probe["periodSeconds"] * probe["failureThreshold"] for probe in (ready, live, start)]
    assert gives_up_s == sorted(gives_up_s) == [4, 30, 60]


@pytest.mark.parametrize("of", OVERLAYS)
def test_the_ingress_leads_callers_to_what_is_theirs(of: str) -> None:
    spec = manifests(of).one("Ingress")["spec"]
    (rule,) = spec["rules"]
    assert spec["tls"] == [{"hosts": [rule["host"]], "secretName": f"{SERVICE}-tls"}]
    named = {port["name"] for port in manifests(of).one("Service")["spec"]["ports"]}
    reached: set[str] = set()
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        assert backend["name"] == SERVICE
        assert backend["port"]["name"] in named
        under = {route for _, route in RULES if matches(path, route)}
        assert under, path
        reached |= under
    inner = {route for _, route in RULES if route in INNER or route.startswith("/debug/")}
    assert reached == {route for _, route in RULES} - inner


def matches(path: Document, route: str) -> bool:
    """As Kubernetes reads it: a prefix is one of whole parts."""
    exact: bool = route == path["path"]
    return exact or (path["pathType"] == "Prefix" and route.startswith(f"{path['path']}/"))


@pytest.mark.parametrize("of", ALL)
def test_what_no_policy_allows_is_forbidden(of: str) -> None:
    denied = manifests(of).one("NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for one in manifests(of).all("NetworkPolicy"):
        ways = {way for way in ("Ingress", "Egress") if way.lower() in one["spec"]}
        assert ways <= set(one["spec"]["policyTypes"])


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_a_pod_reaches_what_it_needs_and_nothing_else(of: str, pod: Pod) -> None:
    allowed = {("TCP", port) for port in REACHED[of][pod.owner]} | {("UDP", DNS)}
    assert out(of, pod) == allowed


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_a_pod_is_reached_at_all_its_ports_and_no_other(of: str, pod: Pod) -> None:
    assert into(of, pod) == set(ports(pod).values())


@pytest.mark.parametrize("of", OVERLAYS)
def test_the_service_is_reached_by_those_who_are_named(of: str) -> None:
    pod = manifests(of).pod("Deployment")
    named = [one["metadata"]["name"] for one in manifests(of).all("NetworkPolicy") if "ingress" in one["spec"]]
    assert [name for name in named if name in GATED] == (GATED if of == TEN_K else GATED[:1])
    for policy in policies(of, pod):
        for rule in policy.get("ingress", ()):
            for peer in rule["from"]:
                assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]


def test_pgbouncer_is_reached_by_the_service_its_jobs_and_the_toolbox() -> None:
    (rule,) = manifests(TEN_K).one("NetworkPolicy", "from-service")["spec"]["ingress"]
    (peer,) = rule["from"]
    pods = [pod for of in (TEN_K, *ALONE) for pod in manifests(of).pods()]
    admitted = {pod.owner for pod in pods if chosen(peer["podSelector"], pod.labels)}
    assert admitted == {STABLE, "CronJob/watchlist-update", "CronJob/retention", "Pod/kyb"}


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_no_pod_reaches_the_metadata_of_a_cloud(of: str, pod: Pod) -> None:
    for policy in policies(of, pod):
        for rule in policy.get("egress", ()):
            for peer in rule["to"]:
                block = peer.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0":
                    assert block["except"] == ["169.254.0.0/16"]
                elif block.get("cidr") == "::/0":
                    assert "fe80::/10" in block["except"]


def test_prometheus_finds_the_service_under_the_job_that_rules_know() -> None:
    monitor = manifests(TEN_K).one("ServiceMonitor")["spec"]
    service = manifests(TEN_K).one("Service")
    assert chosen(monitor["selector"], service["metadata"]["labels"])
    # The job is called as the Service is, unless jobLabel or a relabelling says otherwise.
    assert not set(monitor) & {"jobLabel", "namespaceSelector"}
    (endpoint,) = monitor["endpoints"]
    assert not {name for name in endpoint if name.endswith("elabelings")}
    assert service["metadata"]["name"] == "risk-assessment-service"
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert ("GET", endpoint["path"]) in RULES
    example = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == (example["scrape_interval"], example["scrape_timeout"])


def test_the_pods_of_every_owner_are_known() -> None:
    assert {of: {pod.owner for pod in manifests(of).pods()} for of in ALL} == {
        of: set(reached) for of, reached in REACHED.items()
    }


def test_the_example_of_prometheus_looks_for_the_same_pods() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (found,) = config["scrape_configs"][0]["kubernetes_sd_configs"]
    assert found["namespaces"]["names"] == [NAMESPACE]
    label, _, value = found["selectors"][0]["label"].partition("=")
    assert manifests(TEN_K).pod("Deployment").labels[label] == value
