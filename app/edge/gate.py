"""The outermost layer: one request in, one answer out, whatever goes wrong between."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from app.edge.request import Disconnected, Headers, Receive, Request, Scope, Send
from app.errors import ProblemTable, RequestMalformed

log = logging.getLogger(__name__)

JSON_TYPE = (b"content-type", b"application/json")
QUIET_S = 1.0
"""How often a 503 is logged at most."""
NO_STORE = (b"cache-control", b"no-store")


class Answer(NamedTuple):
    """Status, body and the headers that this answer adds to Content-Length and X-Request-ID."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)


Endpoint = Callable[[Request], Awaitable[Answer]]


class Routes(Protocol):
    def find(self, request: Request) -> Endpoint:
        """The endpoint of a request. Raises NotFound, MethodNotAllowed."""
        ...


class Gate:
    """The ASGI application: reads heads, finds endpoints, sends answers, and turns every exception into a problem.

    start, stop: run when the server starts and stops; what `start` raises ends the start.
    """

    def __init__(
        self,
        routes: Routes,
        problems: ProblemTable,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.routes = routes
        self.problems = problems
        self._start = start
        self._quiet_until = 0.0
        self._untold = 0
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        request = Request(scope, receive)
        try:
            request.read_head()
            answer = await self.routes.find(request)(request)
            headers: Headers = [
                *answer.headers,
                (b"content-length", b"%d" % len(answer.body)),
                (b"x-request-id", request.id),
            ]
            status, body = answer.status, answer.body
        except Disconnected:
            # A client that only closed its sending side, or sent a broken chunk, still reads.
            status, headers, body = self._problem(RequestMalformed("The body broke off before its end."), request)
        except Exception as error:
            status, headers, body = self._problem(error, request)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _problem(self, error: Exception, request: Request) -> tuple[int, Headers, bytes]:
        request_id = request.id.decode("ascii")
        status, headers, body = self.problems.answer(error, request_id)
        if status == 503:
            self._tell_of_refusal(request, request_id, error)
        elif status >= 500:
            log.error(
                "%s %s answered %d (request %s)", request.method, request.path, status, request_id, exc_info=error
            )
        if status in (408, 413):
            headers = [*headers, (b"connection", b"close")]
        return status, headers, body

    def _tell_of_refusal(self, request: Request, request_id: str, error: Exception) -> None:
        """Log a 503, and for a second after it only count the others: an outage has thousands."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        more = f"; {self._untold} more since the last of these lines" if self._untold else ""
        log.error("%s %s answered 503 (request %s): %s%s", request.method, request.path, request_id, error, more)
        self._quiet_until, self._untold = now + QUIET_S, 0

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except Exception as error:
            # One that escapes would be taken for an application without lifespan, and the server would go on.
            log.critical("the start failed: %s", error, exc_info=error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})
