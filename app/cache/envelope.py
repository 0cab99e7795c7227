"""What a value looks like in Redis: it says itself whose it is, and is believed only if that is who was asked for."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal
from zlib import crc32

import msgspec

FORMAT = 1
"""Of the envelope itself; the payload's is the version."""


class Absent(Enum):
    """The cached knowledge that there is no value."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


class _Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One msgpack array. payload: nil for an absence.  crc: CRC-32 of the payload, 0 for an absence."""

    format: int
    version: str
    name: str
    tenant: bytes
    key: bytes
    payload: bytes | None
    crc: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Envelope)


def tenant_bytes(tenant_id: str) -> bytes:
    """Any text has bytes, also one with halves of characters that UTF-8 leaves out."""
    return tenant_id.encode("utf-8", "surrogatepass")


def seal(name: str, version: str, tenant_id: str, key: bytes, payload: bytes | None) -> bytes:
    """The envelope of a payload, or of an absence. name, version: without lone surrogates."""
    crc = 0 if payload is None else crc32(payload)
    return _encoder.encode(_Envelope(FORMAT, version, name, tenant_bytes(tenant_id), key, payload, crc))


def unseal(data: bytes, name: str, version: str, tenant_id: str, key: bytes) -> bytes | Literal[Absent.ABSENT] | None:
    """The payload, or ABSENT; None where the data is damaged or was sealed for anything else."""
    try:
        envelope = _decoder.decode(data)
    except ValueError:  # A DecodeError, or text that is not UTF-8.
        return None
    if (
        envelope.format != FORMAT
        or envelope.version != version
        or envelope.name != name
        or envelope.key != key
        or envelope.tenant != tenant_bytes(tenant_id)
    ):
        return None
    if envelope.payload is None:
        return ABSENT if envelope.crc == 0 else None
    return envelope.payload if envelope.crc == crc32(envelope.payload) else None
