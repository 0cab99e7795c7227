"""The composition root: the only place where parts are built and wired."""

from __future__ import annotations

import gc

import msgspec

from app import __version__, errors, wire
from app.api import docs, openapi
from app.api.assessments import Assessments
from app.api.models import Models
from app.api.pages import fixed, health, problem
from app.api.routes import Methods, Table
from app.assess import Answer as Assessment
from app.assess import Assessor
from app.edge.gate import JSON_TYPE, Answer, Gate
from app.edge.request import Bodies
from app.errors import KINDS, ProblemKind, ProblemTable
from app.evidence.watchlist import Watchlist
from app.ids import Uuid7
from app.profiles import read_profile
from app.registry import Registry, select
from app.resilience.batcher import Overloaded
from app.resilience.deadline import DeadlineExceeded
from app.settings import Settings
from app.store.base import KeyReused, StoreUnavailable
from app.store.sqlite import SqliteStore

GC_THRESHOLD = 50_000
"""Allocations between two collections. At 10,000 connections the collector decides the throughput."""

_UNAVAILABLE = KINDS[errors.Unavailable]


def _busy(detail: str) -> ProblemKind:
    return _UNAVAILABLE._replace(detail=detail, retry_after_s=1)


PROBLEMS = ProblemTable().extended(
    {
        StoreUnavailable: _busy("The records cannot be read or written now, so nothing was recorded. Try again later."),
        Overloaded: _busy("Too many assessments wait to be recorded. Nothing was recorded. Try again later."),
        DeadlineExceeded: _busy(
            "The commit was not confirmed in time. "
            "Repeat the request with the same Idempotency-Key to learn what became of it."
        ),
        KeyReused: KINDS[errors.KeyReused]._replace(
            detail="This Idempotency-Key was used for another request. A new request needs a new key."
        ),
    }
)
"""Every exception that a request can end with, and how the caller is told."""


def create_app(settings: Settings) -> Gate:
    """The application of one worker. Raises what `registry.select` raises for a model that cannot be used."""
    registry = Registry(select(settings.model))
    store = SqliteStore(settings.database.sqlite_file, timeout_s=settings.database.busy_timeout)
    server = settings.server
    assessor = Assessor(
        registry,
        Watchlist(),
        store,
        Uuid7(),
        commit_timeout_s=server.request_deadline,
        item_limit_bytes=server.body_limit,
    )
    bodies = Bodies(server.body_timeout)
    assessments = Assessments(assessor, store, bodies, PROBLEMS, server.body_limit, server.batch_body_limit)
    models = Models(registry, store)
    paths: dict[str, Methods] = {
        "/v1/assessments": {"POST": assessments.create, "GET": assessments.list},
        "/v1/assessments/batch": {"POST": assessments.batch},
        "/v1/assessments/{id}": {"GET": assessments.read},
        "/v1/assessments/{id}/replay": {"POST": assessments.replay},
        "/v1/models": {"GET": models.list},
        "/v1/models/{id}/{version}": {"GET": models.read},
        "/problems/{slug}": {"GET": problem},
        "/health": {"GET": health(__version__)},
    }

    async def start() -> None:
        await store.open()
        await registry.keep(store)
        paths.update(await _description(assessor, f"http://{server.host}:{server.port}"))
        gate.routes = Table(paths)
        # Everything made so far lives as long as the process: the collector need not walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    gate = Gate(Table(paths), PROBLEMS, start, store.close)
    return gate


async def _description(assessor: Assessor, base_url: str) -> dict[str, Methods]:
    """The API's description, with a real answer as its example, and its page."""
    body = msgspec.json.encode(openapi.PROFILE_EXAMPLE)
    made: Assessment = await assessor.assess("", read_profile(body), body, dry_run=True, key=None)
    example = msgspec.json.decode(made.render(False), type=wire.Assessment)
    described = openapi.document(__version__, example)
    page = docs.page(described, base_url)
    headers = tuple(header for header in page.headers if header[0] != b"content-length")
    return {
        "/openapi.json": {"GET": fixed(Answer(200, openapi.encoded(described), (JSON_TYPE,)))},
        "/docs": {"GET": fixed(Answer(200, page.html, headers))},
    }
