"""The alerts: what fires them and what does not, what they lead to, and who is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitored import PROMETHEUS, alerts, needs_amtool, needs_promtool, ruled, sections

from app.telemetry.catalogue import REQUEST_DURATION

LIMIT_S = 120.0
ALERTS = {alert["alert"]: alert for alert in alerts()}
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))

NEEDED = {
    "down": "KybDown",
    "error rate > 0.1 %": "KybErrorRateHigh",
    "p95 > 1 s": "KybSlowP95",
    "p99 > 2 s": "KybSlowP99",
    "saturation": "KybSaturated",
    "queue age": "KybQueueOld",
    "breaker open": "KybBreakerOpen",
    "pool exhausted": "KybPoolExhausted",
    "list stale": "KybListStale",
    "audit chain broken": "KybAuditChainBroken",
    "replicas at the maximum": "KybReplicasAtMaximum",
    "restarts": "KybContainerRestarts",
    "the error budget, within an hour": "KybErrorBudgetBurn1h",
    "the error budget, within six hours": "KybErrorBudgetBurn6h",
    "the error budget, within a day": "KybErrorBudgetBurn1d",
    "the error budget, within three days": "KybErrorBudgetBurn3d",
}

BY_SEVERITY = {"page": "on-call", "ticket": "tickets"}
ALSO_COMPLIANCE = {"KybListStale", "KybListMissing", "KybAuditChainBroken"}


def run(*command: str | Path) -> str:
    """What a program says. Raises AssertionError with it when the program fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tried(name: str) -> list[list[Any]]:
    """The alerts that promtool's tests expect of one rule, a list for each time that it is looked at."""
    return [
        looked.get("exp_alerts") or []
        for file in TESTS
        for group in yaml.safe_load(file.read_text("utf-8"))["tests"]
        for looked in group["alert_rule_test"]
        if looked["alertname"] == name
    ]


@pytest.mark.parametrize("name", NEEDED.values(), ids=NEEDED)
def test_there_is_an_alert_for(name: str) -> None:
    assert name in ALERTS


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tried_where_it_fires_and_where_it_does_not(name: str) -> None:
    expected = tried(name)
    assert any(expected), "no test in which it fires"
    assert not all(expected), "no test in which it does not fire"


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_who_what_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    told = alert["annotations"]
    assert told["summary"]
    assert told["description"].endswith((".", ")"))
    page, _, section = told["runbook_url"].partition("#")
    assert page == "docs/runbook.md"
    assert f"`{alert['alert']}`" in sections()[section].split("**Symptom.**")[0]
    assert ("kube_" in alert["expr"]) == ("kube-state-metrics" in told["description"])


def test_percentiles_are_compared_with_what_a_bucket_ends_at() -> None:
    for name in ("KybSlowP95", "KybSlowP99"):
        assert float(ALERTS[name]["expr"].rpartition(">")[2]) in REQUEST_DURATION.bounds


def test_the_long_windows_are_those_that_are_recorded() -> None:
    recorded = {query.where for query in ruled()}
    for query in ruled():
        assert set(re.findall(r"namespace:\w+:ratio_rate\w+", query.expr)) <= recorded


@needs_promtool
def test_the_rules_are_right() -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=[file.name for file in TESTS])
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", file)


@needs_promtool
def test_the_example_of_prometheus_is_right(tmp_path: Path) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    for job in config["scrape_configs"]:
        # Debian builds Prometheus without Kubernetes.
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["127.0.0.1:8080"]}]
        if "authorization" in job:
            (tmp_path / "key").write_text("kyb_live_key")
            job["authorization"]["credentials_file"] = str(tmp_path / "key")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    assert "2 rule files found" in run("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_the_example_of_prometheus_finds_pods_and_shows_its_key() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    service, cluster = config["scrape_configs"]
    assert service["job_name"] == "risk-assessment-service"
    assert service["authorization"]["credentials_file"]
    (found,) = service["kubernetes_sd_configs"]
    assert found["namespaces"]["names"] == ["kyb-platform"]
    assert found["selectors"] == [{"role": "pod", "label": "app=risk-assessment-service"}]
    assert {"namespace", "pod"} <= {rule.get("target_label") for rule in service["relabel_configs"]}
    # Their own labels say which pod they are about.
    assert cluster["honor_labels"] is True


@needs_amtool
def test_the_example_of_alertmanager_is_right() -> None:
    assert "SUCCESS" in run("amtool", "check-config", PROMETHEUS / "alertmanager.yml")


@needs_amtool
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_reaches_somebody(name: str) -> None:
    severity = ALERTS[name]["labels"]["severity"]
    receivers = [*(["compliance"] if name in ALSO_COMPLIANCE else []), BY_SEVERITY[severity]]
    run(
        *("amtool", "config", "routes", "test", f"--config.file={PROMETHEUS / 'alertmanager.yml'}"),
        f"--verify.receivers={','.join(receivers)}",
        *(f"alertname={name}", f"severity={severity}", "namespace=kyb-platform"),
    )


def test_what_an_alert_silences_is_an_alert() -> None:
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text("utf-8"))
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            name, pattern = re.fullmatch(r"(\w+) (?:=|!=|=~) \"(.+)\"", matcher).groups()  # type: ignore[union-attr]
            assert name == "alertname"
            assert any(re.fullmatch(pattern, alert) for alert in ALERTS)
