"""A trail written out, newest entry first: JSONL, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec

from app import ids
from app.audit.lines import line
from app.store.chain import AuditEntry
from app.store.trail import Position, Trail

Format = Literal["jsonl", "csv"]

COLUMNS = ("tenant_id", "at", "act", "actor", "detail", "subjects", "segment", "number", "previous", "hash")
ENTRIES_A_PAGE = 200

_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_ID_BYTES = 16


async def export(
    trail: Trail,
    tenant_ids: Sequence[str],
    form: Format,
    *,
    since_ms: int | None = None,
    before_ms: int | None = None,
) -> AsyncIterator[bytes]:
    """The entries with since_ms <= at < before_ms, trail after trail, in pieces of whole lines.

    A line holds the COLUMNS: at in UTC, detail as it was noted, subjects as UUIDs, hashes in hexadecimal.
    Raises StoreUnavailable.
    """
    if form == "csv":
        yield _csv([COLUMNS])
    for tenant_id in tenant_ids:
        before: Position | None = None
        while True:
            page = await trail.entries(
                tenant_id, since_ms=since_ms, before_ms=before_ms, before=before, limit=ENTRIES_A_PAGE
            )
            if not page:
                break
            yield _csv([_cells(entry) for entry in page]) if form == "csv" else _jsonl(page)
            before = Position(page[-1].at_ms, page[-1].segment, page[-1].number)


def _jsonl(entries: Sequence[AuditEntry]) -> bytes:
    documents = ({**_told(entry), "detail": _detail(entry.detail)} for entry in entries)
    return "".join([line(document) + "\n" for document in documents]).encode("ascii")


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _cells(entry: AuditEntry) -> list[str]:
    told = {**_told(entry), "subjects": " ".join(_subjects(entry))}
    detail = _detail(entry.detail)
    told["detail"] = detail if isinstance(detail, str) else line(detail)
    return [safe_cell(str(told[name])) for name in COLUMNS]


def safe_cell(text: str) -> str:
    """The text as a spreadsheet shows it, and never computes it: what could begin a formula is quoted."""
    return f"'{text}" if text.startswith(_STARTS_FORMULA) else text


def _told(entry: AuditEntry) -> dict[str, Any]:
    return {
        "tenant_id": entry.tenant_id,
        "at": ids.instant(entry.at_ms),
        "act": entry.act,
        "actor": entry.actor,
        "detail": None,
        "subjects": _subjects(entry),
        "segment": ids.text(entry.segment),
        "number": entry.number,
        "previous": entry.previous.hex(),
        "hash": entry.hash.hex(),
    }


def _subjects(entry: AuditEntry) -> list[str]:
    packed = entry.subjects
    return [ids.text(packed[start : start + _ID_BYTES]) for start in range(0, len(packed), _ID_BYTES)]


def _detail(detail: bytes) -> Any:
    """The facts; the text as it is where somebody made it something else than JSON."""
    try:
        return msgspec.json.decode(detail)
    except ValueError:
        return detail.decode("utf-8", "backslashreplace")
