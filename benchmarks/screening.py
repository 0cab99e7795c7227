"""Measures the name index: how well it tells names apart, how fast it finds them, and how much room it takes.

    python benchmarks/screening.py DATA [--many 1000000] [--json FILE] [--check]

DATA holds names/cases.csv (labelled pairs: schema, name1, name2, is_match), ofac/sdn.csv and alt.csv (the SDN list in
its own CSV form) and un/consolidated.xml. --check ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import gc
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from machine import Machine, machine
from msgspec import Struct
from parties import companies, many, ofac, persons, un, with_typo
from rapidfuzz import fuzz, process
from rich.console import Console
from rich.table import Table

from core.comparison import compare
from core.entities import Entity
from core.matches import DEFAULT_CUTOFF, Query
from core.names import NameIndex
from core.normal import prepare

LIMIT = 10
FOLDS = 10
ROUNDS = 5

Scored = tuple[float, bool, bool]  # score, is a match, is no person


class Figure(Struct, frozen=True):
    """One measured number. at_most: whether the target is the most (or the least) that is good; None = no target."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = True

    def missed(self) -> bool:
        return self.target is not None and (self.value > self.target if self.at_most else self.value < self.target)


class Result(Struct, frozen=True):
    machine: Machine
    figures: list[Figure]


def f1(scored: Sequence[Scored], cutoff: float) -> float:
    hits = sum(score >= cutoff and same for score, same, _ in scored)
    wrong = sum((score >= cutoff) != same for score, same, _ in scored)
    return 2 * hits / (2 * hits + wrong) if hits else 0.0


def best_cutoff(scored: Sequence[Scored]) -> float:
    """The cutoff of the best F1; of several, the one nearest to the default."""
    cutoffs = [step / 200 for step in range(80, 200)]
    return max(cutoffs, key=lambda cutoff: (f1(scored, cutoff), -abs(cutoff - DEFAULT_CUTOFF)))


def crossed(scored: Sequence[Scored], seed: int) -> list[Scored]:
    """Each pair decided (1 or 0) at the cutoff that is best on the other folds."""
    order = list(range(len(scored)))
    random.Random(seed).shuffle(order)
    decided = []
    for fold in range(FOLDS):
        held = set(order[fold::FOLDS])
        cutoff = best_cutoff([pair for i, pair in enumerate(scored) if i not in held])
        decided += [(float(scored[i][0] >= cutoff), *scored[i][1:]) for i in sorted(held)]
    return decided


def quality(path: Path) -> list[Figure]:
    scored: list[Scored] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            schema: Any = row["schema"]
            person = {"Person": True, "LegalEntity": None}.get(schema, False)
            score = compare(prepare(row["name1"], schema), prepare(row["name2"], schema), person)
            scored.append((score, row["is_match"] == "true", schema != "Person"))
    organisations = [pair for pair in scored if pair[2]]
    people = [pair for pair in scored if not pair[2]]
    crosses = [crossed(scored, seed) for seed in range(ROUNDS)]
    return [
        Figure(f"F1 of {len(scored)} labelled pairs at {DEFAULT_CUTOFF}", f1(scored, DEFAULT_CUTOFF), "", 0.85, False),
        Figure("F1, organisations", f1(organisations, DEFAULT_CUTOFF), "", 0.88, False),
        Figure("F1, persons", f1(people, DEFAULT_CUTOFF), ""),
        Figure("F1, cross-validated", min(f1(pairs, 0.5) for pairs in crosses), "", 0.83, False),
        Figure(
            "F1, cross-validated, organisations",
            min(f1([pair for pair in pairs if pair[2]], 0.5) for pairs in crosses),
            "",
            0.85,
            False,
        ),
    ]


def typos(index: NameIndex, entities: Sequence[Entity], count: int = 4000) -> Figure:
    """Per cent of listed names, one typo in each, for which an entity bearing the name shares the first rank."""
    chance = random.Random(5)
    bearers: dict[str, set[int]] = {}
    for ordinal, entity in enumerate(entities):
        for name in entity.names + entity.weak_names:
            bearers.setdefault(name, set()).add(ordinal)
    names = [name for name in bearers if sum(c.isalpha() for c in name) >= 6]
    first = 0
    for name in chance.sample(names, count):
        person = entities[min(bearers[name])].schema == "Person"
        found = index.search(Query((prepare(with_typo(name, chance), None),), person), 0.5, 50)
        first += any(match.score == found[0].score and match.entity in bearers[name] for match in found)
    return Figure(f"listed name with a typo ranks first, of {count}", 100 * first / count, "%", 99.0, False)


def false_alarms(index: NameIndex, names: Sequence[str]) -> Figure:
    hits = sum(bool(index.search(Query((prepare(name, "Company"),), False), DEFAULT_CUTOFF, 1)) for name in names)
    return Figure(f"{len(names)} ordinary companies that reach {DEFAULT_CUTOFF}", 100 * hits / len(names), "%", 1.0)


def timed(call: Callable[[str], object], names: Sequence[str], rounds: int) -> list[float]:
    """Microseconds of each name, the least of the rounds, so that what the machine did besides does not count."""
    least = [float("inf")] * len(names)
    gc.disable()
    for _ in range(rounds):
        for i, name in enumerate(names):
            begin = time.perf_counter_ns()
            call(name)
            least[i] = min(least[i], (time.perf_counter_ns() - begin) / 1000)
    gc.enable()
    return sorted(least)


def searcher(index: NameIndex, person: bool | None) -> Callable[[str], object]:
    """A name from its text to its matches."""
    return lambda name: index.search(Query((prepare(name, None),), person), DEFAULT_CUTOFF, LIMIT)


def speed(index: NameIndex, label: str, mean_target: float | None, p99_target: float) -> list[Figure]:
    figures = []
    kinds: list[tuple[str, bool | None, list[str]]] = [
        ("companies", False, companies(1000)),
        ("persons", True, persons(1000)),
        ("companies, kind unknown", None, companies(1000)),
    ]
    for kind, person, names in kinds:
        spent = timed(searcher(index, person), names, 3)
        known = person is not None
        figures += [
            Figure(f"{label}: {kind}, mean", sum(spent) / len(spent), "µs", mean_target if known else None),
            Figure(f"{label}: {kind}, p50", spent[len(spent) // 2], "µs"),
            Figure(f"{label}: {kind}, p99", spent[len(spent) * 99 // 100], "µs", p99_target if known else None),
        ]
    return figures


def against_rapidfuzz(index: NameIndex, entities: Sequence[Entity]) -> Figure:
    listed = [name.lower() for entity in entities for name in entity.names + entity.weak_names]
    names = companies(40)
    theirs = timed(lambda name: process.extractOne(name.lower(), listed, scorer=fuzz.WRatio), names, 1)
    ours = timed(searcher(index, False), names, 3)
    return Figure(
        f"times faster than rapidfuzz extractOne, {len(listed):,} names", sum(theirs) / sum(ours), "times", 100, False
    )


def built(entities: Sequence[Entity], label: str, seconds_target: float | None) -> tuple[NameIndex, list[Figure]]:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    snapshot = NameIndex.build(entities)
    took, took_cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    begin = time.perf_counter()
    index = NameIndex(snapshot)
    opened = time.perf_counter() - begin
    probes = index.probes()["words"]
    return index, [
        Figure(f"{label}: built, by the clock", took, "s"),
        Figure(f"{label}: built, CPU time", took_cpu, "s", seconds_target),
        Figure(f"{label}: opened", 1000 * opened, "ms"),
        Figure(f"{label}: names", index.n_names, ""),
        Figure(f"{label}: bytes a name, entities included", index.n_bytes / index.n_names, "", 200.0),
        Figure(f"{label}: bytes a name, without them", (index.n_bytes - index.entity_bytes) / index.n_names, ""),
        Figure(f"{label}: entries read to find a word", probes[0], ""),
    ]


def measured(data: Path, count: int) -> list[Figure]:
    figures = quality(data / "names" / "cases.csv")
    sdn = ofac(data / "ofac")
    figures.append(typos(NameIndex(NameIndex.build(sdn)), sdn))
    entities = sdn + un(data / "un" / "consolidated.xml")
    index, about = built(entities, "OFAC + UN", None)
    figures += about
    figures.append(false_alarms(index, companies(1000)))
    figures += speed(index, "OFAC + UN", 40.0, 300.0)
    figures.append(against_rapidfuzz(index, entities))
    _, about = built(entities[:10000], "10,000 entities", None)
    figures.append(msgspec.structs.replace(about[2], target=500.0))
    if count:
        generated = list(many(count))
        index, about = built(generated, f"{count:,} generated", 15.0)
        figures += about + speed(index, f"{count:,} generated", None, 1500.0)
        figures += alike(index, generated)
    return figures


def alike(index: NameIndex, entities: Sequence[Entity]) -> list[Figure]:
    """Listed names with a typo: unlike ordinary ones they are made of the list's own words, its most frequent too."""
    chance = random.Random(6)
    names = [with_typo(entity.names[0], chance) for entity in chance.sample(entities, 1000)]
    spent = timed(searcher(index, None), names, 3)
    first = 0
    for entity in chance.sample(entities, 1000):
        found = index.search(
            Query((prepare(with_typo(entity.names[0], chance), None),), entity.schema == "Person"), 0.5, 50
        )
        first += any(
            match.score == found[0].score and index.entity(match.entity).names == entity.names for match in found
        )
    return [
        Figure("generated: listed names with a typo, kind unknown, mean", sum(spent) / len(spent), "µs"),
        Figure("generated: listed names with a typo, kind unknown, p99", spent[len(spent) * 99 // 100], "µs"),
        Figure("generated: listed name with a typo ranks first, of 1000", first / 10, "%"),
    ]


def show(result: Result) -> None:
    table = Table(title=result.machine.line())
    for column in ("what", "measured", "target", ""):
        table.add_column(column)
    for figure in result.figures:
        bound = "" if figure.target is None else f"{'≤' if figure.at_most else '≥'} {figure.target:g} {figure.unit}"
        table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", bound, "missed" if figure.missed() else "")
    Console(width=130).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--many", type=int, default=1_000_000, help="generated names; 0 leaves them out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    result = Result(machine(["anyascii", "rapidfuzz", "Cython"]), measured(options.data, options.many))
    show(result)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return int(options.check and any(figure.missed() for figure in result.figures))


if __name__ == "__main__":
    raise SystemExit(main())
