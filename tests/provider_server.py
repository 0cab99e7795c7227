"""A provider of evidence on a real socket that answers as it is told, and all that can be wrong with an answer."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import wire
from app.evidence.providers.collection import Providers
from app.evidence.providers.guarded import Guarded
from app.neighbours import Tiers, make_providers
from app.settings import load

GOOD = {"company": {"cases": 2, "staff": 57, "state": "LIVE", "since": "2009-05-01", "site": True}, "version": "7"}

PROVIDER = """\
  {name}:
    kind: http_json
    url: {url}/companies/{{business.registration_number}}
    timeout: {timeout}
    ttl: 1h
    version: /version
    absent_status: 404
    facts:
      litigation_count: /company/cases
      employees: /company/staff
      incorporated_on: /company/since
      website_verified: /company/site
      business_status: {{pointer: /company/state, values: {{LIVE: active, GONE: dissolved}}}}
"""


@dataclass
class Exchange:
    """One request and the means to answer it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    server: FakeProvider

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        self.server.sent_bytes += len(data)
        await self.writer.drain()

    async def answer(self, body: bytes | object, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"HTTP/1.1 {status} Told\r\n{head}\r\n".encode() + content)

    async def head(self, *lines: str) -> None:
        await self.send("\r\n".join(("HTTP/1.1 200 OK", "Content-Type: application/json", *lines, "", "")).encode())

    def reset(self) -> None:
        """End the connection as a crash does."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def good(exchange: Exchange) -> None:
    await exchange.answer(GOOD)


@dataclass
class FakeProvider:
    """Answers every request by `behaviour`. connections, requests: those that came.  port: 0 for any that is free."""

    behaviour: Behaviour = good
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Exchange] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    busy: int = 0
    busiest: int = 0
    sent_bytes: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> FakeProvider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                exchange = await self._read(reader, writer)
                self.requests.append(exchange)
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
                try:
                    await self.behaviour(exchange)
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields if f)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = line.split(" ")
        return Exchange(method, target, headers, body, writer, self)


# ---------------------------------------------------------------- what can be wrong


def status(code: int) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.answer({"error": "no"}, code)

    return behave


def raw(data: bytes) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return behave


def body(content: bytes | object, **headers: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.answer(content, **headers)

    return behave


def told(text: str) -> Behaviour:
    """The good answer with one piece of another kind in it."""
    return body(f'{{"company": {{"cases": {text}}}, "version": "7"}}'.encode())


def company(**fields: object) -> Behaviour:
    return body({"company": {**GOOD["company"], **fields}})  # type: ignore[dict-item]


async def for_ever(exchange: Exchange, piece: bytes, limit: int) -> None:
    while exchange.server.sent_bytes < limit:
        await exchange.send(piece)
        # Where what is written is dropped since the other side is gone, nothing else lets the loop find that out.
        await asyncio.sleep(0)


async def announced_gigabyte(exchange: Exchange) -> None:
    await exchange.head("Content-Length: 1000000000")
    await for_ever(exchange, b" " * 65536, 1_000_000_000)


async def streamed_gigabyte(exchange: Exchange) -> None:
    await exchange.head("Connection: close")
    await for_ever(exchange, b" " * 65536, 1_000_000_000)


async def endless_chunks(exchange: Exchange) -> None:
    await exchange.head("Transfer-Encoding: chunked")
    await for_ever(exchange, b"1000\r\n" + b" " * 4096 + b"\r\n", 1_000_000_000)


async def endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    await for_ever(exchange, b"X-More: " + b"x" * 4096 + b"\r\n", 1_000_000_000)


async def endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    await for_ever(exchange, b"x" * 65536, 1_000_000_000)


async def silence(exchange: Exchange) -> None:
    await asyncio.Event().wait()


async def deafness(exchange: Exchange) -> None:
    """Silence that does not even hear that the caller has gone."""
    exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await silence(exchange)


async def slow_head(exchange: Exchange) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n":
        await exchange.send(bytes((byte,)))
        await asyncio.sleep(0.05)
    await silence(exchange)


async def slow_body(exchange: Exchange) -> None:
    await exchange.head("Content-Length: 1000")
    while True:
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def reset_in_the_body(exchange: Exchange) -> None:
    await exchange.head("Content-Length: 1000")
    await exchange.send(b'{"company": ')
    exchange.reset()


async def closed(exchange: Exchange) -> None:
    exchange.writer.close()


async def closed_in_the_body(exchange: Exchange) -> None:
    await exchange.head("Content-Length: 1000")
    await exchange.send(b'{"company": ')
    exchange.writer.close()


async def closed_in_the_chunks(exchange: Exchange) -> None:
    await exchange.head("Transfer-Encoding: chunked")
    await exchange.send(b"5\r\n{    \r\n")
    exchange.writer.close()


async def nothing_at_all(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")


BOMB = gzip.compress(b" " * 50_000_000)

FAULTS: dict[str, tuple[Behaviour, wire.EvidenceStatus]] = {
    **{f"status {code}": (status(code), "unavailable") for code in (400, 401, 403, 410, 422, 429, 500, 502, 503, 504)},
    **{f"status {code}": (status(code), "invalid") for code in (201, 206, 300, 304)},
    "status 204": (nothing_at_all, "invalid"),
    "no HTTP": (raw(b"\x00\xff\x13garbage\r\n\r\n"), "invalid"),
    "HTTP of another kind": (raw(b"HTTP/1.1 two hundred\r\n\r\n"), "invalid"),
    "no JSON": (body(b"\x00\xff garbage"), "invalid"),
    "no body": (body(b""), "invalid"),
    "JSON that ends early": (body(b'{"company": {"cases": 2'), "invalid"),
    "bad UTF-8": (body(b'{"company": {"cases": 2, "x": "\xff"}}'), "invalid"),
    "HTML": (body(b"<html></html>", Content_Type="text/html"), "invalid"),
    "JSON as something else": (body(GOOD, Content_Type="text/plain"), "invalid"),
    "a gigabyte announced": (announced_gigabyte, "invalid"),
    "a gigabyte not announced": (streamed_gigabyte, "invalid"),
    "chunks without end": (endless_chunks, "invalid"),
    "headers without end": (endless_headers, "invalid"),
    "a header without end": (endless_header, "invalid"),
    "a gzip bomb": (body(BOMB, Content_Encoding="gzip"), "invalid"),
    "compression": (body(gzip.compress(json.dumps(GOOD).encode()), Content_Encoding="gzip"), "invalid"),
    "silence": (silence, "timeout"),
    "deafness": (deafness, "timeout"),
    "a slow head": (slow_head, "timeout"),
    "a slow body": (slow_body, "timeout"),
    "a reset": (reset, "unavailable"),
    "a reset in the body": (reset_in_the_body, "unavailable"),
    "a closed connection": (closed, "unavailable"),
    "a connection closed in the body": (closed_in_the_body, "unavailable"),
    "a connection closed in the chunks": (closed_in_the_chunks, "unavailable"),
    "NaN": (told("NaN"), "invalid"),
    "Infinity": (told("-Infinity"), "invalid"),
    "a float beyond floats": (told("1e999"), "invalid"),
    "an integer beyond integers": (told("9" * 40), "invalid"),
    "an integer of 100,000 digits": (told("9" * 100_000), "invalid"),
    "a count below zero": (told("-1"), "invalid"),
    "a count of a half": (told("0.5"), "invalid"),
    "a count too great": (told("1000000001"), "invalid"),
    "a text for a number": (told('"2"'), "invalid"),
    "a flag for a number": (told("true"), "invalid"),
    "a list for a number": (told("[2]"), "invalid"),
    "an object for a number": (told("{}"), "invalid"),
    "deep nesting": (told("[" * 5000 + "]" * 5000), "invalid"),
    "a key twice": (body(b'{"company": {"cases": 2, "cases": 0}}'), "invalid"),
    "NUL": (body(b'{"company": {"cases": 2, "x": "\\u0000"}}'), "invalid"),
    "a number for a flag": (company(site=1), "invalid"),
    "a date that is none": (company(since="2009-02-30"), "invalid"),
    "a date ahead": (company(since="9999-12-31"), "invalid"),
    "a value that means nothing": (company(state="SOLD"), "invalid"),
    "a value of no text": (company(state={"a": 1}), "invalid"),
    "a version that is none": (body({**GOOD, "version": ["7"]}), "invalid"),
    "a version too long": (body({**GOOD, "version": "7" * 1000}), "invalid"),
    "an error as an answer": (body({"error": "quota"}), "invalid"),
    "a list as an answer": (body([]), "invalid"),
}
"""What a provider can do wrong, and the status that its evidence then has."""


def connections_to(port: int) -> int:
    """Connections from this machine to a port of the loopback that are open, or being opened, on the caller's side."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(f":{port:04X}") and state in ("01", "02") for _, _, remote, state, *_ in rows)


# ---------------------------------------------------------------- providers as the service has them


@dataclass
class Asked:
    """Providers made from settings, with the parts that tests look at."""

    providers: Providers
    guarded: tuple[Guarded, ...]
    tiers: Tiers

    async def gather(self, profile: wire.Profile, tenant: str = "t") -> Any:
        return await self.providers.gather(tenant, profile)


@contextlib.asynccontextmanager
async def providers(
    folder: Any, text: str, environ: dict[str, str] | None = None, **extra: str
) -> AsyncIterator[Asked]:
    """The providers of a settings file's section, open."""
    path = folder / "service.yaml"
    others = "".join(f"{section}: {{{values}}}\n" for section, values in extra.items())
    path.write_text(f"{others}providers:\n{text}")
    settings = load(environ or {}, str(path)).settings
    tiers = Tiers(settings)
    made = make_providers(settings, tiers)
    await tiers.open()
    await made.open()
    try:
        yield Asked(made, made._guarded, tiers)
    finally:
        await made.close()
        await tiers.close()


def described(server: FakeProvider, name: str = "registry", timeout: str = "500ms", more: str = "") -> str:
    return PROVIDER.format(name=name, url=server.url, timeout=timeout) + more


def business(number: str | None = "HRB 12345", **fields: Any) -> wire.Profile:
    fields = {"name": "Acme GmbH", "jurisdiction": "DE", "registration_number": number, **fields}
    return wire.Profile(wire.Business(**fields))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The scenario to its end, in which the loop must have nothing to complain of."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(watched())
    assert complaints == []


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; `run` bounds the wait."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
