"""The fields a model may read, taken from the types of profile and evidence: the only description of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from msgspec import inspect

Kind = Literal["number", "flag", "category", "text", "date", "country", "industry", "struct", "list"]

INDUSTRY_FIELDS = ("scheme", "code")


class UnknownPath(Exception):
    """A path that names no field. `nearest` is a field's path that looks like it, or empty."""

    def __init__(self, path: str, nearest: str) -> None:
        super().__init__(path)
        self.path = path
        self.nearest = nearest


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where it stands, what it holds, and the struct type that owns it.

    steps: attribute names from the root; a step that ends in `[]` goes into a list's members.
    shape: of a text that is a code: `A` stands for a letter A to Z, `9` for a digit, `X` for either.
    """

    path: str
    kind: Kind
    steps: tuple[str, ...]
    owner: type
    values: tuple[str, ...] = ()
    item: type | None = None
    required: bool = False
    shape: str = ""

    @property
    def in_list(self) -> bool:
        """True when the path goes into a list, so that a profile holds many values of it."""
        return "[]" in self.path


class Catalogue:
    """All fields of a profile type, and of an evidence type under `evidence`."""

    def __init__(self, profile: type, evidence: type) -> None:
        self.profile = profile
        self.evidence = evidence
        self.fields: dict[str, Field] = {}
        for field in (*_walk(profile, "", ()), *_walk(evidence, "evidence.", ())):
            self.fields[field.path] = field

    def field(self, path: str) -> Field:
        """The field a path names. Raises UnknownPath."""
        found = self.fields.get(path)
        if found is None:
            close = get_close_matches(path, self.fields, n=1, cutoff=0.6)
            raise UnknownPath(path, close[0] if close else "")
        return found

    def of_kind(self, kind: Kind) -> list[Field]:
        return [field for field in self.fields.values() if field.kind == kind]

    def members(self, list_path: str) -> dict[str, Field]:
        """The fields of a list's members, by their name within the member."""
        prefix = f"{list_path}."
        return {path[len(prefix) :]: field for path, field in self.fields.items() if path.startswith(prefix)}


def _walk(struct: type, prefix: str, steps: tuple[str, ...]) -> Iterator[Field]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        path = f"{prefix}{field.name}"
        here = (*steps, field.name)
        yield from _field(struct, field.required, path, here, _stripped(field.type))


def _field(
    owner: type, required: bool, path: str, steps: tuple[str, ...], of: tuple[Any, dict[str, Any]]
) -> Iterator[Field]:
    info, extra = of
    if isinstance(info, inspect.StructType):
        if tuple(f.name for f in info.fields) == INDUSTRY_FIELDS:
            yield Field(path, "industry", steps, owner, item=info.cls, required=required)
            return
        yield Field(path, "struct", steps, owner, item=info.cls, required=required)
        yield from _walk(info.cls, f"{path}.", steps)
    elif isinstance(info, inspect.ListType):
        member, member_extra = _stripped(info.item_type)
        item = member.cls if isinstance(member, inspect.StructType) else None
        yield Field(path, "list", steps, owner, item=item, required=required)
        into = (*steps[:-1], f"{steps[-1]}[]")
        if item is not None:
            yield Field(f"{path}[]", "struct", into, owner, item=item)
            yield from _walk(item, f"{path}[].", into)
        else:
            yield from _field(owner, False, f"{path}[]", into, (member, member_extra))
    else:
        values = tuple(str(value) for value in info.values) if isinstance(info, inspect.LiteralType) else ()
        shape = extra.get("shape", "")
        yield Field(path, _scalar_kind(info, extra), steps, owner, values=values, required=required, shape=shape)


def _stripped(info: Any) -> tuple[Any, dict[str, Any]]:
    """A type without its optionality and metadata, and the metadata's `extra`."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(info, inspect.Metadata):
            extra |= info.extra or {}
            info = info.type
        elif isinstance(info, inspect.UnionType):
            (info,) = (member for member in info.types if not isinstance(member, inspect.NoneType))
        else:
            return info, extra


def _scalar_kind(info: Any, extra: dict[str, Any]) -> Kind:
    if extra.get("kind") == "country":
        return "country"
    if isinstance(info, inspect.BoolType):
        return "flag"
    if isinstance(info, inspect.LiteralType):
        return "category"
    if isinstance(info, (inspect.IntType, inspect.FloatType)):
        return "number"
    if isinstance(info, inspect.DateType):
        return "date"
    if isinstance(info, inspect.StrType):
        return "text"
    raise TypeError(f"a field of type {info} cannot be read by a model")
