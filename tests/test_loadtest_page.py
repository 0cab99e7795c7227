"""The page of a load test's report: whole in one file, with every figure, and drawn by a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import loadreports
import msgspec
import pytest
from browser import Browser, browsing
from loadreports import replaced

from app.loadtest.figures import UNKNOWN, clock, memory, milliseconds, number
from app.loadtest.page import page
from app.loadtest.results import Report
from app.loadtest.scales import clocked, linear, logarithmic

BEFORE = loadreports.report(loadreports.sustained(faster=2.0), at="2026-11-20T09:30:00Z")
WHOLE = loadreports.report(loadreports.sustained(), loadreports.stress(), loadreports.broken(), loadreports.invalid())
UNTOLD = loadreports.report(loadreports.sustained(is_told=False), is_told=False)
EMPTY = loadreports.report(loadreports.empty())
OVER_TIME = ["throughput", "latency", "errors", "users", "cpu", "memory", "lag", "lateness"]
CHARTS = [*OVER_TIME, "percentiles", "histogram"]
VOID = {"meta", "link", "br"}
HOSTILE = "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> \"'&|`\n{{7*7}}"


class Elements(HTMLParser):
    """Every element of a page, and the text in each; elements close in the order in which they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def attributes(self, name: str) -> Iterator[str]:
        """The values of an attribute, wherever it is."""
        return (value for _, attrs in self.found if (value := attrs.get(name)) is not None)

    def inside(self, tag: str) -> list[str]:
        """The text directly inside of each element of a kind."""
        return [data for within, data in self.texts if within == tag]


def points(html: str) -> dict[str, Any]:
    """What each chart tells of its points, by its id."""
    found = re.findall(
        r'<figure class="chart" id="([^"]+)">.*?<script type="application/json">(.*?)</script>', html, re.S
    )
    return {name: msgspec.json.decode(text) for name, text in found}


def digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@pytest.mark.parametrize("report", [WHOLE, UNTOLD, EMPTY, loadreports.report()])
def test_the_page_refers_to_nothing_outside_of_itself(report: Report) -> None:
    html = page(report, BEFORE)
    elements = Elements(html)
    ids = set(elements.attributes("id"))
    for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
        for value in elements.attributes(name):
            assert value == "data:," or (value[0] == "#" and value[1:] in ids)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"iframe", "object", "embed", "base", "form", "img", "image", "use", "foreignobject"}
    [style] = elements.inside("style")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_lets_its_own_style_and_script_work_and_nothing_else() -> None:
    elements = Elements(page(WHOLE))
    [policy] = [attrs["content"] for tag, attrs in elements.found if tag == "meta" and "http-equiv" in attrs]
    [style] = elements.inside("style")
    script = elements.inside("script")[-1]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src {digest(style)};" in policy
    assert f"script-src {digest(script)};" in policy
    assert "unsafe" not in policy
    assert not [name for _, attrs in elements.found for name in attrs if name == "style" or name.startswith("on")]


def test_ids_are_unique_and_every_chart_has_a_title_and_a_description() -> None:
    elements = Elements(page(WHOLE, BEFORE))
    assert not [name for name, count in Counter(elements.attributes("id")).items() if count > 1]
    ids = set(elements.attributes("id"))
    labelled = [value.split() for value in elements.attributes("aria-labelledby")]
    assert len(labelled) == len(WHOLE.scenarios) * len(CHARTS)
    assert all(len(names) == 2 and set(names) <= ids for names in labelled)
    assert all(text.strip() for text in elements.inside("desc"))


def test_text_from_elsewhere_is_text() -> None:
    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {HOSTILE + name if name in keyed else name: spoilt(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [spoilt(inner) for inner in value]
        return value + HOSTILE if isinstance(value, str) and value not in verdicts else value

    verdicts = ("met", "missed", "not_judged", "ms", "s", "%")
    told = msgspec.json.decode(msgspec.json.encode(WHOLE))
    keyed = {"users", "open files", "version", "200", "201", "assess", "timed out"} - set(told["scenarios"][0])
    html = page(msgspec.convert(spoilt(told), Report), BEFORE)
    elements = Elements(html)
    assert "img" not in {tag for tag, _ in elements.found}
    assert [text for text in elements.inside("script") if "alert" in text] == []
    assert len(elements.inside("script")) == len(WHOLE.scenarios) * len(CHARTS) + 1
    assert "onerror" not in {name for _, attrs in elements.found for name in attrs}
    assert any(HOSTILE in text for text in elements.inside("h2"))


def test_every_chart_has_its_data() -> None:
    html = page(WHOLE)
    found = points(html)
    assert list(found) == [f"scenario-{place + 1}-{name}" for place in range(4) for name in CHARTS]
    scenario = WHOLE.scenarios[2]
    seconds = scenario.seconds
    told = {name: found[f"scenario-3-{name}"] for name in CHARTS}
    for name in OVER_TIME:
        assert told[name]["moments"] == [clock(second.at_s) for second in seconds]
        assert told[name]["at"] == [pytest.approx(second.at_s / 120, abs=1e-4) for second in seconds]
    lines = {(name, line[0]): line[2] for name in CHARTS for line in told[name]["lines"]}
    assert lines["throughput", "intended"] == [f"{number(second.intended, 4)}/s" for second in seconds]
    assert lines["throughput", "answered"] == [f"{number(second.answered, 4)}/s" for second in seconds]
    assert lines["latency", "p50"] == [milliseconds(second.latency.p50) for second in seconds]
    assert lines["latency", "p99.9"] == [milliseconds(second.latency.p999) for second in seconds]
    assert lines["errors", "errors"] == [number(second.errors) for second in seconds]
    assert lines["users", "connections"] == [number(second.connections, 6) for second in seconds]
    assert lines["cpu", "service"] == [f"{number(second.service_cpu or 0)} cores" for second in seconds]
    assert lines["cpu", "load generator"] == [f"{number(second.generator_cpu)} cores" for second in seconds]
    assert lines["memory", "service"] == [memory(second.service_memory or 0) for second in seconds]
    assert lines["lag", "p99"] == [milliseconds(1000 * (second.service_lag_s or 0)) for second in seconds]
    assert lines["lateness", "p99"] == [milliseconds(second.late_p99_ms) for second in seconds]
    assert lines["percentiles", "this run"][-1] == milliseconds(scenario.histogram[-1][0])
    shares = [float(text.removesuffix(" %")) for text in lines["histogram", "of the answers"]]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_the_plot_of_percentiles_tells_what_was_counted() -> None:
    counts = [(1.0, 900), (10.0, 90), (100.0, 9), (1000.0, 1)]
    made = replaced(loadreports.sustained(), histogram=counts, targets=[])
    [line] = points(page(loadreports.report(made)))["scenario-1-percentiles"]["lines"]
    told = points(page(loadreports.report(made)))["scenario-1-percentiles"]
    at = dict(zip(told["moments"], line[2], strict=True))
    assert at["90 %"] == "1 ms"
    assert at["99 %"] == "10 ms"
    assert at["99.9 %"] == "1 s"


def test_an_earlier_run_is_drawn_beside_this_one_and_its_figures_stand_there() -> None:
    html = page(WHOLE, BEFORE)
    found = points(html)
    assert [line[0] for line in found["scenario-1-percentiles"]["lines"]] == ["this run", "earlier run"]
    assert [line[0] for line in found["scenario-2-percentiles"]["lines"]] == ["this run"]
    assert html.count("Compared with the earlier run") == 1
    assert "better" in html


def test_a_long_run_has_few_points_and_no_error_is_lost() -> None:
    made = loadreports.sustained()
    seconds = [msgspec.structs.replace(made.seconds[at % 300], at_s=at, errors=int(at == 5000)) for at in range(7200)]
    found = points(page(loadreports.report(replaced(made, seconds=seconds, duration_s=7200.0))))
    errors = found["scenario-1-errors"]["lines"][0][2]
    assert len(errors) <= 240
    assert Counter(errors) == {"0": len(errors) - 1, "1": 1}
    assert max(found["scenario-1-throughput"]["at"]) < 1


def test_what_was_not_measured_for_a_while_leaves_a_gap() -> None:
    made = loadreports.broken()
    seconds = [
        msgspec.structs.replace(second, service_lag_s=None if 50 <= second.at_s < 60 else second.service_lag_s)
        for second in made.seconds
    ]
    html = page(loadreports.report(replaced(made, seconds=seconds)))
    path = re.search(r'id="scenario-1-lag">.*?<path class="line green" d="([^"]*)"', html, re.S)
    assert path is not None
    assert path[1].count("M") == 2
    assert points(html)["scenario-1-lag"]["lines"][0][2][50:60] == [UNKNOWN] * 10


def test_without_metrics_of_the_service_the_page_says_so() -> None:
    html = page(UNTOLD)
    assert html.count("the service&#x27;s /metrics could not be read") == 2
    assert "the service&#x27;s could not be read" in html
    assert {f"scenario-1-{name}" for name in ("memory", "lag")} & set(points(html)) == set()


def test_each_target_stands_with_verdict_value_and_bound() -> None:
    missed = msgspec.structs.replace(WHOLE.scenarios[0].targets[1], measured=1234.0, verdict="missed")
    html = page(loadreports.report(replaced(WHOLE.scenarios[0], targets=[missed])))
    row = re.search("<tr><td>p95</td>.*?</tr>", html)
    assert row is not None
    text = re.sub("<[^>]+>", " ", row[0])
    assert text.split() == ["p95", "✗", "missed", "1.23", "s", "&lt;", "1", "s", "123", "%", "of", "the", "bound"]
    assert "✗ Missed: 1 of 1 target, in 1 scenario." in html
    assert "sustained: p95 1.23 s, wanted &lt; 1 s" in html.partition("<main>")[0]


def test_an_invalid_run_is_loud_and_nothing_of_it_is_met() -> None:
    html = page(loadreports.report(loadreports.invalid()))
    assert html.index("INVALID: spike") < html.index("<main>")
    assert "INVALID RUN" in html
    assert "✓ met" not in html
    assert "the run is invalid" in html
    assert "Stopped by this machine, not by the service" in html


def test_a_run_without_a_second_or_a_scenario_is_told() -> None:
    assert "Nothing was measured" in page(EMPTY)
    assert points(page(EMPTY)) == {}
    assert "there is no scenario" in page(loadreports.report())


def test_stages_and_faults_are_marked_on_every_chart_over_time() -> None:
    html = page(WHOLE)
    for name in OVER_TIME:
        of_stress = html.partition(f'id="scenario-2-{name}"')[2].partition("</figure>")[0]
        assert re.findall(r'class="mark stage"[^>]*>([^<]*)<', of_stress) == ["10,000", "12,000", "15,000", "18,000"]
        of_fault = html.partition(f'id="scenario-3-{name}"')[2].partition("</figure>")[0]
        assert ">redis-down</text>" in of_fault
        assert of_fault.count('<rect class="band') == 2
    assert "Breaking point: 18,000 users" in html
    assert "15,000 users were held" in html


# Axes


def test_axes_hold_all_values_and_end_at_round_ones() -> None:
    assert [text for _, text in linear([0, 1987]).ticks] == ["0", "500", "1,000", "1,500", "2,000"]
    assert linear([]).high > 0
    assert linear([3], whole=True).ticks[1][0] == 1
    axis = logarithmic([2.4, 900])
    assert axis.place(2.4) >= 0
    assert (axis.ticks[0][0], axis.ticks[-1][0]) == (2, 1000)
    assert logarithmic([5.0]).ticks
    assert logarithmic([]).ticks
    assert [text for _, text in clocked(300).ticks] == ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00"]


# In a browser

DRAWN = """
[...document.querySelectorAll("figure.chart[id]")].map(figure => [
  figure.id,
  ...[...figure.querySelectorAll("svg.data path")].map(path => {
    const box = path.getBoundingClientRect(), style = getComputedStyle(path);
    return {width: box.width, height: box.height, inked: style.stroke !== "none" || style.fill !== "none",
            within: box.left >= 0 && box.right <= innerWidth + 1, empty: !path.getAttribute("d")};
  })])
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(WHOLE, BEFORE), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_browser_draws_every_chart_without_complaint(browser: Browser, shown: Path, width: int, dark: bool) -> None:
    browser.open(shown, width, dark=dark, phone=width < 500)
    assert browser.told == []
    assert browser.asked == [shown.as_uri()]
    drawn = browser.run(DRAWN)
    assert len(drawn) == len(WHOLE.scenarios) * len(CHARTS)
    for name, *paths in drawn:
        is_calm = name.endswith("-errors") and not WHOLE.scenarios[int(name[9]) - 1].errors
        assert [path for path in paths if path["empty"]] == (paths if is_calm else []), name
        if not is_calm:
            assert max(path["width"] for path in paths) > (3 if name.endswith("-errors") else width / 4), name
            assert all(path["inked"] and path["within"] for path in paths), name
            assert max(path["height"] for path in paths) > 0 or name.endswith("-users"), name
    assert browser.run("document.documentElement.scrollWidth") <= width
    smallest = (
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => parseFloat(getComputedStyle(t).fontSize)))"
    )
    assert browser.run(smallest) >= 11
    dim, bright = ("rgb(18, 23, 31)", "rgb(255, 255, 255)")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (dim if dark else bright)


def test_a_pointer_and_arrow_keys_tell_the_figures_of_a_moment(browser: Browser, shown: Path) -> None:
    browser.open(shown, 1280)
    box = browser.run(
        "const over = document.querySelector('#scenario-3-errors .over'); over.scrollIntoView({block: 'center'});"
        "over.getBoundingClientRect().toJSON()"
    )
    tip = "document.querySelector('#scenario-3-errors .tip')"
    told = f"{tip}.innerText.split(/\\s+/)"
    errors = [second.errors for second in WHOLE.scenarios[2].seconds]
    browser.move(box["left"] + box["width"] * 40 / 120, box["top"] + 50)
    browser.expect(f"!{tip}.hidden")
    assert browser.run(told) == ["0:40", "errors", str(errors[40])]
    browser.run(
        "document.querySelector('#scenario-3-errors .over').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
    )
    assert browser.run(told) == ["0:41", "errors", str(errors[41])]
    browser.move(2, 2)
    browser.expect(f"{tip}.hidden")
    assert browser.told == []
