"""A service that is set up wrong does not start, says why, and leaves what it found as it was."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from service import HOST, ROOT, Client, Service, failed_start, named, serving


def refused(folder: Path, **settings: str) -> str:
    """What a start that must fail says: on standard error, without a traceback."""
    done = failed_start(folder, **settings)
    assert done.returncode not in (0, -6, -11), done
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.strip(), done
    assert "http://" not in done.stdout, "the service was announced and did not start"
    return done.stderr


def one_sentence(told: str) -> str:
    """Of faults other than lists: one plain line."""
    assert len(told.strip().splitlines()) == 1, told
    assert len(told) < 600
    return told


MODEL_FAULTS = {
    "an unknown key": ("base: 0\n", "base: 0\nbse: 1\n", "bse"),
    "a gap": ('"[1.81, 2.99]", points: 0.80, code: FIN_Z_GREY', '"[1.9, 2.99]", points: 0.80, code: FIN_Z_GREY', "gap"),
    "a cheap missing": ("points: 1.60, code: FIN_Z_MISSING", "points: 0.10, code: FIN_Z_MISSING", "missing"),
    "three decimals": ("points: 0.80, code: FIN_Z_GREY", "points: 0.805, code: FIN_Z_GREY", "decimal"),
    "not finite": ("points: 0.80, code: FIN_Z1_GREY", "points: .nan, code: FIN_Z1_GREY", "nan"),
    "a top band out of reach": ("level: critical, from: 60", "level: critical, from: 101", "critical"),
    "an unknown table": (
        "table: country_risk, of: [business.address.country]",
        "table: country_rsk, of: [business.address.country]",
        "is not a table",
    ),
}
"""What is wrong: a text of the default model, what it becomes, and a word of what is said about it."""


def default_model() -> str:
    return (ROOT / "core" / "models" / "kyb-1.1.0.yaml").read_text(encoding="utf-8")


def test_a_model_file_with_faults_stops_the_start_and_all_are_listed(tmp_path: Path) -> None:
    text = default_model()
    path = tmp_path / "model.yaml"
    for name, (right, wrong, words) in MODEL_FAULTS.items():
        assert text.count(right) == 1, f"{name}: the model no longer holds {right}"
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        told = refused(tmp_path, MODEL_PATH=str(path))
        assert re.search(words, told), f"{name}: {told}"
        assert str(path) in told
    together = [MODEL_FAULTS[name] for name in ("a gap", "a cheap missing", "a top band out of reach")]
    for right, wrong, _ in together:
        text = text.replace(right, wrong)
    path.write_text(text, encoding="utf-8")
    told = refused(tmp_path, MODEL_PATH=str(path))
    assert all(re.search(words, told) for _, _, words in together), told


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0", b"a: [", b"- 1\n- 2\n", b"\0\0\0", b"x: &a [*a]\n", b"5"], ids=range(7)
)
def test_a_file_that_is_no_model_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(content)
    assert str(path) in refused(tmp_path, MODEL_PATH=str(path))


def test_a_model_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert "no-model.yaml" in one_sentence(refused(tmp_path, MODEL_PATH=str(tmp_path / "no-model.yaml")))
    assert "kyb@1.1.0" in one_sentence(refused(tmp_path, MODEL="kyb@9.9.9"))
    refused(tmp_path, MODEL_PATH=str(tmp_path))


def test_a_data_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (str(file / "data"), str(file), "/proc/kyb"):
        told = one_sentence(refused(tmp_path, DATA_DIR=folder))
        assert folder in told
        assert "DATA_DIR" in told


def test_a_used_port_stops_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = one_sentence(refused(tmp_path, PORT=str(port)))
    assert str(port) in told
    assert "in use" in told


def test_a_second_service_on_the_same_port_is_refused_and_the_first_lives_on(
    untouched: Service, caller: Client, tmp_path: Path
) -> None:
    assert "in use" in one_sentence(refused(tmp_path, PORT=str(untouched.port)))
    assert caller.get("/health").status == 200


def database(tmp_path: Path) -> Path:
    """The file of a service that has recorded something and was stopped."""
    with serving(tmp_path / "made") as service:
        client = service.client()
        items = [named("x" * 500)] * 200
        assert client.post("/v1/assessments/batch", {"items": items}).status == 200
        assert service.terminate() == 0
    return tmp_path / "made" / "data" / "kyb.db"


def test_a_database_that_is_none_or_damaged_or_foreign_or_newer_stops_the_start_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    good = database(tmp_path)
    size = good.stat().st_size

    def bend(name: str, change: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        path = Path(shutil.copy(good, folder / "kyb.db"))
        if change:
            with sqlite3.connect(path) as connection:
                connection.execute(change)
            connection.close()
        return path

    cases = {}
    path = bend("garbage", "")
    path.write_bytes(b"This is a letter to the auditor, not a database.\n" * 200)
    cases[path] = "not an SQLite database"
    path = bend("schema-page", "")
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xa5" * 3900
    path.write_bytes(content)
    cases[path] = "damaged"
    path = bend("cut", "")
    path.write_bytes(path.read_bytes()[: size // 3])
    cases[path] = "damaged"
    cases[bend("newer", "PRAGMA user_version = 999")] = "999"
    cases[bend("foreign", "PRAGMA application_id = 42")] = "another program"
    cases[bend("changed", "DROP INDEX assessments_by_outcome")] = "assessments_by_outcome"
    for path, words in cases.items():
        before = path.read_bytes()
        told = one_sentence(refused(tmp_path, DATA_DIR=str(path.parent)))
        assert words in told, f"{path.parent.name}: {told}"
        assert str(path) in told
        assert path.read_bytes() == before, path.parent.name


def test_a_folder_where_the_database_should_be_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data" / "kyb.db").mkdir(parents=True)
    assert "folder" in one_sentence(refused(tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_authentication_an_address_other_than_loopback_is_refused(tmp_path: Path, host: str) -> None:
    assert "loopback" in refused(tmp_path, HOST=host, AUTH_ENABLED="false")


def test_every_fault_of_the_settings_is_listed(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("server: {prot: 8080, body_timeout: soon}\nsevrer: {}\ndatabase: {max_connections: many}\n")
    told = refused(tmp_path, CONFIG_FILE=str(config), WORKERS="none", PORT="99999")
    for words in (
        "prot",
        "port",
        "body_timeout",
        "soon",
        "sevrer",
        "max_connections",
        "many",
        "WORKERS",
        "PORT",
        f"{config}:1",
    ):
        assert words in told, words


def test_a_settings_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refused(tmp_path, CONFIG_FILE=str(tmp_path / "nowhere.yaml"))
