"""What the tests of every store share: rows and receipts, and the databases to open stores on."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from databases import migrated, postgres_store

from app.ids import Uuid7, now_ms
from app.store.access import Access, StoredKey, StoredOverride
from app.store.base import Receipt, Row, S, Store, opened
from app.store.keeping import Keeping
from app.store.lists import Disposition, Lists, ListVersion
from app.store.sqlite import SqliteStore
from app.store.trail import Trail

ids = Uuid7()

FINGERPRINT = b"f" * 32
OTHER_FINGERPRINT = b"o" * 32


def row(tenant_id: str = "acme", **fields: object) -> Row:
    """A row with an id of its own."""
    made = Row(
        tenant_id=tenant_id,
        id=ids.new(),
        business_id="cust-1",
        level=1,
        decision=1,
        score=2350,
        model_sha256=b"m" * 32,
        input=b'{"business": {"name": "\xc3\x84"}}',
        record=b"\x00\x01\xff",
    )
    return msgspec.structs.replace(made, **fields)


def receipt(key: str, *rows: Row | None, **fields: object) -> Receipt:
    """The receipt of an answer with these rows, None for an item that was refused."""
    made = Receipt(
        tenant_id=next((row.tenant_id for row in rows if row is not None), "acme"),
        key=key,
        fingerprint=FINGERPRINT,
        status=201,
        ids=tuple(None if row is None else row.id for row in rows),
        explain=0,
        renderer=1,
        answer_sha256=b"a" * 32,
        request_id="request-1",
        as_of=739_000,
        created_ms=now_ms(),
    )
    return msgspec.structs.replace(made, **fields)


def stored_key(tenant_id: str = "acme", **fields: object) -> StoredKey:
    """A key with an id of its own."""
    made = StoredKey(
        id=secrets.token_hex(6),
        tenant_id=tenant_id,
        name="onboarding",
        role="analyst",
        scopes=None,
        digest=secrets.token_bytes(32),
        networks=(),
        tier=None,
        rate=None,
        created_ms=now_ms(),
        created_by="cli",
    )
    return msgspec.structs.replace(made, **fields)


def override(of: Row, **fields: object) -> StoredOverride:
    """A person's decision over a row: critical, decline."""
    made = StoredOverride(
        tenant_id=of.tenant_id,
        assessment_id=of.id,
        id=ids.new(),
        level=3,
        decision=2,
        reason="Maria knows them",
        actor="key-of-one",
        state="applied",
    )
    return msgspec.structs.replace(made, **fields)


def list_version(name: str, number: int, snapshot: bytes, **fields: object) -> ListVersion:
    """A version of a list with that snapshot."""
    made = ListVersion(
        name=name,
        number=number,
        title="A list of many names",
        source=f"https://lists.example/{name}.xml",
        format="ofac-xml",
        published="2026-11-20",
        content_sha256=b"c" * 32,
        snapshot=sha256(snapshot).digest(),
        size=len(snapshot),
        engine=1,
        entities=18_000,
        names=40_000,
        added_ms=1_800_000_000_000 + number,
        checked_ms=1_800_000_000_000 + number,
        validators=b'{"etag": "1"}',
    )
    return msgspec.structs.replace(made, **fields)


def disposition(of: Row, **fields: object) -> Disposition:
    """A person's finding over a row that its owner is a namesake."""
    made = Disposition(
        tenant_id=of.tenant_id,
        id=ids.new(),
        business=sha256(f"{of.business_id}".encode()).digest(),
        business_id=of.business_id,
        assessment_id=of.id,
        list="ofac-sdn",
        entity_id="12345",
        entity_digest=b"e" * 32,
        matched_name="Mariya MUSTERFRAU",
        subject="/ownership/owners/0",
        reason="Maria is younger",
        actor="key-of-one",
    )
    return msgspec.structs.replace(made, **fields)


def play(store: S, scenario: Callable[[S], Awaitable[None]]) -> None:
    """Open the store, run the scenario on it, close it."""

    async def run() -> None:
        async with opened(store):
            await scenario(store)

    asyncio.run(run())


class Records(Store, Keeping, Access, Lists, Trail, Protocol):
    """A store with everything that it can do."""


@dataclass
class Backend:
    """Opens stores on one database.

    make: a store on it; `key_ttl_s` as each store takes it.  program: begins a child's program with a function
    `open_store`.  place: the path of the file, or the URL of the server's database.
    """

    make: Callable[..., Records]
    program: str
    place: str = ""

    def run(self, scenario: Callable[[Records], Awaitable[None]], **options: float) -> None:
        """Open a store, run the scenario on it, close it."""

        play(self.make(**options), scenario)

    def child(self, body: str, *arguments: str) -> subprocess.Popen[str]:
        """A process that runs `async def main(store, arguments)`."""
        program = f"{self.program}\n{_CHILD}\n{body}\n{_CHILD_RUN}"
        command = [sys.executable, "-c", program, *arguments]
        root = Path(__file__).parents[1]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=root)


_CHILD = """
import asyncio, json, sys
from app.ids import Uuid7, now_ms, text
from app.store.base import Receipt, Row, opened
new = Uuid7().new

def row(tenant_id):
    return Row(tenant_id, new(), "cust", 1, 1, 100, b"m" * 32, b"i" * 1500, b"r" * 1000)

def receipt(key, row):
    return Receipt(row.tenant_id, key, b"f" * 32, 201, (row.id,), 0, 1, b"a" * 32, "r", 739_000, now_ms())

def say(*values):
    print(json.dumps(values), flush=True)
"""
_CHILD_RUN = """
async def run():
    async with opened(open_store()) as store:
        await main(store, sys.argv[1:])

asyncio.run(run())
"""


def _sqlite(request: pytest.FixtureRequest) -> Backend:
    path = str(request.getfixturevalue("tmp_path") / "records.db")
    return Backend(
        make=lambda **options: SqliteStore(path, **options),
        program=f"from app.store.sqlite import SqliteStore\ndef open_store(): return SqliteStore({path!r})",
        place=path,
    )


def _postgres(request: pytest.FixtureRequest) -> Backend:
    url = migrated(request.getfixturevalue("database"))
    return Backend(
        make=lambda **options: postgres_store(url, **options),
        program=f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from databases import postgres_store
def open_store(): return postgres_store({url!r})
""",
        place=url,
    )


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Backend]] = {"sqlite": _sqlite, "postgres": _postgres}
"""How each database is made ready for a test."""
