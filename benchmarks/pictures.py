"""A chart of the load test's reports as a picture that stands alone, for a page that has no styles for it."""

from __future__ import annotations

from html import escape

from app.loadtest.charts import Chart, plot

WIDTH, HEIGHT = 720, 330
LEFT, TOP, RIGHT, BOTTOM = 78, 86, 22, 52

# The colours are those of the reports (Okabe and Ito); what reads the picture chooses the light or the dark ones.
STYLE = """
svg{--ink:#1c2430;--soft:#586374;--page:#fff;--grid:#e8ebf0;--blue:#0072b2;--orange:#c65500;--purple:#a3508a;
--green:#00805c}
@media(prefers-color-scheme:dark){svg{--ink:#e3e8ef;--soft:#9aa5b5;--page:#12171f;--grid:#232b37;--blue:#4ba9e6;
--orange:#f0883e;--purple:#d890c0;--green:#3cc69a}}
.page{fill:var(--page)}
.plot,.data{overflow:visible}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
text.title{font-size:15px;font-weight:600;fill:var(--ink)}
text.mark{font-size:11.5px;fill:var(--ink)}
.grid{stroke:var(--grid)}.notch,.cursor{display:none}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round;vector-effect:non-scaling-stroke}
.dot{fill:var(--ink)}
.blue{stroke:var(--blue)}.orange{stroke:var(--orange)}.purple{stroke:var(--purple)}.green{stroke:var(--green)}
.dashed{stroke-dasharray:7 5}.long{stroke-dasharray:12 4 2 4}
.level{stroke:var(--soft);stroke-dasharray:5 4}
"""


def picture(chart: Chart, below: str) -> str:
    """The chart as an SVG file. below: what lies along its horizontal axis."""
    return "".join(_parts(chart, below)) + "\n"


def _parts(chart: Chart, below: str) -> list[str]:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<style>{STYLE}</style><rect class="page" width="100%" height="100%"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(chart.title)}</text>',
        f'<text x="{LEFT}" y="43">{escape(chart.told)}</text>',
    ]
    at = LEFT
    for line in chart.lines:
        parts.append(f'<line class="line {line.tone}" x1="{at}" x2="{at + 22}" y1="62" y2="62"/>')
        parts.append(f'<text x="{at + 28}" y="66">{escape(line.name)}</text>')
        at += 42 + 6 * len(line.name)
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{width}" height="{height}" overflow="visible">')
    parts += plot(chart)
    parts += [_dot(chart, at, value) for line in chart.lines for at, value in zip(chart.at, line.values, strict=True)]
    parts.append(
        f'</svg><text x="{LEFT + width / 2:g}" y="{HEIGHT - 10}" text-anchor="middle">{escape(below)}</text></svg>'
    )
    return parts


def _dot(chart: Chart, at: float, value: float | None) -> str:
    """What was measured; between two of them the line is only drawn."""
    if value is None:
        return ""
    return f'<circle class="dot" cx="{chart.x.place(at):.2%}" cy="{1 - chart.y.place(value):.2%}" r="2.6"/>'
