"""One call to a provider over HTTP: to the configured host alone, bounded in time and size."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from msgspec import Struct
from yarl import URL

from app.evidence.providers.base import Absurd, Declined, Dropped, Unavailable

RESOLVER_THREADS = 4
IDLE_S = 30.0
DNS_TTL_S = 30
USER_AGENT = "risk-assessment-service"

_DROPPED = frozenset((502, 503, 504))
_UNAVAILABLE = frozenset((401, 403, 407, 408, 425, 429))
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None, ceil_threshold=60)


class Request(Struct, frozen=True):
    """What is sent. url: encoded already.  tls: whom to trust, None for the platform's authorities.

    max_bytes: of the answer's body.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    max_bytes: int
    tls: ssl.SSLContext | None = None


class Resolver(AbstractResolver):
    """Looks names up in threads of its own: those of the event loop have other work, and a look-up may hang long."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM),
        )
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]  # fmt: skip

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Connection(ResponseHandler):
    """A connection that ends when it is closed, whatever the other side does.

    Left to itself it would first send what is not sent yet, and over TLS say farewell and wait for the answer, up to
    half a minute and reading all the while: a provider that fell silent would hold more of them than there are slots.
    """

    def close(self) -> None:
        self.abort()


class Client:
    """The connections of one worker to all its providers. Belongs to one event loop, and bounds no time itself."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._stopped = False

    async def open(self) -> None:
        """Make ready; connects to nobody yet."""
        connector = aiohttp.TCPConnector(
            limit=self._connections, ttl_dns_cache=DNS_TTL_S, keepalive_timeout=IDLE_S, resolver=Resolver()
        )
        connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # type: ignore[assignment]
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def stop(self) -> None:
        """Ask nobody from now on."""
        self._stopped = True

    async def close(self) -> None:
        """End all connections."""
        self._stopped = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, request: Request, absent_status: int | None = None) -> bytes | None:
        """The body of a good answer, which is said to be JSON; None for absent_status. Raises ProviderFailed."""
        session = self._session
        if session is None or self._stopped:
            raise Unavailable("the connections are closed")
        options: dict[str, Any] = {} if request.tls is None else {"ssl": request.tls}
        try:
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                **options,
            ) as response:
                try:
                    return await _body(response, request.max_bytes, absent_status)
                except BaseException:
                    # What is left of it is not read, so the connection cannot be used again.
                    response.close()
                    raise
        except aiohttp.ClientSSLError:
            raise Unavailable("no trusted certificate for this host, or TLS failed") from None
        except aiohttp.ClientConnectionError:
            raise Dropped("the connection cannot be made, or ended early") from None
        except aiohttp.ClientPayloadError:
            raise Dropped("the answer ended early") from None
        except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError):
            raise Absurd("the answer is not HTTP") from None
        except RuntimeError:
            if not self._stopped:
                raise
            raise Unavailable("the connections were closed") from None


async def _body(response: aiohttp.ClientResponse, max_bytes: int, absent_status: int | None) -> bytes | None:
    status = response.status
    if status == absent_status:
        return None
    if status != 200:
        raise _of_status(status)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("identity", ""):
        raise Absurd("the answer is compressed, which was not asked for")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Absurd("the answer is not said to be JSON")
    if response.content_length is not None and response.content_length > max_bytes:
        raise Absurd(f"the answer has more than {max_bytes} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise Absurd(f"the answer has more than {max_bytes} bytes")
    return bytes(body)


def _of_status(status: int) -> Unavailable | Declined | Absurd:
    if 200 <= status < 400:
        return Absurd(
            f"the answer has status {status}" + (" and redirections are not followed" if status >= 300 else "")
        )
    if status in _DROPPED:
        return Dropped(f"the answer has status {status}")
    if status >= 500 or status in _UNAVAILABLE:
        return Unavailable(f"the answer has status {status}")
    return Declined(f"the answer has status {status}")
