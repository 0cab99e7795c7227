"""One assessment as a caller meets it: its id, dry runs, request ids, tags and HEAD."""

from __future__ import annotations

import datetime as dt
import re
import uuid

import pytest
from definition import LEVELS
from service import KEY, Client, Service, Wire, example, named, unique

ON_BOTH_STORES = True

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def test_an_id_is_a_uuid_of_version_7_whose_time_is_when_it_was_created(client: Client) -> None:
    before = dt.datetime.now(dt.UTC)
    made = client.recorded(named("Timed Ltd"))
    after = dt.datetime.now(dt.UTC)
    identity = uuid.UUID(made["id"])
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert made["id"] == str(identity)
    created = dt.datetime.fromisoformat(made["created_at"])
    assert int(created.timestamp() * 1000 + 0.5) == identity.int >> 80
    assert before - dt.timedelta(milliseconds=1) <= created <= after
    assert made["as_of"] in (str(before.date()), str(after.date()))


def test_nothing_is_called_clear_while_nothing_is_screened(client: Client) -> None:
    made = client.assess(example("healthy-manufacturer"), dry_run=True).json
    assert made["screening"] == {"status": "not_screened", "hits": []}
    told = {e["source"]: e["status"] for e in made["evidence"]}
    required = {f"watchlist:{name}": "not_configured" for name in ("ofac-sdn", "un-consolidated", "eu-consolidated")}
    assert told.pop("watchlist:demo", "ok") == "ok"
    assert told == {"watchlist": "not_screened", **required}
    assert LEVELS.index(made["level"]) >= LEVELS.index("medium")
    assert made["decision"] != "approve"


def test_a_dry_run_answers_and_leaves_nothing_behind(client: Client) -> None:
    business_id = unique("dry")
    profile = named("Dry Ltd", id=business_id)
    answer = client.assess(profile, dry_run=True)
    assert answer.status == 200
    assert "location" not in answer.headers
    assert (answer.json["id"], answer.json["created_at"], answer.json["business_id"]) == (None, None, business_id)
    assert list(client.walk(business_id=business_id)) == []
    recorded = client.recorded(profile)
    assert {**recorded, "id": None, "created_at": None} == answer.json


def test_a_dry_run_neither_uses_nor_sets_an_idempotency_key(client: Client) -> None:
    key = {"Idempotency-Key": unique("key")}
    first, second = named("First Ltd"), named("Second Ltd")
    assert client.assess(first, key, dry_run=True).status == 200
    made = client.assess(second, key)
    assert made.status == 201
    dry = client.assess(first, key, dry_run=True)
    assert (dry.status, dry.json["id"]) == (200, None)
    assert client.assess(first, {"Idempotency-Key": "x" * 256}, dry_run=True).status == 200


@pytest.mark.parametrize("sent", ["a", "Az09._-", "x" * 128])
def test_a_proper_request_id_comes_back_also_with_problems(client: Client, sent: str) -> None:
    assert client.get("/health", {"X-Request-ID": sent}).headers["x-request-id"] == sent
    assert client.assess(named("Id Ltd"), {"X-Request-ID": sent}).headers["x-request-id"] == sent
    problem = client.assess({}, {"X-Request-ID": sent})
    assert problem.headers["x-request-id"] == problem.json["instance"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a/b", "ä", '"', "a,b"])
def test_an_improper_request_id_is_replaced_by_a_new_one(client: Client, sent: str) -> None:
    found = [client.get("/health", {"X-Request-ID": sent.encode("latin-1").decode("latin-1")}) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in found]
    assert all(REQUEST_ID.fullmatch(one) for one in ids)
    assert sent not in ids
    assert ids[0] != ids[1]


def test_a_tag_names_one_rendering_and_spares_the_second_reading(client: Client) -> None:
    path = f"/v1/assessments/{client.recorded(named('Tagged Ltd'))['id']}"
    top, full = client.get(path), client.get(path, explain="full")
    assert re.fullmatch(r'"[!#-~]+"', top.headers["etag"])
    assert top.headers["etag"] != full.headers["etag"]
    for sent in (top.headers["etag"], f'"other", W/{top.headers["etag"]}', "*"):
        spared = client.get(path, {"If-None-Match": sent})
        assert (spared.status, spared.body, spared.headers["etag"]) == (304, b"", top.headers["etag"])
    assert client.get(path, {"If-None-Match": full.headers["etag"]}).status == 200
    assert client.get("/health").status == 200


def test_head_answers_as_get_without_a_body(service: Service, client: Client) -> None:
    path = f"/v1/assessments/{client.recorded(named('Head Ltd'))['id']}"
    with Wire(service.port) as wire:
        wire.write(f"HEAD {path} HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        wire.write(b"GET /health HTTP/1.1\r\nHost: kyb\r\n\r\n")
        head = wire.answer("HEAD")
        assert head.status == 200
        assert int(head.headers["content-length"]) == len(client.get(path).body)
        assert wire.answer().json["status"] == "degraded"
