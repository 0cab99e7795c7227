"""Watchlists as every store keeps them: the version in force of each, compiled snapshots in parts, what assessments
were screened against, and hits that people set aside."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

from app.store.base import RowRefused
from app.store.trail import Act

PART_BYTES = 1 << 20
"""A snapshot is kept in parts of this size, so that no statement carries more."""
ORPHAN_MS = 3_600_000
"""Parts that no version names are somebody's who is at work, until they are this old."""
ROUNDS = 3
"""How often parts are written again that somebody else deleted meanwhile, before that is an error."""


class ListVersion(Struct, frozen=True):
    """One version of a watchlist.

    number: counts from 1 for each list.  source: the address or file it came from.  format: of that file.
    published: the date that the list says of itself.  content_sha256: of what was read.  snapshot: SHA-256 of the
    compiled snapshot, `size` bytes in all.  engine: core.snapshot.ENGINE of what compiled it, or 1, not noted.
    added_ms: when this version came.  checked_ms: when it was last found to be the newest.
    validators: JSON of what the next conditional request sends.
    """

    name: str
    number: int
    title: str
    source: str
    format: str
    published: str | None
    content_sha256: bytes
    snapshot: bytes
    size: int
    engine: int
    entities: int
    names: int
    added_ms: int
    checked_ms: int
    validators: bytes = b"{}"


class Rescreening(Struct, frozen=True):
    """How far the recorded businesses were compared with a list.

    base: the number of the version that all of them had been compared with before, 0 for none.  target: of the version
    that they are compared with now, equal to base when that is done.  tenant_id, before_id: where the work goes on:
    tenants before it, and of it the assessments from that id on, are done.  compared, recorded: assessments so far.
    A base that is not kept any more, of a list that was dropped and added again, says as much as 0.
    """

    name: str
    base: int
    target: int
    tenant_id: str
    before_id: bytes | None
    compared: int
    recorded: int


class Disposition(Struct, frozen=True):
    """A person's finding that a potential hit is a namesake. id: UUIDv7, 16 bytes, whose time is when it was made.

    business: SHA-256 that names the business within the tenant.  business_id: None where it has none, or was erased.
    list, entity_id, entity_digest: the entry, and what it said then: it holds until that changes.
    subject: of the hit, such as `/ownership/owners/0`.
    actor, ended_by: ids of keys.  ended_ms: when somebody took it back, or its business was erased: then business_id,
    reason and ended_by are None and matched_name is empty, and the digest `business` is all that is left of whom it was
    about.
    """

    tenant_id: str
    id: bytes
    business: bytes
    business_id: str | None
    assessment_id: bytes
    list: str
    entity_id: str
    entity_digest: bytes
    matched_name: str
    subject: str
    reason: str | None
    actor: str
    ended_ms: int | None = None
    ended_by: str | None = None


def columns_of(kind: type[Struct]) -> str:
    """The columns that rows of this kind are read from and written to: its fields, in their order."""
    return ", ".join(kind.__struct_fields__)


class Lists(Protocol):
    """Watchlists and dispositions. Every method raises StoreUnavailable as those of `Store` do; what it changes and the
    act that tells of it are committed together."""

    async def lists(self) -> list[ListVersion]:
        """The version in force of every list, by name; from the server that takes the writes."""

    async def list_version(self, name: str, number: int) -> ListVersion | None:
        """A version of a list, as long as it is kept."""

    async def list_number(self, name: str) -> int:
        """The greatest number that a version of the list ever had, 0 for none: the next one has the number after it,
        also after the list was dropped."""

    async def put_list(self, version: ListVersion, snapshot: bytes | memoryview, act: Act) -> bool:
        """Keep a snapshot and have the version come into force, once all of its parts are there.

        False, and nothing is in force that was not before, where the version's number is not the one after the newest:
        somebody else was faster. Of each list the version in force, the one before it, and base and target of its
        rescreening are kept; other versions are deleted, and snapshots that no version has. Ended on the way, it leaves
        parts that a later call deletes. Raises ValueError where the snapshot is not what the version says.
        """

    async def check_list(self, name: str, number: int, checked_ms: int, validators: bytes) -> bool:
        """Note that the version is still the newest; False where it is not in force any more."""

    async def drop_list(self, name: str, act: Act) -> bool:
        """Take a list out of force, with all its versions and how far its rescreening has come; False where there is
        none."""

    async def snapshot_part(self, snapshot: bytes, part: int) -> bytes | None:
        """Part 0, 1, ... of a snapshot: PART_BYTES each, the last one shorter; None where it is not kept."""

    async def rescreening(self, name: str) -> Rescreening | None:
        """How far the list's rescreening has come."""

    async def save_rescreening(self, state: Rescreening) -> None:
        """Note how far it has come."""

    async def save_screened_against(self, digest: bytes, rows: bytes) -> None:
        """Keep under its digest (16 bytes) the JSON that tells which lists an assessment was screened against; what is
        kept already stays as it is."""

    async def screened_against(self, digest: bytes) -> bytes | None:
        """The JSON with that digest."""

    async def add_disposition(self, disposition: Disposition, act: Act) -> bool:
        """Keep a disposition; False, and nothing is changed, where one of the same business, list and entry (with the
        same digest) has not ended."""

    async def dispositions(self, tenant_id: str, business: bytes) -> list[Disposition]:
        """Those of the business that have not ended, oldest first; from the server that takes the writes."""

    async def disposition(self, tenant_id: str, id: bytes) -> Disposition | None:
        """One of the tenant's, ended ones too."""

    async def disposition_page(
        self, tenant_id: str, *, business_id: str | None = None, before_id: bytes | None = None, limit: int
    ) -> Sequence[Disposition]:
        """The tenant's, newest first, ended ones too."""

    async def end_disposition(
        self, tenant_id: str, id: bytes, *, ended_ms: int, ended_by: str, act: Act
    ) -> Disposition | None:
        """Take a disposition back; as it is now, None where there is none. One ended before stays as it was, and then
        nothing is noted."""

    async def tenants(self) -> list[str]:
        """Every tenant with an assessment on record, in order."""


class PartsMissing(RowRefused):
    """Not all parts of the snapshot are there: somebody deleted them who did not know that they are wanted again."""

    def __init__(self) -> None:
        super().__init__("parts of the snapshot were deleted while others were written")


def parts_of(size: int) -> int:
    """How many parts a snapshot of so many bytes has."""
    return -(-size // PART_BYTES)


def part_of(content: memoryview, part: int) -> bytes:
    """A part of a snapshot, by its number from 0."""
    return bytes(content[part * PART_BYTES : (part + 1) * PART_BYTES])


def checked_snapshot(version: ListVersion, snapshot: bytes | memoryview) -> memoryview:
    """The snapshot's bytes. Raises ValueError where they are not those that the version names."""
    content = memoryview(snapshot).cast("B")
    if len(content) != version.size or sha256(content).digest() != version.snapshot:
        raise ValueError(
            f"the snapshot given with {version.name} {version.number} is another one than the version names:"
            f" {len(content)} bytes with SHA-256 {sha256(content).hexdigest()},"
            f" instead of {version.size} with {version.snapshot.hex()}"
        )
    return content
