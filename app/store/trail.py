"""The audit trail as every store keeps it: entries in hash-chained segments, and signed checkpoints of their heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from app.store.chain import AuditEntry

_encode = msgspec.json.Encoder(order="sorted").encode
_unpack = msgspec.msgpack.Decoder(list[tuple[bytes, int, bytes]]).decode

RECORDED = "assessment.recorded"
"""The act of an entry that stands for one group commit. Its subjects are the ids, grouped by actor; its detail
`{"actors": [["<actor>", <how many>], ...], "root": "<hex>"}`, the Merkle root over the leaves in the same order; its
actor is empty where there are several."""
SYSTEM_TENANT = ""
"""Whose trail holds what belongs to no tenant: logins that were refused, the model in use."""


class Act(Struct, frozen=True, gc=False):
    """Something worth remembering. name: `key.created`.  actor: the id of the key that did it, `cli` or `service`, or
    empty where that is not known.  detail: a JSON object without any secret.  subjects: ids of assessments."""

    tenant_id: str
    name: str
    actor: str
    detail: bytes = b"{}"
    subjects: tuple[bytes, ...] = ()


def act(tenant_id: str, name: str, actor: str, /, subjects: Sequence[bytes] = (), **detail: object) -> Act:
    """An act with further facts, which must not hold any secret. None among them is left out."""
    told = {fact: value for fact, value in detail.items() if value is not None}
    return Act(tenant_id, name, actor, _encode(told), tuple(subjects))


class Head(Struct, frozen=True, order=True):
    """How far a segment has come. hash: of the entry with that number."""

    segment: bytes
    number: int
    hash: bytes


class Checkpoint(Struct, frozen=True):
    """One of a tenant's checkpoints, which are chained too. number: counts from 1.  entries: of the tenant, in all.
    heads: of the segments that moved since the checkpoint before, by segment.  mac: HMAC-SHA256 of the hash."""

    tenant_id: str
    number: int
    at_ms: int
    entries: int
    heads: tuple[Head, ...]
    previous: bytes
    hash: bytes
    mac: bytes


def packed_heads(heads: Sequence[Head]) -> bytes:
    """The heads of a checkpoint as its row holds them: msgpack of `[[segment, number, hash], ...]`."""
    return msgspec.msgpack.encode([(head.segment, head.number, head.hash) for head in heads])


def unpacked_heads(packed: bytes) -> tuple[Head, ...]:
    """The heads that a checkpoint's row holds."""
    return tuple([Head(*head) for head in _unpack(packed)])


class Position(NamedTuple):
    """Where an entry stands in the order of time."""

    at_ms: int
    segment: bytes
    number: int


class Trail(Protocol):
    """Entries and checkpoints. Every method raises StoreUnavailable as those of `Store` do."""

    async def note(self, acts: Sequence[Act]) -> None:
        """Append the acts, in one transaction."""

    def moved(self) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of this process's segments that moved since they were last asked for."""

    async def uncovered(self, since_ms: int) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of segments begun since then that no checkpoint holds: of processes that were killed,
        or are at work."""

    async def last_checkpoint(self, tenant_id: str) -> Checkpoint | None:
        """The newest, from the server that takes the writes."""

    async def head_number(self, tenant_id: str, segment: bytes) -> int:
        """The greatest number of the segment in any checkpoint, 0 for none; from the server that takes the writes."""

    async def add_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Keep a checkpoint; False where its number is taken."""

    async def trails(self) -> list[str]:
        """The tenants with entries or checkpoints."""

    async def entries(
        self,
        tenant_id: str,
        *,
        act: str | None = None,
        actor: str | None = None,
        assessment: bytes | None = None,
        since_ms: int | None = None,
        before_ms: int | None = None,
        before: Position | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """Newest first: since_ms <= at < before_ms, and before the position. assessment: only what has it as a
        subject. May hold fewer than `limit` and yet not be the end: an empty list is."""

    async def segments(self, tenant_id: str) -> list[bytes]:
        """The tenant's segments, oldest first."""

    async def segment(self, tenant_id: str, segment: bytes, *, after: int, limit: int) -> list[AuditEntry]:
        """The entries of a segment after a number, in order."""

    async def checkpoints(self, tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
        """The tenant's checkpoints after a number, in order."""
