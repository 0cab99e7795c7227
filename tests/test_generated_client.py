"""A client that a generator makes of the running service's own description: every operation, called for real."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from service import HOST, KEY, Service, example, unique

from app.api.operations import OPERATIONS

PACKAGE = "kyb_generated"
LIMIT_S = 120
AREA = {operation.name: operation.tag.lower() for operation in OPERATIONS}
SCHEMAS = {operation.name: {answer.status: answer.schema for answer in operation.answers} for operation in OPERATIONS}


@pytest.fixture(scope="module")
def generated(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package, importable; without a word of warning."""
    folder = tmp_path_factory.mktemp("generated")
    url = f"http://{HOST}:{service.port}/openapi.json"
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [
            *(programs / "openapi-python-client", "generate", "--fail-on-warning", "--meta", "none"),
            *("--url", url, "--output-path", folder / PACKAGE, "--config", _config(folder)),
        ],
        capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def _config(folder: Path) -> Path:
    """Without the formatter that the generator runs at the end, which is not installed everywhere."""
    config = folder / "config.yaml"
    config.write_text("post_hooks: []\n", encoding="utf-8")
    return config


class Caller:
    """Calls operations by their names, and checks that each answer is one that is described."""

    def __init__(self, generated: ModuleType, service: Service, key: str = KEY) -> None:
        self.models: Any = importlib.import_module(f"{PACKAGE}.models")
        self.client = generated.AuthenticatedClient(base_url=f"http://{HOST}:{service.port}", token=key)
        self.called: set[str] = set()

    def __call__(self, name: str, status: int = 200, **arguments: Any) -> Any:
        answer = self.answer(name, **arguments)
        assert answer.status_code == status, (name, answer.content)
        schema = SCHEMAS[name][status]
        if isinstance(schema, type):
            assert type(answer.parsed).__name__ == schema.__name__
        self.called.add(name)
        return answer.parsed

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer of an operation, whatever it is."""
        operation: Any = importlib.import_module(f"{PACKAGE}.api.{AREA[name]}.{name}")
        return operation.sync_detailed(client=self.client, **arguments)

    def close(self) -> None:
        self.client.get_httpx_client().close()


@pytest.fixture
def call(generated: ModuleType, service: Service) -> Iterator[Caller]:
    with closing(Caller(generated, service)) as caller:
        yield caller


@pytest.fixture
def colleague(generated: ModuleType, service: Service) -> Iterator[Caller]:
    """Somebody else, with a key of their own."""
    with closing(Caller(generated, service, service.new_key())) as caller:
        yield caller


def test_every_operation_can_be_called(generated: ModuleType, call: Caller, colleague: Caller) -> None:
    models = call.models
    for found in pkgutil.walk_packages(generated.__path__, f"{PACKAGE}."):
        importlib.import_module(found.name)

    profile = models.Profile.from_dict(example("namesake"))
    profile.business.id = unique("business")
    full = models.AssessExplain.FULL
    made = call("assess", 201, body=profile, explain=full, idempotency_key=unique("key"))
    assert made.score == sum(round(reason.points * 100) for reason in made.reasons) / 100
    low, high = made.score_range
    assert low <= made.score <= high
    assert call("assess", body=profile, dry_run=True).id is None
    items = [example("name-only"), {"business": {"name": "A", "jurisdiction": "XX"}}]
    batch = call("assess_batch", body=models.Batch.from_dict({"items": items}))
    assert [item.status for item in batch.items] == [201, 422]
    assert batch.items[1].problem.errors[0].pointer == "/items/1/business/jurisdiction"

    page = call("list_assessments", limit=1, level=models.ListAssessmentsLevel(made.level.value))
    assert page.next_cursor is None or call("list_assessments", limit=1, cursor=page.next_cursor).items
    assert call("read_assessment", id=made.id).to_dict()["score"] == made.score
    assert call("replay_assessment", id=made.id).identical

    call("override_assessment", 201, id=made.id, body=models.OverrideRequest.from_dict(
        {"decision": "decline", "reason": "Nobody is there."}))  # fmt: skip
    pending = call("override_assessment", 202, id=made.id, body=models.OverrideRequest.from_dict(
        {"decision": "approve", "reason": "They moved."}))  # fmt: skip
    assert colleague("approve_override", id=made.id, override_id=pending.id).state.value == "approved"
    assert call("read_override", id=made.id, override_id=pending.id).approver is not None
    assert len(call("list_overrides", id=made.id).items) == 2

    [hit, *_] = made.screening.hits
    disposition = call("set_hit_aside", 201, body=models.DispositionRequest(
        assessment_id=made.id, list_=hit.list_, entity_id=hit.entity_id, reason="A namesake."))  # fmt: skip
    assert call("read_disposition", id=disposition.id).ended_at is None
    assert call("list_dispositions", business_id=profile.business.id).items[0].id == disposition.id
    assert call("end_disposition", id=disposition.id).ended_at is not None
    assert "demo" in [found.name for found in call("list_watchlists").items]
    query = {"schema": "Company", "properties": {"name": [hit.matched_name]}}
    matched = call("match", dataset="demo", body=models.MatchRequest.from_dict({"queries": {"q": query}}))
    assert matched.responses["q"].results[0].id == hit.entity_id

    assert made.model.version in [known.version for known in call("list_models").items]
    definition = call("read_model", id=made.model.id, version=made.model.version).definition
    assert definition["model"]["id"] == made.model.id

    key = call("create_key", 201, body=models.KeyRequest.from_dict({"name": unique("key"), "role": "viewer"}))
    assert call("read_key", id=key.id).permissions == [models.KeyPermissionsItem.READ]
    successor = call("rotate_key", 201, id=key.id, overlap_s=60)
    assert call("revoke_key", id=successor.id).status.value == "revoked"
    assert {key.id, successor.id} <= {known.id for known in call("list_keys").items}
    assert call("list_audit_entries", assessment=made.id).items[-1].act == "assessment.recorded"
    call("list_audit_checkpoints", limit=1)

    assert call("health").version == call("detailed_health").version
    for name in ("liveness", "readiness", "show_tasks", "profile_heap"):
        call(name)
    assert "assessments_total" in call("metrics")
    assert call("openapi").additional_properties["openapi"] == "3.1.0"
    assert "<html" in call("docs")
    call("profile_cpu", seconds=1)
    assert call.called | colleague.called == {operation.name for operation in OPERATIONS}


def test_a_refusal_is_a_problem_with_pointers(call: Caller) -> None:
    profile = call.models.Profile.from_dict(example("name-only"))
    profile.business.jurisdiction = "XX"
    refused = call.answer("assess", body=profile)
    assert refused.status_code == 422
    assert isinstance(refused.parsed, call.models.Problem)
    assert [fault.pointer for fault in refused.parsed.errors] == ["/business/jurisdiction"]


def test_what_is_unchanged_has_no_body(call: Caller) -> None:
    made = call("assess", 201, body=call.models.Profile.from_dict(example("name-only")))
    etag = call.answer("read_assessment", id=made.id).headers["etag"]
    unchanged = call.answer("read_assessment", id=made.id, if_none_match=etag)
    assert (unchanged.status_code, unchanged.content, unchanged.parsed) == (304, b"", None)


def test_a_key_that_nobody_knows_is_a_problem_too(generated: ModuleType, service: Service) -> None:
    with closing(Caller(generated, service, "kyb_test_none")) as stranger:
        refused = stranger.answer("list_keys")
    assert refused.status_code == 401
    assert refused.parsed.type_ == "/problems/unauthorized"
