"""Nine significant digits, as Python's own formatting gives them."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.rounding import hundredths_text, number_text, rounded

finite = st.floats(allow_nan=False, allow_infinity=False)
short = st.builds(lambda digits, power: digits * 10.0**power, st.integers(-(10**12), 10**12), st.integers(-20, 8))


@settings(derandomize=True, max_examples=1500)
@given(finite | short)
@example(0.5)
@example(-0.0)
@example(5e-324)
@example(2.2250738585072014e-308)
@example(1.7976931348623157e308)
@example(999999999.5)
@example(99999999.95)
@example(1234567885e-1)
@example(1.000000005)
@example(0.1 + 0.2)
@example(1e22)
@example(1e23)
def test_rounding_is_that_of_python(x: float) -> None:
    assert rounded(x) == float(format(x, ".9g"))


@settings(derandomize=True, max_examples=300)
@given(st.integers(0, 10**9 - 1), st.integers(-30, 30))
def test_ties_and_their_neighbours_are_rounded_as_python_rounds_them(digits: int, power: int) -> None:
    tie = (digits + 0.5) * 10.0**power
    for x in (tie, math.nextafter(tie, 0), math.nextafter(tie, math.inf), -tie):
        assert rounded(x) == float(format(x, ".9g"))


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_missing(x: float) -> None:
    assert math.isnan(rounded(x))


@settings(derandomize=True, max_examples=1500)
@given(finite | short)
@example(-0.0)
@example(5e-324)
@example(1e15)
@example(1e16)
@example(0.0001)
@example(0.00001)
@example(123456789000.0)
def test_the_text_of_a_number_is_json_and_reads_back_as_the_rounded_number(x: float) -> None:
    text = number_text(x)
    assert float(json.loads(text)) == rounded(x)
    assert len(text) < 40


def test_no_negative_zero_is_written() -> None:
    assert number_text(-0.0) == "0"
    assert struct.pack("d", rounded(-0.0)) == struct.pack("d", 0.0)


@settings(derandomize=True, max_examples=500)
@given(st.integers(-(2**31), 2**31 - 1))
@example(0)
@example(-1)
@example(5)
@example(-2147483648)
def test_points_are_written_exactly_with_at_most_two_decimals_and_none_in_vain(hundredths: int) -> None:
    text = hundredths_text(hundredths)
    sign, magnitude = ("-" if hundredths < 0 else ""), abs(hundredths)
    whole = f"{sign}{magnitude // 100}.{magnitude % 100:02d}"
    assert text == whole.rstrip("0").rstrip(".")
    json.loads(text)
