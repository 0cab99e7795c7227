"""One file over HTTP: redirects, limits and compression in our own hands, and a clear word for what fails."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from msgspec import Struct

from app.settings.kinds import is_loopback

CHUNK_BYTES = 64 * 1024
MEDIA_TYPES_REFUSED = (
    "text/html",
    "application/xhtml+xml",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/x-gzip",
    "image/",
    "audio/",
    "video/",
    "font/",
    "multipart/",
)

_REDIRECTS = (301, 302, 303, 307, 308)
_ADVICE = {
    401: "the address asks for a login or token; set one that holds it",
    403: "the publisher does not let this machine in; open the address in a browser on it, or set another one",
    404: "the list has moved; set its new address",
    410: "the list is gone; set its new address",
    429: "the publisher was asked too often; wait an hour",
}


class FetchLimits(Struct, frozen=True):
    """Bounds on a download.

    file_bytes: of each file, unpacked.  connect_s, stall_s: to connect, and between two pieces of a body.  total_s: for
    all files of a list together.  retry_pause_s: before the one retry.
    """

    file_bytes: int = 1024 * 1024 * 1024
    connect_s: float = 10.0
    stall_s: float = 30.0
    total_s: float = 900.0
    redirects: int = 3
    retry_pause_s: float = 2.0


class FetchFailed(Exception):
    """A list that was not fetched. url: without what may be secret.  what: happened.  advice: what to do."""

    def __init__(self, url: str, what: str, advice: str) -> None:
        super().__init__(f"{url}: {what}; {advice}")
        self.url = url
        self.what = what
        self.advice = advice


class Validator(Struct, frozen=True):
    """What a server said about a file, to ask it later whether that has changed."""

    etag: str | None = None
    last_modified: str | None = None


class FetchedFile(Struct, frozen=True):
    """One file that came whole.  bytes: its size, unpacked."""

    url: str
    path: Path
    sha256: str
    bytes: int
    validator: Validator


class Passing(Exception):
    """A failure that may be over the next time."""

    def __init__(self, failure: FetchFailed) -> None:
        super().__init__(str(failure))
        self.failure = failure


def public_url(url: str) -> str:
    """A URL without user, password and query: those may be secret."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")


async def transfer(
    session: aiohttp.ClientSession, url: str, path: Path, known: Validator | None, limits: FetchLimits
) -> FetchedFile | None:
    """Bring one file to a path, or None where the server says that it is still the one known.

    Raises FetchFailed, or Passing for a failure that is worth a second try.
    """
    conditions = _conditions(known)
    try:
        response = await _answer(session, url, {"Accept-Encoding": "gzip", "Accept": "*/*", **conditions}, limits)
        async with response:
            if response.status == 304 and conditions:
                return None
            _check(response, url, limits)
            sha256, size = await _write(response, url, path, limits)
    except FetchFailed:
        raise
    except aiohttp.ClientSSLError as error:
        raise _failed(
            url, f"the server's certificate was not accepted ({_one_line(error)})", "check the address and the clock"
        ) from error
    except TimeoutError as error:
        raise _failed(
            url,
            f"nothing came for {limits.stall_s:g} s, or no connection in {limits.connect_s:g} s",
            "try again later; check proxy and firewall",
        ) from error
    except aiohttp.ClientPayloadError as error:
        raise Passing(_failed(url, "the connection ended before the file did", "try again later")) from error
    except (aiohttp.ClientConnectionError, OSError) as error:
        reason = _one_line(error) or type(error).__name__
        raise Passing(_failed(url, f"no connection ({reason})", "check the address, proxy and firewall")) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise _failed(
            url, f"the answer is not HTTP as it should be ({_one_line(error)})", "check the address in a browser"
        ) from error
    if not size:
        raise _failed(url, "the file is empty", "try again later; the publisher may be at work on it")
    validator = Validator(response.headers.get("ETag"), response.headers.get("Last-Modified"))
    return FetchedFile(url, path, sha256, size, validator)


def _conditions(known: Validator | None) -> dict[str, str]:
    """The headers that ask for a file only where it is another than the one known."""
    fields = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified} if known else {}
    return {name: value for name, value in fields.items() if value}


async def _answer(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], limits: FetchLimits
) -> aiohttp.ClientResponse:
    """The first answer that is no redirect. Each address on the way is checked before it is asked."""
    here = url
    _check_address(url, here)
    for _ in range(limits.redirects + 1):
        try:
            response = await session.get(here, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # aiohttp has sent the request a second time by itself.
            raise _failed(url, "the connection was cut before an answer came, twice", "try again later") from error
        if response.status not in _REDIRECTS:
            return response
        response.close()
        there = response.headers.get("Location")
        if not there:
            raise _failed(url, f"{response.status} without an address to go to", "check the address in a browser")
        here = urljoin(here, there)
        _check_address(url, here)
    raise _failed(url, f"more than {limits.redirects} redirects", "set the address that they lead to")


def _check_address(url: str, here: str) -> None:
    """Refuse what is not HTTPS, and a redirect from outside into this machine."""
    parts = _split(here)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host:
        raise _failed(url, f"{public_url(here)} is no address of HTTP", "set one that begins with https://")
    local = is_loopback(host)
    if parts.scheme == "http" and not local:
        to = "" if here == url else f" to {public_url(here)}"
        raise _failed(
            url,
            f"not encrypted{to}",
            "set an address that begins with https:// and stays there: a list must be genuine",
        )
    if local and not is_loopback(_split(url).hostname or ""):
        raise _failed(url, f"redirected into this machine ({public_url(here)})", "check the address in a browser")


def _check(response: aiohttp.ClientResponse, url: str, limits: FetchLimits) -> None:
    status = response.status
    if status >= 500:
        raise Passing(_failed(url, f"the server answered {status}", "try again later"))
    if status != 200:
        advice = _ADVICE.get(status, "check the address in a browser")
        raise _failed(url, f"the server answered {status} where 200 is due", advice)
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type.startswith(MEDIA_TYPES_REFUSED):
        raise _failed(url, f"what comes is {media_type}, not a list", "open the address in a browser to see what it is")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise _failed(url, f"the body is in the encoding {encoding!r}, which was not asked for", "set another address")
    if response.content_length is not None and response.content_length > limits.file_bytes:
        raise _too_large(url, limits)


async def _write(response: aiohttp.ClientResponse, url: str, path: Path, limits: FetchLimits) -> tuple[str, int]:
    """Write a body to a new file. Returns its SHA-256 and size."""
    digest = hashlib.sha256()
    size = 0
    file = await asyncio.to_thread(path.open, "xb")
    try:
        async for piece in _body(response, url):
            size += len(piece)
            if size > limits.file_bytes:
                raise _too_large(url, limits)
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
    finally:
        await asyncio.to_thread(file.close)
    return digest.hexdigest(), size


async def _body(response: aiohttp.ClientResponse, url: str) -> AsyncIterator[bytes]:
    """The body in pieces of bounded size, unpacked: by ourselves, since a small piece may unpack to an enormous one."""
    packed = response.headers.get("Content-Encoding", "").strip().lower() in ("gzip", "x-gzip")
    unpack = zlib.decompressobj(wbits=31)
    begun = False
    async for piece in response.content.iter_chunked(CHUNK_BYTES):
        if not packed:
            yield piece
            continue
        while piece:
            if unpack.eof:
                unpack = zlib.decompressobj(wbits=31)
            begun = True
            try:
                unpacked = unpack.decompress(piece, CHUNK_BYTES)
            except zlib.error as error:
                raise _failed(url, f"the body is damaged gzip ({error})", "try again later") from None
            if unpacked:
                yield unpacked
            piece = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    if begun and not unpack.eof:
        raise Passing(_failed(url, "the compressed body ends before it is whole", "try again later"))


def _too_large(url: str, limits: FetchLimits) -> FetchFailed:
    return _failed(
        url,
        f"the file has more than {limits.file_bytes:,} bytes",
        "check the address; raise the limit if the list has grown that much",
    )


def _failed(url: str, what: str, advice: str) -> FetchFailed:
    return FetchFailed(public_url(url), what, advice)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")
