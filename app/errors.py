"""What can go wrong with a request, as plain exceptions, and the one table that turns them into problem answers.

Exceptions of layers above (store, resilience) join through `ProblemTable.extended`: nothing here imports them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from app import wire

FAULT_LIMIT = 20

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """Base of what a request can be refused for. `detail` is one or two plain sentences for the caller."""

    def __init__(self, detail: str, faults: Sequence[wire.Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = list(faults)

    def headers(self) -> Headers:
        """Headers that this refusal adds to its answer."""
        return []


class RequestMalformed(Refusal):
    """The request line or its headers break HTTP: no Host or two of them, a Content-Length that is no number."""


class BodyUnreadable(Refusal):
    """The body is not JSON in UTF-8 at all."""


class NotFound(Refusal):
    """what: the thing that is not there, in words, such as 'assessment 0193…'."""

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no {what}.")
        self.what = what


class MethodNotAllowed(Refusal):
    """allow: the methods that the path does know."""

    def __init__(self, allow: Sequence[str]) -> None:
        super().__init__(f"This path answers {', '.join(allow)}.")
        self.allow = tuple(allow)

    def headers(self) -> Headers:
        return [(b"allow", ", ".join(self.allow).encode("ascii"))]


class BodyTooSlow(Refusal):
    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"The body was not complete after {timeout_s:g} s. Nothing was recorded.")
        self.timeout_s = timeout_s


class Conflict(Refusal):
    """The request is right, and what is recorded stands against it."""


class BodyTooLarge(Refusal):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes:,} bytes. Nothing of it was read or recorded.")
        self.limit_bytes = limit_bytes


class BatchTooLarge(Refusal):
    def __init__(self, limit_items: int) -> None:
        super().__init__(f"A batch holds {limit_items:,} items at most. Send it in parts; nothing was recorded.")
        self.limit_items = limit_items


class WrongContentType(Refusal):
    """got: the Content-Type as sent, or None."""

    def __init__(self, got: str | None) -> None:
        sent = f"not {clipped(got)}" if got else "and none was sent"
        super().__init__(f"The body's Content-Type must be application/json, {sent}.")
        self.got = got

    def headers(self) -> Headers:
        return [(b"accept", b"application/json")]


class ProfileRefused(Refusal):
    def __init__(self, faults: Sequence[wire.Fault]) -> None:
        super().__init__(_counted("The profile", faults), faults)


class BatchRefused(Refusal):
    """The envelope of a batch is wrong. A wrong item fails alone, with ProfileRefused."""

    def __init__(self, faults: Sequence[wire.Fault]) -> None:
        super().__init__(_counted("The batch", faults), faults)


class BodyRefused(Refusal):
    """A body that is neither a profile nor a batch, and not what the route takes."""

    def __init__(self, faults: Sequence[wire.Fault]) -> None:
        super().__init__(_counted("The body", faults), faults)


class ParameterRefused(Refusal):
    """Query parameters and headers. Their pointers begin with /query/ or /header/."""

    def __init__(self, faults: Sequence[wire.Fault]) -> None:
        super().__init__(_counted("The request's parameters", faults), faults)


class KeyReused(Refusal):
    """The Idempotency-Key was used before, with another request."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request. A new request needs a new key.")


class KeyBusy(Refusal):
    """A request with the same Idempotency-Key is still running, and may be asked for again."""

    def __init__(self, retry_after_s: int = 1) -> None:
        super().__init__("A request with this Idempotency-Key is still being recorded. Repeat it to get its answer.")
        self.retry_after_s = retry_after_s

    def headers(self) -> Headers:
        return [(b"retry-after", b"%d" % max(self.retry_after_s, 1))]


class ProfileRunning(Refusal):
    """The process is being measured already."""

    def __init__(self, retry_after_s: int = 1) -> None:
        super().__init__("Another measurement of this process is running. Try again after Retry-After.")
        self.retry_after_s = retry_after_s

    def headers(self) -> Headers:
        return [(b"retry-after", b"%d" % max(self.retry_after_s, 1))]


class HeadersTooLarge(Refusal):
    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        super().__init__(f"The request's headers are larger than {limit_bytes:,} bytes, or more than {limit_count}.")
        self.limit_bytes = limit_bytes
        self.limit_count = limit_count


class Unavailable(Refusal):
    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    def headers(self) -> Headers:
        return [(b"retry-after", b"%d" % max(self.retry_after_s, 1))]


class Unauthorized(Refusal):
    """No key, or none that works. Why is never told: a guesser would learn from it."""

    reason = "key"

    def __init__(self) -> None:
        super().__init__(
            "Send one valid API key, as `Authorization: Bearer <key>` or as `X-API-Key: <key>`, not as both."
        )

    def headers(self) -> Headers:
        return [(b"www-authenticate", b'Bearer realm="kyb"')]


class Forbidden(Refusal):
    """permission: what the route asks for and the key does not hold."""

    reason = "permission"

    def __init__(self, permission: str) -> None:
        super().__init__(f"This key does not hold the permission `{permission}`, which the request needs.")
        self.permission = permission


class KeyWider(Refusal):
    """A key that would reach further than the one that asks for it. Pointers as in a `wire.KeyRequest`."""

    def __init__(self, faults: Sequence[wire.Fault]) -> None:
        super().__init__("The key would reach further than the one that asks for it, as listed under errors.", faults)


class PageRefused(Refusal):
    """A request that a web page made, or may have made, and that is not to be answered to one."""


class TooManyRequests(Refusal):
    """wait_s: until when the same request is refused again.  fields: the RateLimit fields of the answer."""

    reason = "rate"

    def __init__(self, detail: str, wait_s: float, fields: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(detail)
        self.wait_s = wait_s
        self.fields = tuple(fields)

    def headers(self) -> Headers:
        return [(b"retry-after", b"%d" % max(math.ceil(self.wait_s), 1)), *self.fields]


class Saturated(Refusal):
    """More requests than the service works on. reason: queue_full, or queue_wait for one that waited long enough."""

    def __init__(self, reason: Literal["queue_full", "queue_wait"] = "queue_full", retry_after_s: int = 1) -> None:
        super().__init__("The service has more requests than it can answer in time. Nothing was recorded. Try again.")
        self.reason = reason
        self.retry_after_s = retry_after_s

    def headers(self) -> Headers:
        return [(b"retry-after", b"%d" % max(self.retry_after_s, 1))]


class WrongEncoding(Refusal):
    """got: the Content-Encoding as sent."""

    def __init__(self, got: str) -> None:
        super().__init__(f"The body's Content-Encoding must be gzip, or none, not {clipped(got)}.")
        self.got = got

    def headers(self) -> Headers:
        return [(b"accept-encoding", b"gzip")]


class ProblemKind(NamedTuple):
    """One row of the table: how an exception is told to the caller.

    advice: for the reference page, what the caller should do. detail, retry_after_s: for exceptions that are no Refusal
    and whose own text the caller must not see.
    """

    status: int
    slug: str
    title: str
    advice: str
    detail: str = ""
    retry_after_s: int | None = None

    @property
    def type_uri(self) -> str:
        return f"/problems/{self.slug}"


INTERNAL = ProblemKind(
    500,
    "internal-error",
    "The service failed",
    "Report it with the request id. An assessment may be repeated safely with the same Idempotency-Key.",
    detail="The service could not answer because of a fault of its own.",
)

KINDS: dict[type[Exception], ProblemKind] = {
    RequestMalformed: ProblemKind(
        400, "malformed-request", "The request is not proper HTTP", "Repair the client; repeating does not help."
    ),
    BodyUnreadable: ProblemKind(
        400, "unreadable-body", "The body cannot be read as JSON", "Send one JSON document in UTF-8, without a BOM."
    ),
    Unauthorized: ProblemKind(
        401, "unauthorized", "A valid API key is needed", "Check the key: it may be mistyped, expired or revoked."
    ),
    Forbidden: ProblemKind(
        403, "forbidden", "The key may not do this", "Ask an administrator for a key whose role holds the permission."
    ),
    KeyWider: ProblemKind(
        403,
        "wider-key",
        "The key would reach too far",
        "Ask for less, as `errors` says, or have it done with a key that reaches as far, or with `kyb keys`.",
    ),
    PageRefused: ProblemKind(
        403,
        "page-refused",
        "This page may not call",
        "List the page's origin in CORS_ORIGINS; without authentication, call 127.0.0.1, [::1] or localhost.",
    ),
    NotFound: ProblemKind(404, "not-found", "Not found", "Check the path and the id."),
    MethodNotAllowed: ProblemKind(
        405, "method-not-allowed", "The method is not allowed here", "Use one of the methods in the Allow header."
    ),
    BodyTooSlow: ProblemKind(
        408, "slow-body", "The body came too slowly", "Send it again on a new connection; nothing was recorded."
    ),
    Conflict: ProblemKind(409, "conflict", "In conflict with what is recorded", "The detail says with what."),
    KeyBusy: ProblemKind(
        409,
        "idempotency-key-busy",
        "The Idempotency-Key is in use now",
        "Repeat it after Retry-After, with the same key.",
    ),
    ProfileRunning: ProblemKind(
        409,
        "profile-running",
        "A measurement is running",
        "Repeat it after Retry-After, or wait for the other's answer.",
    ),
    BodyTooLarge: ProblemKind(
        413, "body-too-large", "The body is too large", "Send less, or a batch in several parts; nothing was recorded."
    ),
    BatchTooLarge: ProblemKind(
        413, "batch-too-large", "The batch has too many items", "Send it in several parts; nothing was recorded."
    ),
    WrongContentType: ProblemKind(
        415, "wrong-content-type", "The body's type is not accepted", "Send Content-Type: application/json."
    ),
    WrongEncoding: ProblemKind(
        415, "wrong-encoding", "The body's encoding is not accepted", "Send it as it is, or with gzip."
    ),
    ProfileRefused: ProblemKind(
        422, "invalid-profile", "The profile is not valid", "Change what `errors` points to, and send it again."
    ),
    BatchRefused: ProblemKind(
        422, "invalid-batch", "The batch is not valid", "Change what `errors` points to, and send it again."
    ),
    BodyRefused: ProblemKind(
        422, "invalid-body", "The body is not valid", "Change what `errors` points to, and send it again."
    ),
    ParameterRefused: ProblemKind(
        422, "invalid-parameter", "A parameter is not valid", "Change what `errors` points to, and send it again."
    ),
    KeyReused: ProblemKind(
        422, "idempotency-key-reused", "The Idempotency-Key belongs to another request", "Use a new key per request."
    ),
    HeadersTooLarge: ProblemKind(431, "headers-too-large", "The headers are too large", "Send fewer or shorter ones."),
    TooManyRequests: ProblemKind(
        429, "too-many-requests", "Too many requests", "Wait for Retry-After; the RateLimit fields tell what is left."
    ),
    Saturated: ProblemKind(
        503, "saturated", "The service is at its limit", "Try again after Retry-After, with the same Idempotency-Key."
    ),
    Unavailable: ProblemKind(
        503, "unavailable", "The service cannot answer now", "Try again after Retry-After, with the same key."
    ),
    Exception: INTERNAL,
}


class ProblemTable:
    """Exception types with their rows; a subclass is told like its nearest base, anything else as a 500."""

    def __init__(self, kinds: Mapping[type[Exception], ProblemKind] = KINDS) -> None:
        self.kinds = dict(kinds)

    def extended(self, kinds: Mapping[type[Exception], ProblemKind]) -> ProblemTable:
        """A new table that knows these exceptions too."""
        return ProblemTable({**self.kinds, **kinds})

    def kind(self, exc: BaseException) -> ProblemKind:
        return next((self.kinds[c] for c in type(exc).__mro__ if c in self.kinds), INTERNAL)

    def problem(self, exc: BaseException, request_id: str | None) -> wire.Problem:
        """The problem alone, as a batch carries it for one item. Never shows the text of a foreign exception."""
        kind = self.kind(exc)
        own = isinstance(exc, Refusal) and kind is not INTERNAL
        return wire.Problem(
            type=kind.type_uri,
            title=kind.title,
            status=kind.status,
            detail=exc.detail if own and isinstance(exc, Refusal) else kind.detail or kind.title,
            instance=request_id,
            errors=exc.faults[:FAULT_LIMIT] if own and isinstance(exc, Refusal) else [],
        )

    def answer(self, exc: BaseException, request_id: str) -> tuple[int, Headers, bytes]:
        """Status, all headers (X-Request-ID and Content-Length among them) and body of the answer."""
        problem = self.problem(exc, request_id)
        body = msgspec.json.encode(problem)
        headers: Headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode("ascii", "replace")),
        ]
        retry_after_s = self.kind(exc).retry_after_s
        if isinstance(exc, Refusal):
            headers += exc.headers()
        elif retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % retry_after_s))
        return problem.status, headers, body


problem_answer = ProblemTable().answer


def clipped(text: str, limit: int = 60) -> str:
    """A caller's text, short enough to repeat to them; what no UTF-8 can hold is replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _counted(what: str, faults: Sequence[wire.Fault]) -> str:
    verb = "have" if what.endswith("s") else "has"
    if len(faults) == 1:
        return f"{what} {verb} one fault, listed under errors."
    more = f"; the first {FAULT_LIMIT} are listed" if len(faults) >= FAULT_LIMIT else ", all listed"
    count = f"{FAULT_LIMIT} faults or more" if len(faults) >= FAULT_LIMIT else f"{len(faults)} faults"
    return f"{what} {verb} {count}{more} under errors."
