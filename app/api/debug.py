"""What this process is doing, for whoever looks after it: /debug/pprof."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from app.edge.gate import JSON_TYPE, Answer
from app.edge.headers import NOTHING_LOADED
from app.edge.request import Disconnected, Request
from app.errors import ProfileRunning, Unavailable
from app.profiling import cpu, flame, stacks
from app.profiling.heap import Heap
from app.profiling.turn import Busy, Turn
from app.queries import HeapQuery, ProfileQuery, Query, parse_query
from app.store.trail import Act, act

Found = TypeVar("Found")

TEXT = (b"content-type", b"text/plain; charset=utf-8")
HTML = (b"content-type", b"text/html; charset=utf-8")


class Debug:
    """The endpoints below /debug/pprof. Their answers say which process they are of: the worker that answers.

    note: enters an act in the audit trail, soon: a profile is wanted most when the database does not answer.
    """

    def __init__(self, heap: Heap, note: Callable[[Act, Mapping[str, object]], None]) -> None:
        self._heap = heap
        self._note = note
        self._turn = Turn()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End what runs, and begin nothing more: the service stops."""
        self._stopping.set()

    async def goroutine(self, request: Request) -> Answer:
        """Tasks and threads, grouped by stack."""
        parse_query(request.query, Query)
        self._tell(request, "goroutine")
        text = await stacks.tasks_and_threads()
        return Answer(200, text.encode(), (TEXT, _pid()))

    async def heap(self, request: Request) -> Answer:
        """What is allocated where."""
        query = parse_query(request.query, HeapQuery)
        text = await self._measured(request, "heap", query.seconds, lambda: self._heap.growth(query.seconds, query.top))
        return Answer(200, text.encode(), (TEXT, _pid()))

    async def profile(self, request: Request) -> Answer:
        """Where CPU time goes."""
        query = parse_query(request.query, ProfileQuery)
        samples = await self._measured(request, "profile", query.seconds, lambda: cpu.sampled(query.seconds))
        if query.format == "speedscope":
            made = await asyncio.to_thread(flame.speedscope, samples)
            named = b'attachment; filename="profile-%d.speedscope.json"' % os.getpid()
            return Answer(200, made, (JSON_TYPE, (b"content-disposition", named), _policy(NOTHING_LOADED), _pid()))
        page = await asyncio.to_thread(flame.page, samples)
        return Answer(200, page.html, (HTML, _policy(page.policy), _pid()))

    async def _measured(
        self, request: Request, what: str, seconds: int, measure: Callable[[], Coroutine[Any, Any, Found]]
    ) -> Found:
        """What is measured, unless its caller goes away or the service stops. Raises ProfileRunning, Unavailable,
        Disconnected."""
        try:
            with self._turn.take(seconds):
                self._tell(request, what, seconds=seconds)
                return await self._unless_over(request, measure())
        except Busy as busy:
            raise ProfileRunning(math.ceil(busy.free_in_s)) from None

    async def _unless_over(self, request: Request, measure: Coroutine[Any, Any, Found]) -> Found:
        work = asyncio.ensure_future(measure)
        gone, stopping = asyncio.ensure_future(_gone(request)), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((work, gone, stopping), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if stopping.done():
                raise Unavailable("The service is stopping, so nothing was measured.")
            raise Disconnected
        finally:
            # Whatever ended the wait, nothing goes on measuring.
            for one in (work, gone, stopping):
                one.cancel()
            await asyncio.gather(work, gone, stopping, return_exceptions=True)

    def _tell(self, request: Request, what: str, **more: object) -> None:
        caller = request.principal
        self._note(act(caller.tenant_id, "process.profiled", caller.key_id, (), what=what, pid=os.getpid(), **more), {})


async def _gone(request: Request) -> None:
    """Until the caller has gone away. What it still sends is of no use to anybody."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body", False):
            request.unread = False


def _pid() -> tuple[bytes, bytes]:
    return (b"x-worker-pid", b"%d" % os.getpid())


def _policy(policy: bytes) -> tuple[bytes, bytes]:
    return (b"content-security-policy", policy)
