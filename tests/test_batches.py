"""Batches: each item is answered in its place, and what is wrong with the whole refuses the whole."""

from __future__ import annotations

import json

import pytest
from profiles import EXAMPLES
from service import Client, Json, example, named, unique

ON_BOTH_STORES = True

SPELLINGS = {
    "compact": lambda document: json.dumps(document, separators=(",", ":")).encode(),
    "spaced": lambda document: json.dumps(document).encode(),
    "indented": lambda document: json.dumps(document, indent="\t").encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_in_a_batch_each_item_is_answered_in_its_place_and_fails_alone(client: Client, spelling: str) -> None:
    business_id = unique("batch")
    good = [named(f"Item {place} Ltd", id=business_id) for place in range(7)]
    doubled = b'{"business":{"name":"First","name":"Second","jurisdiction":"DE"}}'
    items: list[Json] = [
        good[0],
        {"business": {"name": "No country"}},
        good[1],
        named("Future Ltd", incorporated_on="2999-01-01"),
        good[2],
        "DOUBLED",
        good[3],
        None,
        good[4],
        named("Nul \0 Ltd"),
        good[5],
        named("Lost Ltd", industry={"scheme": "nace", "code": "00.00"}),
        good[6],
    ]
    body = SPELLINGS[spelling]({"items": items}).replace(b'"DOUBLED"', doubled)
    answer = client.post("/v1/assessments/batch", body)
    assert answer.status == 200, answer
    told = answer.json["items"]
    assert [item["index"] for item in told] == list(range(len(items)))
    assert [item["status"] for item in told] == [201, 422] * 6 + [201]
    for item in told:
        if item["status"] == 201:
            assert set(item) == {"index", "status", "assessment"}
            assert client.get(f"/v1/assessments/{item['assessment']['id']}").json == item["assessment"]
        else:
            problem = item["problem"]
            assert set(problem) == {"type", "title", "status", "detail", "instance", "errors"}
            assert problem["instance"] == answer.headers["x-request-id"]
            assert all(fault["pointer"].startswith(f"/items/{item['index']}") for fault in problem["errors"])
    assert {item["index"]: item["problem"]["errors"][0]["pointer"] for item in told if item["status"] == 422} == {
        1: "/items/1/business/jurisdiction",
        3: "/items/3/business/incorporated_on",
        5: "/items/5/business/name",
        7: "/items/7",
        9: "/items/9/business/name",
        11: "/items/11/business/industry/code",
    }
    assert "name" in told[5]["problem"]["errors"][0]["detail"]
    recorded = [one["id"] for one in client.walk(business_id=business_id)]
    assert recorded[::-1] == [item["assessment"]["id"] for item in told if item["status"] == 201]


def test_a_batch_answers_as_single_requests_do(client: Client) -> None:
    items = [example(name) for name in EXAMPLES]
    batch = client.post("/v1/assessments/batch", {"items": items}, dry_run=True, explain="full").json["items"]
    singles = [client.assess(item, dry_run=True, explain="full").json for item in items]
    assert [item["assessment"] for item in batch] == singles
    assert {item["status"] for item in batch} == {200}


def test_a_dry_batch_records_nothing(client: Client) -> None:
    business_id = unique("dry-batch")
    items = [named("Dry Ltd", id=business_id)] * 3
    answer = client.post("/v1/assessments/batch", {"items": items}, dry_run=True)
    assert [item["assessment"]["id"] for item in answer.json["items"]] == [None] * 3
    assert list(client.walk(business_id=business_id)) == []


def test_a_batch_of_a_thousand_is_answered_and_recorded_whole(client: Client) -> None:
    business_id = unique("thousand")
    items = [named(f"Item {place} Ltd", id=business_id) for place in range(1000)]
    told = client.post("/v1/assessments/batch", {"items": items}).json["items"]
    assert [item["status"] for item in told] == [201] * 1000
    ids = [item["assessment"]["id"] for item in told]
    assert [one["id"] for one in client.walk(business_id=business_id, limit=200)] == ids[::-1]


def test_a_batch_of_none_is_422_and_of_one_too_many_413_and_neither_records(client: Client) -> None:
    none = client.post("/v1/assessments/batch", {"items": []})
    assert (none.status, none.json["errors"][0]["pointer"]) == (422, "/items")
    business_id = unique("too-many")
    many = client.post("/v1/assessments/batch", {"items": [named("Many Ltd", id=business_id)] * 1001})
    assert (many.status, many.json["type"]) == (413, "/problems/batch-too-large")
    assert "1,000" in many.json["detail"]
    assert list(client.walk(business_id=business_id)) == []


@pytest.mark.parametrize(
    "document", [{}, [], {"items": {}}, {"items": None}, {"profiles": []}, {"items": [{}], "x": 1}]
)
def test_a_batch_in_another_envelope_is_refused_whole(client: Client, document: Json) -> None:
    answer = client.post("/v1/assessments/batch", document)
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-batch")
    assert answer.json["errors"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[%s],"items":[%s]}',
        b'{"items":[%s] , "items" : [%s]}',
        b'{"items":[%s],"it\\u0065ms":[%s]}',
        b'{"items": [ %s ],"items": [ %s ]}',
    ],
)
def test_items_given_twice_refuse_the_batch(client: Client, body: bytes) -> None:
    business_id = unique("twice")
    item = json.dumps(named("Twice Ltd", id=business_id)).encode()
    answer = client.post("/v1/assessments/batch", body % (item, item))
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-batch")
    assert "items" in answer.json["errors"][0]["detail"]
    assert list(client.walk(business_id=business_id)) == []


def test_items_given_twice_are_refused_also_behind_an_item_that_is_wrong_itself(client: Client) -> None:
    business_id = unique("hidden")
    item = json.dumps(named("Hidden Ltd", id=business_id)).encode()
    answer = client.post("/v1/assessments/batch", b'{"items":[{"a":1,"a":2}],"items":[%s]}' % item)
    assert answer.status == 422, answer
    assert list(client.walk(business_id=business_id)) == []
