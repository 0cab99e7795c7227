"""Taking out of a record what names people or the business; the result stays."""

from __future__ import annotations

import msgspec

from app import wire
from app.records import Record

_decode_record = msgspec.msgpack.Decoder(Record).decode
_encode_record = msgspec.msgpack.Encoder().encode
_decode_screening = msgspec.json.Decoder(wire.Screening).decode
_encode_json = msgspec.json.Encoder().encode


def redact(record: bytes) -> bytes:
    """The record without the hits of its screening: each names who was screened, or who is on a list.

    What remains says how the score came about: the result, the status of the screening and what was found by it as
    facts, the sources asked with their versions and times. Raises ValueError for what is no record of this version.
    """
    try:
        opened = _decode_record(record)
        screening = _decode_screening(opened.screening)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the record cannot be read by this version of the service: {error}") from None
    return _encode_record(msgspec.structs.replace(opened, screening=_encode_json(wire.Screening(screening.status))))
