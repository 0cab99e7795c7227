"""docs/scaling.md says what was measured, what follows from it, and what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

# Behind everything else: some names are modules of the tests too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import capacity
from databases import Postgres, migrated, query
from hypothesis import given
from hypothesis import strategies as st

from app.api.permissions import NO_STORE, PUBLIC, REVALIDATED, RULES
from app.settings import load

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"(?<![\w.,])\.?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_table_is_what_its_program_makes_of_the_figures() -> None:
    assert TEXT.partition("<!-- capacity -->\n")[2].partition("\n<!-- /capacity -->")[0] == capacity.table()


@pytest.mark.parametrize(
    "figure",
    ["POD_US", "POOLER_US", "DATABASE_US", "POD_MB", "CONNECTION_KB", "ROW_BYTES", "ENTRY_BYTES", "LOG_BYTES"],
)
def test_every_figure_of_the_program_was_measured(figure: str) -> None:
    assert str(getattr(capacity, figure)) in _NUMBER.findall(MEASURED)


def test_the_program_reckons_with_the_manifests_pods() -> None:
    kubernetes = ROOT / "deploy" / "kubernetes"
    scaler = yaml.safe_load((kubernetes / "components/autoscaling/autoscaler.yaml").read_text())
    marks = {one["resource"]["name"]: one["resource"]["target"] for one in scaler["spec"]["metrics"]}
    assert marks["cpu"]["averageUtilization"] == round(capacity.MARK * 100)
    settings = dict(
        line.split("=", 1)
        for line in (kubernetes / "overlays/10k/settings.env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert int(settings["MIN_REPLICAS"]) == capacity.LEAST_PODS
    pods = load({}, str(ROOT / "configs/performance_10k.yaml")).settings
    assert pods.redis.pool_size == capacity.REDIS_CLIENTS
    (container,) = yaml.safe_load((kubernetes / "base/deployment.yaml").read_text())["spec"]["template"]["spec"][
        "containers"
    ]
    # The mark is one of a core.
    assert container["resources"]["requests"]["cpu"] == "1"


@given(st.integers(1, 10_000_000), st.floats(0.01, 3600))
def test_no_pod_is_over_its_mark_and_none_is_there_for_nothing(users: int, period_s: float) -> None:
    need = capacity.need(users, period_s)
    assert need.cores <= need.pods * capacity.MARK * (1 + 1e-9)
    assert need.pods == capacity.LEAST_PODS or need.cores > (need.pods - 1) * capacity.MARK
    assert need.connections * need.pods >= users


def test_every_figure_of_what_it_costs_was_measured() -> None:
    costs = section("What it costs").partition("| one |")[2]
    told = set(_NUMBER.findall(re.sub(r"2026-11-\d\d( \d\d:\d\d)?|10[⁰-⁹]+", "", costs)))
    assert len(told) > 20
    assert told - set(_NUMBER.findall(MEASURED)) == set()


def tables_named(line: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", line.split("|")[1]))


def test_the_tables_are_distributed_as_their_keys_allow(postgres: Postgres) -> None:
    rows = [line for line in section("Tenants apart").splitlines() if line.startswith("| `")]
    apart, everywhere, keys, local = map(tables_named, rows)
    url = migrated(postgres.create_database())
    found = query(
        url,
        """\
SELECT t.relname, array_agg(a.attname::text) AS leads
FROM pg_class t JOIN pg_index x ON x.indrelid = t.oid AND x.indisunique
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
WHERE t.relnamespace = 'public'::regnamespace AND NOT t.relispartition GROUP BY 1""",
    )
    leads = {str(row["relname"]): set(row["leads"]) for row in found}
    assert apart | everywhere | keys | local == set(leads)
    assert {name for name, first in leads.items() if first == {"tenant_id"}} == apart
    assert {name for name in keys if "tenant_id" in leads[name]} == set()
    assert query(url, "SELECT 1 FROM pg_constraint WHERE contype = 'f'") == []


def test_what_a_shared_cache_may_keep_is_what_the_routes_say() -> None:
    rows = [line for line in section("A CDN in front").splitlines() if line.startswith("| `")]
    kept = {path: line for line in rows for path in re.findall(r"`(/[^`]*?)(?:/…)?`", line.split("|")[1])}
    words = {PUBLIC: "public, max-age=300", REVALIDATED: "private, no-cache", NO_STORE: "no-store"}
    for (_, path), rule in RULES.items():
        named = max((name for name in kept if path.startswith(name)), key=len)
        assert f"`{words[rule.cache]}`" in kept[named], path
        assert ("**never**" in kept[named]) == (rule.cache != PUBLIC), path


@pytest.mark.parametrize("title", ["Standbys that are read", "Redis Cluster"])
def test_the_settings_that_are_shown_are_taken(title: str) -> None:
    lines = re.findall(r"^ {4}([A-Z_]+)=(.+)$", section(title), re.MULTILINE)
    assert lines
    environ = {name: value.replace("…", "secret") for name, value in lines}
    settings = load(environ).settings
    if title == "Redis Cluster":
        assert settings.redis.cluster
    else:
        assert settings.database.is_postgres
        assert settings.database.direct_url == environ["DATABASE_DIRECT_URL"]
