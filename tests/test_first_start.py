"""A newcomer's first start: secure from the first second, without a second step; and what refuses to start."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Postgres, migrated
from service import COMMAND, HOST, SECRETS, Service, environment, example, failed_start, wait_until

from app.credentials import recognise


class Newcomer(Service):
    """A service that was given nothing: no secret, and no key."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        for name in SECRETS:
            self.settings.pop(name)

    def start(self, **settings: str) -> Service:
        return self.launch(**settings)

    @property
    def admin_key(self) -> str:
        return (self.folder / "data" / "admin.key").read_text().strip()


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    service = Newcomer(tmp_path)
    try:
        yield service
    finally:
        service.stop()


def test_the_first_start_makes_a_key_that_its_owner_alone_can_read(newcomer: Newcomer) -> None:
    newcomer.start()
    data = newcomer.folder / "data"
    for name in ("admin.key", "key_hash_secret", "audit_signing_key", "kyb.db"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    assert recognise(newcomer.admin_key.encode()) is not None
    assert newcomer.client(newcomer.admin_key).get("/v1/keys").status == 200
    assert newcomer.client(None).get("/v1/assessments").status == 401


def test_the_line_it_prints_works_as_it_stands(newcomer: Newcomer) -> None:
    newcomer.start()
    wait_until(lambda: "curl" in newcomer.logged(), "the line is printed")
    line = next(line for line in newcomer.logged().splitlines() if "curl" in line)
    told = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, cwd=newcomer.folder, timeout=30, check=True
    )
    assert '"score":' in told.stdout
    assert "$(cat" in line
    assert shlex.split(line)[0] == "curl"


@pytest.mark.parametrize(("host", "shown"), [("localhost", "127.0.0.1"), ("::1", "[::1]")])
def test_the_line_works_on_every_loopback_address(newcomer: Newcomer, host: str, shown: str) -> None:
    newcomer.spawn(HOST=host)
    wait_until(lambda: "curl" in newcomer.logged(), "the line is printed")
    line = next(line for line in newcomer.logged().splitlines() if "curl" in line)
    assert f" http://{shown}:{newcomer.port}/" in line

    def tried() -> str:
        return subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, cwd=newcomer.folder, check=False
        ).stdout

    # The line is there a moment before the service.
    wait_until(lambda: tried(), "it is answered")
    assert '"score":' in tried()


def test_no_key_and_no_secret_ever_stands_in_a_log(newcomer: Newcomer) -> None:
    newcomer.start(LOG_LEVEL="debug")
    client = newcomer.client(newcomer.admin_key)
    made = client.post("/v1/keys", {"name": "another", "role": "viewer"}).json
    client.recorded(example("healthy-manufacturer"))
    newcomer.client(newcomer.admin_key + "x").get("/v1/keys")
    newcomer.client(made["key"]).get("/v1/keys")
    assert newcomer.terminate() == 0
    logged = newcomer.logged()
    data = newcomer.folder / "data"
    secrets = [
        newcomer.admin_key,
        made["key"],
        *[(data / n).read_text().strip() for n in ("key_hash_secret", "audit_signing_key")],
    ]
    assert not [secret for secret in secrets if secret in logged or secret[25:45] in logged]
    assert not re.search(r"kyb_[a-z]+_[0-9A-Za-z]{20,}", logged)


def test_a_second_start_makes_no_second_key(newcomer: Newcomer) -> None:
    newcomer.start()
    first = newcomer.admin_key
    newcomer.restart()
    assert newcomer.admin_key == first
    assert len(newcomer.client(first).get("/v1/keys").json["items"]) == 1


def test_a_start_whose_keys_are_all_revoked_makes_a_new_one(newcomer: Newcomer) -> None:
    newcomer.start()
    first = newcomer.admin_key
    id = recognise(first.encode())
    revoked = subprocess.run(
        (*COMMAND[:-1], "keys", "revoke", id or ""),
        env=environment(newcomer.settings), cwd=newcomer.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert revoked.returncode == 0, revoked
    newcomer.restart()
    assert newcomer.admin_key != first
    assert newcomer.client(newcomer.admin_key).get("/v1/keys").status == 200
    assert newcomer.client(first).get("/v1/keys").status == 401


def test_with_a_key_it_may_be_reached_from_beyond_loopback(newcomer: Newcomer) -> None:
    newcomer.start(HOST="0.0.0.0")
    assert newcomer.client(newcomer.admin_key).get("/v1/keys").status == 200


def test_authentication_can_be_switched_off_on_loopback_alone(newcomer: Newcomer, tmp_path: Path) -> None:
    refused = failed_start(tmp_path, AUTH_ENABLED="false", HOST="0.0.0.0")
    assert refused.returncode == 3
    assert "loopback" in refused.stderr
    assert "AUTH_ENABLED" in refused.stderr
    newcomer.start(AUTH_ENABLED="false", HOST=HOST)
    assert newcomer.client(None).get("/v1/keys").status == 200
    assert "authentication is off" in newcomer.logged()
    assert not (newcomer.folder / "data" / "admin.key").exists()


@pytest.mark.parametrize("left_out", [*SECRETS, None])
def test_postgres_is_refused_without_the_secrets_that_pods_share(
    postgres: Postgres, tmp_path: Path, left_out: str | None
) -> None:
    url = migrated(postgres.create_database())
    given = {name: "" for name in SECRETS} if left_out is None else {left_out: ""}
    refused = failed_start(tmp_path, DATABASE_URL=url, **given)
    assert refused.returncode == 4, refused
    assert all(name in refused.stderr for name in given)
    assert "openssl rand -hex 32" in refused.stderr


def test_postgres_without_a_key_is_refused_beyond_loopback(postgres: Postgres, tmp_path: Path) -> None:
    url = migrated(postgres.create_database())
    refused = failed_start(tmp_path, DATABASE_URL=url, HOST="0.0.0.0")
    assert refused.returncode == 4, refused
    assert "kyb keys create" in refused.stderr


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    refused = failed_start(tmp_path, KEY_HASH_SECRET="short")
    assert refused.returncode == 3
    assert "32" in refused.stderr
    assert "short" not in refused.stderr.replace("shorter", "")
