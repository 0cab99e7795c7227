"""Rates as callers meet them: what is let in, what is told of it, and when to come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Valkey
from service import Answer, Client, Service, exchange, named, serving, wait_until

POLICY = re.compile(r'"(\w+)";q=(\d+);w=(\d+)')
LEFT = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')

TIERS = "slow 1/min burst 5, quick 1/s burst 10, standard 200/s burst 400, unlimited unlimited"
DATABASE = 4
"""Of the Valkey that many tests use: no other test flushes it."""
BATCH = "/v1/assessments/batch"


@pytest.fixture(scope="module", params=["alone", "redis"])
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that counts by itself, and one that counts in Redis."""
    settings = {}
    if request.param == "redis":
        valkey: Valkey = request.getfixturevalue("valkey")
        settings["REDIS_URL"] = valkey.url(DATABASE)
    with serving(tmp_path_factory.mktemp("limited"), RATE_TIERS=TIERS, **settings) as service:
        yield service


def slow(service: Service, tenant_id: str = "default") -> Client:
    return service.client(service.new_key("admin", tenant_id, tier="slow"))


def left(answer: Answer) -> dict[str, int]:
    return {name: int(r) for name, r, _ in LEFT.findall(answer.headers["ratelimit"])}


def test_a_key_is_let_in_as_often_as_its_tier_says(limited: Service) -> None:
    client = slow(limited)
    told = [client.get("/v1/assessments") for _ in range(7)]
    assert [answer.status for answer in told] == [200] * 5 + [429] * 2
    assert [left(answer)["key"] for answer in told] == [4, 3, 2, 1, 0, 0, 0]
    assert {answer.headers["ratelimit-policy"] for answer in told} == {'"key";q=5;w=300'}
    assert told[-1].json["type"] == "/problems/too-many-requests"
    assert 1 <= int(told[-1].headers["retry-after"]) <= 60
    client.close()


def test_a_refusal_of_the_service_is_told_with_what_is_left(limited: Service) -> None:
    client = slow(limited)
    missing = client.get("/v1/assessments/019ab0c1-5e00-7c3a-9f1e-2b6d4c8a7e10")
    assert missing.status == 404
    assert left(missing)["key"] == 4
    client.close()


def test_a_key_without_a_limit_is_told_of_none(limited: Service) -> None:
    answer = limited.client().get("/v1/assessments")
    assert answer.status == 200
    assert not {"ratelimit", "ratelimit-policy"} & answer.headers.keys()


def test_a_key_with_a_rate_of_its_own_has_that(limited: Service) -> None:
    client = limited.client(limited.new_key("viewer", tier=None, rate="60/min burst 9"))
    answer = client.get("/v1/assessments")
    assert POLICY.findall(answer.headers["ratelimit-policy"]) == [("key", "9", "9")]
    client.close()


def test_a_batch_counts_as_many_as_it_holds(limited: Service) -> None:
    client = slow(limited)
    item = named("Acme Trading GmbH")
    first = client.post("/v1/assessments/batch", {"items": [item] * 3}, dry_run=True)
    assert first.status == 200
    assert left(first)["key"] == 2
    second = client.post("/v1/assessments/batch", {"items": [item] * 3})
    assert second.status == 429, second
    client.close()


def batch(client: Client, items: int) -> Answer:
    return client.post(BATCH, {"items": [named("Acme Trading GmbH")] * items}, dry_run=True)


def quick(service: Service) -> Client:
    return service.client(service.new_key("assessor", tier="quick"))


def test_a_batch_of_a_whole_burst_is_let_in_from_a_full_bucket(limited: Service) -> None:
    client = quick(limited)
    assert (batch(client, 10).status, batch(client, 10).status) == (200, 429)
    client.close()


def test_a_batch_of_more_than_a_burst_is_let_in_from_a_full_bucket_and_paid_off(limited: Service) -> None:
    client = quick(limited)
    first = batch(client, 11)
    assert (first.status, left(first)["key"]) == (200, 0)
    refused = client.get("/v1/assessments")
    assert (refused.status, int(refused.headers["retry-after"])) == (429, 2)
    # What is refused takes nothing: after the two seconds it is paid off, however often it was tried.
    wait_until(lambda: client.get("/v1/assessments").status == 200, "it is paid off", 3.0)
    assert batch(client, 11).status == 429
    client.close()


def test_a_batch_of_more_than_a_burst_is_refused_from_a_bucket_that_is_not_full(limited: Service) -> None:
    client = slow(limited)
    assert client.get("/v1/assessments").status == 200
    refused = batch(client, 6)
    assert refused.status == 429
    assert left(refused)["key"] == 4
    assert batch(client, 4).status == 200
    client.close()


def test_the_default_tier_lets_a_batch_in_that_is_larger_than_its_burst(limited: Service) -> None:
    client = limited.client(limited.new_key("assessor", tier=None))
    assert batch(client, 401).status == 200
    client.close()


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"items":[]}', 422), (b"[", 400), (b'{"items":[' + b"1," * 1000 + b"1]}", 413)]
)
def test_a_batch_that_cannot_be_counted_costs_one(limited: Service, body: bytes, status: int) -> None:
    client = slow(limited)
    told = [client.post(BATCH, body) for _ in range(6)]
    assert [answer.status for answer in told] == [status] * 5 + [429]
    assert [left(answer)["key"] for answer in told] == [4, 3, 2, 1, 0, 0]
    client.close()


def test_a_batch_for_which_nothing_is_left_is_refused_before_its_body(limited: Service) -> None:
    key = limited.new_key("assessor", tier="slow")
    client = limited.client(key)
    assert batch(client, 5).status == 200
    head = f"POST {BATCH} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    refused = exchange(limited.port, f"{head}Content-Length: 2000000\r\n\r\n".encode())
    assert (refused.status, left(refused)["key"]) == (429, 0)
    # Of a body that was awaited, and did not come, nothing would be left to come.
    assert refused.headers["connection"] == "close"
    client.close()


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/keys"), ("POST", BATCH), ("POST", "/v1/assessments")])
def test_what_a_key_may_not_do_is_counted_as_well(limited: Service, method: str, path: str) -> None:
    client = limited.client(limited.new_key("viewer", tier="slow"))
    told = [client.send(method, path) for _ in range(7)]
    assert [answer.status for answer in told] == [403] * 5 + [429] * 2
    assert [left(answer)["key"] for answer in told] == [4, 3, 2, 1, 0, 0, 0]
    assert {answer.headers["ratelimit-policy"] for answer in told} == {'"key";q=5;w=300'}
    client.close()


def test_a_refused_batch_recorded_nothing(limited: Service) -> None:
    tenant = "batches"
    client, reader = slow(limited, tenant), limited.client(limited.new_key("viewer", tenant))
    item = named("Acme Trading GmbH")
    assert client.post("/v1/assessments/batch", {"items": [item] * 4}).status == 200
    assert client.post("/v1/assessments/batch", {"items": [item] * 4}).status == 429
    assert len(list(reader.walk())) == 4
    client.close()
    reader.close()


def test_tenants_and_the_whole_service_have_rates_too(tmp_path: Path) -> None:
    with serving(tmp_path, RATE_TENANT="1/min burst 4", RATE_SERVICE="1/min burst 6") as service:
        one, two, other = (service.client(service.new_key("viewer", t)) for t in ("one", "one", "other"))
        assert [one.get("/v1/assessments").status for _ in range(3)] == [200] * 3
        told = [two.get("/v1/assessments") for _ in range(2)]
        assert [answer.status for answer in told] == [200, 429], "two keys of a tenant share its rate"
        assert left(told[0])["tenant"] == 0
        told = [other.get("/v1/assessments") for _ in range(3)]
        assert [answer.status for answer in told] == [200, 200, 429], "all tenants share the service's rate"
        assert left(told[1])["service"] == 0


def test_health_and_the_description_are_not_counted(tmp_path: Path) -> None:
    with serving(tmp_path, RATE_SERVICE="1/min burst 1") as service:
        client = service.client()
        assert {client.get(path).status for path in ("/health", "/openapi.json", "/docs") for _ in range(5)} == {200}
        assert client.get("/v1/assessments").status == 200
        assert client.get("/v1/assessments").status == 429


def test_after_retry_after_it_works_again(tmp_path: Path) -> None:
    with serving(tmp_path, RATE_TIERS="quick 2/s burst 1, unlimited unlimited", RATE_DEFAULT_TIER="quick") as service:
        client = service.client(service.new_key("viewer", tier="quick"))
        assert client.get("/v1/assessments").status == 200
        assert client.get("/v1/assessments").status == 429
        wait_until(lambda: client.get("/v1/assessments").status == 200, "the bucket has one again", 2.0)
