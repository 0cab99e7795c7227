"""The dashboards: current, complete, and about metrics that there are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitored import (
    GRAFANA,
    OF_THE_CLUSTER,
    asked,
    dashboards,
    marked,
    names_of,
    panels,
    read,
    ruled,
    sections,
    series,
    shown,
)

from app.telemetry.catalogue import METRICS

DASHBOARDS = dashboards()
PANELS = list(panels())
QUERIES = [*shown(), *marked(), *ruled()]
TITLES = {
    "overview.json": "KYB: Service Overview",
    "performance.json": "KYB: Performance Metrics",
    "resources.json": "KYB: Resource Usage",
    "errors.json": "KYB: Error Analysis",
    "scaling.json": "KYB: Scaling Events",
}
NOBODYS = {"tenant", "tenant_id", "business_id", "key", "key_id"}
"""What no panel may tell apart."""


def test_the_files_are_what_the_code_builds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GRAFANA / "build.py", tmp_path], check=True, timeout=60)
    for name in TITLES:
        built = (tmp_path / name).read_text("utf-8")
        assert built == (GRAFANA / "dashboards" / name).read_text("utf-8"), f"run deploy/grafana/build.py: {name}"
    assert {path.name for path in (GRAFANA / "dashboards").iterdir()} == set(TITLES)


def test_the_five_are_there_with_ids_of_their_own() -> None:
    made = dashboards()
    assert {name: dashboard["title"] for name, dashboard in made.items()} == TITLES
    assert len({dashboard["uid"] for dashboard in made.values()}) == len(made)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_dashboard_lets_namespace_and_pod_be_chosen_and_leads_to_the_others(dashboard: Any) -> None:
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "namespace", "pod", "runbook"]
    assert [link["title"] for link in dashboard["links"]] == ["Dashboards", "Runbook"]
    assert dashboard["description"]


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=[where for where, _ in PANELS])
def test_a_panel_says_what_it_shows_in_what_unit_and_leads_to_a_section(panel: Any) -> None:
    assert len(panel["description"]) > 20
    assert panel["datasource"]["uid"] == "${datasource}"
    (link,) = panel["links"]
    page, _, section = link["url"].partition("#")
    assert page == "${runbook}"
    assert section in sections()
    axis = panel["options"].get("yAxis", {}) if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]
    assert axis["unit"]
    if panel["type"] in ("timeseries", "state-timeline"):
        assert all(target.get("legendFormat") for target in panel["targets"])


def test_panels_about_the_cluster_say_what_they_need_and_no_others() -> None:
    for where, panel in PANELS:
        names = {name for target in panel["targets"] for name in read(asked(target["expr"])).names}
        of_the_cluster = any(name in OF_THE_CLUSTER for name in names)
        assert of_the_cluster == ("kube-state-metrics" in panel["description"]), where


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_no_two_panels_of_a_dashboard_lie_upon_each_other(dashboard: Any) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place: Mapping[str, int] = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert 0 <= x < 24
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_queries_ask_for_series_and_labels_that_there_are() -> None:
    known = series()
    for query in QUERIES:
        found = read(query.expr)
        assert found.names, query.where
        labels = {"le"} if "histogram_quantile" in query.expr else set()
        for name, matched in found.names.items():
            assert name in known, f"{query.where} asks for {name}"
            assert matched <= known[name], f"{query.where} matches {name} by {matched - known[name]}"
            labels |= known[name]
        assert found.groups <= labels, f"{query.where} groups by {found.groups - labels}"
        assert not NOBODYS & found.groups, query.where


def test_queries_about_the_service_are_about_its_job_alone() -> None:
    known = series()
    for query in QUERIES:
        for name, matched in read(query.expr).names.items():
            if "job" in known[name] and name != "ALERTS":
                assert "job" in matched, f"{query.where}: {name}"


def test_every_metric_of_the_service_is_shown_somewhere() -> None:
    names = {name for query in shown() for name in read(query.expr).names}
    assert [metric.name for metric in METRICS if not names.intersection(names_of(metric))] == []


def test_grafana_is_told_where_the_dashboards_are() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/kyb.yml").read_text())["providers"]
    assert provider["type"] == "file"
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
