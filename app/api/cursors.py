"""Cursors of lists that are ordered by id: the last id of the page before, in URL-safe base64."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError

from app import wire
from app.errors import ParameterRefused

ID_BYTES = 16


def id_cursor(last: bytes) -> str:
    """The cursor of the page after this id."""
    return urlsafe_b64encode(last).rstrip(b"=").decode("ascii")


def id_position(cursor: str) -> bytes:
    """The id that a cursor stands for. Raises ParameterRefused."""
    try:
        last = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (BinasciiError, ValueError):
        last = b""
    if len(last) != ID_BYTES:
        raise ParameterRefused(
            [wire.Fault("/query/cursor", "expected the `next_cursor` of the page before, unchanged")]
        )
    return last
