"""Ids: their layout (RFC 9562), order, text and ranges."""

from __future__ import annotations

import datetime as dt
import os
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ids import Uuid7, ceiling, floor, instant, now_ms, parse, text, time_ms

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def test_an_id_is_a_uuid_of_version_7_with_the_time_of_its_making() -> None:
    before = now_ms()
    id = Uuid7().new()
    known = uuid.UUID(bytes=id)
    assert (known.version, known.variant) == (7, uuid.RFC_4122)
    assert before <= time_ms(id) <= now_ms()
    assert text(id) == str(known)


@given(st.lists(st.integers(0, 20), max_size=50))
def test_ids_rise_whatever_the_clock_does(ticks: list[int]) -> None:
    clock = iter(ticks)
    new = Uuid7(lambda: next(clock)).new
    made = [new() for _ in ticks]
    assert made == sorted(set(made))


def test_ids_rise_beyond_what_one_millisecond_holds() -> None:
    new = Uuid7(lambda: 1_000).new
    made = [new() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert time_ms(made[0]) == 1_000
    assert time_ms(made[-1]) <= 1_003
    assert {uuid.UUID(bytes=id).version for id in made} == {7}


def test_a_forked_child_makes_other_ids() -> None:
    ids = Uuid7(lambda: 1_000)
    ids.new()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.new())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 16)
    os.close(reading)
    os.close(writing)
    assert theirs[8:] != ids.new()[8:]


@given(st.binary(min_size=16, max_size=16))
def test_text_and_parse_are_inverse(id: bytes) -> None:
    assert text(id) == str(uuid.UUID(bytes=id))
    assert parse(text(id)) == parse(text(id).upper()) == id


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "01932c07209c7c4f8d5e8f2f5a3b9e10",
        "{01932c07-209c-7c4f-8d5e-8f2f5a3b9e10}",
        "01932c07-209c-7c4f-8d5e-8f2f5a3b9e1",
        "01932c07-209c-7c4f-8d5e-8f2f5a3b9e1g",
        "01932c07-209c-7c4f-8d5e-8f2f5a3b9e 1",
        "01932c07-209c-7c4f-8d5e-8f2f5a3b-e10",
        "01932c07-209c-7c4f-8d5e-8f2f5a3b9e1٣",
        "0193-2c07209c-7c4f-8d5e-8f2f5a3b9e10",
    ],
)
def test_anything_but_the_canonical_form_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="groups of 8-4-4-4-12"):
        parse(wrong)


@given(st.integers(0, 2**48 - 1))
def test_floor_and_ceiling_enclose_every_id_of_a_millisecond(ms: int) -> None:
    id = Uuid7(lambda: ms).new() if ms else floor(0)
    assert floor(ms) <= id <= ceiling(ms)
    assert time_ms(floor(ms)) == time_ms(ceiling(ms)) == ms


@pytest.mark.parametrize("ms", [-1, 2**48])
def test_a_time_that_no_id_can_hold_is_refused(ms: int) -> None:
    for bound in (floor, ceiling):
        with pytest.raises(ValueError, match="must be 0 to"):
            bound(ms)


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_a_time_is_told_to_the_millisecond_in_utc(moment: dt.datetime) -> None:
    told = instant((moment - EPOCH) // dt.timedelta(milliseconds=1))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told)
    assert dt.datetime.fromisoformat(told) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_a_time_beyond_the_calendar_is_told_as_its_end() -> None:
    assert instant(0) == "1970-01-01T00:00:00.000Z"
    for ms in (time_ms(ceiling(2**48 - 1)), 2**63 - 1):
        assert instant(ms) == "9999-12-31T23:59:59.999Z"
    assert instant(-(2**63)) == "0001-01-01T00:00:00.000Z"
