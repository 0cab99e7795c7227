"""What somebody did stands in the trail: before they are answered, or soon after they were refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cached import until
from deciding import SOUND, TENANT, Pod, asked
from memorytrail import MemoryTrail
from records import BACKENDS, Backend
from service import Client, Json, Service, named, serving, wait_until
from test_replay import edited_model

from app.audit.acts import Acts
from app.credentials import mint
from app.ids import now_ms
from app.resilience.deadline import DeadlineExceeded
from app.store.base import StoreUnavailable
from app.store.trail import act


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


@pytest.fixture
def service(tmp_path: Path) -> Any:
    config = "auth:\n  failures: unlimited\nserver:\n  trusted_proxies: 127.0.0.1\n"
    with serving(tmp_path / "service", config) as running:
        yield running


def told(auditor: Client, name: str) -> list[Json]:
    answer = auditor.get("/v1/audit", act=name)
    assert answer.status == 200, answer
    return answer.json["items"]


def test_what_was_answered_is_in_the_trail_though_the_service_was_killed_at_once(service: Service) -> None:
    client = service.client()
    id = client.recorded(named("Read Ltd"))["id"]
    assert client.post(f"/v1/assessments/{id}/replay", b"").status == 200
    assert client.get("/v1/assessments").status == 200
    service.kill()
    service.start()
    [replayed], [listed] = (told(service.client(), f"assessment.{name}") for name in ("replayed", "exported"))
    assert (replayed["subjects"], replayed["detail"]) == ([id], {"identical": True})
    assert listed["detail"] == {"assessments": 1}


def test_a_list_or_replay_that_cannot_be_entered_is_not_given(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        id = await pod.assessed(SOUND)

        async def away(acts: object) -> None:
            raise StoreUnavailable("the trail is away")

        for asks in (pod.assessments.replay, pod.assessments.list):
            assert (await asks(asked(id))).status == 200
            store.note, note = away, store.note
            with pytest.raises(StoreUnavailable):
                await asks(asked(id))
            store.note = note
        await pod.entering.close()
        with pytest.raises(StoreUnavailable):
            await pod.assessments.list(asked(id))
        names = [entry.act for entry in await store.entries(TENANT, limit=10)]
        assert sorted(names) == ["assessment.exported", "assessment.recorded", "assessment.replayed"]

    backend.run(scenario)


def test_an_empty_list_is_no_export(backend: Backend) -> None:
    async def scenario(store: Any) -> None:
        pod = Pod(store)
        assert (await pod.assessments.list(asked(bytes(16)))).status == 200
        assert await store.entries(TENANT, limit=10) == []

    backend.run(scenario)


def test_acts_of_the_same_moment_share_a_transaction() -> None:
    async def scenario() -> None:
        trail = MemoryTrail()
        acts = Acts(trail, 5.0)
        await asyncio.gather(*(acts.enter(act("acme", "assessment.exported", f"key-{n}")) for n in range(200)))
        assert (len(trail.shelf.entries), trail.calls) == (200, 1)
        trail.is_away = True
        with pytest.raises(StoreUnavailable):
            await acts.enter(act("acme", "assessment.exported", "key"))
        await acts.close()

    asyncio.run(scenario())


def test_an_act_is_waited_for_only_so_long() -> None:
    async def scenario() -> None:
        trail, released = MemoryTrail(), asyncio.Event()
        enter = trail.note

        async def slow(acts: Any) -> None:
            await released.wait()
            await enter(acts)

        trail.note = slow  # type: ignore[method-assign]
        acts = Acts(trail, 0.01)
        with pytest.raises(DeadlineExceeded):
            await acts.enter(act("acme", "assessment.exported", "key"))
        released.set()
        await until(lambda: trail.shelf.entries)
        await acts.close()

    asyncio.run(scenario())


def test_refusals_of_a_key_on_ever_new_paths_are_one_entry_and_cost_no_other_tenant_theirs(service: Service) -> None:
    loud, quiet = service.client(service.new_key("viewer", "loud")), service.client(service.new_key("viewer", "quiet"))
    for number in range(1500):
        assert loud.send("DELETE", f"/v1/keys/{number:012}").status == 403
    assert quiet.send("DELETE", "/v1/keys/000000000000").status == 403
    listening = service.client(service.new_key("auditor", "quiet"))
    wait_until(lambda: told(listening, "role.refused"), "the refusal of the other tenant is in its trail", limit_s=5.0)
    [refused] = told(listening, "role.refused")
    assert refused["detail"] == {
        "method": "DELETE",
        "path": "/v1/keys/000000000000",
        "permission": "keys",
        "route": "/v1/keys/{id}",
    }
    auditor = service.client(service.new_key("auditor", "loud"))

    def counted() -> int:
        return sum(entry["detail"].get("times", 1) for entry in told(auditor, "role.refused"))

    wait_until(lambda: counted() == 1500, "each refusal is counted")
    assert len(told(auditor, "role.refused")) < 100
    assert {entry["detail"]["route"] for entry in told(auditor, "role.refused")} == {"/v1/keys/{id}"}


def test_refused_logins_of_one_address_are_one_entry_whatever_they_tried(service: Service) -> None:
    guesser = service.client(None)
    for number in range(60):
        # As many addresses as one host commonly has.
        headers = {"X-API-Key": mint("test").text, "X-Forwarded-For": f"2001:db8::{number + 1:x}"}
        assert guesser.get("/v1/keys", headers).status == 401
    assert guesser.get("/v1/keys", {"X-API-Key": mint("test").text, "X-Forwarded-For": "192.0.2.7"}).status == 401
    auditor = service.client(service.new_key("auditor", ""))
    networks = {"2001:db8::/64", "192.0.2.7"}

    def found() -> list[Json]:
        return [one["detail"] for one in told(auditor, "login.refused")]

    wait_until(lambda: {one["network"] for one in found()} == networks, "both are in the trail")
    wait_until(lambda: sum(one.get("times", 1) for one in found()) == 61, "each is counted")
    assert len(found()) < 20
    assert all(len(one["key"]) == 12 for one in found())


@pytest.mark.parametrize(
    ("why", "key"),
    [
        ("revoked", {"revoked_ms": now_ms()}),
        ("expired", {"expires_ms": now_ms()}),
        ("network", {"networks": ("192.0.2.0/24",)}),
    ],
)
def test_a_key_that_is_no_use_any_more_is_told_of_to_its_tenant(service: Service, why: str, key: Json) -> None:
    text = service.new_key("admin", "acme", **key)
    guessed = mint("test").text[:9] + text[9:21] + mint("test").text[21:]
    client = service.client(None)
    for credential in (text, guessed):
        assert client.get("/v1/keys", {"X-API-Key": credential, "X-Forwarded-For": "198.51.100.7"}).status == 401
    auditor = service.client(service.new_key("auditor", "acme"))
    wait_until(lambda: told(auditor, "login.refused"), "it is in the tenant's trail")
    [refused] = told(auditor, "login.refused")
    assert refused["detail"] == {
        "address": "198.51.100.7",
        "key": text[9:21],
        "network": "198.51.100.7",
        "why": why,
    }
    assert text[21:] not in str(refused)


def test_a_start_with_another_model_is_in_the_trail(tmp_path: Path) -> None:
    path = edited_model(tmp_path)
    with serving(tmp_path / "service") as service:
        service.restart()
        auditor = service.client(service.new_key("auditor", ""))
        [first] = told(auditor, "model.switched")
        service.restart(MODEL_PATH=str(path))
        auditor = service.client(service.new_key("auditor", ""))
        second, again = told(auditor, "model.switched")
        assert again == first
        models = {model["version"]: model for model in service.client().get("/v1/models").json["items"]}
        for entry, version in ((first, "1.1.0"), (second, "1.1.1")):
            assert entry["actor"] == "service"
            assert {n: entry["detail"][n] for n in ("version", "sha256")} == {
                n: models[version][n] for n in ("version", "sha256")
            }
