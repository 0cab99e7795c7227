"""Bodies sent as gzip: expanded within a size, in slices that let other requests through."""

from __future__ import annotations

import asyncio
import zlib
from io import BytesIO
from time import perf_counter

from app.errors import BodyTooLarge, RequestMalformed

SLICE_BYTES = 65_536
SLICE_S = 0.001
"""How long is expanded before the event loop turns."""

_GZIP = 16 + zlib.MAX_WBITS
"""To zlib: a header and a checksum as gzip has them, nothing else."""


async def expanded(sent: bytes, limit_bytes: int) -> bytes:
    """What was sent as gzip, which must be one member and nothing behind it.

    Raises BodyTooLarge as soon as it would be more than limit_bytes (never more than that is kept), RequestMalformed
    where it is no gzip, breaks off, does not have the checksum it says, or goes on behind its end: several members are
    legal in a file, and in a request only a way to be read differently by two readers.
    """
    inflate = zlib.decompressobj(_GZIP)
    out = BytesIO()
    room = limit_bytes + 1
    place, rest = 0, b""
    slice_end = perf_counter() + SLICE_S
    while not inflate.eof:
        if not rest:
            # In slices too: what is left over of a piece is copied at each step.
            rest = sent[place : place + SLICE_BYTES]
            place += len(rest)
            if not rest:
                raise RequestMalformed("The gzip of the body breaks off before its end.")
        try:
            part = inflate.decompress(rest, min(SLICE_BYTES, room))
        except zlib.error:
            raise RequestMalformed("The body is not gzip, as its Content-Encoding says, or it is damaged.") from None
        rest = inflate.unconsumed_tail
        room -= len(part)
        if not room:
            raise BodyTooLarge(limit_bytes)
        out.write(part)
        if perf_counter() > slice_end:
            await asyncio.sleep(0)
            slice_end = perf_counter() + SLICE_S
    if inflate.unused_data or place < len(sent):
        raise RequestMalformed("The body goes on behind the end of its gzip. Send one gzip member and nothing else.")
    return out.getvalue()
