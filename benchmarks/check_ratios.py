"""Holds the ratios of bench_ratios.py against their baselines, or renews these.

    python benchmarks/check_ratios.py [-k EXPRESSION]           ends with 1 where one has fallen by more than 15 %
    python benchmarks/check_ratios.py [-k EXPRESSION] --keep    measures in several processes and stores the medians

What is too low is measured again, in a process of its own: where the parts of a process come to lie in memory moves a
ratio by up to a tenth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import baselines
import msgspec
from baselines import Baseline, Verdict
from machine import Machine, machine
from rich.console import Console
from rich.table import Table

SUITE = Path(__file__).with_name("bench_ratios.py")
PACKAGES = ("msgspec", "uvloop", "granian", "orjson", "rapidfuzz")


class Ratio(msgspec.Struct, frozen=True):
    """What a benchmark says of itself. yardstick: what it is in multiples of."""

    ratio: float
    yardstick: str


class One(msgspec.Struct, frozen=True):
    name: str
    extra_info: Ratio


class Measured(msgspec.Struct, frozen=True):
    """The part that is read of what pytest-benchmark writes."""

    benchmarks: list[One]


def measured(chosen: Sequence[str]) -> dict[str, Ratio]:
    """The ratios of one run of the suite, by name. chosen: further arguments of pytest. Ends where the run fails."""
    with tempfile.TemporaryDirectory(prefix="ratios-") as folder:
        file = Path(folder) / "out.json"
        command = [sys.executable, "-m", "pytest", "-q", "--benchmark-quiet", f"--benchmark-json={file}", *chosen]
        done = subprocess.run(command, cwd=SUITE.parent.parent, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}\nthe benchmarks themselves failed")
        found = msgspec.json.decode(file.read_bytes(), type=Measured)
    return {one.name.removeprefix("test_"): one.extra_info for one in found.benchmarks}


def check(found: dict[str, Ratio], about: Machine) -> bool:
    """Show each ratio beside its baseline; whether all are good."""
    before = baselines.load()
    table = Table(title=about.line(), title_justify="left")
    for heading in ("", "ratio", "baseline", "change", "in multiples of", "attempts"):
        table.add_column(heading, justify="right" if heading in ("ratio", "baseline", "change", "attempts") else "left")
    faults = []
    for name, one in found.items():
        kept = before.get(name)
        if kept is None or kept.yardstick != one.yardstick:
            table.add_row(name, f"{one.ratio:.4g}", "none", "", one.yardstick)
            faults.append(f"{name} has no baseline in multiples of {one.yardstick}: `make bench-baseline` makes one")
            continue
        verdict = baselines.judged(kept.ratio, one.ratio, lambda name=name: again(name))  # type: ignore[misc]
        table.add_row(name, *_figures(verdict, kept), one.yardstick, str(verdict.attempts))
        if verdict.has_fallen:
            faults.append(baselines.explained(name, verdict, kept, about.cpu, about.python))
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False, markup=False)
    console.print(table)
    for fault in faults:
        console.print(fault)
    return not faults


def again(name: str) -> float:
    """One ratio, measured once more."""
    return measured([f"{SUITE}::test_{name}"])[name].ratio


def keep(passes: Sequence[dict[str, Ratio]], about: Machine) -> bool:
    """Store the medians; whether all passes were near enough to each other."""
    is_good = True
    for name, one in passes[0].items():
        ratios = [found[name].ratio for found in passes]
        middle, least, most = (round(of(ratios), 6) for of in (median, min, max))
        kept = Baseline(one.yardstick, middle, least, most, about.date, about.cpu, about.python, about.revision)
        told = f"{name}: {middle:.4g} of {one.yardstick}, {least:.4g} to {most:.4g} in {len(ratios)} processes"
        if kept.spread > baselines.SPREAD:
            told += f"; NOT KEPT, for they differ by more than {baselines.SPREAD:.0%}: measure on a quieter machine"
            is_good = False
        else:
            baselines.keep(name, kept)
        print(told)
    return is_good


def _figures(verdict: Verdict, kept: Baseline) -> tuple[str, str, str]:
    return f"{verdict.ratio:.4g}", f"{kept.ratio:.4g}", f"{verdict.change:+.0%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="EXPRESSION", help="which ones, as pytest understands it")
    parser.add_argument("--keep", action="store_true", help="store what is measured")
    options = parser.parse_args()
    chosen = [str(SUITE), *(["-k", options.k] if options.k else [])]
    about = machine(PACKAGES)
    if options.keep:
        return int(not keep([measured(chosen) for _ in range(baselines.PASSES)], about))
    return int(not check(measured(chosen), about))


if __name__ == "__main__":
    sys.exit(main())
