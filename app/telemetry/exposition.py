"""All processes' numbers as Prometheus reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from app.telemetry.cells import Cells, Read
from app.telemetry.meters import Metric, Over

_OVER: dict[Over, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}


class Exposition:
    """The metrics of a pod. metrics: all there are.  cells: of this process, which reads those of the others too."""

    def __init__(self, cells: Cells, metrics: Iterable[Metric]) -> None:
        self._cells = cells
        self._metrics = {metric.name: metric for metric in metrics}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and the media type of the text that the Accept header allows."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def describe(self) -> list[Family]:
        """Nothing is read before somebody asks."""
        return []

    def collect(self) -> Iterator[Family]:
        """A family for each metric that any process has a series of."""
        series: dict[str, dict[tuple[str, ...], list[tuple[float, ...]]]] = {}
        for read in self._cells.read():
            for (name, labels), values in self._told(read):
                series.setdefault(name, {}).setdefault(labels, []).append(values)
        for name, metric in self._metrics.items():
            if name in series:
                yield _family(metric, series[name])

    def _told(self, read: Read) -> Iterator[tuple[tuple[str, tuple[str, ...]], tuple[float, ...]]]:
        for series, values in read.values.items():
            metric = self._metrics.get(series[0])
            if metric is not None and len(values) == metric.n_cells and (read.is_alive or metric.kind != "gauge"):
                yield series, values


def _family(metric: Metric, series: dict[tuple[str, ...], list[tuple[float, ...]]]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if metric.kind == "histogram":
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, each in sorted(series.items()):
            sums = [sum(values) for values in zip(*each, strict=True)]
            family.add_metric(labels, _buckets(metric.bounds, sums), sums[-1])
        return family
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    over = _OVER["sum" if metric.kind == "counter" else metric.over]
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, each in sorted(series.items()):
        family.add_metric(labels, over([values[0] for values in each]))
    return family


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Prometheus counts into each bucket what is in those below it too."""
    total = 0.0
    found = []
    for bound, count in zip((*bounds, math.inf), counts, strict=False):
        total += count
        found.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
    return found
