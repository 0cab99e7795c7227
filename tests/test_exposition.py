"""What Prometheus is told: names, types, buckets, and one sum over all processes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from app.telemetry.catalogue import METRICS
from app.telemetry.cells import Cells
from app.telemetry.exposition import Exposition
from app.telemetry.meters import Meters, Metric

TIMED = Metric("timed_seconds", "histogram", "Times.", ("route",), (0.1, 1.0))
COUNTED = Metric("counted_total", "counter", "Counts.", ("kind",))
DEEP = Metric("depth", "gauge", "Depth.", over="max")
HELD = Metric("held", "gauge", "Held.")
UNUSED = Metric("unused_total", "counter", "Never counted.")
ALL = (TIMED, COUNTED, DEEP, HELD, UNUSED)


def samples(cells: Cells) -> dict[tuple[str, tuple[str, ...]], float]:
    text = Exposition(cells, ALL).text("")[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.values()))] = sample.value
    return found


def test_values_stand_in_the_bucket_of_the_least_bound_that_holds_them() -> None:
    with Cells() as cells:
        timed = Meters(cells).histogram(TIMED, "/a")
        for value in (0.0, 0.1, 0.11, 1.0, 5.0):
            timed.observe(value)
        assert samples(cells) == {
            ("timed_seconds_bucket", ("/a", "0.1")): 2,
            ("timed_seconds_bucket", ("/a", "1.0")): 4,
            ("timed_seconds_bucket", ("+Inf", "/a")): 5,
            ("timed_seconds_count", ("/a",)): 5,
            ("timed_seconds_sum", ("/a",)): pytest.approx(6.21),
        }


def test_counters_are_summed_over_processes_and_gauges_only_over_those_that_run(tmp_path: Path) -> None:
    gone = Cells(tmp_path)
    _fill(Meters(gone), 1)
    gone.close()
    with Cells(tmp_path) as one, Cells(tmp_path) as two:
        _fill(Meters(one), 2)
        _fill(Meters(two), 4)
        assert (
            samples(one)
            == samples(two)
            == {
                ("counted_total", ('a"b',)): 7,
                ("depth", ()): 4,
                ("held", ()): 6,
                ("timed_seconds_bucket", ("/a", "0.1")): 0,
                ("timed_seconds_bucket", ("/a", "1.0")): 1,
                ("timed_seconds_bucket", ("+Inf", "/a")): 3,
                ("timed_seconds_count", ("/a",)): 3,
                ("timed_seconds_sum", ("/a",)): 7,
            }
        )


def _fill(meters: Meters, value: float) -> None:
    meters.counter(COUNTED, 'a"b').add(value)
    meters.counter(DEEP).set(value)
    meters.counter(HELD).set(value)
    meters.histogram(TIMED, "/a").observe(value)


def test_a_reader_that_asks_for_open_metrics_gets_them() -> None:
    with Cells() as cells:
        Meters(cells).counter(COUNTED, "x").add()
        exposition = Exposition(cells, ALL)
        text, media_type = exposition.text("application/openmetrics-text; version=1.0.0")
        assert media_type.startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")
        assert exposition.text("*/*")[1].startswith("text/plain")


def test_series_that_do_not_fit_their_metric_are_refused() -> None:
    with Cells() as cells:
        meters = Meters(cells)
        for ask in (
            lambda: meters.counter(COUNTED),
            lambda: meters.counter(COUNTED, "a", "b"),
            lambda: meters.counter(TIMED, "a"),
            lambda: meters.histogram(COUNTED, "a"),
            lambda: meters.reserve(TIMED),
        ):
            with pytest.raises(ValueError, match="with the labels"):
                ask()


def test_what_is_counted_elsewhere_is_taken_over_when_asked() -> None:
    with Cells() as cells:
        meters = Meters(cells)
        queue = [1, 2, 3]
        depth = meters.counter(DEEP)
        meters.poll(lambda: depth.set(len(queue)))
        meters.refresh()
        assert samples(cells)["depth", ()] == 3
        queue.clear()
        meters.refresh()
        assert samples(cells)["depth", ()] == 0


class Oracle:
    """The same numbers as prometheus_client's own families."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def collect(self) -> Iterator[Family]:
        reads = self._cells.read()
        for metric in METRICS:
            each: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
            for read in reads:
                for (name, labels), values in read.values.items():
                    if name == metric.name:
                        each.setdefault(labels, []).append(values)
            kind = {"histogram": HistogramMetricFamily, "counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
            family: Any = kind[metric.kind](metric.name, metric.help, labels=metric.labels)
            for labels, processes in sorted(each.items()):
                sums = [sum(values) for values in zip(*processes, strict=True)]
                if metric.kind == "histogram":
                    buckets = [
                        (floatToGoString(bound), sum(sums[: place + 1]))  # type: ignore[no-untyped-call]
                        for place, bound in enumerate((*metric.bounds, math.inf))
                    ]
                    family.add_metric(labels, buckets, sums[-1])
                else:
                    over = {"sum": sum, "max": max, "min": min}[metric.over if metric.kind == "gauge" else "sum"]
                    family.add_metric(labels, over([values[0] for values in processes]))
            if family.samples:
                yield family


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"])
def test_the_text_is_that_of_the_official_client(accept: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    with Cells(tmp_path) as one, Cells(tmp_path) as two:
        for cells in (one, two):
            meters = Meters(cells)
            for metric in METRICS:
                for told in ("plain", 'odd "\\\n é', "{}"):
                    labels = [told] * len(metric.labels)
                    values = (0.0, chance.random(), chance.randrange(10**9), chance.random() * 1e-9, 12345678.5)
                    if metric.kind == "histogram":
                        for value in values:
                            meters.histogram(metric, *labels).observe(value)
                    else:
                        meters.counter(metric, *labels).set(chance.choice(values))
        registry = CollectorRegistry()
        registry.register(Oracle(one))  # type: ignore[arg-type]
        encode, media_type = choose_encoder(accept)
        assert Exposition(one, METRICS).text(accept) == (encode(registry), media_type)


def test_a_gauge_of_what_is_not_there_any_more_is_left_out(tmp_path: Path) -> None:
    with Cells(tmp_path) as one, Cells(tmp_path) as two:
        held = [Meters(cells).counter(HELD) for cells in (one, two)]
        for gauge, value in zip(held, (2.0, 3.0), strict=True):
            gauge.set(value)
        assert samples(one) == {("held", ()): 5}
        held[0].set(math.nan)
        assert samples(one) == {("held", ()): 3}
        held[1].set(math.nan)
        assert samples(one) == {}


def test_many_who_read_at_once_are_told_the_same(tmp_path: Path) -> None:
    with Cells(tmp_path) as cells:
        meters = Meters(cells)
        for number in range(300):
            meters.counter(COUNTED, str(number)).add(number)
        exposition = Exposition(cells, ALL)
        with ThreadPoolExecutor(8) as readers:
            told = set(readers.map(lambda _: exposition.text(""), range(64)))
        assert len(told) == 1
