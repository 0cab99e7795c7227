"""The hash chain of the audit trail: how entries are linked, and how a group commit stands in one of them.

Every writer (a process) has a segment of its own for each tenant, so that writers need not wait for each other. Within
a segment each entry holds the hash of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct as Layout

import msgspec
from msgspec import Struct

from app.store.base import Row

GENESIS = bytes(32)
"""What stands for the entry before the first of a segment."""
_DOMAIN = b"kyb audit entry 1"
_LEAF, _NODE, _ERASED = b"\x00", b"\x01", b"\x02"
_FACTS = Layout(">BBiII").pack
_encode = msgspec.msgpack.Encoder().encode


class AuditEntry(Struct, frozen=True, gc=False):
    """One link of a segment.

    segment: UUIDv7 of the writer.  number: counts from 1 within the segment.  at_ms: Unix time.
    act: what was done, such as `key.created`.  actor: the id of the key that did it, or `cli`, `service`.
    detail: JSON, further facts.  subjects: ids of assessments, 16 bytes each, in the order of the Merkle tree.
    previous, hash: SHA-256 of the entry before, and of this one.
    """

    tenant_id: str
    segment: bytes
    number: int
    at_ms: int
    act: str
    actor: str
    detail: bytes
    subjects: bytes
    previous: bytes
    hash: bytes


def entry_hash(
    tenant_id: str,
    segment: bytes,
    number: int,
    at_ms: int,
    act: str,
    actor: str,
    detail: bytes,
    subjects: bytes,
    previous: bytes,
) -> bytes:
    """SHA-256 over all that an entry says, unambiguous because msgpack carries the lengths."""
    return sha256(
        _encode((_DOMAIN, tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous))
    ).digest()


def leaf(row: Row) -> bytes:
    """The leaf hash of an assessment as it was recorded, whatever a person decided or what was erased since.

    SHA-256 of 0x00, the id, the model's SHA-256, level, decision, score and the lengths of input and record as
    big-endian integers of 1, 1, 4, 4 and 4 bytes, the input, the record.
    """
    return _digest(_LEAF, row, row.input or b"") if row.leaf is None else row.leaf


def erased_hash(row: Row) -> bytes:
    """The hash of what is left of an assessment that was erased, whatever a person decided before or since.

    SHA-256 as that of a leaf, but of 0x02, and with the leaf and the SHA-256 of the input in place of the input.
    """
    return _digest(_ERASED, row, (row.leaf or b"") + (row.input_sha256 or b""))


def _digest(domain: bytes, row: Row, given: bytes) -> bytes:
    level = row.level if row.original_level is None else row.original_level
    decision = row.decision if row.original_decision is None else row.original_decision
    facts = _FACTS(level, decision, row.score, len(given), len(row.record))
    return sha256(b"".join((domain, row.id, row.model_sha256, facts, given, row.record))).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, of which there is at least one (RFC 6962, section 2.1)."""
    level = list(leaves)
    while len(level) > 1:
        paired = [sha256(_NODE + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        # RFC 6962 splits at the largest power of two: a node without a neighbour goes up as it is.
        level = paired + level[len(level) & ~1 :]
    return level[0]
