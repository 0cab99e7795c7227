"""A real Prometheus scrapes a real service: every panel shows something, and every alert looks at something."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from databases import Postgres, Valkey, migrated
from monitored import (
    JOB,
    OF_THE_CLUSTER,
    PROMETHEUS,
    ROOT,
    Prometheus,
    Query,
    alerts,
    always,
    asked,
    marked,
    needs_prometheus,
    needs_promtool,
    rules,
    shown,
)
from proxy import HOST
from service import COMMAND, SECRETS, Client, Crowd, Service, environment, example, serving, wait_until

pytestmark = [pytest.mark.slow, needs_prometheus, needs_promtool]

WINDOW = "1m"
DATA_LIMIT_S = 90.0
PLACE = {"namespace": "kyb-platform", "pod": "risk-assessment-service-a"}
DEMO = ROOT / "app" / "watchlists" / "demo.jsonl"
NOT_COUNTED_YET = {"resources.json: Lost on the way A"}
"""Panels whose metric nobody counts yet."""
MARKS = ("New version", "Scaled")
"""What they tell of does not happen here."""

PROVIDER = """\
providers:
  registry:
    kind: http_json
    url: {url}/companies/{{business.registration_number}}
    absent_status: 404
    facts:
      litigation_count: /cases
"""


@contextmanager
def answering(body: bytes, media_type: str) -> Iterator[str]:
    """The address of a server that answers everything with the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    with ThreadPoolExecutor(1) as thread, server:
        thread.submit(server.serve_forever, 0.05)
        try:
            yield f"{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()


def cluster() -> bytes:
    """What kube-state-metrics would tell of a cluster with one pod, as Prometheus reads it."""
    told: dict[str, str] = {
        **PLACE,
        "container": "service",
        "deployment": JOB,
        "horizontalpodautoscaler": f"{JOB}-hpa",
        "phase": "Running",
        "reason": "OOMKilled",
        "resource": "",
        "unit": "",
    }
    lines = []
    for name, labels in OF_THE_CLUSTER.items():
        for resource, unit in (("cpu", "core"), ("memory", "byte")) if "resource" in labels else (("", ""),):
            values = {**told, "resource": resource, "unit": unit}
            matched = ",".join(f'{label}="{values[label]}"' for label in sorted(labels))
            lines.append(f"{name}{{{matched}}} 2")
    return "\n".join([*lines, ""]).encode()


def configuration(service: Service, folder: Path, state_metrics: str) -> Mapping[str, Any]:
    """The example of deploy/, faster, with these addresses in place of what Kubernetes would tell."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = []
    for name in ("recording.yml", "alerts.yml"):
        groups = yaml.safe_load((PROMETHEUS / "rules" / name).read_text("utf-8"))
        for group in groups["groups"]:
            group.pop("interval", None)
        (folder / name).write_text(yaml.safe_dump(groups))
        config["rule_files"].append(str(folder / name))
    del config["alerting"]
    own, other = config["scrape_configs"]
    del own["kubernetes_sd_configs"], own["relabel_configs"]
    (folder / "key").write_text(service.new_key("admin", scopes=("monitor",)))
    own["authorization"]["credentials_file"] = str(folder / "key")
    own["static_configs"] = [{"targets": [f"{HOST}:{service.port}"], "labels": PLACE}]
    other["static_configs"] = [{"targets": [state_metrics]}]
    return dict(config)


class Watched(NamedTuple):
    """A service, what it stands on, and who watches it."""

    service: Service
    postgres: Postgres
    valkey: Valkey
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as stack:
        postgres, valkey = stack.enter_context(Postgres()), stack.enter_context(Valkey())
        provider = stack.enter_context(answering(json.dumps({"cases": 2}).encode(), "application/json"))
        neighbours = {"DATABASE_URL": migrated(postgres.create_database()), "REDIS_URL": valkey.url()}
        told = environment({**SECRETS, **neighbours})
        add = (*COMMAND[:-1], "watchlist", "add", DEMO, "--name", "invented")
        subprocess.run(add, env=told, check=True, timeout=60)
        service = stack.enter_context(
            serving(
                folder,
                PROVIDER.format(url=f"http://{provider}"),
                **neighbours,
                WORKERS="2",
                PERFORMANCE_MONITORING_INTERVAL="1s",
            )
        )
        state_metrics = stack.enter_context(answering(cluster(), "text/plain; version=0.0.4"))
        prometheus = stack.enter_context(Prometheus(configuration(service, folder, state_metrics)))
        yield Watched(service, postgres, valkey, prometheus)


def load(numbers: Iterator[int], client: Client) -> None:
    """A little of everything that callers do, right and wrong."""
    number = next(numbers)
    profile = example("listed-trader" if number % 3 else "healthy-manufacturer")
    profile["business"] |= {"id": f"cust-{number % 50}", "registration_number": f"HRB {number % 50}"}
    made = client.assess(profile)
    if made.status == 201:
        client.get(f"/v1/assessments/{made.json['id']}")
    client.assess(profile, dry_run=True)
    client.post("/v1/assessments/batch", {"items": [profile, profile]})
    client.get("/v1/assessments", limit=5)
    client.assess({"business": {}})
    client.get("/v1/nothing")
    client.get("/v1/assessments", {"X-API-Key": "kyb_test_nobody"})


@pytest.fixture(scope="module")
def troubled(watched: Watched) -> Iterator[Watched]:
    """Under load; database and Redis have been away meanwhile, and are there again."""
    broken = next(alert for alert in alerts() if alert["alert"] == "KybBreakerOpen")
    with Crowd(watched.service, 3, partial(load, count())):
        wait_until(lambda: watched.prometheus.values("assessments_total"), "something is recorded", DATA_LIMIT_S)
        watched.postgres.stop()
        watched.valkey.stop()
        wait_until(
            lambda: len(watched.prometheus.values(broken["expr"])) >= 2, "the breakers' alert sees them", DATA_LIMIT_S
        )
        watched.postgres.start()
        watched.valkey.start()
        closed = f'breaker_state{{job="{JOB}"}} == 0'
        wait_until(lambda: len(watched.prometheus.values(closed)) == 4, "all breakers are closed", DATA_LIMIT_S)
        yield watched


def empty(prometheus: Prometheus, queries: list[Query]) -> list[str]:
    """Where a query has nothing now. A share of nothing (NaN) is not something either."""
    return [query.where for query in queries if not any(map(math.isfinite, prometheus.values(query.expr)))]


def test_from_elsewhere_the_key_of_the_example_is_let_in_and_no_other(watched: Watched) -> None:
    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    key = watched.service.new_key("admin", scopes=("monitor",))
    assert watched.service.client(key).get("/metrics", elsewhere).status == 200
    assert watched.service.client(key).get("/v1/assessments").status == 403
    viewer = watched.service.new_key("viewer")
    assert watched.service.client(viewer).get("/metrics", elsewhere).status == 403
    assert watched.service.client(None).get("/metrics", elsewhere).status == 401


def test_every_panel_shows_something(troubled: Watched) -> None:
    left = [*shown(WINDOW), *(query for query in marked() if not query.where.endswith(MARKS))]

    def are_there() -> bool:
        nonlocal left
        wanted = set(empty(troubled.prometheus, left))
        left = [query for query in left if query.where in wanted]
        return wanted <= NOT_COUNTED_YET

    try:
        wait_until(are_there, "every panel shows something", DATA_LIMIT_S)
    except AssertionError:
        raise AssertionError(f"nothing is shown by {[query.where for query in left]}") from None
    assert {query.where for query in left} == NOT_COUNTED_YET


def test_every_mark_is_a_query_that_prometheus_takes(troubled: Watched) -> None:
    for query in marked():
        troubled.prometheus.values(query.expr)


def test_every_rule_looks_at_something(troubled: Watched) -> None:
    queries = [Query(rule.get("alert") or rule["record"], always(rule["expr"])) for rule in rules()]
    wait_until(lambda: not empty(troubled.prometheus, queries), "every rule has data", DATA_LIMIT_S)
    groups = troubled.prometheus.get("rules")["groups"]
    assert {rule["name"]: rule.get("lastError") for group in groups for rule in group["rules"]} == {
        query.where: None for query in queries
    }


def test_the_targets_are_up(troubled: Watched) -> None:
    targets = troubled.prometheus.get("targets")["activeTargets"]
    assert {target["labels"]["job"]: target["health"] for target in targets} == {JOB: "up", "kube-state-metrics": "up"}


def test_promtool_finds_no_fault_in_the_metrics(troubled: Watched) -> None:
    text = troubled.service.client(None).get("/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_a_query_of_all_reaches_series_without_the_labels_of_kubernetes(troubled: Watched) -> None:
    assert asked('up{namespace=~"$namespace"}') == 'up{namespace=~".*"}'
    assert troubled.prometheus.values('up{job="kube-state-metrics",namespace=~".*",pod=~".*"}') == [1.0]
