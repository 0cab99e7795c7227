"""Configuration file, environment and options into one frozen structure, shown with the origin of every value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from configuration import POSTGRES, value_of, write
from hypothesis import given
from hypothesis import strategies as st

from app.settings import DEFAULTS_FILE, SettingsError, effective, load
from app.settings.kinds import SECRET, mask_url
from app.settings.rates import Rate
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
    "server.drain_time": ("0", 0.0),
    "server.shutdown_grace": ("1m", 60.0),
    "server.body_limit": ("2MiB", 2 * 1024 * 1024),
    "server.batch_body_limit": ("16 MiB", 16 * 1024 * 1024),
    "server.trusted_proxies": (
        "10.1.0.0/16, 2001:DB8::/32,192.0.2.7",
        ("10.1.0.0/16", "2001:db8::/32", "192.0.2.7/32"),
    ),
    "server.cors_origins": (
        "https://App.example.com:443, http://localhost:3000",
        ("https://app.example.com", "http://localhost:3000"),
    ),
    "server.behind_tls": ("yes", True),
    "concurrency.max_concurrent_requests": ("2000", 2000),
    "concurrency.max_queue": ("50", 50),
    "concurrency.queue_wait": ("2500ms", 2.5),
    "concurrency.worker_pool_size": ("7", 7),
    "concurrency.goroutine_limit": ("500", 500),
    "auth.enabled": ("off", False),
    "auth.key_hash_secret": ("hunter2 hunter2 hunter2 hunter2 .", "hunter2 hunter2 hunter2 hunter2 ."),
    "auth.environment": ("test1", "test1"),
    "auth.failures": ("6/h burst 3", Rate(6 / 3600, 3)),
    "limits.tiers": ("standard 5/s, own unlimited", {"standard": Rate(5.0, 5), "own": None}),
    "limits.default_tier": ("high", "high"),
    "limits.tenant": ("30/min  burst 7", Rate(0.5, 7)),
    "limits.service": ("2.5/s", Rate(2.5, 3)),
    "audit.signing_key": ("hunter2hunter2hunter2hunter2hunter2", "hunter2hunter2hunter2hunter2hunter2"),
    "audit.checkpoint_every": ("250ms", 0.25),
    "audit.anchor_file": ("/srv/elsewhere/anchors", Path("/srv/elsewhere/anchors")),
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
    "redis.cluster": ("yes", True),
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
    "watchlists.max_age": ("24h", 86400.0),
    "watchlists.check_every": ("5s", 5.0),
    "watchlists.folder": ("/run/kyb", Path("/run/kyb")),
    "watchlists.addresses": (
        "mine https://lists.example/a.jsonl  https://lists.example/b.jsonl, ours http://127.0.0.1:8000/o",
        {
            "mine": ("https://lists.example/a.jsonl", "https://lists.example/b.jsonl"),
            "ours": ("http://127.0.0.1:8000/o",),
        },
    ),
    "watchlists.demo": ("no", False),
    "monitoring.enabled": ("off", False),
    "monitoring.interval": ("5s", 5.0),
    "monitoring.networks": ("10.0.0.0/8, 192.0.2.7", ("10.0.0.0/8", "192.0.2.7/32")),
    "monitoring.trace_allocations": ("on", True),
    "scaling.min_replicas": ("2", 2),
    "scaling.max_replicas": ("9", 9),
    "scaling.target_cpu_percent": ("55", 55),
    "scaling.target_memory_percent": ("65", 65),
    "logging.level": ("WARNING", "warning"),
    "logging.format": ("Text", "text"),
    "logging.access_sample": ("12.5%", 0.125),
    "logging.slow_request": ("250ms", 0.25),
    "tracing.endpoint": ("https://collector:4318", "https://collector:4318/v1/traces"),
    "tracing.sample": ("0.001", 0.001),
}

BESIDE = {"database.direct_url": POSTGRES, "database.pooler": POSTGRES, "redis.cluster": {"redis.url": "redis://cache"}}

SECRETS = [name for name, key in KEYS.items() if key.kind is SECRET]


def beside(name: str) -> dict[str, str]:
    return BESIDE.get(name, {})


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
        assert settings.model.id == "kyb@1.1.0"
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

    def test_who_may_call_and_how_much(self) -> None:
        settings = load({}).settings
        assert (settings.server.trusted_proxies, settings.server.cors_origins, settings.server.behind_tls) == (
            None,
            None,
            False,
        )
        concurrency, auth, limits = settings.concurrency, settings.auth, settings.limits
        assert (concurrency.max_concurrent_requests, concurrency.max_queue, concurrency.queue_wait) == (
            1000,
            20_000,
            1.5,
        )
        assert (auth.enabled, auth.key_hash_secret, auth.environment) == (True, None, "live")
        assert auth.failures == Rate(1.0, 30)
        assert dict(limits.tiers) == {
            "standard": Rate(200.0, 400),
            "high": Rate(2000.0, 4000),
            "unlimited": None,
        }
        assert (limits.default_tier, limits.tenant, limits.service) == ("standard", None, None)
        assert (settings.audit.signing_key, settings.audit.checkpoint_every) == (None, 1.0)

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
        nothings = {str(key.env): "" for key in KEYS.values() if key.optional}
        loaded = load(nothings)
        assert {value_of(loaded, name) for name, key in KEYS.items() if key.optional} == {None}

    def test_nothing_depends_on_the_working_directory(self, tmp_path: Path) -> None:
        write(tmp_path, "server: {port: 1}")
        (tmp_path / "configs").mkdir()
        (tmp_path / "defaults.yaml").write_text("server: {port: 1}")
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from app.settings import *; print(effective(load({{}})))"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == str(effective(load({})))


class TestShown:
    def test_every_setting_is_shown_with_its_origin(self) -> None:
        rows = effective(load({"CACHE_TTL": "90", "MAX_REPLICAS": "4"}))
        assert [name for name, _, _ in rows] == list(KEYS)
        assert ("cache.ttl", "1m30s", "environment CACHE_TTL") in rows
        assert ("scaling.max_replicas", "4", "environment MAX_REPLICAS") in rows
        assert ("server.body_limit", "1MiB", "default") in rows
        assert ("database.url", "", "default") in rows

    @pytest.mark.parametrize("name", [name for name in KEYS if name not in ("redis.url", *SECRETS)])
    def test_what_is_shown_reads_as_the_same_value(self, name: str) -> None:
        text, value = OTHER[name]
        kind = KEYS[name].kind
        assert kind.parse(kind.show(value)) == kind.parse(text) == value

    def test_the_tiers_are_shown_as_they_are_written(self) -> None:
        rows = {name: value for name, value, _ in effective(load({"RATE_TIERS": "standard 30/min,own  unlimited"}))}
        assert rows["limits.tiers"] == "standard 0.5/s burst 1, own unlimited"
        assert rows["auth.failures"] == "1/s burst 30"

    def test_what_pods_share_is_secret(self) -> None:
        assert SECRETS == ["auth.key_hash_secret", "audit.signing_key"]

    @pytest.mark.parametrize("name", SECRETS)
    def test_what_a_secret_is_shown_as_is_never_taken_for_one(self, name: str) -> None:
        text, value = OTHER[name]
        assert KEYS[name].kind.show(value) == "***"
        assert (name, "***", f"option {KEYS[name].option}") in effective(load({}, overrides={name: text}))
        with pytest.raises(SettingsError):
            load({}, overrides={name: "***"})

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=32))
    def test_no_secret_is_shown(self, secret: str) -> None:
        given = {name: secret + "." * number for number, name in enumerate(SECRETS)}
        loaded = load({str(KEYS[name].env): value for name, value in given.items()})
        assert {name: value_of(loaded, name) for name in SECRETS} == given
        assert secret not in str(effective(loaded))

    def test_a_structure_printed_by_mistake_shows_no_secret(self) -> None:
        environ = {str(KEYS[name].env): f"hunter2{'x' * 32}{name}" for name in SECRETS}
        loaded = load({**environ, "REDIS_URL": "redis://:hunter2@cache", "DATABASE_URL": "postgresql://a:hunter2@b/c"})
        for thing in (loaded, loaded.settings, loaded.settings.auth, loaded.origins, loaded.origins[SECRETS[0]]):
            assert "hunter2" not in f"{thing!r} {thing!s}"
        assert f"environment {KEYS[SECRETS[0]].env}" in repr(loaded.origins[SECRETS[0]])

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
