"""How a load test looks while it runs, and what it comes to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.output import Output
from app.loadtest.judging import INVALID
from app.loadtest.results import Report, Scenario, Second, Target, Verdict
from app.loadtest.running import Glance
from app.loadtest.scenarios import Plan

STYLES: dict[Verdict, str] = {"met": "green", "missed": "bold red", "not_judged": "yellow"}
WORDS: dict[Verdict, str] = {"met": "met", "missed": "MISSED", "not_judged": "not judged"}
ROWS = 12
EVERY_S = 10
"""Without a terminal, how often a line tells how far it is."""


class View:
    """Progress on standard error, what it comes to on standard output."""

    def __init__(self) -> None:
        self._err = Console(stderr=True, highlight=False, emoji=False, markup=False)
        self._out = Output()
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._seconds: list[Second] = []

    def __enter__(self) -> Self:
        self._out.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._out.__exit__(kind, error, trace)

    def begin(self, plan: Plan) -> None:
        """A scenario is about to run."""
        self._plan, self._seconds = plan, []
        if self._err.is_terminal:
            self._live = Live(self._table(), console=self._err, transient=True, refresh_per_second=2)
            self._live.start()
        else:
            self._err.print(f"{plan.name}: {plan.description}, {_time(plan)}")

    def show(self, glance: Glance) -> None:
        """A second has passed."""
        self._seconds = [*self._seconds[1 - ROWS :], glance.second]
        if self._live is not None:
            self._live.update(self._table())
        elif not self._err.is_terminal and (glance.at_s + 1) % EVERY_S == 0:
            one = glance.second
            self._err.print(
                f"  {glance.at_s + 1:5} s  {one.users:,} users  {one.answered:,}/s  p95 {one.latency.p95:,.1f} ms  "
                f"{one.errors:,} errors"
            )

    def tell(self, scenario: Scenario) -> None:
        """What a scenario came to."""
        self._stop()
        out = self._out.console()
        out.print(
            Text(scenario.name, "bold"),
            f"{scenario.description}, {scenario.duration_s:.0f} s: {scenario.per_second:,.0f} requests/s,",
            f"p50 {scenario.latency.p50:,.1f}, p95 {scenario.latency.p95:,.1f}, p99 {scenario.latency.p99:,.1f} ms,",
            f"{scenario.errors:,} errors",
            soft_wrap=True,
        )
        if scenario.targets:
            out.print(_targets(scenario.targets), soft_wrap=True)
        for stage in scenario.stages:
            missed = [target for target in stage.targets if target.verdict == "missed"]
            told = ", ".join(f"{target.name} {_shown(target)}" for target in missed)
            verdict = f"missed: {told}" if missed else stage.stopped_by or "met"
            out.print(f"  {stage.users:,} users: {verdict}", soft_wrap=True)
        for fault in scenario.faults:
            recovered = fault.recovered_after_s
            after = "no recovery was seen" if recovered is None else f"within all targets again {recovered:.1f} s later"
            out.print(
                f"  {fault.name} at {fault.set_s:.0f} s, ended at {fault.removed_s:.0f} s; {after}", soft_wrap=True
            )
        for route in scenario.routes:
            refused = {status: count for status, count in route.statuses.items() if status >= "400"}
            told = ", ".join(f"{why} {count:,}" for why, count in {**refused, **route.errors}.items())
            if told:
                out.print(Text(f"  {route.kind}: {told}", "red"), soft_wrap=True)
        if scenario.invalid:
            out.print(Text(f"  This proves nothing: {scenario.invalid}.", "bold yellow"), soft_wrap=True)
        if scenario.stopped_by:
            out.print(Text(f"  A limit of this machine: {scenario.stopped_by}.", "bold yellow"), soft_wrap=True)

    def end(self, report: Report, paths: Sequence[Path]) -> None:
        """What all of it came to, and where it is written."""
        out = self._out.console()
        out.print(Text(f"All together: {WORDS[report.verdict]}", STYLES[report.verdict]))
        for path in paths:
            out.print(str(path), soft_wrap=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            sys.stderr.flush()

    def _table(self) -> Table:
        assert self._plan is not None
        done = self._seconds[-1].at_s + 1 if self._seconds else 0
        table = Table(
            title=f"{self._plan.name}: {self._plan.description}; {done} of {self._plan.seconds} s"
            if done
            else f"{self._plan.name}: {self._plan.description}; connecting",
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for name in (
            "s",
            "users",
            "intended",
            "answered",
            "errors",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "own delay ms",
            "CPU",
        ):
            table.add_column(name, justify="right")
        for one in self._seconds:
            table.add_row(
                f"{one.at_s + 1}",
                f"{one.users:,}",
                f"{one.intended:,}",
                f"{one.answered:,}",
                Text(f"{one.errors:,}", "bold red" if one.errors else ""),
                f"{one.latency.p50:,.1f}",
                f"{one.latency.p95:,.1f}",
                f"{one.latency.p99:,.1f}",
                f"{one.late_p99_ms:,.1f}",
                f"{one.generator_cpu:.2f}",
            )
        return table


def _targets(targets: Sequence[Target]) -> Text:
    """A target a line, in columns."""
    rows = [(one.name, _shown(one), _bound(one)) for one in targets]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = Text()
    for row, target in zip(rows, targets, strict=True):
        text.append("  " + "  ".join(map(str.ljust, row, widths)) + "  ")
        why = f" ({target.why})" if target.why and not target.why.startswith(INVALID) else ""
        text.append(WORDS[target.verdict] + why + "\n", STYLES[target.verdict])
    text.rstrip()
    return text


def _shown(target: Target) -> str:
    if target.measured is None:
        return "none"
    return f"{target.measured:,.{0 if target.measured >= 1000 else 2}f} {target.unit}"


def _bound(target: Target) -> str:
    return f"{'below' if target.at_most else 'at least'} {target.bound:,g} {target.unit}"


def _time(plan: Plan) -> str:
    return f"{plan.seconds} s" if not plan.seeks_limit else f"{plan.phases[0].seconds if plan.phases else 0} s a stage"
