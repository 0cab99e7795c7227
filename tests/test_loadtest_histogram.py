"""Times in buckets, against all of them sorted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loadtest.histogram import LONGEST_US, N_BUCKETS, Histogram, bucket, middle_us

TIMES = st.lists(st.integers(0, LONGEST_US) | st.integers(0, 5000), min_size=1, max_size=300)


def counted(times: list[int]) -> Histogram:
    made = Histogram()
    for time in times:
        made.add(time)
    return made


def plainly(times: list[int], percent: float) -> int:
    """The least time that so many per cent do not exceed."""
    return sorted(times)[max(0, math.ceil(len(times) * percent / 100) - 1)]


@given(TIMES, st.sampled_from([0, 1, 25, 50, 90, 95, 99, 99.9, 100]))
def test_a_percentile_is_within_a_hundredth_of_what_all_times_say(times: list[int], percent: float) -> None:
    assert counted(times).percentile_us(percent) == pytest.approx(plainly(times, percent), rel=0.01, abs=0.5)


@given(TIMES)
def test_mean_and_most_are_exact(times: list[int]) -> None:
    made = counted(times)
    assert (made.count, made.sum_us, made.most_us) == (len(times), sum(times), max(times))
    assert made.mean_us == sum(times) / len(times)


@given(TIMES, TIMES)
def test_two_in_one_are_all_their_times(one: list[int], other: list[int]) -> None:
    made = counted(one)
    made.merge(counted(other))
    assert made.packed() == counted(one + other).packed()


@given(TIMES)
def test_what_was_packed_is_the_same_again(times: list[int]) -> None:
    made = counted(times)
    assert Histogram.unpacked(*made.packed()).packed() == made.packed()


@given(st.integers(0, LONGEST_US * 4))
def test_a_time_has_the_bucket_that_adding_it_fills(time: int) -> None:
    assert [place for place, _ in counted([time]).filled()] == [bucket(time)]
    assert bucket(time) < N_BUCKETS


@given(st.integers(0, N_BUCKETS - 1 - 127))
def test_the_middle_of_a_bucket_lies_in_it(place: int) -> None:
    assert bucket(int(middle_us(place))) == place


def test_the_longest_is_counted_as_so_much() -> None:
    assert counted([10 * LONGEST_US]).percentile_us(50) == pytest.approx(LONGEST_US, rel=0.01)


def test_nothing_has_no_time() -> None:
    assert Histogram().percentile_us(99) == 0 == Histogram().mean_us
