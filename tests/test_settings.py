"""Configuration file, environment and options into one frozen structure, every fault at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import DEFAULTS_FILE, Fault, Loaded, SettingsError, effective, load
from app.settings.kinds import mask_url, parse_duration, parse_size, show_duration, show_size
from app.settings.tree import KEYS

ROOT = Path(__file__).parent.parent

FRAGMENT = """\
concurrency: {max_concurrent_requests: 1000, worker_pool_size: 100, goroutine_limit: 10000}
database: {max_connections: 100, min_connections: 20, connection_max_lifetime: "1h"}
redis: {pool_size: 50, min_idle_conns: 10, max_conn_age: "1h"}
"""

VARIABLES = {
    "MAX_CONCURRENT_REQUESTS": "1000",
    "WORKER_POOL_SIZE": "100",
    "CACHE_TTL": "300",
    "DB_MAX_CONNECTIONS": "100",
    "DB_IDLE_CONNECTIONS": "20",
    "REDIS_POOL_SIZE": "50",
    "ENABLE_PERFORMANCE_MONITORING": "true",
    "PERFORMANCE_MONITORING_INTERVAL": "30s",
    "MIN_REPLICAS": "5",
    "MAX_REPLICAS": "50",
    "TARGET_CPU_PERCENT": "70",
    "TARGET_MEMORY_PERCENT": "80",
}

# For every setting a text other than its default, and the value that the text stands for.
OTHER: dict[str, tuple[str, Any]] = {
    "server.host": ("::1", "::1"),
    "server.port": ("9090", 9090),
    "server.workers": ("3", 3),
    "server.backlog": ("2048", 2048),
    "server.backpressure": ("4000", 4000),
    "server.header_timeout": ("20s", 20.0),
    "server.body_timeout": ("2500ms", 2.5),
    "server.request_deadline": ("12s", 12.0),
    "server.shutdown_grace": ("1m", 60.0),
    "server.body_limit": ("2MiB", 2 * 1024 * 1024),
    "server.batch_body_limit": ("16 MiB", 16 * 1024 * 1024),
    "concurrency.max_concurrent_requests": ("2000", 2000),
    "concurrency.worker_pool_size": ("7", 7),
    "concurrency.goroutine_limit": ("500", 500),
    "database.url": ("sqlite:////srv/kyb/records.db", "sqlite:////srv/kyb/records.db"),
    "database.direct_url": ("postgresql://owner@db/kyb", "postgresql://owner@db/kyb"),
    "database.pooler": ("PgBouncer", "pgbouncer"),
    "database.data_dir": ("/srv/kyb", Path("/srv/kyb")),
    "database.max_connections": ("60", 60),
    "database.min_connections": ("4", 4),
    "database.connection_max_lifetime": ("1h30m", 5400.0),
    "database.timeout": ("1s", 1.0),
    "database.acquire_timeout": ("750ms", 0.75),
    "database.connect_timeout": ("750ms", 0.75),
    "database.command_timeout": ("750ms", 0.75),
    "database.statement_timeout": ("650ms", 0.65),
    "database.lock_timeout": ("550ms", 0.55),
    "database.idle_transaction_timeout": ("1m", 60.0),
    "database.busy_timeout": ("250ms", 0.25),
    "database.partitions_ahead": ("24", 24),
    "redis.url": ("redis://user:secret@cache:6379/2", "redis://user:secret@cache:6379/2"),
    "redis.pool_size": ("80", 80),
    "redis.min_idle_conns": ("0", 0),
    "redis.max_conn_age": ("90m", 5400.0),
    "redis.timeout": ("150ms", 0.15),
    "redis.acquire_timeout": ("1s", 1.0),
    "cache.ttl": ("60", 60.0),
    "cache.negative_ttl": ("1h", 3600.0),
    "cache.ttl_jitter_percent": ("0", 0),
    "cache.local_entries": ("100", 100),
    "cache.local_bytes": ("1MiB", 1 << 20),
    "breaker.failure_percent": ("100", 100),
    "breaker.slow_percent": ("1", 1),
    "breaker.slow_call": ("1s500ms", 1.5),
    "breaker.window": ("1m", 60.0),
    "breaker.min_calls": ("1", 1),
    "breaker.open_for": ("10s", 10.0),
    "breaker.probes": ("1", 1),
    "retry.budget_percent": ("0", 0),
    "retry.attempts": ("5", 5),
    "idempotency.ttl": ("720h", 2_592_000.0),
    "idempotency.wait": ("750ms", 0.75),
    "model.id": ("kyb@2.0.1", "kyb@2.0.1"),
    "model.path": ("models/mine.yaml", Path("models/mine.yaml")),
    "monitoring.enabled": ("off", False),
    "monitoring.interval": ("5s", 5.0),
    "scaling.min_replicas": ("2", 2),
    "scaling.max_replicas": ("9", 9),
    "scaling.target_cpu_percent": ("55", 55),
    "scaling.target_memory_percent": ("65", 65),
    "logging.level": ("WARNING", "warning"),
}

# What some settings need beside them: they are of PostgreSQL alone.
POSTGRES = {"database.url": "postgresql://kyb@pooler:6432/kyb"}
BESIDE = {"database.direct_url": POSTGRES, "database.pooler": POSTGRES}

# For every setting a text that it does not take.
WRONG = {
    "server.host": "not a host",
    "server.port": "0",
    "server.body_limit": "1 elephant",
    "database.url": "mysql://kyb:secret@db/kyb",
    "database.direct_url": "sqlite:///records.db",
    "database.data_dir": "a\x07b",
    "redis.url": "http://cache",
    "model.id": "kyb",
    "model.path": "a\nb",
    "monitoring.enabled": "perhaps",
    "logging.level": "loud",
    **{name: "-1" for name in KEYS if name.split(".")[0] in ("concurrency", "scaling")},
}


def value_of(loaded: Loaded, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(loaded.settings, section), key)


def beside(name: str) -> dict[str, str]:
    return BESIDE.get(name, {})


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "service.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def faults_of(environ: dict[str, str], config_path: str | None = None, **overrides: object) -> tuple[Fault, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, config_path, {name.replace("__", "."): value for name, value in overrides.items()})
    return caught.value.faults


def only_fault(environ: dict[str, str], config_path: str | None = None) -> str:
    faults = faults_of(environ, config_path)
    assert len(faults) == 1, faults
    return str(faults[0])


class TestDefaults:
    def test_every_setting_has_its_packaged_default(self) -> None:
        loaded = load({})
        assert set(loaded.origins) == set(KEYS)
        assert {held.origin for held in loaded.origins.values()} == {"default"}
        assert loaded.config_file is None

    def test_what_nobody_configures(self) -> None:
        settings = load({}).settings
        assert (settings.server.host, settings.server.port, settings.server.backlog) == ("127.0.0.1", 8080, 4096)
        assert settings.server.body_limit == 1024 * 1024
        assert settings.server.batch_body_limit == 8 * 1024 * 1024
        assert (settings.server.body_timeout, settings.server.request_deadline) == (10.0, 2.0)
        assert settings.database.url is settings.database.direct_url is None
        assert settings.database.pooler == "none"
        assert settings.database.sqlite_file == Path("data/kyb.db")
        assert settings.model.id == "kyb@1.0.0"
        assert settings.scaling.max_replicas is None

    def test_waits_for_the_database_end_from_the_inside_out(self) -> None:
        database = load({}).settings.database
        waits = (database.lock_timeout, database.statement_timeout, database.command_timeout, database.timeout)
        assert waits == (0.25, 0.6, 0.7, 0.8)
        assert (database.acquire_timeout, database.connect_timeout, database.busy_timeout) == (0.25, 0.7, 0.7)
        assert (database.idle_transaction_timeout, database.connection_max_lifetime) == (5.0, 3600.0)

    def test_what_guards_calls_to_others(self) -> None:
        settings = load({}).settings
        assert (settings.redis.timeout, settings.redis.acquire_timeout) == (0.2, 0.1)
        assert (settings.cache.ttl, settings.cache.negative_ttl, settings.cache.ttl_jitter_percent) == (300.0, 1.0, 10)
        assert (settings.cache.local_entries, settings.cache.local_bytes) == (10_000, 32 << 20)
        breaker = settings.breaker
        assert (breaker.failure_percent, breaker.slow_percent, breaker.slow_call) == (50, 80, 0.5)
        assert (breaker.window, breaker.min_calls, breaker.open_for, breaker.probes) == (10.0, 10, 2.0, 3)
        assert (settings.retry.budget_percent, settings.retry.attempts) == (10, 2)
        assert (settings.idempotency.ttl, settings.idempotency.wait) == (86_400.0, 0.5)

    def test_every_variable_is_named_in_the_packaged_file(self) -> None:
        text = DEFAULTS_FILE.read_text()
        assert [key.env for key in KEYS.values() if key.env and key.env not in text] == []

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            load({}).settings.server.port = 1  # type: ignore[misc]


class TestSources:
    def test_the_table_of_this_test_knows_every_setting(self) -> None:
        assert set(OTHER) == set(KEYS)

    @pytest.mark.parametrize("name", KEYS)
    def test_a_key_of_the_file_changes_value_and_origin(self, name: str, tmp_path: Path) -> None:
        text, value = OTHER[name]
        section, key = name.split(".")
        path = write(tmp_path, f"# a comment\n{section}:\n  {key}: {text}\n")
        loaded = load({}, path, beside(name))
        assert value_of(loaded, name) == value != value_of(load({}), name)
        assert loaded.origins[name].value == value
        assert loaded.origins[name].origin == f"file {path}:3"
        assert [other for other, held in loaded.origins.items() if held.origin.startswith("file")] == [name]

    @pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.env])
    def test_a_variable_changes_value_and_origin(self, name: str) -> None:
        text, value = OTHER[name]
        variable = KEYS[name].env
        assert variable is not None
        loaded = load({variable: text}, overrides=beside(name))
        assert value_of(loaded, name) == value
        assert loaded.origins[name].origin == f"environment {variable}"

    @pytest.mark.parametrize("name", KEYS)
    def test_an_option_changes_value_and_origin(self, name: str) -> None:
        text, value = OTHER[name]
        loaded = load({}, overrides={**beside(name), name: text})
        assert value_of(loaded, name) == value
        assert loaded.origins[name].origin == f"option {KEYS[name].option or name}"

    def test_options_may_be_typed_and_may_be_absent(self) -> None:
        overrides = {
            "server.port": 81,
            "monitoring.enabled": False,
            "database.data_dir": Path("x"),
            "server.host": None,
        }
        settings = load({}, overrides=overrides).settings
        assert (settings.server.port, settings.monitoring.enabled) == (81, False)
        assert settings.database.data_dir == Path("x")
        assert settings.server.host == "127.0.0.1"

    def test_option_goes_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        path = write(tmp_path, "server: {port: 1001, workers: 2, backlog: 999}")
        loaded = load({"PORT": "1002", "WORKERS": "4"}, path, {"server.port": 1003})
        server = loaded.settings.server
        assert (server.port, server.workers, server.backlog) == (1003, 4, 999)
        assert loaded.origins["server.port"].origin == "option --port"
        assert loaded.origins["server.workers"].origin == "environment WORKERS"
        assert loaded.origins["server.backlog"].origin == f"file {path}:1"

    def test_the_file_is_chosen_by_option_before_variable(self, tmp_path: Path) -> None:
        path = write(tmp_path, "server: {port: 1001}")
        assert load({"CONFIG_FILE": path}).settings.server.port == 1001
        loaded = load({"CONFIG_FILE": "/nowhere"}, path)
        assert (loaded.settings.server.port, loaded.config_file) == (1001, path)

    def test_the_fragment_loads_unchanged(self, tmp_path: Path) -> None:
        loaded = load({}, write(tmp_path, FRAGMENT))
        settings = loaded.settings
        assert settings.concurrency.goroutine_limit == 10000
        assert settings.database.connection_max_lifetime == settings.redis.max_conn_age == 3600.0
        assert sum(held.origin != "default" for held in loaded.origins.values()) == 9

    def test_the_variables_load_unchanged(self) -> None:
        loaded = load({**VARIABLES, "PATH": "/bin", "KYB_ANYTHING": "x", "MAX_CONNECTIONS": "not ours"})
        assert loaded.settings.cache.ttl == 300.0
        assert loaded.settings.monitoring.interval == 30.0
        assert loaded.settings.scaling.max_replicas == 50
        assert sum(held.origin.startswith("environment ") for held in loaded.origins.values()) == len(VARIABLES)

    def test_the_file_for_ten_thousand_users_holds_the_fragment(self, tmp_path: Path) -> None:
        shipped = load({}, str(ROOT / "configs" / "performance_10k.yaml"))
        fragment = load({}, write(tmp_path, FRAGMENT))
        for name, held in fragment.origins.items():
            if held.origin != "default":
                assert shipped.origins[name].value == held.value
                assert shipped.origins[name].origin != "default"
        assert load(VARIABLES, str(ROOT / "configs" / "performance_10k.yaml"))

    def test_task_limit_is_another_name_of_goroutine_limit(self, tmp_path: Path) -> None:
        loaded = load({}, write(tmp_path, "concurrency: {task_limit: 77}"))
        assert loaded.settings.concurrency.goroutine_limit == 77

    @pytest.mark.parametrize("text", ["", "# nothing\n", "server:\n", "server: {}\n", "\ufeffserver: {port: 8080}\n"])
    def test_a_file_may_say_nothing(self, text: str, tmp_path: Path) -> None:
        assert load({}, write(tmp_path, text)).settings == load({}).settings

    @pytest.mark.parametrize("nothing", ["", "null", "~", '""'])
    def test_what_is_optional_may_be_set_to_nothing(self, nothing: str, tmp_path: Path) -> None:
        path = write(tmp_path, f"database:\n  url: {nothing}\nscaling:\n  max_replicas: {nothing}\n")
        settings = load({}, path).settings
        assert (settings.database.url, settings.scaling.max_replicas) == (None, None)
        nothings = {"DATABASE_URL": "", "DATABASE_DIRECT_URL": "", "REDIS_URL": "", "MODEL_PATH": ""}
        assert load(nothings).settings.redis.url is None

    def test_nothing_depends_on_the_working_directory(self, tmp_path: Path) -> None:
        write(tmp_path, "server: {port: 1}")
        (tmp_path / "configs").mkdir()
        (tmp_path / "defaults.yaml").write_text("server: {port: 1}")
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from app.settings import *; print(effective(load({{}})))"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == str(effective(load({})))


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
            "port: 80\n",
        )
        faults = faults_of({"MAX_CONCURRENT_REQUESTS": "1e400", "DB_IDLE_CONNECTIONS": "101"}, path, server__porr=1)
        start = f"file {path}"
        assert sorted(str(fault).removeprefix(start) for fault in faults) == sorted(
            [
                ":2: server.prot: unknown key; did you mean server.port?",
                ':3: server.port: "eighty" is not a whole number; give a whole number from 1 to 65535',
                ":4: server.host: until there is authentication the service binds to loopback only, not to 0.0.0.0; "
                "give 127.0.0.1, ::1 or localhost",
                ":6: server.workers: given twice, first on line 5; remove one of the two",
                ":7: databse: unknown section; did you mean database?",
                ":8: redis: must be a mapping; give keys and values, of redis.url, redis.pool_size, "
                "redis.min_idle_conns, redis.max_conn_age, redis.timeout, redis.acquire_timeout",
                ":9: concurrency.task_limit: given twice, first on line 9; remove one of the two",
                ':10: cache.ttl: ".inf" is not a duration; give a duration from 1s to 720h such as 250ms, 30s or '
                "1h30m, or a number of seconds",
                ":11: scaling.min_replicas: 9 does not go with scaling.max_replicas = 3 "
                f"({start}:11); give at most 3, or change scaling.max_replicas",
                ":12: logging.level: must be a single value; give one of debug, info, warning, error, critical",
                ":13: port: unknown section; did you mean server.port?",
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
    def test_loopback_may_be_bound(self, host: str) -> None:
        assert load({"HOST": host}).settings.server.host == host

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "localhost.example.org", "127.1"])
    def test_nothing_but_loopback_may_be_bound(self, host: str) -> None:
        assert "binds to loopback only" in only_fault({"HOST": host})

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
        assert "both model.id (environment MODEL)" in only_fault({"MODEL": "kyb@1.0.0", "MODEL_PATH": "mine.yaml"})

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


class TestShown:
    def test_every_setting_is_shown_with_its_origin(self) -> None:
        rows = effective(load({"CACHE_TTL": "90", "MAX_REPLICAS": "4"}))
        assert [name for name, _, _ in rows] == list(KEYS)
        assert ("cache.ttl", "1m30s", "environment CACHE_TTL") in rows
        assert ("scaling.max_replicas", "4", "environment MAX_REPLICAS") in rows
        assert ("server.body_limit", "1MiB", "default") in rows
        assert ("database.url", "", "default") in rows

    @pytest.mark.parametrize("name", KEYS)
    def test_what_is_shown_reads_as_the_same_value(self, name: str) -> None:
        text, value = OTHER[name]
        kind = KEYS[name].kind
        if name != "redis.url":
            assert kind.parse(kind.show(value)) == kind.parse(text) == value

    def test_no_password_is_shown(self) -> None:
        rows = {
            name: value
            for name, value, _ in effective(load({"REDIS_URL": "rediss://me:p@ss:w@cache:1/0?password=x@y"}))
        }
        assert rows["redis.url"] == "rediss://me:***@cache:1/0?password=***"

    @given(st.text(min_size=1), st.sampled_from(["", "&sslmode=require"]))
    def test_no_password_of_a_database_is_shown(self, text: str, more: str) -> None:
        secret = f"hunter{quote(text, safe='')}"
        for url in (
            f"postgresql://kyb:{secret}@host1:5432,host2/records?target_session_attrs=any{more}",
            f"postgres://kyb@db/records?password={secret}{more}",
            f"postgres://kyb@db/records?sslkey=key.pem&sslpassword={secret}{more}",
        ):
            environ = {"DATABASE_URL": url, "DATABASE_DIRECT_URL": url}
            rows = {name: value for name, value, _ in effective(load(environ))}
            assert rows["database.url"] == rows["database.direct_url"] == url.replace(secret, "***")

    @pytest.mark.parametrize(
        ("url", "masked"),
        [
            ("redis://:pw@host", "redis://:***@host"),
            ("redis://me@host", "redis://me@host"),
            ("unix:///run/r.sock?password=pw&db=1", "unix:///run/r.sock?password=***&db=1"),
            ("sqlite:///a.db", "sqlite:///a.db"),
            ("postgresql://me:pw@a:1,b:2/kyb?sslmode=x", "postgresql://me:***@a:1,b:2/kyb?sslmode=x"),
            ("postgresql:///kyb?host=/run&app.pass=pw", "postgresql:///kyb?host=/run&app.pass=***"),
        ],
    )
    def test_masking_leaves_the_rest(self, url: str, masked: str) -> None:
        assert mask_url(url) == masked


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1h", 3600.0),
            ("30s", 30.0),
            ("250ms", 0.25),
            ("1h30m", 5400.0),
            ("300", 300.0),
            ("1.5s", 1.5),
            ("0.5h", 1800.0),
        ],
    )
    def test_a_duration_is_seconds(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @given(st.integers(0, 10**12))
    def test_a_duration_survives_being_shown(self, milliseconds: int) -> None:
        seconds = milliseconds / 1000
        assert parse_duration(show_duration(seconds)) == seconds

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=6))
    def test_a_duration_is_the_sum_of_its_parts(self, parts: list[tuple[int, str]]) -> None:
        scale = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
        total = sum(number * scale[unit] for number, unit in parts) / 1000
        assert parse_duration("".join(f"{number}{unit}" for number, unit in parts)) == total

    @given(st.sampled_from([name for name, key in KEYS.items() if key.env]), st.text())
    def test_no_text_of_a_variable_breaks_loading(self, name: str, text: str) -> None:
        variable = KEYS[name].env
        assert variable is not None
        with suppress(SettingsError):
            load({variable: text})

    @given(st.integers(0, 10**14))
    def test_a_size_survives_being_shown(self, size_bytes: int) -> None:
        assert parse_size(show_size(size_bytes)) == size_bytes

    @pytest.mark.parametrize(("text", "size"), [("1KiB", 1024), ("8 MB", 8_000_000), ("512", 512), ("1GiB", 1 << 30)])
    def test_a_size_is_bytes(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["true", "True", "YES", "on", "1"])
    def test_true_is_written_in_four_ways(self, text: str) -> None:
        assert load({"ENABLE_PERFORMANCE_MONITORING": text}).settings.monitoring.enabled is True

    @pytest.mark.parametrize("text", ["false", "No", "OFF", "0"])
    def test_false_is_written_in_four_ways(self, text: str) -> None:
        assert load({"ENABLE_PERFORMANCE_MONITORING": text}).settings.monitoring.enabled is False
