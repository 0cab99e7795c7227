"""All processes' numbers as Prometheus reads them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from app.telemetry.cells import Cells
from app.telemetry.meters import Metric, Over

_Series = dict[tuple[str, ...], list[Sequence[float]]]
"""The numbers of each process, by labels."""
_OVER: dict[Over, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}


class Exposition:
    """The metrics of a pod. metrics: all there are.  cells: of this process, which reads those of the others too."""

    def __init__(self, cells: Cells, metrics: Iterable[Metric]) -> None:
        self._cells = cells
        self._metrics = {metric.name: metric for metric in metrics}
        self._one_at_a_time = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and the media type of the text that the Accept header allows."""
        encode, media_type = choose_encoder(accept)
        with self._one_at_a_time:
            return encode(self._registry), media_type

    def describe(self) -> list[Family]:
        """Nothing is read before somebody asks."""
        return []

    def collect(self) -> Iterator[Family]:
        """A family for each metric that any process has a series of."""
        series: dict[str, _Series] = {}
        for read in self._cells.read():
            numbers, is_alive = read.numbers, read.is_alive
            for (name, labels), place in read.places.items():
                metric = self._metrics.get(name)
                if metric is None or place.end - place.first != metric.n_cells:
                    continue
                if metric.kind == "gauge" and (not is_alive or math.isnan(numbers[place.first])):
                    continue
                series.setdefault(name, {}).setdefault(labels, []).append(numbers[place.first : place.end])
        for name, metric in self._metrics.items():
            if name in series:
                yield _family(metric, series[name])


def _family(metric: Metric, series: _Series) -> Family:
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
