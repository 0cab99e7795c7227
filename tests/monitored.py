"""Dashboards, rules and runbook as the tests read them, and a Prometheus of their own."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml
from databases import CALL_LIMIT_S, Server
from proxy import HOST

from app.telemetry.catalogue import METRICS
from app.telemetry.meters import Metric

ROOT = Path(__file__).resolve().parent.parent
GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"
JOB = "risk-assessment-service"
PLACES = {"job", "namespace", "pod", "instance"}

OF_PROMETHEUS = {
    "up": PLACES,
    "scrape_duration_seconds": PLACES,
    "ALERTS": PLACES | {"alertname", "alertstate", "severity"},
}
"""What Prometheus itself has, with its labels."""

_CONTAINER = {"namespace", "pod", "container"}
_AUTOSCALER = {"namespace", "horizontalpodautoscaler"}
_DEPLOYMENT = {"namespace", "deployment"}
OF_THE_CLUSTER = {
    "kube_pod_status_phase": {"namespace", "pod", "phase"},
    "kube_pod_container_status_restarts_total": _CONTAINER,
    "kube_pod_container_status_last_terminated_reason": _CONTAINER | {"reason"},
    "kube_pod_container_resource_limits": _CONTAINER | {"resource", "unit"},
    "kube_pod_container_resource_requests": _CONTAINER | {"resource", "unit"},
    "kube_deployment_status_replicas": _DEPLOYMENT,
    "kube_deployment_status_replicas_available": _DEPLOYMENT,
    "kube_deployment_status_replicas_unavailable": _DEPLOYMENT,
    "kube_deployment_status_replicas_updated": _DEPLOYMENT,
    "kube_horizontalpodautoscaler_spec_max_replicas": _AUTOSCALER,
    "kube_horizontalpodautoscaler_spec_min_replicas": _AUTOSCALER,
    "kube_horizontalpodautoscaler_status_current_replicas": _AUTOSCALER,
    "kube_horizontalpodautoscaler_status_desired_replicas": _AUTOSCALER,
}
"""Of kube-state-metrics (its docs/metrics), with those of their labels that may be asked for."""


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skips where a program is not installed."""
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed (Debian: apt-get install {package})")


needs_promtool = needs("promtool", "prometheus")
needs_prometheus = needs("prometheus", "prometheus")
needs_amtool = needs("amtool", "prometheus-alertmanager")


class Query(NamedTuple):
    """One query: where it stands, and its PromQL."""

    where: str
    expr: str


def dashboards() -> dict[str, Any]:
    """By the name of their file."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def panels() -> Iterator[tuple[str, Any]]:
    """Every panel that shows something, and where it stands."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def asked(expr: str, window: str = "5m") -> str:
    """A query as Grafana sends it when all is chosen."""
    for variable, value in (("$namespace", ".*"), ("$pod", ".*"), ("$__rate_interval", window)):
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


def shown(window: str = "5m") -> list[Query]:
    """Every query of every panel."""
    return [
        Query(f"{where} {target['refId']}", asked(target["expr"], window))
        for where, panel in panels()
        for target in panel["targets"]
    ]


def marked() -> list[Query]:
    """The queries of annotations and variables."""
    found = []
    for name, dashboard in dashboards().items():
        notes = dashboard["annotations"]["list"]
        found += [Query(f"{name}: {note['name']}", asked(note["expr"])) for note in notes]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])
                assert inner is not None, variable
                found.append(Query(f"{name}: ${variable['name']}", asked(inner[1])))
    return found


@cache
def rules() -> list[dict[str, Any]]:
    """All rules, in order."""
    files = [PROMETHEUS / "rules" / name for name in ("recording.yml", "alerts.yml")]
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The rules that are alerts."""
    return [rule for rule in rules() if "alert" in rule]


def ruled() -> list[Query]:
    """The query of every rule."""
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def always(expr: str) -> str:
    """An alert's query that has data also while the alert does not fire: comparisons tell 0 or 1."""
    return re.sub(r"(?<=\s)(==|!=|>=|<=|>|<)(?=\s)", r"\1 bool", expr)


@cache
def sections() -> dict[str, str]:
    """The text of the runbook's sections, by the end of an address that leads to them."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)
    return {anchor(title): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def anchor(title: str) -> str:
    """As GitHub and GitLab make it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def blocks(language: str) -> list[str]:
    """The runbook's blocks of code."""
    return [block.strip() for block in re.findall(rf"```{language}\n(.*?)```", RUNBOOK.read_text("utf-8"), re.DOTALL)]


@cache
def series() -> dict[str, set[str]]:
    """Every name that a query may ask for, with its labels: the catalogue's, the rules' own, and those of others."""
    known = {**OF_PROMETHEUS, **OF_THE_CLUSTER}
    for metric in METRICS:
        for name in names_of(metric):
            known[name] = {*PLACES, *metric.labels, *({"le"} if name.endswith("_bucket") else ())}
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = {"namespace", *({"le"} if rule["record"].startswith("namespace_le:") else ())}
    return known


def names_of(metric: Metric) -> list[str]:
    """Of its series; a histogram has three."""
    return (
        [f"{metric.name}_{end}" for end in ("bucket", "count", "sum")] if metric.kind == "histogram" else [metric.name]
    )


class Asked(NamedTuple):
    """What a query asks for: names, with the labels they are matched by; and the labels that are grouped by."""

    names: dict[str, set[str]]
    groups: set[str]


def read(expr: str) -> Asked:
    """Raises ValueError for what is no PromQL."""
    names: dict[str, set[str]] = {}
    groups: set[str] = set()

    def look(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            names.setdefault(node.name, set()).update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            groups.update(node.modifier.labels)
        return True

    promql.walk(promql.parse(expr), look)
    return Asked(names, groups)


class Prometheus(Server):
    """A Prometheus with the rules of deploy/. config: of its own file."""

    name = "prometheus"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self._file = self.folder / "prometheus.yml"
        self._file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def command_line(self) -> Sequence[str | Path]:
        program = shutil.which("prometheus")
        assert program is not None
        return [
            program,
            f"--config.file={self._file}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=CALL_LIMIT_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **query: str) -> Any:
        """What the API answers. Raises AssertionError with what it says is wrong."""
        url = f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=CALL_LIMIT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode(errors='replace')}") from None

    def values(self, expr: str) -> list[float]:
        """The values of a query now."""
        found = self.get("query", query=expr)
        assert found["resultType"] in ("vector", "scalar"), found
        results = found["result"] if found["resultType"] == "vector" else [{"value": found["result"]}]
        return [float(one["value"][1]) for one in results]
