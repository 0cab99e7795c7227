"""What people decide over assessments: what takes effect, what needs a second key, and that the record stays."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import sha256
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from cached import until
from records import BACKENDS, Backend
from service import example
from shipped import CATALOGUE, changed

from app import overrides, wire
from app.api.assessments import Assessments
from app.api.overrides import OverridesOf
from app.assess import Assessor, Keyed, check_same
from app.cache.invalidation import Listener
from app.cache.local import MISSING, Local
from app.cache.pool import FAILURES, Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.errors import BodyRefused, BodyUnreadable, Conflict, NotFound, ProblemTable
from app.evidence.base import Findings, Gathered, ScreeningFacts, gathered
from app.ids import Uuid7, text
from app.overrides import Overrides
from app.profiles import read_body, read_profile
from app.records import Recorded, Records
from app.registry import Registry
from app.resilience.breaker import Breaker
from app.resilience.deadline import Deadline
from app.store.access import StoredOverride
from app.store.base import Row, Unconfirmed
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

    async def gather(self, profile: wire.Profile) -> Gathered:
        return gathered(Findings(ScreeningFacts("clear", False, 0.0, False)), wire.Screening("clear"), [])


class Pod:
    """What one process holds over a store. redis: the URL of what it shares with others."""

    def __init__(self, store: Any, redis: str | None = None) -> None:
        self.store = store
        self.local = Local(1000, 10_000_000)
        self.shared: Shared | None = None
        if redis is not None:
            pool = Pool(redis, connections=4, min_idle=1, max_age_s=600, timeout_s=5.0, acquire_timeout_s=5.0)
            self.shared = Shared(pool, Breaker("redis", failures=FAILURES))
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
        self.records = Records(registry, store, self.kept, 30.0)
        self.assessor = Assessor(
            registry,
            Clear(),
            store,
            self.records,
            Uuid7(),
            commit_timeout_s=30.0,
            batch_timeout_s=30.0,
            item_limit_bytes=1 << 20,
        )
        self.overrides = Overrides(self.records, store, Uuid7(), timeout_s=30.0)
        self.api = OverridesOf(self.overrides)
        self.assessments = Assessments(
            self.assessor, self.records, cast(Any, None), ProblemTable(), Deadline(30.0), lambda _: None
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


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


def test_the_examples_are_judged_as_these_tests_need(backend: Backend) -> None:
    expected = {
        SOUND: ("low", "approve"),
        DOUBTFUL: ("medium", "review"),
        NAME_ONLY: ("high", "review"),
        PEP_OWNED: ("high", "review"),
        SHELL_BANK: ("critical", "decline"),
        IN_LIQUIDATION: ("critical", "decline"),
    }

    async def scenario(store: Any) -> None:
        pod = Pod(store)
        found = {body: await pod.read(await pod.assessed(body)) for body in expected}
        assert {body: (told.level, told.decision) for body, told in found.items()} == expected

    backend.run(scenario)


def test_effective_shows_the_override_and_the_record_stays(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        before = [await pod.read(id, full) for full in (False, True)]
        made = await pod.decide(id, HIGH, DECLINE)
        assert (made.state, made.actor, made.reason) == ("applied", ANA, REASON)
        for full, was in zip((False, True), before, strict=True):
            expected = wire.Effective("high", "decline", text(made.id))
            assert await pod.read(id, full) == msgspec.structs.replace(was, effective=expected)
        assert await pod.overrides.of(TENANT, id) == [made]

    backend.run(scenario)


def test_what_is_not_given_stays_as_it_is_in_force(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        await pod.decide(id, decision=DECLINE)
        assert (await pod.effective(id))[:2] == ("medium", "decline")
        await pod.decide(id, level=CRITICAL)
        assert (await pod.effective(id))[:2] == ("critical", "decline")
        await pod.decide(id, decision=REVIEW)
        assert (await pod.effective(id))[:2] == ("critical", "review")

    backend.run(scenario)


def test_lists_show_and_filter_by_what_is_in_force(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        overridden, untouched = await pod.assessed(DOUBTFUL), await pod.assessed(DOUBTFUL)
        made = await pod.decide(overridden, HIGH, DECLINE)

        async def listed(query: bytes) -> list[Any]:
            request = asked(overridden)
            request.query = query
            items: list[Any] = json.loads((await pod.assessments.list(request)).body)["items"]
            return items

        [item] = await listed(b"decision=decline")
        assert (item["id"], item["level"], item["decision"]) == (text(overridden), "medium", "review")
        assert item["effective"] == {"level": "high", "decision": "decline", "override_id": text(made.id)}
        assert [item["id"] for item in await listed(b"level=high")] == [text(overridden)]
        assert [item["id"] for item in await listed(b"level=medium")] == [text(untouched)]
        assert [item["effective"]["override_id"] for item in await listed(b"")] == [None, text(made.id)]

    backend.run(scenario)


def test_the_etag_changes_with_every_override_that_takes_effect(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)

        async def etag() -> bytes:
            return dict((await pod.assessments.read(asked(id))).headers)[b"etag"]

        seen = [await etag()]
        await pod.decide(id, decision=REVIEW)
        seen.append(await etag())
        pending = await pod.decide(id, decision=APPROVE)
        assert await etag() == seen[-1]
        await pod.approve(pending, BEN)
        seen.append(await etag())
        assert len(set(seen)) == 3
        request = asked(id)
        request.if_none_match = seen[1]
        assert (await pod.assessments.read(request)).status == 200
        request.if_none_match = seen[2]
        assert (await pod.assessments.read(request)).status == 304

    backend.run(scenario)


def test_a_replay_is_of_the_record_and_stays_identical(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        await pod.decide(id, CRITICAL, DECLINE)
        row = await store.get(TENANT, id)
        assert await pod.records.replay(row) == wire.Replay(identical=True)

    backend.run(scenario)


@pytest.mark.parametrize("full", [False, True])
def test_a_repeated_request_gets_its_first_answer_byte_for_byte(backend: Backend, full: bool) -> None:
    keyed = Keyed("key-1", b"f" * 32, "request-1")

    async def scenario(store: Any) -> None:
        pod = Pod(store)

        async def send(to: Pod) -> Any:
            return await to.assessor.assess(
                TENANT, read_profile(DOUBTFUL), DOUBTFUL, full=full, dry_run=False, keyed=keyed, actor=ANA
            )

        first = await send(pod)
        await pod.decide(first.id, CRITICAL, DECLINE)
        # Once more when the answer with the override was rendered, and in a pod that never saw the first.
        await pod.read(first.id, full)
        for to in (pod, pod, Pod(store)):
            again = await send(to)
            assert (again.repeated, again.body) == (True, first.body)

    backend.run(scenario)


def test_a_repeated_batch_gets_its_first_answer_byte_for_byte(backend: Backend) -> None:
    keyed = Keyed("key-1", b"f" * 32, "request-1")
    items = [DOUBTFUL, b"{}", SOUND]

    async def scenario(store: Any) -> None:
        pod = Pod(store)

        async def told(outcomes: Any) -> bytes:
            return await pod.assessments._rendered(outcomes, "request-1", False)

        async def send() -> tuple[Any, Any, bytes]:
            scored = await pod.assessor.score_batch(TENANT, items, dry_run=False)
            body = await told(scored.outcomes)
            receipt = await pod.assessor.record_together(TENANT, scored, keyed, False, body, actor=ANA)
            return scored, receipt, body

        scored, receipt, first = await send()
        assert receipt is None
        await pod.decide(scored.outcomes[0].id, CRITICAL, DECLINE)
        _, receipt, _ = await send()
        again = await told(await pod.assessor.repeat_batch(receipt, items))
        check_same(receipt, again)
        assert again == first

    backend.run(scenario)


@pytest.mark.parametrize(
    ("body", "level", "decision", "code"),
    [
        (PEP_OWNED, MEDIUM, None, "OVR_PEP"),
        (PEP_OWNED, None, APPROVE, "OVR_PEP"),
        (PEP_OWNED, CRITICAL, APPROVE, "OVR_PEP"),
        (SHELL_BANK, HIGH, None, "OVR_SHELL_BANK"),
        (SHELL_BANK, None, REVIEW, "OVR_SHELL_BANK"),
        (SHELL_BANK, None, APPROVE, "OVR_SHELL_BANK"),
    ],
)
def test_a_legal_floor_cannot_be_undercut(
    backend: Backend, body: bytes, level: int | None, decision: int | None, code: str
) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(body)
        with pytest.raises(Conflict, match=code):
            await pod.decide(id, level, decision)
        # Nor from above.
        await pod.decide(id, CRITICAL, DECLINE)
        with pytest.raises(Conflict, match=code):
            await pod.decide(id, level, decision)
        assert (await pod.effective(id))[:2] == ("critical", "decline")
        assert len(await pod.overrides.of(TENANT, id)) == 1

    backend.run(scenario)


def test_down_to_a_legal_floor_a_person_may_go(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(PEP_OWNED)
        await pod.decide(id, CRITICAL, DECLINE)
        assert (await pod.decide(id, HIGH, REVIEW)).state == "applied"

    backend.run(scenario)


def test_other_floors_can_be_undercut(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(NAME_ONLY)
        assert (await pod.decide(id, LOW, APPROVE)).state == "applied"
        assert (await pod.effective(id))[:2] == ("low", "approve")

    backend.run(scenario)


def test_a_decline_is_approved_by_two_keys(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        pending = await pod.decide(id, LOW, APPROVE, by=ANA)
        assert pending.state == "pending"
        assert await pod.effective(id) == ("critical", "decline", None)
        with pytest.raises(Conflict, match="another key"):
            await pod.approve(pending, ANA)
        assert await pod.effective(id) == ("critical", "decline", None)
        approved = await pod.approve(pending, BEN)
        assert (approved.state, approved.actor, approved.approver) == ("approved", ANA, BEN)
        assert await pod.effective(id) == ("low", "approve", text(pending.id))
        assert await pod.overrides.of(TENANT, id) == [approved]
        with pytest.raises(Conflict, match="nothing to approve"):
            await pod.approve(pending, CAT)

    backend.run(scenario)


def test_an_applied_override_cannot_be_approved(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        applied = await pod.decide(await pod.assessed(DOUBTFUL), level=HIGH)
        with pytest.raises(Conflict, match="nothing to approve"):
            await pod.approve(applied, BEN)

    backend.run(scenario)


def test_one_key_cannot_approve_in_two_steps(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        assert (await pod.decide(id, MEDIUM, REVIEW, by=ANA)).state == "applied"
        own = await pod.decide(id, decision=APPROVE, by=ANA)
        assert own.state == "pending"
        with pytest.raises(Conflict, match="asked for"):
            await pod.approve(own, ANA)
        # Nor with the second step asked for by another.
        others = await pod.decide(id, decision=APPROVE, by=BEN)
        assert others.state == "pending"
        with pytest.raises(Conflict, match="lowered"):
            await pod.approve(others, ANA)
        assert (await pod.effective(id))[:2] == ("medium", "review")
        await pod.approve(others, CAT)
        assert (await pod.effective(id))[:2] == ("medium", "approve")

    backend.run(scenario)


def test_what_a_person_declined_is_approved_by_two_keys(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(SOUND)
        assert (await pod.decide(id, decision=DECLINE, by=ANA)).state == "applied"
        assert (await pod.decide(id, decision=APPROVE, by=BEN)).state == "pending"
        assert (await pod.decide(id, decision=REVIEW, by=BEN)).state == "applied"
        pending = await pod.decide(id, decision=APPROVE, by=BEN)
        # She declined it, and may join in approving it.
        assert (await pod.approve(pending, ANA)).state == "approved"
        # What was declined once stays so, however it went since.
        await pod.decide(id, decision=REVIEW, by=CAT)
        assert (await pod.decide(id, decision=APPROVE, by=CAT)).state == "pending"

    backend.run(scenario)


def test_what_was_never_declined_is_approved_by_one(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        assert (await pod.decide(id, decision=APPROVE)).state == "applied"
        assert (await pod.decide(id, decision=REVIEW)).state == "applied"
        assert (await pod.decide(id, decision=APPROVE)).state == "applied"

    backend.run(scenario)


def test_once_approved_by_two_the_level_alone_takes_one(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        await pod.approve(await pod.decide(id, decision=APPROVE, by=ANA), BEN)
        assert (await pod.decide(id, level=LOW, by=ANA)).state == "applied"
        assert (await pod.effective(id))[:2] == ("low", "approve")

    backend.run(scenario)


def test_who_lowered_before_the_last_decline_may_approve(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        await pod.decide(id, decision=REVIEW, by=ANA)
        await pod.decide(id, decision=DECLINE, by=BEN)
        pending = await pod.decide(id, decision=APPROVE, by=BEN)
        assert (await pod.approve(pending, ANA)).state == "approved"

    backend.run(scenario)


def test_a_pending_override_ends_with_the_next_that_takes_effect(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        first, second = [await pod.decide(id, decision=APPROVE, by=ANA) for _ in range(2)]
        news = await pod.decide(id, level=CRITICAL, by=CAT)
        for pending in (first, second):
            with pytest.raises(Conflict, match=text(news.id)):
                await pod.approve(pending, BEN)
        assert (await pod.effective(id))[:2] == ("critical", "decline")
        third = await pod.decide(id, decision=APPROVE, by=ANA)
        assert (await pod.approve(third, BEN)).state == "approved"

    backend.run(scenario)


def lowerers(chain: list[tuple[int, str]]) -> set[str]:
    """Who lowered the decision since it was last decline. chain: each decision in force, and whose it was."""
    last = max(place for place, (decision, _) in enumerate(chain) if decision == DECLINE)
    return {actor for (before, _), (after, actor) in pairwise(chain[last:]) if after < before}


def test_nobody_ever_approves_alone_what_was_declined(backend: Backend) -> None:
    """Whatever three keys try, in whatever order."""
    draw = random.Random(7)

    async def attempt(pod: Pod, id: bytes, by: str) -> StoredOverride | None:
        known = await pod.overrides.of(TENANT, id)
        try:
            if known and draw.random() < 0.5:
                return await pod.approve(draw.choice(known[-3:]), by)
            return await pod.decide(id, decision=draw.choice([APPROVE, APPROVE, REVIEW, DECLINE]), by=by)
        except Conflict:
            return None

    async def scenario(store: Any) -> None:
        pod = Pod(store)
        approvals = 0
        for body, decision in [(IN_LIQUIDATION, DECLINE), (SOUND, APPROVE)] * 3:
            id = await pod.assessed(body)
            chain = [(decision, "model")]
            for _ in range(40):
                done = await attempt(pod, id, draw.choice([ANA, BEN, CAT]))
                if done is None or done.state == "pending":
                    continue
                if done.decision == APPROVE != chain[-1][0] and any(was == DECLINE for was, _ in chain):
                    approvals += 1
                    assert done.approver not in {None, done.actor, *lowerers(chain)}
                chain.append((done.decision, done.actor))
        assert approvals > 5

    backend.run(scenario)


def test_what_is_not_there_is_not_found(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id, elsewhere = await pod.assessed(IN_LIQUIDATION), await pod.assessed(IN_LIQUIDATION)
        pending = await pod.decide(id, decision=APPROVE)
        unknown = Uuid7().new()
        with pytest.raises(NotFound):
            await pod.decide(unknown, level=HIGH)
        with pytest.raises(NotFound):
            await pod.overrides.of(TENANT, unknown)
        for tenant, assessment, override in (
            (TENANT, id, unknown),
            (TENANT, elsewhere, pending.id),
            ("other", id, pending.id),
        ):
            with pytest.raises(NotFound):
                await pod.overrides.approve(tenant, assessment, override, BEN)
        with pytest.raises(NotFound):
            await pod.overrides.decide("other", id, level=HIGH, decision=None, reason=REASON, actor=BEN)
        with pytest.raises(NotFound):
            await pod.overrides.of("other", id)
        assert (await pod.overrides.approve(TENANT, id, pending.id, BEN)).state == "approved"

    backend.run(scenario)


def test_a_decision_that_was_overtaken_is_made_anew_over_the_other(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        other = Pod(store)
        id = await other.assessed(DOUBTFUL)
        happened: list[StoredOverride] = []

        async def decline() -> None:
            if not happened:
                happened.append(await other.decide(id, decision=DECLINE, by=BEN))

        pod = Pod(Between(store, decline))
        # Over a review this takes one key; over the decline that came first it takes two.
        made = await pod.decide(id, level=LOW, decision=APPROVE, by=ANA)
        assert made.state == "pending"
        assert await other.effective(id) == ("medium", "decline", text(happened[0].id))
        [_, (name, _, detail)] = await other.acts(id)
        assert (name, detail["from"]) == ("override.pending", {"level": "medium", "decision": "decline"})

    backend.run(scenario)


def test_an_approval_that_was_overtaken_is_refused(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        other = Pod(store)
        id = await other.assessed(IN_LIQUIDATION)
        pending = await other.decide(id, decision=APPROVE, by=ANA)
        happened: list[StoredOverride] = []

        async def insist() -> None:
            if not happened:
                happened.append(await other.decide(id, decision=DECLINE, by=CAT))

        with pytest.raises(Conflict, match="no longer holds"):
            await Pod(Between(store, insist)).approve(pending, BEN)
        assert await other.effective(id) == ("critical", "decline", text(happened[0].id))
        assert [one.state for one in await other.overrides.of(TENANT, id)] == ["pending", "applied"]

    backend.run(scenario)


def test_a_decision_that_is_always_overtaken_is_given_up(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        other = Pod(store)
        id = await other.assessed(DOUBTFUL)

        async def decide() -> None:
            await other.decide(id, level=HIGH, by=BEN)

        with pytest.raises(Conflict, match="at the same time"):
            await Pod(Between(store, decide)).decide(id, decision=DECLINE, by=ANA)
        assert {one.actor for one in await other.overrides.of(TENANT, id)} == {BEN}

    backend.run(scenario)


def test_of_two_approvals_at_the_same_time_one_is_refused(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pods = [Pod(store), Pod(store)]
        id = await pods[0].assessed(IN_LIQUIDATION)
        pending = await pods[0].decide(id, decision=APPROVE, by=ANA)
        both = (pod.approve(pending, by) for pod, by in zip(pods, (BEN, CAT), strict=True))
        done = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(one) is Conflict for one in done) == [False, True]
        assert [name for name, _, _ in await pods[0].acts(id)] == ["override.pending", "override.approved"]

    backend.run(scenario)


def test_decisions_at_the_same_time_each_stand_on_the_one_before(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pods = [Pod(store), Pod(store), Pod(store)]
        id = await pods[0].assessed(DOUBTFUL)
        wanted = [(LOW, REVIEW), (HIGH, DECLINE), (CRITICAL, DECLINE)]
        await asyncio.gather(*(pod.decide(id, *want) for pod, want in zip(pods, wanted, strict=True)))
        told = [detail for _, _, detail in await pods[0].acts(id)]
        reached = [{"level": "medium", "decision": "review"}, *(detail["to"] for detail in told)]
        assert [detail["from"] for detail in told] == reached[:-1]
        level, decision, override_id = await pods[0].effective(id)
        assert ({"level": level, "decision": decision}, override_id) == (reached[-1], told[-1]["override"])

    backend.run(scenario)


def test_every_pod_follows(backend: Backend, redis_url: str) -> None:
    async def scenario(store: Any) -> None:
        pods = [Pod(store, redis_url), Pod(store, redis_url)]
        for pod in pods:
            assert pod.shared is not None
            await pod.shared.open()
            pod.listener.start()
            await until(lambda pod=pod: pod.listener.linked)
        here, there = pods
        id = await here.assessed(IN_LIQUIDATION)
        assert (await there.effective(id))[1] == "decline"
        heard = there.listener.messages
        await there.approve(await here.decide(id, decision=APPROVE), BEN)
        assert (await there.effective(id))[1] == "approve"
        await until(lambda: there.listener.messages > heard)
        await here.decide(id, level=HIGH)
        await until(lambda: there.listener.messages > heard + 1)
        assert (await there.effective(id))[:2] == ("high", "approve")
        assert (await here.effective(id))[:2] == ("high", "approve")
        for pod in pods:
            assert pod.shared is not None
            await pod.listener.stop()
            await pod.shared.close()

    backend.run(scenario)


def test_a_caller_who_goes_away_leaves_no_old_answer_behind(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await go_on.wait()

        pod = Pod(Between(store, wait))
        id = await pod.assessed(DOUBTFUL)
        await pod.read(id)
        deciding = asyncio.create_task(pod.decide(id, decision=DECLINE))
        await reached.wait()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        assert (await pod.effective(id))[1] == "review"
        go_on.set()
        await until(lambda: pod.kept.peek(TENANT, id) is MISSING)
        assert (await pod.effective(id))[1] == "decline"

    backend.run(scenario)


def test_a_commit_that_was_lost_sight_of_leaves_no_old_answer_behind(backend: Backend) -> None:
    class Lost(Between):
        async def add_override(self, *given: Any, **named: Any) -> bool:
            await super().add_override(*given, **named)
            raise Unconfirmed("the connection broke")

    async def nothing() -> None:
        pass

    async def scenario(store: Any) -> None:
        pod = Pod(Lost(store, nothing))
        id = await pod.assessed(DOUBTFUL)
        await pod.read(id)
        with pytest.raises(Unconfirmed):
            await pod.decide(id, decision=DECLINE)
        assert (await pod.effective(id))[1] == "decline"

    backend.run(scenario)


def test_the_trail_tells_what_was_decided_and_not_why(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        applied = await pod.decide(id, HIGH, REVIEW, by=ANA)
        pending = await pod.decide(id, decision=APPROVE, by=BEN)
        await pod.approve(pending, CAT)
        recorded = {"level": "critical", "decision": "decline"}
        lowered = {"level": "high", "decision": "review"}
        final = {"level": "high", "decision": "approve"}
        common = {"reason_sha256": sha256(REASON.encode()).hexdigest()}
        assert await pod.acts(id) == [
            ("override.applied", ANA, {"override": text(applied.id), "from": recorded, "to": lowered, **common}),
            ("override.pending", BEN, {"override": text(pending.id), "from": lowered, "to": final, **common}),
            (
                "override.approved",
                CAT,
                {"override": text(pending.id), "from": lowered, "to": final, "asked_by": BEN, **common},
            ),
        ]
        entries = await store.entries(TENANT, limit=100)
        assert not any(b"Maria" in entry.detail or "Maria" in entry.actor for entry in entries)
        assert not any(one.subjects not in (id,) for one in entries if one.act.startswith("override."))

    backend.run(scenario)


def test_an_assessment_takes_so_many_overrides_and_no_more(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "MOST_OVERRIDES", 2)

    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        await pod.decide(id, level=HIGH)
        await pod.decide(id, level=LOW)
        with pytest.raises(Conflict, match="takes no more"):
            await pod.decide(id, level=HIGH)

    backend.run(scenario)


def test_over_http_an_override_is_created_shown_and_approved(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        body = json.dumps({"level": "high", "decision": "review", "reason": REASON}).encode()
        created = await pod.api.create(asked(id, body=body))
        shown = json.loads(created.body)
        path = f"/v1/assessments/{text(id)}/overrides"
        assert created.status == 201
        assert dict(created.headers)[b"location"].decode() == f"{path}/{shown['id']}"
        assert shown | {"id": "", "created_at": ""} == {
            "id": "",
            "assessment_id": text(id),
            "created_at": "",
            "level": "high",
            "decision": "review",
            "reason": REASON,
            "actor": ANA,
            "state": "applied",
            "approver": None,
            "approved_at": None,
        }
        pending = await pod.api.create(asked(id, body=b'{"decision": "approve", "reason": "namesake"}'))
        assert (pending.status, json.loads(pending.body)["state"]) == (202, "pending")
        known = await pod.overrides.of(TENANT, id)
        approved = await pod.api.approve(asked(id, known[1], by=BEN))
        assert (approved.status, json.loads(approved.body)["approver"]) == (200, BEN)
        assert json.loads((await pod.api.read(asked(id, known[1]))).body) == json.loads(approved.body)
        listed = json.loads((await pod.api.list(asked(id))).body)
        assert listed == {"items": [shown, json.loads(approved.body)]}
        for foreign in (pod.api.list(asked(id, tenant="other")), pod.api.read(asked(id, known[1], tenant="other"))):
            with pytest.raises(NotFound):
                await foreign

    backend.run(scenario)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b'{"level": "high"}', ["/reason"]),
        (b'{"reason": "", "level": "high"}', ["/reason"]),
        (b'{"reason": "%s", "level": "high"}' % (b"x" * 2001), ["/reason"]),
        (b'{"reason": "a\\u0000b", "level": "high"}', ["/reason"]),
        (b'{"reason": "why", "reason": "so", "level": "high"}', ["/reason"]),
        (b'{"reason": "why", "level": "lowest", "decision": 3, "by": "me"}', ["/level", "/decision", "/by"]),
        (b"[]", [""]),
    ],
)
def test_a_body_is_refused_with_every_fault(body: bytes, pointers: list[str]) -> None:
    with pytest.raises(BodyRefused) as refused:
        read_body(body, wire.OverrideRequest)
    assert [fault.pointer for fault in refused.value.faults] == pointers


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100])
def test_a_body_that_is_no_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(BodyUnreadable):
        read_body(body, wire.OverrideRequest)


def test_a_reason_of_2000_characters_is_read() -> None:
    assert read_body(json.dumps({"reason": "ß" * 2000}).encode(), wire.OverrideRequest).reason == "ß" * 2000


def test_neither_level_nor_decision_is_no_override(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        with pytest.raises(BodyRefused, match="one fault") as refused:
            await pod.decide(id)
        assert refused.value.faults[0].pointer == ""
        assert await pod.overrides.of(TENANT, id) == []

    backend.run(scenario)


def test_what_is_in_force_travels_with_the_row_through_the_cache() -> None:
    row = Row(TENANT, bytes(16), None, HIGH, DECLINE, 0, bytes(32), b"", b"", None, b"o" * 16, MEDIUM, REVIEW)
    assert Recorded.decoded(Recorded.encoded(Recorded(row))).row == row
