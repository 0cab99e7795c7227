"""What a person may decide: down to the floors of the law, over a decline with a second key, and only so often."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
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
    MEDIUM,
    NAME_ONLY,
    PEP_OWNED,
    REVIEW,
    SHELL_BANK,
    SOUND,
    TENANT,
    Pod,
)
from records import BACKENDS, Backend, stored_key

from app import overrides
from app.errors import Conflict
from app.ids import text
from app.store.access import StoredKey, StoredOverride
from app.store.trail import act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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


DAN = "dandandandan"


def keys_of(*given: tuple[str, str, str | None]) -> list[StoredKey]:
    """Keys: the id of each, whose key made it, and the one that it replaces."""
    return [
        stored_key(TENANT, id=id, created_by=maker, created_ms=number, replaces=before)
        for number, (id, maker, before) in enumerate(given)
    ]


@pytest.mark.parametrize(
    ("keys", "may"),
    [
        (keys_of((ANA, "cli", None), (BEN, "cli", None)), True),
        (keys_of((ANA, CAT, None), (BEN, CAT, None), (CAT, "service", None)), True),
        (keys_of((BEN, ANA, None)), False),
        (keys_of((ANA, BEN, None)), False),
        (keys_of((BEN, CAT, None), (CAT, ANA, None)), False),
        (keys_of((ANA, CAT, None), (CAT, DAN, None), (DAN, BEN, None)), False),
        (keys_of((BEN, "cli", ANA)), False),
        (keys_of((ANA, "cli", CAT), (CAT, "cli", BEN)), False),
        (keys_of((ANA, "cli", CAT), (BEN, "cli", CAT)), False),
        (keys_of((BEN, ANA, CAT)), False),
        (keys_of((CAT, "cli", ANA), (BEN, CAT, None)), False),
        (keys_of((CAT, ANA, None), (BEN, "cli", CAT)), False),
        (keys_of((CAT, ANA, BEN)), False),
        (keys_of((ANA, CAT, None), (BEN, DAN, None), (DAN, "cli", CAT)), True),
    ],
    ids=[
        "the operator's", "both made by a third", "made", "made by", "made over one", "made by over two",
        "replaced by the operator", "replaced twice", "two successors of one", "successor taken",
        "made by the successor", "successor of one made", "its successor taken", "both made by one hand",
    ],
)  # fmt: skip
def test_two_keys_of_one_hand_are_not_four_eyes(backend: Backend, keys: list[StoredKey], may: bool) -> None:
    """Ben's key approves what Ana's asked for, and what another asked for after Ana's lowered the decision."""

    async def scenario(store: Any) -> None:
        for key in keys:
            await store.add_key(key, act(TENANT, "key.created", "cli"))
        pod = Pod(store)
        asked = await pod.decide(await pod.assessed(IN_LIQUIDATION), decision=APPROVE, by=ANA)
        lowered = await pod.assessed(IN_LIQUIDATION)
        await pod.decide(lowered, decision=REVIEW, by=ANA)
        others = await pod.decide(lowered, decision=APPROVE, by="somebodyelse")
        for pending, words in ((asked, "asked for"), (others, "lowered")):
            if may:
                assert (await pod.approve(pending, BEN)).state == "approved"
            else:
                with pytest.raises(Conflict, match=words):
                    await pod.approve(pending, BEN)

    backend.run(scenario)


def test_another_tenants_keys_say_nothing_of_these(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        await store.add_key(stored_key("umbrella", id=BEN, created_by=ANA), act("umbrella", "key.created", "cli"))
        pod = Pod(store)
        asked = await pod.decide(await pod.assessed(IN_LIQUIDATION), decision=APPROVE, by=ANA)
        assert (await pod.approve(asked, BEN)).state == "approved"

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
