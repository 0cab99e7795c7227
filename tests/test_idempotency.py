"""An Idempotency-Key: the same request gives the same bytes again, and takes effect once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from service import Answer, Client, Headers, Json, Service, example, named, unique

ON_BOTH_STORES = True


def keyed() -> dict[str, str]:
    return {"Idempotency-Key": unique("key")}


def batch(client: Client, items: list[Json], headers: Headers, **query: Json) -> Answer:
    return client.post("/v1/assessments/batch", {"items": items}, headers, **query)


def is_repeated(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def test_the_same_key_and_body_give_the_same_assessment(client: Client) -> None:
    business_id = unique("once")
    key, profile = keyed(), named("Once Ltd", id=business_id)
    first, second = client.assess(profile, key), client.assess(profile, key)
    assert (first.status, second.status) == (201, 201)
    assert second.body == first.body
    assert (is_repeated(first), is_repeated(second)) == (False, True)
    assert second.headers["location"] == first.headers["location"]
    assert [one["id"] for one in client.walk(business_id=business_id)] == [first.json["id"]]


def test_the_same_key_with_another_body_is_refused(client: Client) -> None:
    business_id = unique("twice")
    key = keyed()
    assert client.assess(named("One Ltd", id=business_id), key).status == 201
    refused = client.assess(named("Two Ltd", id=business_id), key)
    assert (refused.status, refused.json["type"]) == (422, "/problems/idempotency-key-reused")
    assert len(list(client.walk(business_id=business_id))) == 1


def test_a_refused_request_does_not_use_up_its_key(client: Client) -> None:
    key = keyed()
    assert client.assess({"business": {"name": "Wrong Ltd"}}, key).status == 422
    assert client.assess(named("Right Ltd"), key).status == 201


def test_fifty_at_once_with_one_key_record_once(service: Service) -> None:
    for _ in range(3):
        business_id = unique("fifty")
        key, profile = keyed(), named("Fifty Ltd", id=business_id)
        callers = [Client(service.port) for _ in range(50)]
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda caller, p=profile, k=key: caller.assess(p, k), callers))
        assert {answer.status for answer in answers} == {201}
        assert len({answer.json["id"] for answer in answers}) == 1
        assert len({answer.body for answer in answers}) == 1
        assert len(list(callers[0].walk(business_id=business_id))) == 1
        for caller in callers:
            caller.close()


def test_of_two_bodies_that_race_for_one_key_one_wins_and_the_other_is_told(service: Service) -> None:
    business_id = unique("race")
    key = keyed()
    callers = [Client(service.port) for _ in range(20)]
    profiles = [named(f"Racer {place % 2} Ltd", id=business_id) for place in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda caller, profile: caller.assess(profile, key), callers, profiles))
    assert sorted({answer.status for answer in answers}) == [201, 422]
    assert len({answer.json["id"] for answer in answers if answer.status == 201}) == 1
    winners = {place % 2 for place, answer in enumerate(answers) if answer.status == 201}
    assert len(winners) == 1
    assert len(list(callers[0].walk(business_id=business_id))) == 1
    for caller in callers:
        caller.close()


@pytest.mark.parametrize("key", ["x" * 256, "", "schl\u00fcssel"])
def test_an_improper_key_is_refused(client: Client, key: str) -> None:
    answer = client.assess(named("Key Ltd"), {"Idempotency-Key": key})
    assert answer.status == 422
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/header/Idempotency-Key"]


def test_every_repeat_is_as_full_as_the_first_answer(client: Client) -> None:
    key, profile = keyed(), example("healthy-manufacturer")
    first = client.assess(profile, key, explain="full")
    again = client.assess(profile, key, explain="full")
    assert (again.status, again.body, is_repeated(again)) == (201, first.body, True)
    refused = client.assess(profile, key, explain="top")
    assert refused.json["type"] == "/problems/idempotency-key-reused"
    # The default, spelt out or not, is the same request.
    key = keyed()
    assert client.assess(profile, key).body == client.assess(profile, key, explain="top").body


def test_a_key_belongs_to_one_route(client: Client) -> None:
    key = keyed()
    assert client.assess(named("Route Ltd"), key).status == 201
    assert batch(client, [named("Route Ltd")], key).json["type"] == "/problems/idempotency-key-reused"


def test_a_batch_is_repeated_with_its_problems_and_recorded_once(client: Client) -> None:
    business_id = unique("batch")
    items = [named(f"Item {place} Ltd", id=business_id) for place in range(120)]
    items[7] = {"business": {"name": "Nowhere Ltd"}}
    items[63] = named("Early Ltd", incorporated_on="1066-13-01")
    key = keyed()
    first, second = batch(client, items, key), batch(client, items, key)
    assert (first.status, second.status) == (200, 200)
    assert second.body == first.body
    assert (is_repeated(first), is_repeated(second)) == (False, True)
    assert [item["index"] for item in first.json["items"] if item["status"] == 422] == [7, 63]
    assert second.json["items"][7]["problem"]["instance"] == first.headers["x-request-id"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    recorded = {one["id"] for one in client.walk(business_id=business_id)}
    assert recorded == {i["assessment"]["id"] for i in first.json["items"] if i["status"] == 201}
    assert len(recorded) == 118
    other = batch(client, items[:-1], key)
    assert other.json["type"] == "/problems/idempotency-key-reused"
    full = keyed()
    assert batch(client, items, full, explain="full").body == batch(client, items, full, explain="full").body


def test_a_batch_without_one_right_item_is_repeated_too(client: Client) -> None:
    key, items = keyed(), [{"business": {}}, {}]
    first, second = batch(client, items, key), batch(client, items, key)
    assert second.body == first.body
    assert is_repeated(second)


def test_batches_that_race_for_one_key_record_one(service: Service) -> None:
    business_id, key = unique("batches"), keyed()
    items = [named(f"Item {place} Ltd", id=business_id) for place in range(50)]
    callers = [Client(service.port) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda caller: batch(caller, items, key), callers))
    assert len({answer.body for answer in answers}) == 1
    assert sorted(map(is_repeated, answers)) == [False] + [True] * 11
    assert len(list(callers[0].walk(business_id=business_id))) == 50
    for caller in callers:
        caller.close()


def test_a_dry_run_of_a_batch_neither_uses_nor_sets_a_key(client: Client) -> None:
    key = keyed()
    assert batch(client, [named("Dry Ltd")], key, dry_run=True).status == 200
    first = batch(client, [named("Wet Ltd")], key)
    assert not is_repeated(first)
    assert batch(client, [named("Dry Ltd")], key, dry_run=True).json["items"][0]["assessment"]["id"] is None


def test_a_request_id_is_not_part_of_the_request(client: Client) -> None:
    key, profile = keyed(), named("Traced Ltd")
    first = client.assess(profile, {**key, "X-Request-ID": "first"})
    second = client.assess(profile, {**key, "X-Request-ID": "second"})
    assert second.body == first.body
    assert second.headers["x-request-id"] == "second"


def test_the_body_counts_to_the_byte(client: Client) -> None:
    key, profile = keyed(), named("Byte Ltd")
    assert client.post("/v1/assessments", json.dumps(profile).encode(), key).status == 201
    spaced = client.post("/v1/assessments", json.dumps(profile, indent=1).encode(), key)
    assert spaced.json["type"] == "/problems/idempotency-key-reused"
