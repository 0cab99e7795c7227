"""What docs/operations.md says of metrics and health is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from app.settings import load
from app.settings.kinds import show_duration
from app.telemetry.catalogue import METRICS

DOCS = Path(__file__).resolve().parent.parent / "docs"
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return OPERATIONS.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_table_of_metrics_is_the_catalogue() -> None:
    told = [line for line in section("Metrics").splitlines() if line.startswith("| `")]
    labels = [", ".join(f"`{label}`" for label in one.labels) for one in METRICS]
    there = [
        f"| `{one.name}` | {one.kind} | {names} | {one.help} |" for one, names in zip(METRICS, labels, strict=True)
    ]
    assert told == there


def test_a_text_can_stand_in_a_table_and_in_either_format() -> None:
    for one in METRICS:
        assert not set(one.help) & set('|\\\n"'), one.name
        assert one.help.endswith("."), one.name
        assert re.fullmatch("[a-z][a-z0-9_]*", one.name)
        assert (one.kind == "counter") == one.name.endswith("_total"), one.name


def test_the_endpoints_of_health_are_told() -> None:
    for path in ("/health", "/health/live", "/health/ready", "/health/detailed"):
        assert f"| `{path}` |" in section("Health")


def test_the_times_of_an_end_are_the_settings() -> None:
    told = (DOCS / "rolling.md").read_text(encoding="utf-8")
    server = load({}).settings.server
    for name in ("drain_time", "request_deadline", "shutdown_grace"):
        [row] = [line for line in told.splitlines() if line.startswith(f"| `server.{name}` |")]
        assert row.split("|")[3].strip() == f"`{show_duration(getattr(server, name))}`"
    large = load({}, str(DOCS.parent / "configs" / "performance_10k.yaml")).settings.server
    for which, how in ((server, "with the defaults more than {} s"), (large, "(10 s of drain) more than {} s")):
        assert how.format(round(which.drain_time + which.shutdown_grace)) in told
