"""The line that a request leaves in the log, and its spans."""

from __future__ import annotations

import logging
import math
import time
from random import random
from time import perf_counter

from app.telemetry.course import BEGUN, QUEUE, Course, current
from app.telemetry.log import event
from app.telemetry.trace import Attributes, Kind, Record, Span, Trace, Tracing, new_id
from app.telemetry.traffic import METHODS, NO_ROUTE, OTHER_METHOD

log = logging.getLogger(__name__)

FAILED = 500
"""Statuses from here on are failures of the service."""
SPANS = ("gather", "score", "record")
"""The stages that are spans of their own."""
REASON_CHARS = 300


class AccessLog:
    """Tells of requests: of each that failed or was slow, and of a share of the others.

    share: 0 to 1.  slow_s: what slow is.  tracing: decides whose spans are recorded.
    """

    __slots__ = ("_share", "_slow_s", "_tracing")

    def __init__(self, share: float = 0.0, slow_s: float = math.inf, tracing: Tracing | None = None) -> None:
        self._share = share
        self._slow_s = slow_s
        self._tracing = tracing or Tracing()

    def begin(self, request: object, begun: float) -> Course:
        """The course of a request that comes in. begun: by `perf_counter`."""
        marks = [begun, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        course = Course(marks, request, self._tracing)  # type: ignore[arg-type]
        current.set(course)
        return course

    def end(self, course: Course, route: str, status: int, took_s: float) -> None:
        """Tell of it, if it is one to tell of. route: its template, "" for none."""
        # PERF: benchmarks/test_service.py::test_telling
        if took_s >= self._slow_s or status >= FAILED or random() < self._share:
            self._tell(course, route or NO_ROUTE, status, took_s)
        tracing = self._tracing
        if tracing.is_on and course.request is not None:
            headers = course.request.headers
            parent = headers.get(b"traceparent")
            if course.taken is None and tracing.may_record(parent):
                course.taken = tracing.take(parent, headers.get(b"tracestate"), True if parent is None else None)
            if course.taken is not None and course.taken.record is not None:
                _record(course, course.taken, course.taken.record, route or NO_ROUTE, status, took_s)

    def _tell(self, course: Course, route: str, status: int, took_s: float) -> None:
        # A probe that is told 503 by its endpoint has what it asked for.
        failed = status == FAILED or (status > FAILED and course.error is not None)
        slow = took_s >= self._slow_s
        level = logging.ERROR if failed else logging.WARNING if slow else logging.INFO
        if not log.isEnabledFor(level):
            return
        assert course.request is not None
        told: dict[str, object] = {
            "method": _method(course),
            "route": route,
            "status": status,
            "duration_ms": _ms(took_s),
        }
        if course.kind:
            told["kind"] = course.kind
        error = course.error
        if failed and error is not None:
            told["error"] = type(error).__name__
            if status != FAILED:
                # What is answered 503 is said in our own words; what nobody expected may quote anything.
                told["reason"] = str(error).partition("\n")[0][:REASON_CHARS]
        if slow or (failed and course.marks[QUEUE]):
            # One that was turned away before it was worked on failed at once, and there may be very many.
            stages = course.stages(course.marks[BEGUN] + took_s)
            told["stages_ms"] = {name: _ms(end - begun) for name, (begun, end) in stages.items()}
        named = "request_failed" if failed else "slow_request" if slow else "request"
        log.log(level, "", extra=event(named, **told), exc_info=error if status == FAILED else None)


def _record(course: Course, trace: Trace, record: Record, route: str, status: int, took_s: float) -> None:
    assert course.request is not None
    ended = course.marks[BEGUN] + took_s
    # The clock of the marks begins anywhere.
    zero_ns = time.time_ns() - round(perf_counter() * 1e9)

    def span(
        name: str, kind: Kind, id: str, parent_id: str, begun: float, end: float, told: Attributes, error: str = ""
    ) -> None:
        times_ns = zero_ns + round(begun * 1e9), zero_ns + round(end * 1e9)
        record(Span(name, kind, trace.trace_id, id, parent_id, *times_ns, told, error))

    method = _method(course)
    told: Attributes = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "request.id": course.request.id.decode("ascii"),
    }
    error = (course.kind or str(status)) if status >= FAILED else ""
    span(f"{method} {route}", "server", trace.span_id, trace.parent_id, course.marks[BEGUN], ended, told, error)
    for name, (begun, end) in course.stages(ended).items():
        if name in SPANS:
            span(name, "internal", trace.gather_id if name == "gather" else new_id(64), trace.span_id, begun, end, {})


def _method(course: Course) -> str:
    """As a metric's label: a caller may make up any other."""
    assert course.request is not None
    return course.request.method if course.request.method in METHODS else OTHER_METHOD


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
