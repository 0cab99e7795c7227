"""What every answer carries beside its body, and which pages of other origins may read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import KEY, Service, named, serving

from app.api.permissions import RULES

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("house"), CORS_ORIGINS=f"{ORIGIN}, http://localhost:3000") as service:
        yield service


def test_every_answer_is_hardened_whatever_its_status(house: Service) -> None:
    client = house.client()
    asked = {
        200: client.get("/v1/assessments"),
        201: client.assess(named("Acme Trading GmbH")),
        401: client.get("/v1/assessments", {"X-API-Key": "none"}),
        404: client.get("/nowhere"),
        405: client.send("DELETE", "/v1/assessments"),
        422: client.get("/v1/assessments?limit=0"),
    }
    for status, answer in asked.items():
        assert answer.status == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
        assert not any(char.isdigit() for char in answer.headers.get("server", ""))
    client.close()


def test_what_may_be_kept_by_whom(house: Service) -> None:
    client = house.client()
    made = client.assess(named("Acme Trading GmbH"))
    read = client.get(f"/v1/assessments/{made.json['id']}")
    assert made.headers["cache-control"] == read.headers["cache-control"] == "private, no-cache"
    unchanged = client.get(f"/v1/assessments/{made.json['id']}", {"If-None-Match": read.headers["etag"]})
    assert (unchanged.status, unchanged.headers["cache-control"]) == (304, "private, no-cache")
    for path in ("/v1/keys", "/v1/audit", "/v1/audit/checkpoints", "/health"):
        assert client.get(path).headers["cache-control"] == "no-store", path
    assert client.get("/v1/keys", {"X-API-Key": "none"}).headers["cache-control"] == "no-store"
    client.close()


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_what_describes_the_service_may_be_kept_by_everybody_and_asked_for_by_its_tag(
    house: Service, path: str
) -> None:
    client = house.client(None)
    answer = client.get(path)
    assert (answer.status, answer.headers["cache-control"]) == (200, "public, max-age=300")
    etag = answer.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', etag)
    for sent in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        spared = client.get(path, {"If-None-Match": sent})
        assert (spared.status, spared.body, spared.headers["etag"]) == (304, b"", etag)
        assert spared.headers["cache-control"] == "public, max-age=300"
    assert client.get(path, {"If-None-Match": 'W/"other"'}).status == 200
    # What is refused there is kept by nobody.
    refused = client.get(f"{path}?x=1", {"If-None-Match": etag})
    assert (refused.status, refused.headers["cache-control"]) == (422, "no-store")
    client.close()


def test_all_pods_of_a_version_have_the_same_tag_for_the_same_description(house: Service, tmp_path: Path) -> None:
    with serving(tmp_path, WATCHLIST_DEMO="false") as other:
        one, two = house.client().get("/openapi.json"), other.client().get("/openapi.json")
    # They show an answer of their own as the example.
    assert one.body != two.body
    assert one.headers["etag"] == two.headers["etag"]


def test_nothing_that_asks_for_a_key_may_be_kept_by_a_cache_that_callers_share() -> None:
    assert {rule.cache for rule in RULES.values() if rule.permission is not None} == {b"private, no-cache", b"no-store"}
    shared = {path for (_, path), rule in RULES.items() if rule.cache not in (b"private, no-cache", b"no-store")}
    assert shared == {"/docs", "/openapi.json", "/problems/{slug}"}


def test_the_page_allows_its_own_style_and_nothing_else(house: Service) -> None:
    policy = house.client().get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


def test_behind_tls_browsers_are_told_to_stay_there(tmp_path: Path) -> None:
    with serving(tmp_path, BEHIND_TLS="true") as service:
        for path in ("/health", "/docs", "/nowhere", "/v1/assessments"):
            told = service.client().get(path).headers["strict-transport-security"]
            assert told.startswith("max-age=31536000")


def test_a_listed_origin_may_read_answers(house: Service) -> None:
    client = house.client()
    answer = client.get("/v1/assessments", {"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, content-type"}
    preflight = client.send("OPTIONS", "/v1/assessments", None, {"Origin": ORIGIN, **asked})
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "x-api-key" in preflight.headers["access-control-allow-headers"].lower()
    client.close()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.com.evil.example"])
def test_no_other_origin_may(house: Service, origin: str) -> None:
    client = house.client()
    assert "access-control-allow-origin" not in client.get("/v1/assessments", {"Origin": origin}).headers
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = client.send("OPTIONS", "/v1/assessments", None, asked)
    assert "access-control-allow-origin" not in preflight.headers
    assert preflight.status >= 400
    client.close()


def test_without_origins_nothing_is_said_of_them(service: Service) -> None:
    client = service.client(KEY)
    answer = client.get("/v1/assessments", {"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = client.send("OPTIONS", "/v1/assessments", None, {"Origin": ORIGIN})
    assert preflight.status == 405
    client.close()
