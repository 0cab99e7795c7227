"""The composition root: the only place where parts are built and wired."""

from __future__ import annotations

import asyncio
import gc
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from app import __version__, errors, wire
from app.api import docs, openapi
from app.api.assessments import Assessments
from app.api.audit import AuditTrail
from app.api.debug import Debug
from app.api.dispositions import DispositionsOf
from app.api.health import HealthOf
from app.api.keys import KeyRing
from app.api.match import Matching
from app.api.metrics import Metrics
from app.api.models import Models
from app.api.operations import PROFILE_EXAMPLE
from app.api.overrides import OverridesOf
from app.api.pages import Kept, fixed, problem, tagged
from app.api.permissions import Body, guarded
from app.api.routes import Table
from app.api.watchlists import Watchlists
from app.assembly import Assembly
from app.assess import Assessor, Reply
from app.audit.acts import Acts
from app.audit.anchors import FileAnchor, anchor_of, log_anchor
from app.audit.checkpoints import Checkpoints
from app.audit.notes import Notes
from app.dispositions import Namesakes
from app.edge.addresses import Addresses
from app.edge.admission import Admission
from app.edge.authentication import Anyone, Authentication, Guard
from app.edge.gate import JSON_TYPE, Answer, Application, Endpoint, Gate, Routes
from app.edge.headers import protective_headers
from app.edge.nearby import Nearby
from app.edge.pages import ForThisMachine, OpenToPages
from app.edge.rates import Rates
from app.edge.request import Bodies, Request
from app.edge.stopping import Stopping
from app.errors import KINDS, ProblemKind, ProblemTable
from app.health import ServiceHealth
from app.ids import Uuid7
from app.keys import Keyring, Keys
from app.limits.allowances import Allowances
from app.limits.census import Census
from app.limits.spread import limiter_over
from app.metering import Metering
from app.neighbours import Store, Tiers, breakers_of, make_store
from app.overrides import Overrides
from app.profiles import read_profile
from app.profiling.heap import Heap
from app.resilience.batcher import Overloaded
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.secrets import Secrets, secrets_of
from app.settings import Settings
from app.store.base import KeyBusy, KeyReused, StoreUnavailable, Unconfirmed
from app.store.postgres.store import PostgresStore
from app.store.trail import Checkpoint
from app.telemetry.access import AccessLog
from app.telemetry.catalogue import METRICS
from app.telemetry.cells import Cells
from app.telemetry.exposition import Exposition
from app.telemetry.lines import LineWriter
from app.telemetry.meters import Meters
from app.telemetry.process import ProcessWatch
from app.telemetry.trace import Tracing
from app.telemetry.traffic import Traffic

if TYPE_CHECKING:
    # Its packages are an extra.
    from app.telemetry.otlp import Exporter

GC_THRESHOLD = 500_000
"""Containers made beyond those freed, from one collection to the next: more than the requests of 10,000 connections are
made of, so that load alone starts none. A tenth of it took a sixth of their time (benchmarks/README.md)."""
SWITCH_INTERVAL_S = 0.02
"""How long the event loop may go on while another thread waits for the interpreter, as the server's does for every
request. With the usual 5 ms, 10,000 connections get three quarters of the answers (benchmarks/README.md)."""
DEFAULT_TENANT = "default"
"""Whose everything is where authentication is switched off."""
SERVICE = "service"
"""Who does what nobody asked for."""

_UNAVAILABLE = KINDS[errors.Unavailable]


def tune() -> None:
    """Have the interpreter do well what a worker does, once everything is made that lives as long as the process."""
    # The collector need not walk all that again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _busy(detail: str) -> ProblemKind:
    return _UNAVAILABLE._replace(detail=detail, retry_after_s=1)


UNCONFIRMED = (
    "The answer was not ready in time, and what the request would have recorded may be on record or not. "
    "Repeat it with the same Idempotency-Key to learn what became of it."
)
PROBLEMS = ProblemTable().extended(
    {
        StoreUnavailable: _busy("The records cannot be read or written now, so nothing was recorded. Try again later."),
        Unconfirmed: _busy(UNCONFIRMED),
        Overloaded: _busy("Too many assessments wait to be recorded. Nothing was recorded. Try again later."),
        DeadlineExceeded: _busy(UNCONFIRMED),
        KeyReused: KINDS[errors.KeyReused]._replace(detail=errors.KeyReused().detail),
        KeyBusy: KINDS[errors.KeyBusy]._replace(detail=errors.KeyBusy().detail, retry_after_s=1),
    }
)
"""Every exception that a request can end with, and how the caller is told."""


def create_app(settings: Settings, cells: Path | None = None, lines: LineWriter | None = None) -> Application:
    """The application of one worker. cells: the folder that the workers of a pod share, for their metrics and whether
    they drain.  lines: what is logged, on its way.

    Raises BudgetTooSmall, SecretsMissing, ExtraMissing, and what `registry.select` raises for a model that cannot be
    used.
    """
    # First, so that what is traced from the start is everything that is made here.
    heap = Heap(settings.monitoring.trace_allocations)
    secrets = secrets_of(settings)
    store = make_store(settings)
    tiers = Tiers(settings)
    server, timeout_s = settings.server, settings.database.timeout
    meters = Meters(Cells(cells))
    parts = Assembly(settings, store, tiers, meters)
    records, assessor, lists = parts.records, parts.assessor, parts.lists
    keyring, keys = make_keys(settings, secrets, store, tiers)
    processes = (settings.scaling.max_replicas or settings.scaling.min_replicas) * server.workers
    limiter = limiter_over(tiers.shared, processes)
    census = None if tiers.shared is None else Census(tiers.shared, processes, limiter.divide)
    rates = Rates(limiter)
    notes = Notes(store)
    acts = Acts(store, timeout_s)
    anchor = anchor_of(settings)
    checkpoints = Checkpoints(store, secrets.audit_signing, settings.audit.checkpoint_every, partial(_anchor, anchor))
    deadline = Deadline(server.request_deadline)
    assessments = Assessments(assessor, records, rates, PROBLEMS, deadline, acts.enter)
    models = Models(parts.registry, store)
    overrides = OverridesOf(Overrides(records, store, Uuid7(), timeout_s=timeout_s))
    set_aside = DispositionsOf(Namesakes(records, store, parts.dispositions, Uuid7()))
    ring = KeyRing(keys)
    trail = AuditTrail(store)
    concurrency = settings.concurrency
    admission = Admission(concurrency.max_concurrent_requests, concurrency.max_queue, concurrency.queue_wait)
    watch = ProcessWatch(meters, sampled=settings.monitoring.enabled, every_s=settings.monitoring.interval)
    metering = Metering(meters)
    metering.store(store, tiers)
    metering.evidence(parts.gatherer, lists, parts.providers)
    metering.edge(admission, limiter)
    metering.audit(acts, notes, checkpoints)
    if lines is not None:
        metering.log(lines)
    exporter = make_exporter(settings)
    logging = settings.logging
    tracing = Tracing(settings.tracing.sample, None if exporter is None else exporter.record)
    access = AccessLog(logging.access_sample, logging.slow_request, tracing)
    status = ServiceHealth(
        __version__,
        parts.registry.active_summary,
        server.workers,
        store,
        store.links if isinstance(store, PostgresStore) else {},
        tiers.shared,
        tiers.caches,
        breakers_of(store, tiers),
        lists,
        parts.providers,
        admission,
        checkpoints,
    )
    metering.health(status, __version__, store)
    health = HealthOf(status)
    debug = Debug(heap, notes.note)
    within = partial(bounded, deadline)
    described: dict[str, Kept] = {}
    endpoints: dict[str, dict[str, Endpoint]] = {
        "/v1/assessments": {"POST": assessments.create, "GET": within(assessments.list)},
        "/v1/assessments/batch": {"POST": assessments.batch},
        "/v1/assessments/{id}": {"GET": within(assessments.read)},
        "/v1/assessments/{id}/replay": {"POST": within(assessments.replay)},
        "/v1/assessments/{id}/overrides": {"GET": within(overrides.list), "POST": within(overrides.create)},
        "/v1/assessments/{id}/overrides/{override_id}": {"GET": within(overrides.read)},
        "/v1/assessments/{id}/overrides/{override_id}/approve": {"POST": within(overrides.approve)},
        "/v1/dispositions": {"GET": within(set_aside.list), "POST": within(set_aside.create)},
        "/v1/dispositions/{id}": {"GET": within(set_aside.read), "DELETE": within(set_aside.end)},
        "/v1/watchlists": {"GET": Watchlists(lists).list},
        "/match/{dataset}": {"POST": Matching(lists, rates).match},
        "/v1/models": {"GET": within(models.list)},
        "/v1/models/{id}/{version}": {"GET": within(models.read)},
        "/v1/keys": {"GET": within(ring.list), "POST": within(ring.create)},
        "/v1/keys/{id}": {"GET": within(ring.read), "DELETE": within(ring.revoke)},
        "/v1/keys/{id}/rotate": {"POST": within(ring.rotate)},
        "/v1/audit": {"GET": within(trail.list)},
        "/v1/audit/checkpoints": {"GET": within(trail.checkpoints)},
        "/debug/pprof/goroutine": {"GET": debug.goroutine},
        "/debug/pprof/heap": {"GET": debug.heap},
        "/debug/pprof/profile": {"GET": debug.profile},
        "/problems/{slug}": {"GET": problem},
        "/health": {"GET": health.brief},
        "/health/live": {"GET": health.live},
        "/health/ready": {"GET": health.ready},
        "/health/detailed": {"GET": health.detailed},
        "/metrics": {"GET": Metrics(meters, Exposition(meters.cells, METRICS)).read},
        "/openapi.json": {"GET": fixed(described, "/openapi.json")},
        "/docs": {"GET": fixed(described, "/docs")},
    }

    def drain() -> None:
        status.drain()
        gate.close_connections()

    async def start() -> None:
        if anchor is not None:
            anchor.make_folder()
        await store.open()
        await tiers.open()
        if census is not None:
            census.start()
        await parts.open(SERVICE)
        keyring.start()
        checkpoints.start()
        described.update(await _description(assessor, server.url))
        Stopping(server.drain_time, drain, debug.stop, cells).hear()
        tune()
        status.start()
        watch.start()

    async def stop() -> None:
        await status.stop()
        # While the database is away each of them waits for it.
        await asyncio.gather(acts.close(), notes.stop(), keyring.stop(), limiter.close(), parts.close())
        # What they entered is to be covered, too.
        await checkpoints.stop()
        if census is not None:
            await census.stop()
        await asyncio.gather(tiers.close(), store.close())
        await watch.stop()
        if exporter is not None:
            await asyncio.to_thread(exporter.close)

    limits: dict[Body, int] = {"single": server.body_limit, "batch": server.batch_body_limit}
    origins = server.cors_origins or ()
    addresses = Addresses(server.trusted_proxies or ())
    guard: Guard = Anyone(DEFAULT_TENANT)
    if settings.auth.enabled:
        allowances = Allowances(settings.limits, settings.auth.failures)
        guard = Authentication((keyring,), addresses, limiter, allowances.of_address, notes.note)
    nearby = Nearby(guard, addresses, settings.monitoring.networks or ())
    routes: Routes = Table(guarded(endpoints, limits, server.behind_tls, nearby))
    if not settings.auth.enabled:
        routes = ForThisMachine(routes, origins)
    hardening = protective_headers(server.behind_tls)
    gate = Gate(
        routes,
        PROBLEMS,
        guard,
        rates,
        Bodies(server.body_timeout),
        admission,
        Traffic(meters),
        notes.note,
        hardening,
        start,
        stop,
        access,
    )
    return OpenToPages(gate, origins, PROBLEMS, hardening) if origins else gate


def make_keys(settings: Settings, secrets: Secrets, store: Store, tiers: Tiers) -> tuple[Keyring, Keys]:
    """What recognises keys, and what makes and ends them."""
    ring = Keyring(
        store,
        secrets.key_hash,
        Allowances(settings.limits, settings.auth.failures).of_key,
        local=tiers.keys,
        shared=tiers.shared,
        kept_s=settings.cache.ttl,
        timeout_s=settings.database.timeout,
    )
    return ring, Keys(store, secrets.key_hash, settings.auth.environment, settings.limits, ring.forget)


def make_exporter(settings: Settings) -> Exporter | None:
    """What sends recorded traces to the collector; None where there is none. Raises ExtraMissing."""
    if settings.tracing.endpoint is None:
        return None
    from app.telemetry.otlp import Exporter

    return Exporter(settings.tracing.endpoint, __version__)


def _anchor(file: FileAnchor | None, checkpoint: Checkpoint) -> None:
    log_anchor(checkpoint)
    if file is not None:
        file(checkpoint)


def bounded(deadline: Deadline, endpoint: Endpoint) -> Endpoint:
    """The endpoint, with everything that it waits for ended by the deadline."""

    async def answer(request: Request) -> Answer:
        return await deadline.run(endpoint(request))

    return answer


async def _description(assessor: Assessor, base_url: str) -> dict[str, Kept]:
    """The API's description, with a real answer as its example, and its page. That the example is of another day makes
    them no others."""
    body = msgspec.json.encode(PROFILE_EXAMPLE)
    made: Reply = await assessor.assess(
        "", read_profile(body), body, full=False, dry_run=True, keyed=None, actor=SERVICE
    )
    example = msgspec.json.decode(made.body, type=wire.Assessment)
    document = openapi.document(__version__, example)
    page = docs.page(document, base_url)
    told = openapi.encoded(openapi.document(__version__))
    return {
        "/openapi.json": tagged(openapi.encoded(document), (JSON_TYPE,), told),
        "/docs": tagged(page.html, page.headers, told + base_url.encode()),
    }
