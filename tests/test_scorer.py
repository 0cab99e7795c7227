"""Whole answers and records: strict types, exact sums, the reasons that matter, and records that nothing can break."""

from __future__ import annotations

import datetime as dt
import json
import math
from random import Random
from typing import Any

import msgspec
import oracle
import pytest
from hypothesis import given, settings
from shipped import CATALOGUE, NO_FINDINGS, TODAY, model, profile, scorer
from strategies import AS_OF, all_findings, many, profiles

from app import wire
from app.evidence.base import Findings
from core.model import DECISIONS, HUNDREDTHS, LEVELS
from core.ratios import INPUTS, MODELS, ZONES
from core.scorer import Assessed, RecordDamaged, Scorer
from core.validity import ProfileInvalid

ID = bytes.fromhex("0193c5a1b2c37d4e8f90a1b2c3d4e5f6")
SCREENING = b'{"status":"not_screened","hits":[]}'
EVIDENCE = b'[{"source":"watchlist","status":"not_screened"}]'
BATCH = list(many(2500, seed=23))


def render(assessed: Assessed, full: bool = True, **more: Any) -> bytes:
    return assessed.render(ID, b'"cust-1"', full, SCREENING, EVIDENCE, **more)


def answer(assessed: Assessed, full: bool = True, **more: Any) -> wire.Assessment:
    return msgspec.json.decode(render(assessed, full, **more), type=wire.Assessment, strict=True)


def hundredths(number: float) -> int:
    exact = round(number * HUNDREDTHS)
    assert exact / HUNDREDTHS == number, "more than two decimals"
    return exact


@pytest.fixture(scope="module")
def assessed() -> list[Assessed]:
    return [scorer().assess(p, f, TODAY) for p, f in BATCH]


# ---------------------------------------------------------------- the answer


@settings(derandomize=True, max_examples=60)
@given(profiles(), all_findings())
def test_an_assessment_is_that_of_the_plain_reading(p: wire.Profile, f: Findings) -> None:
    check(p, f, scorer().assess(p, f, TODAY))


def test_many_assessments_are_those_of_the_plain_reading(assessed: list[Assessed]) -> None:
    levels = set()
    for (p, f), a in zip(BATCH, assessed, strict=True):
        check(p, f, a)
        levels.add(LEVELS[a.level])
    assert {"medium", "high", "critical"} <= levels


def check(p: wire.Profile, f: Findings, a: Assessed) -> None:
    row = oracle.features(model(), p, f, AS_OF)
    expected = oracle.conclude(model(), row)
    shown = answer(a)
    assert (a.score, LEVELS[a.level], DECISIONS[a.decision]) == (expected.score, expected.level, expected.decision)
    assert (shown.level, shown.decision) == (expected.level, expected.decision)
    assert hundredths(shown.score) == expected.score
    assert [hundredths(x) for x in shown.score_range] == [expected.low, expected.high]
    assert shown.completeness == math.floor(expected.known * 10_000 / expected.weight) / 10_000
    assert a.completeness == expected.known / expected.weight
    assert {k.name: hundredths(k.points) for k in shown.categories} == expected.categories
    by_name = {r.characteristic: r for r in shown.reasons}
    for c, place in zip(model().characteristics, expected.attributes, strict=True):
        taken, reason = c.attributes[place], by_name[c.name]
        seen = row[c.feature]
        assert reason == wire.Reason(
            taken.code, c.name, c.category, taken.points / HUNDREDTHS,  # type: ignore[arg-type]
            {"true": True, "false": False}.get(str(seen), seen) if model().features[c.feature].is_flag else seen,
            taken.label, taken.missing, taken.message,
        )  # fmt: skip


def test_base_and_points_add_up_to_the_score_to_the_hundredth(assessed: list[Assessed]) -> None:
    for a in assessed:
        shown = answer(a)
        points = sum(hundredths(reason.points) for reason in shown.reasons)
        assert hundredths(shown.base) + points == hundredths(shown.score) == a.score
        assert hundredths(shown.base) + sum(hundredths(k.points) for k in shown.categories) == a.score
        for category in shown.categories:
            own = sum(hundredths(r.points) for r in shown.reasons if r.category == category.name)
            assert own == hundredths(category.points) <= hundredths(category.max_points)
        assert len(shown.reasons) == len(model().characteristics)


def test_the_top_reasons_are_the_first_of_all_with_points_above_the_best(assessed: list[Assessed]) -> None:
    best = {c.name: c.best for c in model().characteristics}
    order = {c.name: place for place, c in enumerate(model().characteristics)}
    counts = set()
    for a in assessed:
        full, top = answer(a).reasons, answer(a, full=False).reasons
        above = [max(0, hundredths(r.points) - best[r.characteristic]) for r in full]
        ranked = sorted(zip(above, full, strict=True), key=lambda pair: (-pair[0], order[pair[1].characteristic]))
        assert full == [reason for _, reason in ranked]
        assert top == [reason for gain, reason in ranked if gain > 0][:6]
        counts.add(len(top))
    assert max(counts) == 6


def test_the_distress_models_are_shown_with_value_zone_and_what_they_lack(assessed: list[Assessed]) -> None:
    used = set()
    for (p, f), a in zip(BATCH[:600], assessed, strict=False):
        row = oracle.features(model(), p, f, AS_OF)
        shown, top = answer(a).distress, answer(a, full=False).distress
        assert [d.model for d in shown] == list(MODELS)
        for d in shown:
            assert (d.value is None) == (d.zone is None)
            assert d.zone is None or d.zone in ZONES[d.model]
            assert set(d.missing) <= set(INPUTS[d.model])
            assert d.used == (d.model == row["distress_model"])
        assert top == [d for d in shown if d.used]
        used |= {d.model for d in top}
    assert used == set(MODELS[:4])


@pytest.mark.parametrize(
    ("name", "listed", "manufacturer", "per_ebit", "bound"),
    [
        *(("altman_z", True, True, 3.3, bound) for bound in (1.81, 2.99)),
        *(("altman_z_prime", False, True, 3.107, bound) for bound in (1.23, 2.90)),
        *(("altman_z_double_prime", False, False, 6.72, bound) for bound in (1.1, 2.6)),
    ],
)
def test_a_value_on_the_bound_of_a_zone_is_grey(
    name: str, listed: bool, manufacturer: bool, per_ebit: float, bound: float
) -> None:
    statement = wire.Statement(
        total_assets=1.0, current_assets=1.0, current_liabilities=1.0, retained_earnings=0.0, total_liabilities=1.0,
        revenue=0.0, market_value_of_equity=0.0, ebit=bound / per_ebit,
    )  # fmt: skip
    financials = wire.Financials(listed=listed, manufacturer=manufacturer, current=statement)
    (shown,) = answer(scorer().assess(profile(financials=financials), NO_FINDINGS, TODAY), full=False).distress
    assert (shown.model, shown.value, shown.zone) == (name, bound, "grey")


def test_applied_overrides_and_floors_are_shown_and_of_a_category_the_highest_floor(assessed: list[Assessed]) -> None:
    floors = {f.code: f for category in model().categories for f in category.floors}
    for (p, f), a in zip(BATCH[:600], assessed, strict=False):
        expected = oracle.conclude(model(), oracle.features(model(), p, f, AS_OF))
        held = [floors[code] for code in expected.floors]
        highest = [x.code for x in held if x.points == max(y.points for y in held if y.category == x.category)]
        assert [o.code for o in answer(a).overrides] == [*expected.overrides, *highest]


def test_the_id_gives_the_time_of_creation_and_without_one_both_are_null() -> None:
    a = scorer().assess(profile(), NO_FINDINGS, dt.date(2024, 2, 29).toordinal())
    shown = answer(a)
    assert shown.id == "0193c5a1-b2c3-7d4e-8f90-a1b2c3d4e5f6"
    created = dt.datetime.fromtimestamp(int.from_bytes(ID[:6]) / 1000, dt.UTC)
    assert shown.created_at == created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert shown.as_of == "2024-02-29"
    dry = json.loads(a.render(None, b"null", False, SCREENING, b"[]"))
    assert (dry["id"], dry["created_at"], dry["business_id"]) == (None, None, None)
    with pytest.raises(ValueError, match="16 bytes"):
        a.render(b"short", b"null", False, SCREENING, b"[]")


@pytest.mark.parametrize("ordinal", [1, 59, 60, 146_097, 719_163, 730_179, 738_945, 3_652_059])
def test_every_day_is_written_as_the_calendar_has_it(ordinal: int) -> None:
    day = dt.date.fromordinal(ordinal)
    try:
        a = scorer().assess(wire.Profile(wire.Business("A", "DE")), NO_FINDINGS, ordinal)
    except ProfileInvalid:
        pytest.fail("a profile without dates is valid on any day")
    assert answer(a).as_of == day.isoformat()


@pytest.mark.parametrize("ordinal", [0, -1, 3_652_060, 2**31 - 1])
def test_what_is_not_a_day_is_refused(ordinal: int) -> None:
    with pytest.raises(ValueError, match="not the ordinal of a day"):
        scorer().assess(profile(), NO_FINDINGS, ordinal)
    with pytest.raises(ValueError, match="not the ordinal of a day"):
        scorer().assess_many([profile()], [NO_FINDINGS], ordinal)


def test_what_the_caller_adds_is_copied_whole() -> None:
    a = scorer().assess(profile(), NO_FINDINGS, TODAY)
    long = b'"' + b"x" * 100_000 + b'"'
    effective = b'{"level":"low","decision":"approve","override_id":"o1"}'
    shown = json.loads(a.render(ID, long, True, SCREENING, EVIDENCE, True, effective))
    assert shown["business_id"] == "x" * 100_000
    assert shown["effective"] == json.loads(effective)
    assert shown["degraded"] is True
    assert json.loads(render(a))["effective"] == {
        "level": LEVELS[a.level],
        "decision": DECISIONS[a.decision],
        "override_id": None,
    }
    for wrong in ((None, b"", b""), (b"", None, b""), (b"", b"", None)):
        with pytest.raises(TypeError):
            a.render(ID, wrong[0], True, wrong[1], wrong[2])  # type: ignore[arg-type]


# ---------------------------------------------------------------- batches


def test_a_batch_comes_to_the_same_as_one_by_one_and_a_bad_item_fails_alone(assessed: list[Assessed]) -> None:
    bad = profile(jurisdiction="ZZ")
    many_profiles = [p for p, _ in BATCH[:500]]
    many_findings = [f for _, f in BATCH[:500]]
    for place in (0, 100, 501, 502):
        many_profiles.insert(place, bad)
        many_findings.insert(place, NO_FINDINGS)
    answers = scorer().assess_many(many_profiles, many_findings, TODAY)
    invalid = [place for place, a in enumerate(answers) if isinstance(a, ProfileInvalid)]
    assert invalid == [0, 100, 501, 502]
    sound = [a for a in answers if isinstance(a, Assessed)]
    assert [render(a) for a in sound] == [render(a) for a in assessed[:500]]


def test_a_batch_needs_as_many_findings_as_profiles() -> None:
    assert scorer().assess_many([], [], TODAY) == []
    with pytest.raises(ValueError, match="1 profiles and 0 findings"):
        scorer().assess_many([profile()], [], TODAY)
    with pytest.raises(TypeError):
        scorer().assess_many(None, [], TODAY)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        scorer().assess_many([profile(), None], [NO_FINDINGS] * 2, TODAY)


# ---------------------------------------------------------------- records


def test_a_record_gives_back_the_same_bytes(assessed: list[Assessed]) -> None:
    for a in assessed[:800]:
        restored = scorer().restore(a.record())
        assert restored.record() == a.record()
        for full in (False, True):
            assert render(restored, full) == render(a, full)
        assert (restored.score, restored.level, restored.decision) == (a.score, a.level, a.decision)
        assert (restored.completeness, restored.as_of) == (a.completeness, a.as_of)


def test_a_record_is_compact(assessed: list[Assessed]) -> None:
    assert max(len(a.record()) for a in assessed) <= scorer().record_bytes <= 700


def test_a_record_of_another_length_or_format_is_refused(assessed: list[Assessed]) -> None:
    record = assessed[0].record()
    for damaged in (b"", record[:-1], record + b"\0", record[:10], b"\2" + record[1:]):
        with pytest.raises(RecordDamaged):
            scorer().restore(damaged)
    for wrong in (None, "text", bytearray(record)):
        with pytest.raises(TypeError):
            scorer().restore(wrong)  # type: ignore[arg-type]


def test_a_damaged_record_is_refused_or_still_a_sound_answer(assessed: list[Assessed]) -> None:
    random = Random(31)
    refused = 0
    for a in assessed[:12]:
        record = a.record()
        for bit in range(len(record) * 8):
            damaged = bytearray(record)
            damaged[bit // 8] ^= 1 << bit % 8
            refused += not survives(bytes(damaged))
        for _ in range(300):
            damaged = bytearray(record)
            start = random.randrange(len(damaged))
            damaged[start : start + 8] = random.randbytes(len(damaged[start : start + 8]))
            refused += not survives(bytes(damaged))
        assert not survives(bytes(len(record)))
        assert not survives(random.randbytes(len(record)))
    assert refused > 1000


def survives(record: bytes) -> bool:
    try:
        restored = scorer().restore(record)
    except RecordDamaged:
        return False
    shown = answer(restored)
    assert hundredths(shown.base) + sum(hundredths(r.points) for r in shown.reasons) == hundredths(shown.score)
    answer(restored, full=False)
    return True


def test_a_record_cannot_be_made_to_say_another_score_level_or_decision(assessed: list[Assessed]) -> None:
    record = assessed[0].record()
    for place in (1, 2, 10):
        damaged = bytearray(record)
        damaged[place] ^= 1
        assert not survives(bytes(damaged))


# ---------------------------------------------------------------- making them


def test_an_assessed_is_made_by_a_scorer_only() -> None:
    with pytest.raises(TypeError, match="made by a Scorer"):
        Assessed(scorer())  # type: ignore[arg-type]
    blank = Assessed.__new__(Assessed, scorer())  # type: ignore[call-arg]
    assert isinstance(blank.render(None, b"null", True, b"null", b"null"), bytes)


def test_a_scorer_needs_a_model() -> None:
    for wrong in ((None, CATALOGUE), (model(), None)):
        with pytest.raises(AttributeError):
            Scorer(*wrong)
