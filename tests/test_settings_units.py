"""How durations, sizes and switches are written, read and shown."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import SettingsError, load
from app.settings.kinds import parse_duration, parse_size, show_duration, show_size
from app.settings.tree import KEYS


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1h", 3600.0),
            ("30s", 30.0),
            ("250ms", 0.25),
            ("1h30m", 5400.0),
            ("300", 300.0),
            ("1.5s", 1.5),
            ("0.5h", 1800.0),
        ],
    )
    def test_a_duration_is_seconds(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @given(st.integers(0, 10**12))
    def test_a_duration_survives_being_shown(self, milliseconds: int) -> None:
        seconds = milliseconds / 1000
        assert parse_duration(show_duration(seconds)) == seconds

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=6))
    def test_a_duration_is_the_sum_of_its_parts(self, parts: list[tuple[int, str]]) -> None:
        scale = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
        total = sum(number * scale[unit] for number, unit in parts) / 1000
        assert parse_duration("".join(f"{number}{unit}" for number, unit in parts)) == total

    @given(st.sampled_from([name for name, key in KEYS.items() if key.env]), st.text())
    def test_no_text_of_a_variable_breaks_loading(self, name: str, text: str) -> None:
        variable = KEYS[name].env
        assert variable is not None
        with suppress(SettingsError):
            load({variable: text})

    @given(st.integers(0, 10**14))
    def test_a_size_survives_being_shown(self, size_bytes: int) -> None:
        assert parse_size(show_size(size_bytes)) == size_bytes

    @pytest.mark.parametrize(("text", "size"), [("1KiB", 1024), ("8 MB", 8_000_000), ("512", 512), ("1GiB", 1 << 30)])
    def test_a_size_is_bytes(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["true", "True", "YES", "on", "1"])
    def test_true_is_written_in_four_ways(self, text: str) -> None:
        assert load({"ENABLE_PERFORMANCE_MONITORING": text}).settings.monitoring.enabled is True

    @pytest.mark.parametrize("text", ["false", "No", "OFF", "0"])
    def test_false_is_written_in_four_ways(self, text: str) -> None:
        assert load({"ENABLE_PERFORMANCE_MONITORING": text}).settings.monitoring.enabled is False
