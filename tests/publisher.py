"""A publisher of lists on this machine, over HTTP or HTTPS, that answers just as a test says, faults included."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

HOST = "127.0.0.1"


class Request(NamedTuple):
    """path: with its query.  headers: names in small letters."""

    path: str
    headers: dict[str, str]


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class Publisher:
    """answers: by path; a list is taken one answer a request, the last one from then on.  asked: every request."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Request] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            request = Request(first.split(" ")[1], headers)
            self.asked.append(request)
            answer = self.answers[request.path]
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            await answer(request, writer)
            await writer.drain()


@contextlib.asynccontextmanager
async def publishing(tls: ssl.SSLContext | None = None) -> AsyncIterator[Publisher]:
    """A publisher that listens, with its connections ended at the end."""
    publisher = Publisher()
    open_now: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(publisher.serve(reader, writer))
        open_now.add(task)
        task.add_done_callback(open_now.discard)

    server = await asyncio.start_server(accept, HOST, 0, ssl=tls)
    publisher.url = f"{'https' if tls else 'http'}://{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield publisher
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


def say(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """An answer as it should be: with its length, and headers named with _ for -; None leaves one out."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Length": str(len(body)), "Content-Type": "text/csv", "Connection": "close"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        writer.write(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body)

    return answer


def conditional(body: bytes, etag: str) -> Answer:
    """The body, or 304 for who has this version."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        known = request.headers.get("if-none-match") == etag
        made = say(304, b"", ETag=etag) if known else say(200, body, ETag=etag)
        await made(request, writer)

    return answer


def endless(piece: bytes, head: str) -> Answer:
    """A body without end, after a head of one's own."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode())
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
    """The connection is cut without a word."""
    writer.transport.abort()


async def silence(request: Request, writer: asyncio.StreamWriter) -> None:
    """The connection stays, and nothing comes."""
    await asyncio.Event().wait()
