"""PostgreSQL over TLS for the tests: the packaged server has none, so it is put in front."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import trustme
from proxy import HOST

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""What a client of PostgreSQL that wants TLS says first."""
CHUNK_BYTES = 1 << 16


class Encrypted:
    """Takes connections as a PostgreSQL that has a certificate for `localhost`, and those alone that want TLS.

    `with` starts it; `port` is where. connections: how many were taken.
    """

    def __init__(self, upstream_port: int, authority: trustme.CA) -> None:
        self.port = 0
        self.connections = 0
        self._upstream_port = upstream_port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._context)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="encrypted")
        self._started = threading.Event()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._ended.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                self.connections += 1
                upstream_reader, upstream_writer = await asyncio.open_connection(HOST, self._upstream_port)
                await asyncio.wait(
                    [
                        asyncio.ensure_future(_carry(reader, upstream_writer)),
                        asyncio.ensure_future(_carry(upstream_reader, writer)),
                    ]
                )
        writer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From one to the other, until either ends."""
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
