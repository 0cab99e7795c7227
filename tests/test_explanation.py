"""Every figure of an answer follows from its reasons and the published model, in full as in the short form."""

from __future__ import annotations

import pytest
from definition import Definition, check, gains
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import EXAMPLES, PROFILE
from service import Client, Json, Service, example

ON_BOTH_STORES = True


@pytest.fixture(scope="module")
def definition(service: Service) -> Definition:
    caller = Client(service.port)
    answer = caller.get("/v1/models/kyb/1.0.0")
    caller.close()
    assert answer.status == 200, answer
    return Definition(answer.json["definition"])


@settings(max_examples=60)
@given(profiles=st.lists(PROFILE, min_size=1, max_size=25))
def test_every_figure_of_an_answer_follows_from_its_reasons_and_the_model(
    service: Service, definition: Definition, profiles: list[Json]
) -> None:
    caller = Client(service.port)
    try:
        answer = caller.post("/v1/assessments/batch", {"items": profiles}, dry_run=True, explain="full")
    finally:
        caller.close()
    assert answer.status == 200, answer
    for item in answer.json["items"]:
        assert item["status"] == 200, item
        check(item["assessment"], definition)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_assessed_recorded_and_read_back_the_same(
    client: Client, definition: Definition, name: str
) -> None:
    created = client.assess(example(name), explain="full")
    assert created.status == 201, created
    assert created.headers["content-type"] == "application/json"
    location = created.headers["location"]
    assert location == f"/v1/assessments/{created.json['id']}"
    check(created.json, definition)
    assert client.get(location, explain="full").body == created.body
    top = client.get(location)
    assert top.status == 200
    assert client.get(location, explain="top").body == top.body
    assert len(top.json["reasons"]) <= 6
    strip = {"reasons", "distress"}
    assert {k: v for k, v in top.json.items() if k not in strip} == {
        k: v for k, v in created.json.items() if k not in strip
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_top_holds_the_six_reasons_with_most_points_above_the_best_and_none_with_zero(
    client: Client, definition: Definition, name: str
) -> None:
    top = client.assess(example(name), dry_run=True).json
    full = client.assess(example(name), dry_run=True, explain="full").json
    ranked = gains(full["reasons"], definition)
    assert top["reasons"] == full["reasons"][: min(6, sum(gain > 0 for gain in ranked))]
    assert [d["model"] for d in full["distress"]] == [
        "altman_z",
        "altman_z_prime",
        "altman_z_double_prime",
        "zmijewski",
        "ohlson_o",
        "springate",
        "beneish_m",
        "piotroski_f",
    ]
    assert sum(d["used"] for d in full["distress"]) <= 1
    assert top["distress"] == [d for d in full["distress"] if d["used"]]
