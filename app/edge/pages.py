"""Web pages that call the service: those that are let, and those that are kept out where nobody has to show a key."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers as StarletteHeaders
from starlette.middleware.cors import CORSMiddleware

from app.edge.gate import CLOSE, Gate, Route, Routes
from app.edge.headers import Fixed
from app.edge.request import Headers, Receive, Request, Scope, Send
from app.errors import PageRefused, ProblemTable, Refusal
from app.settings.kinds import is_loopback

SENT = (
    "Authorization", "X-API-Key", "Content-Type", "Content-Encoding", "Idempotency-Key", "If-None-Match",
    "X-Request-ID",
)  # fmt: skip
"""Headers that a page may send."""
TOLD = (
    "ETag", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed", "X-Request-ID",
)  # fmt: skip
"""Headers that it may read."""
MAX_AGE_S = 600


class OpenToPages(CORSMiddleware):
    """The application, for pages of these origins too. Their own credentials, such as cookies, are never taken.

    headers: of the answers that are given here, to preflights; a malformed one is refused by the application.
    """

    def __init__(self, app: Gate, origins: Sequence[str], problems: ProblemTable, headers: Fixed) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=SENT,
            expose_headers=TOLD,
            allow_credentials=False,
            max_age=MAX_AGE_S,
        )
        self._gate = app
        self._problems = problems
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            request = Request(scope, receive)
            try:
                request.read_head()
            except Refusal:
                await self._gate(scope, receive, send)
                return
            if request.origin is not None and b"access-control-request-method" in request.headers:
                await self._preflight(request, send)
                return
        await super().__call__(scope, receive, send)

    async def _preflight(self, request: Request, send: Send) -> None:
        decided = self.preflight_response(StarletteHeaders(scope=request.scope))
        headers: Headers
        if decided.status_code < 400:
            status, body = decided.status_code, b""
            headers = [(b"content-length", b"0"), (b"x-request-id", request.id)]
        else:
            why = bytes(decided.body).decode()
            refused = PageRefused(f"{why}. Pages of the origins in CORS_ORIGINS may call, with the headers they need.")
            status, headers, body = self._problems.answer(refused, request.id.decode("ascii"))
        headers += [one for one in decided.raw_headers if one[0] not in (b"content-length", b"content-type")]
        headers += self._headers
        if request.unread or self._gate.closes_connections:
            headers.append(CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class ForThisMachine:
    """Routes that are found only by who reaches the service as this machine, and by no page of another origin.

    origins: of pages that may call nevertheless.

    # Design: without a key, all that stands between a page in a browser of this machine and the service is what the
    browser says of it. A name that is made to lead here (DNS rebinding) is in Host; a page that sends what needs no
    leave to be sent is in Origin.
    """

    def __init__(self, routes: Routes, origins: Sequence[str]) -> None:
        self._routes = routes
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def find(self, request: Request) -> Route:
        """The route of a request. Raises PageRefused, and as the routes do."""
        host = request.headers.get(b"host", b"").lower()
        if not is_loopback(_name(host)):
            raise PageRefused(
                "Without authentication only this machine is answered: send the request to 127.0.0.1, [::1] or "
                "localhost, not to another name or address."
            )
        origin = request.origin
        if origin is not None and origin not in self._origins and origin not in (b"http://" + host, b"https://" + host):
            raise PageRefused(
                "Without authentication no page of another origin is answered. List it in CORS_ORIGINS, or switch "
                "authentication on."
            )
        return self._routes.find(request)


def _name(host: bytes) -> str:
    """The host without its port and brackets."""
    name = host if host.endswith(b"]") or b":" not in host else host.rpartition(b":")[0]
    return name.strip(b"[]").decode("latin-1")
