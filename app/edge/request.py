"""One request as the layers above see it: what its head says, checked once, and its body, read within limits."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from app.errors import BodyTooLarge, BodyTooSlow, HeadersTooLarge, RequestMalformed, WrongContentType
from app.resilience.deadline import Deadline, DeadlineExceeded

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEADER_LIMIT_BYTES = 32_768
READ_HEADERS = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"x-request-id",
        b"idempotency-key",
        b"if-none-match",
        b"transfer-encoding",
    )
)
REQUEST_ID_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
REQUEST_ID_LIMIT = 128
_id_start = b""
_ids = count()

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
    """

    __slots__ = (
        "chunked", "content_length", "content_type", "id", "idempotency_key", "if_none_match", "method", "path",
        "path_params", "query", "receive", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.path_params: dict[str, str] = {}
        self.id: bytes = b""
        self.content_length = -1
        self.content_type: bytes | None = None
        self.idempotency_key: bytes | None = None
        self.if_none_match: bytes | None = None
        self.chunked = False

    def read_head(self) -> None:
        """Take what matters from the headers. The id is taken first, so that a refusal carries it too."""
        # PERF: benchmarks/test_service.py::test_head
        found: dict[bytes, bytes] = {}
        repeated = b""
        size_bytes = 0
        for name, value in self.scope["headers"]:
            size_bytes += len(name) + len(value)
            if name in READ_HEADERS:
                if name in found and name != b"if-none-match":
                    repeated = name
                found[name] = value
        own_id = found.get(b"x-request-id")
        if own_id is not None and 0 < len(own_id) <= REQUEST_ID_LIMIT and REQUEST_ID_CHARS.issuperset(own_id):
            self.id = own_id
        else:
            self.id = b"%s%016x" % (_id_start, next(_ids))
        if size_bytes > HEADER_LIMIT_BYTES:
            raise HeadersTooLarge(HEADER_LIMIT_BYTES)
        if repeated:
            raise RequestMalformed(f"The header {repeated.decode()} stands more than once.")
        # Granian puts an empty Host where there was none.
        if not found.get(b"host") and self.scope["http_version"] == "1.1":
            raise RequestMalformed("The request must have a Host header.")
        self.content_type = found.get(b"content-type")
        self.idempotency_key = found.get(b"idempotency-key")
        self.if_none_match = found.get(b"if-none-match")
        self.chunked = b"transfer-encoding" in found
        length = found.get(b"content-length")
        if length is not None:
            if not length.isdigit() or len(length) > 18:
                raise RequestMalformed("Content-Length must be a number of bytes.")
            if self.chunked:
                raise RequestMalformed("The request must not have Content-Length beside Transfer-Encoding.")
            self.content_length = int(length)

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


class Bodies:
    """Reads bodies within a size and a time."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = Deadline(timeout_s)

    async def read(self, request: Request, limit_bytes: int) -> bytes:
        """The whole body. Raises BodyTooLarge, BodyTooSlow, Disconnected."""
        if request.content_length == 0 or (request.content_length < 0 and not request.chunked):
            return b""
        try:
            return await self._deadline.run(_read(request.receive, request.content_length, limit_bytes))
        except DeadlineExceeded as late:
            raise BodyTooSlow(late.timeout_s) from None


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


async def _drain(receive: Receive, most_bytes: int) -> None:
    """Read and forget the rest of a body that was refused: a client that is still sending would not see the answer."""
    read = 0
    while read < most_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        read += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
