"""Traces as W3C Trace Context (level 1) has them: its examples, its rules, and what is made of what breaks them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.trace import STATE_BYTES, Span, Tracing, calling, kept_state, new_id, outgoing, parsed

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{PARENT}-00".encode(), False),
        (f"00-{TRACE}-{PARENT}-09".encode(), True),
        (f"00-{TRACE}-{PARENT}-fe".encode(), False),
        # Of a version to come, what version 00 knows is read.
        (f"01-{TRACE}-{PARENT}-01".encode(), True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like".encode(), True),
        (f"cc-{TRACE}-{PARENT}-01-".encode(), True),
    ],
)
def test_a_valid_traceparent_is_taken_over(header: bytes, is_sampled: bool) -> None:
    assert parsed(header) == (TRACE, PARENT, is_sampled)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00",
        f"ff-{TRACE}-{PARENT}-01".encode(),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        GOOD.upper(),
        f"00-{TRACE}-{PARENT}-0G".encode(),
        f"0-{TRACE}-{PARENT}-01".encode(),
        f"000-{TRACE}-{PARENT}-01".encode(),
        f"0x-{TRACE}-{PARENT}-01".encode(),
        f"00-{TRACE[1:]}-{PARENT}-01".encode(),
        f"00-{TRACE}0-{PARENT}-01".encode(),
        f"00-{TRACE}-{PARENT[1:]}-01".encode(),
        f"00-{TRACE}-{PARENT}-1".encode(),
        f"00-{TRACE}-{PARENT}-001".encode(),
        f"00-{TRACE}-{PARENT}".encode(),
        GOOD + b"-",
        GOOD + b"-more",
        GOOD + b".",
        f"cc-{TRACE}-{PARENT}-01.more".encode(),
        b" " + GOOD,
        GOOD + b"\n",
        GOOD.replace(b"-", b"_"),
        GOOD + b"," + GOOD,
    ],
)
def test_an_invalid_traceparent_begins_a_trace_anew(header: bytes) -> None:
    assert parsed(header) is None
    begun = Tracing().take(header, b"congo=t61rcWkgMzE")
    assert begun.trace_id != TRACE
    assert (begun.parent_id, begun.state) == ("", b"")
    assert int(begun.trace_id, 16)


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f-]{50,60}", fullmatch=True))
def test_whatever_comes_what_is_passed_on_is_valid(header: bytes) -> None:
    with calling(Tracing().take(header), "call", {}):
        assert VALID.fullmatch(dict(outgoing())["traceparent"])


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        (b"foo=1 , \t bar=2", True),
        (b"fw529a3039@dt=FfAAAABM,1a-2f@foo=bar1", True),
        (b"foo=1,", True),
        (b"", True),
        (b"foo=" + b"v" * 256, True),
        (b"z" * 257 + b"=1", False),
        (b"foo=" + b"v" * 257, False),
        (b"Foo=1", False),
        (b"foo", False),
        (b"foo=a=b", False),
        (b"foo@=1", False),
        (b"foo=\xe9", False),
        (b",".join(b"k%d=1" % n for n in range(32)), True),
        (b",".join(b"k%d=1" % n for n in range(33)), False),
    ],
)
def test_a_tracestate_is_passed_on_unchanged_or_not_at_all(state: bytes, kept: bool) -> None:
    assert kept_state(state) == (state if kept else b"")


def test_a_tracestate_that_is_too_long_loses_whole_members_the_long_ones_first() -> None:
    short = [b"k%d=%s" % (n, b"v" * 60) for n in range(7)]
    long = b"long=" + b"v" * 130
    assert kept_state(b",".join([short[0], long, *short[1:]])) == b",".join(short)
    many = [b"k%d=%s" % (n, b"v" * 60) for n in range(12)]
    left = kept_state(b",".join(many))
    assert len(left) <= STATE_BYTES
    assert left == b",".join(many[: left.count(b",") + 1])


def test_a_call_carries_the_trace_with_a_parent_of_its_own() -> None:
    trace = Tracing().take(GOOD, b"congo=t61rcWkgMzE")
    told = set()
    for _ in range(2):
        with calling(trace, "call", {}):
            headers = dict(outgoing())
        version, trace_id, parent_id, flags = headers["traceparent"].split("-")
        assert (version, trace_id, flags, headers["tracestate"]) == ("00", TRACE, "01", "congo=t61rcWkgMzE")
        told.add(parent_id)
    assert len(told) == 2
    assert not told & {PARENT, trace.span_id}
    assert outgoing() == ()


def test_the_caller_decides_what_is_recorded_and_a_share_where_it_begins() -> None:
    spans: list[Span] = []
    all_of_them, none = Tracing(1.0, spans.append), Tracing(0.0, spans.append)
    assert none.take(GOOD).record is not None
    assert all_of_them.take(GOOD[:-2] + b"00").record is None
    assert all_of_them.take(None).record is not None
    assert none.take(None).record is None
    assert Tracing(1.0).take(GOOD).record is None
    half = Tracing(0.5, spans.append)
    assert 300 < sum(half.take(None).is_sampled for _ in range(1000)) < 700


def test_a_call_that_fails_is_a_span_that_says_so() -> None:
    spans: list[Span] = []
    trace = Tracing(0.0, spans.append).take(GOOD)
    with pytest.raises(TimeoutError), calling(trace, "provider registry", {"provider": "registry"}):
        raise TimeoutError
    [span] = spans
    assert (span.name, span.kind, span.trace_id, span.error) == ("provider registry", "client", TRACE, "TimeoutError")
    assert span.parent_id == trace.gather_id
    assert span.begun_ns <= span.ended_ns


def test_ids_are_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.trace.random.getrandbits", lambda bits: 0)
    assert (new_id(64), new_id(128)) == ("0" * 15 + "1", "0" * 31 + "1")
