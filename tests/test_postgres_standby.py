"""Reads go to a standby where the URL says so, writes never, and what was acknowledged is read there at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from databases import Postgres
from outage import prepared
from proxy import HOST
from service import Client, Service, environment, named, serving, unique, wait_until
from standby import Standby

PREFERRING = "target_session_attrs=prefer-standby"
WRITABLE = "target_session_attrs=read-write"
PATIENT = """\
server: {request_deadline: 14s}
database:
  timeout: 12s
  acquire_timeout: 10s
  connect_timeout: 10s
  command_timeout: 10s
  statement_timeout: 9s
"""
"""On a busy machine, too, which is not what these tests are about."""


class Pair(NamedTuple):
    """A primary that acknowledges what its standby has applied, and pods that read from the standby."""

    primary: Postgres
    standby: Standby
    one: Service
    two: Service

    def reading(self, server: Postgres) -> int:
        """How many connections of the pods a server has."""
        [(found,)] = server.query("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kyb'")
        return int(found)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with Postgres() as primary:
        url = prepared(primary)
        with Standby(primary) as standby:
            primary.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (standby)'")
            primary.query("postgres", "ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
            primary.query("postgres", "SELECT pg_reload_conf()")
            wait_until(lambda: is_followed(primary), "the standby is waited for")
            parts = urlsplit(url)
            both = f"{HOST}:{primary.port},{HOST}:{standby.port}"
            place = f"postgresql://{parts.username}:{parts.password}@{both}{parts.path}"
            settings = {
                "DATABASE_URL": f"{place}?{PREFERRING}",
                "DATABASE_DIRECT_URL": f"{place}?{WRITABLE}",
                "DB_IDLE_CONNECTIONS": "20",
            }
            with (
                serving(folder / "one", PATIENT, **settings) as one,
                serving(folder / "two", PATIENT, **settings) as two,
            ):
                yield Pair(primary, standby, one, two)


def is_followed(primary: Postgres) -> bool:
    found = primary.query("postgres", "SELECT sync_state FROM pg_stat_replication")
    return [row["sync_state"] for row in found] == ["quorum"]


def test_what_was_acknowledged_is_read_from_the_standby_at_once(pair: Pair) -> None:
    writer, reader = pair.one.client(), pair.two.client()
    for _ in range(100):
        id = writer.recorded(named("Followed Ltd", id=unique("followed")))["id"]
        assert reader.get(f"/v1/assessments/{id}").status == 200
    # Of each pod one connection writes; those that read lead to the standby.
    assert pair.reading(pair.primary) == 2
    assert pair.reading(pair.standby) >= 2


def test_what_a_person_decides_is_read_from_the_standby_by_the_next_who_asks(pair: Pair) -> None:
    writer, reader = pair.one.client(), pair.two.client()
    for _ in range(20):
        id = writer.recorded(named("Decided Ltd", id=unique("decided")))["id"]
        made = writer.post(f"/v1/assessments/{id}/overrides", {"decision": "decline", "reason": "seen by a person"})
        assert made.status in (200, 201), made
        assert reader.get(f"/v1/assessments/{id}").json["effective"]["decision"] == "decline"


def test_the_tables_are_migrated_on_the_primary_whichever_is_named_first(pair: Pair) -> None:
    direct = pair.one.settings["DATABASE_DIRECT_URL"]
    first, second = f"{HOST}:{pair.primary.port}", f"{HOST}:{pair.standby.port}"
    for url in (direct, direct.replace(f"{first},{second}", f"{second},{first}")):
        settings = environment({**pair.one.settings, "DATABASE_DIRECT_URL": url})
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "migrate"], env=settings, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_where_the_standby_is_gone_the_primary_is_read(pair: Pair) -> None:
    client: Client = pair.two.client()
    ids = [client.recorded(named("Alone Ltd", id=unique("alone")))["id"] for _ in range(5)]
    # Nobody waits any more for what is gone: with one standby alone, all writes would.
    pair.primary.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.primary.query("postgres", "SELECT pg_reload_conf()")
    pair.standby.kill()
    other = pair.one.client()
    wait_until(lambda: {other.get(f"/v1/assessments/{id}").status for id in ids} == {200}, "reads go on")
    assert pair.reading(pair.primary) > 2
    assert client.recorded(named("Later Ltd", id=unique("later")))["id"]
