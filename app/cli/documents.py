"""JSON and NDJSON as rows of profiles."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from app import wire
from app.cli.exits import Stopped
from app.cli.source import Line, Row, Source
from app.errors import BodyTooLarge, BodyUnreadable, Refusal
from app.faults import check_readable, nearest
from app.profiles import read_profile
from core.prescan import Prescan, Refused

DOCUMENT_BYTES = 256 << 20
SLICE_ROWS = 256

_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def ndjson(source: Source, limit_bytes: int) -> Iterator[list[Row]]:
    """One profile a line; empty lines are passed over."""
    for lines in source.lines(limit_bytes):
        rows = [_row(line, limit_bytes) for line in lines if line.text and not line.text.isspace()]
        for start in range(0, len(rows), SLICE_ROWS):
            yield rows[start : start + SLICE_ROWS]


def document(source: Source, limit_bytes: int) -> tuple[bool, Iterator[list[Row]]]:
    """One JSON document: whether it is a single profile, and its rows. Raises Stopped where it is no JSON at all."""
    body = source.whole(DOCUMENT_BYTES)
    if body is None:
        largest = f"{DOCUMENT_BYTES >> 20} MiB"
        raise Stopped(f"{source.name} is larger than {largest}; write it as NDJSON, one profile a line")
    try:
        check_readable(body)
    except BodyUnreadable as error:
        raise Stopped(f"{source.name}: {said_of(error, 'the file')}") from None
    start = len(body) - len(body.lstrip())
    if body[start : start + 1] == b"[":
        return False, _listed(body, body, start, limit_bytes)
    if body[start : start + 1] == b"{":
        members = _members(body)
        if "items" in members and "business" not in members:
            return False, _enveloped(source.name, body, members, limit_bytes)
    return True, iter([[_row(Line(1, body), limit_bytes)]])


def said_of(refusal: Refusal, what: str) -> str:
    """The refusal's sentence with the body called what it is here."""
    return refusal.detail.replace("The body's", f"{what}'s", 1).replace("The body", what, 1)


def _row(line: Line, limit_bytes: int) -> Row:
    if len(line.text) > limit_bytes and len(line.text.removesuffix(b"\r")) > limit_bytes:
        return Row(line.number, None, BodyTooLarge(limit_bytes))
    try:
        return Row(line.number, read_profile(line.text))
    except Refusal as refusal:
        return Row(line.number, None, refusal)


def _enveloped(name: str, body: bytes, members: dict[str, msgspec.Raw], limit_bytes: int) -> Iterator[list[Row]]:
    listed = bytes(members["items"])
    at = body.rfind(listed)
    for member in members:
        if member != "items":
            near = nearest(member, list(wire.Batch.__struct_fields__))
            hint = f"; did you mean {near}?" if near else "; a batch holds items alone"
            raise Stopped(f'{name}: unknown field "{member}" beside items{hint}')
    try:
        Prescan().check(body[:at] + b"0" + body[at + len(listed) :])
    except Refused as refused:
        raise Stopped(f'{name}: the key "{refused.key}" stands twice') from None
    if not listed.startswith(b"["):
        raise Stopped(f"{name}: items must be a list of profiles")
    yield from _listed(body, listed, at, limit_bytes)


def _listed(body: bytes, listed: bytes, at: int, limit_bytes: int) -> Iterator[list[Row]]:
    """The members of a list that stands at `at` of the body, each with the line it begins on."""
    rows = []
    number, counted = 1, 0
    for raw in _items(listed):
        text = bytes(raw)
        at = body.index(text, at)
        number += body.count(b"\n", counted, at)
        counted, at = at, at + len(text)
        rows.append(_row(Line(number, text), limit_bytes))
        if len(rows) == SLICE_ROWS:
            yield rows
            rows = []
    yield rows
