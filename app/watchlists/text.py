"""Files as lines of text, within limits: what is not plain UTF-8 text is refused with the line it stands on."""

from __future__ import annotations

import csv
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from app.watchlists.limits import Limits
from app.watchlists.refusal import ListRefused, shown

HEAD_BYTES = 64 * 1024
RECORD_LINES = 1_000
END_OF_FILE = "\x1a"  # Ctrl-Z, with which OFAC ends its files

_MARKS = (
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8"),
    (b"\x1f\x8b", "is compressed (gzip); unpack it first"),
    (b"PK\x03\x04", "is compressed (zip) or a spreadsheet; unpack it, or save it as the format of the list"),
    (b"BZh", "is compressed (bzip2); unpack it first"),
    (b"%PDF", "is a PDF; this reads the list's data files only"),
)
_HTML = re.compile(r"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_NO_UTF8 = "is not UTF-8; the list's files are, so it was saved in another encoding on the way"


class Head(Struct, frozen=True):
    """The beginning of a file, from which its format is told. text: at most HEAD_BYTES of it, whole lines if any."""

    path: Path
    text: str

    @property
    def first_line(self) -> str:
        return self.text.lstrip().partition("\n")[0].rstrip("\r")


def opened(path: Path, limits: Limits) -> BinaryIO:
    """A regular file of allowed size, open for reading. Raises ListRefused."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ListRefused("is not a file", str(path))
        if status.st_size > limits.file_bytes:
            raise ListRefused(f"has {status.st_size:,} bytes; at most {limits.file_bytes:,} are read", str(path))
        return path.open("rb")
    except FileNotFoundError:
        raise ListRefused("there is no such file", str(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ListRefused(f"cannot be opened: {reason}", str(path)) from None


def head(path: Path, limits: Limits) -> Head:
    """The beginning of a file. Raises ListRefused for what is no text of any list: empty, compressed, HTML, NULs."""
    with opened(path, limits) as file:
        start = file.read(HEAD_BYTES)
        whole = not file.read(1)
    for mark, reason in _MARKS:
        if start.startswith(mark):
            raise ListRefused(reason, path.name)
    start = start.removeprefix(b"\xef\xbb\xbf")
    if not start.strip():
        raise ListRefused("is empty", path.name)
    if b"\0" in start:
        raise ListRefused("holds NUL characters: it is not a text file, or UTF-16 without its mark", path.name)
    try:
        # A character may be cut in two at the end of what was read.
        text = start.decode() if whole else start.decode(errors="ignore")
    except UnicodeDecodeError:
        raise ListRefused(_NO_UTF8, path.name) from None
    if _HTML.match(text):
        raise ListRefused("is a web page, not a list: an error page or a login page was saved in its place", path.name)
    return Head(path, text if whole or "\n" not in text else text[: text.rindex("\n") + 1])


def lines(path: Path, limits: Limits) -> Iterator[str]:
    """The lines of a file, with their ends. Raises ListRefused with the line's number."""
    read_bytes = 0
    with opened(path, limits) as file:
        number = 0
        while raw := file.readline(limits.line_bytes + 1):
            number += 1
            read_bytes += len(raw)
            where = f"{path.name}, line {number}"
            if len(raw) > limits.line_bytes:
                raise ListRefused(f"the line is longer than {limits.line_bytes:,} bytes", where)
            if read_bytes > limits.file_bytes:
                raise ListRefused(f"the file has more than {limits.file_bytes:,} bytes", path.name)
            if b"\0" in raw:
                raise ListRefused("the line holds a NUL character", where)
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise ListRefused(f"byte {error.start + 1} of the line {_NO_UTF8}", where) from None
            yield text.removeprefix("\ufeff") if number == 1 else text


class Row(Struct, frozen=True):
    """One record of a CSV file, and the line that it ends on."""

    line: int
    cells: list[str]


def rows(path: Path, limits: Limits, delimiter: str = ",") -> Iterator[Row]:
    """The records of a CSV file, those without any content left out.

    Raises ListRefused for quotes that do not close and anything after a closing quote, with the line's number.
    """
    feed = _Feed(path, limits)
    csv.field_size_limit(limits.line_bytes)  # else cells of more than 128 KiB are refused
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.record_lines = 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"not readable as CSV: {error}"
            if "unexpected end of data" in reason:
                reason = "the file ends within quotes: it is not whole"
            raise ListRefused(reason, f"{path.name}, line {reader.line_num}") from None
        if len(cells) > 1 or (cells and cells[0].strip() not in ("", END_OF_FILE)):
            yield Row(reader.line_num, cells)


class Record(Struct, frozen=True):
    """One record of a CSV file with a header: its cells by the names of their columns, `` for columns that lack."""

    where: str
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "").strip()

    def group(self, group: str, *columns: str) -> list[str]:
        """The cells of the columns `<group>_<column>`."""
        return [self[f"{group}_{column}"] for column in columns]


def records(path: Path, limits: Limits, delimiter: str = ",") -> Iterator[Record]:
    """The records of a CSV file whose first row names the columns.

    Raises ListRefused, for rows of another width too.
    """
    columns: list[str] = []
    for row in rows(path, limits, delimiter):
        if not columns:
            columns = [name.strip() for name in row.cells]
        elif len(row.cells) != len(columns):
            raise width_refusal(path, row, len(columns))
        else:
            yield Record(f"{path.name}, line {row.line}", dict(zip(columns, row.cells, strict=True)))


class _Feed:
    """Lines for csv.reader that give up where one record does not end."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._lines = lines(path, limits)
        self._name = path.name
        self.record_lines = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        self.record_lines += 1
        if self.record_lines > RECORD_LINES:
            raise ListRefused(f"one record has more than {RECORD_LINES:,} lines: a quote is not closed", self._name)
        return next(self._lines)


def width_refusal(path: Path, row: Row, width: int) -> ListRefused:
    """For a row with a wrong number of columns."""
    begins = shown(row.cells[0] if row.cells else "")
    return ListRefused(
        f"the row beginning {begins} has {len(row.cells)} columns, not {width}: the file is cut off or damaged",
        f"{path.name}, line {row.line}",
    )
