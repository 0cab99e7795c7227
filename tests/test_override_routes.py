"""A person's decision, as the one who makes it and the one who reads it see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service import Client, Json, Service, example, named, unique

ON_BOTH_STORES = True


@pytest.fixture
def analyst(service: Service) -> Iterator[Client]:
    client = service.client(service.new_key("analyst"))
    yield client
    client.close()


@pytest.fixture
def second(service: Service) -> Iterator[Client]:
    client = service.client(service.new_key("analyst"))
    yield client
    client.close()


def decide(client: Client, id: str, **told: Json) -> Json:
    return client.post(f"/v1/assessments/{id}/overrides", {"reason": "seen on site", **told})


def test_it_stands_beside_the_record_and_changes_nothing_of_it(analyst: Client) -> None:
    made = analyst.recorded(named("Acme Trading GmbH", id=unique("cust")))
    first = analyst.get(f"/v1/assessments/{made['id']}")
    answer = decide(analyst, made["id"], level="high")
    assert answer.status == 201, answer
    after = analyst.get(f"/v1/assessments/{made['id']}")
    assert after.headers["etag"] != first.headers["etag"]
    assert after.json["effective"] == {
        "level": "high",
        "decision": made["effective"]["decision"],
        "override_id": answer.json["id"],
    }
    assert {**after.json, "effective": None} == {**first.json, "effective": None}
    assert analyst.send("POST", f"/v1/assessments/{made['id']}/replay").json == {"identical": True}


def test_lists_filter_by_what_is_in_force(analyst: Client) -> None:
    business = unique("cust")
    made = analyst.recorded(named("Acme Trading GmbH", id=business))
    assert made["level"] != "critical"
    assert decide(analyst, made["id"], level="critical", decision="decline").status == 201
    found = {
        level: [item["id"] for item in analyst.walk(business_id=business, level=level)]
        for level in (made["level"], "critical")
    }
    assert found == {made["level"]: [], "critical": [made["id"]]}
    assert [item["effective"]["decision"] for item in analyst.walk(business_id=business)] == ["decline"]


def test_from_decline_to_approve_needs_a_second_pair_of_eyes(analyst: Client, second: Client) -> None:
    made = analyst.recorded(named("Acme Trading GmbH", id=unique("cust")))
    assert decide(analyst, made["id"], decision="decline").status == 201
    pending = decide(analyst, made["id"], decision="approve", level="low")
    assert pending.status == 202, pending
    assert analyst.get(f"/v1/assessments/{made['id']}").json["effective"]["decision"] == "decline"
    path = f"/v1/assessments/{made['id']}/overrides/{pending.json['id']}/approve"
    assert analyst.send("POST", path).status == 409, "not by whoever asked for it"
    assert second.send("POST", path).status == 200
    assert analyst.get(f"/v1/assessments/{made['id']}").json["effective"] == {
        "level": "low", "decision": "approve", "override_id": pending.json["id"],
    }  # fmt: skip
    assert second.send("POST", path).status == 409, "only once"


def test_in_two_steps_it_needs_them_too(analyst: Client) -> None:
    made = analyst.recorded(named("Acme Trading GmbH", id=unique("cust")))
    assert decide(analyst, made["id"], decision="decline").status == 201
    assert decide(analyst, made["id"], decision="review").status in (201, 202)
    assert decide(analyst, made["id"], decision="approve").status == 202


def test_a_legal_floor_holds(analyst: Client) -> None:
    made = analyst.recorded(example("fatf-jurisdiction"))
    legal = [rule for rule in made["overrides"] if rule["legal"]]
    assert legal, made["overrides"]
    answer = decide(analyst, made["id"], level="low", decision="approve")
    assert answer.status == 409, answer
    assert legal[0]["code"] in answer.json["detail"]


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"level": "high"}, "/reason"),
        ({"reason": "because"}, ""),
        ({"level": "higher", "reason": "because"}, "/level"),
        ({"level": "high", "reason": ""}, "/reason"),
        ({"level": "high", "reason": "r" * 2001}, "/reason"),
        ({"level": "high", "reason": "because", "score": 3}, "/score"),
    ],
)
def test_a_wrong_one_is_explained(analyst: Client, document: Json, pointer: str) -> None:
    made = analyst.recorded(named("Acme Trading GmbH"))
    answer = analyst.post(f"/v1/assessments/{made['id']}/overrides", document)
    assert answer.status == 422, answer
    assert answer.json["errors"][0]["pointer"].startswith(pointer)


def test_the_reason_is_listed_and_is_not_in_the_trail(service: Service, analyst: Client) -> None:
    made = analyst.recorded(named("Acme Trading GmbH"))
    reason = unique("seen")
    told = decide(analyst, made["id"], level="high", reason=reason).json
    listed = analyst.get(f"/v1/assessments/{made['id']}/overrides").json["items"]
    assert [(item["id"], item["reason"], item["state"]) for item in listed] == [(told["id"], reason, "applied")]
    auditor = service.client(service.new_key("auditor"))
    trail = auditor.get("/v1/audit", assessment=made["id"])
    assert {item["act"] for item in trail.json["items"]} == {"assessment.recorded", "override.applied"}
    assert reason not in trail.body.decode()
    auditor.close()


def test_a_repeat_under_its_key_is_still_the_first_answer(analyst: Client) -> None:
    headers = {"Idempotency-Key": unique("key")}
    profile = named("Acme Trading GmbH")
    first = analyst.assess(profile, headers)
    assert decide(analyst, first.json["id"], level="high").status == 201
    again = analyst.assess(profile, headers)
    assert (again.status, again.body) == (201, first.body)
