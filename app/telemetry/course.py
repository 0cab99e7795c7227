"""What is known of the request that is being answered: its trace, and when it came through each stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

from msgspec import Struct

from app.telemetry.trace import Trace, Tracing


class Asked(Protocol):
    """What a course knows of its request."""

    @property
    def id(self) -> bytes: ...
    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> Mapping[bytes, bytes]: ...


class Course(Struct, eq=False):
    """When a request came through each stage, by `perf_counter`; 0 for one that it did not come to.

    begun: when its head was there.  tracing: decides on its trace once somebody asks for it.
    error: what it is refused with.  kind: the slug of that problem.

    # Design: on the way a stage costs a look at the clock; what comes of it is worked out for those that are told
    (PERF: benchmarks/test_service.py::test_telling).
    """

    begun: float = 0.0
    request: Asked | None = None
    tracing: Tracing | None = None
    head: float = 0.0
    key: float = 0.0
    body: float = 0.0
    queue: float = 0.0
    decode: float = 0.0
    gather: float = 0.0
    score: float = 0.0
    record: float = 0.0
    render: float = 0.0
    kind: str = ""
    error: Exception | None = None
    taken: Trace | None = None

    @property
    def trace(self) -> Trace | None:
        """The request's own, taken over from its caller or begun; None outside of any."""
        if self.taken is None and self.request is not None and self.tracing is not None:
            headers = self.request.headers
            self.taken = self.tracing.take(headers.get(b"traceparent"), headers.get(b"tracestate"))
        return self.taken

    def stages(self, ended: float) -> dict[str, tuple[float, float]]:
        """Begin and end of each stage, in order. One that failed ends with the request; without that it ends with
        `send`. What is not an assessment is `work` from its place in the queue to its answer."""
        found = {}
        at = self.begun
        for name in ASSESSMENT if self.decode else OTHER:
            mark: float = self.render if name == WORK else getattr(self, name)
            if mark:
                found[name] = at, mark
                at = mark
            elif self.error is not None:
                break
        else:
            name = "send"
        found[name] = at, ended
        return found


OUTER = ("head", "key", "body", "queue")
WORK = "work"
OTHER = (*OUTER, WORK)
ASSESSMENT = (*OUTER, "decode", "gather", "score", "record", "render")
"""Stages in the order in which a request comes through them, each marked at its end."""

current: ContextVar[Course] = ContextVar("course", default=Course())  # noqa: B039
"""Of the task that answers a request. The default is nobody's, and marks on it mean nothing."""
