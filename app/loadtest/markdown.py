"""A report as Markdown: all its figures but for those of each second."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from app.loadtest import telling
from app.loadtest.comparison import counterpart, differences, missing, pairs
from app.loadtest.figures import UNKNOWN, bound, clock, measured, milliseconds
from app.loadtest.results import Report, Scenario, Stage


def markdown(report: Report, earlier: Report | None = None) -> str:
    """The text. earlier: a run to compare with."""
    return "\n".join(_report(report, earlier)).rstrip() + "\n"


def _report(report: Report, earlier: Report | None) -> Iterator[str]:
    yield "# Load test\n"
    yield f"**{_plain(telling.of_all(report))}**\n"
    if misses := telling.misses(report):
        yield "".join(f"- {_plain(line)}\n" for line in misses)
    for scenario in telling.invalid(report):
        yield f"> **INVALID: {_plain(scenario.name)}.** {_plain(scenario.invalid or '')}\n"
    if report.scenarios:
        head = ("scenario", "verdict", "users", "requests/s", "p50", "p95", "p99", "errors")
        yield _table(head, map(_summary, report.scenarios), figures=range(2, 8))
    for scenario in report.scenarios:
        yield from _scenario(scenario, counterpart(scenario.name, earlier))
    if earlier:
        yield from _unlike(report, earlier)
    yield "## Environment\n"
    yield _table(("what", "value"), telling.facts(report.environment))
    for title, values in (
        ("Settings of the test", report.environment.settings),
        ("Limits of the generator's machine", {name: f"{v:,}" for name, v in report.environment.limits.items()}),
        ("Service", report.environment.service),
    ):
        yield f"### {title}\n"
        yield _table(("name", "value"), values.items()) if values else "Not known.\n"


def _summary(scenario: Scenario) -> tuple[str, ...]:
    figures = dict(telling.headline(scenario))
    told = [figures[name] for name in ("requests/s", "p50", "p95", "p99", "errors")]
    return scenario.name, telling.verdict_words(scenario), f"{scenario.users:,}", *told


def _scenario(scenario: Scenario, earlier: Scenario | None) -> Iterator[str]:
    yield f"## {_plain(scenario.name)}: {telling.verdict_words(scenario)}\n"
    yield f"{_plain(scenario.description)}\n"
    yield f"{_plain(telling.asked(scenario))}\n"
    if scenario.invalid is not None:
        yield f"> **INVALID RUN.** {telling.OF_THE_GENERATOR}{_plain(scenario.invalid)}\n"
    if scenario.stopped_by:
        yield f"> **Stopped by this machine, not by the service.** {_plain(scenario.stopped_by)}\n"
    if told := telling.breaking(scenario):
        yield f"**{told}**\n"
    if scenario.targets:
        rows = (
            (t.name, telling.sign_and_words(t), measured(t), bound(t), telling.room(t), t.why)
            for t in telling.targets(scenario)
        )
        yield _table(("target", "verdict", "measured", "bound", "share", "why"), rows, figures=(2, 3, 4))
    names, values = zip(*telling.headline(scenario), strict=True)
    yield _table(names, [values], figures=range(len(names)))
    if scenario.stages:
        yield "### Stages\n"
        judged = telling.stage_targets(scenario)
        stages = (_stage(stage, judged) for stage in scenario.stages)
        yield _table(("users", "from", "to", *judged, "stopped by"), stages, figures=range(3 + len(judged)))
    if scenario.faults:
        yield "### Faults\n"
        head = ("fault", "set at", "removed at", "recovered after")
        yield _table(head, telling.fault_rows(scenario), figures=(1, 2, 3))
    if scenario.routes:
        yield "### By kind of request\n"
        yield _table(
            ("kind", "answers", "share", "mean", "p50", "p95", "p99", "slowest", "statuses", "errors"),
            _routes(scenario),
            figures=range(1, 8),
        )
    if earlier:
        yield "### Compared with the earlier run\n"
        pairwise = pairs(scenario, earlier)
        told_pairs = ((p.name, p.earlier, p.now, telling.ratio_text(p), telling.CHANGES[p.change]) for p in pairwise)
        yield _table(("figure", "earlier", "now", "ratio", "change"), told_pairs, figures=(1, 2, 3))


def _stage(stage: Stage, names: Sequence[str]) -> tuple[str, ...]:
    cells = {target.name: f"{measured(target)} {telling.SIGNS[target.verdict]}" for target in stage.targets}
    return (
        f"{stage.users:,}",
        clock(stage.started_s),
        clock(stage.ended_s),
        *(cells.get(name, UNKNOWN) for name in names),
        stage.stopped_by or "",
    )


def _routes(scenario: Scenario) -> Iterator[tuple[str, ...]]:
    for route in scenario.routes:
        latency = route.latency
        times = (latency.mean, latency.p50, latency.p95, latency.p99, latency.most)
        told = [milliseconds(value) if latency.count else UNKNOWN for value in times]
        counts = telling.statuses(route.statuses), telling.statuses(route.errors)
        yield route.kind, f"{latency.count:,}", telling.share(route, scenario), *told, *counts


def _unlike(report: Report, earlier: Report) -> Iterator[str]:
    yield "## Compared with\n"
    yield f"The run of {_plain(earlier.environment.at)}.\n"
    yield from (f"- {_plain(line)}" for line in missing(report, earlier))
    yield ""
    unlike = differences(report, earlier)
    if unlike:
        yield "What was not the same, so that ratios may say more of it than of the service:\n"
        yield _table(("what", "earlier", "now"), unlike)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], figures: Iterable[int] = ()) -> str:
    """figures: the columns that are set to the right."""
    right = set(figures)
    lines = [head, ["--:" if place in right else "---" for place in range(len(head))]]
    lines += [[_plain(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Text that stands for itself, on one line, in a cell as elsewhere."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split()))
