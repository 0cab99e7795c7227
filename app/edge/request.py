"""One request as the layers above see it: what its head says, checked once, and its body, read within limits."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from ipaddress import IPv6Address
from itertools import count
from typing import Any

from app.edge.gzipped import expanded
from app.errors import (
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    RequestMalformed,
    WrongContentType,
    WrongEncoding,
)
from app.resilience.deadline import Deadline, DeadlineExceeded

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEADER_LIMIT_BYTES = 32_768
"""Names and values together: what nginx's four buffers of 8 KiB hold."""
HEADER_LIMIT_COUNT = 100
"""As many as Apache takes (LimitRequestFields), and as the server parses at all."""
PATH_LIMIT_BYTES = 8192
"""As sent. A request line of Apache (LimitRequestLine) or nginx is no longer either."""
SHORT_PATH_CHARS = PATH_LIMIT_BYTES // 3
"""In ASCII no more than the limit, whatever of it was percent-encoded."""
HOST_LIMIT_BYTES = 261
"""The longest name that DNS knows, a colon and a port."""
GOOD_HOSTS = 64
"""How many are remembered, and not looked at again."""
VERSIONS = frozenset(("1.1", "1.0", "1"))
"""Granian writes 1 for 1.0."""

ONCE = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"x-request-id",
        b"idempotency-key",
        b"transfer-encoding",
        b"origin",
    )
)
"""Headers that mean nothing, or two things, where they stand twice."""
LISTED = frozenset((b"if-none-match", b"content-encoding", b"forwarded", b"x-forwarded-for", b"tracestate"))
"""Headers that may stand several times, and then are one list."""
VOID = frozenset((b"authorization", b"x-api-key", b"traceparent"))
"""Headers that count as sent, and as wrong, where they stand twice."""

REQUEST_ID_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
REQUEST_ID_LIMIT = 128
_id_start = b""
_ids = count()

# RFC 3986: an IPv6 address in brackets, or what an IPv4 address and a registered name are made of.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{1,5}))?")
_good_hosts: set[bytes] = set()
_UNFIT_FOR_A_PATH = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]")

FORGOTTEN_BYTES = 1_048_576
FORGOTTEN_S = 1.0
"""How much of a body that nobody wants is awaited, and for how long, so that its sender gets to read the answer."""
KEPT_BYTES = 32_768
"""A connection that brought a longer request ends with the answer. The server makes its buffer of 8 KiB up to 400 KiB
large for what comes at once, and gives none of it back while the connection lasts (tests/test_connections.py)."""
DRAIN_FACTOR = 8
"""How many times the limit of a body is read and thrown away, so that the client gets to read its 413."""


def _start_ids() -> None:
    """Request ids made here are random per process, then counting."""
    global _id_start, _ids
    _id_start = os.urandom(8).hex().encode("ascii")
    _ids = count(int.from_bytes(os.urandom(6), "big"))


_start_ids()
# Workers are forked from a process that has this module: without a new start they would all make the same ids.
os.register_at_fork(after_in_child=_start_ids)


class Disconnected(Exception):
    """The body broke off: its client went away, or its chunks are not as HTTP wants them."""


class Request:
    """The head of a request. Raises RequestMalformed or HeadersTooLarge where it breaks HTTP.

    id: the caller's X-Request-ID where it is 1 to 128 characters of A-Za-z0-9._-, else one made here.
    content_length: bytes, or -1 where the body is chunked, or there is none.
    unread: whether there is a body that nobody has begun to read; None as long as that is not known.
    size_bytes: of the headers and as much of the body as has come.
    owes: whether it was let in without being charged, and has not been since.
    credential: the key as it was sent, None where none was, b"" where what was sent cannot be one.
    headers: by name in lower case; those in LISTED that stood several times joined with commas, in order.
    body, principal, route, fields (headers that the answer gets): what the layers above have found out so far.

    # Design: the server itself refuses control characters in headers, makes one of equal Content-Lengths, takes away
    # one beside Transfer-Encoding and then closes the connection, and makes a path of an absolute target.
    # tests/test_server_heads.py asks it whether that still holds; everything else is checked here.
    """

    __slots__ = (
        "body", "chunked", "content_length", "content_type", "credential", "fields", "headers", "id", "method", "owes",
        "path", "path_params", "principal", "query", "receive", "route", "scope", "size_bytes", "unread",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.path_params: dict[str, str] = {}
        self.headers: dict[bytes, bytes] = {}
        self.id: bytes = b""
        self.content_length = -1
        self.content_type: bytes | None = None
        self.credential: bytes | None = None
        self.chunked = False
        self.unread: bool | None = None
        self.size_bytes = 0
        self.owes = False
        self.route: Any = None
        self.body: bytes = b""
        self.principal: Any = None
        self.fields: Sequence[tuple[bytes, bytes]] = ()

    @property
    def peer(self) -> str:
        """The address that the connection comes from, "" where that is unknown."""
        client = self.scope.get("client")
        return client[0] if client else ""

    @property
    def content_encoding(self) -> bytes | None:
        return self.headers.get(b"content-encoding")

    @property
    def idempotency_key(self) -> bytes | None:
        return self.headers.get(b"idempotency-key")

    @property
    def if_none_match(self) -> bytes | None:
        return self.headers.get(b"if-none-match")

    @property
    def forwarded(self) -> bytes | None:
        return self.headers.get(b"forwarded")

    @property
    def x_forwarded_for(self) -> bytes | None:
        return self.headers.get(b"x-forwarded-for")

    @property
    def origin(self) -> bytes | None:
        return self.headers.get(b"origin")

    def read_head(self) -> None:
        """Take what matters from the headers. The id is taken first, so that a refusal carries it too.

        Raises RequestMalformed, HeadersTooLarge.
        """
        # PERF: benchmarks/test_service.py::test_head
        scope = self.scope
        sent = scope["headers"]
        found: dict[bytes, bytes] = dict(sent)
        self.headers = found
        get = found.get
        own_id = get(b"x-request-id")
        if own_id is not None and 0 < len(own_id) <= REQUEST_ID_LIMIT and REQUEST_ID_CHARS.issuperset(own_id):
            self.id = own_id
        else:
            self.id = b"%s%016x" % (_id_start, next(_ids))
        size_bytes = 0
        for name, value in sent:
            size_bytes += len(name) + len(value)
        self.size_bytes = size_bytes
        if size_bytes > HEADER_LIMIT_BYTES or len(sent) > HEADER_LIMIT_COUNT:
            raise HeadersTooLarge(HEADER_LIMIT_BYTES, HEADER_LIMIT_COUNT)
        if len(found) != len(sent):
            _merge(found, sent)
        path, version, host = self.path, scope["http_version"], get(b"host")
        if path[:1] != "/" or len(path) > SHORT_PATH_CHARS or not path.isascii() or not path.isprintable():
            _check_path(path, scope.get("raw_path"))
        if version != "1.1" and version not in VERSIONS:
            raise RequestMalformed("The request must be HTTP/1.1 or HTTP/1.0.")
        # Granian puts an empty Host where there was none.
        if host:
            if host not in _good_hosts and not _is_host(host):
                raise RequestMalformed("The Host header must be a host, with or without a port, such as kyb.test:8080.")
        elif version == "1.1":
            raise RequestMalformed("The request must have a Host header.")
        key = get(b"x-api-key")
        authorization = get(b"authorization")
        if authorization is None:
            self.credential = key
        elif key is None and (authorization[:7] == b"Bearer " or authorization[:7].lower() in (b"bearer ", b"apikey ")):
            self.credential = authorization[7:].strip()  # ApiKey is what clients of yente send
        else:
            self.credential = b""
        self.content_type = get(b"content-type")
        coding = get(b"transfer-encoding")
        length = get(b"content-length")
        if coding is not None:
            if length is not None:
                raise RequestMalformed("The request must not have Content-Length beside Transfer-Encoding.")
            if coding != b"chunked":
                raise RequestMalformed("Transfer-Encoding must be chunked, or not there.")
            self.chunked = self.unread = True
        elif length is not None:
            if not length.isdigit() or len(length) > 18:
                raise RequestMalformed("Content-Length must be a number of bytes.")
            self.content_length = int(length)
            self.unread = self.content_length > 0
        else:
            self.unread = False

    def check_content_type(self) -> None:
        """Raises WrongContentType for a body that is not said to be JSON in UTF-8."""
        got = self.content_type
        if got == b"application/json":
            return
        text = None if got is None else got.decode("latin-1")
        if text is not None:
            media, _, parameters = text.lower().partition(";")
            charset = parameters.strip().removeprefix("charset=").strip('"')
            if media.strip() == "application/json" and charset in ("", "utf-8", "utf8"):
                return
        raise WrongContentType(text)


def _merge(found: dict[bytes, bytes], sent: Iterable[tuple[bytes, bytes]]) -> None:
    """Make one header of each that stands several times. Raises RequestMalformed for one that must not."""
    found.clear()
    for name, value in sent:
        if name not in found:
            found[name] = value
        elif name in ONCE:
            raise RequestMalformed(f"The header {name.decode()} stands more than once.")
        elif name in LISTED:
            found[name] += b", " + value
        elif name in VOID:
            found[name] = b""


def _check_path(path: str, raw: bytes | None) -> None:
    """Raises RequestMalformed for what no path of the service can be. raw: as it was sent, percents and all."""
    if path[:1] != "/":
        raise RequestMalformed("The request's target must be a path that begins with a slash.")
    if len(path if raw is None else raw) > PATH_LIMIT_BYTES:
        raise RequestMalformed(f"The path is longer than {PATH_LIMIT_BYTES:,} bytes.")
    if _UNFIT_FOR_A_PATH.search(path):
        raise RequestMalformed("The path must be UTF-8 without control characters, percent-encoded ones too.")


def _is_host(host: bytes) -> bool:
    """Whether it can be one. The first are remembered: a service has few names."""
    match = _HOST.fullmatch(host) if len(host) <= HOST_LIMIT_BYTES else None
    if match is None:
        return False
    literal, port = match.groups()
    if literal is not None:
        try:
            IPv6Address(literal.decode("ascii"))
        except ValueError:
            return False
    if port is not None and not 1 <= int(port) <= 65_535:
        return False
    if len(_good_hosts) < GOOD_HOSTS:
        _good_hosts.add(host)
    return True


def _is_gzip(codings: bytes) -> bool:
    """Whether a body has to be expanded. Raises WrongEncoding for what is neither gzip nor as it is."""
    named = codings.strip().lower()
    if named in (b"gzip", b"x-gzip"):
        return True
    if named in (b"", b"identity"):
        return False
    raise WrongEncoding(codings.decode("latin-1"))


class Bodies:
    """Reads bodies within a size and a time."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = Deadline(timeout_s, told=False)
        self._forgetting = Deadline(FORGOTTEN_S, told=False)

    async def read(self, request: Request, limit_bytes: int) -> bytes:
        """The whole body, expanded where it was sent as gzip: neither form may have more than limit_bytes.

        Raises BodyTooLarge, BodyTooSlow, Disconnected, WrongEncoding, RequestMalformed.
        """
        if not request.unread:
            return b""
        codings = request.content_encoding
        gzipped = codings is not None and _is_gzip(codings)
        request.unread = False
        try:
            body = await self._deadline.run(_read(request.receive, request.content_length, limit_bytes))
        except DeadlineExceeded as late:
            raise BodyTooSlow(late.timeout_s) from None
        request.size_bytes += len(body)
        return await expanded(body, limit_bytes) if gzipped else body

    async def forget(self, request: Request) -> bool:
        """Let a body pass that is not wanted. Whether it is over, so that the connection can be used again.

        A client that is still sending would not see the answer, and the server closes the connection without a word.
        """
        if request.unread is None:
            # Where one request ends that is not HTTP, and the next begins, is anybody's guess.
            return False
        if request.content_length > FORGOTTEN_BYTES or b"expect" in request.headers:
            return False
        try:
            forgotten_bytes = await self._forgetting.run(_drain(request.receive, FORGOTTEN_BYTES))
        except (DeadlineExceeded, Disconnected):
            return False
        request.size_bytes += forgotten_bytes
        return forgotten_bytes <= FORGOTTEN_BYTES


async def _read(receive: Receive, wanted: int, limit_bytes: int) -> bytes:
    if wanted > limit_bytes:
        await _drain(receive, DRAIN_FACTOR * limit_bytes)
        raise BodyTooLarge(limit_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    # PERF: Granian hands a body over as one message and then an empty one, each a trip to Rust and back, so reading
    # stops once Content-Length bytes are there (benchmarks/compare.py).
    if len(body) == wanted and message["type"] == "http.request":
        return body
    return await _rest(receive, message, body, wanted, limit_bytes)


async def _rest(receive: Receive, message: Message, body: bytes, wanted: int, limit_bytes: int) -> bytes:
    parts, size = [body], len(body)
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        if size == wanted or (wanted < 0 and not message.get("more_body", False)):
            return b"".join(parts)
        if not message.get("more_body", False):
            raise RequestMalformed(f"The body has {size} bytes, and Content-Length says {wanted}.")
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            await _drain(receive, DRAIN_FACTOR * limit_bytes)
            raise BodyTooLarge(limit_bytes)
        parts.append(part)


async def _drain(receive: Receive, most_bytes: int) -> int:
    """Read and forget the rest of a body that was refused: a client that is still sending would not see the answer.

    How many bytes that was, more than most_bytes where it was not all.
    """
    read_bytes = 0
    while read_bytes <= most_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        read_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return read_bytes
