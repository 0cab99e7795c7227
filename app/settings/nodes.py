"""One mapping of a settings file, read key by key: for settings that are not single values under a section."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, TypeVar

import yaml
from msgspec import json

from app.settings.kinds import Kind, Malformed
from app.settings.sources import Fault, is_null, named

Value = TypeVar("Value")

DEFAULT = "default"
MAX_DEPTH = 16
MAX_NODES = 1000

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?")
_PLAIN = {"true": True, "false": False, "null": None}


class Outline:
    """What is found while reading: faults, and what is in force as (dotted name, text to be shown, origin)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: list[Fault] = []
        self.shown: list[tuple[str, str, str]] = []
        self.nodes = 0

    def origin(self, node: yaml.Node) -> str:
        return f"file {self.path}:{node.start_mark.line + 1}"

    def fault(self, node: yaml.Node, where: str, problem: str, remedy: str) -> None:
        self.faults.append(Fault(f"{self.origin(node)}: {where}", problem, remedy))


class Entries:
    """The keys of one mapping, each taken once; `close` finds those that nobody took.

    where: its dotted name.  known: all keys there are, None where they are names that the file chooses.
    """

    def __init__(self, node: yaml.Node, where: str, outline: Outline, known: Iterable[str] | None) -> None:
        self.where = where
        self.outline = outline
        self.node = node
        self.known = None if known is None else tuple(known)
        self.found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if not isinstance(node, yaml.MappingNode):
            wanted = "names with what each stands for" if self.known is None else f"of {', '.join(self.known)}"
            outline.fault(node, where, "must be a mapping", f"give keys and values, {wanted}")
            return
        for key, value in node.value:
            self._take(key, value)

    def _take(self, key: yaml.Node, value: yaml.Node) -> None:
        if not isinstance(key, yaml.ScalarNode):
            self.outline.fault(key, self.where, "a key must be a name", "give one word")
            return
        where = f"{self.where}.{named(key.value)}"
        if key.value in self.found:
            first = self.found[key.value][0].start_mark.line + 1
            self.outline.fault(key, where, f"given twice, first on line {first}", "remove one of the two")
        elif self.known is not None and key.value not in self.known:
            close = get_close_matches(key.value, self.known, n=1, cutoff=0.5)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(self.known)}"
            self.outline.fault(key, where, "unknown key", remedy)
        else:
            self.found[key.value] = key, value

    def __iter__(self) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Name, key and value of each entry."""
        for name, (key, value) in self.found.items():
            yield name, key, value

    def has(self, name: str) -> bool:
        """Whether the key stands there with a value."""
        return name in self.found and not is_null(self.found[name][1])

    def inner(self, name: str, known: Iterable[str] | None) -> Entries | None:
        """The mapping under a key; None where it is not given."""
        if not self.has(name):
            return None
        return Entries(self.found[name][1], f"{self.where}.{name}", self.outline, known)

    def fault(self, name: str | None, problem: str, remedy: str) -> None:
        """Something wrong with the value of a key, or with the whole."""
        node = self.found[name][0] if name in self.found else self.node
        self.outline.fault(node, f"{self.where}.{named(name)}" if name else self.where, problem, remedy)

    def value(self, name: str, kind: Kind, default: str | None = None) -> Any:
        """The value of a key; None where it is wrong, or neither given nor has a default."""
        if self.has(name):
            text = self.text(name, kind.right)
            return None if text is None else self.read(name, text, kind.parse, kind.show, kind.right)
        if default is None:
            return None
        self.outline.shown.append((f"{self.where}.{name}", default, DEFAULT))
        return kind.parse(default)

    def required(self, name: str, kind: Kind) -> Any:
        """The value of a key that must be there; None where it is wrong."""
        if not self.has(name):
            self.fault(None, f"the key {name} is missing", f"give {kind.right}")
            return None
        return self.value(name, kind)

    def text(self, name: str, right: str) -> str | None:
        """The text of a key that is there; None where it is not a single value."""
        node = self.found[name][1]
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self.fault(name, "must be a single value", f"give {right}")
        return None

    def read(
        self, name: str, text: str, parse: Callable[[str], Value], show: Callable[[Value], str], right: str
    ) -> Value | None:
        """A text parsed, and noted to be shown; None where it cannot be."""
        try:
            value = parse(text)
        except Malformed as error:
            self.fault(name, str(error), f"give {right}")
            return None
        self.note(name, show(value))
        return value

    def note(self, name: str, shown: str) -> None:
        """What is in force under a key, as it may be shown."""
        self.outline.shown.append((f"{self.where}.{named(name)}", shown, self.outline.origin(self.found[name][0])))


def plain(node: yaml.ScalarNode) -> Any:
    """A scalar as JSON has it: true, false, null and numbers where they stand without quotes, else a text.

    YAML's own reading would make `NO` false.
    """
    text = str(node.value)
    if node.style is None:
        if text in _PLAIN:
            return _PLAIN[text]
        if _NUMBER.fullmatch(text):
            return json.decode(text)
    return text


def tree(node: yaml.Node, where: str, outline: Outline, leaf: Callable[[str], Any], depth: int = 0) -> Any:
    """A JSON tree, with `leaf` applied to each text. Raises nothing: what is wrong is a fault, and None in the tree."""
    # An alias stands for its node again, so that few lines can mean a tree without end.
    outline.nodes += 1
    if outline.nodes > MAX_NODES:
        if outline.nodes == MAX_NODES + 1:
            outline.fault(node, where, f"there are more than {MAX_NODES} values", "give a smaller tree")
        return None
    if depth > MAX_DEPTH:
        outline.fault(node, where, f"nested deeper than {MAX_DEPTH} levels", "give a flatter tree, without aliases")
        return None
    if isinstance(node, yaml.ScalarNode):
        value = plain(node)
        if not isinstance(value, str):
            return value
        try:
            return leaf(value)
        except Malformed as error:
            outline.fault(node, where, str(error), "give fields of the profile in braces, such as {business.name}")
            return None
    if isinstance(node, yaml.SequenceNode):
        return [tree(item, f"{where}.{place}", outline, leaf, depth + 1) for place, item in enumerate(node.value)]
    entries = Entries(node, where, outline, None)
    return {name: tree(value, f"{where}.{named(name)}", outline, leaf, depth + 1) for name, _, value in entries}
