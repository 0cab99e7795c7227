"""A YAML file as a tree whose scalars are text and whose every node knows its line.

Plain YAML typing would make `NO` false and `46.90` a number and keep the last of two equal keys, so none of it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import yaml

try:
    from yaml import CBaseLoader as Loader
except ImportError:  # PyYAML built without libyaml: the same result, slower
    from yaml import BaseLoader as Loader  # type: ignore[assignment]


class Text(str):
    """A scalar and the line it stands on."""

    line: int


class Sequence(list[Any]):
    """A list and the line it begins on."""

    line: int


class Mapping(dict[str, Any]):
    """A mapping, the line it begins on, and the line of each key."""

    line: int
    key_lines: dict[str, int]


class Faults:
    """Every fault of a file, in the order found."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, line: int, where: str, message: str) -> None:
        self.found.append(f"line {line}: {where}: {message}" if where else f"line {line}: {message}")


def read(text: bytes, faults: Faults) -> Any:
    """The tree of one YAML document, or None. Syntax errors, duplicate keys, tags and aliases are faults."""
    try:
        node = yaml.compose(text, Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        faults.add(mark.line + 1 if mark else 1, "", f"not readable as YAML: {problem}")
        return None
    if node is None:
        faults.add(1, "", "the file is empty")
        return None
    return _tree(node, faults, set())


def _tree(node: yaml.Node, faults: Faults, open_nodes: set[int]) -> Any:
    line = node.start_mark.line + 1
    if id(node) in open_nodes:
        faults.add(line, "", "a node contains itself")
        return Text("")
    if isinstance(node, yaml.ScalarNode):
        text = Text(node.value)
        text.line = line
        return text
    open_nodes.add(id(node))
    result: Any
    if isinstance(node, yaml.SequenceNode):
        result = Sequence(_tree(child, faults, open_nodes) for child in node.value)
    else:
        result = Mapping()
        result.key_lines = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                faults.add(key_line, "", "a key must be text")
                continue
            key = key_node.value
            if key in result:
                faults.add(key_line, key, f"the key stands twice (first on line {result.key_lines[key]})")
                continue
            result[key] = _tree(value_node, faults, open_nodes)
            result.key_lines[key] = key_line
    result.line = line
    open_nodes.discard(id(node))
    return result


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
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
            self.node.key_lines = {}
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
            value.line, value.key_lines = self.line, {}
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
