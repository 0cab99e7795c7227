"""Signed checkpoints of how far every segment has come: nobody without the key can shorten or rewrite the trail."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from hashlib import sha256

import msgspec

from app.audit.lines import line
from app.ids import now_ms
from app.store.base import StoreUnavailable
from app.store.chain import GENESIS
from app.store.trail import Checkpoint, Head, Trail
from app.telemetry.log import event

log = logging.getLogger(__name__)

ADOPTED_MS = 36 * 3_600_000
"""How long ago a segment may have begun whose uncovered head is adopted."""
ADOPT_EVERY_MS = 300_000
"""Of processes that were killed while this one runs, and of commands that ended before they made a checkpoint."""
ATTEMPTS = 8
FIRST_PAUSE_S = 0.02
HEADS_A_CHECKPOINT = 1_000

_DOMAIN = b"kyb audit checkpoint 1"
_encode = msgspec.msgpack.Encoder().encode


def checkpoint_hash(
    tenant_id: str, number: int, at_ms: int, entries: int, heads: Iterable[Head], previous: bytes
) -> bytes:
    """SHA-256 over all that a checkpoint says, unambiguous because msgpack carries the lengths."""
    told = [(head.segment, head.number, head.hash) for head in heads]
    return sha256(_encode((_DOMAIN, tenant_id, number, at_ms, entries, told, previous))).digest()


def signature(signing_key: bytes, hash: bytes) -> bytes:
    """HMAC-SHA256 of a checkpoint's hash."""
    return hmac.digest(signing_key, hash, "sha256")


class Checkpoints:
    """Puts what was entered in the trail under signed checkpoints, at most `every_s` after it was.

    on_made: told of every checkpoint, in a thread, for an anchor outside of the database (`app.audit.anchors`).
    clock: Unix time in ms.  random: 0 to 1.  `made` counts the checkpoints.
    """

    __slots__ = (
        "_adopt_ms",
        "_clock",
        "_cut",
        "_every_s",
        "_is_away",
        "_known",
        "_on_made",
        "_random",
        "_signing_key",
        "_stopping",
        "_stuck",
        "_task",
        "_trail",
        "_waiting",
        "made",
    )

    def __init__(
        self,
        trail: Trail,
        signing_key: bytes,
        every_s: float,
        on_made: Callable[[Checkpoint], None],
        *,
        clock: Callable[[], int] = now_ms,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._trail = trail
        self._signing_key = signing_key
        self._every_s = every_s
        self._on_made = on_made
        self._clock = clock
        self._random = random
        self._waiting: dict[str, dict[bytes, Head]] = {}
        self._known: dict[str, tuple[int, bytes]] = {}
        self._stuck: set[str] = set()
        self._cut: set[str] = set()
        self._adopt_ms = 0
        self._is_away = False
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.made = 0

    @property
    def broken(self) -> int:
        """Tenants whose trail was cut or rewritten as far as this process saw, or takes no checkpoint."""
        return len(self._stuck | self._cut)

    def start(self) -> None:
        """Adopt what processes that were killed left, and go on until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-checkpoints", context=Context())

    async def stop(self) -> None:
        """Cover what there is, once more, and end."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,))
            self._task.result()
        if not await self.cover():
            log.error("the last entries of the audit trail are under no checkpoint yet; the next start covers them")

    async def cover(self) -> bool:
        """Make a checkpoint for each tenant whose heads moved; False where some must wait for the next time."""
        self._wait_for(self._trail.moved())
        try:
            await self._cover_each()
            now_ms = self._clock()
            if now_ms >= self._adopt_ms:
                self._wait_for(await self._trail.uncovered(now_ms - ADOPTED_MS))
                self._adopt_ms = now_ms + round(ADOPT_EVERY_MS * (1 - self._random() / 2))
                await self._cover_each()
        except StoreUnavailable as error:
            if not self._is_away:
                told = event("audit_checkpoint_waits")
                log.warning("what was entered in the audit trail waits for its checkpoint: %s", error, extra=told)
            self._is_away = True
            return False
        if self._is_away:
            log.info("the audit trail takes checkpoints again")
        self._is_away = False
        return not self._waiting

    async def _cover_each(self) -> None:
        for tenant_id in list(self._waiting):
            try:
                await self._cover(tenant_id)
                self._stuck.discard(tenant_id)
            except StoreUnavailable:
                raise
            except Exception:
                # What one tenant's trail holds must not keep the others' from being covered.
                if tenant_id not in self._stuck:
                    told = {"tenant": tenant_id}
                    said = "no checkpoint can be made, run `kyb audit verify`: %s"
                    log.exception(said, line(told), extra=event("audit_checkpoint_failed", **told))
                self._stuck.add(tenant_id)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self.cover()
            # Not all pods at once: those of one tenant take each other's numbers.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s * (1 - self._random() / 4)):
                    await self._stopping.wait()

    def _wait_for(self, moved: Mapping[str, Iterable[Head]]) -> None:
        for tenant_id, heads in moved.items():
            waiting = self._waiting.setdefault(tenant_id, {})
            for head in heads:
                known = waiting.get(head.segment)
                if known is None or known.number < head.number:
                    waiting[head.segment] = head

    async def _cover(self, tenant_id: str) -> None:
        """Cover what waits of a tenant; what is left where others took every number tried stays for the next round."""
        for attempt in range(ATTEMPTS):
            # The number before the heads: whoever covers one of them in between takes the number, too.
            last = await self._trail.last_checkpoint(tenant_id)
            self._compare(tenant_id, last)
            moved = await self._uncovered(tenant_id)
            if moved:
                made = self._next(tenant_id, last, moved)
                if not await self._trail.add_checkpoint(made):
                    await asyncio.sleep(FIRST_PAUSE_S * 2**attempt * self._random())
                    continue
                for head in made.heads:
                    del self._waiting[tenant_id][head.segment]
                await self._tell(made)
            if not self._waiting[tenant_id]:
                del self._waiting[tenant_id]
                return

    async def _uncovered(self, tenant_id: str) -> list[tuple[Head, int]]:
        """What waits and no checkpoint covers, with how many entries each head came; the rest waits no more."""
        waiting = self._waiting[tenant_id]
        found = []
        for head in sorted(waiting.values())[:HEADS_A_CHECKPOINT]:
            covered = await self._trail.head_number(tenant_id, head.segment)
            if covered < head.number:
                found.append((head, head.number - covered))
            else:
                del waiting[head.segment]
        return found

    def _next(self, tenant_id: str, last: Checkpoint | None, moved: Iterable[tuple[Head, int]]) -> Checkpoint:
        heads = tuple(head for head, _ in moved)
        number = last.number + 1 if last else 1
        entries = (last.entries if last else 0) + sum(came for _, came in moved)
        previous = last.hash if last else GENESIS
        at_ms = self._clock()
        hash = checkpoint_hash(tenant_id, number, at_ms, entries, heads, previous)
        return Checkpoint(tenant_id, number, at_ms, entries, heads, previous, hash, signature(self._signing_key, hash))

    def _compare(self, tenant_id: str, last: Checkpoint | None) -> None:
        """Say so where the checkpoint that was the last is no longer there."""
        known = self._known.get(tenant_id)
        number, hash = (last.number, last.hash) if last else (0, GENESIS)
        if known is not None and (number < known[0] or (number == known[0] and hash != known[1])):
            told = {"tenant": tenant_id, "number": known[0], "hash": known[1].hex(), "found": number}
            self._cut.add(tenant_id)
            said = "the audit trail was cut or rewritten: a checkpoint is gone %s"
            log.error(said, line(told), extra=event("audit_trail_cut", **told))
        self._known[tenant_id] = (number, hash)

    async def _tell(self, made: Checkpoint) -> None:
        self.made += 1
        self._known[made.tenant_id] = (made.number, made.hash)
        try:
            await asyncio.to_thread(self._on_made, made)
        except Exception as error:
            told = event("audit_anchor_failed")
            log.error("a checkpoint of the audit trail could not be anchored: %s", error, extra=told)
