"""All processes' numbers as Prometheus reads them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from app.telemetry.cells import Cells
from app.telemetry.meters import Metric, Over

_OVER: dict[Over, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Labels = tuple[str, ...]
_Series = dict[Labels, list[Sequence[float]]]
"""The numbers of each process, by labels."""


class Exposition:
    """The metrics of a pod. metrics: all there are.  cells: of this process, which reads those of the others too.

    # Design: the format is that of prometheus_client, byte for byte (tests/test_exposition.py), and so is the choice
    between its two kinds. Its own encoder builds, escapes and sorts the labels of every line of every scrape, which
    takes as long as a hundred requests; here they are made once for each series
    (PERF: benchmarks/test_service.py::test_scrape).
    """

    def __init__(self, cells: Cells, metrics: Iterable[Metric]) -> None:
        self._cells = cells
        self._metrics = {metric.name: metric for metric in metrics}
        self._heads: dict[tuple[str, bool], str] = {}
        self._starts: dict[tuple[str, Labels], list[str]] = {}
        self._one_at_a_time = threading.Lock()

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and the media type of the text that the Accept header prefers."""
        _, media_type = choose_encoder(accept)
        is_open = media_type.startswith("application/openmetrics-text")
        with self._one_at_a_time:
            series = self._told()
            lines: list[str] = []
            for name, metric in self._metrics.items():
                if name in series:
                    lines.append(self._head(metric, is_open))
                    for labels, each in sorted(series[name].items()):
                        starts = self._starts.get((name, labels)) or self._started(metric, labels)
                        lines += map(str.__add__, starts, map(_text, _values(metric, each)))
        if is_open:
            lines.append("# EOF\n")
        return "".join(lines).encode(), media_type

    def _told(self) -> dict[str, _Series]:
        """What is to be told, by the metric's name: of those that ended no gauges, and no gauge that is not there."""
        series: dict[str, _Series] = {}
        for read in self._cells.read():
            numbers, is_alive = read.numbers, read.is_alive
            for (name, labels), (first, end) in read.places.items():
                metric = self._metrics.get(name)
                if metric is None or end - first != metric.n_cells:
                    continue
                if metric.kind == "gauge" and (not is_alive or math.isnan(numbers[first])):
                    continue
                series.setdefault(name, {}).setdefault(labels, []).append(numbers[first:end])
        return series

    def _head(self, metric: Metric, is_open: bool) -> str:
        known = self._heads.get((metric.name, is_open))
        if known is None:
            name = metric.name.removesuffix("_total") if is_open and metric.kind == "counter" else metric.name
            known = self._heads[metric.name, is_open] = f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
        return known

    def _started(self, metric: Metric, labels: Labels) -> list[str]:
        """A series' lines without their values."""
        named = dict(zip(metric.labels, labels, strict=True))
        if metric.kind != "histogram":
            starts = [_start(metric.name, named)]
        else:
            bounds = [floatToGoString(bound) for bound in (*metric.bounds, math.inf)]  # type: ignore[no-untyped-call]
            starts = [_start(f"{metric.name}_bucket", {**named, "le": bound}) for bound in bounds]
            starts += [_start(f"{metric.name}_{part}", named) for part in ("count", "sum")]
        self._starts[metric.name, labels] = starts
        return starts


def _values(metric: Metric, each: list[Sequence[float]]) -> Iterable[float]:
    """One series of the pod, from one of each process: a value for each of its lines."""
    if metric.kind == "histogram":
        *counts, total = each[0] if len(each) == 1 else map(sum, zip(*each, strict=True))
        # Prometheus counts into each bucket what is in those below it too.
        buckets = list(accumulate(counts))
        return (*buckets, buckets[-1], total)
    return (_OVER["sum" if metric.kind == "counter" else metric.over]([values[0] for values in each]),)


def _start(name: str, labels: dict[str, str]) -> str:
    told = ",".join([f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items())])
    return f"{name}{{{told}}} " if told else f"{name} "


def _text(value: float) -> str:
    """A value and the end of its line, as Go writes floats."""
    if -1e6 < value < 1e6:
        return f"{value!r}\n"
    return f"{floatToGoString(value)}\n"  # type: ignore[no-untyped-call]
