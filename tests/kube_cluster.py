"""What a cluster holds and its controllers do: Deployments become ReplicaSets and pods, Jobs end as they are told.

A Deployment's pods are ready at once or never, as is said of their image. No pod is a process: a port-forward leads to
whatever real service is told for its image. What a network, a scheduler and a kubelet do is not here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import threading
from dataclasses import dataclass, field
from typing import Literal

from service import Json

RESOURCES = [
    ("", "v1", "Namespace", "namespaces", False),
    ("", "v1", "ConfigMap", "configmaps", True),
    ("", "v1", "Secret", "secrets", True),
    ("", "v1", "Service", "services", True),
    ("", "v1", "ServiceAccount", "serviceaccounts", True),
    ("", "v1", "LimitRange", "limitranges", True),
    ("", "v1", "ResourceQuota", "resourcequotas", True),
    ("", "v1", "Pod", "pods", True),
    ("", "v1", "Event", "events", True),
    ("apps", "v1", "Deployment", "deployments", True),
    ("apps", "v1", "ReplicaSet", "replicasets", True),
    ("batch", "v1", "Job", "jobs", True),
    ("batch", "v1", "CronJob", "cronjobs", True),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", True),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors", True),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules", True),
]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
REVISION = "deployment.kubernetes.io/revision"

# Of all clusters together: objects are handed from one to another.
VERSIONS = itertools.count(1)
CLOCK = itertools.count(1)

ENDS = {"complete": ["SuccessCriteriaMet", "Complete"], "fail": ["FailureTarget", "Failed"], "run": []}

Pods = Literal["ready", "never ready", "restarting"]
Jobs = Literal["complete", "fail", "run"]


@dataclass
class Image:
    """What becomes of an image. port: of the real service that its pods are, for whoever forwards to them."""

    pods: Pods = "ready"
    port: int = 0
    says: str = ""


@dataclass
class Refused(Exception):
    status: int
    reason: str
    message: str


@dataclass
class Cluster:
    """images: by name.  jobs: how the next ones end.  denied: "verb resource" that nobody may.

    asked: writes in order, "verb Kind/name".  refused: those that are not done.  forwards: that are open.
    """

    images: dict[str, Image] = field(default_factory=dict)
    jobs: Jobs = "complete"
    denied: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    forwards: int = 0

    def __post_init__(self) -> None:
        self.changed = threading.Condition()

    def named(self, plural: str, name: str) -> Json | None:
        return self.objects.get((plural, name))

    def of(self, plural: str, **labels: str) -> list[Json]:
        found = [one for (kind, _), one in self.objects.items() if kind == plural]
        return [one for one in found if labels.items() <= one["metadata"].get("labels", {}).items()]

    def image_of(self, deployment: str) -> str | None:
        """The image that a Deployment is told to run."""
        found = self.named("deployments", deployment)
        return None if found is None else str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    def snapshot(self) -> str:
        return json.dumps(sorted(self.objects.items()), sort_keys=True, default=str)

    # What is asked of the API.

    def create(self, plural: str, made: Json) -> Json:
        name = made["metadata"]["name"]
        if (plural, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        at = next(CLOCK)
        stamp = (dt.datetime(2026, 1, 1) + dt.timedelta(seconds=at)).isoformat() + "Z"
        made["metadata"] |= {"uid": f"{plural}-{name}-{at}", "generation": 1, "creationTimestamp": stamp}
        self._store(plural, made)
        return made

    def replace(self, plural: str, old: Json, told: Json) -> Json:
        """told: as it was applied or patched; what it leaves to the server stays."""
        kept = {name: old["metadata"][name] for name in ("uid", "generation", "creationTimestamp")}
        made = {**told, "metadata": {**told["metadata"], **kept}, "status": old.get("status", {})}
        if plural == "jobs" and made["spec"]["template"] != old["spec"]["template"]:
            raise Refused(422, "Invalid", "spec.template: field is immutable")
        if plural == "deployments":
            made["spec"].setdefault("replicas", old["spec"]["replicas"])
            made["metadata"].setdefault("annotations", {})[REVISION] = old["metadata"]["annotations"][REVISION]
        if made.get("spec") != old.get("spec"):
            made["metadata"]["generation"] += 1
        self._store(plural, made)
        return made

    def delete(self, plural: str, name: str) -> Json:
        gone = self.objects.pop((plural, name))
        for (kind, owned), one in list(self.objects.items()):
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in one["metadata"].get("ownerReferences", [])):
                self.delete(kind, owned)
        return gone

    def upgrade(self, deployment: str, old: str, new: str) -> None:
        """As if another image had been applied, in no time."""
        found = self.objects["deployments", deployment]
        self.replace("deployments", found, json.loads(json.dumps(found).replace(old, new)))

    def _store(self, plural: str, made: Json) -> None:
        made["metadata"]["resourceVersion"] = str(next(VERSIONS))
        self.objects[plural, made["metadata"]["name"]] = made
        if plural == "deployments":
            self._roll(made)
        if plural == "jobs" and "status" not in made:
            conditions = [{"type": one, "status": "True"} for one in ENDS[self.jobs]]
            made["status"] = {"conditions": conditions, **({} if conditions else {"active": 1})}

    # What controllers do.

    def _roll(self, deployment: Json) -> None:
        """A ReplicaSet, and as many pods as the autoscaler wants; one beside the old where they never get ready."""
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        for scaler in self.of("horizontalpodautoscalers"):
            if scaler["spec"]["scaleTargetRef"]["name"] == name:
                spec["replicas"] = max(spec.get("replicas", 1), scaler["spec"]["minReplicas"])
        count = spec.setdefault("replicas", 1)
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        owned = [one for one in self.of("replicasets") if one["metadata"]["ownerReferences"][0]["name"] == name]
        newest = max((int(one["metadata"]["annotations"][REVISION]) for one in owned), default=0)
        current = next((one for one in owned if one["metadata"]["name"] == f"{name}-{digest}"), None)
        if current is None:
            current = self._replica_set(deployment, digest)
        elif int(current["metadata"]["annotations"][REVISION]) == newest:
            newest -= 1
        current["metadata"]["annotations"][REVISION] = str(newest + 1)
        deployment["metadata"].setdefault("annotations", {})[REVISION] = str(newest + 1)
        image = spec["template"]["spec"]["containers"][0]["image"]
        fate = self.images.get(image, Image("never ready", says=f"no such image: {image}"))
        stuck = fate.pods == "never ready"
        for pod in [one for one in self.of("pods") if one["metadata"]["labels"]["deployment"] == name]:
            new = pod["metadata"]["labels"]["pod-template-hash"] == digest
            ready = pod["status"]["conditions"][0]["status"] == "True"
            if new or not stuck or not ready:
                del self.objects["pods", pod["metadata"]["name"]]
        old = len([one for one in self.of("pods") if one["metadata"]["labels"]["deployment"] == name])
        for at in range(1 if stuck else count):
            self._pod(deployment, current, at, image, fate)
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": old + (1 if stuck else count),
            "updatedReplicas": 1 if stuck else count,
            "availableReplicas": old if stuck else count,
            "readyReplicas": old if stuck else count,
        }

    def _replica_set(self, deployment: Json, digest: str) -> Json:
        template = json.loads(json.dumps(deployment["spec"]["template"]))
        template["metadata"]["labels"]["pod-template-hash"] = digest
        made = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{deployment['metadata']['name']}-{digest}",
                "namespace": deployment["metadata"]["namespace"],
                "labels": template["metadata"]["labels"],
                "annotations": {},
                "ownerReferences": [_owner(deployment)],
            },
            "spec": {"replicas": 0, "selector": deployment["spec"]["selector"], "template": template},
        }
        return self.create("replicasets", made)

    def _pod(self, deployment: Json, owner: Json, at: int, image: str, fate: Image) -> None:
        ready = "False" if fate.pods == "never ready" else "True"
        labels = {**owner["spec"]["template"]["metadata"]["labels"], "deployment": deployment["metadata"]["name"]}
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{owner['metadata']['name']}-{at:05d}",
                "namespace": deployment["metadata"]["namespace"],
                "labels": labels,
                "ownerReferences": [_owner(owner)],
            },
            "spec": {"containers": [{"name": "service", "image": image}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "service", "restartCount": 2 if fate.pods == "restarting" else 0}],
            },
        }
        self.create("pods", made)
        if fate.pods == "never ready":
            about = {"involvedObject": {"kind": "Pod", "name": made["metadata"]["name"]}}
            named = {"metadata": {"name": f"{made['metadata']['name']}.{next(CLOCK)}"}}
            told = {"reason": "Unhealthy", "message": "Startup probe failed"}
            self.create("events", {"apiVersion": "v1", "kind": "Event", **named, **about, **told})

    def port_behind(self, target: str) -> int:
        """Of the real service that a port-forward leads to. Raises Refused."""
        kind, _, name = target.partition("/")
        found = self.named({"pod": "pods", "service": "services"}[kind], name)
        if found is None:
            raise Refused(404, "NotFound", f'{kind} "{name}" not found')
        pods = [found] if kind == "pod" else self.of("pods", **found["spec"]["selector"])
        ready = [pod for pod in pods if pod["status"]["conditions"][0]["status"] == "True"]
        if not ready:
            raise Refused(503, "ServiceUnavailable", "no pod is ready")
        return self.images[ready[0]["spec"]["containers"][0]["image"]].port


def _owner(one: Json) -> Json:
    return {"kind": one["kind"], "name": one["metadata"]["name"], "uid": one["metadata"]["uid"], "controller": True}
