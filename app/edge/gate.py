"""The outermost layer: who asks, whether they may, and one answer to each, whatever goes wrong between."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import NamedTuple, Protocol

from app.edge.admission import Admission
from app.edge.authentication import Guard
from app.edge.rates import Rates
from app.edge.request import KEPT_BYTES, Bodies, Disconnected, Headers, Receive, Request, Scope, Send
from app.errors import (
    INTERNAL,
    Forbidden,
    ProblemTable,
    RequestMalformed,
    Saturated,
    TooManyRequests,
    Unauthorized,
    clipped,
)
from app.roles import Permission
from app.store.trail import Act, act
from app.telemetry.access import AccessLog
from app.telemetry.course import BODY, HEAD, KEY, QUEUE, RENDER, Course
from app.telemetry.log import event
from app.telemetry.traffic import Traffic

log = logging.getLogger(__name__)

JSON_TYPE = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
PATH_CHARS = 120
"""What the audit trail holds of a path at most."""
TURNED_AWAY = (Forbidden, Saturated, TooManyRequests, Unauthorized)
"""Before anything was worked."""


class Answer(NamedTuple):
    """Status, body and the headers that this answer adds to Content-Length and X-Request-ID."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)


Endpoint = Callable[[Request], Awaitable[Answer]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route(NamedTuple):
    """What answers a request, and what comes before that.

    permission: that the caller must hold, None where no key is asked for.  kind: of admission, None for what never
    waits.  body_limit: bytes, 0 where no body is read.  headers: of every answer.
    by_content: the endpoint charges the request itself (`Rates.charge`), once it knows what it costs; one that fails
    before costs one.  template: its path, as `/v1/assessments/{id}`.
    """

    endpoint: Endpoint
    permission: Permission | None
    kind: int | None
    body_limit: int
    headers: tuple[tuple[bytes, bytes], ...]
    by_content: bool = False
    template: str = ""


class Routes(Protocol):
    def find(self, request: Request) -> Route:
        """The route of a request. Raises NotFound, MethodNotAllowed."""
        ...


class Gate:
    """The ASGI application: one request in, one answer out.

    In this order: the head, the route, the key, its rate, its permission, the body, a place to be worked on, and then
    the endpoint. What costs least is refused first, nobody holds a place while a body is still coming, and whoever has
    a key pays for what they are refused as well.

    start, stop: run when the server starts and stops; what `start` raises ends the start.
    note: told of each refused permission, and of what does not make it another one.  headers: of every problem.
    access: tells of requests; without it only of those that failed.
    """

    def __init__(
        self,
        routes: Routes,
        problems: ProblemTable,
        guard: Guard,
        rates: Rates,
        bodies: Bodies,
        admission: Admission,
        traffic: Traffic,
        note: Callable[[Act, Mapping[str, object]], None],
        headers: tuple[tuple[bytes, bytes], ...],
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
        access: AccessLog | None = None,
    ) -> None:
        self.routes = routes
        self.problems = problems
        self._guard = guard
        self._rates = rates
        self._bodies = bodies
        self._admission = admission
        self._traffic = traffic
        self._note = note
        self._headers = headers
        self._start = start
        self._stop = stop
        self._access = access or AccessLog()
        self.closes_connections = False

    def close_connections(self) -> None:
        """From now on have every answer end its connection, so that who sends next connects anew, perhaps elsewhere."""
        self.closes_connections = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        begun = self._traffic.begin()
        request = Request(scope, receive)
        course = self._access.begin(request, begun)
        marks = course.marks
        status = INTERNAL.status
        try:
            try:
                request.read_head()
                route = request.route = self.routes.find(request)
                marks[HEAD] = perf_counter()
                if route.permission is not None:
                    principal = self._guard.known(request) or await self._guard.find(request)
                    request.principal = principal
                    is_allowed = route.permission in principal.permissions
                    if route.by_content and is_allowed:
                        self._rates.trust(request)
                    elif not self._rates.charge_at_once(request):
                        await self._rates.charge(request)
                    if not is_allowed:
                        raise Forbidden(route.permission)
                marks[KEY] = perf_counter()
                if route.body_limit:
                    request.check_content_type()
                    request.body = await self._bodies.read(request, route.body_limit)
                marks[BODY] = perf_counter()
                if route.kind is None:
                    marks[QUEUE] = marks[BODY]
                    answer = await route.endpoint(request)
                else:
                    place = self._admission.enter(route.kind)
                    if place is not None:
                        await self._admission.wait(place)
                    marks[QUEUE] = perf_counter()
                    try:
                        answer = await route.endpoint(request)
                    finally:
                        self._admission.leave()
                marks[RENDER] = perf_counter()
                headers: Headers = [
                    *answer.headers,
                    *route.headers,
                    *request.fields,
                    (b"content-length", b"%d" % len(answer.body)),
                    (b"x-request-id", request.id),
                ]
                status, body = answer.status, answer.body
            except Exception as error:
                status, headers, body = await self._refused(error, request, course)
            is_over = request.unread is False or await self._bodies.forget(request)
            if (self.closes_connections or not is_over or request.size_bytes > KEPT_BYTES) and CLOSE not in headers:
                headers.append(CLOSE)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            template = _template(request)
            self._access.end(course, template, status, self._traffic.end(request.method, template, status, begun))
            # Its traceback leads back here: the request and its connection would stay until garbage is collected.
            if course.error is not None and status != INTERNAL.status:
                _without_traces(course.error)
            course.error = None

    async def _refused(self, error: Exception, request: Request, course: Course) -> tuple[int, Headers, bytes]:
        if isinstance(error, Disconnected):
            # A client that only closed its sending side, or sent a broken chunk, still reads.
            error = RequestMalformed("The body broke off before its end.")
        if request.owes:
            error = await self._rates.collect(request, error)
        return self._problem(error, request, course)

    def _problem(self, error: Exception, request: Request, course: Course) -> tuple[int, Headers, bytes]:
        request_id = request.id.decode("ascii")
        status, headers, body = self.problems.answer(error, request_id)
        headers += self._headers
        if status != 429:
            headers += request.fields
        course.error, course.kind = error, self.problems.kind(error).slug
        self._traffic.problem(_template(request), course.kind)
        if isinstance(error, TURNED_AWAY):
            self._traffic.rejected(error.reason)
        if isinstance(error, Forbidden):
            self._note_refusal(request, error.permission)
        if status in (408, 413):
            # Of a body that was begun, the rest may still come.
            headers.append(CLOSE)
        return status, headers, body

    def _note_refusal(self, request: Request, permission: str) -> None:
        caller = request.principal
        # A route has ever new paths: the template makes it the same act again.
        told = {"method": request.method, "route": request.route.template, "permission": permission}
        sample = {"path": clipped(request.path, PATH_CHARS)}
        self._note(act(caller.tenant_id, "role.refused", caller.key_id, (), **told), sample)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except Exception as error:
            # One that escapes would be taken for an application without lifespan, and the server would go on.
            log.critical("the start failed: %s", error, exc_info=error, extra=event("start_failed"))
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})


def _without_traces(error: BaseException) -> None:
    """Let go of the frames that an error, and what it came of, passed. One that a whole batch was answered with has
    those of all its requests; a failure that nobody expected keeps them for the others of its batch, who log it too."""
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            chain += (one.__cause__, one.__context__)


def _template(request: Request) -> str:
    """The path of a request's route, "" where it has none."""
    return request.route.template if request.route is not None else ""
