"""What the service tells about itself: its models, its description, its health, and what it does not have."""

from __future__ import annotations

import re

import pytest
from service import Client, named

ON_BOTH_STORES = True


def test_the_models_known_say_which_is_active_and_what_they_hold(client: Client) -> None:
    listed = client.get("/v1/models")
    assert listed.status == 200
    [active] = [model for model in listed.json["items"] if model["active"]]
    detail = client.get(f"/v1/models/{active['id']}/{active['version']}")
    assert {name: detail.json[name] for name in active} == active
    assert re.fullmatch("[0-9a-f]{64}", active["sha256"])
    assert len(detail.json["definition"]["characteristics"]) >= 40
    made = client.assess(named("Model Ltd"), dry_run=True).json
    assert made["model"] == {name: active[name] for name in ("id", "version", "sha256")}


def test_the_definition_of_a_model_keeps_texts_that_plain_yaml_would_bend(client: Client) -> None:
    tables = client.get("/v1/models/kyb/1.0.0").json["definition"]["tables"]
    assert "NO" in tables["countries"]["codes"]
    assert False not in tables["countries"]["codes"]


@pytest.mark.parametrize(
    "path",
    ["/v1/models/kyb/9.9.9", "/v1/models/other/1.0.0", "/v1/assessments/00000000-0000-7000-8000-000000000000",
     "/v1/assessments/not-an-id", "/v1/assessments/", "/", "/v1", "/v2/assessments", "/v1/models/kyb", "/Health"],
)  # fmt: skip
def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.json["type"]) == (404, "/problems/not-found")


def test_the_description_names_every_route_and_the_service_answers_them(client: Client) -> None:
    described = client.get("/openapi.json")
    assert described.headers["content-type"] == "application/json"
    assert described.json["openapi"].startswith("3.1.")
    for path, methods in described.json["paths"].items():
        for method in methods:
            answer = client.send(method.upper(), path.replace("{", "").replace("}", ""))
            assert answer.status not in (405, 500), (method, path)


def test_the_page_of_the_description_needs_no_other_host(client: Client) -> None:
    page = client.get("/docs")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert "/v1/assessments" in text
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", text)


def test_health_says_that_the_service_answers_and_that_it_lacks_lists(client: Client) -> None:
    answer = client.get("/health")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.headers["cache-control"] == "no-store"
