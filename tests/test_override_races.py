"""Decisions at the same time, in several pods, by callers who go away: each stands on the one before, all see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cached import until
from deciding import (
    ANA,
    APPROVE,
    BEN,
    CAT,
    CRITICAL,
    DECLINE,
    DOUBTFUL,
    HIGH,
    IN_LIQUIDATION,
    LOW,
    REVIEW,
    TENANT,
    Between,
    Pod,
)
from records import BACKENDS, Backend

from app.cache.local import MISSING
from app.errors import Conflict
from app.ids import text
from app.store.access import StoredOverride
from app.store.base import Unconfirmed


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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
