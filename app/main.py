"""The composition root: the only place where parts are built and wired."""

from __future__ import annotations

import asyncio
import gc
from functools import partial

import msgspec
from starlette.middleware.cors import CORSMiddleware

from app import __version__, errors, wire
from app.api import docs, openapi
from app.api.assessments import Assessments
from app.api.audit import AuditTrail
from app.api.keys import KeyRing
from app.api.models import Models
from app.api.operations import PROFILE_EXAMPLE
from app.api.overrides import OverridesOf
from app.api.pages import fixed, health, problem
from app.api.permissions import guarded
from app.api.routes import Table
from app.assess import Assessor, Reply
from app.audit.acts import Acts
from app.audit.anchors import FileAnchor, anchor_of, log_anchor
from app.audit.checkpoints import Checkpoints
from app.audit.notes import Notes
from app.edge.addresses import Addresses
from app.edge.admission import Admission
from app.edge.authentication import Anyone, Authentication, Guard
from app.edge.gate import JSON_TYPE, Answer, Application, Endpoint, Gate
from app.edge.headers import protective_headers
from app.edge.rates import Rates
from app.edge.request import Bodies, Request
from app.errors import KINDS, ProblemKind, ProblemTable
from app.evidence.watchlist import Watchlist
from app.ids import Uuid7
from app.keys import Keyring, Keys
from app.limits.allowances import Allowances
from app.limits.limiter import Limiter
from app.neighbours import Store, Tiers, breakers_of, make_store
from app.overrides import Overrides
from app.profiles import read_profile
from app.records import Records
from app.registry import Registry, select
from app.resilience.batcher import Overloaded
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.secrets import Secrets, secrets_of
from app.settings import Settings
from app.store.base import KeyBusy, KeyReused, StoreUnavailable, Unconfirmed
from app.store.trail import Checkpoint

GC_THRESHOLD = 50_000
"""Allocations between two collections. At 10,000 connections the collector decides the throughput."""
DEFAULT_TENANT = "default"
"""Whose everything is where authentication is switched off."""

_UNAVAILABLE = KINDS[errors.Unavailable]


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


def create_app(settings: Settings) -> Application:
    """The application of one worker.

    Raises BudgetTooSmall, SecretsMissing, and what `registry.select` raises for a model that cannot be used.
    """
    secrets = secrets_of(settings)
    registry = Registry(select(settings.model))
    store = make_store(settings)
    tiers = Tiers(settings)
    server, timeout_s = settings.server, settings.database.timeout
    records = Records(registry, store, tiers.of_assessments(), timeout_s)
    assessor = Assessor(
        registry,
        Watchlist(),
        store,
        records,
        Uuid7(),
        commit_timeout_s=timeout_s,
        batch_timeout_s=server.request_deadline,
        item_limit_bytes=server.body_limit,
    )
    keyring, keys = make_keys(settings, secrets, store, tiers)
    limiter = Limiter(tiers.shared, (settings.scaling.max_replicas or 1) * server.workers)
    rates = Rates(limiter)
    notes = Notes(store)
    acts = Acts(store, timeout_s)
    anchor = anchor_of(settings)
    checkpoints = Checkpoints(store, secrets.audit_signing, settings.audit.checkpoint_every, partial(_anchor, anchor))
    deadline = Deadline(server.request_deadline)
    assessments = Assessments(assessor, records, rates, PROBLEMS, deadline, acts.enter)
    models = Models(registry, store)
    overrides = OverridesOf(Overrides(records, store, Uuid7(), timeout_s=timeout_s))
    ring = KeyRing(keys)
    trail = AuditTrail(store)
    within = partial(bounded, deadline)
    described: dict[str, Answer] = {}
    endpoints: dict[str, dict[str, Endpoint]] = {
        "/v1/assessments": {"POST": assessments.create, "GET": within(assessments.list)},
        "/v1/assessments/batch": {"POST": assessments.batch},
        "/v1/assessments/{id}": {"GET": within(assessments.read)},
        "/v1/assessments/{id}/replay": {"POST": within(assessments.replay)},
        "/v1/assessments/{id}/overrides": {"GET": within(overrides.list), "POST": within(overrides.create)},
        "/v1/assessments/{id}/overrides/{override_id}": {"GET": within(overrides.read)},
        "/v1/assessments/{id}/overrides/{override_id}/approve": {"POST": within(overrides.approve)},
        "/v1/models": {"GET": within(models.list)},
        "/v1/models/{id}/{version}": {"GET": within(models.read)},
        "/v1/keys": {"GET": within(ring.list), "POST": within(ring.create)},
        "/v1/keys/{id}": {"DELETE": within(ring.revoke)},
        "/v1/keys/{id}/rotate": {"POST": within(ring.rotate)},
        "/v1/audit": {"GET": within(trail.list)},
        "/v1/audit/checkpoints": {"GET": within(trail.checkpoints)},
        "/problems/{slug}": {"GET": problem},
        "/health": {"GET": health(__version__, breakers_of(store, tiers))},
        "/openapi.json": {"GET": fixed(described, "/openapi.json")},
        "/docs": {"GET": fixed(described, "/docs")},
    }

    async def start() -> None:
        if anchor is not None:
            anchor.make_folder()
        await store.open()
        await tiers.open()
        await registry.keep(store)
        keyring.start()
        checkpoints.start()
        described.update(await _description(assessor, f"http://{server.host}:{server.port}"))
        # Everything made so far lives as long as the process: the collector need not walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    async def stop() -> None:
        # While the database is away each of them waits for it.
        await asyncio.gather(acts.close(), notes.stop(), keyring.stop(), limiter.close())
        # What they entered is to be covered, too.
        await checkpoints.stop()
        await asyncio.gather(tiers.close(), store.close())

    guard: Guard = Anyone(DEFAULT_TENANT)
    if settings.auth.enabled:
        allowances = Allowances(settings.limits, settings.auth.failures)
        addresses = Addresses(server.trusted_proxies or ())
        guard = Authentication((keyring,), addresses, limiter, allowances.of_address, notes.note)
    concurrency = settings.concurrency
    gate = Gate(
        Table(guarded(endpoints, {"single": server.body_limit, "batch": server.batch_body_limit}, server.behind_tls)),
        PROBLEMS,
        guard,
        rates,
        Bodies(server.body_timeout),
        Admission(concurrency.max_concurrent_requests, concurrency.max_queue, concurrency.queue_wait),
        notes.note,
        protective_headers(server.behind_tls),
        start,
        stop,
    )
    return gate if not server.cors_origins else _for_browsers(gate, server.cors_origins)


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
    return ring, Keys(store, secrets.key_hash, settings.auth.environment, settings.limits.tiers, ring.forget)


def _anchor(file: FileAnchor | None, checkpoint: Checkpoint) -> None:
    log_anchor(checkpoint)
    if file is not None:
        file(checkpoint)


def _for_browsers(app: Application, origins: tuple[str, ...]) -> Application:
    """The application, for pages of these origins too. Their own credentials, such as cookies, are never taken."""
    sent = ("Authorization", "X-API-Key", "Content-Type", "Content-Encoding", "Idempotency-Key", "If-None-Match")
    told = ("ETag", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed")
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=(*sent, "X-Request-ID"),
        expose_headers=(*told, "X-Request-ID"),
        allow_credentials=False,
        max_age=600,
    )


def bounded(deadline: Deadline, endpoint: Endpoint) -> Endpoint:
    """The endpoint, with everything that it waits for ended by the deadline."""

    async def answer(request: Request) -> Answer:
        return await deadline.run(endpoint(request))

    return answer


async def _description(assessor: Assessor, base_url: str) -> dict[str, Answer]:
    """The API's description, with a real answer as its example, and its page."""
    body = msgspec.json.encode(PROFILE_EXAMPLE)
    made: Reply = await assessor.assess(
        "", read_profile(body), body, full=False, dry_run=True, keyed=None, actor="service"
    )
    example = msgspec.json.decode(made.body, type=wire.Assessment)
    document = openapi.document(__version__, example)
    page = docs.page(document, base_url)
    return {
        "/openapi.json": Answer(200, openapi.encoded(document), (JSON_TYPE,)),
        "/docs": Answer(200, page.html, page.headers),
    }
