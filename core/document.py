"""A YAML file as a tree whose scalars are text and whose every node knows its line.

Plain YAML typing would make `NO` false and `46.90` a number and keep the last of two equal keys, so none of it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import yaml

# PyYAML may be built without libyaml: the same result, slower.
Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 16


class Text(str):
    """A scalar and the line it stands on."""

    line: int


class Sequence(list[Any]):
    """A list and the line it begins on."""

    line: int


class Mapping(dict[str, Any]):
    """A mapping, the line it begins on, and the line of each key."""

    line: int

    def __init__(self) -> None:
        super().__init__()
        self.key_lines: dict[str, int] = {}


class Faults:
    """Every fault of a file, in the order found."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, line: int, where: str, message: str) -> None:
        self.found.append(f"line {line}: {where}: {message}" if where else f"line {line}: {message}")


def read(text: bytes, faults: Faults) -> Any:
    """The tree of one YAML document, or None where it cannot be read.

    Faults are: syntax errors, duplicate keys, tags, anchors and aliases, nesting deeper than MAX_DEPTH, more than
    MAX_BYTES.
    """
    if len(text) > MAX_BYTES:
        faults.add(1, "", f"the file has {len(text):,} bytes; at most {MAX_BYTES:,} are read")
        return None
    builder = _Builder(faults)
    try:
        for event in yaml.parse(text, Loader=Loader):
            builder.take(event)
    except _Unreadable as error:
        faults.add(error.line, "", error.problem)
        return None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        faults.add(mark.line + 1 if mark else 1, "", f"not readable as YAML: {problem}")
        return None
    if builder.root is None:
        faults.add(1, "", "the file is empty")
    return builder.root


class _Unreadable(Exception):
    """A document that is not read any further."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


class _Builder:
    """Makes the tree from the parser's events, so that neither depth nor aliases make more of a file than it holds."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.root: Any = None
        self.open: list[Sequence | Mapping] = []
        self.keys: list[Text | None] = []  # of each open mapping: the key whose value comes next

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise _Unreadable(line, f"aliases (*{event.anchor}) are not read; write the value out")
        if isinstance(event, yaml.NodeEvent):
            self._check(event, line)
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _Unreadable(line, "the file holds more than one document")
        if isinstance(event, yaml.ScalarEvent):
            text = Text(event.value)
            text.line = line
            self._place(text)
        elif isinstance(event, yaml.CollectionStartEvent):
            node = Sequence() if isinstance(event, yaml.SequenceStartEvent) else Mapping()
            node.line = line
            self._place(node)
            self.open.append(node)
            self.keys.append(None)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.open.pop()
            self.keys.pop()

    def _check(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            raise _Unreadable(line, f"anchors (&{event.anchor}) are not read; write the value out where it is needed")
        if event.tag is not None:
            raise _Unreadable(line, f"tags ({event.tag}) are not read; every value is text")
        if isinstance(event, yaml.CollectionStartEvent) and len(self.open) == MAX_DEPTH:
            raise _Unreadable(line, f"nested deeper than {MAX_DEPTH} levels")

    def _place(self, node: Any) -> None:
        """Put a node into the collection that is open."""
        if not self.open:
            self.root = node
            return
        holder = self.open[-1]
        if isinstance(holder, Sequence):
            holder.append(node)
            return
        key = self.keys[-1]
        if key is not None:
            self.keys[-1] = None
            if key in holder:
                first = holder.key_lines[key]
                self.faults.add(key.line, key, f"the key stands twice (first on line {first})")
                return
            holder[str(key)] = node
            holder.key_lines[str(key)] = key.line
        elif isinstance(node, Text):
            self.keys[-1] = node
        else:
            raise _Unreadable(node.line, "a key must be text")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the known word nearest to this one, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


class Section:
    """One mapping being read: keys are taken one by one, and `close` reports those nobody asked for."""

    def __init__(self, node: Any, where: str, faults: Faults) -> None:
        self.where = where
        self.faults = faults
        self.asked: set[str] = set()
        if isinstance(node, Mapping):
            self.node = node
        else:
            self.node = Mapping()
            self.node.line = getattr(node, "line", 1)
            faults.add(self.node.line, where, "must be a mapping")
        self.line = self.node.line

    def fault(self, message: str, key: str | None = None) -> None:
        line = self.node.key_lines.get(key, self.line) if key else self.line
        self.faults.add(line, f"{self.where}.{key}" if key and self.where else key or self.where, message)

    def has(self, key: str) -> bool:
        return key in self.node

    def any(self, key: str, required: bool = True) -> Any:
        self.asked.add(key)
        if key not in self.node:
            if required:
                self.fault(f"the key `{key}` is missing")
            return None
        return self.node[key]

    def text(self, key: str, required: bool = True, default: str = "") -> str:
        value = self.any(key, required)
        if value is None:
            return default
        if not isinstance(value, Text) or not value.strip():
            self.fault("must be text", key)
            return default
        return str(value)

    def flag(self, key: str) -> bool:
        value = self.any(key, required=False)
        if value is None:
            return False
        if value not in ("true", "false"):
            self.fault(f"must be true or false, not {_shown(value)}", key)
        return bool(value == "true")

    def one_of(self, key: str, known: list[str], required: bool = True, default: str = "") -> str:
        value = self.text(key, required, default)
        if value and value != default and value not in known:
            self.fault(f'unknown value "{value}"{nearest(value, known)} (one of {", ".join(known)})', key)
            return default
        return value

    def texts(self, key: str, required: bool = True) -> list[str]:
        """A list of texts; a single text counts as a list of one."""
        value = self.any(key, required)
        if value is None:
            return []
        if isinstance(value, Text):
            return [str(value)]
        if not isinstance(value, Sequence) or not all(isinstance(item, Text) for item in value):
            self.fault("must be a list of texts", key)
            return []
        return [str(item) for item in value]

    def sections(self, key: str, required: bool = True) -> list[Section]:
        """A list of mappings, each named by its `name`, `code`, `level` or place."""
        value = self.any(key, required)
        if value is None:
            return []
        if not isinstance(value, Sequence):
            self.fault("must be a list", key)
            return []
        prefix = f"{self.where}." if self.where else ""
        return [Section(item, f"{prefix}{key}[{_label(item, place)}]", self.faults) for place, item in enumerate(value)]

    def section(self, key: str) -> Section:
        """A mapping; where the key lacks, an empty one."""
        value = self.any(key)
        where = f"{self.where}.{key}" if self.where else key
        if value is None:
            value = Mapping()
            value.line = self.line
        return Section(value, where, self.faults)

    def items(self) -> list[tuple[str, Any]]:
        """Every key and value, all counted as asked for."""
        self.asked.update(self.node)
        return list(self.node.items())

    def close(self) -> None:
        for key in self.node:
            if key not in self.asked:
                self.fault(f"unknown key{nearest(key, sorted(self.asked))}", key)


def _label(item: Any, place: int) -> str:
    if isinstance(item, Mapping):
        for key in ("name", "code", "level", "when"):
            value = item.get(key)
            if isinstance(value, Text):
                return str(value)
    return str(place)


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, Text) else f"a {type(value).__name__.lower()}"
