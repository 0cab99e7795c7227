"""How fast the core and the service are in multiples of yardsticks that are none of ours.

    make bench-check        fails where one is more than 15 % below its baseline
    make bench-baseline     renews the baselines (ARGS="-k edge" some of them)

Both sides take turns and are timed by the CPU time of the process. A ratio is the median of the rounds' own; more is
faster. This module only measures; check_ratios.py compares.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from baselines import Yardstick
from calling import PATH, REQUESTS, Client, bare
from conftest import Relate
from parties import companies, many
from rapidfuzz import fuzz, process
from samples import EXAMPLE, generated
from test_core import TODAY, whole

from app import wire
from app.evidence.base import NOT_SCREENED
from app.ids import Uuid7
from app.store.base import Row
from app.store.sqlite import SqliteStore
from app.telemetry.cells import Cells
from app.telemetry.meters import Meters
from app.telemetry.traffic import Traffic
from core.features import feature_row
from core.matches import DEFAULT_CUTOFF, Query
from core.names import NameIndex
from core.normal import prepare
from core.prescan import Prescan
from core.scorer import Assessed, Scorer

COUNT = 1000
FEW = 50
BODIES = generated(COUNT)
LISTED = 20_000
NAMES = companies(1000)
COMPARED = 2_000
"""Listed names that rapidfuzz looks through."""
ROWS = 500
RECORD = b"r" * 570
BATCH = b'{"items":[' + b",".join(BODIES[:200]) + b"]}"


def over(items: Sequence[Any], call: Callable[[Any], Any]) -> Callable[[], object]:
    """Calls something for each. Nothing is kept: room for the results would be the larger and less steady part."""
    return lambda: deque(map(call, items), maxlen=0)


PARSING = Yardstick("orjson of a body", over(BODIES, orjson.loads), COUNT)


@pytest.fixture(scope="module")
def assessed(scorer: Scorer) -> list[Assessed]:
    """Results of different profiles, few enough for a cache: where a thousand lie would count more than the work."""
    decode = msgspec.json.Decoder(wire.Profile).decode
    results = [scorer.assess(decode(body), NOT_SCREENED.findings, TODAY) for body in BODIES[:FEW]]
    return results * (3 * COUNT // FEW)


@pytest.fixture(scope="module")
def calls(loop: asyncio.AbstractEventLoop) -> Yardstick:
    """An application that does nothing."""
    alone = Client(bare, loop)
    return Yardstick("a bare ASGI call", lambda: alone.call(10 * REQUESTS, EXAMPLE), 10 * REQUESTS)


def test_prescan(relate: Relate) -> None:
    relate(over(BODIES, Prescan().check), PARSING, COUNT)


def test_features(relate: Relate, scorer: Scorer) -> None:
    """Feature extraction with the distress models."""
    decode, extractor, found = msgspec.json.Decoder(wire.Profile).decode, scorer.extractor, NOT_SCREENED.findings
    profiles = [decode(body) for body in BODIES]
    relate(over(profiles, lambda profile: feature_row(extractor, profile, found, TODAY)), PARSING, COUNT)


def test_assess(relate: Relate, scorer: Scorer) -> None:
    """Decoded profile in, result out."""
    decode, found = msgspec.json.Decoder(wire.Profile).decode, NOT_SCREENED.findings
    profiles = [decode(body) for body in BODIES]
    relate(over(profiles, lambda profile: scorer.assess(profile, found, TODAY)), PARSING, COUNT)


@pytest.mark.parametrize("explain", ["top", "full"])
def test_render(relate: Relate, assessed: list[Assessed], explain: str) -> None:
    id, screening, rows, full = Uuid7().new(), NOT_SCREENED.screening, NOT_SCREENED.evidence_rows, explain == "full"
    relate(
        over(assessed, lambda one: one.render(id, b'"cust-0042"', full, screening, rows, False)), PARSING, len(assessed)
    )


def test_restore(relate: Relate, scorer: Scorer, assessed: list[Assessed]) -> None:
    """A result to its record and back."""
    relate(over(assessed, lambda one: scorer.restore(one.record())), PARSING, len(assessed))


def test_whole(relate: Relate, scorer: Scorer) -> None:
    """Body in, encoded answer out."""
    relate(over(BODIES, lambda body: whole(scorer, body)), PARSING, COUNT)


def test_names(relate: Relate) -> None:
    """A name looked for among twenty thousand, in multiples of rapidfuzz on as many."""
    entities = list(many(LISTED, vocabulary=30_000))
    index = NameIndex(NameIndex.build(entities))
    listed = [entity.names[0].lower() for entity in entities[:COMPARED]]
    asked = NAMES[:5]

    def search() -> None:
        for name in NAMES:
            index.search(Query((prepare(name, None),), False), DEFAULT_CUTOFF, 10)

    def theirs() -> None:
        for name in asked:
            process.extractOne(name.lower(), listed, scorer=fuzz.WRatio)

    relate(search, Yardstick("rapidfuzz extractOne", theirs, len(asked) * COMPARED / LISTED), len(NAMES))


def test_edge(relate: Relate, client: Client, calls: Yardstick) -> None:
    """The least that an answer costs: head, route, send."""
    relate(lambda: client.call(REQUESTS, b"", path="/health", query=b"", method="GET"), calls, REQUESTS)
    assert client.status == 200


def test_request(relate: Relate, client: Client) -> None:
    """A dry run through every layer."""
    relate(lambda: client.call(REQUESTS, EXAMPLE), PARSING, REQUESTS)
    assert client.status == 200


def test_refusal(relate: Relate, client: Client) -> None:
    """A body that is no JSON."""
    relate(lambda: client.call(300, EXAMPLE[:-1]), PARSING, 300)
    assert client.status == 400


def test_batch(relate: Relate, client: Client) -> None:
    """Profiles through the batch endpoint."""
    relate(lambda: client.call(3, BATCH, path=f"{PATH}/batch"), PARSING, 600)
    assert client.status == 200


def test_metrics(relate: Relate, calls: Yardstick) -> None:
    """What a request leaves behind in the metrics."""
    traffic = Traffic(Meters(Cells()))

    def run() -> None:
        for _ in range(10 * REQUESTS):
            traffic.end("POST", PATH, 201, traffic.begin())

    relate(run, calls, 10 * REQUESTS)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Yardstick]:
    """The same bytes as rows of a plain table."""
    with closing(sqlite3.connect(tmp_path / "plain.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE plain (id BLOB PRIMARY KEY, business TEXT, input BLOB, record BLOB)")
        new = Uuid7().new

        def run() -> None:
            rows = [(new(), f"cust-{number}", EXAMPLE, RECORD) for number in range(ROWS)]
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO plain VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")

        yield Yardstick("sqlite3 of a plain row", run, ROWS)


def test_record(relate: Relate, plain: Yardstick, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    """Rows recorded in SQLite, with their indexes and their entries in the trail."""
    new, store = Uuid7().new, SqliteStore(tmp_path / "recorded.db")

    def run() -> None:
        rows = [
            Row("default", new(), f"cust-{number}", 1, 1, 2350, b"m" * 32, EXAMPLE, RECORD) for number in range(ROWS)
        ]
        assert loop.run_until_complete(store.add_each(rows)) == [None] * ROWS

    loop.run_until_complete(store.open())
    try:
        relate(run, plain, ROWS)
    finally:
        loop.run_until_complete(store.close())
