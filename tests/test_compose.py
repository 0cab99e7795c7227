"""deploy/compose.yml is what Compose takes, and agrees with the image, the settings, Prometheus and Grafana."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitored import needs_promtool
from service import ROOT

from app.settings import load
from app.settings.kinds import parse_duration
from app.settings.tree import KEYS

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
SETTINGS = {key.env for key in KEYS.values() if key.env}
SECRETS = {"POSTGRES_PASSWORD": "a" * 64, "KEY_HASH_SECRET": "b" * 64, "AUDIT_SIGNING_KEY": "c" * 64}
POSTGRES_CONNECTIONS = 100
"""As PostgreSQL is shipped."""


def filled(environment: dict[str, Any]) -> dict[str, str]:
    """What Compose makes of the variables, with these secrets."""
    told = {name: str(value) for name, value in environment.items()}
    for secret, value in SECRETS.items():
        told = {name: text.replace(f"${{{secret}:?see docs/containers.md}}", value) for name, text in told.items()}
    return told


def test_it_is_as_the_specification_says() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_part_is_there_and_refers_to_what_is() -> None:
    assert set(SERVICES) == {"kyb", "migrate", "loadtest", "postgres", "redis", "prometheus", "grafana"}
    for name, service in SERVICES.items():
        needed = service.get("depends_on", {})
        assert set(needed) <= set(SERVICES), name
        for other, how in needed.items() if isinstance(needed, dict) else ():
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in SERVICES[other] or other in OWN, f"{name} waits for {other}"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            known = (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert known, f"{name}: {volume}"
        assert service["networks"] == ["kyb"], name


def test_the_database_is_migrated_before_it_is_served_from() -> None:
    needed = SERVICES["kyb"]["depends_on"]
    assert needed["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["command"] == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["environment"] == SERVICES["kyb"]["environment"]


@pytest.mark.parametrize("name", OWN)
def test_the_image_is_that_of_this_version_and_runs_hardened(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    service = SERVICES[name]
    assert service["image"] == f"${{KYB_IMAGE:-localhost/risk-assessment-service:{version}}}"
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DEPLOY / "Containerfile")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")


def test_its_variables_are_settings_and_are_taken() -> None:
    environment = SERVICES["kyb"]["environment"]
    assert set(environment) <= SETTINGS
    settings = load(filled(environment)).settings
    assert settings.database.max_connections < POSTGRES_CONNECTIONS
    assert settings.server.backpressure <= SERVICES["kyb"]["ulimits"]["nofile"]
    assert parse_duration(SERVICES["kyb"]["stop_grace_period"]) > settings.server.shutdown_grace
    assert SERVICES["kyb"]["ports"] == [f"127.0.0.1:{settings.server.port}:{settings.server.port}"]
    (network,) = settings.monitoring.networks or ()
    assert COMPOSE["networks"]["kyb"]["ipam"]["config"] == [{"subnet": network}]


def test_nothing_is_reachable_from_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_no_secret_stands_in_it_and_none_may_be_forgotten() -> None:
    text = FILE.read_text()
    for name in (*SECRETS, "GRAFANA_PASSWORD"):
        assert text.count(name) == text.count(f"${{{name}:?") + text.count(f"{name}: ${{{name}:?"), name
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().split()


def prometheus() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    return found


@needs_promtool
def test_prometheus_takes_its_configuration() -> None:
    file = DEPLOY / "compose" / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", "--syntax-only", file], capture_output=True, check=False)
    assert done.returncode == 0, done


def test_prometheus_finds_the_service_and_the_rules() -> None:
    (job,) = prometheus()["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert job["job_name"] == "risk-assessment-service"
    assert (names["names"], names["port"]) == (["kyb"], load({}).settings.server.port)
    assert {rule["target_label"] for rule in job["relabel_configs"]} == {"namespace", "pod"}
    (rules,) = [v for v in SERVICES["prometheus"]["volumes"] if v.startswith("./prometheus/rules:")]
    assert Path(rules.split(":")[1]).name == prometheus()["rule_files"][0].partition("/")[0]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "kyb.yml").read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert source["jsonData"]["timeInterval"] == prometheus()["global"]["scrape_interval"]
