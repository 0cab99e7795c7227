"""What every store keeps and promises: the rows, the errors and the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

LEVELS = range(4)
DECISIONS = range(3)


class StoreUnavailable(Exception):
    """The store could not do it now and may later; nothing was acknowledged. reason: one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreRefused(Exception):
    """The store cannot be opened as it is. fault: what is wrong, remedy: what to do about it, a sentence each."""

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(f"{fault} {remedy}")
        self.fault = fault
        self.remedy = remedy


class RowRefused(Exception):
    """One row cannot be stored as it is, whatever its neighbours. reason: the database's own words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the row cannot be stored: {reason}")
        self.reason = reason


class KeyReused(Exception):
    """The idempotency key already belongs to a request with another fingerprint. id: of that request's assessment."""

    def __init__(self, key: str, id: bytes) -> None:
        super().__init__("the idempotency key was used before with a different request")
        self.key = key
        self.id = id


class Row(Struct, frozen=True, gc=False):
    """One recorded assessment. The time in its id (UUIDv7) is when it was created.

    level: 0 to 3, low to critical.  decision: 0 to 2, approve to decline.  score: hundredths.
    input: the body as it was sent.  record: the compact result.
    idempotency_key and fingerprint: given both or neither; read back only where the row was found by its key.
    """

    tenant_id: str
    id: bytes
    business_id: str | None
    level: int
    decision: int
    score: int
    model_sha256: bytes
    input: bytes
    record: bytes
    idempotency_key: str | None = None
    fingerprint: bytes | None = None


class Added(Struct, frozen=True):
    """What became of a row: `row_id` is the id now on record; `existing` the earlier row that holds the same key."""

    row_id: bytes
    existing: Row | None = None


class StoredModel(Struct, frozen=True):
    sha256: bytes
    model_id: str
    version: str


class Store(Protocol):
    """Durable records. Every method but `open` raises StoreUnavailable when the database does not do its part."""

    async def open(self) -> None:
        """Open or create the database. Raises StoreRefused."""

    async def close(self) -> None:
        """Finish what was submitted, then let go of the database."""

    async def check(self) -> None:
        """Prove that a commit is possible now."""

    async def add(self, row: Row) -> Added:
        """Record the row; returns once it is committed.

        A key used before with the same fingerprint answers the earlier row and records nothing. The same row sent again
        (same id and content) is recorded once. Raises KeyReused, RowRefused, Overloaded.
        """

    async def add_many(self, rows: Sequence[Row]) -> list[Added | BaseException]:
        """As `add` for each row, in order; one row's error is its own answer."""

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""

    async def find_key(self, tenant_id: str, key: str) -> tuple[bytes, Row] | None:
        """The fingerprint that came with the tenant's idempotency key, and the assessment it led to."""

    async def page(
        self,
        tenant_id: str,
        *,
        business_id: str | None = None,
        level: int | None = None,
        decision: int | None = None,
        since_id: bytes | None = None,
        until_id: bytes | None = None,
        before_id: bytes | None = None,
        limit: int,
    ) -> list[Row]:
        """At most `limit` of the tenant's assessments, newest id first: since_id <= id <= until_id, id < before_id."""

    async def save_model(self, sha256: bytes, model_id: str, version: str, definition: bytes) -> None:
        """Keep a model's definition under its hash; one already kept stays as it is."""

    async def model(self, sha256: bytes) -> bytes | None:
        """The definition with that hash."""

    async def models(self) -> list[StoredModel]:
        """All models ever kept, by id and version."""
