"""PgBouncer's console: SHOW commands over the simple query protocol, which is all that it speaks.

Source: PostgreSQL's frontend/backend protocol 3.0, simple query; PgBouncer, admin console.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

_HEAD = struct.Struct("!cI")
_SHORT = struct.Struct("!H")
_LONG = struct.Struct("!i")

Row = dict[str, str | None]


class ConsoleFailed(Exception):
    """The console did not do it; the text holds its words."""


class Console(asyncio.Protocol):
    """Asks one question after the other.

    # Design: asyncpg logs in, whatever the console asks for (TLS, SCRAM, a password file), and its connection is then
    # taken over. It would itself only ask in the extended protocol, which the console refuses.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        # Held, since it cuts its connection when nobody holds it any more.
        self._opener = connection
        self._transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        self._transport.set_protocol(self)
        self._received = bytearray()
        self._rows: list[Row] = []
        self._names: list[str] = []
        self._failed: str | None = None
        self._answer: asyncio.Future[list[Row]] | None = None

    @classmethod
    async def opened(cls, url: str, within_s: float) -> Self:
        """url: of any database behind the pooler. Raises one of CONNECTING_FAILS."""
        console = urlunsplit(urlsplit(url)._replace(path="/pgbouncer"))
        return cls(await asyncpg.connect(console, timeout=within_s, statement_cache_size=0))

    async def show(self, what: str, within_s: float) -> list[Row]:
        """The rows of SHOW. Raises ConsoleFailed and TimeoutError."""
        if self._transport.is_closing():
            raise ConsoleFailed("it closed the connection")
        self._rows, self._names, self._failed = [], [], None
        self._answer = asyncio.get_running_loop().create_future()
        text = f"SHOW {what}".encode() + b"\0"
        self._transport.write(_HEAD.pack(b"Q", 4 + len(text)) + text)
        async with asyncio.timeout(within_s):
            return await self._answer

    def close(self) -> None:
        self._opener.terminate()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._received)
            if len(self._received) < 1 + length:
                return
            body = bytes(self._received[_HEAD.size : 1 + length])
            del self._received[: 1 + length]
            self._take(kind, body)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ConsoleFailed("it closed the connection"))

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"T":
            self._names = _names(body)
        elif kind == b"D":
            self._rows.append(dict(zip(self._names, _values(body), strict=False)))
        elif kind == b"E":
            self._failed = _message(body)
        elif kind == b"Z":
            self._end(None if self._failed is None else ConsoleFailed(self._failed))

    def _end(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(self._rows)
        else:
            answer.set_exception(error)


def _names(body: bytes) -> list[str]:
    """Of a RowDescription: each column is a name and 18 bytes about its type."""
    names, at = [], _SHORT.size
    for _ in range(_SHORT.unpack_from(body)[0]):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode("utf-8", "replace"))
        at = end + 19
    return names


def _values(body: bytes) -> list[str | None]:
    """Of a DataRow: each a length and as many bytes, -1 for NULL."""
    values: list[str | None] = []
    at = _SHORT.size
    for _ in range(_SHORT.unpack_from(body)[0]):
        (length,) = _LONG.unpack_from(body, at)
        at += _LONG.size
        values.append(None if length < 0 else body[at : at + length].decode("utf-8", "replace"))
        at += max(length, 0)
    return values


def _message(body: bytes) -> str:
    """The human-readable part of an ErrorResponse."""
    fields: dict[Any, bytes] = {part[:1]: part[1:] for part in body.split(b"\0") if part}
    return fields.get(b"M", b"it gave no reason").decode("utf-8", "replace")
