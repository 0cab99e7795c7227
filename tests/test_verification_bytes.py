"""No byte of the trail can be changed without a verification finding it."""

from __future__ import annotations

import asyncio
import sqlite3

import asyncpg
import pytest
from attacker import Attacker
from audited import KEY, Audited, fill
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from records import BACKENDS, Backend

from app.audit.verification import verify
from app.store.trail import act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


COLUMNS = {
    "audit_entries": [
        "tenant_id",
        "segment",
        "number",
        "at_ms",
        "act",
        "actor",
        "detail",
        "subjects",
        "previous",
        "hash",
    ],
    "audit_checkpoints": ["tenant_id", "number", "at_ms", "entries", "heads", "previous", "hash", "mac"],
    "audit_heads": ["tenant_id", "segment", "number"],
}


def changed(value: object, place: int, by: int) -> object:
    """The value with one byte changed. An integer has eight of them; a text keeps to ASCII."""
    if isinstance(value, int):
        packed = bytearray(value.to_bytes(8, "big", signed=True))
        packed[place % 8] ^= by
        return int.from_bytes(packed, "big", signed=True)
    if isinstance(value, str):
        packed = bytearray(value.encode("ascii"))
        packed[place % len(packed)] = (packed[place % len(packed)] ^ by) & 0x7F or 0x20
        return packed.decode("ascii")
    assert isinstance(value, bytes)
    packed = bytearray(value)
    packed[place % len(packed)] ^= by
    return bytes(packed)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def _any_byte(runner: asyncio.Runner, store: Audited, attacker: Attacker, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(COLUMNS)))
    column = data.draw(st.sampled_from(COLUMNS[table]))
    place, by = data.draw(st.integers(0, 400)), data.draw(st.integers(1, 255))
    keys = COLUMNS[table][: 3 if table != "audit_checkpoints" else 2]
    rows = attacker.run(f"SELECT {', '.join(keys)}, {column} FROM {table} ORDER BY {', '.join(keys)}")
    *key, value = data.draw(st.sampled_from(rows))
    assume(value not in ("", b""))
    other = changed(value, place, by)
    assume(other != value)
    where = " AND ".join(f"{name} = ${number}" for number, name in enumerate(keys, 2))
    try:
        attacker.run(f"UPDATE {table} SET {column} = $1 WHERE {where}", other, *key)
    except (sqlite3.IntegrityError, asyncpg.UniqueViolationError):
        # The database itself does not let it be.
        return
    report = runner.run(verify(store, KEY, None))
    now = [other if name == column else was for name, was in zip(keys, key, strict=True)]
    attacker.run(f"UPDATE {table} SET {column} = $1 WHERE {where}", value, *now)
    assert not report.intact, (table, column, key, value, other)


def test_any_byte_changed_anywhere_in_the_trail_is_found(backend: Backend) -> None:
    store: Audited = backend.make()  # type: ignore[assignment]
    with asyncio.Runner() as runner:
        runner.run(store.open())
        try:
            runner.run(fill(store, 3))
            runner.run(store.note([act("acme", "key.created", "cli"), act("acme", "key.revoked", "cli")]))
            assert runner.run(verify(store, KEY, None)).intact
            _any_byte(runner, store, Attacker(backend.place))
            assert runner.run(verify(store, KEY, None)).intact
        finally:
            runner.run(store.close())
