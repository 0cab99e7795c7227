"""What settings are refused for: every fault at once, with its place and remedy, and no password repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuration import POSTGRES, value_of, write

from app.settings import Fault, SettingsError, load
from app.settings.kinds import SECRET_CHARS, show_duration
from app.settings.tree import KEYS
from app.settings.urls import redis_hosts, redis_url_at

# For every setting a text that it does not take.
WRONG = {
    "server.host": "not a host",
    "server.port": "0",
    "server.body_limit": "1 elephant",
    "database.url": "mysql://kyb:secret@db/kyb",
    "database.direct_url": "sqlite:///records.db",
    "audit.anchor_file": "a\nb",
    "database.data_dir": "a\x07b",
    "redis.url": "http://cache",
    "model.id": "kyb",
    "model.path": "a\nb",
    "watchlists.folder": "a\nb",
    "monitoring.enabled": "perhaps",
    "logging.level": "loud",
    **{name: "-1" for name in KEYS if name.split(".")[0] in ("concurrency", "scaling")},
}


def faults_of(environ: dict[str, str], config_path: str | None = None, **overrides: object) -> tuple[Fault, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, config_path, {name.replace("__", "."): value for name, value in overrides.items()})
    return caught.value.faults


def only_fault(environ: dict[str, str], config_path: str | None = None) -> str:
    faults = faults_of(environ, config_path)
    assert len(faults) == 1, faults
    return str(faults[0])


class TestFaults:
    def test_everything_wrong_is_reported_at_once(self, tmp_path: Path) -> None:
        path = write(
            tmp_path,
            "server:\n"
            "  prot: 80\n"
            "  port: eighty\n"
            "  host: 0.0.0.0\n"
            "  workers: 1\n"
            "  workers: 2\n"
            "databse: {}\n"
            "redis: 7\n"
            "concurrency: {goroutine_limit: 5, task_limit: 6}\n"
            "cache: {ttl: .inf}\n"
            "scaling: {min_replicas: 9, max_replicas: 3}\n"
            "logging: {level: [info]}\n"
            "port: 80\n"
            "auth: {enabled: no, key_hash_secret: hunter2}\n"
            "limits: {default_tier: gold}\n",
        )
        faults = faults_of({"MAX_CONCURRENT_REQUESTS": "1e400", "DB_IDLE_CONNECTIONS": "101"}, path, server__porr=1)
        start = f"file {path}"
        assert sorted(str(fault).removeprefix(start) for fault in faults) == sorted(
            [
                ":2: server.prot: unknown key; did you mean server.port?",
                ':3: server.port: "eighty" is not a whole number; give a whole number from 1 to 65535',
                ":6: server.workers: given twice, first on line 5; remove one of the two",
                ":7: databse: unknown section; did you mean database?",
                ":8: redis: must be a mapping; give keys and values, of redis.url, redis.cluster, "
                "redis.pool_size, redis.min_idle_conns, redis.max_conn_age, redis.timeout, redis.acquire_timeout",
                ":9: concurrency.task_limit: given twice, first on line 9; remove one of the two",
                ':10: cache.ttl: ".inf" is not a duration; give a duration from 1s to 720h such as 250ms, 30s or '
                "1h30m, or a number of seconds",
                ":11: scaling.min_replicas: 9 does not go with scaling.max_replicas = 3 "
                f"({start}:11); give at most 3, or change scaling.max_replicas",
                ":12: logging.level: must be a single value; give one of debug, info, warning, error, critical",
                ":13: port: unknown section; did you mean server.port?",
                ":14: auth.enabled: without authentication the service binds to loopback only, not to 0.0.0.0; "
                "give true, or server.host 127.0.0.1",
                ":14: auth.key_hash_secret: it must have 32 printable ASCII characters or more; "
                "give 32 characters or more, such as the output of openssl rand -hex 32",
                ":15: limits.default_tier: there is no tier gold in limits.tiers (default); "
                "give one of standard, high, unlimited",
                'environment MAX_CONCURRENT_REQUESTS: "1e400" is not a whole number; '
                "give a whole number from 1 to 1000000",
                "environment DB_IDLE_CONNECTIONS: database.min_connections: 101 does not go with "
                "database.max_connections = 100 (default); give at most 100, or change database.max_connections",
                "option server.porr: there is no such setting; did you mean server.port?",
            ]
        )

    def test_the_error_reads_as_one_line_for_each_fault(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load({"PORT": "x", "WORKERS": "y"})
        assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]
        assert len(caught.value.faults) == 2

    @pytest.mark.parametrize("name", KEYS)
    def test_a_malformed_value_is_a_fault_wherever_it_stands(self, name: str, tmp_path: Path) -> None:
        wrong = WRONG.get(name, "nonsense!")
        (fault,) = faults_of({}, **{name.replace(".", "__"): wrong})
        assert fault.remedy == f"give {KEYS[name].kind.right}"
        section, key = name.split(".")
        (fault,) = faults_of({}, write(tmp_path, f"{section}:\n  {key}: {{}}\n"))
        assert fault.where.endswith(f":2: {name}")
        variable = KEYS[name].env
        if variable:
            (fault,) = faults_of({variable: wrong})
            assert fault.where == f"environment {variable}"

    @pytest.mark.parametrize("name", [name for name, key in KEYS.items() if not key.optional])
    def test_nothing_is_not_a_value(self, name: str, tmp_path: Path) -> None:
        section, key = name.split(".")
        assert "there is no value" in only_fault({}, write(tmp_path, f"{section}:\n  {key}:\n"))

    def test_a_value_that_is_overruled_is_checked_too(self, tmp_path: Path) -> None:
        path = write(tmp_path, "server: {port: x}")
        assert len(faults_of({"PORT": "y"}, path, server__port="8080")) == 2

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"server: {port: 1", "not readable as YAML"),
            (b"a: b: c", ":1: not readable as YAML"),
            (b"\xff\xfe\x00", "is not UTF-8"),
            (b"server: {port: \x00}", "not readable as YAML"),
            (b"- 1\n- 2\n", "must be a mapping"),
            (b"just text", "must be a mapping"),
            (b"a: 1\n---\nb: 2\n", "not readable as YAML"),
            (b"[" * 100_000, "the nesting is too deep"),
            (b"#" * 1_100_000, "larger than"),
            (b"? [1, 2]\n: 3\n", "a key must be a name"),
            (b"server: &s {port: *s}", "must be a single value"),
            (b"server: {<<: {port: 1}}", "unknown key"),
            (b"server: {port: !!python/object/apply:os.getcwd []}", "must be a single value"),
        ],
    )
    def test_a_file_that_is_no_configuration(self, content: bytes, said: str, tmp_path: Path) -> None:
        assert said in only_fault({}, write(tmp_path, content))

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        missing = str(tmp_path / "missing.yaml")
        assert only_fault({}, missing).startswith(f'option --config: "{missing}" cannot be read: No such file')
        assert only_fault({"CONFIG_FILE": str(tmp_path)}).startswith("environment CONFIG_FILE: ")
        assert "it is empty" in only_fault({"CONFIG_FILE": ""})
        assert "cannot be read" in only_fault({}, "a\0b")

    @pytest.mark.parametrize("text", ["010", "1_000", "0x10", "1.0", "1e3", "+5", "nan", "inf", "٣", "9" * 5000, "--5"])
    def test_a_whole_number_is_written_in_plain_digits(self, text: str) -> None:
        assert "is not a whole number" in only_fault({"PORT": text})

    @pytest.mark.parametrize("text", ["nan", "inf", "-1s", "1e3", "1x", "s", "1h 30m", "1:30", "0.0001s", "1" * 40])
    def test_a_duration_has_a_number_and_a_unit(self, text: str) -> None:
        assert "CACHE_TTL" in only_fault({"CACHE_TTL": text})

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "localhost", "LOCALHOST", "::1"])
    def test_loopback_may_be_bound_without_authentication(self, host: str) -> None:
        bound = "127.0.0.1" if host.lower() == "localhost" else host
        for enabled in ("true", "false"):
            assert load({"HOST": host, "AUTH_ENABLED": enabled}).settings.server.host == bound

    @pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "127.1", "[::1]", "127.0.0.1:80", "*"])
    def test_no_other_name_is_bound(self, host: str) -> None:
        assert only_fault({"HOST": host}) == (
            f'environment HOST: "{host}" is not an IP address; '
            "give an IP address without brackets such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"
        )

    def test_two_secrets_are_not_one(self) -> None:
        fault = only_fault({"KEY_HASH_SECRET": "hunter2" * 5, "AUDIT_SIGNING_KEY": "hunter2" * 5})
        assert fault.startswith("environment AUDIT_SIGNING_KEY: audit.signing_key: it is the same as auth.key_hash")
        assert "hunter2" not in fault

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4"])
    def test_what_lies_beyond_loopback_is_bound_only_with_authentication(self, host: str) -> None:
        assert load({"HOST": host}).settings.server.host == host
        fault = only_fault({"HOST": host, "AUTH_ENABLED": "false"})
        assert fault == (
            f"environment AUTH_ENABLED: auth.enabled: without authentication the service binds to loopback only, "
            f"not to {host}; give true, or server.host 127.0.0.1"
        )

    @pytest.mark.parametrize("text", ["hunter2", "hunter2" + "x" * 24, "hunter2" + "ü" * 40, "hunter2\t" + "x" * 40])
    @pytest.mark.parametrize("name", ["auth.key_hash_secret", "audit.signing_key"])
    def test_a_secret_has_32_characters_and_no_fault_repeats_it(self, name: str, text: str, tmp_path: Path) -> None:
        section, key = name.split(".")
        path = write(tmp_path, f'{section}:\n  {key}: "{text}"\n')
        for fault in (only_fault({str(KEYS[name].env): text}), only_fault({}, path)):
            assert f"{SECRET_CHARS} printable ASCII characters or more" in fault
            assert "openssl rand" in fault
            assert "hunter2" not in fault
        assert value_of(load({str(KEYS[name].env): "x" * SECRET_CHARS}), name) == "x" * SECRET_CHARS

    @pytest.mark.parametrize(
        "text",
        [
            "auth: {key_hash_secret:hunter2}",
            "auth: {key_hash_secret=hunter2}",
            "auth: {key_hash_secret hunter2}",
            "auth:\n  key_hash_secret:hunter2\n",
            "auth:\n  key_hash_secret: hunter2: x\n",
            "auth:\n  key_hash_secret: [hunter2]\n",
            "auth:\n  key_hash_secret: {hunter2: x}\n",
            "auth:\n  key_hash_secret: *hunter2\n",
            "auth:\n  key_hash_secret: !hunter2!x x\n",
            "auth:\n  key_hash_secret: 'hunter2\n",
            'auth:\n  key_hash_secret: "hunter2\\!"\n',
            "auth:\n  key_hash_secret: |\n    hunter2\n",
            "auth:\n  key_hash_secret: hunter2\n  key_hash_secret: hunter2\n",
            "key_hash_secret: hunter2\n",
            "key_hash_secret:hunter2\n",
            "redis: {url:redis://:hunter2@cache}",
        ],
    )
    def test_no_fault_of_a_file_repeats_a_secret_that_is_written_wrongly(self, text: str, tmp_path: Path) -> None:
        faults = faults_of({}, write(tmp_path, text))
        assert faults
        assert "hunter2" not in str(list(map(str, faults)))

    def test_a_key_that_swallowed_its_value_is_named_by_its_beginning(self, tmp_path: Path) -> None:
        fault = only_fault({}, path := write(tmp_path, "auth: {key_hash_secret:hunter2}"))
        assert fault == f"file {path}:1: auth.key_hash_secret...: unknown key; did you mean auth.key_hash_secret?"
        assert "server.\x1b" not in only_fault({}, write(tmp_path, 'server: {"\\e[2J": 1}'))

    def test_the_default_tier_is_one_of_the_tiers(self) -> None:
        assert load({"RATE_DEFAULT_TIER": "own", "RATE_TIERS": "own unlimited"}).settings.limits.default_tier == "own"
        assert only_fault({"RATE_DEFAULT_TIER": "gold"}) == (
            "environment RATE_DEFAULT_TIER: limits.default_tier: there is no tier gold in limits.tiers (default); "
            "give one of standard, high, unlimited"
        )
        assert only_fault({"RATE_TIERS": "gold 5/s, own unlimited"}) == (
            "default: limits.default_tier: there is no tier standard in limits.tiers (environment RATE_TIERS); "
            "give one of gold, own"
        )

    @pytest.mark.parametrize(
        ("variable", "text", "said"),
        [
            ("TRUSTED_PROXIES", "10.0.0.5/8", '"10.0.0.5/8" is no network or address: it has bits set behind its'),
            ("TRUSTED_PROXIES", "10.0.0.0/33", '"10.0.0.0/33" is no network or address'),
            ("TRUSTED_PROXIES", "10.0.0.0/8,", '"" is no network or address'),
            ("TRUSTED_PROXIES", "10.0.0.0/8 192.0.2.7", "is no network or address"),
            ("TRUSTED_PROXIES", "proxy.internal", '"proxy.internal" is no network or address'),
            ("TRUSTED_PROXIES", "fe80::1%eth0", '"fe80::1%eth0" has a zone'),
            ("CORS_ORIGINS", "*", '"*" is no origin'),
            ("CORS_ORIGINS", "null", '"null" is no origin'),
            ("CORS_ORIGINS", "app.example.com", '"app.example.com" is no origin'),
            ("CORS_ORIGINS", "https://app.example.com/", '"https://app.example.com/" is no origin'),
            ("CORS_ORIGINS", "https://*.example.com", "is no origin"),
            ("CORS_ORIGINS", "https://a.example, ", '"" is no origin'),
            ("CORS_ORIGINS", "https://a.example:0", "is no origin"),
            ("CORS_ORIGINS", "https://a.example:65536", "is no origin"),
            ("CORS_ORIGINS", "https://a.example\r\nx: y", "is no origin"),
            ("CORS_ORIGINS", "ftp://a.example", "is no origin"),
            ("KEY_ENVIRONMENT", "Live", '"Live" is no name of an environment'),
            ("KEY_ENVIRONMENT", "a_b", "is no name of an environment"),
            ("KEY_ENVIRONMENT", "x" * 17, "is no name of an environment"),
            ("RATE_DEFAULT_TIER", "two words", '"two words" is no name'),
            ("RATE_DEFAULT_TIER", "9lives", '"9lives" is no name'),
            ("RATE_DEFAULT_TIER", "x" * 33, "is no name"),
            ("RATE_TIERS", "standard", '"standard" is not a tier\'s name and its rate'),
            ("RATE_TIERS", "standard 5/s,", '"" is not a tier\'s name and its rate'),
            ("RATE_TIERS", "standard 5/s, standard 6/s", "the tier standard stands there twice"),
            ("RATE_TIERS", "standard 5/s, own 0/s", '"0/s" is out of range'),
            ("RATE_TENANT", "5", '"5" is not a rate'),
            ("RATE_TENANT", "-5/s", '"-5/s" is not a rate'),
            ("RATE_TENANT", "5/day", '"5/day" is not a rate'),
            ("RATE_TENANT", "5/s burst", '"5/s burst" is not a rate'),
            ("RATE_TENANT", "5/s burst 1.5", "is not a rate"),
            ("RATE_TENANT", "1e3/s", "is not a rate"),
            ("RATE_TENANT", "0.0001/s", "is not a rate"),
            ("RATE_TENANT", "0.000/s", "is out of range"),
            ("RATE_TENANT", "5/s burst 0", "is out of range"),
            ("RATE_TENANT", "1000000.001/s", "is out of range"),
            ("RATE_TENANT", "5/s burst 1000001", "is out of range"),
        ],
    )
    def test_what_says_who_may_call_and_how_much_is_checked(self, variable: str, text: str, said: str) -> None:
        (fault,) = faults_of({variable: text})
        assert fault.where == f"environment {variable}"
        assert said in fault.problem

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://hunter2@db",
            "postgresql+asyncpg://kyb:hunter2@db/kyb",
            "POSTGRES://kyb:hunter2@db/kyb",
            "kyb:hunter2@db/kyb?next=x://y",
            "sqlite://hunter2",
            "sqlite:///",
            "sqlite:///:memory:",
            "sqlite:///a.db?mode=hunter2",
            "hunter2",
        ],
    )
    def test_a_database_is_named_by_a_url_and_no_password_is_repeated(self, url: str) -> None:
        message = only_fault({"DATABASE_URL": url})
        assert "sqlite:////absolute/file.db" in message
        assert "postgresql://user:password@host:5432/name" in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://kyb:hunter2@db:5432/kyb",
            "postgres://db/kyb",
            "postgresql://kyb@host1:5432,host2:5432/kyb?target_session_attrs=read-write&sslmode=verify-full",
            "postgresql://kyb:p%40%2F%23@[::1]:5432/kyb",
            "postgresql://%2Frun%2Fpostgresql/kyb",
            "postgresql:///kyb?host=/run/postgresql",
            "postgresql:///kyb?host=host1:5432,host2&options=-c%20search_path=kyb",
        ],
    )
    def test_postgres_is_named_by_url(self, url: str) -> None:
        database = load({"DATABASE_URL": url, "DATABASE_DIRECT_URL": url}).settings.database
        assert (database.url, database.direct_url, database.is_postgres) == (url, url, True)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("postgresql://", "names no host"),
            ("postgresql:///hunter2", "names no host"),
            ("postgresql://kyb:hunter2@/kyb?host=", "names no host"),
            ("postgresql://kyb:hunter2@db", "names no database"),
            ("postgresql://kyb:hunter2@db/", "names no database"),
            ("postgresql://kyb:hunter2@db/?dbname=kyb", "names no database"),
            ("postgresql://kyb:hunter2@db:0/kyb", "host:port"),
            ("postgresql://kyb:hunter2@db:65536/kyb", "host:port"),
            ("postgresql://kyb:hunter2@db:port/kyb", "host:port"),
            ("postgresql://kyb:hunter2@db,/kyb", "host:port"),
            ("postgresql://kyb:hunter2@db:1,:2/kyb", "host:port"),
            ("postgresql://kyb:hunter2@::1/kyb", "host:port"),
            ("postgresql://kyb:hunter2@d b/kyb", "host:port"),
            ("postgresql:///kyb?host=db:x&password=hunter2", "host:port"),
            ("postgresql://kyb:hunter2@[::1/kyb", "not a URL"),
            ("postgresql:kyb:hunter2@db/kyb", "not a URL"),
            ("postgresql://kyb:hunter2@db/kyb#top", "percent-encoded"),
            ("postgresql://kyb:hunter2@db/k\x07yb", "percent-encoded"),
            ("postgresql://kyb:hun@hunter2@db/kyb", "percent-encoded"),
            ("postgresql://kyb:1/hunter2@db/kyb", "percent-encoded"),
            ("postgresql://kyb:1/hunter2@db", "percent-encoded"),
            ("postgresql://kyb:hun#hunter2@db/kyb", "percent-encoded"),
            ("postgresql://kyb:hun?hunter2@db/kyb", "name=value"),
            ("postgresql://kyb:hunter2@db/kyb?sslmode", "name=value"),
            ("postgresql://kyb@db/kyb?%70assword=hunter2", "not plain"),
        ],
    )
    def test_other_urls_are_not_of_postgres_and_no_password_is_repeated(self, url: str, said: str) -> None:
        for variable in ("DATABASE_URL", "DATABASE_DIRECT_URL"):
            with pytest.raises(SettingsError) as caught:
                load({variable: url}, overrides={} if variable == "DATABASE_URL" else POSTGRES)
            (fault,) = caught.value.faults
            assert said in fault.problem
            assert "hunter2" not in str(fault)

    def test_migrations_go_to_a_server_only(self) -> None:
        fault = only_fault({"DATABASE_URL": "postgresql://db/kyb", "DATABASE_DIRECT_URL": "sqlite:///records.db"})
        assert 'a database of scheme "sqlite" is not supported here' in fault

    def test_what_is_of_postgres_is_refused_beside_the_embedded_database(self) -> None:
        direct = {"DATABASE_DIRECT_URL": "postgresql://kyb:hunter2@db/kyb"}
        assert only_fault(direct) == (
            "environment DATABASE_DIRECT_URL: database.direct_url: it is for PostgreSQL, and database.url (default) "
            "names the embedded database; give database.url of PostgreSQL, or leave database.direct_url out"
        )
        file = {"DATABASE_URL": "sqlite:///a.db"}
        assert "database.url (environment DATABASE_URL) names" in only_fault({**file, "DB_POOLER": "pgbouncer"})
        assert len(faults_of({**file, **direct, "DB_POOLER": "pgbouncer"})) == 2
        assert load({**file, "DB_POOLER": "none", "DATABASE_DIRECT_URL": ""}).settings.database.pooler == "none"

    def test_the_embedded_database_is_a_file_and_a_server_is_not(self) -> None:
        database = load({"DATABASE_URL": "sqlite:////srv/a.db"}).settings.database
        assert (database.is_postgres, database.sqlite_file) == (False, Path("/srv/a.db"))
        assert load({}).settings.database.is_postgres is False
        with pytest.raises(ValueError, match="PostgreSQL"):
            _ = load({"DATABASE_URL": "postgresql://kyb:hunter2@db/kyb"}).settings.database.sqlite_file

    def test_a_budget_that_is_too_small_for_the_fleet_is_no_fault_of_the_settings(self) -> None:
        assert load({"DB_MAX_CONNECTIONS": "100", "MAX_REPLICAS": "50", "DATABASE_URL": "postgresql://db/kyb"})

    @pytest.mark.parametrize(
        ("name", "outside"),
        [
            ("database.partitions_ahead", ("0", "25")),
            ("database.timeout", ("0s", "61s")),
            ("cache.ttl_jitter_percent", ("51",)),
            ("cache.local_entries", ("0", "99")),
            ("cache.local_bytes", ("0", "1023KiB")),
            ("breaker.failure_percent", ("0", "101")),
            ("breaker.slow_percent", ("0", "101")),
            ("breaker.min_calls", ("0",)),
            ("breaker.open_for", ("0s", "10001ms")),
            ("breaker.probes", ("0",)),
            ("retry.budget_percent", ("11",)),
            ("retry.attempts", ("0", "6")),
            ("idempotency.ttl", ("59s", "721h")),
            ("concurrency.max_queue", ("0", "1000001")),
            ("concurrency.queue_wait", ("0s", "61s")),
            ("audit.checkpoint_every", ("99ms", "3601s")),
        ],
    )
    def test_what_is_outside_the_bounds_is_refused(self, name: str, outside: tuple[str, ...]) -> None:
        for text in outside:
            (fault,) = faults_of({}, **{name.replace(".", "__"): text})
            assert fault.problem == f'"{text}" is out of range'

    @pytest.mark.parametrize(
        "url", ["redis://cache", "rediss://:pw@cache:6380/1", "unix:///run/redis.sock", "redis://[::1]"]
    )
    def test_redis_is_named_by_url(self, url: str) -> None:
        assert load({"REDIS_URL": url}).settings.redis.url == url

    @pytest.mark.parametrize(
        "url", ["redis://a", "redis://me:p,w@a:7000,b:7001,c", "rediss://[::1]:7000", "redis://a:1,b:2/0", "redis://a/"]
    )
    def test_a_cluster_is_named_by_some_of_its_nodes(self, url: str) -> None:
        assert load({"REDIS_URL": url, "REDIS_CLUSTER": "true"}).settings.redis.url == url

    def test_the_nodes_of_a_cluster_are_read_one_by_one(self) -> None:
        url = "rediss://me:p,w@a:7000,b,c:7002/0?ssl_cert_reqs=none"
        assert redis_hosts(url) == [("a", 7000), ("b", 6379), ("c", 7002)]
        assert redis_url_at(url, ("::1", 7003)) == "rediss://me:p,w@[::1]:7003/0?ssl_cert_reqs=none"
        assert redis_hosts("unix:///run/redis.sock") == []

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            ({"REDIS_URL": "redis://a,b"}, "redis.url: it names several servers, and redis.cluster (default)"),
            ({"REDIS_CLUSTER": "true"}, "redis.cluster: redis.url names no node of it"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "unix:///run/redis.sock"}, "not reached by a socket file"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://a:7000,b/2"}, "a cluster has the database 0 alone"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://:hunter2@a,:7001"}, "names no host"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://:hunter2@a,,b"}, "names no host"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://:hunter2@a,b:0"}, "not a URL of Redis"),
            ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://:hunter2@a:1,b:x"}, "not a URL"),
        ],
    )
    def test_what_is_no_cluster_is_not_taken_for_one(self, environ: dict[str, str], said: str) -> None:
        message = only_fault(environ)
        assert said in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "cache:6379",
            "http://u:hunter2@cache",
            "redis://",
            "redis://h:99999",
            "redis://h/db",
            "unix://",
            "redis://[hunter2",
        ],
    )
    def test_other_urls_are_not_of_redis(self, url: str) -> None:
        message = only_fault({"REDIS_URL": url})
        assert "rediss://host:port/0" in message
        assert "hunter2" not in message

    def test_one_model_is_selected_once(self) -> None:
        assert load({"MODEL_PATH": "mine.yaml"}).settings.model.path == Path("mine.yaml")
        assert "both model.id (environment MODEL)" in only_fault({"MODEL": "kyb@1.1.0", "MODEL_PATH": "mine.yaml"})

    def test_waits_stay_below_the_deadline_and_the_deadline_below_the_grace(self, tmp_path: Path) -> None:
        (fault,) = faults_of({}, write(tmp_path, "server: {request_deadline: 15s}"))
        assert fault.problem == "15s does not go with server.shutdown_grace = 15s (default)"
        (fault,) = faults_of({}, write(tmp_path, "server: {request_deadline: 799ms}"))
        assert fault.remedy == "give at least 800ms, or change database.timeout"
        faults = faults_of({}, write(tmp_path, "database: {timeout: 400ms}"))
        assert [fault.remedy for fault in faults] == [
            "give at least 700ms, or change database.command_timeout",
            "give at least 700ms, or change database.connect_timeout",
            "give at least 700ms, or change database.busy_timeout",
            "give at least 500ms, or change idempotency.wait",
        ]

    @pytest.mark.parametrize(
        ("short", "long"),
        [
            ("database.timeout", "server.request_deadline"),
            ("database.command_timeout", "database.timeout"),
            ("database.statement_timeout", "database.command_timeout"),
            ("database.lock_timeout", "database.statement_timeout"),
            ("database.acquire_timeout", "database.timeout"),
            ("database.connect_timeout", "database.timeout"),
            ("database.busy_timeout", "database.timeout"),
            ("idempotency.wait", "database.timeout"),
        ],
    )
    def test_an_inner_wait_is_at_most_the_outer(self, short: str, long: str) -> None:
        outer_ms = round(value_of(load({}), long) * 1000)
        within = {"database.lock_timeout": "1ms", **{name: f"{outer_ms}ms" for name in (short, long)}}
        assert value_of(load({}, overrides=within), short) == outer_ms / 1000
        faults = faults_of({}, **{short.replace(".", "__"): f"{outer_ms + 1}ms"})
        assert f"give at most {show_duration(outer_ms / 1000)}, or change {long}" in [one.remedy for one in faults]

    def test_a_body_may_take_longer_than_the_deadline(self, tmp_path: Path) -> None:
        server = load({}, write(tmp_path, "server: {body_timeout: 1m, request_deadline: 1s}")).settings.server
        assert (server.body_timeout, server.request_deadline) == (60.0, 1.0)

    def test_the_wait_in_the_queue_is_over_before_the_deadline_begins(self, tmp_path: Path) -> None:
        path = write(tmp_path, "server: {request_deadline: 1s}\nconcurrency: {queue_wait: 5s}")
        assert load({}, path).settings.concurrency.queue_wait == 5.0
