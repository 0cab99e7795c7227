"""One provider behind what keeps its failures its own: cache, single-flight, slots, breaker, retries, deadline."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from functools import partial
from typing import cast

import msgspec

from app import wire
from app.cache.local import MISSING, Local
from app.cache.tiers import Cache
from app.evidence.providers.base import (
    NOT_ASKED,
    Dropped,
    Late,
    Provided,
    Provider,
    ProviderFailed,
    Unavailable,
)
from app.resilience.breaker import Breaker, BreakerOpen
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.resilience.retry import Retry

log = logging.getLogger(__name__)

BREAKING: tuple[type[Exception], ...] = (Late, Unavailable)
"""Failures that say something about the provider, and not about one question: a caller's odd input opens no breaker."""
RETRIED: tuple[type[Exception], ...] = (Dropped,)
SLOW_S = math.inf
"""Lateness is a failure already."""
GRACE_S = 0.05
STATUS_BYTES = 64

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Provided).decode


def size_bytes(provided: Provided) -> int:
    """What a value takes in memory, about."""
    return 1024 + 1024 * len(provided.matches)


class Guarded:
    """Asks one provider for whoever wants to know, each question once at a time.

    cache: of its answers alone.  failures: where the failed questions are remembered for failed_s, by this process, so
    that one that fails is not repeated by every caller at once.
    shared_slots: calls of all providers together.  concurrency: calls of this one.
    timeout_s: of one question, with the wait for a slot and all attempts.
    `asked`: calls made, `ended`: how questions ended, by status, answers from the cache not counted.

    # Design: a question belongs to nobody, as in SingleFlight: it ends by its own timeout, and whoever has less time
    leaves earlier and may find the answer in the cache next time. Slots are waited for outside of the breaker, since a
    crowd here says nothing about the provider, and first for one of its own, so that a slow provider's crowd never
    holds what others could use.
    """

    __slots__ = (
        "_cache", "_calls", "_deadline", "_failed_s", "_failures", "_label", "_provider", "_shared_slots", "_slots",
        "_under_way", "asked", "breaker", "ended", "name", "retry", "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        provider: Provider,
        cache: Cache[Provided],
        breaker: Breaker,
        retry: Retry,
        failures: Local,
        shared_slots: asyncio.Semaphore,
        *,
        concurrency: int,
        timeout_s: float,
        failed_s: float,
    ) -> None:
        self.name = provider.name
        self.breaker = breaker
        self.timeout_s = timeout_s
        self.asked = 0
        self.ended: Counter[str] = Counter()
        self._provider = provider
        self._cache = cache
        self.retry = retry
        self._failures = failures
        self._shared_slots = shared_slots
        self._slots = asyncio.Semaphore(concurrency)
        self._failed_s = failed_s
        self._under_way: set[asyncio.Task[object]] = set()
        self._calls: set[asyncio.Timeout] = set()
        self._label = f"{cache.name} failed"
        # Within it the retries see how much time is left.
        self._deadline = Deadline(timeout_s + GRACE_S)

    def known(self, tenant_id: str, profile: wire.Profile) -> Provided | bytes:
        """What is known without asking anybody; or the question's key, to be asked with."""
        key = self._provider.key(profile)
        if key is None:
            return NOT_ASKED
        found = self._cache.peek(tenant_id, key)
        if isinstance(found, Provided):
            return found
        status = self._failures.get((self._label, tenant_id, key))
        return key if status is MISSING else Provided(cast("wire.EvidenceStatus", status))

    async def ask(self, tenant_id: str, profile: wire.Profile, key: bytes, wait_s: float) -> Provided:
        """What it tells, or the status of its failure; never raises for one. wait_s: how long an answer is of use."""
        if wait_s <= 0:
            return Provided("timeout")
        try:
            async with asyncio.timeout(wait_s):
                found = await self._cache.get(tenant_id, key, partial(self._load, tenant_id, profile, key))
        except TimeoutError:
            return Provided("timeout")
        except ProviderFailed as failed:
            return Provided(failed.status)
        return Provided("unavailable") if found is None else found

    @property
    def flying(self) -> int:
        """Questions under way."""
        return len(self._under_way)

    async def stop(self) -> None:
        """End every call under way as late, and wait for the questions they belong to."""
        now = asyncio.get_running_loop().time()
        for call in self._calls:
            if not call.expired():
                call.reschedule(now)
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _load(self, tenant_id: str, profile: wire.Profile, key: bytes) -> Provided:
        """The answer to one question, asked in a task of its own. Raises ProviderFailed."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        # Or the task would hold its own failure in a circle.
        del task
        try:
            try:
                found = await self._deadline.run(self._in_turn(profile))
            except BreakerOpen:
                raise Unavailable("it failed too often, and is left alone for a while") from None
            except DeadlineExceeded:
                raise Late("no answer in time") from None
            except ProviderFailed:
                raise
            except Exception as error:
                # A fault of ours, or of a library: no reason for the caller to go without an assessment.
                # No traceback: its message could name the business.
                log.error("the provider %s failed unexpectedly (%s)", self.name, type(error).__name__)
                raise Unavailable(f"it failed unexpectedly ({type(error).__name__})") from None
        except ProviderFailed as failed:
            self.ended[failed.status] += 1
            self._failures.put((self._label, tenant_id, key), failed.status, STATUS_BYTES, self._failed_s)
            # One line for each question would be many in an outage; the breaker's warning stands for them.
            log.debug("the provider %s is %s: %s", self.name, failed.status, failed.reason)
            # What led here holds the answer's buffers, and would hold them until garbage is collected.
            failed.__context__ = None
            raise failed.with_traceback(None) from None
        self.ended[found.status] += 1
        return found

    async def _in_turn(self, profile: wire.Profile) -> Provided:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        if self.breaker.state == "open":
            raise Unavailable("it failed too often, and is left alone for a while")
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
                try:
                    await self._shared_slots.acquire()
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError:
            raise Late("there was no free slot in time") from None
        try:
            return await self.retry.run(partial(self.breaker.call, partial(self._call, profile, deadline)))
        finally:
            self._shared_slots.release()
            self._slots.release()

    async def _call(self, profile: wire.Profile, deadline: float) -> Provided:
        self.asked += 1
        try:
            async with asyncio.timeout_at(deadline) as call:
                self._calls.add(call)
                try:
                    return await self._provider.gather(profile, deadline)
                finally:
                    self._calls.discard(call)
        except TimeoutError:
            raise Late("no answer in time") from None
