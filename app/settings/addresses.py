"""Where watchlists are fetched from, as settings write it: `ofac-sdn https://mirror.example/SDN.CSV https://...`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from app.settings.kinds import Kind, Malformed, is_loopback, quoted

_LIST = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def _parse(text: str) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        name, *urls = part.split()
        if not _LIST.fullmatch(name):
            raise Malformed(f"{quoted(name)} is no name of a list")
        if name in found:
            raise Malformed(f"the list {name} stands there twice")
        if not urls:
            raise Malformed(f"the list {name} has no address")
        found[name] = tuple([_address(url) for url in urls])
    return MappingProxyType(found)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or (parts.scheme == "http" and not is_loopback(host)):
        raise Malformed(f"{quoted(url)} is no https address")
    return url


def _show(addresses: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(" ".join((name, *urls)) for name, urls in addresses.items())


ADDRESSES = Kind(_parse, _show, "lists with their https addresses, such as ofac-sdn https://mirror.example/SDN.CSV")
