"""`kyb doctor redis` against a Valkey with something wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from databases import Valkey, command
from doctored import about, examined, run, within
from proxy import HOST
from redis import Redis
from service import free_port

from app.doctor import redis as examination
from app.doctor.findings import Finding
from app.settings import load

NAME = "Maria Musterfrau"
PASSWORD = "a-password-of-redis"
FAST_S = 15.0


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """A Valkey whose settings these tests change."""
    with Valkey() as made:
        yield made


@pytest.fixture
def redis(server: Valkey) -> Iterator[Valkey]:
    yield server
    for name, value in (
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("maxclients", "10000"),
        ("requirepass", ""),
        ("slowlog-log-slower-than", "10000"),
    ):
        server.config(name, value)
    server.command("SLOWLOG", "RESET")
    server.command("REPLICAOF", "NO", "ONE")
    server.flush()


def found(url: str, **more: str) -> list[Finding]:
    return asyncio.run(examination.examined(load({"REDIS_URL": url, **more}).settings))


def one(findings: list[Finding], name: str) -> Finding:
    (only,) = [finding for finding in findings if finding.about == name]
    return only


def test_a_redis_that_is_well_has_nothing_wrong(redis: Valkey) -> None:
    redis.config("maxmemory", "100mb")
    redis.config("maxmemory-policy", "allkeys-lru")
    redis.command("SET", "kyb:one", "1")
    findings = examined({"REDIS_URL": redis.url()}, "redis")
    for name in ("connection", "latency", "clients", "memory", "evictions", "hit rate", "writes", "slow log"):
        assert about(findings, name)["verdict"] == "ok", name
    assert about(findings, "keys")["figures"]["keys"] == 1
    assert [finding for finding in findings if finding["verdict"] == "wrong"] == []


def test_without_a_redis_there_is_nothing_to_look_at_unless_there_are_replicas() -> None:
    (single,) = examined({}, "redis")
    (many,) = examined({"MAX_REPLICAS": "3"}, "redis")
    assert (single["verdict"], many["verdict"]) == ("ok", "look")


def test_memory_without_a_limit_and_a_policy_that_refuses_are_to_be_looked_at(redis: Valkey) -> None:
    assert one(found(redis.url()), "memory").verdict == "look"
    redis.config("maxmemory", "100mb")
    shown = one(found(redis.url()), "memory")
    assert (shown.verdict, shown.figures["policy"]) == ("look", "noeviction")
    assert "allkeys-lru" in shown.action


def test_a_full_redis_that_refuses_writes_is_wrong(redis: Valkey) -> None:
    redis.config("maxmemory", "1")
    findings = examined({"REDIS_URL": redis.url()}, "redis")
    memory, writes = about(findings, "memory"), about(findings, "writes")
    assert (memory["verdict"], writes["verdict"]) == ("wrong", "wrong")
    assert "Raise maxmemory" in writes["action"]


def test_keys_that_went_before_their_time_are_counted(redis: Valkey) -> None:
    redis.command("EVAL", "for i = 1, 3000 do redis.call('SET', 'k' .. i, string.rep('x', 1000)) end", 0)
    redis.config("maxmemory-policy", "allkeys-lru")
    redis.config("maxmemory", "2mb")
    redis.command("SET", "kyb:last", "1")
    shown = one(found(redis.url()), "evictions")
    assert shown.verdict == "look"
    assert shown.figures["evicted"] > 1000


def test_clients_against_what_the_server_and_the_fleet_may_have(redis: Valkey) -> None:
    redis.config("maxclients", "60")
    assert one(found(redis.url()), "clients").verdict == "ok"
    fleet = one(found(redis.url(), MAX_REPLICAS="2"), "clients")
    assert (fleet.verdict, fleet.figures["fleet"]) == ("wrong", 100)


def test_no_connection_left_is_told_as_such(redis: Valkey) -> None:
    with Redis.from_url(redis.url(), socket_timeout=10) as held:
        held.ping()
        held.config_set("maxclients", 1)
        (shown,) = [finding for finding in found(redis.url()) if finding.verdict != "ok"]
        held.config_set("maxclients", 10000)
    # It says why and ends the connection, before it is asked anything: what it said is mostly lost.
    assert shown.verdict == "wrong"
    assert "maxclients" in shown.action


def test_the_slow_log_tells_commands_and_none_of_their_arguments(redis: Valkey) -> None:
    redis.config("slowlog-log-slower-than", "0")
    redis.command("SET", f"kyb:{NAME}", NAME)
    redis.config("slowlog-log-slower-than", "1000000")
    findings = found(redis.url())
    commands = {finding.figures["command"] for finding in findings if finding.about == "slow command"}
    assert commands >= {"SET"}
    assert NAME not in str(findings)


def test_a_replica_takes_no_writes(redis: Valkey) -> None:
    redis.command("REPLICAOF", HOST, str(free_port()))
    findings = found(redis.url())
    assert one(findings, "server").verdict == "wrong"
    assert "link to the primary is down" in one(findings, "server").seen
    assert (one(findings, "writes").verdict, one(findings, "writes").action) == (
        "wrong",
        "Give the address of the primary in REDIS_URL.",
    )


def test_a_password_is_asked_for_and_never_shown(redis: Valkey) -> None:
    redis.config("requirepass", PASSWORD)
    url = f"redis://:{PASSWORD}@{HOST}:{redis.port}/0"
    try:
        let_in = run({"REDIS_URL": url}, "redis")
        refused = examined({"REDIS_URL": redis.url()}, "redis")
        mistaken = examined({"REDIS_URL": url.replace(PASSWORD, f"{PASSWORD}-not")}, "redis")
    finally:
        command(url, "CONFIG", "SET", "requirepass", "")
    assert let_in.returncode == 0
    assert PASSWORD not in let_in.stdout
    for findings in (refused, mistaken):
        assert "does not let this user in" in findings[-1]["seen"]
        assert PASSWORD not in str(findings)


def test_a_user_who_may_not_ask_is_told_what_to_allow(redis: Valkey) -> None:
    redis.command("ACL", "SETUSER", "narrow", "on", f">{PASSWORD}", "~kyb*", "+@read", "+@write", "+ping", "-info")
    findings = found(f"redis://narrow:{PASSWORD}@{HOST}:{redis.port}/0")
    redis.command("ACL", "DELUSER", "narrow")
    assert "+info" in one(findings, "server").action
    assert one(findings, "writes").verdict == "ok"
    assert one(findings, "slow log").verdict == "look"


def test_a_redis_that_does_not_run_or_answer_is_one_finding(own_valkey: Valkey) -> None:
    settings = {"REDIS_URL": own_valkey.url()}
    own_valkey.pause()
    with within(FAST_S):
        (silent,) = examined(settings, "redis")
    assert "does not answer within 2" in silent["seen"]
    own_valkey.resume()
    own_valkey.kill()
    with within(FAST_S):
        (gone,) = examined(settings, "redis")
    assert "cannot be reached: connection refused" in gone["seen"]


def test_a_host_without_an_address_is_named() -> None:
    (shown,) = examined({"REDIS_URL": f"redis://:{PASSWORD}@nowhere.invalid/0"}, "redis")
    assert "the name nowhere.invalid cannot be looked up" in shown["seen"]
    assert PASSWORD not in str(shown)
