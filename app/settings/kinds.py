"""Kinds of setting: how the text of one is read, how its value is shown, and what would be right."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

Number = TypeVar("Number", int, float, Decimal)

_DURATION_UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SIZE_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(h|ms|m|s)")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_SHARE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,6})?")
_SIZE = re.compile(rf"([0-9]{{1,15}}) ?({'|'.join(_SIZE_UNITS)})?")
_MODEL_ID = re.compile(r"[a-z][a-z0-9_-]{0,63}@[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}")
_ORIGIN = re.compile(r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENVIRONMENT = re.compile(r"[a-z0-9]{1,16}")
SECRET_CHARS = 32
_SECRET_PARAMETER = re.compile(r"([?&][\w.]*pass[\w.]*=)[^&#]*", re.IGNORECASE)


class Malformed(ValueError):
    """A text that a kind does not take; the message says what is wrong with it."""


@dataclass(frozen=True)
class Kind:
    """`parse` reads a text or raises Malformed, `show` writes a value so that `parse` reads it again, `right` says
    what is accepted. A secret is shown as what `parse` refuses, so that nothing shown is ever taken for one."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    right: str


def quoted(text: str, limit: int = 60) -> str:
    """A value as messages show it: quoted, printable, at most `limit` characters of it."""
    printable = "".join(character if character.isprintable() else "?" for character in text[:limit])
    return f'"{printable}{"..." if len(text) > limit else ""}"'


def whole(low: int, high: int) -> Kind:
    """An integer from `low` to `high`."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise Malformed(f"{quoted(text)} is not a whole number")
        return _within(int(text), low, high, text)

    return Kind(parse, str, f"a whole number from {low} to {high}")


def duration(low: str, high: str) -> Kind:
    """Seconds as a float, exact to the millisecond, from `low` to `high`."""
    low_s, high_s = parse_duration(low), parse_duration(high)

    def parse(text: str) -> float:
        return _within(parse_duration(text), low_s, high_s, text)

    return Kind(
        parse, show_duration, f"a duration from {low} to {high} such as 250ms, 30s or 1h30m, or a number of seconds"
    )


def size(low: str, high: str) -> Kind:
    """Bytes as an integer, from `low` to `high`."""
    low_bytes, high_bytes = parse_size(low), parse_size(high)

    def parse(text: str) -> int:
        return _within(parse_size(text), low_bytes, high_bytes, text)

    return Kind(parse, show_size, f"a size from {low} to {high} such as 64KiB, 8MiB or a number of bytes")


def share() -> Kind:
    """A part of the whole as a float from 0 to 1, exact to a millionth."""

    def parse(text: str) -> float:
        number, percent, rest = text.partition("%")
        if rest or not _SHARE.fullmatch(number.strip()):
            raise Malformed(f"{quoted(text)} is not a share")
        value = Decimal(number.strip()) / (100 if percent else 1)
        return float(_within(round(value, 6), Decimal(0), Decimal(1), text))

    return Kind(parse, show_share, "a share from 0 to 1 such as 0.01, or in percent such as 1%")


def choice(*names: str) -> Kind:
    """One of the names, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in names:
            raise Malformed(f"{quoted(text)} is not known")
        return text.lower()

    return Kind(parse, str, f"one of {', '.join(names)}")


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`, `250ms` or a plain number of seconds. Raises Malformed."""
    if _SECONDS.fullmatch(text):
        milliseconds = Decimal(text) * 1000
    else:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise Malformed(f"{quoted(text)} is not a duration")
        milliseconds = sum((Decimal(number) * _DURATION_UNITS_MS[unit] for number, unit in parts), Decimal(0))
    if milliseconds != int(milliseconds):
        raise Malformed(f"{quoted(text)} is finer than a millisecond")
    return int(milliseconds) / 1000


def show_duration(seconds: float) -> str:
    """`1h30m` for 5400.0: the text that reads as the same duration."""
    rest = round(seconds * 1000)
    parts = []
    for unit, milliseconds in _DURATION_UNITS_MS.items():
        count, rest = divmod(rest, milliseconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def show_share(value: float) -> str:
    """`1%` for 0.01: the text that reads as the same share."""
    return f"{value * 100:.7g}%"


def parse_size(text: str) -> int:
    """Bytes of `64KiB`, `8 MB` or a plain number of bytes. Raises Malformed."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise Malformed(f"{quoted(text)} is not a size")
    return int(match[1]) * _SIZE_UNITS[match[2] or "B"]


def show_size(size_bytes: int) -> str:
    """`8MiB` for 8388608: the largest binary unit that divides the size."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size_bytes % _SIZE_UNITS[unit] == 0 or unit == "B")
    return f"{size_bytes // _SIZE_UNITS[unit]}{unit}" if size_bytes else "0B"


def mask_url(url: str) -> str:
    """The URL with its password, wherever it stands, written as ***."""
    url = _SECRET_PARAMETER.sub(r"\1***", url)
    scheme, separator, rest = url.partition("://")
    user_info, at, place = rest.rpartition("@")
    user, colon, _ = user_info.partition(":")
    return f"{scheme}{separator}{user}{colon and ':***'}{at}{place}"


def is_loopback(host: str) -> bool:
    """Whether a socket bound to this host is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _within(value: Number, low: Number, high: Number, text: str) -> Number:
    if not low <= value <= high:
        raise Malformed(f"{quoted(text)} is out of range")
    return value


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise Malformed(f"{quoted(text)} is neither true nor false")
    return _FLAGS[text.lower()]


def _host(text: str) -> str:
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Malformed(f"{quoted(text)} is not an IP address") from None


def _path(text: str) -> Path:
    if not text.isprintable():
        raise Malformed(f"{quoted(text)} holds a control character")
    return Path(text)


def _model_id(text: str) -> str:
    if not _MODEL_ID.fullmatch(text):
        raise Malformed(f"{quoted(text)} does not name a model and its version")
    return text


def _networks(text: str) -> tuple[str, ...]:
    return tuple(_network(part.strip()) for part in text.split(","))


def _network(text: str) -> str:
    # Addresses are compared without their zone, so one that is given would not narrow the network as it promises to.
    if "%" in text:
        raise Malformed(f"{quoted(text)} has a zone")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        bits = ": it has bits set behind its prefix" if "host bits" in str(error) else ""
        raise Malformed(f"{quoted(text)} is no network or address{bits}") from None


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part.strip().lower()) for part in text.split(","))


def _origin(text: str) -> str:
    """The origin as browsers send it: without the port that its scheme has anyway."""
    match = _ORIGIN.fullmatch(text)
    if match is None or (match[3] and not 1 <= int(match[3]) <= 65535):
        raise Malformed(f"{quoted(text)} is no origin")
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port is None or int(port) == _PORTS[scheme] else f"{scheme}://{host}:{int(port)}"


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or len(text) < SECRET_CHARS:
        raise Malformed(f"it must have {SECRET_CHARS} printable ASCII characters or more")
    return text


def _environment(text: str) -> str:
    if not _ENVIRONMENT.fullmatch(text):
        raise Malformed(f"{quoted(text)} is no name of an environment")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Malformed(f"{quoted(text)} is no name")
    return text


FLAG = Kind(_flag, lambda value: "true" if value else "false", "true or false (also yes/no, on/off, 1/0)")
HOST = Kind(_host, str, "an IP address without brackets such as 127.0.0.1, 0.0.0.0 or ::1, or localhost")
PATH = Kind(_path, str, "a path")
MODEL_ID = Kind(_model_id, str, "name@version such as kyb@1.0.0")
NETWORKS = Kind(_networks, ", ".join, "networks or addresses with commas between, such as 10.0.0.0/8, 192.0.2.7")
ORIGINS = Kind(_origins, ", ".join, "origins with commas between, such as https://app.example.com, without a path or *")
SECRET = Kind(_secret, lambda value: "***", "32 characters or more, such as the output of openssl rand -hex 32")
NAME = Kind(_name, str, "up to 32 of a-z, 0-9, - and _, a letter first")
ENVIRONMENT = Kind(_environment, str, "1 to 16 of a-z and 0-9 such as live")
