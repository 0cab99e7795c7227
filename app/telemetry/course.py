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


(BEGUN, HEAD, KEY, BODY, QUEUE, DECODE, GATHER, SCORE, RECORD, RENDER) = range(10)
"""Places of the marks: where a request began, and where each of its stages ended."""
NAMES = ("begun", "head", "key", "body", "queue", "decode", "gather", "score", "record", "render")
OUTER = (HEAD, KEY, BODY, QUEUE)
"""The stages of every request. What is not an assessment is `work` after them."""


class Course(Struct, eq=False):
    """Where a request is, and what has come of it.

    marks: by `perf_counter`, 0 for a stage that it has not come through.  tracing: decides on its trace once somebody
    asks for it.  error: what it is refused with.  kind: the slug of that problem.

    # Design: on the way a stage costs a look at the clock; what comes of it is worked out for those that are told
    # (PERF: benchmarks/test_service.py::test_telling).
    """

    marks: list[float]
    request: Asked | None = None
    tracing: Tracing | None = None
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
        `send`."""
        marks = self.marks
        found = {}
        at = marks[BEGUN]
        for place in range(HEAD, RENDER + 1) if marks[DECODE] else (*OUTER, RENDER):
            name = NAMES[place] if marks[DECODE] or place in OUTER else "work"
            if marks[place]:
                found[name] = at, marks[place]
                at = marks[place]
            elif self.error is not None:
                break
        else:
            name = "send"
        found[name] = at, ended
        return found


def unmarked() -> list[float]:
    """The marks of what is no request."""
    return [0.0] * len(NAMES)


current: ContextVar[Course] = ContextVar("course", default=Course(unmarked()))  # noqa: B039
"""Of the task that answers a request. The default is nobody's, and marks on it mean nothing."""
