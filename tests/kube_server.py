"""A cluster over HTTP, for the real kubectl: as much of the API as a deployment uses."""

from __future__ import annotations

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kube_cluster import LAST_APPLIED, RESOURCES, Cluster, Image, Refused
from service import HOST, Json

SHORT = {"horizontalpodautoscalers": ["hpa"], "poddisruptionbudgets": ["pdb"]}


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
    """What an object becomes by a JSON patch, or by one of `kubectl apply`, which carries all that was applied."""
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
