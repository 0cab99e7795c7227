"""CSV as rows of profiles."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import msgspec

from app import wire
from app.cli.cells import CellWrong, Column, columns
from app.cli.exits import Stopped
from app.cli.source import Line, Origins, Row, Source
from app.errors import FAULT_LIMIT, BodyTooLarge, BodyUnreadable, ProfileRefused, Refusal, clipped
from app.faults import pointer
from app.profiles import read_profile

DELIMITERS = ",;\t|"
LISTS = ("business.aliases", "business.operating_countries", "ownership.owners", "ownership.directors")


def sheet(source: Source, limit_bytes: int) -> Iterator[list[Row]]:
    """One profile a row, under a header of dotted names. Raises Stopped where the header cannot be used."""
    return _Sheet(source, limit_bytes).rows()


class _Sheet:
    """The reader of one file. A row that cannot be read costs its first line only: the next line begins a new row."""

    def __init__(self, source: Source, limit_bytes: int) -> None:
        self.name = source.name
        self.limit_bytes = limit_bytes
        self._blocks = source.lines(limit_bytes)
        self._ready: list[Line] = []
        self._taken: list[Line] = []
        csv.field_size_limit(limit_bytes)

    def rows(self) -> Iterator[list[Row]]:
        header = self._header()
        rows: list[Row] = []
        for cells in self._records():
            row = self._row(cells, header)
            if row is not None:
                rows.append(row)
            if rows and not self._ready:
                yield rows
                rows = []
        yield rows

    def _header(self) -> list[Column]:
        while self._more() and not self._ready[-1].text.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r,;"):
            self._ready.pop()
        if not self._ready:
            raise Stopped(f"{self.name} is empty")
        line = self._ready[-1]
        if line.text.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise Stopped(f"{self.name} is UTF-16; save it as CSV in UTF-8")
        self._ready[-1] = Line(line.number, line.text.removeprefix(b"\xef\xbb\xbf"))
        self._records = self._reader(_delimiter(self._ready[-1].text))
        cells = next(self._records())
        if isinstance(cells, Refusal):
            raise Stopped(f"{self.name}:{line.number}: the header cannot be read: {cells.detail}")
        while cells and not cells[-1].strip():
            cells.pop()
        found, faults = columns(cells)
        if faults:
            listed = "".join(f"\n  {fault}" for fault in faults[:FAULT_LIMIT])
            raise Stopped(f"{self.name}:{line.number}: the header cannot be used:{listed}")
        return found

    def _reader(self, delimiter: str) -> Any:
        def records() -> Iterator[list[str] | Refusal]:
            """Rows as cells, `_taken` being the lines of the row that was yielded last."""
            reader = csv.reader(self._texts(), delimiter=delimiter, strict=True)
            while True:
                self._taken = []
                try:
                    yield next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    first, *others = self._taken
                    self._taken = [first]
                    self._ready.extend(reversed(others))
                    reader = csv.reader(self._texts(), delimiter=delimiter, strict=True)
                    yield BodyUnreadable(_explained(str(error), self.limit_bytes))

        return records

    def _texts(self) -> Iterator[str]:
        while self._more():
            line = self._ready.pop()
            self._taken.append(line)
            yield line.text.decode("utf-8", "surrogateescape") + "\n"

    def _more(self) -> bool:
        """Whether there is a line; they lie in `_ready` with the next one last."""
        while not self._ready:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._ready = block[::-1]
        return True

    def _row(self, cells: list[str] | Refusal, header: list[Column]) -> Row | None:
        """None where every cell is empty."""
        number = self._taken[0].number
        if isinstance(cells, Refusal):
            return Row(number, None, cells)
        if not any(cells) or not any(cell.strip() for cell in cells):
            return None
        try:
            if sum(len(line.text) for line in self._taken) > self.limit_bytes:
                raise BodyTooLarge(self.limit_bytes)
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()
            if len(cells) != len(header):
                raise BodyUnreadable(f"The row has {len(cells)} cells, and the header names {len(header)} columns.")
            text = b"\n".join(line.text for line in self._taken)
            if not text.isascii():
                _check_utf8(text)
            profile, origins = _profile(cells, header)
            return Row(number, profile, None, origins)
        except Refusal as refusal:
            return Row(number, None, refusal)


def place_of(pointer: str, origins: Origins | None) -> str:
    """The column, as near as a pointer into the profile tells it."""
    steps = pointer.strip("/").split("/")
    for path, indexes in (origins or {}).items():
        at = path.count(".") + 1
        if ".".join(steps[:at]) == path and len(steps) > at and steps[at].isdigit():
            steps[at] = str(indexes[int(steps[at])])
    return ".".join(steps)


def _delimiter(header: bytes) -> str:
    """The delimiter that stands most often in the header, outside of quotation marks."""
    outside = b"".join(header.split(b'"')[::2])
    return max(DELIMITERS, key=lambda delimiter: outside.count(delimiter.encode()))


def _explained(message: str, limit_bytes: int) -> str:
    if "end of data" in message:
        return "A quotation mark opens a cell and none closes it."
    if "field limit" in message:
        return f"A cell is larger than {limit_bytes:,} bytes; a quotation mark may be open."
    if "expected after" in message:
        return "A cell goes on after its closing quotation mark; write a mark inside a cell twice."
    if "new-line" in message:
        return "A carriage return stands alone in a cell; end lines with LF or CR LF."
    return f"The row cannot be read as CSV: {message}."


def _check_utf8(text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"The row is not UTF-8: byte {error.start} of it cannot be read; save the file as CSV in UTF-8."
        raise BodyUnreadable(problem) from None


def _profile(cells: list[str], header: list[Column]) -> tuple[wire.Profile, Origins | None]:
    """The profile of one row. Raises ProfileRefused with every fault."""
    tree: dict[Any, Any] = {"business": {}}
    faults: list[wire.Fault] = []
    for cell, column in zip(cells, header, strict=True):
        text = cell.strip()
        if not text:
            continue
        try:
            value = text if column.read is None else column.read(text)
        except CellWrong as wrong:
            faults.append(wire.Fault(column.pointer, f'{wrong}, got "{clipped(text, 40)}"'))
            continue
        node = tree
        for step in column.parents:
            node = node.setdefault(step, {})
        node[column.key] = value
    origins = _with_lists(tree)
    named = {fault.pointer for fault in faults}
    try:
        profile = read_profile(msgspec.json.encode(tree))
        if not faults:
            return profile, origins
    except ProfileRefused as refused:
        others = [wire.Fault(_original(fault.pointer, origins), fault.detail) for fault in refused.faults]
        faults += [fault for fault in others if fault.pointer not in named]
    raise ProfileRefused(faults[:FAULT_LIMIT])


def _original(at: str, origins: Origins | None) -> str:
    return at if origins is None else "".join(pointer("", step) for step in place_of(at, origins).split("."))


def _with_lists(tree: dict[Any, Any]) -> Origins | None:
    """Make lists of the members that columns gave by number, without empty ones. Where that moved some: from where."""
    moved: Origins = {}
    for path in LISTS:
        section, name = path.split(".")
        members = tree.get(section, {}).get(name)
        if isinstance(members, dict):
            indexes = sorted(members)
            tree[section][name] = [members[index] for index in indexes]
            if indexes[-1] >= len(indexes):
                moved[path] = indexes
    return moved or None
