"""A CPU profile as a page with a flame graph, and in the file format of speedscope.app."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

import msgspec

from app.profiling.cpu import Frame, Samples
from app.profiling.turn import whose

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6676;--page:#fff;--gap:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ef;--soft:#98a3b3;--page:#12171f;--gap:#12171f}}
*{box-sizing:border-box}
body{margin:0;padding:1.2rem;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.15rem;margin:0}
p{margin:.2rem 0 .8rem;color:var(--soft)}
input,button{font:inherit;padding:.15rem .5rem;margin-right:.5rem}
#graph{position:relative;margin-top:.8rem}
#graph button{position:absolute;height:18px;margin:0;padding:0 3px;border:0;border-right:1px solid var(--gap);
border-radius:2px;font:11px/18px ui-monospace,Menlo,Consolas,monospace;text-align:left;overflow:hidden;
white-space:nowrap;cursor:pointer;color:#1c2430}
#graph button:focus-visible{outline:2px solid #1d5fbf;outline-offset:-2px}
#told{min-height:1.5em;font:.85rem/1.5 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
"""

# A node is [frame, samples, children]; the graph hangs from its root.
SCRIPT = """
const {frames, root} = JSON.parse(document.getElementById("data").textContent);
const graph = document.getElementById("graph"), told = document.getElementById("told");
const wanted = document.getElementById("wanted"), whole = document.getElementById("whole");
const ROW = 19;
let shown = [root];
function hue(text) { let h = 0; for (const c of text) h = (h * 31 + c.charCodeAt(0)) % 360; return h; }
function words(node) {
  const [name, file, line] = frames[node[0]];
  const share = (100 * node[1] / root[1]).toFixed(1);
  return `${name}${file ? ` (${file}${line ? ":" + line : ""})` : ""}: ${node[1]} samples, ${share} %`;
}
function draw() {
  graph.replaceChildren();
  const seeking = wanted.value.toLowerCase(), top = shown[shown.length - 1];
  let deepest = 0, found = 0;
  function box(node, left, width, depth, path, within) {
    if (width < 0.0007) return;
    deepest = Math.max(deepest, depth);
    const [name, file] = frames[node[0]], element = document.createElement("button");
    const hit = seeking && (name + " " + file).toLowerCase().includes(seeking);
    if (hit && !within) found += node[1];
    element.textContent = name;
    element.title = words(node);
    element.style.left = 100 * left + "%";
    element.style.width = 100 * width + "%";
    element.style.top = depth * ROW + "px";
    element.style.background = hit ? "#e05cc0" : `hsl(${hue(file)} 70% 72%)`;
    element.onclick = () => { shown = path; draw(); };
    element.onmouseenter = element.onfocus = () => { told.textContent = words(node); };
    graph.append(element);
    let at = left;
    if (depth >= shown.length - 1) for (const child of node[2]) {
      box(child, at, width * child[1] / node[1], depth + 1, [...path, child], within || hit);
      at += width * child[1] / node[1];
    } else box(shown[depth + 1], 0, 1, depth + 1, shown.slice(0, depth + 2), within || hit);
  }
  if (root[1]) box(root, 0, 1, 0, [root], false);
  graph.style.height = (deepest + 1) * ROW + "px";
  told.textContent = seeking && root[1] ? `${(100 * found / root[1]).toFixed(1)} % in what matches` : words(top);
}
wanted.oninput = draw;
whole.onclick = () => { shown = [root]; draw(); };
draw();
"""


class Page(NamedTuple):
    """policy: a Content-Security-Policy that lets its own style and script work, and nothing else."""

    html: bytes
    policy: bytes


def page(samples: Samples) -> Page:
    """The flame graph, whole in one file: it loads nothing."""
    frames, root = _tree(samples)
    data = msgspec.json.encode({"frames": frames, "root": root}).decode()
    # Within a script element nothing is escaped, and only < can end it.
    data = data.replace("<", "\\u003c")
    title = escape(f"CPU profile of {whose()}")
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"</head><body><h1>{title}</h1><p>{escape(_summary(samples))}</p>"
        '<input id="wanted" type="search" placeholder="find a function or file" aria-label="Find">'
        '<button id="whole">whole graph</button><div id="told" role="status"></div><div id="graph"></div>'
        f'<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )
    policy = f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; base-uri 'none'; "
    return Page(html.encode(), f"{policy}form-action 'none'; frame-ancestors 'none'".encode())


def speedscope(samples: Samples) -> bytes:
    """The same for https://www.speedscope.app, which reads the file in the browser, and for what else knows its format:
    https://www.speedscope.app/file-format-schema.json."""
    places: dict[Frame, int] = {}
    stacks = [[places.setdefault(frame, len(places)) for frame in stack] for stack in samples.stacks]
    weights = [count / samples.rate for count in samples.stacks.values()]
    profile = {
        "type": "sampled",
        "name": f"{whose()}, {_summary(samples)}",
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": stacks,
        "weights": weights,
    }
    return msgspec.json.encode(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": f"CPU profile of {whose()}",
            "exporter": samples.sampler,
            "activeProfileIndex": 0,
            "shared": {"frames": [{"name": one.name, "file": one.file, "line": one.line} for one in places]},
            "profiles": [profile],
        }
    )


def _summary(samples: Samples) -> str:
    taken = sum(samples.stacks.values())
    return (
        f"{taken:,} samples of threads at work, {samples.rate} a second for {samples.seconds:g} s, taken by "
        f"{samples.sampler}"
    )


def _tree(samples: Samples) -> tuple[list[Frame], list[Any]]:
    """Frames, and the root of nodes [frame, samples, children], the widest child first."""
    places: dict[Frame, int] = {Frame("all", "", 0): 0}
    root: dict[int, Any] = {}
    for stack, count in samples.stacks.items():
        children = root
        for frame in stack:
            node = children.setdefault(places.setdefault(frame, len(places)), [0, {}])
            node[0] += count
            children = node[1]
    return list(places), [0, sum(samples.stacks.values()), _nodes(root.items())]


def _nodes(children: Iterable[tuple[int, list[Any]]]) -> list[list[Any]]:
    widest = sorted(children, key=lambda item: -item[1][0])
    return [[frame, count, _nodes(inner.items())] for frame, (count, inner) in widest]


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
