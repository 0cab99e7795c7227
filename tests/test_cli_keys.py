"""Keys from the command line: captured from standard output, listed without their text, ended and replaced."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from cached import Pod, running
from databases import PASSWORD, migrated
from keyed import House, id_of
from service import SECRETS, environment

from app.cli.commands import kyb
from app.cli.exits import Stopped
from app.cli.keys import _end_ms as end_ms
from app.credentials import recognise
from app.ids import now_ms
from app.keys import Ended
from app.neighbours import make_store
from app.secrets import secrets_of
from app.settings import load
from app.store.base import opened

COMMAND = (sys.executable, "-m", "app.cli", "keys")
LIMIT_S = 60.0

Done = subprocess.CompletedProcess[str]
Settings = Mapping[str, str]


def run(settings: Settings, *arguments: object) -> Done:
    """The real command in a process of its own, with these settings of the environment only."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stderr
    return done


def refused(settings: Settings, *arguments: object, code: int = 2) -> str:
    """What a command said that must refuse, and do nothing else."""
    done = run(settings, *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done
    return done.stderr


def made(settings: Settings, *options: object, name: str = "made", role: str = "assessor") -> str:
    """The text of a new key."""
    done = run(settings, "create", "--name", name, "--role", role, *options)
    assert done.returncode == 0, done
    return done.stdout.removesuffix("\n")


def listed(settings: Settings, *options: object) -> list[dict[str, Any]]:
    done = run(settings, "list", *options, "--json")
    assert done.returncode == 0, done
    keys: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return keys


def with_store(settings: Settings, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with opened(make_store(load(settings).settings)) as store:
            return await work(store)

    return asyncio.run(inside())


def works(settings: Settings, text: str) -> bool:
    async def look(store: Any) -> bool:
        house = House(store, secret=secrets_of(load(settings).settings).key_hash)
        return await house.caller(text.encode()) is not None

    return bool(with_store(settings, look))


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a database that can be used, with a key in it."""
    if request.param == "sqlite":
        chosen = embedded(tmp_path)
    else:
        chosen = {"DATABASE_URL": migrated(request.getfixturevalue("database")), **SECRETS}
    made(chosen, name="another", role="admin")
    return chosen


def embedded(folder: Path) -> dict[str, str]:
    """The settings of an embedded database that nothing is in yet."""
    chosen = {"DATA_DIR": str(folder / "data")}
    (folder / "data").mkdir()
    with_store(chosen, _nothing)
    return chosen


async def _nothing(store: Any) -> None:
    pass


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of an embedded database that nothing is in yet, which are those of this process too."""
    chosen = embedded(tmp_path)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


def explained(*arguments: str) -> str:
    """What a command of this process says when it cannot do what it is asked."""
    with pytest.raises(click.ClickException) as stopped:
        kyb.main(["keys", *arguments], prog_name="kyb", standalone_mode=False)
    assert stopped.value.exit_code == 2
    return stopped.value.format_message()


def test_standard_output_has_the_key_and_nothing_else(settings: Settings) -> None:
    done = run(
        settings, "create", "--tenant", "acme", "--name", "on boarding", "--role", "analyst", "--scope", "read",
        "--scope", "replay", "--network", "10.0.0.0/8", "--network", "2001:db8::1", "--rate", "5/s burst 9",
        "--expires", "90d",
    )  # fmt: skip
    assert done.returncode == 0, done
    text = done.stdout.removesuffix("\n")
    id = recognise(text.encode())
    assert id is not None
    assert text[21:] not in done.stderr
    assert f"made the key {id} of acme: on boarding, analyst (read, replay), from 10.0.0.0/8, 2001:db8::1/128 only" in (
        done.stderr
    )
    assert "shown this once" in done.stderr
    assert works(settings, text)
    (key,) = listed(settings, "--tenant", "acme")
    assert (key["id"], key["scopes"], key["rate"], key["created_by"]) == (id, ["read", "replay"], "5/s burst 9", "cli")
    ends = dt.datetime.fromisoformat(key["expires_at"]) - dt.datetime.fromisoformat(key["created_at"])
    assert abs(ends - dt.timedelta(days=90)) < dt.timedelta(minutes=1)


def test_a_key_can_be_asked_for_as_json(settings: Settings) -> None:
    told = json.loads(made(settings, "--json"))
    assert recognise(told["key"].encode()) == told["id"]
    assert works(settings, told["key"])


def test_a_list_never_holds_a_text(settings: Settings) -> None:
    text = made(settings, "--tenant", "acme", "--network", "10.0.0.0/8")
    done = run(settings, "list")
    assert done.returncode == 0
    assert done.stderr == ""
    assert text[21:] not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == [id_of(text.encode()), "acme", "made"]
    assert "not used yet  10.0.0.0/8" in lines[0]
    assert text[21:] not in json.dumps(listed(settings))
    assert [key["tenant_id"] for key in listed(settings)][:2] == ["acme", "default"]
    assert run(settings, "list", "--tenant", "nobody").stdout.startswith("there is no key; ")


@pytest.mark.parametrize("by", ["id", "text"])
def test_a_revoked_key_does_not_work_any_more(settings: Settings, by: str) -> None:
    text = made(settings)
    id = id_of(text.encode())
    assert works(settings, text)
    done = run(settings, "revoke", id if by == "id" else text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"revoked the key {id} of default: made; it stops working everywhere within 5 s\n"
    assert not works(settings, text)
    again = run(settings, "revoke", id)
    assert again.returncode == 0
    assert "was revoked before, at " in again.stdout
    assert [key["status"] for key in listed(settings) if key["id"] == id] == ["revoked"]


def test_whoever_revokes_the_last_administrator_is_told_what_to_do(settings: Settings) -> None:
    made(settings, "--tenant", "acme")
    text = made(settings, "--tenant", "acme", role="admin")
    done = run(settings, "revoke", id_of(text.encode()))
    assert done.returncode == 0
    assert "`kyb keys create --tenant acme --name admin --role admin` makes one" in done.stderr


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_is_said_not_to_be(settings: Settings, command: str) -> None:
    id = id_of(made(settings, "--tenant", "acme").encode())
    assert "There is no key 000000000000." in refused(settings, command, "000000000000", code=4)
    assert f"There is no key {id}." in refused(settings, command, id, "--tenant", "default", code=4)


def test_a_successor_takes_over(settings: Settings) -> None:
    text = made(settings, "--tenant", "acme", "--scope", "read")
    id = id_of(text.encode())
    done = run(settings, "rotate", id, "--overlap", "24h")
    assert done.returncode == 0, done
    successor = done.stdout.removesuffix("\n")
    assert works(settings, text)
    assert works(settings, successor)
    assert f"of acme replaces {id}: made, assessor (read)" in done.stderr
    assert f"{id} works for another 24h" in done.stderr
    last = json.loads(run(settings, "rotate", id_of(successor.encode()), "--json").stdout)
    assert not works(settings, successor)
    assert works(settings, last["key"])
    assert last["permissions"] == ["read"]
    assert "expired" in refused(settings, "rotate", id_of(successor.encode()), code=4)


def test_what_is_done_is_in_the_trail_of_its_tenant(settings: Settings) -> None:
    text = made(settings, "--tenant", "acme")
    run(settings, "rotate", id_of(text.encode()))
    run(settings, "revoke", id_of(text.encode()))

    async def look(store: Any) -> list[tuple[str, str]]:
        return sorted({(entry.act, entry.actor) for entry in await store.entries("acme", limit=9)})

    told = [("key.created", "cli"), ("key.revoked", "cli"), ("key.rotated", "cli")]
    assert with_store(settings, look) == told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "x", "--role", "owner"], "'owner' is not one of"),
        (["--role", "viewer"], "Missing option '--name'"),
        (["--name", " ", "--role", "viewer"], "--name is empty"),
        (["--name", "a\nb", "--role", "viewer"], "--name: expected a name on one line"),
        (["--name", "x", "--role", "viewer", "--scope", "keys"], "--scope: the role viewer does not hold keys; it has"),
        (["--name", "x", "--role", "viewer", "--network", "10.0.0.300"], "--network: expected a network"),
        (
            ["--name", "x", "--role", "viewer", "--tier", "platinum"],
            "--tier: expected one of standard, high, unlimited",
        ),
        (["--name", "x", "--role", "viewer", "--rate", "fast"], "--rate: expected a rate such as"),
        (["--name", "x", "--role", "viewer", "--rate", "5/s", "--tier", "high"], "--rate: given beside a tier"),
        (["--name", "x", "--role", "viewer", "--expires", "90"], "--expires: 90 is no end of a key"),
        (["--name", "x", "--role", "viewer", "--expires", "2020-01-01"], "--expires: expected a time to come"),
        (["--name", "x", "--role", "viewer", "--expires", "9999d0"], "is no end of a key"),
        (["--name", "x", "--role", "viewer", "--expires", "9999-12-31"], "is no end of a key"),
        (["--name", "x", "--role", "viewer", "--tenant", ""], "--tenant is empty"),
        (["--name", "x", "--role", "viewer", "--tenant", "\udcff"], "--tenant is not text in UTF-8"),
    ],
)
def test_a_key_that_cannot_be_is_explained(fresh: Settings, options: list[str], words: str) -> None:
    assert words in explained("create", *options)


@pytest.mark.parametrize("overlap", ["soon", "24", "-1h", "31d", "", "1000000h"])
def test_an_overlap_that_cannot_be_is_explained(fresh: Settings, overlap: str) -> None:
    assert "is no time from 0s to 30d" in explained("rotate", "000000000000", f"--overlap={overlap}")


def test_the_first_command_on_an_embedded_database_makes_an_administrators_key(fresh: Settings) -> None:
    done = run(fresh, "list")
    file = Path(fresh["DATA_DIR"]) / "admin.key"
    assert done.returncode == 0, done
    assert f"an administrator's was made: it stands in {file}" in done.stderr
    text = file.read_text().strip()
    assert works(fresh, text)
    assert text[21:] not in done.stdout + done.stderr
    assert run(fresh, "list").stderr == ""
    assert run(fresh, "revoke", id_of(text.encode())).returncode == 0
    assert "an administrator's was made" in run(fresh, "create", "--name", "x", "--role", "viewer").stderr
    assert file.read_text().strip() != text
    assert len(listed(fresh)) == 3


def test_a_database_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    told = refused({"DATA_DIR": str(tmp_path / "nowhere")}, "create", "--name", "x", "--role", "viewer", code=4)
    assert "there is no database" in told
    assert "kyb migrate" in told


@pytest.mark.parametrize("command", [["list"], ["create", "--name", "x", "--role", "viewer"], ["revoke", "x"]])
def test_postgres_without_the_secrets_is_refused_like_other_settings(database: str, command: list[str]) -> None:
    told = refused({"DATABASE_URL": database}, *command, code=3)
    assert "KEY_HASH_SECRET and AUDIT_SIGNING_KEY" in told
    assert PASSWORD not in told


def test_a_revocation_is_heard_of_by_a_running_service(database: str, redis_url: str) -> None:
    settings = {"DATABASE_URL": migrated(database), "REDIS_URL": redis_url, **SECRETS}
    text = made(settings)

    async def scenario(store: Any) -> None:
        pod = Pod(redis_url)
        async with running(pod):
            house = House(store, pod=pod, secret=SECRETS["KEY_HASH_SECRET"].encode())
            assert await house.caller(text.encode()) is not None
            heard = pod.link.messages
            done = await asyncio.to_thread(run, settings, "revoke", id_of(text.encode()))
            assert done.returncode == 0
            assert pod.link.messages > heard
            assert isinstance(await house.ring.find(text.encode()), Ended)
            await house.ring.stop()

    with_store(settings, scenario)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2027-11-23", "2027-11-24T00:00:00Z"),
        ("2027-11-23T14:00:00Z", "2027-11-23T14:00:00Z"),
        ("2027-11-23T14:00:00.5+02:00", "2027-11-23T12:00:00.500Z"),
    ],
)
def test_a_day_is_good_to_its_end(text: str, end: str) -> None:
    assert end_ms(text) == round(dt.datetime.fromisoformat(end).timestamp() * 1000)


@pytest.mark.parametrize(("text", "hours"), [("90d", 2160), ("12h", 12), ("1h30m", 1.5), ("36500d", 876_000)])
def test_a_time_counts_from_now(text: str, hours: float) -> None:
    assert abs(end_ms(text) - now_ms() - hours * 3_600_000) < 60_000


@pytest.mark.parametrize(
    "text", ["", "90", "0s", "0d", "soon", "2027-02-30", "2027-11-23T14:00:00", "2027-W01-1", "-1d"]
)
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(Stopped, match="is no end of a key"):
        end_ms(text)
