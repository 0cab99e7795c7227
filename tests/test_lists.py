"""The list of assessments: its pages, what chooses among the records, and what it refuses."""

from __future__ import annotations

import datetime as dt

import pytest
from definition import DECISIONS, LEVELS
from profiles import EXAMPLES
from service import Client, Json, Service, example, named, unique

ON_BOTH_STORES = True


@pytest.fixture(scope="module")
def listed(service: Service) -> tuple[str, list[Json]]:
    """A business id with 120 records of several levels, newest first, recorded in six calls."""
    business_id = unique("listed")
    caller = Client(service.port)
    made = []
    for part_of_them in range(6):
        items = []
        for place in range(20):
            profile = example(EXAMPLES[(part_of_them * 20 + place) % len(EXAMPLES)])
            profile["business"]["id"] = business_id
            profile["business"]["is_shell_bank"] = place % 4 == 3
            items.append(profile)
        answer = caller.post("/v1/assessments/batch", {"items": items})
        assert answer.status == 200
        made += [item["assessment"] for item in answer.json["items"]]
    caller.close()
    assert {one["level"] for one in made} == {"medium", "high", "critical"}
    return business_id, made[::-1]


@pytest.mark.parametrize("limit", [1, 7, 60, 119, 120, 121, 200])
def test_pages_walk_over_every_record_once_newest_first(
    client: Client, listed: tuple[str, list[Json]], limit: int
) -> None:
    business_id, made = listed
    assert list(client.walk(business_id=business_id, limit=limit)) == made


def test_the_default_page_holds_fifty(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    page = client.get("/v1/assessments", business_id=business_id).json
    assert page["items"] == made[:50]
    assert isinstance(page["next_cursor"], str)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("decision", [None, *DECISIONS])
def test_level_and_decision_choose_among_the_records(
    client: Client, listed: tuple[str, list[Json]], level: str, decision: str | None
) -> None:
    business_id, made = listed
    chosen = [one for one in made if one["level"] == level and decision in (None, one["decision"])]
    query = {"business_id": business_id, "level": level, "limit": 9, **({"decision": decision} if decision else {})}
    assert list(client.walk(**query)) == chosen


def test_level_alone_chooses_among_all_businesses(client: Client, listed: tuple[str, list[Json]]) -> None:
    _, made = listed
    found = [one["id"] for one in client.walk(level="critical", limit=200)]
    assert found == sorted(found, reverse=True)
    assert {one["id"] for one in made if one["level"] == "critical"} <= set(found)
    assert all(one["level"] == "critical" for one in client.walk(level="critical", limit=3))


def test_from_is_the_first_moment_and_to_the_first_no_longer(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    times = sorted({one["created_at"] for one in made})
    start, end = times[len(times) // 4], times[-1]
    assert start < end
    chosen = [one for one in made if start <= one["created_at"] < end]
    assert list(client.walk(business_id=business_id, from_=start, to=end, limit=11)) == chosen
    moved = dt.datetime.fromisoformat(start).astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))).isoformat()
    assert list(client.walk(business_id=business_id, from_=moved, to=end)) == chosen
    assert list(client.walk(business_id=business_id, from_=end, to=start)) == []


def test_a_day_as_to_includes_the_whole_day(client: Client, listed: tuple[str, list[Json]]) -> None:
    business_id, made = listed
    first, last = made[-1]["created_at"][:10], made[0]["created_at"][:10]
    assert list(client.walk(business_id=business_id, from_=first, to=last, limit=200)) == made
    before = str(dt.date.fromisoformat(first) - dt.timedelta(days=1))
    assert list(client.walk(business_id=business_id, to=before)) == []
    assert list(client.walk(business_id=business_id, from_="0001-01-01", to="9999-12-31", limit=200)) == made


def test_what_is_recorded_during_a_walk_does_not_disturb_it(client: Client) -> None:
    business_id = unique("growing")
    old = [client.recorded(named("Old Ltd", id=business_id))["id"] for _ in range(6)]
    seen = []
    for one in client.walk(business_id=business_id, limit=2):
        seen.append(one["id"])
        client.recorded(named("New Ltd", id=business_id))
    assert seen == old[::-1]


def test_a_record_is_in_the_list_as_soon_as_it_is_acknowledged(client: Client) -> None:
    business_id = unique("prompt")
    for _ in range(20):
        made = client.recorded(named("Prompt Ltd", id=business_id))
        assert next(client.walk(business_id=business_id, limit=1)) == made
        assert client.get(f"/v1/assessments/{made['id']}").json == made


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": 0}, "/query/limit"),
        ({"limit": 201}, "/query/limit"),
        ({"limit": "ten"}, "/query/limit"),
        ({"level": "huge"}, "/query/level"),
        ({"decision": "maybe"}, "/query/decision"),
        ({"from": "yesterday"}, "/query/from"),
        ({"to": "2026-02-30"}, "/query/to"),
        ({"from": "2026-11-23T14:00:00"}, "/query/from"),
        ({"cursor": "made-up"}, "/query/cursor"),
        ({"cursor": ""}, "/query/cursor"),
        ({"busines_id": "x"}, "/query/busines_id"),
        ({"business_id": ""}, "/query/business_id"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(client: Client, query: Json, place: str) -> None:
    answer = client.get("/v1/assessments", **query)
    assert answer.status == 422, answer
    assert [fault["pointer"] for fault in answer.json["errors"]] == [place]
