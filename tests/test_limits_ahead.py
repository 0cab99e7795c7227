"""Requests taken ahead of being asked for: in proportion to the traffic, within their share, for a moment."""

from __future__ import annotations

import pytest
from limits import HOURLY, Clock, allowance, bucket

from app.limits.ahead import HELD_S, TRAFFIC_S, Ahead
from app.limits.allowance import Allowance, Bucket, Taken
from app.limits.part import MOST_KEPT

GRANTED = Taken(True, 0.0, ((7, 1),))
REFUSED = Taken(False, 1.0, ((0, 1),))


def large() -> Allowance:
    return allowance(bucket(per_s=20_000, burst=20_000))


def ask(ahead: Ahead, whose: Allowance, clock: Clock, times: int, answer: Taken = GRANTED, cost: int = 1) -> int:
    """A batch of so many requests. How many are taken ahead with them."""
    wanted = ahead.wanted([(whose, cost)] * times, clock.now)
    ahead.put(wanted, [answer] * len(wanted), clock.now)
    return sum(count for _, count in wanted)


def drawn(ahead: Ahead, whose: Allowance) -> int:
    """How many requests are granted until nothing is left."""
    count = 0
    while ahead.take(whose) is not None:
        count += 1
    return count


@pytest.mark.parametrize(
    ("buckets", "most"),
    [
        ((bucket(per_s=20_000, burst=20_000),), 40),
        ((bucket(per_s=20_000, burst=20_000), bucket("two", per_s=100, burst=10_000)), 10),
        ((bucket(per_s=20_000, burst=20_000), bucket("two", per_s=2000, burst=499)), 0),
        ((bucket(per_s=HOURLY, burst=1_000_000),), 0),
    ],
)
def test_no_more_is_held_than_the_share_of_the_least_bucket(buckets: tuple[Bucket, ...], most: int) -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), allowance(*buckets)
    assert whose.advance == most
    ask(ahead, whose, clock, 1000)
    clock.now += TRAFFIC_S
    assert ask(ahead, whose, clock, 1000) == most
    assert drawn(ahead, whose) == ahead.used == most


def test_as_much_is_taken_ahead_as_came_of_late() -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), large()
    assert ask(ahead, whose, clock, 10) == 0
    clock.now += TRAFFIC_S / 2
    assert ask(ahead, whose, clock, 6) == 6
    assert drawn(ahead, whose) == 6
    clock.now += 2 * TRAFFIC_S
    assert ask(ahead, whose, clock, 2) == 4
    assert drawn(ahead, whose) == 4
    # After a rest it is as at first: these come alone.
    clock.now += 10.0
    assert ask(ahead, whose, clock, 2) == 0


def test_requests_that_cost_more_than_one_take_nothing_ahead() -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), large()
    for _ in range(3):
        assert ask(ahead, whose, clock, 20, cost=2) == 0


def test_while_some_is_left_nothing_more_is_taken() -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), large()
    ask(ahead, whose, clock, 5)
    assert ask(ahead, whose, clock, 5) == 5
    assert ask(ahead, whose, clock, 9) == 0
    assert drawn(ahead, whose) == 5


def test_what_is_held_lapses() -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), large()
    ask(ahead, whose, clock, 5)
    assert ask(ahead, whose, clock, 5) == 5
    clock.now += HELD_S * 0.99
    assert ahead.take(whose) is GRANTED
    clock.now += HELD_S * 0.02
    assert ahead.take(whose) is None
    clock.now -= HELD_S
    assert ahead.take(whose) is None


def test_what_was_refused_is_not_held() -> None:
    clock = Clock()
    ahead, whose = Ahead(clock), large()
    ask(ahead, whose, clock, 5)
    assert ask(ahead, whose, clock, 5, REFUSED) == 5
    assert ahead.take(whose) is None


def test_callers_without_number_are_not_all_kept() -> None:
    clock = Clock()
    ahead, first = Ahead(clock), large()
    ask(ahead, first, clock, 5)
    for _ in range(MOST_KEPT):
        ask(ahead, large(), clock, 1)
    assert ask(ahead, first, clock, 5) == 0
