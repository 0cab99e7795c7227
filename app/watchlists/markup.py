"""XML of lists, one entry at a time, with nothing of XML that a list does not need.

# Design: expat itself instead of a tree builder on top of it. Document type declarations are refused where they begin,
# so no entity is ever defined, expanded or fetched; depth and size of an entry are bounded while it comes in; and only
# one entry is in memory. Encodings other than UTF-8 are refused, as for the other formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from app.watchlists.limits import Limits
from app.watchlists.refusal import ListRefused, shown
from app.watchlists.text import Head, opened

CHUNK_BYTES = 64 * 1024
MAX_DEPTH = 24
ENTRY_ELEMENTS = 100_000

_ROOT = re.compile(r"<([A-Za-z_][\w.:-]*)((?:\s[^<>]*)?)/?>")
_ENCODINGS = ("utf-8", "us-ascii", "ascii")


class Element:
    """One element of an entry. name: without namespace.  text: what stands directly in it, as it stands there."""

    __slots__ = ("attributes", "children", "line", "name", "pieces")

    def __init__(self, name: str, attributes: dict[str, str], line: int) -> None:
        self.name = name
        self.attributes = attributes
        self.line = line
        self.children: list[Element] = []
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def all(self, name: str) -> Iterator[Element]:
        """The children of one name."""
        return (child for child in self.children if child.name == name)

    def value(self, name: str) -> str:
        """The text of the first child of a name, `` where there is none."""
        return next((child.text.strip() for child in self.all(name)), "")

    def get(self, attribute: str) -> str:
        return self.attributes.get(attribute, "").strip()


def root(head: Head) -> tuple[str, str]:
    """Name without prefix and attributes of a document's root, as far as the beginning of the file shows them."""
    text = re.sub(r"<!--.*?-->|<\?.*?\?>", "", head.text, flags=re.DOTALL)
    match = _ROOT.search(text) if text.lstrip().startswith("<") else None
    return (match[1].rpartition(":")[2], match[2]) if match else ("", "")


def entries(path: Path, limits: Limits, names: frozenset[str]) -> Iterator[Element]:
    """The root without its children, then each element of one of `names`, whole, wherever it stands.

    Raises ListRefused, with the line, for XML that is not well-formed or not whole, a document type declaration,
    another encoding than UTF-8, nesting beyond MAX_DEPTH and entries beyond ENTRY_ELEMENTS or line_bytes.
    """
    builder = _Builder(path.name, limits, names)
    read_bytes = 0
    with opened(path, limits) as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            read_bytes += len(chunk)
            if read_bytes > limits.file_bytes:
                raise ListRefused(f"the file has more than {limits.file_bytes:,} bytes", path.name)
            builder.feed(chunk)
            yield from builder.taken()
            if builder.unread_bytes(read_bytes) > limits.line_bytes:
                raise ListRefused(f"one tag or comment is longer than {limits.line_bytes:,} bytes", path.name)
            if not chunk:
                return


class _Builder:
    def __init__(self, file_name: str, limits: Limits, names: frozenset[str]) -> None:
        self._file_name = file_name
        self._limits = limits
        self._names = names
        self._depth = 0
        self._open: list[Element] = []  # of the entry that is coming in
        self._elements = 0
        self._chars = 0
        self._done: list[Element] = []
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.XmlDeclHandler = self._declaration

    def feed(self, chunk: bytes) -> None:
        """Parse one chunk; an empty one ends the document."""
        try:
            self._parser.Parse(chunk, not chunk)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            if reason in ("no element found", "unclosed token") or not chunk:
                reason = "the file ends before its last element does: it is not whole"
            elif reason == "not well-formed (invalid token)":
                reason = "not well-formed: a character that is not UTF-8, or not allowed here"
            else:
                reason = f"not readable as XML: {reason}"
            raise ListRefused(reason, f"{self._file_name}, line {error.lineno}") from None

    def unread_bytes(self, fed_bytes: int) -> int:
        """How much of what was fed belongs to a tag or comment that has not ended yet."""
        return fed_bytes - self._parser.CurrentByteIndex

    def taken(self) -> list[Element]:
        done, self._done = self._done, []
        return done

    def _refuse(self, reason: str) -> ListRefused:
        return ListRefused(reason, f"{self._file_name}, line {self._parser.CurrentLineNumber}")

    def _doctype(self, name: str, *_: object) -> None:
        raise self._refuse("a document type declaration (<!DOCTYPE ...>) is not read: lists have none, attacks do")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise self._refuse(f"the file says that its encoding is {shown(encoding)}; only UTF-8 is read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refuse(f"elements are nested deeper than {MAX_DEPTH} levels")
        local = name.rpartition(":")[2]
        element = Element(local, attributes, self._parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
            self._open.append(element)
            self._count(sum(map(len, attributes.values())))
        elif self._depth == 1:
            self._done.append(element)
        elif local in self._names:
            self._open.append(element)
            self._elements = self._chars = 0

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._open:
            element = self._open.pop()
            if not self._open:
                self._done.append(element)

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].pieces.append(text)
            self._count(len(text), elements=0)

    def _count(self, chars: int, elements: int = 1) -> None:
        self._elements += elements
        self._chars += chars
        if self._elements > ENTRY_ELEMENTS or self._chars > self._limits.line_bytes:
            raise self._refuse("one entry is larger than any entry of a list can be")
