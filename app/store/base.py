"""What every store keeps and promises: the rows, the errors and the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

LEVELS = range(4)
DECISIONS = range(3)


class StoreUnavailable(Exception):
    """The store could not do it now and may later; nothing was acknowledged. reason: one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unconfirmed(StoreUnavailable):
    """The store lost sight of a commit: its rows may be on record or not. Sent again, they are there once."""


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
    """The idempotency key already belongs to a request with another fingerprint."""

    def __init__(self, key: str) -> None:
        super().__init__("the idempotency key was used before with a different request")
        self.key = key


class KeyBusy(Exception):
    """Another request under the same idempotency key is being recorded elsewhere, and has not ended yet."""

    def __init__(self, key: str) -> None:
        super().__init__("a request with this idempotency key is still being recorded")
        self.key = key


class Row(Struct, frozen=True, gc=False):
    """One recorded assessment. The time in its id (UUIDv7) is when it was created.

    level: 0 to 3, low to critical.  decision: 0 to 2, approve to decline.  score: hundredths.
    input: the body as it was sent, None once it was erased; then `input_sha256` is its hash.
    record: the compact result.
    override_id: of the override in force, 16 bytes; then `level` and `decision` are its own, and those of the record
    stand in `original_level` and `original_decision`.
    leaf: `app.store.chain.leaf` of the row, kept once what it was made of was erased.
    """

    tenant_id: str
    id: bytes
    business_id: str | None
    level: int
    decision: int
    score: int
    model_sha256: bytes
    input: bytes | None
    record: bytes
    input_sha256: bytes | None = None
    override_id: bytes | None = None
    original_level: int | None = None
    original_decision: int | None = None
    leaf: bytes | None = None


def as_recorded(row: Row) -> Row:
    """The row as it was before a person decided otherwise."""
    if row.original_level is None or row.original_decision is None:
        return row
    return replace(
        row,
        level=row.original_level,
        decision=row.original_decision,
        override_id=None,
        original_level=None,
        original_decision=None,
    )


class Receipt(Struct, frozen=True, gc=False):
    """What is kept of an answer under its idempotency key: enough to render it again from the records.

    fingerprint: SHA-256 of route, query and body.  ids: of the assessments in the order of the answer, None where an
    item was refused.  explain: 0 top, 1 full.  renderer: version of the code that writes answers.
    answer_sha256: of the answer's bytes.  request_id: that the answer's problems name.  as_of: proleptic ordinal of
    the day it was assessed.  created_ms: Unix time, from which the key is kept for a time.
    """

    tenant_id: str
    key: str
    fingerprint: bytes
    status: int
    ids: tuple[bytes | None, ...]
    explain: int
    renderer: int
    answer_sha256: bytes
    request_id: str
    as_of: int
    created_ms: int


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

    async def add(self, rows: Sequence[Row], receipt: Receipt | None = None, *, actor: str = "") -> Receipt | None:
        """Record the rows, all or none, and with them the receipt; returns once they are committed.

        actor: the id of the key that asked for it. In the same transaction an entry of the audit trail tells of all
        rows that it recorded, and of no others.

        None: they are on record. The same rows sent again (same ids and content, same receipt) are recorded once.
        A receipt: the one that holds the same key and fingerprint from before; nothing was recorded. A key is free
        again once its receipt is older than the time it is kept.
        Raises KeyReused, KeyBusy, RowRefused, Overloaded.
        """

    async def add_each(self, rows: Sequence[Row], *, actor: str = "") -> list[BaseException | None]:
        """As `add` for each row alone, in order; one row's error is its own answer."""

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""

    async def get_each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """As `get` for each id, in order."""

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


S = TypeVar("S", bound=Store)


@asynccontextmanager
async def opened(store: S) -> AsyncIterator[S]:
    """The store, open for as long as the block runs. Raises StoreRefused."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()
