"""Web pages that call: preflights are answered like everything else, and without authentication no page gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Answer, Service, exchange, named, serving

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("listed"), CORS_ORIGINS=ORIGIN, BEHIND_TLS="true") as service:
        yield service


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("unlocked"), AUTH_ENABLED="false", CORS_ORIGINS=ORIGIN) as service:
        yield service


def preflight(service: Service, *lines: str, origin: str = ORIGIN, method: str = "POST") -> Answer:
    head = ["OPTIONS /v1/assessments HTTP/1.1", "Host: kyb.test", f"Origin: {origin}"]
    asked = f"Access-Control-Request-Method: {method}"
    return exchange(service.port, "\r\n".join([*head, asked, *lines, "", ""]).encode("latin-1"))


def check_hardened(answer: Answer) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert len(answer.headers["x-request-id"]) >= 16


def test_a_preflight_is_answered_like_everything_else(listed: Service) -> None:
    answer = preflight(
        listed, "Access-Control-Request-Headers: x-api-key, content-type", "X-Request-ID: of-the-page-0001"
    )
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"].startswith("Origin")
    assert answer.headers["x-request-id"] == "of-the-page-0001"
    check_hardened(answer)


@pytest.mark.parametrize(
    ("origin", "method", "lines", "words"),
    [
        ("https://evil.example", "POST", (), "origin"),
        (ORIGIN, "PATCH", (), "method"),
        (ORIGIN, "POST", ("Access-Control-Request-Headers: x-evil",), "headers"),
    ],
)
def test_a_refused_preflight_is_a_problem(
    listed: Service, origin: str, method: str, lines: tuple[str, ...], words: str
) -> None:
    answer = preflight(listed, *lines, origin=origin, method=method)
    assert (answer.status, answer.json["type"]) == (403, "/problems/page-refused")
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json["detail"]
    assert answer.json["instance"] == answer.headers["x-request-id"]
    assert ("access-control-allow-origin" in answer.headers) == (origin == ORIGIN)
    check_hardened(answer)


@pytest.mark.parametrize("line", ["Host: other.test", f"Origin: {ORIGIN}", "X: " + "a" * 33_000])
def test_a_malformed_preflight_is_refused_as_everywhere(listed: Service, line: str) -> None:
    answer = preflight(listed, line)
    assert answer.status in (400, 431)
    assert answer.headers["content-type"] == "application/problem+json"
    check_hardened(answer)


def test_the_connection_of_a_preflight_with_a_body_ends(listed: Service) -> None:
    assert preflight(listed, "Content-Length: 5").headers["connection"] == "close"


def test_what_is_no_preflight_goes_to_the_service(listed: Service) -> None:
    answer = exchange(listed.port, b"OPTIONS /v1/assessments HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\n\r\n")
    assert answer.status == 405
    check_hardened(answer)


# Without authentication


@pytest.mark.parametrize("name", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST"])
@pytest.mark.parametrize("port", ["", ":1", ":65535"])
def test_without_authentication_this_machine_is_answered(unlocked: Service, name: str, port: str) -> None:
    client = unlocked.client(None)
    assert client.get("/v1/keys", {"Host": name + port}).status == 200
    own = {"Host": name + port, "Origin": f"http://{name.lower()}{port}"}
    assert client.assess(named("Acme Trading GmbH"), own).status == 201
    client.close()


@pytest.mark.parametrize("path", ["/v1/keys", "/health", "/docs"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0",
     "[::]", "[::ffff:10.0.0.1]", "localhost.", "127.1"],
)  # fmt: skip
def test_without_authentication_a_name_made_to_lead_here_is_refused(unlocked: Service, path: str, host: str) -> None:
    client = unlocked.client(None)
    answer = client.get(path, {"Host": host})
    assert (answer.status, answer.json["type"]) == (403, "/problems/page-refused")
    assert "127.0.0.1" in answer.json["detail"]
    client.close()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://evil.example:{port}"]
)
def test_without_authentication_a_page_of_another_origin_is_refused(unlocked: Service, origin: str) -> None:
    client = unlocked.client(None)
    recorded = len(list(client.walk()))
    told = {"Origin": origin.format(port=unlocked.port)}
    answer = client.assess(named("Acme Trading GmbH"), told)
    assert (answer.status, answer.json["type"]) == (403, "/problems/page-refused")
    assert "CORS_ORIGINS" in answer.json["detail"]
    assert client.send("POST", "/v1/keys/000000000000/rotate", None, told).status == 403
    assert len(list(client.walk())) == recorded
    client.close()


def test_without_authentication_a_page_of_a_listed_origin_is_answered(unlocked: Service) -> None:
    client = unlocked.client(None)
    assert client.assess(named("Acme Trading GmbH"), {"Origin": ORIGIN}).status == 201
    client.close()


def test_without_a_host_nobody_is_answered_without_authentication(unlocked: Service) -> None:
    assert exchange(unlocked.port, b"GET /v1/keys HTTP/1.0\r\n\r\n").status == 403


def test_with_authentication_any_host_and_origin_may_ask(service: Service, tmp_path: Path) -> None:
    client = service.client()
    assert client.get("/v1/keys", {"Host": "kyb.example", "Origin": "https://evil.example"}).status == 200
    client.close()
