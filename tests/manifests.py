"""The manifests as a cluster gets them: rendered by kubectl, and looked through."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app.settings import Settings, load
from app.settings.tree import KEYS

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
RENDER_LIMIT_S = 60.0

SERVICE = "risk-assessment-service"
NAMESPACE = "kyb-platform"
OVERLAYS = ("overlays/10k", "overlays/single")
ALONE = ("migration", "toolbox")
"""What is applied by itself, before the overlay."""

ADDRESSES = {"DATABASE_URL": "postgresql://kyb@host/kyb", "REDIS_URL": "redis://host"}
"""What a Secret would hold, so that the settings are those of a pod."""

VARIABLES = {key.env for key in KEYS.values() if key.env} | {"CONFIG_FILE"}
POD_OWNERS = {"Deployment", "CronJob", "Job", "Pod"}

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}

Document = dict[str, Any]


def kubectl() -> str:
    """The program: of the environment that the tests run in, else the system's."""
    own = Path(sys.executable).parent / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    assert found is not None, "there is no kubectl"
    return found


def rendered(folder: Path) -> list[Document]:
    """All documents of a kustomization. Raises AssertionError with what kustomize says is wrong."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=RENDER_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class Manifests:
    """The documents of one kustomization."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents

    def all(self, *kinds: str) -> list[Document]:
        return [one for one in self.documents if one["kind"] in kinds]

    def one(self, kind: str, name: str = SERVICE) -> Document:
        """By the name that it has in the sources: what kustomize adds to a ConfigMap's is left out."""
        (found,) = [one for one in self.all(kind) if source_name(one) == name]
        return found

    def pods(self) -> list[Pod]:
        """Every pod that these start, by whom."""
        return [pod_of(one) for one in self.documents if one["kind"] in POD_OWNERS]

    def pod(self, kind: str, name: str = SERVICE) -> Pod:
        return pod_of(self.one(kind, name))

    def variables(self, pod: Pod) -> dict[str, str]:
        """The environment of a pod's container, but for what Secrets hold."""
        (container,) = pod.spec["containers"]
        told: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                told |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return told | {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}

    def named(self, kind: str, name: str) -> Document:
        (found,) = [one for one in self.all(kind) if one["metadata"]["name"] == name]
        return found

    def settings(self, folder: Path) -> Settings:
        """The settings in force in a pod of the service. folder: where its settings file is written to."""
        return load({**ADDRESSES, **self.environment(folder)}).settings

    def environment(self, folder: Path) -> dict[str, str]:
        """What a pod of the service is started with, Secrets apart, its settings file in a folder of this machine."""
        file = folder / "config.yaml"
        file.write_text(self.one("ConfigMap", f"{SERVICE}-config")["data"]["config.yaml"], encoding="utf-8")
        return self.variables(self.pod("Deployment")) | {"CONFIG_FILE": str(file)}


class Pod(NamedTuple):
    """A pod that something starts. owner: `Kind/name`."""

    owner: str
    labels: Mapping[str, str]
    spec: Document


@cache
def manifests(of: str) -> Manifests:
    """Of a folder under deploy/kubernetes. For reading alone."""
    return Manifests(rendered(KUBERNETES / of))


def with_components(folder: Path, of: str, *components: str) -> Manifests:
    """An overlay with further components, as whoever adds them in their kustomization."""
    lines = ["resources:", f"  - {os.path.relpath(KUBERNETES / of, folder)}", "components:"]
    lines += [f"  - {os.path.relpath(KUBERNETES / 'components' / one, folder)}" for one in components]
    (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifests(rendered(folder))


def edited(folder: Path, of: str, file: str, *changes: tuple[str, str]) -> Manifests:
    """An overlay after changes of one of its files, each of a text that stands there once."""
    for part in ("deploy/kubernetes", "configs"):
        shutil.copytree(ROOT / part, folder / part)
    path = folder / "deploy" / "kubernetes" / of / file
    text = path.read_text("utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    return Manifests(rendered(path.parent))


def source_name(document: Document) -> str:
    name: str = document["metadata"]["name"]
    return name.rpartition("-")[0] if document["kind"] == "ConfigMap" else name


def pod_of(document: Document) -> Pod:
    kind, spec = document["kind"], document["spec"]
    if kind == "Pod":
        template = document
    elif kind == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
    else:
        template = spec["template"]
    return Pod(f"{kind}/{document['metadata']['name']}", template["metadata"].get("labels", {}), template["spec"])


def chosen(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a selector takes a pod; of what the manifests use, labels."""
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def quantity(text: str | int) -> float:
    """Cores or bytes."""
    digits = str(text).rstrip("mkMGKi")
    return float(digits) * _UNITS[str(text)[len(digits) :]]


def share_of(text: str | int, whole: int) -> int:
    """A number of pods, given as such or in percent, which is rounded up as Kubernetes does for surges and budgets."""
    return text if isinstance(text, int) else math.ceil(int(text.removesuffix("%")) * whole / 100)


def probes(pod: Pod) -> Iterator[Document]:
    (container,) = pod.spec["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            yield container[name]


def ports(pod: Pod) -> dict[str, int]:
    """The container's, by name."""
    (container,) = pod.spec["containers"]
    return {port["name"]: port["containerPort"] for port in container.get("ports", ())}
