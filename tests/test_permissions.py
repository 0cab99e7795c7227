"""Every route, asked by every role and by nobody, in one's own tenant and in another's: exactly what the table says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, get_args

import pytest
from service import Answer, Service, named, serving

from app.api.permissions import RULES, RouteUnlisted, guarded
from app.roles import ROLES, Permission, Role

NOWHERE = "019ab0c1-5e00-7c3a-9f1e-2b6d4c8a7e10"

EXPECTED: dict[tuple[str, str], Permission | None] = {
    ("POST", "/v1/assessments"): "assess",
    ("GET", "/v1/assessments"): "read",
    ("POST", "/v1/assessments/batch"): "assess",
    ("GET", "/v1/assessments/{id}"): "read",
    ("POST", "/v1/assessments/{id}/replay"): "replay",
    ("GET", "/v1/assessments/{id}/overrides"): "read",
    ("POST", "/v1/assessments/{id}/overrides"): "override",
    ("GET", "/v1/assessments/{id}/overrides/{override_id}"): "read",
    ("POST", "/v1/assessments/{id}/overrides/{override_id}/approve"): "override",
    ("GET", "/v1/dispositions"): "read",
    ("POST", "/v1/dispositions"): "override",
    ("GET", "/v1/dispositions/{id}"): "read",
    ("DELETE", "/v1/dispositions/{id}"): "override",
    ("GET", "/v1/watchlists"): "read",
    ("POST", "/match/{dataset}"): "assess",
    ("GET", "/v1/models"): "models",
    ("GET", "/v1/models/{id}/{version}"): "models",
    ("GET", "/v1/keys"): "keys",
    ("POST", "/v1/keys"): "keys",
    ("GET", "/v1/keys/{id}"): "keys",
    ("DELETE", "/v1/keys/{id}"): "keys",
    ("POST", "/v1/keys/{id}/rotate"): "keys",
    ("GET", "/v1/audit"): "audit",
    ("GET", "/v1/audit/checkpoints"): "audit",
    ("GET", "/debug/pprof/goroutine"): "debug",
    ("GET", "/debug/pprof/heap"): "debug",
    ("GET", "/debug/pprof/profile"): "debug",
    ("GET", "/problems/{slug}"): None,
    ("GET", "/health"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/docs"): None,
}
"""Written out again, so that a slip in the table shows."""

HOLDERS: dict[Permission, set[Role]] = {
    "read": {"viewer", "assessor", "analyst", "auditor", "admin"},
    "assess": {"assessor", "analyst", "admin"},
    "replay": {"analyst", "admin"},
    "models": {"analyst", "admin"},
    "override": {"analyst", "admin"},
    "audit": {"auditor", "admin"},
    "keys": {"admin"},
    "lists": {"admin"},
    "debug": {"admin"},
}


class House(NamedTuple):
    """A service with a key of each role in two tenants, and something of each kind in both."""

    keys: dict[tuple[str, Role], str]
    assessments: dict[str, str]
    overrides: dict[str, str]
    hits: dict[str, str]
    dispositions: dict[str, str]
    service: Service


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as service:
        keys = {(tenant, role): service.new_key(role, tenant) for tenant in ("ours", "theirs") for role in ROLES}
        assessments, overrides, hits, dispositions = {}, {}, {}, {}
        for tenant in ("ours", "theirs"):
            client = service.client(keys[tenant, "admin"])
            assessments[tenant] = client.recorded(named("Acme Trading GmbH"))["id"]
            told = {"level": "high", "reason": "seen on site"}
            decided = client.post(f"/v1/assessments/{assessments[tenant]}/overrides", told)
            assert decided.status == 201, decided
            overrides[tenant] = decided.json["id"]
            # A name of the packaged list.
            hits[tenant] = client.recorded(named("Veridian Shadow Trading Ltd", id="b1"))["id"]
            aside = client.post("/v1/dispositions", _aside(hits[tenant]))
            assert aside.status == 201, aside
            dispositions[tenant] = aside.json["id"]
            client.close()
        yield House(keys, assessments, overrides, hits, dispositions, service)


def _aside(assessment_id: str) -> dict[str, str]:
    return {"assessment_id": assessment_id, "list": "demo", "entity_id": "demo-01", "reason": "another company"}


def ask(house: House, key: str | None, method: str, path: str, of: str = "ours") -> Answer:
    """A request that is right in every other way. of: the tenant whose things it names."""
    client = house.service.client(key)
    key_id = (
        client.post("/v1/keys", _KEY, {"X-API-Key": house.keys[of, "admin"]}).json["id"] if "keys/{" in path else ""
    )
    filled = path.replace("{override_id}", house.overrides[of]).replace("{version}", "1.1.0").replace("{slug}", "x")
    filled = filled.replace("{dataset}", "default")
    if path in ("/debug/pprof/heap", "/debug/pprof/profile"):
        filled += "?seconds=1"
    for start, id in (
        ("/v1/assessments/", house.assessments[of]),
        ("/v1/keys/", key_id),
        ("/v1/models/", "kyb"),
        ("/v1/dispositions/", house.dispositions[of]),
    ):
        if filled.startswith(start):
            filled = filled.replace("{id}", id)
    bodies = {
        "/v1/assessments": named("Acme Trading GmbH"),
        "/v1/assessments/batch": {"items": [named("Acme Trading GmbH")]},
        "/v1/assessments/{id}/overrides": {"level": "high", "reason": "seen on site"},
        "/v1/keys": _KEY,
        "/v1/dispositions": _aside(house.hits[of]),
        "/match/{dataset}": {"queries": {"q": {"schema": "Company", "properties": {"name": ["Acme"]}}}},
    }
    document = bodies.get(path) if method == "POST" else None
    answer = client.post(filled, document) if document else client.send(method, filled)
    client.close()
    return answer


_KEY = {"name": "made here", "role": "viewer"}


def test_the_table_is_the_one_written_here() -> None:
    assert {route: rule.permission for route, rule in RULES.items()} == EXPECTED
    assert {p: {role for role, held in ROLES.items() if p in held} for p in get_args(Permission)} == HOLDERS


@pytest.mark.parametrize(("method", "path"), RULES, ids=lambda value: value)
def test_a_route_answers_who_holds_its_permission_and_nobody_else(house: House, method: str, path: str) -> None:
    wanted = EXPECTED[method, path]
    alone = ask(house, None, method, path)
    assert (alone.status == 401) == (wanted is not None), alone
    for role in ROLES:
        answer = ask(house, house.keys["ours", role], method, path)
        if wanted is not None and role not in HOLDERS[wanted]:
            assert answer.status == 403, (role, answer)
            assert answer.json["type"] == "/problems/forbidden"
            assert wanted in answer.json["detail"]
        else:
            # An override that was applied at once cannot be approved, and a hit is set aside once: right in itself, in
            # conflict with what is there.
            conflicts = path.endswith("approve") or (method, path) == ("POST", "/v1/dispositions")
            assert answer.status in ((409,) if conflicts else (200, 201, 302)), (role, answer)


@pytest.mark.parametrize(
    ("method", "path"), [route for route in RULES if "{id}" in route[1] and "models" not in route[1]]
)
def test_what_belongs_to_another_tenant_is_not_there(house: House, method: str, path: str) -> None:
    wanted = EXPECTED[method, path]
    assert wanted is not None
    for role in HOLDERS[wanted]:
        answer = ask(house, house.keys["ours", role], method, path, of="theirs")
        assert answer.status == 404, (role, answer)


def test_lists_hold_only_what_is_ones_own(house: House) -> None:
    ours, theirs = house.service.client(house.keys["ours", "admin"]), house.assessments["theirs"]
    assert theirs not in {item["id"] for item in ours.walk()}
    assert house.assessments["ours"] in {item["id"] for item in ours.walk()}
    assert {key["tenant_id"] for key in ours.get("/v1/keys").json["items"]} <= {"ours"}
    told = ours.get("/v1/audit", limit=200)
    assert told.status == 200, told
    assert theirs not in told.body.decode()
    ours.close()


def test_a_narrowed_key_holds_only_its_scopes(house: House) -> None:
    narrow = house.service.client(house.service.new_key("admin", "ours", scopes=("read",)))
    assert narrow.get("/v1/assessments").status == 200
    assert narrow.assess(named("Acme Trading GmbH")).status == 403
    narrow.close()


def test_a_refused_permission_is_in_the_audit_trail(house: House) -> None:
    viewer = house.keys["theirs", "viewer"]
    assert ask(house, viewer, "GET", "/v1/keys", of="theirs").status == 403
    auditor = house.service.client(house.keys["theirs", "auditor"])
    found: list[dict[str, object]] = []
    while not found:
        answer = auditor.get("/v1/audit", act="role.refused")
        assert answer.status == 200, answer
        found = [item for item in answer.json["items"] if item["actor"] == viewer[9:21]]
    assert found[0]["detail"]["permission"] == "keys"  # type: ignore[index]
    auditor.close()


def test_a_route_without_a_rule_ends_the_start() -> None:
    async def endpoint(request: object) -> None: ...

    served: dict[str, dict[str, object]] = {}
    for method, path in RULES:
        served.setdefault(path, {})[method] = endpoint
    limits = {"single": 1, "batch": 1}
    assert guarded(served, limits, False).keys() == served.keys()  # type: ignore[arg-type]
    served["/v1/forgotten"] = {"GET": endpoint}
    with pytest.raises(RouteUnlisted, match="GET /v1/forgotten"):
        guarded(served, limits, False)  # type: ignore[arg-type]
    del served["/v1/forgotten"], served["/health"]
    with pytest.raises(RouteUnlisted, match="GET /health"):
        guarded(served, limits, False)  # type: ignore[arg-type]
