"""Snapshots as other engines would have made them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from core.entities import Entity, stored

LAYOUT, CHECKSUM, STAMP, SPANS = 8, 12, 24, 40
ENTITY_STARTS, ENTITIES = SPANS + 16 * 14, SPANS + 16 * 15


def sealed(snapshot: bytearray) -> bytes:
    """With the checksum of its bytes, as if it had been written so."""
    struct.pack_into("<I", snapshot, CHECKSUM, 0)
    struct.pack_into("<I", snapshot, CHECKSUM, zlib.crc32(snapshot))
    return bytes(snapshot)


def of_another_engine(snapshot: bytes) -> bytes:
    """As one with another table of words makes it."""
    other = bytearray(snapshot)
    other[STAMP] ^= 1
    return sealed(other)


def of_another_layout(snapshot: bytes) -> bytes:
    """As one makes it of whose layout nothing is known but where the entities are: here, right behind these spans."""
    spans = struct.unpack_from("<QQQQ", snapshot, ENTITY_STARTS)
    starts, entities = (snapshot[at : at + n * size] for at, n, size in ((*spans[:2], 8), (*spans[2:], 1)))
    other = bytearray(snapshot[: ENTITIES + 16])
    struct.pack_into("<I", other, LAYOUT, 1000)
    other[SPANS:ENTITY_STARTS] = bytes(ENTITY_STARTS - SPANS)
    struct.pack_into("<QQ", other, ENTITY_STARTS, len(other), spans[1])
    struct.pack_into("<QQ", other, ENTITIES, len(other) + len(starts), spans[3])
    return _sized(other + starts + entities)


def with_entities(snapshot: bytes, entities: Sequence[Sequence[Any]]) -> bytes:
    """With other entities, behind all the rest."""
    kept = [msgspec.msgpack.encode(fields) for fields in entities]
    starts = [sum(map(len, kept[:place])) for place in range(len(kept) + 1)]
    other = bytearray(snapshot) + bytes(-len(snapshot) % 8)
    struct.pack_into("<QQ", other, ENTITY_STARTS, len(other), len(starts))
    other += struct.pack(f"<{len(starts)}Q", *starts)
    struct.pack_into("<QQ", other, ENTITIES, len(other), starts[-1])
    return _sized(other + b"".join(kept))


def kept_fields(entity: Entity) -> list[Any]:
    """What a snapshot keeps of it."""
    fields: list[Any] = msgspec.msgpack.decode(stored(entity))
    return fields


def _sized(snapshot: bytearray) -> bytes:
    struct.pack_into("<Q", snapshot, 16, len(snapshot))
    return sealed(snapshot)
