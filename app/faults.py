"""Why a request is refused: all faults of a body, each with its place and what would be right.

The slow path. A body is decoded elsewhere in one step; only when msgspec refuses it, `decode_faults` walks the wire
type and takes the body apart level by level, so that each leaf is judged by msgspec itself and no fault hides another.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Struct, inspect

from app import wire
from app.errors import FAULT_LIMIT, BodyUnreadable, clipped

EXPLAINED_BYTES = 1 << 20
NAME_CHARS = 60
LISTED_NAMES = 8

_skim = msgspec.json.Decoder(msgspec.Raw).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode

_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Leaf(Struct, frozen=True):
    """A value without parts. wanted: what it should be, in words; choices: the allowed texts of an enumeration."""

    decode: Any
    wanted: str
    choices: tuple[str, ...] = ()
    number: bool = False


class Array(Struct, frozen=True):
    item: Node
    least: int
    most: int | None
    nullable: bool
    wanted: str


class Object(Struct, frozen=True):
    """members: by name in JSON, in the type's order. required: names that must be there."""

    members: dict[str, Node]
    required: tuple[str, ...]
    closed: bool
    nullable: bool
    wanted: str


class Map(Struct, frozen=True):
    """An object whose members have names of the sender's own, all of one kind."""

    item: Node
    least: int
    nullable: bool
    wanted: str


Node = Leaf | Array | Object | Map


def decode_faults(body: bytes, wire_type: Any, at: str = "") -> list[wire.Fault]:
    """Up to 20 faults for which msgspec refuses `body` as `wire_type`; empty when it does not.

    at: pointer of the body within the document sent, as for an item of a batch. Time is linear in the body.
    Raises BodyUnreadable when it is no JSON at all.
    """
    check_readable(body)
    found: list[wire.Fault] = []
    if len(body) <= EXPLAINED_BYTES:
        found = list(islice(_faults(plan(wire_type), body, at), FAULT_LIMIT))
    return found or _first_complaint(body, wire_type, at)


def check_readable(body: bytes) -> None:
    """Raise BodyUnreadable, with the reason in plain words, unless the body is one JSON document in UTF-8."""
    if not body.strip(b" \t\r\n"):
        raise BodyUnreadable("The body is empty.")
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise BodyUnreadable("The body begins with a byte order mark (BOM). Send JSON in UTF-8 without one.")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BodyUnreadable(f"The body is not UTF-8: byte {error.start} cannot be read.") from None
    try:
        _skim(body)
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise BodyUnreadable(_unreadable(body, str(error))) from None


def pointer(at: str, name: str | int) -> str:
    """The RFC 6901 pointer of a member or item of what stands at `at`."""
    return f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}"


@cache
def plan(wire_type: Any) -> Node:
    """What to check, made once per type from its annotations. The type must be a tree."""
    annotation, nullable = without_null(wire_type)
    info = inspect.type_info(annotation)
    note = ""
    while isinstance(info, inspect.Metadata):
        note = (info.extra_json_schema or {}).get("description", note)
        info = info.type
    if isinstance(info, inspect.StructType):
        fields = msgspec.structs.fields(info.cls)
        required = tuple(f.encode_name for f in fields if f.required)
        return Object(
            members={f.encode_name: plan(f.type) for f in fields},
            required=required,
            closed=info.forbid_unknown_fields,
            nullable=nullable,
            wanted="an object with " + " and ".join(required) if required else "an object",
        )
    if isinstance(info, inspect.ListType):
        size = _range_words(info.min_length, info.max_length, "items")
        return Array(
            item=plan(typing.get_args(_bare(annotation))[0]),
            least=info.min_length or 0,
            most=info.max_length,
            nullable=nullable,
            wanted=f"a list{size}",
        )
    if isinstance(info, inspect.DictType):
        size = _range_words(info.min_length, info.max_length, "members")
        item = plan(typing.get_args(_bare(annotation))[1])
        return Map(item, least=info.min_length or 0, nullable=nullable, wanted=f"an object{size}")
    choices = choices_of(annotation)
    return Leaf(
        decode=msgspec.json.Decoder(wire_type).decode,
        wanted=leaf_words(info, note, choices),
        choices=choices,
        number=isinstance(info, inspect.IntType | inspect.FloatType),
    )


def _faults(node: Node, raw: bytes | msgspec.Raw, at: str) -> Iterator[wire.Fault]:
    first = bytes(memoryview(raw)[:64]).lstrip()[:1]
    if isinstance(node, Leaf):
        try:
            node.decode(raw)
        except msgspec.DecodeError:
            yield wire.Fault(at, f"expected {node.wanted}, got {_shown(raw)}{_hint(node, raw)}")
    elif first == b"n" and node.nullable:
        return
    elif isinstance(node, Array):
        yield from _array_faults(node, raw, at) if first == b"[" else _misfit(node, raw, at)
    elif isinstance(node, Map):
        yield from _map_faults(node, raw, at) if first == b"{" else _misfit(node, raw, at)
    else:
        yield from _object_faults(node, raw, at) if first == b"{" else _misfit(node, raw, at)


def _array_faults(node: Array, raw: bytes | msgspec.Raw, at: str) -> Iterator[wire.Fault]:
    items = _items(raw)
    if len(items) < node.least or (node.most is not None and len(items) > node.most):
        yield wire.Fault(at, f"expected {node.wanted}, got {len(items):,}")
        return
    for index, item in enumerate(items):
        yield from _faults(node.item, item, pointer(at, index))


def _object_faults(node: Object, raw: bytes | msgspec.Raw, at: str) -> Iterator[wire.Fault]:
    members = _members(raw)
    for name in node.required:
        if name not in members:
            yield wire.Fault(pointer(at, name), "required, but missing")
    for name, member in members.items():
        known = node.members.get(name)
        if known is not None:
            yield from _faults(known, member, pointer(at, name))
        elif node.closed:
            yield unknown(at, name, node.members)


def _map_faults(node: Map, raw: bytes | msgspec.Raw, at: str) -> Iterator[wire.Fault]:
    members = _members(raw)
    if len(members) < node.least:
        yield wire.Fault(at, f"expected {node.wanted}, got {len(members):,}")
    for name, member in members.items():
        yield from _faults(node.item, member, pointer(at, name) if len(name) <= NAME_CHARS else at)


def _misfit(node: Array | Object | Map, raw: bytes | msgspec.Raw, at: str) -> Iterator[wire.Fault]:
    yield wire.Fault(at, f"expected {node.wanted}, got {_shown(raw)}")


def unknown(at: str, name: str, known: Iterable[str], what: str = "field") -> wire.Fault:
    """The pointer names the unknown member itself, or what holds it when its name is too long to repeat."""
    place = pointer(at, name) if len(name) <= NAME_CHARS else at
    names = list(known)
    near = nearest(name, names)
    listed = f"; known here: {', '.join(names)}" if 0 < len(names) <= LISTED_NAMES else ""
    hint = f"; did you mean {near}?" if near else listed
    return wire.Fault(place, f'unknown {what} "{clipped(name, 40)}"{hint}')


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be; camelCase and dashes count as close."""
    if len(name) > NAME_CHARS:
        return None
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()
    return next(iter(difflib.get_close_matches(snake, list(known), n=1, cutoff=0.6)), None)


def _first_complaint(body: bytes, wire_type: Any, at: str) -> list[wire.Fault]:
    """msgspec's own first complaint: for bodies too large to take apart, and what the walk does not know."""
    try:
        msgspec.json.decode(body, type=wire_type)
    except msgspec.DecodeError as error:
        match = _PLACE.match(str(error))
        what, path = (match["what"], match["path"] or "") if match else (str(error), "")
        for name, index in _STEP.findall(path):
            at = pointer(at, name or index)
        return [wire.Fault(at, clipped(what.replace("`", "").lower(), 160))]
    return []


def _unreadable(body: bytes, message: str) -> str:
    if _HALF_PAIR.search(body) and ("surrogate" in message or "truncated" in message):
        return "The body holds half of a surrogate pair (such as \\ud800 alone), which is no character."
    if "truncated" in message:
        return "The body ends before its JSON is complete."
    found = re.search(r"\(byte (\d+)\)", message)
    place = int(found[1]) if found else 0
    if body[place : place + 8].startswith((b"NaN", b"Inf", b"nan", b"inf")):
        return f"NaN and Infinity are not JSON (byte {place}). Leave out what is not known, or send null."
    reason = message.removeprefix("JSON is malformed: ").split(" (byte")[0]
    return f"The body is not JSON: {reason} at byte {place}."


def without_null(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = tuple(a for a in typing.get_args(annotation) if a is not types.NoneType)
        return typing.Union[rest], len(rest) < len(typing.get_args(annotation))  # noqa: UP007
    return annotation, False


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of an enumeration in the order of its type; msgspec sorts them."""
    bare = _bare(annotation)
    return tuple(map(str, typing.get_args(bare))) if typing.get_origin(bare) is typing.Literal else ()


def leaf_words(info: inspect.Type, note: str, choices: tuple[str, ...]) -> str:
    if choices:
        return "one of " + ", ".join(choices)
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.DateType():
            return "a day of the calendar, written YYYY-MM-DD"
        case inspect.IntType(ge=low, le=high):
            return "a whole number" + _range_words(low, high, "", "from")
        case inspect.FloatType(ge=low, le=high, multiple_of=step):
            return ("a whole number" if step == 1 else "a number") + _range_words(low, high, "", "from")
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            size = _range_words(low, high, "characters")
            return f"text{size}" + (f" matching {pattern}" if pattern else "") + (f" ({note})" if note else "")
        case _:
            return note or type(info).__name__.removesuffix("Type").lower()


def _range_words(low: float | None, high: float | None, unit: str, start: str = "of") -> str:
    if low is None and high is None:
        return ""
    if high is None:
        words = f" {start} at least {_figure(low)}"
    elif low is None:
        words = f" {start} at most {_figure(high)}"
    else:
        words = f" {start} {_figure(low)} to {_figure(high)}"
    return f"{words} {unit}".rstrip()


def _figure(value: float | None) -> str:
    return f"{int(value):,}" if value is not None and value == int(value) else str(value)


def _shown(raw: bytes | msgspec.Raw) -> str:
    """A value as it may be repeated to its sender: its kind, and at most 40 characters of it."""
    value = bytes(raw).strip()
    match value[:1]:
        case b"{":
            return "an object"
        case b"[":
            return "a list"
        case b'"':
            text = _text(value)
            return f'"{clipped(text, 40)}"' + (f" ({len(text):,} characters)" if len(text) > 40 or not text else "")
        case _ if len(value) > 40:
            return f"a number written with {len(value):,} characters"
        case _:
            return value.decode()


def _hint(node: Leaf, raw: bytes | msgspec.Raw) -> str:
    """What the sender probably meant."""
    value = bytes(memoryview(raw)[:64]).strip()
    if node.choices and value.startswith(b'"') and len(raw) <= 64:
        near = nearest(_text(value), node.choices)
        return f"; did you mean {near}?" if near else ""
    if node.number and re.fullmatch(rb'"-?\d+(\.\d+)?"', value):
        return "; write it without quotation marks"
    if node.number and re.fullmatch(rb"-?\d+\.0+", value):
        return "; write it without a decimal point"
    return ""
