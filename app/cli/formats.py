"""What the input is, told by option, ending or beginning; and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.cli.documents import document, ndjson
from app.cli.exits import Stopped
from app.cli.sheet import sheet
from app.cli.source import Row, Source

_BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Input(NamedTuple):
    """single: the input is one profile and nothing else. rows: in groups, as they arrive."""

    form: str
    single: bool
    rows: Iterator[list[Row]]


def read(source: Source, form: str | None, limit_bytes: int) -> Input:
    """The rows of a source. Raises Stopped where it cannot be read as what it is."""
    form = form or _BY_SUFFIX.get(source.suffix) or _sniffed(source)
    if form == "ndjson":
        return Input(form, False, ndjson(source, limit_bytes))
    if form == "csv":
        return Input(form, False, sheet(source, limit_bytes))
    single, rows = document(source, limit_bytes)
    return Input(form, single, rows)


def _sniffed(source: Source) -> str:
    """JSON where it begins as JSON; NDJSON where the first line is a whole object and more follows; else CSV."""
    head = source.head()
    for mark in _MARKS:
        head = head.removeprefix(mark)
    head = head.strip(b" \t\r\n\0")
    if not head and source.suffix != ".json":
        raise Stopped(f"{source.name} is empty")
    first, _, rest = head.partition(b"\n")
    if first.startswith(b"{") and first.rstrip().endswith(b"}") and rest.strip():
        return "ndjson"
    return "json" if source.suffix == ".json" or head[:1] in (b"{", b"[") else "csv"
