"""What every request leaves behind in the metrics."""

from __future__ import annotations

from time import perf_counter

from app.telemetry import catalogue
from app.telemetry.meters import Histogram, Meters

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER_METHOD = "_OTHER"
"""As OpenTelemetry names the methods that a caller made up."""
NO_ROUTE = "unmatched"


class Traffic:
    """Counts requests and times their answers."""

    __slots__ = ("_durations", "_in_flight", "_meters", "_numbers")

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._numbers = meters.cells.numbers
        self._in_flight = meters.reserve(catalogue.REQUESTS_IN_FLIGHT)
        self._durations: dict[tuple[str, str, int], Histogram] = {}

    def begin(self) -> float:
        """Count a request in; the clock as it is now, in seconds."""
        self._numbers[self._in_flight] += 1.0
        return perf_counter()

    def end(self, method: str, route: str, status: int, begun: float) -> float:
        """Count its answer; how long it took, in seconds. route: its template, "" for none.  begun: from `begin`."""
        # PERF: benchmarks/test_service.py::test_metrics
        took_s = perf_counter() - begun
        self._numbers[self._in_flight] -= 1.0
        duration = self._durations.get((method, route, status))
        if duration is None:
            duration = self._series(method, route, status)
        duration.observe(took_s)
        return took_s

    def problem(self, route: str, kind: str) -> None:
        """Count an answer that is a problem."""
        self._meters.counter(catalogue.REQUEST_ERRORS, route or NO_ROUTE, kind).add()

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away."""
        self._meters.counter(catalogue.REJECTIONS, reason).add()

    def _series(self, method: str, route: str, status: int) -> Histogram:
        told = method if method in METHODS else OTHER_METHOD
        found = self._meters.histogram(catalogue.REQUEST_DURATION, told, route or NO_ROUTE, str(status))
        if told is method:
            self._durations[method, route, status] = found
        return found
