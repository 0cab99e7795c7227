"""The places settings come from, each as a stream of named texts and of faults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

import yaml
from msgspec import Struct

from app.settings.kinds import quoted
from app.settings.tree import KEYS, SECTIONS

FILE_LIMIT_BYTES = 1 << 20
NESTED = ("providers",)
"""Sections that hold more than single values."""

_ALIASES = {f"{name.partition('.')[0]}.{key.alias}": name for name, key in KEYS.items() if key.alias}
_NAMES = {**{name: name for name in KEYS}, **_ALIASES}

# A value may be a secret, so no message repeats what can be one: an unquoted value that begins with * or ! is an alias
# or a tag to YAML, and one whose colon lacks its space is the rest of a key.
_REPEATED = re.compile(r" '[\w!-]{2,}'")
_NO_WORD = re.compile(r"[^\w.<>-]")
_LONGEST_WORD = 64


class Fault(Struct, frozen=True):
    """One thing wrong: where it stands, what is wrong, what would be right."""

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.remedy}"


class Given(Struct, frozen=True):
    """A text given for a setting, None = no value. `origin` is what an operator is shown, `where` what faults name."""

    name: str
    text: str | None
    origin: str
    where: str


class Nested(Struct, frozen=True):
    """A section of a file that is read as a whole, from its node. path: the file's."""

    section: str
    node: yaml.Node
    path: str


def from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    """The variables that belong to a setting; all others are none of our business."""
    for name, key in KEYS.items():
        if key.env is not None and key.env in environ:
            origin = f"environment {key.env}"
            yield Given(name, environ[key.env], origin, origin)


def from_options(options: Mapping[str, object]) -> Iterator[Given | Fault]:
    """Dotted names with the values of command-line options; None is an option not given."""
    for name, value in options.items():
        if name not in KEYS:
            yield Fault(f"option {name}", "there is no such setting", _remedy(name, KEYS))
        elif value is not None:
            origin = f"option {KEYS[name].option or name}"
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield Given(name, text, origin, origin)


def from_file(path: str, asked_by: str) -> Iterator[Given | Nested | Fault]:
    """The settings of a YAML file, named in origins as `file path:line`. `asked_by` names what chose the file."""
    try:
        if not path:
            raise ValueError("it is empty")
        with Path(path).open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
        if len(content) > FILE_LIMIT_BYTES:
            raise ValueError(f"is larger than {FILE_LIMIT_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Fault(f"file {path}", f"byte {error.start} is not UTF-8", "save the file as UTF-8")
        return
    except (OSError, ValueError) as error:
        problem = f"{quoted(path, 4096)} cannot be read: {getattr(error, 'strerror', None) or error}"
        yield Fault(asked_by, problem, "give the path of a readable YAML file")
        return
    yield from _from_text(text, path)


def _from_text(text: str, path: str) -> Iterator[Given | Nested | Fault]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = _REPEATED.sub("", error.problem or "")
        yield Fault(f"file {path}{line}", f"not readable as YAML: {problem}", "correct the line")
        return
    except yaml.YAMLError as error:
        yield Fault(f"file {path}", f"not readable as YAML: {str(error).splitlines()[0]}", "remove the character")
        return
    except RecursionError:
        yield Fault(f"file {path}", "the nesting is too deep", "give sections that hold keys")
        return
    if root is None:
        return
    for section, node, origin in _entries(root, "", path):
        if isinstance(section, Fault):
            yield section
        elif section in NESTED:
            if not is_null(node):
                yield Nested(section, node, path)
        elif section not in SECTIONS:
            yield Fault(f"{origin}: {section}", "unknown section", _remedy(section, SECTIONS))
        elif not is_null(node):
            for name, value, value_origin in _entries(node, section, path):
                yield name if isinstance(name, Fault) else _given(name, value, value_origin)


def _given(name: str, node: yaml.Node, origin: str) -> Given | Fault:
    where = f"{origin}: {name}"
    if name not in _NAMES:
        return Fault(where, "unknown key", _remedy(name, _NAMES))
    if not isinstance(node, yaml.ScalarNode):
        return Fault(where, "must be a single value", f"give {KEYS[_NAMES[name]].kind.right}")
    return Given(_NAMES[name], None if is_null(node) else node.value, origin, where)


def _entries(node: yaml.Node, section: str, path: str) -> Iterator[tuple[str | Fault, yaml.Node, str]]:
    """Dotted name, value and origin of a mapping's entries. A key given again, or under its alias, is a fault."""
    here = f"file {path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        where = f"{here}: {section}" if section else here
        keys = (
            ", ".join(name for name in KEYS if name.startswith(f"{section}."))
            if section
            else ", ".join((*SECTIONS, *NESTED))
        )
        yield Fault(where, "must be a mapping", f"give keys and values, of {keys}"), node, here
        return
    first_line: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        origin = f"file {path}:{line}"
        if not isinstance(key, yaml.ScalarNode):
            yield Fault(origin, "a key must be a name", "give one word"), value, origin
            continue
        name = f"{section}.{named(key.value)}" if section else named(key.value)
        meant = _NAMES.get(name, name)
        if meant in first_line:
            problem = f"given twice, first on line {first_line[meant]}"
            yield Fault(f"{origin}: {name}", problem, "remove one of the two"), value, origin
            continue
        first_line[meant] = line
        yield name, value, origin


def named(key: str) -> str:
    """A key of a file as messages name it: the beginning alone of what is no word."""
    word = _NO_WORD.split(key, maxsplit=1)[0][:_LONGEST_WORD]
    return key if word == key else f"{word}..."


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _remedy(name: str, known: Mapping[str, object]) -> str:
    """Names the nearest known name: one spelt alike, or a setting of the same last word elsewhere."""
    if close := get_close_matches(name, NESTED, n=1, cutoff=0.8):
        return f"did you mean {close[0]}?"
    word = name.rpartition(".")[2]
    elsewhere = [full for full in _NAMES if full.rpartition(".")[2] == word]
    close = (
        elsewhere or get_close_matches(name, known, n=1, cutoff=0.5) or get_close_matches(name, _NAMES, n=1, cutoff=0.4)
    )
    if close:
        return f"did you mean {' or '.join(close)}?"
    section = name.partition(".")[0]
    return f"known are {', '.join(full for full in _NAMES if full.startswith(f'{section}.')) or ', '.join(SECTIONS)}"
