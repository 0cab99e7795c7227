"""Ratios against their baselines: what has become slower is found, and what was only disturbed is let pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

# Behind everything else: some names are modules of the tests too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import baselines
import check_ratios
from check_ratios import Ratio
from machine import Machine


def baseline(ratio: float = 1.0, **more: Any) -> Any:
    told = {"least": ratio, "most": ratio, "cpu": "A", "python": "3.11", "date": "2026-11-27", "revision": "abc"}
    return baselines.Baseline(yardstick="a walk", ratio=ratio, **{**told, **more})


def in_turn(*ratios: float) -> Callable[[], float]:
    left = iter(ratios)
    return lambda: next(left)


def never() -> float:
    raise AssertionError("it was measured again")


def test_a_ratio_is_the_yardsticks_time_over_that_of_what_is_measured() -> None:
    assert baselines.ratio([3.0, 3.0, 3.0], [2.0, 2.0]) == 1.5


def test_a_machine_that_grows_steadily_slower_changes_no_ratio() -> None:
    # Yardstick and subject take turns, and each takes a hundredth longer than the one before.
    yardsticks = [1.0 + 0.02 * turn for turn in range(11)]
    measured = [2.0 * (1.01 + 0.02 * turn) for turn in range(10)]
    assert baselines.ratio(yardsticks, measured) == pytest.approx(0.5)


def test_single_disturbed_rounds_change_no_ratio() -> None:
    measured = [2.0] * 10
    measured[3], measured[7] = 9.0, 30.0
    assert baselines.ratio([1.0, 1.0, 5.0, *[1.0] * 8], measured) == 0.5


def test_a_round_is_held_against_the_mean_of_the_yardsticks_around_it() -> None:
    assert baselines.ratio([1.0, 3.0], [1.0]) == 2.0


class Clock:
    """A time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def passing(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock() -> Clock:
    return Clock()


def turns(clock: Clock, per: float = 1.0, yardstick_per: float = 1.0) -> Any:
    yardstick = baselines.Yardstick("a walk", clock.passing("walk", 3.0), yardstick_per)
    return baselines.Turns(clock.passing("run", 2.0), yardstick, per, lambda: clock.now)


def rounds(given: Any, count: int) -> list[float]:
    """As pytest-benchmark makes them."""
    for _ in range(count):
        given.pace()
        given.subject()
    return [2.0] * count


def test_each_round_comes_between_two_of_the_yardstick(clock: Clock) -> None:
    given = turns(clock)
    assert given.ratio(rounds(given, 3)) == 1.5
    assert clock.calls == ["walk", "run", "walk", "run", "walk", "run", "walk"]


def test_a_ratio_is_of_units_however_many_a_call_is(clock: Clock) -> None:
    # 20 units in 2 s beside 10 units in 3 s.
    given = turns(clock, per=20, yardstick_per=10)
    assert given.ratio(rounds(given, 1)) == pytest.approx(3.0)


def test_rounds_that_only_warmed_up_are_left_out(clock: Clock) -> None:
    given = turns(clock)
    rounds(given, 2)
    given.yardstick = baselines.Yardstick("a walk", clock.passing("walk", 4.0))
    assert given.ratio(rounds(given, 2)) == 2.0


@pytest.mark.parametrize("ratio", [0.851, 0.9, 1.0, 1.15, 9.0])
def test_what_is_within_the_tolerance_or_faster_passes_at_once(ratio: float) -> None:
    verdict = baselines.judged(1.0, ratio, never)
    assert not verdict.has_fallen
    assert (verdict.ratio, verdict.attempts) == (ratio, 1)
    assert verdict.change == pytest.approx(ratio - 1)


@pytest.mark.parametrize("before", [0.003, 0.7, 2600.0])
def test_what_has_become_slower_is_found_whatever_its_size(before: float) -> None:
    verdict = baselines.judged(before, 0.84 * before, lambda: 0.84 * before)
    assert verdict.has_fallen
    assert verdict.attempts == baselines.ATTEMPTS
    assert verdict.change == pytest.approx(-0.16)


def test_what_is_slow_once_is_measured_again() -> None:
    verdict = baselines.judged(1.0, 0.5, in_turn(0.84, 0.97))
    assert not verdict.has_fallen
    assert (verdict.ratio, verdict.attempts) == (0.97, 3)


def test_the_best_attempt_is_told_of_what_stays_slow() -> None:
    verdict = baselines.judged(1.0, 0.7, in_turn(*[0.6, 0.8, 0.75][: baselines.ATTEMPTS - 1]))
    assert verdict.has_fallen
    assert verdict.ratio == 0.8


def test_the_message_says_what_by_how_much_and_since_when() -> None:
    verdict = baselines.judged(2.0, 1.5, lambda: 1.5)
    text = baselines.explained("edge", verdict, baseline(2.0), "A", "3.11")
    assert "edge" in text
    assert "1.5 of a walk, 25% below the 2 of 2026-11-27 (abc)" in text
    assert "That was" not in text


@pytest.mark.parametrize(("cpu", "python"), [("B", "3.11"), ("A", "3.13")])
def test_the_message_says_that_another_machine_made_the_baseline(cpu: str, python: str) -> None:
    verdict = baselines.judged(2.0, 1.5, lambda: 1.5)
    text = baselines.explained("edge", verdict, baseline(2.0), cpu, python)
    assert text.endswith(f"That was A with Python 3.11; this is {cpu} with {python}")


def test_the_spread_of_a_baseline_is_a_share_of_it() -> None:
    assert baseline(2.0, least=1.9, most=2.3).spread == pytest.approx(0.2)


def test_one_baseline_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "baselines.json"
    assert baselines.load(file) == {}
    for name, ratio in (("b", 1.0), ("a", 2.0), ("b", 3.0)):
        baselines.keep(name, baseline(ratio), file)
    assert {name: kept.ratio for name, kept in baselines.load(file).items()} == {"a": 2.0, "b": 3.0}
    assert list(msgspec.json.decode(file.read_bytes())) == ["a", "b"], "sorted, so that a renewal is a small change"


HERE = Machine("2026-11-27 09:00 UTC", "A", 2, 24.0, "Linux", "3.11", "abc", 0.0, {})


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The baselines that there are, which stand in for the file."""
    kept: dict[str, Any] = {"edge": baseline(2.0), "names": baseline(30.0)}
    monkeypatch.setattr(baselines, "load", lambda: kept)
    monkeypatch.setattr(baselines, "keep", kept.__setitem__)
    return kept


def ratios(**found: float) -> dict[str, Ratio]:
    return {name: Ratio(ratio, "a walk") for name, ratio in found.items()}


@pytest.mark.usefixtures("stored")
def test_the_check_passes_where_nothing_has_fallen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_ratios, "measured", never)
    assert check_ratios.check(ratios(edge=1.9, names=33.0), HERE)


@pytest.mark.usefixtures("stored")
def test_the_check_fails_where_one_has_fallen_and_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(check_ratios, "measured", lambda chosen: asked.append(chosen) or ratios(edge=1.5))
    assert not check_ratios.check(ratios(edge=1.6, names=33.0), HERE)
    shown = capsys.readouterr().out
    assert "edge has become slower" in shown
    assert "names has" not in shown
    assert len(asked) == baselines.ATTEMPTS - 1
    assert all(only.endswith("bench_ratios.py::test_edge") for (only,) in asked)


@pytest.mark.parametrize("yardstick", ["a run", None])
def test_the_check_fails_where_there_is_nothing_to_hold_against(
    stored: dict[str, Any], yardstick: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if yardstick is None:
        del stored["edge"]
    assert not check_ratios.check({"edge": Ratio(2.0, yardstick or "a walk")}, HERE)
    assert "edge has no baseline" in capsys.readouterr().out


def test_a_baseline_is_the_median_of_several_processes(stored: dict[str, Any]) -> None:
    assert check_ratios.keep([ratios(edge=edge) for edge in (1.0, 1.1, 0.9)], HERE)
    kept = stored["edge"]
    assert (kept.ratio, kept.least, kept.most, kept.cpu, kept.date) == (1.0, 0.9, 1.1, "A", HERE.date)
    assert stored["names"].ratio == 30.0


def test_processes_that_disagree_make_no_baseline(stored: dict[str, Any]) -> None:
    passes = [ratios(edge=edge, names=names) for edge, names in ((1.0, 31.0), (1.6, 32.0), (0.9, 30.0))]
    assert not check_ratios.keep(passes, HERE)
    assert (stored["edge"].ratio, stored["names"].ratio) == (2.0, 31.0)


def test_the_stored_baselines_are_sound() -> None:
    stored = baselines.load()
    assert stored
    for name, kept in stored.items():
        assert 0 < kept.least <= kept.ratio <= kept.most, name
        assert kept.spread <= baselines.SPREAD, name
        assert kept.date.endswith("UTC"), name
        assert all((kept.yardstick, kept.cpu, kept.python, kept.revision)), name
