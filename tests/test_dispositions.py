"""Hits that people set aside: for which business and entry, for how long, and what they cannot set aside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from screened import list_file, party, registered
from service import Client, Json, Service, named, serving, unique, wait_until

from core.entities import Entity

WIDGETS = party("w1", "Veridian Shadow Trading", identifiers=registered("HE 900417", "CY"), countries=("CY",))
SOON = "watchlists:\n  check_every: 100ms\n  demo: false\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("dispositions"), config=SOON) as running:
        bring(running, WIDGETS)
        yield running


def bring(service: Service, *entities: Entity, name: str = "mine") -> None:
    """Have the running service screen against these."""
    from test_cli_watchlist import run

    file = list_file(service.folder / "list.jsonl", *entities)
    run(service.settings, "add", file, "--name", name, "--force")
    version = json.loads(run(service.settings, "list", "--json").stdout)["lists"]
    [expected] = [one["version"] for one in version if one["name"] == name]
    client = service.client()
    wait_until(lambda: expected in client.get("/v1/watchlists").body.decode(), "the list is in force")


def assessed(client: Client, business: str | None = None, **members: Json) -> Json:
    sent = named("Veridian Shadow Trading", jurisdiction="CY", **members)
    if business is not None:
        sent["business"]["id"] = business
    return client.recorded(sent)


def request(assessment: Json, **changes: str) -> Json:
    asked = {
        "assessment_id": assessment["id"],
        "list": "mine",
        "entity_id": "w1",
        "reason": "Another company: founded in 1998 in Denmark.",
    }
    return {**asked, **changes}


def test_a_namesake_is_set_aside_for_this_business_and_shown(service: Service) -> None:
    client, business = service.client(), unique("b")
    first = assessed(client, business)
    assert first["screening"]["status"] == "potential"
    made = client.post("/v1/dispositions", request(first))
    assert made.status == 201
    assert made.headers["location"] == f"/v1/dispositions/{made.json['id']}"
    later = assessed(client, business)
    [hit] = later["screening"]["hits"]
    assert hit["disposition_id"] == made.json["id"]
    assert later["screening"]["status"] == "not_screened"
    assert "OVR_SANCTIONS_POTENTIAL" not in {override["code"] for override in later["overrides"]}
    # Another business of the same name is another business.
    assert assessed(client, unique("b"))["screening"]["status"] == "potential"
    # What was recorded before stays as it was.
    assert client.get(f"/v1/assessments/{first['id']}").json == first
    for one in (first, later):
        assert client.post(f"/v1/assessments/{one['id']}/replay", b"").json == {"identical": True}


def test_a_business_without_an_id_is_known_by_its_registration(service: Service) -> None:
    client, number = service.client(), unique("R")
    made = client.post("/v1/dispositions", request(assessed(client, registration_number=number)))
    assert made.status == 201
    assert made.json["business_id"] is None
    [hit] = assessed(client, registration_number=f" {number.lower()} ")["screening"]["hits"]
    assert hit["disposition_id"] == made.json["id"]


def test_a_business_that_nothing_names_cannot_be_told_again(service: Service) -> None:
    client = service.client()
    refused = client.post("/v1/dispositions", request(assessed(client)))
    assert refused.status == 409
    assert "business.id" in refused.json["detail"]


def test_a_confirmed_hit_is_no_namesake(service: Service) -> None:
    client = service.client()
    confirmed = assessed(client, unique("b"), registration_number="HE 900417")
    assert confirmed["screening"]["status"] == "confirmed"
    assert confirmed["decision"] == "decline"
    refused = client.post("/v1/dispositions", request(confirmed))
    assert refused.status == 409
    assert "confirmed" in refused.json["detail"]


def test_it_ends_when_somebody_takes_it_back(service: Service) -> None:
    client, business = service.client(), unique("b")
    made = client.post("/v1/dispositions", request(assessed(client, business))).json
    again = client.post("/v1/dispositions", request(assessed(client, business)))
    assert again.status == 409
    place = f"/v1/dispositions/{made['id']}"
    ended = client.send("DELETE", place)
    assert ended.status == 200
    assert ended.json["ended_at"] is not None
    assert assessed(client, business)["screening"]["status"] == "potential"
    assert client.send("DELETE", place).json == ended.json == client.get(place).json
    assert client.post("/v1/dispositions", request(assessed(client, business))).status == 201


def test_it_holds_until_the_entry_changes(service: Service) -> None:
    client, business = service.client(), unique("b")
    try:
        client.post("/v1/dispositions", request(assessed(client, business)))
        assert assessed(client, business)["screening"]["hits"][0]["disposition_id"]
        bring(service, msgspec.structs.replace(WIDGETS, countries=("CY", "AE")))
        [hit] = assessed(client, business)["screening"]["hits"]
        assert hit["disposition_id"] is None
    finally:
        bring(service, WIDGETS)
    [hit] = assessed(client, business)["screening"]["hits"]
    assert hit["disposition_id"] is not None


def test_they_are_listed_by_business_a_page_at_a_time(service: Service) -> None:
    client, businesses = service.client(), [unique("b") for _ in range(3)]
    made = [client.post("/v1/dispositions", request(assessed(client, one))).json for one in businesses]
    listed = client.get("/v1/dispositions", business_id=businesses[1]).json
    assert listed == {"items": [made[1]], "next_cursor": None}
    page = client.get("/v1/dispositions", limit=2).json
    assert [one["id"] for one in page["items"]] == [made[2]["id"], made[1]["id"]]
    after = client.get("/v1/dispositions", limit=1, cursor=page["next_cursor"]).json
    assert after["items"] == [made[0]]


@pytest.mark.parametrize(
    ("changes", "status", "pointer"),
    [
        ({"entity_id": "w2"}, 422, "/entity_id"),
        ({"list": "other"}, 422, "/entity_id"),
        ({"reason": ""}, 422, "/reason"),
        ({"colour": "red"}, 422, "/colour"),
        ({"assessment_id": "01a21b3e-7ceb-7272-b96b-43dd6be7e89c"}, 404, None),
        ({"assessment_id": "nonsense"}, 404, None),
    ],
)
def test_what_is_wrong_is_told(service: Service, changes: Json, status: int, pointer: str | None) -> None:
    client = service.client()
    refused = client.post("/v1/dispositions", request(assessed(client, unique("b")), **changes))
    assert refused.status == status
    assert pointer is None or [fault["pointer"] for fault in refused.json["errors"]] == [pointer]


def test_another_tenants_hits_and_dispositions_are_not_there(service: Service) -> None:
    client, business = service.client(), unique("b")
    first = assessed(client, business)
    made = client.post("/v1/dispositions", request(first)).json
    other = service.client(service.new_key("admin", unique("tenant")))
    assert other.post("/v1/dispositions", request(first)).status == 404
    assert other.get(f"/v1/dispositions/{made['id']}").status == 404
    assert other.send("DELETE", f"/v1/dispositions/{made['id']}").status == 404
    assert other.get("/v1/dispositions").json["items"] == []
    # Nor do they count for a business that the other tenant calls the same.
    assert assessed(other, business)["screening"]["hits"][0]["disposition_id"] is None


def test_each_is_in_the_audit_trail_without_its_reason(service: Service) -> None:
    client = service.client()
    first = assessed(client, unique("b"))
    made = client.post("/v1/dispositions", request(first, reason="Maria said so.")).json
    client.send("DELETE", f"/v1/dispositions/{made['id']}")
    entries = client.get("/v1/audit", assessment=first["id"]).json["items"]
    acts = {entry["act"]: entry["detail"] for entry in entries}
    assert {"disposition.made", "disposition.ended"} <= set(acts)
    assert acts["disposition.made"]["entity_id"] == "w1"
    assert "Maria" not in json.dumps(entries)


def test_an_erased_business_leaves_no_reason(service: Service, tmp_path: Path) -> None:
    from test_cli_database import run

    client, business = service.client(), unique("b")
    made = client.post("/v1/dispositions", request(assessed(client, business), reason="Maria said so.")).json
    done = run(service.settings, "erase", "default", business, "--reason", "asked for", "--yes")
    assert done.returncode == 0, done
    left = client.get(f"/v1/dispositions/{made['id']}").json
    assert (left["reason"], left["business_id"]) == (None, None)
    assert left["ended_at"] is not None
