"""API keys as text: how one is made, recognised and hashed. Nothing but its holder ever keeps the text."""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from typing import NamedTuple

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARS = 12
SECRET_CHARS = 27
"""160 random bits."""
CHECKSUM_CHARS = 6
LONGEST_BYTES = 128

_FORM = re.compile(rb"kyb_[a-z0-9]{1,16}_([0-9A-Za-z]{%d})[0-9A-Za-z]{%d}" % (ID_CHARS, SECRET_CHARS + CHECKSUM_CHARS))


class Minted(NamedTuple):
    """A key as it is shown once. id: what names it afterwards, 12 letters and digits."""

    text: str
    id: str


def mint(environment: str) -> Minted:
    """A new key, `kyb_<environment>_<id><secret><checksum>`: 71 random bits of id, 160 of secret, the CRC-32 of all.

    environment: 1 to 16 of a-z and 0-9; it tells people and secret scanners where a key belongs.
    """
    id = _random(ID_CHARS)
    body = f"kyb_{environment}_{id}{_random(SECRET_CHARS)}"
    text = body + _checksum(body.encode("ascii"))
    if recognise(text.encode("ascii")) != id:
        raise ValueError(f"{environment!r} is no name of an environment: it takes 1 to 16 of a-z and 0-9")
    return Minted(text, id)


def recognise(text: bytes) -> str | None:
    """The id of what has the form of a key and its checksum; None for anything else."""
    form = _FORM.fullmatch(text) if len(text) <= LONGEST_BYTES else None
    if form is None or not text.endswith(_checksum(text[:-CHECKSUM_CHARS]).encode("ascii")):
        return None
    return form[1].decode("ascii")


def digest(text: bytes, secret: bytes) -> bytes:
    """What is stored of a key: its HMAC-SHA256 under the service's secret, 32 bytes."""
    return hmac.digest(secret, text, "sha256")


def _random(chars: int) -> str:
    return "".join([secrets.choice(ALPHABET) for _ in range(chars)])


def _checksum(body: bytes) -> str:
    number = zlib.crc32(body)
    chars = []
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        chars.append(ALPHABET[digit])
    return "".join(reversed(chars))
