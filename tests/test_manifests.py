"""The manifests of Kubernetes: right by the schemas, made of what they should be made of, no secret in them."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import (
    ALONE,
    KUBERNETES,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    SERVICE,
    VARIABLES,
    Pod,
    manifests,
    source_name,
)

from app import __version__
from app.settings.tree import KEYS

ALL = (*OVERLAYS, *ALONE)
VERSIONS = ("1.31", "1.35", "1.36", "1.37")
"""Of Kubernetes: the oldest that knows all that is asked for, and those that are maintained."""
IMAGES = {"pgbouncer": "docker.io/edoburu/pgbouncer:v1.25.2-p0"}
OPERATOR = "monitoring.coreos.com/"
EXAMPLE = KUBERNETES / "secrets.example.yaml"
SECRETS = {one["metadata"]["name"]: one for one in yaml.safe_load_all(EXAMPLE.read_text("utf-8"))}
PODS = [pytest.param(of, pod, id=f"{of} {pod.owner}") for of in ALL for pod in manifests(of).pods()]
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "projected", "secret"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("of", ALL)
def test_every_document_is_one_of_kubernetes(of: str, version: str) -> None:
    """Those of the Prometheus Operator are checked by `make check-deploy`."""
    for document in manifests(of).documents:
        if not document["apiVersion"].startswith(OPERATOR):
            kubernetes_validate.validate(document, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused() -> None:
    service = copy.deepcopy(manifests("overlays/10k").one("Service"))
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("of", ALL)
def test_all_is_in_one_namespace(of: str) -> None:
    for document in manifests(of).documents:
        expected = None if document["kind"] == "Namespace" else NAMESPACE
        assert document["metadata"].get("namespace") == expected
    assert manifests(of).one("Namespace", NAMESPACE)["metadata"]["name"] == NAMESPACE


def test_every_manifest_is_part_of_a_kustomization() -> None:
    used: set[Path] = set()
    for file in KUBERNETES.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(file.read_text())
        used |= {file.parent / name for name in kustomization.get("resources", ())}
    lying = {file for file in KUBERNETES.rglob("*.yaml") if file.name != "kustomization.yaml"}
    assert lying - used == {EXAMPLE}


def test_the_settings_file_is_the_one_of_configs() -> None:
    for of in OVERLAYS:
        held = manifests(of).one("ConfigMap", f"{SERVICE}-config")["data"]
        assert held == {"config.yaml": (ROOT / "configs" / "performance_10k.yaml").read_text("utf-8")}


def test_the_rules_are_those_of_prometheus() -> None:
    groups: list[Any] = []
    for name in ("recording.yml", "alerts.yml"):
        groups += yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / name).read_text("utf-8"))["groups"]
    assert manifests("overlays/10k").one("PrometheusRule")["spec"]["groups"] == groups


def test_the_rules_were_made_by_what_makes_them() -> None:
    spec = importlib.util.spec_from_file_location("kubernetes_build", KUBERNETES / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.TARGET.read_text("utf-8") == build.built()


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_a_pod_is_as_the_namespace_demands(of: str, pod: Pod) -> None:
    """The profile `restricted` of the Pod Security Standards, in full, and a root that cannot be written."""
    spec = pod.spec
    assert not set(spec) & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    assert all(set(volume) - {"name"} <= RESTRICTED_VOLUMES for volume in spec["volumes"])
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "sysctls" not in context
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", ()))
    labels = manifests(of).one("Namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_a_pod_has_no_way_to_the_cluster(of: str, pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False
    assert manifests(of).one("ServiceAccount", pod.spec["serviceAccountName"])["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_a_pod_writes_nowhere_but_into_tmp(of: str, pod: Pod) -> None:
    writable = {volume["name"]: volume["emptyDir"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
    (container,) = pod.spec["containers"]
    for mount in container["volumeMounts"]:
        assert (mount["name"] in writable) == (mount["mountPath"] == "/tmp") == (not mount.get("readOnly"))
    for folder in writable.values():
        assert folder["sizeLimit"]
        assert "medium" not in folder


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_an_image_says_which(of: str, pod: Pod) -> None:
    images = [container["image"] for container in pod.spec["containers"]]
    assert images == [IMAGES.get(pod.labels["app"], f"{SERVICE}:{__version__}")]


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_what_a_pod_refers_to_is_there(of: str, pod: Pod) -> None:
    """ConfigMaps among the documents, Secrets in the example that tells their keys."""
    text = str(pod.spec)
    maps = set(re.findall(r"'configMap(?:Ref)?': {(?:[^{}]*)'name': '([\w-]+)'", text))
    assert maps <= {one["metadata"]["name"] for one in manifests(of).all("ConfigMap")}
    assert set(re.findall(r"'secret(?:Ref)?': {(?:[^{}]*)'name': '([\w-]+)'", text)) <= set(SECRETS)
    for container in pod.spec["containers"]:
        for entry in container.get("env", ()):
            wanted = entry["valueFrom"]["secretKeyRef"]
            assert wanted["key"] in SECRETS[wanted["name"]]["stringData"]
    mounted = {mount["name"] for container in pod.spec["containers"] for mount in container.get("volumeMounts", ())}
    assert mounted == {volume["name"] for volume in pod.spec["volumes"]}


@pytest.mark.parametrize("of", ALL)
def test_no_secret_is_among_the_documents(of: str) -> None:
    assert manifests(of).all("Secret") == []


def test_the_example_of_secrets_holds_no_value() -> None:
    for secret in SECRETS.values():
        assert secret["metadata"]["namespace"] == NAMESPACE
        assert set(secret) <= {"apiVersion", "kind", "metadata", "type", "stringData"}
        assert set(secret["stringData"].values()) == {""}
        kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)


def test_the_example_of_secrets_is_what_is_referred_to() -> None:
    text = "".join(str(manifests(of).documents) for of in ALL)
    assert {name for name in SECRETS if f"'{name}'" in text} == set(SECRETS)


@pytest.mark.parametrize(("of", "pod"), PODS)
def test_every_variable_is_one_of_the_settings(of: str, pod: Pod) -> None:
    if pod.labels["app"] == "pgbouncer":
        return
    told = set(manifests(of).variables(pod))
    for container in pod.spec["containers"]:
        told |= {entry["name"] for entry in container.get("env", ())}
        for source in container.get("envFrom", ()):
            if "secretRef" in source:
                told |= set(SECRETS[source["secretRef"]["name"]]["stringData"])
    assert told
    assert told <= VARIABLES


def test_every_setting_is_explained() -> None:
    """Beside its key in the packaged settings, with its variable where it has one."""
    lines = (ROOT / "app" / "defaults.yaml").read_text("utf-8").splitlines()
    explained: dict[str, str] = {}
    section = ""
    for line in lines:
        if found := re.match(r"(\w+):", line):
            section = found[1]
        elif found := re.match(r"  (\w+): .*?(?: # (.*))?$", line):
            explained[f"{section}.{found[1]}"] = found[2] or ""
    assert set(explained) == set(KEYS)
    for name, comment in explained.items():
        variable = KEYS[name].env or ""
        assert variable in comment, name
        assert re.search(r"[a-z]{2}", comment.replace(variable, "")), name


def test_the_pods_of_one_image_are_told_the_same() -> None:
    for of in OVERLAYS:
        service = manifests(of).pod("Deployment")
        for pod in (manifests(of).pod("CronJob", name) for name in ("watchlist-update", "retention")):
            assert pod.spec["containers"][0]["envFrom"] == service.spec["containers"][0]["envFrom"]
            assert pod.spec["securityContext"] == service.spec["securityContext"]


def test_names_are_those_that_runbook_and_dashboards_know() -> None:
    told = {(one["kind"], source_name(one)) for one in manifests("overlays/10k").documents}
    assert told >= {("Deployment", SERVICE), ("Service", SERVICE), ("HorizontalPodAutoscaler", f"{SERVICE}-hpa")}
    assert {one["metadata"]["name"] for one in manifests("migration").all("Job")} == {f"{SERVICE}-migrate"}
