"""What stands behind the question mark of a URL: read into one structure a route, or refused with every fault.

The reader of a field follows from its type.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct, inspect

from app import wire
from app.errors import FAULT_LIMIT, ParameterRefused, clipped
from app.faults import choices_of, leaf_words, pointer, unknown, without_null

QUERY_BYTES = 4096
QUERY_FIELDS = 32

Q = TypeVar("Q", bound=Struct)

_MOMENT_SCHEMA = {
    "type": "string",
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
}
IdText = Annotated[str, Meta(min_length=1, max_length=128)]
Start = Annotated[
    int,
    Meta(
        description="created at or after: a date (UTC), or a date-time with Z or an offset",
        extra={"moment": "start"},
        extra_json_schema=_MOMENT_SCHEMA,
    ),
]
End = Annotated[
    int,
    Meta(
        description="created before this date-time; a date (UTC) includes that whole day",
        extra={"moment": "end"},
        extra_json_schema=_MOMENT_SCHEMA,
    ),
]
Limit = Annotated[int, Meta(ge=1, le=200, description="how many at most")]
Cursor = Annotated[str, Meta(min_length=1, max_length=256, description="`next_cursor` of the page before")]


class Query(Struct, frozen=True):
    """Base of all queries; itself the query of routes that know no parameter."""


class ReadQuery(Query, frozen=True):
    explain: Annotated[
        wire.Explain, Meta(description="`top`: at most six reasons; `full`: every characteristic and distress model")
    ] = "top"


class AssessQuery(ReadQuery, frozen=True):
    dry_run: Annotated[bool, Meta(description="assess without recording: `id` is null, the answer is 200")] = False


class ListQuery(Query, frozen=True):
    """from_ms, to_ms: milliseconds since 1970, half-open. A plain date as `to` includes that whole day (UTC)."""

    business_id: Annotated[IdText, Meta(description="only of this `business.id`")] | None = None
    level: Annotated[wire.Level, Meta(description="only of this level")] | None = None
    decision: Annotated[wire.Decision, Meta(description="only of this decision")] | None = None
    from_ms: Start | None = msgspec.field(default=None, name="from")
    to_ms: End | None = msgspec.field(default=None, name="to")
    limit: Limit = 50
    cursor: Cursor | None = None


class AuditQuery(Query, frozen=True):
    """from_ms, to_ms: as of ListQuery."""

    act: Annotated[IdText, Meta(description="only of this act, such as `key.created`")] | None = None
    actor: Annotated[IdText, Meta(description="only of the key with this id, or of `cli`, `service`")] | None = None
    assessment: (
        Annotated[
            str,
            Meta(
                min_length=36,
                max_length=36,
                description="only what has the assessment with this id as a subject",
                extra_json_schema={"format": "uuid"},
            ),
        ]
        | None
    ) = None
    from_ms: Start | None = msgspec.field(default=None, name="from")
    to_ms: End | None = msgspec.field(default=None, name="to")
    limit: Limit = 50
    cursor: Cursor | None = None


class CheckpointQuery(Query, frozen=True):
    limit: Limit = 50
    cursor: Cursor | None = None


class DispositionQuery(Query, frozen=True):
    business_id: Annotated[IdText, Meta(description="only of this `business.id`")] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


Score = Annotated[float, Meta(ge=0, le=1)]


class MatchQuery(Query, frozen=True):
    """Unknown parameters are ignored: those of other versions of the interface that this one stands in for."""

    limit: Annotated[int, Meta(ge=1, le=500, description="results of each query at most")] = 5
    threshold: Annotated[Score, Meta(description="from which score on `match` is true; else the model's")] | None = None
    cutoff: (
        Annotated[Score, Meta(description="results below this score are left out; else below 0.5 or the threshold")]
        | None
    ) = None


class HeapQuery(Query, frozen=True):
    seconds: Annotated[
        int, Meta(ge=1, le=10, description="how long; a request takes about three times as much CPU")
    ] = 1
    top: Annotated[int, Meta(ge=1, le=1000, description="how many places at most")] = 50


class ProfileQuery(Query, frozen=True):
    seconds: Annotated[int, Meta(ge=1, le=60, description="how long samples are taken")] = 10
    format: Annotated[
        wire.ProfileFormat,
        Meta(description="`html`: a page with a flame graph; `speedscope`: a file for speedscope.app"),
    ] = "html"


class RotateQuery(Query, frozen=True):
    overlap_s: Annotated[
        int,
        Meta(ge=0, le=wire.LONGEST_OVERLAP_S, description="seconds for which the old key still works; 0 ends it now"),
    ] = 0


class _Wrong(Exception):
    """A parameter's text is not what its reader wants."""


def parse_query(raw: bytes, query_type: type[Q]) -> Q:
    """The query string (without ?) as its typed structure. Raises ParameterRefused with all faults.

    Pointers are /query/<name>. Unknown names are faults, but for those of MatchQuery. Short queries are remembered: the
    few that callers repeat cost one look-up.
    """
    if not raw:
        return query_type()
    found = _remembered(raw, query_type) if len(raw) <= 64 else _parsed(raw, query_type)
    assert isinstance(found, query_type)
    return found


def idempotency_key(raw: bytes) -> str:
    """The header's value: 1 to 255 printable ASCII characters, none of them a blank at an end."""
    if re.fullmatch(rb"[!-~]([ -~]{0,253}[!-~])?", raw) is None:
        raise ParameterRefused([wire.Fault("/header/Idempotency-Key", "expected 1 to 255 printable ASCII characters")])
    return raw.decode("ascii")


def _parsed(raw: bytes, query_type: type[Struct]) -> Struct:
    fields = {f.encode_name: f for f in msgspec.structs.fields(query_type)}
    faults: list[wire.Fault] = []
    values: dict[str, Any] = {}
    for name, text in _pairs(raw):
        field = fields.get(name)
        place = pointer("/query", name)
        if field is None:
            if query_type is not MatchQuery:
                faults.append(unknown("/query", name, fields, "parameter"))
        elif field.name in values:
            faults.append(wire.Fault(place, "given more than once"))
        else:
            values[field.name] = None
            try:
                values[field.name] = _parameter(without_null(field.type)[0], text)
            except _Wrong as wrong:
                faults.append(wire.Fault(place, f'expected {wrong}, got "{clipped(text, 40)}"'))
    if faults:
        raise ParameterRefused(faults[:FAULT_LIMIT])
    return query_type(**values)


_remembered = lru_cache(maxsize=512)(_parsed)


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    if len(raw) > QUERY_BYTES:
        raise ParameterRefused([wire.Fault("/query", f"the query is longer than {QUERY_BYTES:,} bytes")])
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS, separator="&"
        )
    except UnicodeDecodeError:
        raise ParameterRefused([wire.Fault("/query", "the query is not UTF-8 in percent-encoding")]) from None
    except ValueError:
        raise ParameterRefused([wire.Fault("/query", f"more than {QUERY_FIELDS} parameters")]) from None


def _parameter(annotation: Any, text: str) -> Any:
    """The value of one parameter. Raises _Wrong with the words for what it should be."""
    info = inspect.type_info(annotation)
    moment = None
    while isinstance(info, inspect.Metadata):
        moment = (info.extra or {}).get("moment", moment)
        info = info.type
    if moment is not None:
        return _moment_ms(text, end=moment == "end")
    wanted = leaf_words(info, "", choices_of(annotation))
    value: Any = text
    if isinstance(info, inspect.BoolType):
        value = {"true": True, "false": False}.get(text, text)
    elif isinstance(info, inspect.IntType) and re.fullmatch(r"0|-?[1-9][0-9]{0,14}", text, re.ASCII):
        value = int(text)
    elif isinstance(info, inspect.FloatType) and _NUMBER.fullmatch(text):
        value = float(text)
    try:
        value = msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        raise _Wrong(wanted) from None
    if "\0" in text:
        raise _Wrong(wanted + " without NUL")
    return value


_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?")
_DAY_MS = 86_400_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _moment_ms(text: str, *, end: bool) -> int:
    """Milliseconds since 1970. A day counts from its first moment, as an end up to the next day's first."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            day = dt.date.fromisoformat(text)
            return (day.toordinal() - _EPOCH.toordinal() + end) * _DAY_MS
        # An offset's plus sign that was not percent-encoded arrives as a blank.
        text = re.sub(r" (?=\d\d:\d\d$)", "+", text)
        moment: dt.datetime = msgspec.convert(text, Annotated[dt.datetime, Meta(tz=True)])
    except (ValueError, msgspec.ValidationError):
        raise _Wrong("a date such as 2026-11-23, or a date-time with its offset such as 2026-11-23T14:00:00Z") from None
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
