"""Reading what callers send: profiles, batches, other bodies. The fast path, with its explanations one step away."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec

from app import wire
from app.errors import BatchRefused, BatchTooLarge, BodyRefused, BodyTooLarge, BodyUnreadable, ProfileRefused, clipped
from app.faults import check_readable, decode_faults
from core.prescan import MAX_DEPTH, Prescan, Refused, has_more_items

MAX_ITEMS = 1000
SUSPECT_COMMAS = 150 * MAX_ITEMS
_BLANKS = re.compile(rb"[ \t\r\n]*")

Sent = TypeVar("Sent", bound=msgspec.Struct)

_prescan = Prescan().check
_decode_profile = msgspec.json.Decoder(wire.Profile).decode


class _Envelope(wire.Request, frozen=True):
    """A batch whose items are still text: each is read, and refused, on its own."""

    items: list[msgspec.Raw]


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def read_profile(body: bytes) -> wire.Profile:
    """The profile of a body. Raises BodyUnreadable, or ProfileRefused with every fault."""
    try:
        _prescan(body)
        return _decode_profile(body)
    except Refused as refused:
        raise _explained(refused, body) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProfileRefused(decode_faults(body, wire.Profile)) from None


def read_body(body: bytes, wire_type: type[Sent]) -> Sent:
    """A body of that type. Raises BodyUnreadable, or BodyRefused with every fault."""
    try:
        _prescan(body)
        sent: Sent = _decoder(wire_type)(body)
        return sent
    except Refused as refused:
        raise _explained(refused, body, refusal=BodyRefused) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BodyRefused(decode_faults(body, wire_type)) from None


@cache
def _decoder(wire_type: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(wire_type).decode


def read_batch(body: bytes) -> list[bytes]:
    """The items of a batch as sent. Raises BodyUnreadable, BatchRefused, BatchTooLarge."""
    # Millions of tiny items would hold the event loop for long before they could be counted.
    if body.count(b",") > SUSPECT_COMMAS and has_more_items(body, MAX_ITEMS):
        raise BatchTooLarge(MAX_ITEMS)
    try:
        raw = _decode_envelope(body).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BatchRefused(_envelope_faults(body)) from None
    if not raw:
        raise BatchRefused([wire.Fault("/items", f"a batch holds 1 to {MAX_ITEMS:,} items, this one none")])
    if len(raw) > MAX_ITEMS:
        raise BatchTooLarge(MAX_ITEMS)
    items = [bytes(item) for item in raw]
    _check_envelope(body, items)
    return items


def read_item(item: bytes, index: int, limit_bytes: int) -> wire.Profile:
    """One item of a batch; pointers lead from the batch's root. Raises as read_profile, and BodyTooLarge."""
    if len(item) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    at = f"/items/{index}"
    try:
        _prescan(item)
        return _decode_profile(item)
    except Refused as refused:
        raise _explained(refused, item, at) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProfileRefused(decode_faults(item, wire.Profile, at)) from None


def _envelope_faults(body: bytes) -> list[wire.Fault]:
    check_readable(body)
    try:
        _prescan(body)
    except Refused as refused:
        # How deep a decoder can go differs between versions of Python; ours does not.
        if refused.kind == "depth":
            raise _explained(refused, body) from None
    return decode_faults(body, _Envelope) or decode_faults(body, wire.Batch)


def _check_envelope(body: bytes, items: list[bytes]) -> None:
    """Refuse `items` given twice, of which the decoder kept the last: then the brackets hold more than the items.

    What is wrong inside an item is left to the item's own reading, so that it fails alone.
    """
    place, end = body.index(b"[") + 1, body.rindex(b"]")
    if end - place == sum(map(len, items)) + len(items) - 1:
        return
    for item in items:
        place = _past_blanks(body, place)
        if not body.startswith(item, place):
            break
        place = _past_blanks(body, place + len(item)) + 1
    if place - 1 != end:
        raise BatchRefused([wire.Fault("/items", 'the key "items" stands twice in one object')])


def _past_blanks(body: bytes, place: int) -> int:
    blanks = _BLANKS.match(body, place)
    return blanks.end() if blanks else place


def _explained(
    refused: Refused, body: bytes, at: str = "", refusal: type[ProfileRefused | BodyRefused] = ProfileRefused
) -> BodyUnreadable | ProfileRefused | BodyRefused:
    """The refusal that a caller can act on. A body that is no JSON at all is told that first."""
    check_readable(body)
    pointer = at + refused.pointer
    if refused.kind == "depth":
        return BodyUnreadable(f"The body is nested more than {MAX_DEPTH} deep, at {clipped(pointer, 80)}.")
    if refused.kind == "duplicate":
        return refusal([wire.Fault(pointer, f'the key "{clipped(refused.key)}" stands twice in one object')])
    return refusal([wire.Fault(pointer, "text must not hold a NUL character (\\u0000)")])
