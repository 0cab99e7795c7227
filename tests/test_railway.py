"""railway.json holds what Railway is known to read, and docs/railway.md says what the service knows."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from service import ROOT

from app.settings import load
from app.settings.budget import KEPT_BACK, database_share
from app.settings.tree import KEYS

CONFIG = json.loads((ROOT / "railway.json").read_text())
DOCS = (ROOT / "docs" / "railway.md").read_text()

# Railway's schema itself (railway.com/railway.schema.json) is not to be had here. This is its documentation of config
# as code, with the types of its SDK (npm railway 3.11.0, BuildConfig and DeployConfig); nothing else is let through.
TEXT, NUMBER = {"type": ["string", "null"]}, {"type": ["integer", "null"], "minimum": 0}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "https://railway.com/railway.schema.json"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "builder": {"enum": ["RAILPACK", "DOCKERFILE", "NIXPACKS"]},
                "buildCommand": TEXT,
                "dockerfilePath": TEXT,
                "watchPatterns": {"type": "array", "items": {"type": "string"}},
            },
        },
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "startCommand": TEXT,
                "preDeployCommand": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
                "numReplicas": {"type": "integer", "minimum": 1},
                "multiRegionConfig": {"type": ["object", "null"]},
                "healthcheckPath": {"type": ["string", "null"], "pattern": "^/"},
                "healthcheckTimeout": NUMBER,
                "restartPolicyType": {"enum": ["ON_FAILURE", "ALWAYS", "NEVER"]},
                "restartPolicyMaxRetries": NUMBER,
                "cronSchedule": TEXT,
                "overlapSeconds": NUMBER,
                "drainingSeconds": NUMBER,
            },
        },
    },
}


def told_variables() -> set[str]:
    table = DOCS.partition("\n## Variables\n")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in first for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_railway_reads_it() -> None:
    jsonschema.validate(CONFIG, SCHEMA)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("deploy", "drainingSeconds", "30"), ("deploy", "healthcheckpath", "/"), ("build", "builder", "PODMAN")],
)
def test_what_it_would_not_read_is_found(section: str, name: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**CONFIG, section: {**CONFIG[section], name: value}}, SCHEMA)


def test_what_it_builds_from_is_there() -> None:
    for name in [CONFIG["build"]["dockerfilePath"], *CONFIG["build"]["watchPatterns"]]:
        assert (ROOT / name.removesuffix("/**")).exists(), name


def test_a_replica_that_goes_is_given_more_time_than_it_takes() -> None:
    server = load({}).settings.server
    assert CONFIG["deploy"]["drainingSeconds"] > server.drain_time + server.shutdown_grace


def test_the_variables_are_settings() -> None:
    known = {key.env for key in KEYS.values()}
    assert {name for name in told_variables() if not name.endswith("_")} <= known
    assert {
        "DATABASE_URL",
        "KEY_HASH_SECRET",
        "AUDIT_SIGNING_KEY",
        "MAX_REPLICAS",
        "DB_MAX_CONNECTIONS",
    } <= told_variables()


def test_the_connections_of_two_generations_fit_into_postgresql() -> None:
    told = re.search(
        r"`DB_MAX_CONNECTIONS` \| `(\d+)` \| of PostgreSQL's (\d+): .* with (\d+) connections a replica", DOCS
    )
    assert told is not None
    budget, most, share = map(int, told.groups())
    replicas = CONFIG["deploy"]["numReplicas"]
    url = "postgresql://kyb@postgres/kyb"
    settings = load({"DATABASE_URL": url, "DB_MAX_CONNECTIONS": str(budget), "MAX_REPLICAS": str(replicas)}).settings
    assert database_share(settings).connections == share
    assert 2 * replicas * share + KEPT_BACK <= most


def test_the_settings_file_that_is_left_out_says_no_more_than_is_told() -> None:
    here, there = load({}).settings, load({"CONFIG_FILE": str(ROOT / "configs" / "performance_10k.yaml")}).settings
    sections = {name: (getattr(here, name), getattr(there, name)) for name in here.__struct_fields__}
    other = {
        f"{section}.{name}"
        for section, (one, two) in sections.items()
        if one != two
        for name in one.__struct_fields__
        if getattr(one, name) != getattr(two, name)
    }
    assert other == {"server.body_timeout", "server.drain_time", "scaling.min_replicas", "scaling.max_replicas"}
