"""The runbook: sections that are whole, and lines that work on this system."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Postgres, command, database_name, migrated, query
from monitored import ROOT, RUNBOOK, alerts, anchor, blocks, sections, series

from app.telemetry.catalogue import METRICS

PARTS = ("**Symptom.**", "**First command.**", "**Likely causes", "**What to do.**")
SQL = blocks("sql")
LINES = [line for block in blocks("sh") for line in block.splitlines()]
REDIS = [line for line in LINES if line.startswith("redis-cli")]
KUBECTL = [line for line in LINES if line.startswith("kubectl")]
DOCS = sorted((ROOT / "docs").glob("*.md"))
METRIC_LIKE = re.compile(r"`([a-z]+(?:_[a-z0-9]+)*_(?:total|seconds|bytes|ratio|bucket))`")
ANYTHING = re.compile(r"`([a-z]+(?:_[a-z0-9]+)+)`")
OBJECTS = {"risk-assessment-service", "risk-assessment-service-hpa"}
WORDS_OF = [
    ROOT / "app" / "defaults.yaml",
    *(ROOT / "app" / "store" / "postgres" / "migrations" / "versions").glob("v*.py"),
    ROOT / "app" / "neighbours.py",
]
SETTINGS = {"max_bytes"}
"""Names that look like those of metrics."""
FOREIGN = {"pg_monitor", "pg_stat_statements", "shared_preload_libraries", "max_connections"}


@pytest.mark.parametrize("section", ["high-response-times", "scaling-issues", "high-error-rates"])
def test_there_is_a_section(section: str) -> None:
    assert section in sections()


@pytest.mark.parametrize("section", [name for name in sections() if name != "first-minute"])
def test_a_section_says_symptom_first_command_causes_and_what_to_do(section: str) -> None:
    text = sections()[section]
    places = [text.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)
    assert "```" in text[places[1] : places[2]]


def test_sections_and_alerts_name_each_other() -> None:
    named = {name for text in sections().values() for name in re.findall(r"^Alerts: (.+)$", text, re.MULTILINE)}
    listed = {name for line in named for name in re.findall(r"`(\w+)`", line)}
    assert listed == {alert["alert"] for alert in alerts()}


def test_links_within_lead_somewhere() -> None:
    text = RUNBOOK.read_text("utf-8")
    for title, section in re.findall(r"\[([^\]]+)\]\(#([\w-]+)\)", text):
        assert anchor(title) == section
        assert section in sections()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", text):
        assert (RUNBOOK.parent / target).exists(), target


@pytest.mark.parametrize("file", DOCS, ids=[file.name for file in DOCS])
def test_every_metric_that_is_named_exists(file: Path) -> None:
    known = {*series(), *(metric.name for metric in METRICS), *SETTINGS}
    assert set(METRIC_LIKE.findall(file.read_text("utf-8"))) <= known


def test_every_name_in_the_runbook_is_one_of_the_system() -> None:
    known = {*series(), *(metric.name for metric in METRICS), *FOREIGN}
    words = set(re.findall(r"\w+", "".join(file.read_text("utf-8") for file in WORDS_OF)))
    assert set(ANYTHING.findall(RUNBOOK.read_text("utf-8"))) - known - words == set()


@pytest.fixture(scope="module")
def tables() -> Iterator[str]:
    """A database with the service's tables, on a server that counts statements."""
    with Postgres(20, {"shared_preload_libraries": "pg_stat_statements"}) as server:
        url = migrated(server.create_database())
        server.query(database_name(url), "CREATE EXTENSION pg_stat_statements")
        yield url


@pytest.mark.parametrize("statement", SQL, ids=[" ".join(statement.split())[:50] for statement in SQL])
def test_sql_works_on_the_schema(statement: str, tables: str) -> None:
    assert statement.startswith("SELECT ")
    query(tables, statement)


@pytest.mark.parametrize("line", REDIS)
def test_a_line_for_redis_works(line: str, redis_url: str) -> None:
    program, flag, url, *words = shlex.split(line)
    assert (program, flag, url) == ("redis-cli", "-u", "$REDIS_URL")
    if words[0] == "--scan":
        words = ["SCAN", "0", "MATCH", words[words.index("--pattern") + 1], "COUNT", "1000"]
    assert command(redis_url, *words) is not None


@pytest.mark.parametrize("line", KUBECTL)
def test_a_line_for_kubectl_names_what_is_there(line: str) -> None:
    words = shlex.split(line)
    assert words[1:3] == ["-n", "kyb-platform"]
    named = [word.partition("/")[2] for word in words if word.startswith(("deploy/", "deployment/"))]
    named += [words[place + 1] for place, word in enumerate(words) if word == "hpa"]
    assert set(named) <= OBJECTS
    labels = [words[place + 1] for place, word in enumerate(words) if word == "-l"]
    assert set(labels) <= {"app=risk-assessment-service"}
