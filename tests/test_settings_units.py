"""How durations, sizes, switches, rates, networks and origins are written, read and shown."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.settings import SettingsError, load
from app.settings.kinds import (
    NETWORKS,
    ORIGINS,
    Malformed,
    parse_duration,
    parse_size,
    share,
    show_duration,
    show_share,
    show_size,
)
from app.settings.rates import TIERS, UNLIMITED, Rate, parse_rate, show_rate
from app.settings.tree import KEYS
from app.settings.urls import COLLECTOR_URL

UNITS_S = {"s": 1, "min": 60, "h": 3600}
WHOLE = st.integers(0, 9_999_999_999)
THOUSANDTHS = st.one_of(st.integers(1, 10_000), WHOLE, WHOLE.map(lambda number: number // 1000 * 1000))
BURSTS = st.one_of(st.just(""), st.integers(1, 1_000_000).map(lambda burst: f" burst {burst}"))


@st.composite
def rates(draw: st.DrawFn) -> str:
    """The text of a rate."""
    number = Decimal(draw(THOUSANDTHS)) / 1000
    digits = draw(st.sampled_from([f"{number:f}", f"{number:.3f}"]))
    unit = draw(st.sampled_from(list(UNITS_S)))
    assume(0 < number / UNITS_S[unit] <= 1_000_000)
    return f"{digits}/{unit}{draw(BURSTS)}"


class TestShares:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("100%", 1.0), ("1", 1.0), ("0.05 %", 0.0005), ("12.5%", 0.125)],
    )
    def test_a_share_is_a_number_or_a_percentage(self, text: str, value: float) -> None:
        assert share().parse(text) == value

    @pytest.mark.parametrize("text", ["1.01", "101%", "-1%", "%", "1%%", "1% of all", "0,5", "nan", "1e-3"])
    def test_what_is_no_share(self, text: str) -> None:
        with pytest.raises(Malformed):
            share().parse(text)

    @given(st.integers(0, 1_000_000))
    def test_what_is_shown_is_read_again(self, millionths: int) -> None:
        assert share().parse(show_share(millionths / 1_000_000)) == millionths / 1_000_000


class TestCollectors:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://[::1]:4318/my/traces", "https://[::1]:4318/my/traces"),
        ],
    )
    def test_traces_have_a_path_of_their_own(self, text: str, url: str) -> None:
        assert COLLECTOR_URL.parse(text) == url
        assert COLLECTOR_URL.parse(COLLECTOR_URL.show(url)) == url

    @pytest.mark.parametrize(
        "text",
        [
            "localhost:4318",
            "grpc://a:1",
            "http://",
            "http://u:p@a",
            "http://a?x=1",
            "http://a#b",
            "http://a:0",
            "http://a:x",
        ],
    )
    def test_what_is_no_collector(self, text: str) -> None:
        with pytest.raises(Malformed) as refused:
            COLLECTOR_URL.parse(text)
        assert "p@" not in str(refused.value)


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


class TestRates:
    @pytest.mark.parametrize(
        ("text", "rate"),
        [
            ("100/s burst 200", Rate(100.0, 200)),
            ("30/min", Rate(0.5, 1)),
            ("2.5/s", Rate(2.5, 3)),
            ("0.001/h", Rate(1 / 3_600_000, 1)),
            ("1000000/s", Rate(1_000_000.0, 1_000_000)),
            ("  5/s \t burst   7 ", Rate(5.0, 7)),
            ("unlimited", None),
        ],
    )
    def test_a_rate_is_requests_a_second_and_a_burst(self, text: str, rate: Rate | None) -> None:
        assert parse_rate(text) == rate

    @given(rates())
    @example("0.001/h")
    @example("0.001/s burst 1000000")
    @example("3600000.001/h")
    @example("9999999.999/h burst 1")
    @example("0.3/min")
    def test_a_rate_survives_being_shown(self, text: str) -> None:
        rate = parse_rate(text)
        assert parse_rate(show_rate(rate)) == rate

    @given(rates())
    def test_a_rate_is_the_nearest_number_to_what_is_written(self, text: str) -> None:
        rate = parse_rate(text)
        assert rate is not None
        number, _, unit = text.partition(" ")[0].partition("/")
        assert rate.per_s == float(Fraction(number) / UNITS_S[unit])
        assert "burst" in text or rate.burst - 1 < rate.per_s <= rate.burst or (rate.burst == 1 and rate.per_s < 1)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("60/min burst 30", "1/s burst 30"),
            ("0.5/min", "0.5/min burst 1"),
            ("10/h burst 10", "10/h burst 10"),
            ("100.500/s burst 1", "100.5/s burst 1"),
            ("1000000/s", "1000000/s burst 1000000"),
            ("unlimited", "unlimited"),
        ],
    )
    def test_a_rate_is_shown_in_the_shortest_unit_that_gives_it(self, text: str, shown: str) -> None:
        assert show_rate(parse_rate(text)) == shown

    @pytest.mark.parametrize("per_s", [0.0, 1e-9, 1 / 7, -1.0])
    def test_a_rate_that_no_text_gives_cannot_be_shown(self, per_s: float) -> None:
        with pytest.raises(ValueError, match="no text gives"):
            show_rate(Rate(per_s, 1))

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
            rates() | st.just(UNLIMITED),
            min_size=1,
            max_size=5,
        )
    )
    def test_tiers_survive_being_shown(self, written: dict[str, str]) -> None:
        tiers = TIERS.parse(",".join(f" {name}  {rate}" for name, rate in written.items()))
        assert list(tiers.items()) == [(name, parse_rate(rate)) for name, rate in written.items()]
        assert TIERS.parse(TIERS.show(tiers)) == tiers

    def test_tiers_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            TIERS.parse("standard 5/s")["standard"] = None

    @given(st.text(st.characters(max_codepoint=127) | st.sampled_from("٣³½")))
    def test_any_other_text_is_refused_and_nothing_else_happens(self, text: str) -> None:
        for parse in (parse_rate, TIERS.parse, NETWORKS.parse, ORIGINS.parse):
            with suppress(Malformed):
                parse(text)


class TestNetworksAndOrigins:
    @given(st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), min_size=1, max_size=5))
    def test_networks_survive_being_shown(self, given: list[tuple[IPv4Address | IPv6Address, int]]) -> None:
        written = [
            str(ip_network((address, min(bits, address.max_prefixlen)), strict=False)) for address, bits in given
        ]
        networks = NETWORKS.parse(" ,".join(written))
        assert networks == tuple(written)
        assert NETWORKS.parse(NETWORKS.show(networks)) == networks

    @pytest.mark.parametrize(
        ("text", "network"),
        [("192.0.2.7", "192.0.2.7/32"), ("2001:DB8:0:0::1", "2001:db8::1/128"), ("10.0.0.0/255.0.0.0", "10.0.0.0/8")],
    )
    def test_a_network_is_shown_in_one_way(self, text: str, network: str) -> None:
        assert NETWORKS.parse(text) == (network,)

    @pytest.mark.parametrize(
        ("text", "origin"),
        [
            ("HTTPS://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("http://localhost:03000", "http://localhost:3000"),
            ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ],
    )
    def test_an_origin_is_as_browsers_send_it(self, text: str, origin: str) -> None:
        assert ORIGINS.parse(text) == (origin,)
        assert ORIGINS.parse(ORIGINS.show((origin, "http://b.example"))) == (origin, "http://b.example")
