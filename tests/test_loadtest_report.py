"""The report of a load test as files: JSON that can be read again, and Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import loadreports
import msgspec
import pytest
from loadreports import replaced

from app.loadtest.comparison import differences, pairs
from app.loadtest.figures import TIMES, UNKNOWN, bound, duration, measured, memory, milliseconds, number, percent, ratio
from app.loadtest.markdown import markdown
from app.loadtest.report import ReportUnreadable, read, write
from app.loadtest.results import Report, Target

SAMPLES = {
    "whole": loadreports.report(loadreports.sustained(), loadreports.stress(), loadreports.broken()),
    "invalid": loadreports.report(loadreports.invalid()),
    "untold": loadreports.report(loadreports.sustained(is_told=False), is_told=False),
    "without seconds": loadreports.report(loadreports.empty()),
    "without scenarios": loadreports.report(),
}
BEFORE = loadreports.report(loadreports.sustained(faster=2.0), at="2026-11-20T09:30:00Z", commit="0b11d0e")


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Report:
    return SAMPLES[request.param]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table of a Markdown text."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


# Files


def test_three_files_are_written_and_the_folder_is_made(tmp_path: Path, sample: Report) -> None:
    written = write(sample, tmp_path / "deep" / "down", BEFORE)
    assert [path.name for path in written] == ["report.json", "report.md", "report.html"]
    assert all(path.stat().st_size > 0 for path in written)


def test_what_is_written_is_read_again_from_file_and_folder(tmp_path: Path, sample: Report) -> None:
    path = write(sample, tmp_path)[0]
    assert read(path) == sample
    assert read(tmp_path) == sample


def test_a_report_without_what_came_later_is_still_read(tmp_path: Path) -> None:
    told = msgspec.json.decode(msgspec.json.encode(SAMPLES["whole"]))
    for scenario in told["scenarios"]:
        for name in ("stages", "faults", "breaking_point", "stopped_by", "invalid"):
            del scenario[name]
    path = tmp_path / "old.json"
    path.write_bytes(msgspec.json.encode(told))
    assert [scenario.stages for scenario in read(path).scenarios] == [[], [], []]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is not there"),
        (b"", "is not JSON"),
        (b'{"environment": {"at": ', "is not JSON, or was cut off"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "no load test's report"),
        (b'{"scenarios": [], "verdict": "met"}', "missing required field `environment`"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_do(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "other.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ReportUnreadable, match="name ") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_folder_without_a_report_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReportUnreadable, match=r"report\.json is not there"):
        read(tmp_path)


# Markdown


def test_every_row_of_every_table_has_a_cell_for_each_column(sample: Report) -> None:
    found = tables(markdown(sample, BEFORE))
    assert found
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
        assert all(re.fullmatch("-{2,}:?", cell) for cell in table[1])


def test_every_target_stands_in_markdown_with_value_bound_and_verdict() -> None:
    rows = {row[0]: row for table in tables(markdown(SAMPLES["whole"])) for row in table}
    assert rows["p95"][1:4] == ["✓ met", measured(SAMPLES["whole"].scenarios[2].targets[1]), r"\< 1 s"]
    assert rows["recovery from redis-down"][2:4] == ["4.6 s", r"\< 30 s"]
    assert rows["18,000"][3].endswith("✗")
    assert rows["20,000"][-1].startswith("open files")


def test_an_invalid_run_is_told_first_and_nothing_of_it_is_met() -> None:
    text = markdown(SAMPLES["invalid"])
    assert text.index("INVALID: spike") < text.index("| scenario")
    assert "✓ met" not in text
    assert "| spike | invalid |" in text


def test_text_with_signs_of_markdown_stands_for_itself() -> None:
    odd = replaced(loadreports.empty(), name="a|b*c_d`e<f>[g]\nh")
    text = markdown(loadreports.report(odd))
    assert r"| a\|b\*c\_d\`e\<f\>\[g\] h | met" in text.replace("not judged", "met")


# Comparison


def test_a_figure_is_compared_by_its_ratio_and_which_way_is_better() -> None:
    now = replaced(SAMPLES["whole"].scenarios[0], per_second=1000.0)
    found = {pair.name: pair for pair in pairs(now, BEFORE.scenarios[0])}
    assert found["p95"].ratio == pytest.approx(0.5, rel=0.1)
    assert found["p95"].change == "better"
    assert found["requests/s"].ratio == pytest.approx(0.5, rel=0.01)
    assert found["requests/s"].change == "worse"
    assert (found["errors"].ratio, found["errors"].change) == (None, "same")
    assert found["service memory, most"].change == "same"
    assert "breaking point" not in found


def test_a_figure_that_only_one_run_has_is_not_judged() -> None:
    found = {pair.name: pair for pair in pairs(SAMPLES["untold"].scenarios[0], BEFORE.scenarios[0])}
    assert (found["service CPU, mean"].now, found["service CPU, mean"].change) == (UNKNOWN, "unknown")


def test_what_was_not_the_same_is_told() -> None:
    elsewhere = msgspec.structs.replace(
        BEFORE.environment, cores=64, settings={"users": "10"}, service={"uptime_s": "1"}
    )
    shorter = replaced(BEFORE.scenarios[0], duration_s=30.0)
    before = msgspec.structs.replace(BEFORE, environment=elsewhere, scenarios=[shorter])
    told = {one.name: (one.earlier, one.now) for one in differences(SAMPLES["whole"], before)}
    assert "service uptime_s" not in told
    assert told["cores"] == ("64", "2")
    assert told["commit"] == ("0b11d0e", "4f1c22a")
    assert told["setting users"] == ("10", "10,000")
    assert told["sustained: time"] == ("30 s", "5 min")
    text = markdown(SAMPLES["whole"], before)
    assert "Not in the earlier run: stress, sustained with redis-down." in text


# Figures


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (milliseconds(0), "0 ms"),
        (milliseconds(0.0421), "42.1 µs"),
        (milliseconds(4.209), "4.21 ms"),
        (milliseconds(999.9), "1 s"),
        (milliseconds(12_340), "12.3 s"),
        (percent(99.996), "99.996 %"),
        (percent(99.99999), "99.99999 %"),
        (percent(100), "100 %"),
        (percent(0.0123), "0.0123 %"),
        (memory(312_400_000), "312 MB"),
        (memory(1_230_000_000), "1.23 GB"),
        (number(1_234_567), "1,234,567"),
        (duration(90), "1 min 30 s"),
        (duration(7200), "2 h"),
        (duration(4.6), "4.6 s"),
        (ratio(0.5), f"0.5 {TIMES}"),
        (ratio(1.0004), f"1 {TIMES}"),
        (ratio(1.003), f"1.003 {TIMES}"),
    ],
)
def test_figures_have_units_and_few_digits(told: str, text: str) -> None:
    assert told == text


@pytest.mark.parametrize(
    ("value", "limit", "at_most", "text"),
    [
        (999.96, 1000.0, True, "0.99996 s"),
        (1000.4, 1000.0, True, "1.0004 s"),
        (1999.94, 2000.0, False, "1.9999 s"),
        (12.34567, 500.0, True, "12.3 ms"),
    ],
)
def test_a_measured_value_is_not_rounded_onto_its_bound(value: float, limit: float, at_most: bool, text: str) -> None:
    assert measured(Target("p95", "ms", limit, value, at_most, "met")) == text


def test_availability_just_below_its_bound_is_not_shown_as_reached() -> None:
    target = Target("availability", "%", 99.9, 99.8996, False, "missed")
    assert (measured(target), bound(target)) == ("99.8996 %", "≥ 99.9 %")
