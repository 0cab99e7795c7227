"""Where a request comes from: the connection's other end, or what proxies that are trusted say of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from app.edge.request import Request

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOPS = 32
"""How many entries of a header are looked at."""
MAPPED = "::ffff:"
MAPPED_BITS = 96

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*")'
_PAIRS = re.compile(_PAIR)
# RFC 7239: what one proxy adds, such as `for="[2001:db8::1]:4711";proto=https`.
_ELEMENT = re.compile(rf"[ \t]*{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
_NODE = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\])(?::[0-9A-Za-z._-]+)?")
_BARE = re.compile(r"[0-9A-Fa-f:.]+")


class Addresses:
    """Callers' addresses.

    trusted: networks of the proxies, such as 10.0.0.0/8, whose word on where a request comes from is taken.

    # Design: only what a trusted proxy wrote itself can be believed, and that stands rightmost: a header is walked from
    # the right, for as long as the address that was come to is a trusted proxy's. An entry that is no address
    # (`unknown`, `_hidden`, anything broken) ends the walk at the proxy that wrote it.
    """

    __slots__ = ("_trusted",)

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(_plain(ip_network(text)) for text in trusted)

    def of(self, request: Request) -> str:
        """The caller's address; "" where even the connection's is unknown. IPv4 within IPv6 is told as IPv4.

        Taken from Forwarded, or else from X-Forwarded-For. Most proxies write one of them and hand the other on as a
        caller made it up, so where both stand there and disagree neither is believed, and it is the proxy's own.
        """
        peer = request.peer
        if not self._trusted and not peer.startswith(MAPPED):
            return peer
        here = _address(peer)
        if here is None:
            return peer
        if not self._trusts(here):
            return str(here)
        ends = set()
        if request.forwarded is not None:
            ends.add(self._walked(here, _of_forwarded(request.forwarded.decode("latin-1"))))
        if request.x_forwarded_for is not None:
            ends.add(self._walked(here, _of_list(request.x_forwarded_for.decode("latin-1"))))
        return str(ends.pop() if len(ends) == 1 else here)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _walked(self, here: Address, entries: Iterator[Address | None]) -> Address:
        """The first that is no trusted proxy's, or the last. entries: from the right, None for what is no address."""
        for address in entries:
            if address is None:
                break
            here = address
            if not self._trusts(here):
                break
        return here


def _of_forwarded(header: str) -> Iterator[Address | None]:
    """From the right, so that a quote which a caller left open on the left swallows nothing."""
    end = comma = len(header)
    for _ in range(HOPS):
        comma = header.rfind(",", 0, comma)
        element = _ELEMENT.fullmatch(header, comma + 1, end)
        if element is not None:
            yield _named(element[0])
            end = comma
        # Otherwise it may be a comma within quotes, and the element begins further left.
        if comma < 0:
            break


def _named(element: str) -> Address | None:
    """The address of an element's `for`."""
    names = [value for name, value in _PAIRS.findall(element) if name.lower() == "for"]
    if len(names) != 1:
        return None
    value = names[0]
    node = _NODE.fullmatch(_ESCAPED.sub(r"\1", value[1:-1]) if value[0] == '"' else value)
    return None if node is None else _address(node[1] or node[2])


def _of_list(header: str) -> Iterator[Address | None]:
    for entry in reversed(header.rsplit(",", HOPS - 1)):
        text = entry.strip(" \t")
        node = _NODE.fullmatch(text)
        yield _address(text if node is None else node[1] or node[2])


def _address(text: str) -> Address | None:
    """The address that a text is, without a zone; IPv4 where it is IPv4 within IPv6."""
    if not _BARE.fullmatch(text):
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _plain(network: Network) -> Network:
    """The network, of IPv4 where it is one of IPv4 within IPv6."""
    inner = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if inner is None or network.prefixlen < MAPPED_BITS:
        return network
    return IPv4Network((inner, network.prefixlen - MAPPED_BITS))
