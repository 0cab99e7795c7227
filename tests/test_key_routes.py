"""Keys over HTTP: made, shown once, listed without their text, ended, and taken over by a successor."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from service import Client, Json, Service, named, wait_until

from app.credentials import recognise

ON_BOTH_STORES = True


@pytest.fixture
def admin(service: Service) -> Iterator[Client]:
    client = service.client()
    yield client
    client.close()


def made(admin: Client, **more: Json) -> Json:
    answer = admin.post("/v1/keys", {"name": "onboarding", "role": "assessor", **more})
    assert answer.status == 201, answer
    return answer.json


def test_a_key_is_shown_once(service: Service, admin: Client) -> None:
    answer = admin.post("/v1/keys", {"name": "onboarding", "role": "assessor"})
    assert answer.status == 201
    text, id = answer.json["key"], answer.json["id"]
    assert recognise(text.encode()) == id
    assert answer.headers["location"] == f"/v1/keys/{id}"
    listed = admin.get("/v1/keys")
    assert id in {item["id"] for item in listed.json["items"]}
    assert text not in listed.body.decode()
    assert "digest" not in listed.body.decode()
    user = service.client(text)
    assert user.assess(named("Acme Trading GmbH")).status == 201
    assert user.get("/v1/keys").status == 403
    user.close()


def test_a_revoked_key_is_refused_and_may_be_revoked_again(service: Service, admin: Client) -> None:
    key = made(admin)
    user = service.client(key["key"])
    assert user.get("/v1/assessments").status == 200
    first = admin.send("DELETE", f"/v1/keys/{key['id']}")
    assert first.status == 200
    assert first.json["revoked_at"] is not None
    wait_until(lambda: user.get("/v1/assessments").status == 401, "it stopped working", 5.0)
    again = admin.send("DELETE", f"/v1/keys/{key['id']}")
    assert (again.status, again.json["revoked_at"]) == (200, first.json["revoked_at"])
    user.close()


def test_a_successor_takes_over(service: Service, admin: Client) -> None:
    key = made(admin, scopes=["read"], networks=["127.0.0.0/8"], rate="50/s burst 60")
    answer = admin.send("POST", f"/v1/keys/{key['id']}/rotate")
    assert answer.status == 201, answer
    successor = answer.json
    assert (successor["replaces"], key["replaces"]) == (key["id"], None)
    same = ("name", "role", "scopes", "networks", "rate", "tier")
    assert {name: successor[name] for name in same} == {name: key[name] for name in same}
    user = service.client(successor["key"])
    assert user.get("/v1/assessments").status == 200
    user.close()


def test_a_key_is_read_where_its_location_says(admin: Client) -> None:
    answer = admin.post("/v1/keys", {"name": "onboarding", "role": "assessor"})
    found = admin.get(answer.headers["location"])
    assert found.status == 200
    assert found.json == {name: value for name, value in answer.json.items() if name != "key"}
    admin.send("DELETE", answer.headers["location"])
    assert admin.get(answer.headers["location"]).json["status"] == "revoked"


def test_a_key_reaches_no_further_than_the_one_it_is_made_with(service: Service, admin: Client) -> None:
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).replace(microsecond=0).isoformat()
    own = {"networks": ["127.0.0.0/8"], "rate": "50/s burst 60", "expires_at": end}
    maker = service.client(made(admin, role="admin", **own)["key"])
    refused = maker.post("/v1/keys", {"name": "wide", "role": "viewer", "tier": "unlimited"})
    assert (refused.status, refused.json["type"]) == (403, "/problems/wider-key")
    assert [fault["pointer"] for fault in refused.json["errors"]] == ["/networks", "/tier", "/expires_at"]
    narrow = maker.post("/v1/keys", {"name": "narrow", "role": "viewer", **own})
    assert narrow.status == 201, narrow
    wide = made(admin, role="viewer", tier="unlimited")
    taken = maker.send("POST", f"/v1/keys/{wide['id']}/rotate")
    assert (taken.status, taken.json["type"]) == (403, "/problems/wider-key")
    assert maker.send("POST", f"/v1/keys/{narrow.json['id']}/rotate").status == 201
    maker.close()


def test_a_key_that_expires_says_when(admin: Client) -> None:
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).replace(microsecond=0)
    key = made(admin, expires_at=end.isoformat())
    assert dt.datetime.fromisoformat(key["expires_at"]) == end


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "x"}, "/role"),
        ({"name": "x", "role": "owner"}, "/role"),
        ({"name": "", "role": "viewer"}, "/name"),
        ({"name": "x", "role": "viewer", "scopes": ["fly"]}, "/scopes/0"),
        ({"name": "x", "role": "viewer", "scopes": ["keys"]}, "/scopes"),
        ({"name": "x", "role": "viewer", "networks": ["10.0.0.300"]}, "/networks/0"),
        ({"name": "x", "role": "viewer", "tier": "platinum"}, "/tier"),
        ({"name": "x", "role": "viewer", "rate": "fast"}, "/rate"),
        ({"name": "x", "role": "viewer", "rate": "5/s", "tier": "standard"}, "/"),
        ({"name": "x", "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "tenant_id": "other"}, "/tenant_id"),
    ],
)
def test_a_wrong_key_request_is_explained(admin: Client, document: Json, pointer: str) -> None:
    answer = admin.post("/v1/keys", document)
    assert answer.status == 422, answer
    assert answer.json["errors"][0]["pointer"].startswith(pointer)


def test_an_unknown_key_is_not_there(admin: Client) -> None:
    assert admin.send("DELETE", "/v1/keys/000000000000").status == 404
    assert admin.get("/v1/keys/000000000000").status == 404
    assert admin.send("POST", "/v1/keys/nonsense/rotate").status == 404


def test_what_was_done_to_keys_is_in_the_audit_trail(admin: Client) -> None:
    key = made(admin)
    admin.send("DELETE", f"/v1/keys/{key['id']}")
    for act in ("key.created", "key.revoked"):
        items = admin.get("/v1/audit", act=act, limit=200).json["items"]
        entry = next(item for item in items if item["detail"].get("id") == key["id"])
        assert admin.key is not None
        assert entry["actor"] == admin.key[9:21]
        assert key["key"] not in str(entry)
