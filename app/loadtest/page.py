"""A report as one HTML page: it loads nothing, runs nothing but its own script, and can be read without that."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from app.loadtest import distribution, overtime, telling
from app.loadtest.comparison import Pair, counterpart, differences, missing, pairs
from app.loadtest.figures import UNKNOWN, bound, clock, measured, milliseconds
from app.loadtest.looks import SCRIPT, STYLE
from app.loadtest.results import Report, Route, Scenario, Stage, Target

BAR_WIDTH = 100
"""Of a target's bar, whose bound stands at three quarters of it."""


def page(report: Report, earlier: Report | None = None) -> str:
    """The page. earlier: a run to compare with."""
    return "".join(_page(report, earlier))


def _page(report: Report, earlier: Report | None) -> Iterator[str]:
    title = f"Load test of {escape(report.environment.url)}"
    policy = f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; img-src data:; "
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}base-uri 'none'; form-action 'none'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
    yield f"<title>{title}</title><style>{STYLE}</style></head><body><header><h1>{title}</h1>"
    where = report.environment
    yield f'<p class="soft">{escape(where.at)} · {escape(where.machine)}, {telling.counted(where.cores, "core")}</p>'
    yield from _verdict(report)
    yield "</header><main>"
    if report.scenarios:
        head = ("scenario", "verdict", "users", "requests/s", "p50", "p95", "p99", "errors")
        yield _table(head, (_summary(one, place) for place, one in enumerate(report.scenarios)), figures=range(2, 8))
    if earlier:
        yield from _unlike(report, earlier)
    for place, scenario in enumerate(report.scenarios):
        yield from _scenario(scenario, _anchor(place), counterpart(scenario.name, earlier))
    yield from _environment(report)
    yield f"</main><script>{SCRIPT}</script></body></html>\n"


def _verdict(report: Report) -> Iterator[str]:
    yield _banner(report.verdict, f"{telling.SIGNS[report.verdict]} {telling.of_all(report)}", *telling.misses(report))
    for scenario in telling.invalid(report):
        yield _banner("invalid", f"INVALID: {scenario.name}", scenario.invalid or "")


def _summary(scenario: Scenario, place: int) -> tuple[str, ...]:
    figures = dict(telling.headline(scenario))
    told = [escape(figures[name]) for name in ("requests/s", "p50", "p95", "p99", "errors")]
    return (
        f'<a href="#{_anchor(place)}">{escape(scenario.name)}</a>',
        _badge(scenario),
        f"{scenario.users:,}",
        *told,
    )


def _scenario(scenario: Scenario, name: str, earlier: Scenario | None) -> Iterator[str]:
    yield f'<section id="{name}"><div class="head"><h2>{escape(scenario.name)}</h2>{_badge(scenario)}</div>'
    asked = _joined(telling.asked(scenario))
    yield f'<p>{escape(scenario.description)}</p><p class="soft">{asked}</p>'
    if scenario.invalid is not None:
        why = telling.OF_THE_GENERATOR + scenario.invalid
        yield _banner("invalid", "INVALID RUN", why)
    if scenario.stopped_by:
        yield _banner("warn", "Stopped by this machine, not by the service", scenario.stopped_by)
    figures = telling.headline(scenario)
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{_joined(text)}</dd></div>" for name, text in figures)
    yield f'<dl class="tiles">{tiles}</dl>'
    if scenario.targets:
        yield "<h3>Targets</h3>"
        columns = ("target", "verdict", "measured", "bound", "", "")
        yield _table(columns, map(_target, telling.targets(scenario)), figures=(2, 3), extra=(4, 5))
    if told := telling.breaking(scenario):
        yield _banner("warn" if scenario.breaking_point else "met", told)
    if scenario.stages:
        yield from _stages(scenario)
    if scenario.faults:
        yield from _faults(scenario)
    yield from _key(scenario)
    yield f'<div class="charts">{"".join(overtime.charts(scenario, name))}'
    yield f"{''.join(distribution.charts(scenario, name, earlier))}</div>"
    if scenario.routes:
        yield "<h3>By kind of request</h3>"
        kinds = ("kind", "answers", "share", "mean", "p50", "p95", "p99", "slowest", "statuses", "errors")
        yield _table(kinds, (_route(route, scenario) for route in scenario.routes), figures=range(1, 8))
    if earlier:
        yield "<h3>Compared with the earlier run</h3>"
        yield _compared(pairs(scenario, earlier))
    yield "</section>"


def _target(target: Target) -> tuple[str, ...]:
    why = f'<br><span class="soft">{escape(target.why)}</span>' if target.why else ""
    return (
        escape(target.name),
        f"{_verdict_badge(target)}{why}",
        escape(measured(target)),
        escape(bound(target)),
        _bar(target),
        escape(telling.room(target)),
    )


def _bar(target: Target) -> str:
    """What was measured beside its bound, where the one can be drawn as a part of the other."""
    if target.measured is None or target.verdict == "not_judged" or not telling.is_share(target):
        return ""
    at = BAR_WIDTH * 3 / 4
    width = min(BAR_WIDTH, at * max(0.0, target.measured) / target.bound)
    return (
        f'<svg class="bar" viewBox="0 0 {BAR_WIDTH} 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="trough" width="{BAR_WIDTH}" height="10" rx="2"/>'
        f'<rect class="{target.verdict}" width="{width:.1f}" y="2" height="6"/>'
        f'<line x1="{at:g}" x2="{at:g}" y1="0" y2="10"/></svg>'
    )


def _stages(scenario: Scenario) -> Iterator[str]:
    names = telling.stage_targets(scenario)
    yield "<h3>Stages</h3>"
    rows = []
    for stage in scenario.stages:
        rows.append((f"{stage.users:,}", f"{clock(stage.started_s)} to {clock(stage.ended_s)}", *_cells(stage, names)))
    yield _table(("users", "time", *names, ""), rows, figures=range(2 + len(names)))


def _cells(stage: Stage, names: Sequence[str]) -> Iterator[str]:
    by_name = {target.name: target for target in stage.targets}
    for name in names:
        target = by_name.get(name)
        if target is None:
            yield UNKNOWN
            continue
        text = f"{escape(measured(target))} {telling.SIGNS[target.verdict]}"
        yield f'<strong class="badge missed">{text}</strong>' if target.verdict == "missed" else text
    yield f'<span class="badge">stopped by this machine</span> {escape(stage.stopped_by)}' if stage.stopped_by else ""


def _faults(scenario: Scenario) -> Iterator[str]:
    yield "<h3>Faults</h3>"
    rows = [tuple(map(escape, row)) for row in telling.fault_rows(scenario)]
    yield _table(("fault", "set at", "removed at", "recovered after"), rows, figures=(1, 2, 3))


def _key(scenario: Scenario) -> Iterator[str]:
    """What the marks on the charts over time mean."""
    if scenario.stages:
        yield '<p class="soft keys">On the charts, dotted lines are where stages begin, with the users of each.</p>'
    if scenario.faults:
        yield '<p class="soft keys">On the charts: '
        for tone, words in (("fault", "while the fault was set"), ("recovery", "until all targets were met again")):
            yield f'<svg class="swatch" aria-hidden="true"><rect class="band {tone}" width="100%" height="100%"/></svg>'
            yield f"{words} "
        yield "</p>"


def _route(route: Route, scenario: Scenario) -> tuple[str, ...]:
    latency = route.latency
    times = (latency.mean, latency.p50, latency.p95, latency.p99, latency.most)
    told = [milliseconds(value) if latency.count else UNKNOWN for value in times]
    counts = telling.statuses(route.statuses), telling.statuses(route.errors)
    return (
        escape(route.kind),
        f"{latency.count:,}",
        telling.share(route, scenario),
        *map(escape, told),
        *map(escape, counts),
    )


def _compared(found: Iterable[Pair]) -> str:
    signs = {"better": "▲", "worse": "▼", "same": "", "unknown": ""}
    rows = [
        (
            escape(pair.name),
            escape(pair.earlier),
            escape(pair.now),
            escape(telling.ratio_text(pair)),
            f'<span class="badge {"met" if pair.change == "better" else "missed" if pair.change == "worse" else ""}">'
            f"{signs[pair.change]} {telling.CHANGES[pair.change]}</span>",
        )
        for pair in found
    ]
    return _table(("figure", "earlier", "now", "now ÷ earlier", "change"), rows, figures=(1, 2, 3))


def _unlike(report: Report, earlier: Report) -> Iterator[str]:
    yield f"<section><h2>Compared with the run of {escape(earlier.environment.at)}</h2>"
    yield "<p>The figures of both runs stand side by side under each scenario.</p>"
    for line in missing(report, earlier):
        yield f"<p>{escape(line)}</p>"
    unlike = differences(report, earlier)
    if unlike:
        yield '<p class="soft">What was not the same, so that ratios may say more of it than of the service:</p>'
        yield _table(("what", "earlier", "now"), [tuple(map(escape, one)) for one in unlike])
    yield "</section>"


def _environment(report: Report) -> Iterator[str]:
    where = report.environment
    yield '<section id="environment"><h2>Environment</h2><div class="split">'
    yield _facts("Where", dict(telling.facts(where)))
    yield _facts("Settings of the test", where.settings)
    yield _facts("Limits of the generator's machine", {name: f"{value:,}" for name, value in where.limits.items()})
    yield _facts("Service", where.service)
    yield "</div></section>"


def _facts(title: str, values: Mapping[str, str] | None) -> str:
    if not values:
        return f'<div><h3>{escape(title)}</h3><p class="soft">Not known.</p></div>'
    rows = [(escape(name), escape(value)) for name, value in values.items()]
    return f"<div><h3>{escape(title)}</h3>{_table(('name', 'value'), rows)}</div>"


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], figures: Iterable[int] = (), extra: Sequence[int] = ()
) -> str:
    """rows: cells as HTML.  figures: the columns that are set to the right.  extra: those that a phone does without."""
    tones = dict.fromkeys(figures, ' class="figure"') | dict.fromkeys(extra, ' class="extra"')
    kinds = [tones.get(place, "") for place in range(len(head))]
    columns = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, head, strict=True))
    cells = ("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    size = "table few" if extra else "table"
    return f'<div class="{size}"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _banner(tone: str, say: str, *more: str) -> str:
    told = "".join(f"<p>{escape(line)}</p>" for line in more)
    return f'<div class="banner {tone}"><p class="say">{escape(say)}</p>{told}</div>'


def _badge(scenario: Scenario) -> str:
    verdict = telling.verdict_of(scenario)
    words = telling.verdict_words(scenario)
    tone, sign = ("invalid", "⚠") if scenario.invalid is not None else (verdict, telling.SIGNS[verdict])
    return f'<span class="badge {tone}">{sign} {words}</span>'


def _verdict_badge(target: Target) -> str:
    return f'<span class="badge {target.verdict}">{telling.sign_and_words(target)}</span>'


def _joined(text: str) -> str:
    """Text in which no line ends before a sign of per cent."""
    return escape(text).replace(" %", "\u00a0%")


def _anchor(place: int) -> str:
    return f"scenario-{place + 1}"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
