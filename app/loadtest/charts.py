"""Charts as inline SVG whose text keeps its size on every screen: only what is drawn is stretched to the width.

Nothing carries a style of its own, so that a policy without inline styles lets them be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

import msgspec

from app.loadtest.figures import UNKNOWN
from app.loadtest.scales import Axis

SIZE = 1000
"""Width and height of what is stretched, in units of its own."""
LEAST_BAR = 8
"""Height of the smallest bar that is not 0: one error among millions is seen."""


class Line(NamedTuple):
    """A series. tone: the class that gives colour and dashes.  values: one for each moment, None where not known."""

    name: str
    tone: str
    values: Sequence[float | None]


class Span(NamedTuple):
    """What is marked along the horizontal axis, at one place where both ends are equal."""

    start: float
    end: float
    text: str
    tone: str


class Level(NamedTuple):
    """What is marked on the vertical axis."""

    value: float
    text: str


class Chart(NamedTuple):
    """name: makes its ids.  at: where on `x` the values are, ascending.  moments: the same as text.  text: of a value.
    bars: instead of lines.  filled: below the first line.  told: how to read it.  note: written across it."""

    name: str
    title: str
    told: str
    x: Axis
    y: Axis
    at: Sequence[float]
    moments: Sequence[str]
    lines: Sequence[Line]
    text: Callable[[float], str]
    spans: Sequence[Span] = ()
    levels: Sequence[Level] = ()
    bars: bool = False
    filled: bool = False
    note: str = ""


def drawn(chart: Chart) -> str:
    """A figure with a caption, a legend, the chart, and the text of each of its points."""
    return "".join(_figure(chart))


def absent(title: str, why: str) -> str:
    """What stands where there is nothing to draw."""
    caption = f"<figcaption><b>{escape(title)}</b></figcaption>"
    return f'<figure class="chart">{caption}<p class="absent">{escape(why)}</p></figure>'


def _figure(chart: Chart) -> Iterator[str]:
    yield f'<figure class="chart" id="{chart.name}"><figcaption><b>{escape(chart.title)}</b>'
    yield f'<span class="told">{escape(chart.told)}</span></figcaption>'
    yield '<ul class="legend">'
    yield from (f"<li>{key(line.tone)}{escape(line.name)}</li>" for line in chart.lines)
    yield "</ul>"
    yield '<div class="field">'
    yield from plot(chart)
    yield f'<div class="over" tabindex="0" role="group" aria-label="{escape(chart.title)}: arrow keys tell each value">'
    yield '</div><div class="tip" role="status" hidden></div></div>'
    # Within a script element nothing is escaped, and only < can end it.
    points = msgspec.json.encode(_points(chart)).decode().replace("<", "\\u003c")
    yield f'<script type="application/json">{points}</script></figure>'


def plot(chart: Chart) -> Iterator[str]:
    """The chart alone, as large as what it is put into."""
    yield f'<svg class="plot" role="img" aria-labelledby="{chart.name}-t {chart.name}-d">'
    yield f'<title id="{chart.name}-t">{escape(chart.title)}</title>'
    yield f'<desc id="{chart.name}-d">{escape(_described(chart))}</desc>'
    yield from _grid(chart)
    yield from (_span(chart, span) for span in chart.spans)
    yield f'<svg class="data" viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none" width="100%" height="100%">'
    if chart.filled:
        yield f'<path class="area {chart.lines[0].tone}" d="{_area(chart, chart.lines[0])}"/>'
    for line in chart.lines:
        path = _bars(chart, line) if chart.bars else _path(chart, line)
        yield f'<path class="{"bars" if chart.bars else "line"} {line.tone}" d="{path}"/>'
    yield "</svg>"
    yield from (_level(chart, level) for level in chart.levels)
    if chart.note:
        yield f'<text class="note" x="50%" y="50%" text-anchor="middle">{escape(chart.note)}</text>'
    yield '<line class="cursor" y1="0" y2="100%"/></svg>'


def key(tone: str) -> str:
    """The sign of a line in a legend."""
    return f'<svg class="key" aria-hidden="true"><line class="line {tone}" x1="0" x2="100%" y1="50%" y2="50%"/></svg>'


def _described(chart: Chart) -> str:
    parts = [chart.told] if chart.told else []
    for line in chart.lines:
        known = [value for value in line.values if value is not None]
        if known and not chart.bars:
            parts.append(f"{line.name}: {chart.text(min(known))} to {chart.text(max(known))}.")
        elif known:
            parts.append(f"{line.name}: at most {chart.text(max(known))}.")
    parts += [f"{span.text}: {_extent(chart, span)}." for span in chart.spans if span.text]
    parts += [f"{level.text}." for level in chart.levels]
    return " ".join(parts)


def _extent(chart: Chart, span: Span) -> str:
    start, end = (f"{chart.x.place(at):.0%}" for at in (span.start, span.end))
    return f"at {start} of the width" if start == end else f"{start} to {end} of the width"


def _grid(chart: Chart) -> Iterator[str]:
    for value, text in chart.y.ticks:
        y = _percent(1 - chart.y.place(value))
        yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="-8" y="{y}" dy="4" text-anchor="end">{escape(text)}</text>'
    for value, text in chart.x.ticks:
        place = chart.x.place(value)
        x, anchor = _percent(place), "end" if place > 0.97 else "middle"
        yield f'<line class="notch" x1="{x}" x2="{x}" y1="100%" y2="100%"/>'
        yield f'<text class="tick" x="{x}" y="100%" dy="19" text-anchor="{anchor}">{escape(text)}</text>'


def _span(chart: Chart, span: Span) -> str:
    start, end = chart.x.place(span.start), chart.x.place(span.end)
    x = _percent(start)
    anchor = "middle" if span.tone == "percentile" else "end" if start > 0.8 else "start"
    text = f'<text class="mark {span.tone}" x="{x}" y="-5" text-anchor="{anchor}">{escape(span.text)}</text>'
    line = f'<line class="edge {span.tone}" x1="{x}" x2="{x}" y1="-4" y2="100%"/>'
    if start == end:
        return line + text
    width = _percent(max(end - start, 0.002))
    return f'<rect class="band {span.tone}" x="{x}" y="0" width="{width}" height="100%"/>{line}{text}'


def _level(chart: Chart, level: Level) -> str:
    y = _percent(1 - chart.y.place(level.value))
    return (
        f'<line class="level" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="mark" x="100%" y="{y}" dx="-4" dy="-4" text-anchor="end">{escape(level.text)}</text>'
    )


def _spot(chart: Chart, at: float, value: float) -> tuple[float, float]:
    return round(chart.x.place(at) * SIZE, 1), round((1 - chart.y.place(value)) * SIZE, 1)


def _path(chart: Chart, line: Line) -> str:
    """One stroke for each run of known values; a point alone is a dot, for the ends of strokes are round."""
    parts: list[str] = []
    before = False
    for at, value in zip(chart.at, line.values, strict=True):
        if value is not None:
            x, y = _spot(chart, at, value)
            parts.append(f"L{x:g} {y:g}" if before else f"M{x:g} {y:g}h0")
        before = value is not None
    return "".join(parts)


def _area(chart: Chart, line: Line) -> str:
    known = [(at, value) for at, value in zip(chart.at, line.values, strict=True) if value is not None]
    if not known:
        return ""
    spots = [_spot(chart, at, value) for at, value in known]
    return f"M{spots[0][0]:g} {SIZE}" + "".join(f"L{x:g} {y:g}" for x, y in spots) + f"L{spots[-1][0]:g} {SIZE}Z"


def _bars(chart: Chart, line: Line) -> str:
    places = [chart.x.place(at) * SIZE for at in chart.at]
    apart = min((b - a for a, b in pairwise(places)), default=SIZE / 50)
    width = round(max(apart * 0.86, 1.5), 1)
    parts: list[str] = []
    for x, value in zip(places, line.values, strict=True):
        if value:
            height = round(max(chart.y.place(value) * SIZE, LEAST_BAR), 1)
            parts.append(f"M{x - width / 2:.1f} {SIZE}v-{height:g}h{width:g}v{height:g}z")
    return "".join(parts)


def _points(chart: Chart) -> dict[str, object]:
    """at: 0 to 1 along the width.  lines: name, class, and text of each value."""
    return {
        "at": [round(chart.x.place(at), 4) for at in chart.at],
        "moments": chart.moments,
        "lines": [
            [line.name, line.tone, [UNKNOWN if value is None else chart.text(value) for value in line.values]]
            for line in chart.lines
        ],
    }


def _percent(place: float) -> str:
    return f"{100 * place:.2f}".rstrip("0").rstrip(".") + "%"
