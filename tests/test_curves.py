"""Growth curves: what is made of the figures of several sizes, and the pictures of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

# Behind everything else: some names are modules of the tests too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from growing import WORDS, Curve, Point, apiece, charts, doubling, each, merged, scaled
from machine import Machine
from pictures import picture
from sizes import Tenants

from app.loadtest.mix import ServiceMix

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = Machine("2026-11-27 09:00 UTC", "A", 2, 24.0, "Linux", "3.11", "abc", 0.0, {})
ACTS = {"record": 2.0, "read": 0.3, "list <50>": 1.0}


def point(size: int, **more: Any) -> Point:
    told = {"per_second": 1000.0, "service_us": 200.0, "p50_ms": 1.5, "p99_ms": 9.0, "memory": 80e6, "errors": 0}
    return Point(size, **{**told, **more})


def curve(name: str = "connections", *points: Point, rate: float | None = 1000.0) -> Curve:
    made = points or (point(100), point(1000, service_us=210.0), point(10_000, service_us=290.0, memory=130e6))
    return Curve(name, rate, 20, MACHINE, list(made))


def test_a_short_run_leaves_the_largest_sizes_out() -> None:
    assert scaled((100, 1000, 5000, 15_000), 0.5) == [100, 1000, 5000]
    assert scaled((100, 1000, 5000, 15_000), 1.0) == [100, 1000, 5000, 15_000]


def test_two_sizes_are_left_however_short_a_run_is() -> None:
    assert scaled((100, 1000, 5000), 0.001) == [100, 1000]
    assert scaled((1,), 0.001) == [1]


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_workers_double_up_to_all_cores(cores: int, expected: tuple[int, ...]) -> None:
    assert doubling(cores) == expected


def test_rounds_of_one_size_become_their_medians_and_all_of_their_errors() -> None:
    rounds = [point(9, service_us=us, errors=1, memory=None) for us in (300.0, 200.0, 900.0)]
    found = merged([*rounds, point(9, service_us=None, invalid="too late", memory=None)])
    assert (found.size, found.service_us, found.errors, found.invalid, found.memory) == (9, 300.0, 3, "too late", None)


def test_what_one_more_takes_is_told_from_the_smallest_to_the_largest() -> None:
    assert apiece([point(100, memory=80e6), point(500), point(10_100, memory=130e6)]) == 5000
    assert each(curve("connections", point(100, memory=80e6), point(10_100, memory=130e6))) == (
        "5 kB for each further connection, from the smallest number to the largest."
    )


@pytest.mark.parametrize("points", [[point(100)], [point(1, memory=None), point(2)], [point(1), point(2, memory=None)]])
def test_what_one_more_takes_may_not_be_known(points: list[Point]) -> None:
    assert apiece(points) is None
    assert each(curve("rows", *points)) == ""


@pytest.mark.parametrize("name", list(WORDS))
def test_every_curve_has_its_pictures(name: str) -> None:
    rate = None if name == "workers" else 1000.0
    for chart in charts(curve(name, rate=rate)):
        svg = ElementTree.fromstring(picture(chart, WORDS[name].below))
        texts = [text.text for text in svg.iter(f"{SVG}text")]
        assert chart.title in texts
        assert WORDS[name].below in texts
        assert len(list(svg.iter(f"{SVG}circle"))) == 3 * len(chart.lines)


def test_a_picture_stands_alone() -> None:
    for chart in charts(curve()):
        text = picture(chart, "connections")
        assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "<script" not in text


def test_a_size_whose_cost_is_not_known_is_a_gap() -> None:
    cost = next(charts(curve("tenants", point(1), point(10, service_us=None), point(100))))
    svg = ElementTree.fromstring(picture(cost, "tenants"))
    assert len(list(svg.iter(f"{SVG}circle"))) == 2


def test_the_database_is_drawn_where_it_was_measured() -> None:
    made = [point(10**power, database_us=90.0, acts_ms=ACTS) for power in (4, 5, 6)]
    drawn = {chart.name: [line.name for line in chart.lines] for chart in charts(curve("rows", *made))}
    assert drawn["rows-cost"] == ["service", "PostgreSQL"]
    assert drawn["rows-acts"] == list(ACTS)
    for chart in charts(curve("rows", *made)):
        ElementTree.fromstring(picture(chart, "rows before"))


def test_requests_of_many_tenants_differ_by_nothing_but_their_keys() -> None:
    keys = [f"key-{number}" for number in range(10, 30)]
    told = ("localhost", "key-00", {"assess": 1.0}, "run", 1)
    one, many = ServiceMix(*told), Tenants(keys, *told)
    seen = set()
    for _ in range(400):
        kind, data = many.ask()
        key = data.split(b"X-API-Key: ")[1].split(b"\r\n")[0]
        seen.add(key.decode())
        assert (kind, data.replace(key, b"key-00")) == tuple(one.ask())
    assert seen == set(keys)


def test_a_curve_of_one_size_is_drawn_too() -> None:
    for chart in charts(curve("workers", point(1), rate=None)):
        ElementTree.fromstring(picture(chart, "workers"))
