"""A cluster for the real kubectl: the part of the API server's HTTP that a deployment uses, and what controllers would do.

Deployments become ReplicaSets and pods at once, or never, as is said of their image; Jobs complete, fail or run on. No pod
is a process: a port-forward leads to whatever real service is told for its image. What cannot be seen here is what a
network, a scheduler and a kubelet do.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from service import HOST, Json

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
SHORT = {"horizontalpodautoscalers": ["hpa"], "poddisruptionbudgets": ["pdb"]}
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
REVISION = "deployment.kubernetes.io/revision"

# Of all clusters together: objects are handed from one to another.
VERSIONS = itertools.count(1)
CLOCK = itertools.count(1)

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
    """images: by name; jobs: how the next ones end. denied: "verb resource" that nobody may. asked: writes, in order."""

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
            ends = {"complete": ["SuccessCriteriaMet", "Complete"], "fail": ["FailureTarget", "Failed"], "run": []}[
                self.jobs
            ]
            made["status"] = {"conditions": [{"type": one, "status": "True"} for one in ends]}
            made["status"] |= {} if ends else {"active": 1}

    # What controllers do.

    def _roll(self, deployment: Json) -> None:
        """The autoscaler's least, a ReplicaSet for the template, and the pods of both, or only of the one before."""
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


class ApiServer:
    """The cluster at a loopback port; `cluster` may be changed at any time."""

    def __init__(self, cluster: Cluster) -> None:
        handler = type("Handler", (_Handler,), {"cluster": cluster})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, finds the resource in its path, and answers as an API server does."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def _answer(self, verb: str) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            if parts.path == "/forward":
                self._hold_forward(query["target"])
            elif (told := self._discovery(parts.path)) is not None:
                self._send(told)
            elif parts.path.endswith("/selfsubjectaccessreviews"):
                kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
                self._send({**kind, "status": {"allowed": _right(data) not in self.cluster.denied}}, 201)
            else:
                self._resource(verb, parts.path, query, json.loads(data or b"null"))
        except Refused as refused:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refused.status}
            self._send({**status, "reason": refused.reason, "message": refused.message}, refused.status)

    def _discovery(self, path: str) -> Json | None:
        groups = dict.fromkeys((group, version) for group, version, *_ in RESOURCES)
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [
                (group, {"groupVersion": f"{group}/{version}", "version": version})
                for group, version in groups
                if group
            ]
            told = [{"name": group, "versions": [one], "preferredVersion": one} for group, one in named]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": told}
        if path == "/openapi/v3":
            return {"paths": {_root(*one)[1:]: {"serverRelativeURL": f"/openapi/v3{_root(*one)}"} for one in groups}}
        for group, version in groups:
            mine = [one for one in RESOURCES if one[:2] == (group, version)]
            if path == _root(group, version):
                kinds = [_described(*one[2:]) for one in mine]
                name = f"{group}/{version}".strip("/")
                return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": kinds}
            if path == f"/openapi/v3{_root(group, version)}":
                patch = {"parameters": [{"name": "fieldValidation", "in": "query"}]}
                kinds = [{"group": group, "version": version, "kind": one[2]} for one in mine]
                paths = {
                    f"/{one['kind']}": {"patch": {**patch, "x-kubernetes-group-version-kind": one}} for one in kinds
                }
                return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}
        return None

    def _resource(self, verb: str, path: str, query: dict[str, str], body: Json) -> None:
        known = {plural: (kind, group, version) for group, version, kind, plural, _ in RESOURCES}
        rest = path.strip("/").split("/")
        rest = rest[2:] if rest[0] == "api" else rest[3:] or [path]
        if len(rest) > 2 and rest[0] == "namespaces":
            rest = rest[2:]
        plural, name, *below = [*rest, "", ""]
        if plural not in known:
            raise Refused(404, "NotFound", f"the server could not find {path}")
        kind, group, version = known[plural]
        if below[:1] == ["log"]:
            image = self.cluster.images.get(self._there(plural, name)["spec"]["containers"][0]["image"], Image())
            self._send_text(image.says + "\n")
        elif "watch" in query:
            self._watch(plural, query)
        elif verb == "get" and name:
            self._send(self._there(plural, name))
        elif verb == "get":
            api = f"{group}/{version}".strip("/")
            items = [one for one in self.cluster.of(plural) if _selected(one, query)]
            self._send({"kind": f"{kind}List", "apiVersion": api, "metadata": {"resourceVersion": "1"}, "items": items})
        else:
            self._write(verb, plural, f"{kind}/{name or body['metadata']['name']}", name, body)

    def _write(self, verb: str, plural: str, told: str, name: str, body: Json) -> None:
        cluster = self.cluster
        with cluster.changed:
            cluster.asked.append(f"{verb} {told}")
            if f"{verb} {told}" in cluster.refused:
                raise Refused(403, "Forbidden", f"{told} is refused")
            if verb == "create":
                made = cluster.create(plural, body)
            elif verb == "delete":
                self._there(plural, name)
                made = cluster.delete(plural, name)
            else:
                old = self._there(plural, name)
                made = cluster.replace(plural, old, _patched(old, body))
            cluster.changed.notify_all()
        self._send(made, 201 if verb == "create" else 200)

    def _there(self, plural: str, name: str) -> Json:
        found = self.cluster.named(plural, name)
        if found is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        """Tells of an object again whenever it has become another, until the caller goes or its time is over."""
        if "sendInitialEvents" in query:
            raise Refused(422, "Invalid", "sendInitialEvents is not known here")
        self._begin_stream()
        told: dict[str, str] = {}
        end = time.monotonic() + float(query.get("timeoutSeconds", 60))
        while time.monotonic() < end:
            with self.cluster.changed:
                found = [one for one in self.cluster.of(plural) if _selected(one, query)]
                fresh = [
                    one for one in found if told.get(one["metadata"]["name"]) != one["metadata"]["resourceVersion"]
                ]
                if not fresh:
                    self.cluster.changed.wait(0.2)
            for one in fresh:
                told[one["metadata"]["name"]] = one["metadata"]["resourceVersion"]
                if not self._stream(json.dumps({"type": "MODIFIED", "object": one}).encode() + b"\n"):
                    return
        self._stream(b"")

    def _hold_forward(self, target: str) -> None:
        """The port that it leads to, and then nothing for as long as whoever forwards is there."""
        port = self.cluster.port_behind(target)
        self.cluster.forwards += 1
        try:
            self._begin_stream()
            self._stream(f"{port}\n".encode())
            self.rfile.read(1)
        finally:
            self.cluster.forwards -= 1

    def _begin_stream(self) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _stream(self, data: bytes) -> bool:
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        except OSError:
            return False
        return True

    def _send(self, told: Json, status: int = 200) -> None:
        self._send_body(json.dumps(told).encode(), "application/json", status)

    def _send_text(self, text: str) -> None:
        self._send_body(text.encode(), "text/plain", 200)

    def _send_body(self, data: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _root(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _described(kind: str, plural: str, namespaced: bool) -> Json:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    named = {"name": plural, "singularName": kind.lower(), "shortNames": SHORT.get(plural, [])}
    return {**named, "namespaced": namespaced, "kind": kind, "verbs": verbs}


def _right(review: bytes) -> str:
    """ "verb resource.group/part" that a SelfSubjectAccessReview asks for, which kubectl sends as protocol buffers."""
    told = _fields(review.removeprefix(b"k8s\0"))
    asked = _fields(_fields(_fields(told[2])[2])[1])
    verb, group, resource, part = (asked.get(number, b"").decode() for number in (2, 3, 5, 6))
    return f"{verb} {resource}{'.' * bool(group)}{group}{'/' * bool(part)}{part}"


def _fields(message: bytes) -> dict[int, bytes]:
    """The fields of a message that are all strings or messages, shorter than 128 bytes but for the outermost."""
    found: dict[int, bytes] = {}
    while message:
        length, at = message[1] & 127, 2
        if message[1] & 128:
            length, at = length | message[2] << 7, 3
        found[message[0] >> 3] = message[at : at + length]
        message = message[at + length :]
    return found


def _selected(one: Json, query: dict[str, str]) -> bool:
    labels = one["metadata"].get("labels", {})
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = wanted.partition("=")
        if labels.get(name) != value:
            return False
    for wanted in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = wanted.partition("=")
        at = one
        for part in name.split("."):
            at = at[part]
        if at != value:
            return False
    return True


def _patched(old: Json, patch: Any) -> Json:
    """What an object becomes by a patch of `kubectl apply`, which carries the whole of what was applied, or by a JSON patch."""
    if isinstance(patch, list):
        made = json.loads(json.dumps(old))
        for step in patch:
            *way, last = step["path"].strip("/").split("/")
            at = made
            for part in way:
                at = at[part]
            at[last] = step["value"]
        return dict(made)
    applied = patch.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED)
    if applied is None:
        return json.loads(json.dumps(old))
    told: Json = json.loads(applied)
    told["metadata"].setdefault("annotations", {})[LAST_APPLIED] = applied
    return told
