"""The columns of a CSV file: which field of a profile each names, and how the text of a cell becomes its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.faults import nearest
from app.registry import CATALOGUE
from core.catalogue import INDUSTRY_FIELDS
from core.prescan import Prescan, Refused

MAX_INDEX = 499
MAX_DIGITS = 40

_INDEX = re.compile(r"\.(0|[1-9][0-9]{0,3})(?=\.|$)")
_BRACKETS = re.compile(r"\[([0-9]{1,4})\]")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Read = Callable[[str], Any]


class CellWrong(Exception):
    """A cell that its field cannot take; the text says what it should be."""


@dataclass(frozen=True, slots=True)
class Column:
    """name: dotted, as in the header. parents: steps to the structure that holds `key`; numbers are list indexes."""

    name: str
    parents: tuple[str | int, ...]
    key: str | int
    read: Read | None

    @property
    def pointer(self) -> str:
        return "/" + self.name.replace(".", "/")


def columns(header: Iterable[str]) -> tuple[list[Column], list[str]]:
    """The columns of a header, and what is wrong with it."""
    found: list[Column] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for place, cell in enumerate(header, 1):
        name = _BRACKETS.sub(r".\1", cell.strip())
        if name in seen:
            faults.append(f'the column "{name}" stands twice, as number {seen[name]} and {place}')
            continue
        seen[name] = place
        column = _column(name, place)
        if isinstance(column, str):
            faults.append(column)
        else:
            found.append(column)
    for column in found:
        inner = next((name for name in seen if name.startswith(f"{column.name}.")), None)
        if inner is not None:
            faults.append(f'the columns "{column.name}" and "{inner}" both give {column.name}; keep one way')
    faults += [
        f'the column "{name}" is missing' for name in ("business.name", "business.jurisdiction") if name not in seen
    ]
    return found, faults


def _column(name: str, place: int) -> Column | str:
    if not name:
        return f"column {place} has no name"
    path = _INDEX.sub("[]", name)
    if path not in _READERS:
        if path in _GROUPS:
            inner = next(field for field in _READERS if field.startswith(f"{path}."))
            return f'the column "{name}" is a group; name its fields, such as {inner.replace("[]", ".0")}'
        near = nearest(path.replace("[]", ".0"), [field.replace("[]", ".0") for field in _READERS])
        return f'unknown column "{name}"' + (f"; did you mean {near}?" if near else "")
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in name.split(".")]
    if any(isinstance(step, int) and step > MAX_INDEX for step in steps):
        return f'the column "{name}" counts beyond {MAX_INDEX}'
    return Column(name, tuple(steps[:-1]), steps[-1], _READERS[path])


def _number(text: str) -> int | float:
    """Whole numbers stay whole, also those that a spreadsheet wrote as 57.0."""
    if not _NUMBER.fullmatch(text) or len(text) > MAX_DIGITS:
        if text.lower() in ("nan", "inf", "-inf", "infinity", "n/a", "na", "null", "none", "-"):
            raise CellWrong("expected a number; leave the cell empty where it is not known")
        if re.fullmatch(r"[-+]?[0-9.,'\u00a0\u202f ]+", text):
            raise CellWrong("expected a number with a point for decimals and nothing between thousands")
        raise CellWrong("expected a number")
    if text.lstrip("+-").isdigit():
        return int(text)
    value = float(text)
    if value - value != 0:
        raise CellWrong("expected a finite number")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise CellWrong("expected true or false (also yes/no, 1/0)") from None


def _texts(text: str) -> list[str]:
    """A list in one cell: words between ; or |, and [] for an empty list."""
    if text == "[]":
        return []
    return [word for part in text.split("|") for word in map(str.strip, part.split(";")) if word]


def _list_of_structures(text: str) -> Any:
    """A JSON list: the one way to write an empty one."""
    try:
        Prescan().check(text.encode("utf-8"))
        value = msgspec.json.decode(text)
    except (Refused, msgspec.MsgspecError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise CellWrong("expected a JSON list such as [] (or use columns with numbers)")
    return value


def _readers() -> dict[str, Read | None]:
    """Every field that a column can name, lists with [], and how its cells are read; None takes the text as it is."""
    by_kind: dict[str, Read | None] = {"number": _number, "flag": _flag}
    readers: dict[str, Read | None] = {}
    for path, field in CATALOGUE.fields.items():
        if path.startswith("evidence.") or field.kind == "struct":
            continue
        if field.kind == "industry":
            readers |= {f"{path}.{inner}": None for inner in INDUSTRY_FIELDS}
        elif field.kind == "list":
            readers[path] = _texts if field.item is None else _list_of_structures
        else:
            readers[path] = by_kind.get(field.kind)
    return readers


_READERS = _readers()
_GROUPS = {path[:at] for path in _READERS for at in range(len(path)) if path[at] == "."}
