"""What a person decides is shown wherever the assessment is, and told in the trail; the record stays."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import msgspec
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
    MEDIUM,
    NAME_ONLY,
    PEP_OWNED,
    REASON,
    REVIEW,
    SHELL_BANK,
    SOUND,
    TENANT,
    Pod,
    asked,
)
from records import BACKENDS, Backend

from app import wire
from app.assess import Keyed, check_same
from app.ids import instant, text
from app.profiles import read_profile
from app.records import Recorded
from app.store.base import Row


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


def test_the_trail_tells_what_was_decided_and_not_why(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        applied = await pod.decide(id, HIGH, REVIEW, by=ANA)
        pending = await pod.decide(id, decision=APPROVE, by=BEN)
        approved = await pod.approve(pending, CAT)
        assert approved.approved_ms is not None
        recorded = {"level": "critical", "decision": "decline"}
        lowered = {"level": "high", "decision": "review"}
        final = {"level": "high", "decision": "approve"}
        common = {"reason_sha256": sha256(REASON.encode()).hexdigest()}
        over = {"over": text(applied.id)}
        assert await pod.acts(id) == [
            ("override.applied", ANA, {"override": text(applied.id), "from": recorded, "to": lowered, **common}),
            ("override.pending", BEN, {"override": text(pending.id), "from": lowered, "to": final, **over, **common}),
            (
                "override.approved",
                CAT,
                {
                    "override": text(pending.id),
                    "from": lowered,
                    "to": final,
                    "asked_by": BEN,
                    "approved_at": instant(approved.approved_ms),
                    **over,
                    **common,
                },
            ),
        ]
        entries = await store.entries(TENANT, limit=100)
        assert not any(b"Maria" in entry.detail or "Maria" in entry.actor for entry in entries)
        assert not any(one.subjects not in (id,) for one in entries if one.act.startswith("override."))

    backend.run(scenario)


def test_what_is_in_force_travels_with_the_row_through_the_cache() -> None:
    row = Row(TENANT, bytes(16), None, HIGH, DECLINE, 0, bytes(32), b"", b"", None, b"o" * 16, MEDIUM, REVIEW)
    assert Recorded.decoded(Recorded.encoded(Recorded(row))).row == row
