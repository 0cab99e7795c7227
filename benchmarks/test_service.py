"""The service in process, without a socket: what the layers around the core cost, and what the store does and keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest
from calling import PATH, REQUESTS, Client, bare, scope
from conftest import Measure, Note, assessor_on
from samples import EXAMPLE, generated

from app import ids
from app.edge.gate import Answer, Route
from app.edge.request import Request
from app.profiles import read_profile
from app.store.base import Receipt, Row, opened
from app.store.sqlite import SqliteStore
from app.telemetry.access import AccessLog
from app.telemetry.catalogue import METRICS, REQUEST_DURATION
from app.telemetry.cells import Cells
from app.telemetry.course import BODY, DECODE, GATHER, HEAD, QUEUE, RECORD, RENDER, SCORE, current
from app.telemetry.course import KEY as RATED
from app.telemetry.exposition import Exposition
from app.telemetry.meters import Meters
from app.telemetry.trace import Span, Tracing
from app.telemetry.traffic import Traffic

RECORDS = 10_000
CLIENTS = 64
UNKNOWN_FIELD = EXAMPLE.replace(b'"employees"', b'"employes"')
NOT_JSON = EXAMPLE[:-1]
BATCH = b'{"items":[' + b",".join(generated(1000)) + b"]}"


def test_bare(measure: Measure, client: Client) -> None:
    """What calling any application costs here: one that takes the body and sends nothing."""

    alone = Client(bare, client.loop)
    measure(lambda: alone.call(REQUESTS, EXAMPLE), per=REQUESTS, unit="request")
    assert alone.status == 200


def test_orjson(measure: Measure) -> None:
    """A yardstick of the machine: the example's body, untyped."""
    measure(lambda: [orjson.loads(EXAMPLE) for _ in range(REQUESTS)], per=REQUESTS, unit="body")


def test_edge(measure: Measure, client: Client) -> None:
    """All layers of the edge (head, route, key, role, rate, body, admission, headers of the answer) round an endpoint
    that does nothing. What `test_bare` costs is part of it."""
    gate = client.app
    table = gate.routes

    async def nothing(_: Request) -> Answer:
        return Answer(200, b"")

    class Only:
        def __init__(self) -> None:
            self.route: Route | None = None

        def find(self, request: Request) -> Route:
            found = table.find(request)
            if self.route is None:
                self.route = found._replace(endpoint=nothing)
            return self.route

    gate.routes = Only()
    try:
        measure(lambda: client.call(REQUESTS, EXAMPLE), per=REQUESTS, unit="request")
    finally:
        gate.routes = table
    assert client.status == 200


@pytest.mark.parametrize("told", ["nothing", "traceparent", "tracing", "tracing_unsampled"])
def test_telling(measure: Measure, told: str) -> None:
    """What log and trace cost a request that neither tells of, with the default share: its course, every mark of an
    assessment, and the look at what it came to. tracing: spans of others are recorded."""
    record: list[Span] = []
    tracing = Tracing(0.0, record.append) if told.startswith("tracing") else Tracing()
    access = AccessLog(0.01, 1.0, tracing)
    asked = scope(EXAMPLE)
    if told in ("traceparent", "tracing_unsampled"):
        asked["headers"].append((b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"))
    request = Request(asked, None)  # type: ignore[arg-type]
    request.read_head()

    def run() -> None:
        for _ in range(REQUESTS):
            course = access.begin(request, 1.0)
            marks = course.marks
            marks[HEAD] = perf_counter()
            marks[RATED] = perf_counter()
            marks[BODY] = perf_counter()
            marks[QUEUE] = perf_counter()
            inner = current.get().marks
            inner[DECODE] = perf_counter()
            inner[GATHER] = perf_counter()
            inner[SCORE] = perf_counter()
            inner[RECORD] = perf_counter()
            marks[RENDER] = perf_counter()
            access.end(course, PATH, 201, 0.001)

    measure(run, per=REQUESTS, unit="request")


@pytest.mark.parametrize("explain", ["top", "full"])
def test_request(measure: Measure, client: Client, explain: str) -> None:
    """A dry run through every layer."""
    query = b"dry_run=true" if explain == "top" else b"dry_run=true&explain=full"
    measure(lambda: client.call(REQUESTS, EXAMPLE, query=query), per=REQUESTS, unit="request")
    assert client.status == 200


def test_health(measure: Measure, client: Client) -> None:
    """The least that an answer costs: head, route, send."""
    measure(lambda: client.call(REQUESTS, b"", path="/health", query=b"", method="GET"), per=REQUESTS, unit="request")
    assert client.status == 200


def test_metrics(measure: Measure) -> None:
    """What a request leaves behind in the metrics: counted in, counted out, its time in a histogram."""
    traffic = Traffic(Meters(Cells()))

    def run() -> None:
        for _ in range(REQUESTS):
            traffic.end("POST", PATH, 201, traffic.begin())

    measure(run, per=REQUESTS, unit="request")


@pytest.mark.wall
def test_scrape(measure: Measure, note: Note, tmp_path: Path) -> None:
    """The metrics of four workers with 150 routes and statuses and every other metric, read and written out."""
    with ExitStack() as stack:
        each = [stack.enter_context(Cells(tmp_path)) for _ in range(4)]
        for cells in each:
            meters = Meters(cells)
            for number in range(150):
                route, status = f"/v1/things/{{id}}/parts-{number // 5}", str(200 + number % 5)
                meters.histogram(REQUEST_DURATION, "GET", route, status).observe(0.003)
            for metric in METRICS:
                for value in ("one", "two", "three")[: 3 if metric.labels else 1]:
                    labels = [value] * len(metric.labels)
                    if metric.kind == "histogram":
                        meters.histogram(metric, *labels).observe(0.003)
                    else:
                        meters.counter(metric, *labels).set(3.0)
        exposition = Exposition(each[0], METRICS)
        measure(lambda: exposition.text(""), per=1, unit="scrape")
        note("lines of a scrape", exposition.text("")[0].count(b"\n"), "lines")


@pytest.mark.parametrize(("name", "body", "status"), [("field", UNKNOWN_FIELD, 422), ("json", NOT_JSON, 400)])
def test_problem(measure: Measure, client: Client, name: str, body: bytes, status: int) -> None:
    """A body that is refused, with all its faults."""
    measure(lambda: client.call(100, body), per=100, unit="request")
    assert client.status == status


def test_batch_request(measure: Measure, client: Client) -> None:
    """A thousand profiles through the batch endpoint, answers encoded."""
    path = f"{PATH}/batch"
    measure(lambda: client.call(1, BATCH, path=path), per=1000, unit="assessment", rate=True)
    assert client.status == 200


def test_head(measure: Measure) -> None:
    asked = scope(EXAMPLE)

    async def receive() -> dict[str, Any]:
        raise AssertionError

    def run() -> None:
        for _ in range(REQUESTS):
            Request(asked, receive).read_head()

    measure(run, per=REQUESTS, unit="request")


def test_id(measure: Measure) -> None:
    new = ids.Uuid7().new
    measure(lambda: [new() for _ in range(REQUESTS)], per=REQUESTS, unit="id")


def test_id_text(measure: Measure) -> None:
    made = ids.Uuid7().new()
    measure(lambda: [ids.text(made) for _ in range(REQUESTS)], per=REQUESTS, unit="id")


def with_store(path: Path, loop: asyncio.AbstractEventLoop, work: Callable[[SqliteStore], Awaitable[None]]) -> None:
    """Open a store, do something with it, close it."""

    async def run() -> None:
        async with opened(SqliteStore(path)) as store:
            await work(store)

    loop.run_until_complete(run())


class Keeper(SqliteStore):
    """A store that keeps rows in memory, to be stored for real while the clock runs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows: list[Row] = []

    async def add(self, rows: Sequence[Row], receipt: Receipt | None = None, *, actor: str = "") -> None:
        self.rows += rows


@pytest.fixture(scope="module")
def recorded(loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows as the service makes them, each of a profile of its own."""
    keeper = Keeper(tmp_path_factory.mktemp("rows") / "unused.db")
    assessor = assessor_on(keeper)

    async def assess_all() -> None:
        for body in generated(RECORDS):
            profile = read_profile(body)
            await assessor.assess("default", profile, body, full=False, dry_run=False, keyed=None, actor="cli")

    loop.run_until_complete(assess_all())
    return keeper.rows


@pytest.mark.wall
@pytest.mark.parametrize("clients", [CLIENTS, 512])
def test_group_commit(
    measure: Measure, loop: asyncio.AbstractEventLoop, recorded: list[Row], tmp_path: Path, clients: int
) -> None:
    """Rows committed to SQLite by so many clients, each of which waits for its own before it sends the next."""
    files = iter(range(1000))

    async def client(store: SqliteStore, mine: list[Row]) -> None:
        for row in mine:
            await store.add((row,), actor="cli")

    async def all_clients(store: SqliteStore) -> None:
        await asyncio.gather(*(client(store, recorded[place::clients]) for place in range(clients)))

    def run() -> None:
        with_store(tmp_path / f"{next(files)}.db", loop, all_clients)

    measure(run, per=RECORDS, unit="row", rate=True, rounds=3)


@pytest.mark.wall
def test_bytes_per_record(
    measure: Measure, note: Note, loop: asyncio.AbstractEventLoop, recorded: list[Row], tmp_path: Path
) -> None:
    """What a record adds to the file beside its input, indexes and free space of pages included."""

    def size(name: str, kept: list[Row]) -> int:
        async def add(store: SqliteStore) -> None:
            for start in range(0, len(kept), 500):
                await store.add_each(kept[start : start + 500])

        path = tmp_path / name
        path.unlink(missing_ok=True)
        with_store(path, loop, add)
        return path.stat().st_size

    empty = size("empty.db", [])
    full = measure(lambda: size("full.db", recorded), per=RECORDS, unit="row", rounds=1, rate=True)
    input_bytes = sum(len(row.input) for row in recorded) / RECORDS
    note("record bytes a row in the file", (full - empty) / RECORDS - input_bytes, "bytes", "<= 1000 beyond the input")
    note("record bytes a row, the record alone", sum(len(row.record) for row in recorded) / RECORDS, "bytes", "")
    note("input bytes a row", input_bytes, "bytes", "")
