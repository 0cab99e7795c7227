"""What a request to decide or approve must hold, what it is answered, and what it is refused for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deciding import ANA, APPROVE, BEN, DOUBTFUL, HIGH, IN_LIQUIDATION, REASON, REVIEW, TENANT, Pod, asked
from records import BACKENDS, Backend

from app import wire
from app.errors import BodyRefused, BodyUnreadable, Conflict, NotFound
from app.ids import Uuid7, text
from app.profiles import read_body


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


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
            "void": False,
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


@pytest.mark.parametrize("reason", ["   ", "\t\n", "\u200b\u2060", "...", "\u00a0-"])
def test_a_reason_that_nobody_can_read_is_none(backend: Backend, reason: str) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(DOUBTFUL)
        body = json.dumps({"level": "high", "reason": reason}).encode()
        with pytest.raises(BodyRefused) as refused:
            await pod.api.create(asked(id, body=body))
        assert [fault.pointer for fault in refused.value.faults] == ["/reason"]
        assert await pod.overrides.of(TENANT, id) == []
        assert (
            await pod.api.create(asked(id, body=json.dumps({"level": "high", "reason": "\u540d"}).encode()))
        ).status == 201

    backend.run(scenario)


def test_a_pending_override_is_shown_to_be_void_once_another_took_effect(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(IN_LIQUIDATION)
        pending = await pod.decide(id, decision=APPROVE)
        assert json.loads((await pod.api.read(asked(id, pending))).body)["void"] is False
        await pod.decide(id, decision=REVIEW, by=BEN)
        shown = json.loads((await pod.api.list(asked(id))).body)["items"]
        assert [(one["state"], one["void"]) for one in shown] == [("pending", True), ("applied", False)]
        assert json.loads((await pod.api.read(asked(id, pending))).body) == shown[0]
        with pytest.raises(Conflict, match="no longer holds"):
            await pod.approve(pending, BEN)

    backend.run(scenario)
