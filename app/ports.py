"""Who holds a TCP port of this machine, and how many are connected to it. Source: proc(5), Linux alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

ESTABLISHED, LISTENING = "01", "0A"


class _Socket(NamedTuple):
    address: IPv4Address | IPv6Address
    state: str
    name: str


def listens(pid: int, port: int) -> bool:
    """Whether a process holds a socket that listens on a port. False too where that may not be seen."""
    return _holds(pid, {one.name for one in _sockets(port) if one.state == LISTENING})


def listeners(address: str, port: int) -> list[int]:
    """The processes that hold a socket which listens on this address and port, as far as this user may see that."""
    here = ip_address(address)
    names = {one.name for one in _sockets(port) if one.state == LISTENING and one.address == here}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if _holds(pid, names)]


def connected(port: int) -> int:
    """How many connections to a port are open, on its side."""
    return sum(one.state == ESTABLISHED for one in _sockets(port))


def _sockets(port: int) -> Iterator[_Socket]:
    """Those with this local port."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if int(number, 16) == port:
                    yield _Socket(_address(address), fields[3], f"socket:[{fields[9]}]")


def _address(words: str) -> IPv4Address | IPv6Address:
    """Of its 32-bit words in hexadecimal, each as the machine holds it."""
    whole = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return IPv4Address(whole) if len(whole) == 4 else IPv6Address(whole)


def _holds(pid: int, sockets: set[str]) -> bool:
    held = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                held.add(os.readlink(entry.path))
    return bool(sockets & held)
