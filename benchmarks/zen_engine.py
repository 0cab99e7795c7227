"""Measures the kernel, features included, against zen-engine evaluating the same characteristics as decision tables.

    python benchmarks/zen_engine.py [--profiles 200] [--json FILE] [--check]

Every characteristic of the default model becomes a table of its own with the same bins, missing and not-applicable rows
and points. zen-engine is given the features ready made; our side starts at the decoded profile. The points of every
characteristic of every profile are compared before anything is timed: engines that do not agree are not compared.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import zen
from machine import Machine, machine
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from samples import generated

from app import settings, wire
from app.evidence.base import Findings, ScreeningFacts
from app.registry import Registry, select
from core.conditions import Alternative, Condition
from core.features import feature_row
from core.kernel import conclude_row
from core.model import Characteristic, Feature, Model
from core.scorer import Scorer

TODAY = dt.date(2026, 11, 23).toordinal()
FINDINGS = Findings(ScreeningFacts("not_screened"))
TARGET = 100.0
ROUNDS = 7

Row = dict[str, str]
Context = dict[str, float | str | None]


class Disagreement(Exception):
    """The two sides gave a characteristic different points."""


class Result(Struct, frozen=True):
    """Microseconds a profile. zen_us: the faster of its two inputs; assess_us: features, kernel, sums, overrides."""

    machine: Machine
    profiles: int
    characteristics: int
    rows: int
    zen_us: float
    zen_us_by_input: dict[str, float]
    assess_us: float
    ratio: float


def decision(model: Model) -> dict[str, Any]:
    """The model's characteristics as one zen graph: a decision table each."""
    tables = [_table(characteristic, model.features) for characteristic in model.characteristics]
    ends = [_node("in", "inputNode"), _node("out", "outputNode")]
    edges = [edge for table in tables for edge in (_edge("in", table["id"]), _edge(table["id"], "out"))]
    return {"contentType": "application/vnd.gorules.decision", "nodes": [*ends, *tables], "edges": edges}


def _node(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "name": name, "type": kind, "position": {"x": 0, "y": 0}, **more}


def _edge(source: str, target: str) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "type": "edge", "sourceId": source, "targetId": target}


def _table(characteristic: Characteristic, features: dict[str, Feature]) -> dict[str, Any]:
    rows = list(_rows(characteristic))
    columns = sorted({name for row in rows for name in row} - {"points"})
    content = {
        "hitPolicy": "first",
        "inputs": [{"id": name, "name": name, "field": name} for name in columns],
        "outputs": [{"id": "points", "name": "points", "field": f"points.{characteristic.name}"}],
        "rules": [{"_id": f"{characteristic.name}-{place}", **row} for place, row in enumerate(rows)],
    }
    return _node(f"table-{characteristic.name}", "decisionTableNode", content=content)


def _rows(characteristic: Characteristic) -> Iterator[Row]:
    """The rows of a table, the first that holds decides."""
    feature = characteristic.feature
    # Missing first: a comparison with null must never be asked.
    ordered = sorted(characteristic.attributes, key=lambda attribute: not attribute.condition.missing)
    bins = [
        {feature: cell(attribute.condition), "points": str(attribute.points)}
        for attribute in ordered
        if not attribute.condition.not_applicable
    ]
    not_applicable = [{"points": str(attribute.points)} for attribute in ordered if attribute.condition.not_applicable]
    if characteristic.chosen_when is not None:
        for alternative in characteristic.chosen_when.alternatives:
            yield from (_cells(alternative) | row for row in bins)
        yield from not_applicable
        return
    if characteristic.not_applicable_when is not None:
        for alternative in characteristic.not_applicable_when.alternatives:
            yield _cells(alternative) | not_applicable[0]
    yield from bins


def _cells(alternative: Alternative) -> Row:
    return {name: cell(condition) for name, condition in alternative.terms}


def cell(condition: Condition) -> str:
    """A condition in zen's language for cells."""
    parts = [_interval(interval.text) for interval in condition.intervals]
    parts += [f"'{value}'" for value in condition.values]
    return ", ".join([*parts, "null"] if condition.missing else parts)


def _interval(text: str) -> str:
    low, _, high = (part.strip() for part in text[1:-1].partition(","))
    if low == "-inf":
        return f"{'<=' if text[-1] == ']' else '<'} {high}"
    if high == "inf":
        return f"{'>=' if text[0] == '[' else '>'} {low}"
    return f"{text[0]}{low}..{high}{text[-1]}"


def context(model: Model, row: Sequence[float]) -> Context:
    """A row of features by name: numbers, values by their name, missing as None."""
    named: Context = {}
    for feature, value in zip(model.features.values(), row, strict=True):
        if math.isnan(value):
            named[feature.name] = None
        else:
            named[feature.name] = value if feature.values is None else feature.values[int(value)]
    return named


def check_equal(scorer: Scorer, engine: zen.ZenDecision, rows: Sequence[Sequence[float]]) -> None:
    """Raises Disagreement for the first characteristic with other points."""
    names = [characteristic.name for characteristic in scorer.model.characteristics]
    for row in rows:
        ours = dict(zip(names, conclude_row(scorer.card, array("d", row))["points"], strict=True))
        theirs = engine.evaluate(context(scorer.model, row))["result"]["points"]
        for name in names:
            if theirs.get(name) != ours[name]:
                raise Disagreement(f"{name}: {ours[name]} hundredths, zen-engine {theirs.get(name)}")


def us_each(work: Callable[[], None], count: int) -> float:
    """Microseconds of CPU time for each of `count` things that one call does; the median of some calls."""
    work()
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return median(spent) / count * 1e6


def compare(profiles: int) -> Result:
    """Build both sides, see that they agree, time them."""
    about = machine(["zen-engine", "msgspec"])
    scorer = Registry(select(settings.load({}).settings.model)).active
    bodies = generated(profiles // 2) + generated(profiles - profiles // 2, missing=0.3)
    read = [msgspec.json.decode(body, type=wire.Profile) for body in bodies]
    rows = [feature_row(scorer.extractor, profile, FINDINGS, TODAY) for profile in read]
    graph = decision(scorer.model)
    engine = zen.ZenEngine().create_decision(zen.ZenDecisionContent(json.dumps(graph)))
    check_equal(scorer, engine, rows)
    contexts = [context(scorer.model, row) for row in rows]
    inputs: dict[str, Sequence[Any]] = {"dict": contexts, "JSON text": [json.dumps(one) for one in contexts]}

    def assess() -> None:
        for profile in read * 10:
            scorer.assess(profile, FINDINGS, TODAY)

    def evaluate(given: Sequence[Any]) -> Callable[[], None]:
        def run() -> None:
            for one in given:
                engine.evaluate(one)

        return run

    ours = us_each(assess, 10 * profiles)
    theirs = {name: round(us_each(evaluate(given), profiles), 2) for name, given in inputs.items()}
    best = min(theirs.values())
    count = sum(len(node["content"]["rules"]) for node in graph["nodes"] if "content" in node)
    lines = len(scorer.model.characteristics)
    return Result(about, profiles, lines, count, best, theirs, round(ours, 3), round(best / ours, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the kernel with zen-engine.")
    parser.add_argument("--profiles", type=int, default=200, help="different profiles, half of them with gaps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--check", action="store_true", help=f"end with 1 below a ratio of {TARGET:.0f}")
    options = parser.parse_args()
    found = compare(options.profiles)
    shown = Table(
        title=f"{found.characteristics} characteristics, {found.rows} rows, points equal on {found.profiles} profiles",
        caption=found.machine.line(),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("CPU time a profile")
    shown.add_column("us", justify="right")
    for name, us in found.zen_us_by_input.items():
        shown.add_row(f"zen-engine, features given as {name}", f"{us:,.1f}")
    shown.add_row("this core: features, kernel, sums, overrides", f"{found.assess_us:,.2f}")
    shown.add_row(f"ratio (target {TARGET:.0f})", f"{found.ratio:,.0f}")
    Console().print(shown)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if options.check and found.ratio < TARGET:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
