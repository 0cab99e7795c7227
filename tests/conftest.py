"""What all tests share: the profile of generated examples, a running service, and real databases.

TEST_DATABASE_URL and TEST_REDIS_URL may name servers that already run, for the fixtures `database` and `redis_url`:
an account that may create databases, and a Redis database that may be emptied.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import ValkeyCluster
from databases import PgBouncer, Postgres, Valkey, command, create_database, database_name, drop_database, migrated
from deploying import Machine, deployed, machine_for
from hypothesis import HealthCheck, settings
from service import Client, Json, Service, serving

# What these assert is shown in full, as in a test.
pytest.register_assert_rewrite("definition", "problems")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and what the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("kyb", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("kyb")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of a module with `ON_BOTH_STORES = True` run on SQLite, and again on PostgreSQL and Redis."""
    if "service" in metafunc.fixturenames and getattr(metafunc.module, "ON_BOTH_STORES", False):
        metafunc.parametrize("service", ["sqlite", "postgres"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that many tests record in; none may rely on it being empty."""
    settings = {}
    if getattr(request, "param", "sqlite") == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        valkey: Valkey = request.getfixturevalue("valkey")
        # The first 16 databases of a Redis are apart, and those tests that flush one use the first.
        settings = {"DATABASE_URL": migrated(postgres.create_database()), "REDIS_URL": valkey.url(1)}
    with serving(tmp_path_factory.mktemp("service"), **settings) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    caller = Client(service.port)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in which nothing may ever be recorded: each test of this module leaves it empty."""
    with serving(tmp_path_factory.mktemp("untouched")) as running:
        yield running


@pytest.fixture
def caller(untouched: Service) -> Iterator[Client]:
    """A client; afterwards the service must live and hold no record."""
    client = Client(untouched.port)
    yield client
    client.close()
    after = Client(untouched.port)
    assert after.get("/health").status == 200
    listed = after.get("/v1/assessments")
    after.close()
    assert listed.json == {"items": [], "next_cursor": None}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that many tests use; none may stop it or change its settings."""
    with Postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL for one test, which may do with it what it likes."""
    with Postgres() as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, empty database that the service's account owns."""
    server_url = os.environ.get("TEST_DATABASE_URL")
    if server_url:
        url = create_database(server_url)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        server_url, url = server.admin_url(), server.create_database()
    yield url
    drop_database(server_url, database_name(url))


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer before `postgres`, for the databases that `postgres.create_database()` makes."""
    if not PgBouncer.available():
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    with PgBouncer(postgres.port) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey that many tests use; none may stop it or change its settings."""
    with Valkey() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for one test, which may do with it what it likes."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def lasting_cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as nodes:
        yield nodes


@pytest.fixture
def cluster(lasting_cluster: ValkeyCluster) -> Iterator[ValkeyCluster]:
    """A cluster of Valkeys. A test may move its slots, pause and kill its nodes; the next gets it whole again."""
    yield lasting_cluster
    lasting_cluster.mend()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis database."""
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        server: Valkey = request.getfixturevalue("valkey")
        url = server.url()
    command(url, "FLUSHDB")
    return url


@pytest.fixture(scope="session")
def first_version(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Json]:
    """The objects of a cluster in which version 1.0.0 of the service runs in five pods."""
    return deployed(tmp_path_factory.mktemp("first_version"), service)


@pytest.fixture
def machine(service: Service, first_version: dict[tuple[str, str], Json], tmp_path: Path) -> Iterator[Machine]:
    """An operator's machine and a cluster of its own, in which version 1.0.0 runs."""
    with machine_for(tmp_path, service, first_version) as there:
        yield there
