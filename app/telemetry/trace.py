"""Distributed traces: taken over from the caller and passed on as W3C Trace Context (Recommendation, level 1) says."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from msgspec import Struct

SAMPLED = 1
"""The only flag that is passed on."""
STATE_BYTES = 512
STATE_MEMBERS = 32
LONG_MEMBER_BYTES = 128
"""Members of a tracestate that is too long go first where they are longer."""

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER = re.compile(_KEY + rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_ODD = frozenset(b"%x" % digit for digit in range(1, 16, 2))
"""The last digits of flags that say sampled."""
_NO_TRACE = b"0" * 32
_NO_PARENT = b"0" * 16

Kind = Literal["server", "internal", "client"]
Attributes = Mapping[str, str | int]


class ExtraMissing(Exception):
    """The packages that send spans are not installed."""

    def __init__(self) -> None:
        super().__init__(
            "tracing.endpoint is set, and what sends traces is not installed; install the extra otel "
            "(pip install 'risk-assessment-service[otel]'), or leave TRACING_ENDPOINT out"
        )


class Span(NamedTuple):
    """One piece of work that was done. Ids in hexadecimal; begun_ns, ended_ns: Unix time.  error: its type, or ""."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent_id: str
    begun_ns: int
    ended_ns: int
    attributes: Attributes
    error: str = ""


Record = Callable[[Span], None]


class Trace(Struct, frozen=True):
    """The trace that a request is part of. Ids in hexadecimal; parent_id: the caller's, "" where it began here.

    span_id: of the request itself.  gather_id: of its gathering of evidence.  state: the caller's tracestate.
    record: takes its spans; None where it is not recorded.
    """

    trace_id: str
    parent_id: str
    span_id: str
    gather_id: str
    is_sampled: bool
    state: bytes = b""
    record: Record | None = None


class Tracing:
    """Takes traces over, begins new ones, and decides which are recorded: those that the caller's sampled flag says,
    and of those that begin here a share.

    record: takes spans; None records nothing, and leaves the caller's flag as it is.
    """

    def __init__(self, share: float = 0.0, record: Record | None = None) -> None:
        self._share = share
        self._record = record
        self.is_on = record is not None

    def may_record(self, traceparent: bytes | None) -> bool:
        """Whether a request with this header may be one to record; where it has none, that decides it."""
        # PERF: benchmarks/test_service.py::test_telling: of most requests that are not recorded, no trace need be made.
        if traceparent is None:
            return self.is_on and random.random() < self._share
        return self.is_on and traceparent[54:55] in _ODD

    def take(self, traceparent: bytes | None, tracestate: bytes | None = None, is_sampled: bool | None = None) -> Trace:
        """The trace of a request with these headers. One that is not as it should be begins anew, without a word.

        is_sampled: of one that begins here, None where that is not decided yet.
        """
        found = None if traceparent is None else parsed(traceparent)
        if found is not None:
            trace_id, parent_id, flag = found
            state = b"" if tracestate is None else kept_state(tracestate)
        else:
            trace_id, parent_id, state = new_id(128), "", b""
            flag = self.may_record(None) if is_sampled is None else is_sampled
        return Trace(trace_id, parent_id, new_id(64), new_id(64), flag, state, self._record if flag else None)


def parsed(traceparent: bytes) -> tuple[str, str, bool] | None:
    """Trace id, parent id and sampled flag; None where it is invalid. Of a version to come, what version 00 knows."""
    found = _PARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None) or trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return None
    return trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & SAMPLED)


def kept_state(tracestate: bytes) -> bytes:
    """A tracestate as it is passed on: unchanged, or within STATE_BYTES by whole members; b"" where it is invalid."""
    members = [member.strip(b" \t") for member in tracestate.split(b",")]
    named = [member for member in members if member]
    if len(named) > STATE_MEMBERS or not all(_MEMBER.fullmatch(member) for member in named):
        return b""
    if len(tracestate) <= STATE_BYTES:
        return tracestate
    for is_long in (True, False):
        for place in range(len(named) - 1, -1, -1):
            if len(b",".join(named)) <= STATE_BYTES:
                break
            if len(named[place]) > LONG_MEMBER_BYTES or not is_long:
                del named[place]
    return b",".join(named)


def new_id(bits: int) -> str:
    """A random id in hexadecimal, never all zeros."""
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


_outgoing: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("outgoing", default=())


def outgoing() -> tuple[tuple[str, str], ...]:
    """The headers that pass the trace on with the call that is being made; nothing outside of one."""
    return _outgoing.get()


@contextmanager
def calling(trace: Trace | None, name: str, attributes: Attributes) -> Iterator[None]:
    """A call to another service on behalf of a request: a span of its own, and what `outgoing` says within it."""
    if trace is None:
        yield
        return
    span_id = new_id(64)
    headers = [("traceparent", f"00-{trace.trace_id}-{span_id}-{int(trace.is_sampled):02x}")]
    if trace.state:
        headers.append(("tracestate", trace.state.decode("ascii")))
    token = _outgoing.set(tuple(headers))
    begun_ns, error = time.time_ns(), ""
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        _outgoing.reset(token)
        if trace.record is not None:
            span = Span(
                name, "client", trace.trace_id, span_id, trace.gather_id, begun_ns, time.time_ns(), attributes, error
            )
            trace.record(span)
