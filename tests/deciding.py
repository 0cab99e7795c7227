"""People who decide over assessments: examples whose outcome is known, and a pod in which they are decided over."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from service import example
from shipped import CATALOGUE, changed

from app import wire
from app.api.assessments import Assessments
from app.api.overrides import OverridesOf
from app.assess import Assessor
from app.audit.acts import Acts
from app.cache.invalidation import Listener
from app.cache.link import Link
from app.cache.local import Local
from app.cache.pool import FAILURES, Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.errors import ProblemTable
from app.evidence.base import Findings, Gathered, ScreeningFacts
from app.ids import Uuid7, text
from app.overrides import Overrides
from app.profiles import read_profile
from app.records import Recorded, Records
from app.registry import Registry
from app.resilience.breaker import Breaker
from app.resilience.deadline import Deadline
from app.store.access import StoredOverride
from app.telemetry.cells import Cells
from app.telemetry.meters import Meters
from app.telemetry.outcomes import Outcomes
from core.loader import load
from core.model import Model

TENANT = "acme"
LOW, MEDIUM, HIGH, CRITICAL = range(4)
APPROVE, REVIEW, DECLINE = range(3)
ANA, BEN, CAT = "anaanaanaana", "benbenbenben", "catcatcatcat"
REASON = "Maria Musterfrau, born 1970, explained it."


@cache
def model() -> Model:
    """The shipped model, but a business in liquidation is declined, and not by law."""
    declined = changed(
        (
            "when: [{business_status: in_liquidation}]\n    floor: medium\n    decision: review\n",
            "when: [{business_status: in_liquidation}]\n    floor: critical\n    decision: decline\n",
        )
    )
    return load(declined.encode(), "test", CATALOGUE)


def business(name: str, **fields: Any) -> bytes:
    """An example as it is sent, with other fields of `business`."""
    sent = example(name)
    sent["business"].update(fields)
    return json.dumps(sent).encode()


SOUND = business("healthy-manufacturer")
"""low, approve"""
DOUBTFUL = business("young-ecommerce")
"""medium, review"""
NAME_ONLY = business("name-only")
"""high, review, by rules that are not the law's"""
PEP_OWNED = business("pep-owned")
"""high, review, by law"""
SHELL_BANK = business("healthy-manufacturer", is_shell_bank=True)
"""critical, decline, by law"""
IN_LIQUIDATION = business("healthy-manufacturer", status="in_liquidation")
"""critical, decline, by the model alone"""


class Clear:
    """A source that finds nothing against anybody."""

    async def gather(self, tenant_id: str, profile: wire.Profile) -> Gathered:
        facts = ScreeningFacts("clear", False, 0.0, False, False)
        return Gathered(Findings(facts), b'{"status":"clear","hits":[]}', b"")

    async def gather_each(self, tenant_id: str, profiles: Sequence[wire.Profile]) -> list[Gathered]:
        return [await self.gather(tenant_id, profile) for profile in profiles]


class Pod:
    """What one process holds over a store. redis: the URL of what it shares with others."""

    def __init__(self, store: Any, redis: str | None = None) -> None:
        self.store = store
        self.local = Local(1000, 10_000_000)
        self.shared: Shared | None = None
        if redis is not None:
            pool = Pool(redis, connections=4, min_idle=1, max_age_s=600, timeout_s=5.0, acquire_timeout_s=5.0)
            self.shared = Shared(Link(pool, Breaker("redis", failures=FAILURES)))
            self.listener = Listener(pool.make, self.local, timeout_s=5.0)
        self.kept: Cache[Recorded] = Cache(
            "assessment",
            "test",
            local=self.local,
            shared=self.shared,
            ttl_s=600,
            negative_ttl_s=600,
            encode=Recorded.encoded,
            decode=Recorded.decoded,
            size=Recorded.size_bytes,
        )
        registry = Registry(model())
        self.records = Records(registry, store, store, self.kept, 30.0)
        self.assessor = Assessor(
            registry,
            Clear(),
            store,
            self.records,
            Uuid7(),
            Outcomes(Meters(Cells()), registry.active),
            commit_timeout_s=30.0,
            batch_timeout_s=30.0,
            item_limit_bytes=1 << 20,
        )
        self.overrides = Overrides(self.records, store, Uuid7(), timeout_s=30.0)
        self.api = OverridesOf(self.overrides)
        self.entering = Acts(store, 30.0)
        self.assessments = Assessments(
            self.assessor, self.records, cast(Any, None), ProblemTable(), Deadline(30.0), self.entering.enter
        )

    async def assessed(self, body: bytes) -> bytes:
        """The id of an assessment just recorded."""
        reply = await self.assessor.assess(
            TENANT, read_profile(body), body, full=False, dry_run=False, keyed=None, actor=ANA
        )
        assert reply.id is not None
        return reply.id

    async def decide(
        self, id: bytes, level: int | None = None, decision: int | None = None, *, by: str = ANA
    ) -> StoredOverride:
        return await self.overrides.decide(TENANT, id, level=level, decision=decision, reason=REASON, actor=by)

    async def approve(self, override: StoredOverride, by: str) -> StoredOverride:
        return await self.overrides.approve(TENANT, override.assessment_id, override.id, by)

    async def read(self, id: bytes, full: bool = False) -> wire.Assessment:
        """The assessment, from the cache where that has it."""
        recorded = await self.records.find(TENANT, id)
        assert recorded is not None
        return msgspec.json.decode(await self.records.rendered(recorded, full), type=wire.Assessment)

    async def effective(self, id: bytes) -> tuple[wire.Level, wire.Decision, str | None]:
        told = (await self.read(id)).effective
        return told.level, told.decision, told.override_id

    async def acts(self, id: bytes) -> list[tuple[str, str, Any]]:
        """Name, actor and detail of what the trail tells of the assessment's overrides, oldest first."""
        entries = await self.store.entries(TENANT, assessment=id, limit=100)
        told = [(entry.act, entry.actor, json.loads(entry.detail)) for entry in reversed(entries)]
        return [each for each in told if each[0].startswith("override.")]


def asked(
    id: bytes, override: StoredOverride | None = None, body: bytes = b"", *, by: str = ANA, tenant: str = TENANT
) -> Any:
    """A request as the endpoints see it."""
    params = {"id": text(id)} | ({} if override is None else {"override_id": text(override.id)})
    return SimpleNamespace(
        query=b"",
        path_params=params,
        body=body,
        principal=SimpleNamespace(key_id=by, tenant_id=tenant),
        if_none_match=None,
    )


class Between:
    """A store in which something else happens right before an override is kept."""

    def __init__(self, store: Any, happens: Callable[[], Awaitable[object]]) -> None:
        self._store = store
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def add_override(self, *given: Any, **named: Any) -> bool:
        await self._happens()
        kept: bool = await self._store.add_override(*given, **named)
        return kept

    async def approve_override(self, *given: Any, **named: Any) -> bool:
        await self._happens()
        kept: bool = await self._store.approve_override(*given, **named)
        return kept
