"""What was recorded is replayed identically, under the model it was made with."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import EXAMPLES, PROFILE
from service import ROOT, Client, Json, Service, example, serving

ON_BOTH_STORES = True


def test_every_example_is_replayed_identically(client: Client) -> None:
    for name in EXAMPLES:
        made = client.recorded(example(name))
        answer = client.post(f"/v1/assessments/{made['id']}/replay", b"")
        assert (answer.status, answer.json) == (200, {"identical": True})


@settings(max_examples=10)
@given(profiles=st.lists(PROFILE, min_size=1, max_size=20))
def test_whatever_was_recorded_is_replayed_identically(service: Service, profiles: list[Json]) -> None:
    caller = Client(service.port)
    try:
        made = caller.post("/v1/assessments/batch", {"items": profiles}, explain="full").json["items"]
        for item in made:
            path = f"/v1/assessments/{item['assessment']['id']}"
            assert caller.post(f"{path}/replay", b"").json == {"identical": True}
            assert caller.get(path, explain="full").json == item["assessment"]
    finally:
        caller.close()


def test_a_replay_of_nothing_is_404(client: Client) -> None:
    answer = client.post("/v1/assessments/00000000-0000-7000-8000-000000000000/replay", b"")
    assert answer.status == 404


def edited_model(folder: Path) -> Path:
    """A copy of the default model with another version and other points."""
    text = (ROOT / "core" / "models" / "kyb-1.1.0.yaml").read_text(encoding="utf-8")
    changed = text.replace("\n  version: 1.1.0\n", "\n  version: 1.1.1\n", 1)
    changed = re.sub(
        r"points: [0-9.]+, adverse: true, code: FIN_Z_DISTRESS,",
        "points: 3.97, adverse: true, code: FIN_Z_DISTRESS,",
        changed,
    )
    assert changed.count("3.97") == text.count("3.97") + 1
    assert "version: 1.1.1" in changed
    path = folder / "edited.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


def test_records_are_replayed_under_their_own_model_whichever_is_active(tmp_path: Path) -> None:
    path = edited_model(tmp_path)
    with serving(tmp_path / "service") as service:
        client = service.client()
        old = {name: client.recorded(example(name), explain="full") for name in EXAMPLES}
        service.restart(MODEL_PATH=str(path))
        client = service.client()
        new = {name: client.recorded(example(name), explain="full") for name in EXAMPLES}
        models = {model["version"]: model for model in client.get("/v1/models").json["items"]}
        assert {version: model["active"] for version, model in models.items()} == {
            "1.0.0": False,
            "1.1.0": False,
            "1.1.1": True,
        }
        for sent in (True, False):
            for made, version in ((old, "1.1.0"), (new, "1.1.1")):
                for assessment in made.values():
                    place = f"/v1/assessments/{assessment['id']}"
                    assert client.get(place, explain="full").json == assessment
                    assert assessment["model"] == {n: models[version][n] for n in ("id", "version", "sha256")}
                    assert client.post(f"{place}/replay", b"").json == {"identical": True}
            if sent:
                path.unlink()
                service.restart()
                client = service.client()
                models = {model["version"]: model for model in client.get("/v1/models").json["items"]}
                assert {version: model["active"] for version, model in models.items()} == {
                    "1.0.0": False,
                    "1.1.0": True,
                    "1.1.1": False,
                }
        assert client.get("/v1/models/kyb/1.1.1").json["definition"]["model"]["version"] == "1.1.1"
