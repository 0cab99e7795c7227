"""Whose request it is, as far as those say it who can be believed."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.addresses import HOPS, Addresses
from app.edge.request import Request

PROXY, INNER_PROXY, CALLER, OTHER = "10.0.0.1", "10.0.0.2", "198.51.100.7", "203.0.113.9"
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")


def request(peer: str | None = PROXY, *headers: tuple[bytes, bytes]) -> Request:
    """A request from a peer, its head read."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"kyb"), *headers],
        "client": None if peer is None else (peer, "50000"),
    }
    asked = Request(scope, asyncio.Future)  # type: ignore[arg-type]
    asked.read_head()
    return asked


def listed(*entries: str) -> tuple[bytes, bytes]:
    return b"x-forwarded-for", ", ".join(entries).encode("latin-1")


def forwarded(*elements: str) -> tuple[bytes, bytes]:
    return b"forwarded", ", ".join(elements).encode("latin-1")


def told(*headers: tuple[bytes, bytes], peer: str | None = PROXY, trusted: tuple[str, ...] = TRUSTED) -> str:
    return Addresses(trusted).of(request(peer, *headers))


def test_where_nothing_is_trusted_it_is_the_peer_whatever_headers_say() -> None:
    assert told(listed(CALLER), forwarded(f"for={CALLER}"), trusted=()) == PROXY
    assert told(listed(CALLER), trusted=(), peer=None) == ""
    assert told(trusted=(), peer="::ffff:198.51.100.7") == CALLER


@pytest.mark.parametrize("peer", [OTHER, "2001:db8:2::1", "::ffff:203.0.113.9", "11.0.0.1", None, "", "unix:"])
def test_one_who_is_no_proxy_is_not_believed(peer: str | None) -> None:
    own = (peer or "").removeprefix("::ffff:")
    assert told(listed(CALLER), forwarded(f"for={CALLER}"), peer=peer) == own


@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.0.0.1", "2001:db8:1::1"])
@pytest.mark.parametrize("header", [listed(CALLER), forwarded(f"for={CALLER}")], ids=["list", "forwarded"])
def test_a_proxy_is_believed(peer: str, header: tuple[bytes, bytes]) -> None:
    assert told(header, peer=peer) == CALLER


@pytest.mark.parametrize("trusted", ["10.0.0.1/32", "10.0.0.1", "::ffff:10.0.0.0/104", "0.0.0.0/0", "::ffff:0:0/96"])
def test_a_network_may_be_one_address_or_all_and_ipv4_within_ipv6(trusted: str) -> None:
    assert told(listed("2001:db8:2::7"), trusted=(trusted,)) == "2001:db8:2::7"


def test_a_proxy_that_says_nothing_is_the_caller_itself() -> None:
    assert told() == PROXY
    assert told(peer="::ffff:10.0.0.1") == PROXY
    assert told(peer="2001:0DB8:0001::0001") == "2001:db8:1::1"


# A caller can send either header with whatever it likes in it; proxies put what they know to the right of that.
@pytest.mark.parametrize(
    "made_up",
    [
        OTHER, f"{OTHER}, {OTHER}", "10.0.0.9", "127.0.0.1", "unknown", "", ",", ", ,", '"', '"open', 'for="', "\\",
        "a" * 5000, "1.2.3.4:5", "[", "::", ";", f"for={OTHER}", f'for="{OTHER}', 'for="\\', 'a="b, for=9.9.9.9',
        f'for={OTHER};host="', f'for={OTHER};host="\\', "=", "for=", "for=_x", ",".join(["10.0.0.9"] * 2000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["list", "forwarded"])
@pytest.mark.parametrize("apart", [True, False], ids=["header apart", "same header"])
def test_what_a_caller_makes_up_does_not_change_its_address(made_up: str, way: str, apart: bool) -> None:
    name, own = (b"x-forwarded-for", CALLER) if way == "list" else (b"forwarded", f"for={CALLER};proto=https")
    first, second = made_up.encode(), own.encode()
    headers = [(name, first), (name, second)] if apart else [(name, first + b", " + second)]
    assert told(*headers) == CALLER


def test_a_header_that_only_the_caller_wrote_gets_it_no_other_address() -> None:
    """A proxy that writes one of the two hands the other on as it came."""
    assert told(forwarded(f"for={OTHER}"), listed(CALLER)) == PROXY
    assert told(forwarded(f"for={CALLER}"), listed(OTHER)) == PROXY
    assert told(forwarded("for=unknown"), listed(CALLER)) == PROXY
    assert told(forwarded(f"for={CALLER}"), listed(OTHER, CALLER)) == CALLER


@pytest.mark.parametrize("way", ["list", "forwarded"])
def test_trusted_proxies_are_passed_by_up_to_the_first_who_is_not(way: str) -> None:
    def header(*hops: str) -> tuple[bytes, bytes]:
        if way == "list":
            return listed(*hops)
        return forwarded(*(f'for="[{hop}]"' if ":" in hop else f"for={hop}" for hop in hops))

    assert told(header(OTHER, CALLER, INNER_PROXY, "2001:db8:1::5")) == CALLER
    assert told(header(CALLER, INNER_PROXY)) == CALLER
    assert told(header("10.0.0.77", INNER_PROXY)) == "10.0.0.77"
    assert told(header(*[INNER_PROXY] * HOPS)) == INNER_PROXY
    assert told(header(CALLER, *[INNER_PROXY] * (HOPS - 1))) == CALLER
    assert told(header(CALLER, *[INNER_PROXY] * HOPS)) == INNER_PROXY


@pytest.mark.parametrize(
    "broken",
    [
        "unknown", "_hidden", "", " ", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1.1", "1.2.3.4/8", "host.example",
        "fe80::1%eth0", "[2001:db8::1", "2001:db8::1]", "[10.0.0.1]", "1.2.3.4:", "1.2.3.4:5:6", "::ffff:1.2.3.4.5",
        "\xb9.2.3.4", "1.2.3.4 5.6.7.8", "0x7f.1", "2130706433", '"1.2.3.4"',
    ],
)  # fmt: skip
def test_an_entry_that_is_no_address_ends_the_walk_at_the_proxy_that_wrote_it(broken: str) -> None:
    assert told(listed(CALLER, broken)) == PROXY
    assert told(listed(CALLER, broken, INNER_PROXY)) == INNER_PROXY
    assert told(listed(broken, CALLER, INNER_PROXY)) == CALLER


@pytest.mark.parametrize(
    "broken",
    [
        "", "for", "for=", "for=unknown", "for=_hidden", 'for="_hidden:80"', f"for={OTHER}:80", "for=2001:db8::7",
        "for=[2001:db8::7]", 'for="2001:db8::7"', 'for="[fe80::1%25eth0]"', f'for="{OTHER}', f'for={OTHER}"', OTHER,
        f"for={OTHER};for={OTHER}", f"for={OTHER};", f";for={OTHER}", f"for ={OTHER}", f"for= {OTHER}", 'for=""',
        f"for={OTHER} x", f"forx={OTHER}", f"x-for={OTHER}", f'for="\\{OTHER}\\"', f'by="for={OTHER}"', "proto=https",
        f"for='{OTHER}'", 'for="[10.0.0.1]"',
    ],
)  # fmt: skip
def test_an_element_without_an_address_ends_the_walk_too(broken: str) -> None:
    assert told(forwarded(f"for={CALLER}", broken)) == PROXY
    assert told(forwarded(f"for={CALLER}", broken, f"for={INNER_PROXY}")) == INNER_PROXY
    assert told(forwarded(broken, f"for={CALLER}", f"for={INNER_PROXY}")) == CALLER


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        (CALLER, CALLER),
        (f"{CALLER}:4711", CALLER),
        ("2001:db8:2::7", "2001:db8:2::7"),
        ("2001:0DB8:2:0::7", "2001:db8:2::7"),
        ("[2001:db8:2::7]", "2001:db8:2::7"),
        ("[2001:db8:2::7]:4711", "2001:db8:2::7"),
        (f"::ffff:{CALLER}", CALLER),
        (f"  {CALLER}\t ", CALLER),
    ],
)
def test_spellings_of_a_list_entry(entry: str, address: str) -> None:
    assert told(listed(OTHER, entry)) == address


@pytest.mark.parametrize(
    ("element", "address"),
    [
        (f"for={CALLER}", CALLER),
        (f"For={CALLER};Proto=https", CALLER),
        (f"proto=https;for={CALLER};by=_proxy", CALLER),
        (f"proto=https ; for={CALLER}", CALLER),
        (f'for="{CALLER}"', CALLER),
        (f'for="{CALLER}:4711"', CALLER),
        (f'for="{CALLER}:_port"', CALLER),
        ('for="[2001:db8:2::7]"', "2001:db8:2::7"),
        ('for="[2001:db8:2::7]:4711"', "2001:db8:2::7"),
        (f'for="[::ffff:{CALLER}]"', CALLER),
        (f'for="\\{CALLER}"', CALLER),
        (f'for={CALLER};host="a, for={OTHER}"', CALLER),
        (f'for={CALLER};host="a\\", for={OTHER};x=\\"b"', CALLER),
        (f'for={CALLER};host=""', CALLER),
    ],
)
def test_spellings_of_a_forwarded_element(element: str, address: str) -> None:
    assert told(forwarded(f"for={OTHER}", element)) == address


def test_a_proxy_without_a_port_that_is_not_trusted_is_not_walked_past() -> None:
    assert told(listed(OTHER, CALLER, INNER_PROXY), peer=PROXY, trusted=(PROXY,)) == INNER_PROXY


nodes = st.sampled_from([PROXY, INNER_PROXY, CALLER, OTHER, "2001:db8:1::5", "2001:db8:2::7", "::ffff:10.0.0.3", None])
junk = st.sampled_from(["unknown", "_x", "", "1.2.3", "a b", "for", "::g"])


def oracle(peer: str, hops: list[str | None]) -> str:
    """Of the addresses on the way, caller first, those behind the last that is none; of them the last untrusted."""
    way = [*hops, peer]
    if None in way:
        way = way[len(way) - way[::-1].index(None) :]
    plain = [getattr(ip_address(hop or ""), "ipv4_mapped", None) or ip_address(hop or "") for hop in way]
    strangers = [hop for hop in plain if not any(hop in ip_network(network) for network in TRUSTED)]
    return str(strangers[-1] if strangers else plain[0])


@given(nodes.filter(bool), st.lists(nodes, min_size=1, max_size=6), st.data())
def test_whatever_came_on_the_way_the_address_is_the_oracles(
    peer: str, hops: list[str | None], data: st.DataObject
) -> None:
    def element(hop: str | None) -> str:
        more = data.draw(st.sampled_from(["", ";proto=https", ';host="a,b"']))
        return (
            f"for={data.draw(junk)}{more}"
            if hop is None
            else f'for="[{hop}]"{more}'
            if ":" in hop
            else f"for={hop}{more}"
        )

    in_list = listed(*(data.draw(junk) if hop is None else hop for hop in hops))
    in_elements = forwarded(*map(element, hops))
    expected = oracle(peer, hops)
    assert told(in_list, peer=peer) == expected
    assert told(in_elements, peer=peer) == expected
    assert told(in_list, in_elements, peer=peer) == expected


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60))
def test_whatever_a_caller_writes_before_it_the_proxy_is_heard(made_up: str) -> None:
    assert told(listed(made_up, CALLER)) == CALLER
    assert told(forwarded(made_up, f'for="{CALLER}"')) == CALLER
    for header in (listed(made_up), forwarded(made_up)):
        assert ip_address(told(header))
