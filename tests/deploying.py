"""scripts/deploy_10k_scale.sh as an operator runs it: with the real kubectl, a cluster, and an overlay to deploy."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kube_cluster import Cluster, Image
from kube_server import ApiServer
from service import HOST, KEY, ROOT, Client, Json, Service, wait_until

SCRIPT = ROOT / "scripts" / "deploy_10k_scale.sh"
NAME = "risk-assessment-service"
CANARY = f"{NAME}-canary"
JOB = f"{NAME}-migrate"
LIMIT_S = 300
FIRST, SECOND = f"{NAME}:1.0.0", f"{NAME}:2.0.0"

# All that the script needs of a machine besides kubectl and railway.
TOOLS = [
    *["awk", "bash", "cat", "cp", "curl", "cut", "dirname", "env", "grep", "head", "mkdir", "mktemp", "mv", "paste"],
    *["rm", "sed", "sh", "sleep", "sort", "tail", "tee", "tr"],
]

KUBECTL = """\
#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case " $* " in
    *" port-forward "*) exec {python} {forward} "$@" ;;
    *) exec {kubectl} "$@" ;;
esac
"""

CONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: tests, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: tests, context: {{cluster: tests, user: tests}}}}]
users: [{{name: tests, user: {{}}}}]
current-context: tests
"""

OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kyb-platform
resources: [manifests.yaml]
images: [{{name: risk-assessment-service, newTag: "{tag}"}}]
configMapGenerator:
  - {{name: settings, literals: [LOG_LEVEL={level}]}}
"""

MANIFESTS = """\
apiVersion: v1
kind: Namespace
metadata: {name: kyb-platform}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: risk-assessment-service, labels: {app: risk-assessment-service}}
spec:
  selector: {matchLabels: {app: risk-assessment-service, track: stable}}
  template:
    metadata: {labels: {app: risk-assessment-service, track: stable}}
    spec:
      containers:
        - name: service
          image: risk-assessment-service
          envFrom:
            - configMapRef: {name: settings}
            - secretRef: {name: risk-assessment-service}
---
apiVersion: v1
kind: Service
metadata: {name: risk-assessment-service}
spec:
  selector: {app: risk-assessment-service}
  ports: [{name: http, port: 8080, targetPort: 8080}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: risk-assessment-service-hpa}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: risk-assessment-service}
  minReplicas: 5
  maxReplicas: 50
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: retention}
spec:
  schedule: 47 2 * * *
  jobTemplate:
    spec: {template: {spec: {restartPolicy: Never, containers: [{name: kyb, image: risk-assessment-service}]}}}
"""

MIGRATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kyb-platform
resources: [job.yaml]
images: [{{name: risk-assessment-service, newTag: "{tag}"}}]
"""

MIGRATION_JOB = """\
apiVersion: v1
kind: Namespace
metadata: {name: kyb-platform}
---
apiVersion: batch/v1
kind: Job
metadata: {name: risk-assessment-service-migrate}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: kyb
          image: risk-assessment-service
          env:
            - name: DATABASE_URL
              valueFrom: {secretKeyRef: {name: risk-assessment-service-owner, key: DATABASE_URL}}
"""


class Ended:
    """How the script ended. said: both of its streams, in the order in which they were written."""

    def __init__(self, code: int, said: str) -> None:
        self.code = code
        self.said = said

    def __repr__(self) -> str:
        return f"<{self.code}>\n{self.said}"


class Machine:
    """An operator's machine: a folder with tools on its PATH, an overlay, and a cluster that kubectl leads to."""

    def __init__(self, folder: Path, cluster: Cluster, port: int) -> None:
        self.folder = folder
        self.cluster = cluster
        self.port = port
        self.script = SCRIPT
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.overlay = folder / "overlay"
        self.migration = folder / "migration"
        for made in (self.bin, self.overlay, self.migration):
            made.mkdir()
        self.calls.touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(found(tool))
        forward = Path(__file__).with_name("port_forward.py")
        self.install("kubectl", KUBECTL.format(python=sys.executable, forward=forward, kubectl=found("kubectl")))
        (folder / "kubeconfig").write_text(CONFIG.format(port=port))
        (self.overlay / "manifests.yaml").write_text(MANIFESTS)
        (self.migration / "job.yaml").write_text(MIGRATION_JOB)
        self.release("1.0.0")

    def install(self, name: str, program: str) -> None:
        (self.bin / name).write_text(program)
        (self.bin / name).chmod(0o755)

    def release(self, tag: str, level: str = "info") -> None:
        """The version that the overlay says from now on."""
        (self.overlay / "kustomization.yaml").write_text(OVERLAY.format(tag=tag, level=level))
        (self.migration / "kustomization.yaml").write_text(MIGRATION.format(tag=tag))

    def environment(self, key: str | None, **more: str) -> dict[str, str]:
        told = {"PATH": str(self.bin), "HOME": str(self.folder), "TMPDIR": str(self.folder), "CALLS": str(self.calls)}
        told |= {"KUBECONFIG": str(self.folder / "kubeconfig"), "CLUSTER_PORT": str(self.port), **more}
        return told if key is None else {**told, "KYB_KEY": key}

    def start(self, *arguments: str, key: str | None = KEY, **more: str) -> subprocess.Popen[str]:
        """The script, in a group of processes of its own as a terminal's job is."""
        own = ["--overlay", str(self.overlay), "--migration", str(self.migration)]
        return subprocess.Popen(
            [str(self.script), *own, *arguments],
            cwd=self.folder,
            env=self.environment(key, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def alone(self, *arguments: str) -> Ended:
        """The script without any option of ours: what it finds by itself."""
        command = [str(self.script), *arguments]
        env = self.environment(KEY)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        return Ended(done.returncode, done.stdout)

    def run(self, *arguments: str, key: str | None = KEY, **more: str) -> Ended:
        return ended(self.start(*arguments, key=key, **more))

    def deploy(self, *arguments: str, key: str | None = KEY, **more: str) -> Ended:
        return self.run("--kubernetes", "--timeout", "5", *arguments, key=key, **more)

    @property
    def image(self) -> str:
        """What the Deployment is told to run."""
        return str(self.cluster.image_of(NAME))

    def left_over(self) -> list[str]:
        """Temporary files of the script that are still there."""
        return [path.name for path in self.folder.glob("tmp.*")]


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for its end, and see that it left nothing running."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, said)


def in_order(said: str, *parts: str) -> bool:
    """Whether it holds all of these, each behind the one before."""
    at = 0
    for part in parts:
        at = said.find(part, at)
        if at < 0:
            return False
    return True


def found(tool: str) -> str:
    beside = Path(sys.executable).parent / tool
    path = str(beside) if beside.exists() else shutil.which(tool)
    assert path is not None, f"{tool} is not installed"
    return path


@contextmanager
def machine_for(
    folder: Path, service: Service, objects: Mapping[tuple[str, str], Json] | None = None
) -> Iterator[Machine]:
    """A machine, and a cluster with these objects or only the Secrets. Images 1.0.0 and 2.0.0 are the service.

    What the script leaves running or lying about is an error.
    """
    cluster = Cluster({f"{NAME}:{tag}": Image(port=service.port) for tag in ("1.0.0", "2.0.0")})
    cluster.objects |= copy.deepcopy(dict(objects or {}))
    if objects is None:
        for secret in (NAME, f"{NAME}-owner"):
            cluster.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}})
    with ApiServer(cluster) as server:
        machine = Machine(folder, cluster, server.port)
        yield machine
        wait_until(lambda: cluster.forwards == 0, "every port-forward has ended")
        assert not machine.left_over()


def deployed(folder: Path, service: Service) -> dict[tuple[str, str], Json]:
    """The objects of a cluster in which version 1.0.0 runs, put there by the script."""
    with machine_for(folder, service) as machine:
        outcome = machine.deploy("--timeout", "60")
        assert outcome.code == 0, outcome
        return machine.cluster.objects


@contextmanager
def ingress(service: Service) -> Iterator[str]:
    """The address of a proxy that lets callers to /health and /v1, and to nothing else, as the Ingress does."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path != "/health" and not path.startswith("/v1/"):
                return self._send(404, b"default backend")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {"X-Forwarded-For": "192.0.2.1", "Content-Type": "application/json"}
            with closing(Client(service.port, self.headers.get("X-API-Key"))) as client:
                answer = client.send(self.command, self.path, body, headers)
            return self._send(answer.status, answer.body)

        do_POST = do_GET

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def without_database(service: Service) -> Iterator[None]:
    """Nothing can be recorded, since another has its database; the service knows."""
    client = service.client()

    def states() -> set[str]:
        told = client.get("/health/detailed").json["components"]
        return {one["status"] for one in told if one["name"].startswith("database_")}

    with closing(sqlite3.connect(service.folder / "data" / "kyb.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        wait_until(lambda: "down" in states(), "the service notices that it cannot write")
        yield
        database.execute("ROLLBACK")
    wait_until(lambda: states() == {"ok"}, "the service notices that it can write again")
