"""The connections of a fleet, and of a pod, shared among workers."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.settings import Settings, load
from app.settings.budget import BudgetTooSmall, Share, database_share, redis_share

ROOT = Path(__file__).parent.parent
PACKAGED = load({}).settings


def fleet(
    connections: int, replicas: int | None, workers: int, idle: int = 0, pooler: str = "none", least: int = 1
) -> Settings:
    """Settings of a fleet with PostgreSQL."""
    return replace(
        PACKAGED,
        server=replace(PACKAGED.server, workers=workers),
        database=replace(
            PACKAGED.database,
            url="postgresql://db/kyb",
            pooler=pooler,
            max_connections=connections,
            min_connections=idle,
        ),
        scaling=replace(PACKAGED.scaling, min_replicas=least, max_replicas=replicas),
    )


def pod(connections: int, workers: int, idle: int = 0) -> Settings:
    """Settings of a pod with Redis."""
    return replace(
        PACKAGED,
        server=replace(PACKAGED.server, workers=workers),
        redis=replace(PACKAGED.redis, url="redis://cache", pool_size=connections, min_idle_conns=idle),
    )


def refused_database(settings: Settings) -> str:
    with pytest.raises(BudgetTooSmall) as caught:
        database_share(settings)
    return str(caught.value)


def refused_redis(settings: Settings) -> str:
    with pytest.raises(BudgetTooSmall) as caught:
        redis_share(settings)
    return str(caught.value)


def way(message: str, pattern: str) -> int | None:
    """The number that a refusal names as a way out."""
    match = re.search(rf"{pattern} (\d+)", message.partition("; give ")[2])
    return int(match[1]) if match else None


class TestDatabase:
    def test_every_small_fleet_gets_what_the_formula_says(self) -> None:
        for connections, replicas, workers, idle in product(range(1, 60), range(1, 7), range(1, 5), (0, 1, 7, 20)):
            expected = (connections - 10) // (replicas * workers)
            settings = fleet(connections, replicas, workers, idle)
            if expected < 2:
                refused_database(settings)
            else:
                share = database_share(settings)
                assert share.connections == expected
                assert share.idle == sorted((1, idle // (replicas * workers), expected))[1]

    def test_a_fleet_that_is_not_scaled_is_one_replica(self) -> None:
        assert database_share(fleet(100, None, 1, 20)) == Share(90, 20)
        assert database_share(fleet(100, None, 4, 20)) == database_share(fleet(100, 1, 4, 20)) == Share(22, 5)

    @given(st.integers(1, 100_000), st.integers(1, 10_000), st.integers(1, 256), st.integers(0, 100_000))
    def test_all_workers_together_stay_within_the_budget(
        self, connections: int, replicas: int, workers: int, idle: int
    ) -> None:
        settings = fleet(connections, replicas, workers, min(idle, connections))
        try:
            share = database_share(settings)
        except BudgetTooSmall:
            assert 2 * replicas * workers > connections - 10
        else:
            assert share.connections * replicas * workers <= connections - 10
            assert 1 <= share.idle <= share.connections
            assert share.connections >= 2

    def test_a_refusal_shows_its_arithmetic_and_every_way_out(self) -> None:
        assert refused_database(fleet(100, 50, 1)) == (
            "the database's connections do not suffice: (DB_MAX_CONNECTIONS 100 - 10 kept back) // (MAX_REPLICAS 50 * "
            "WORKERS 1) leaves 1 for each worker, which needs 2 so that slow reads cannot block writes; give "
            "DB_MAX_CONNECTIONS of at least 110, MAX_REPLICAS of at most 45 or PgBouncer in between with "
            "DB_POOLER=pgbouncer"
        )

    def test_every_way_out_that_a_refusal_names_leads_out_and_is_the_nearest(self) -> None:
        for connections, replicas, workers in product(range(1, 60), range(1, 9), range(1, 6)):
            if (connections - 10) // (replicas * workers) >= 2:
                continue
            message = refused_database(fleet(connections, replicas, workers))
            more = way(message, "DB_MAX_CONNECTIONS of at least")
            fewer_replicas = way(message, "MAX_REPLICAS of at most")
            fewer_workers = way(message, "WORKERS of at most")
            assert more is not None
            assert database_share(fleet(more, replicas, workers)).connections == 2
            refused_database(fleet(more - 1, replicas, workers))
            if fewer_replicas is not None:
                assert database_share(fleet(connections, fewer_replicas, workers)).connections >= 2
            refused_database(fleet(connections, (fewer_replicas or 0) + 1, workers))
            if fewer_workers is not None:
                assert database_share(fleet(connections, replicas, fewer_workers)).connections >= 2
            refused_database(fleet(connections, replicas, (fewer_workers or 0) + 1))
            assert "DB_POOLER=pgbouncer" in message
            assert message.isprintable()

    def test_a_way_out_does_not_lead_into_a_fault_of_the_settings(self) -> None:
        assert "MIN_REPLICAS and MAX_REPLICAS of at most 5" in refused_database(fleet(20, 10, 1, least=6))
        assert "MIN_REPLICAS" not in refused_database(fleet(20, 10, 1, least=5))

    @pytest.mark.parametrize("connections", [1, 9, 10, 11])
    def test_no_replica_and_no_worker_is_no_way_out(self, connections: int) -> None:
        message = refused_database(fleet(connections, 3, 2))
        assert "leaves 0 for each worker" in message
        assert "at most" not in message
        assert message.endswith(
            "give DB_MAX_CONNECTIONS of at least 22 or PgBouncer in between with DB_POOLER=pgbouncer"
        )

    @given(st.integers(1, 1000), st.integers(1, 10_000), st.integers(1, 256), st.integers(0, 100_000))
    def test_behind_a_pooler_each_worker_has_four(
        self, connections: int, replicas: int, workers: int, idle: int
    ) -> None:
        share = database_share(fleet(connections, replicas, workers, idle, pooler="pgbouncer"))
        assert share == Share(4, sorted((1, idle // (replicas * workers), 4))[1])

    def test_the_file_for_ten_thousand_users_needs_the_pooler(self) -> None:
        environ = {"DATABASE_URL": "postgresql://db/kyb"}
        path = str(ROOT / "configs" / "performance_10k.yaml")
        assert "MAX_REPLICAS of at most 45" in refused_database(load(environ, path).settings)
        assert database_share(load({**environ, "DB_POOLER": "pgbouncer"}, path).settings) == Share(4, 1)


class TestRedis:
    def test_every_small_pod_gets_what_the_formula_says(self) -> None:
        for connections, workers, idle in product(range(1, 60), range(1, 12), range(0, 60, 3)):
            expected = connections // workers
            settings = pod(connections, workers, idle)
            if expected < 2:
                refused_redis(settings)
            else:
                assert redis_share(settings) == Share(expected, min(idle // workers, expected - 1))

    def test_the_packaged_pool_is_all_of_one_worker(self) -> None:
        assert redis_share(PACKAGED) == Share(50, 10)

    @given(st.integers(1, 100_000), st.integers(1, 256), st.integers(0, 100_000))
    def test_all_workers_together_stay_within_the_pool(self, connections: int, workers: int, idle: int) -> None:
        try:
            share = redis_share(pod(connections, workers, idle))
        except BudgetTooSmall:
            assert 2 * workers > connections
        else:
            assert share.connections * workers <= connections
            assert share.idle * workers <= idle
            assert 0 <= share.idle < share.connections

    def test_a_refusal_shows_its_arithmetic_and_every_way_out(self) -> None:
        assert refused_redis(pod(5, 4)) == (
            "the connections to Redis do not suffice: REDIS_POOL_SIZE 5 // WORKERS 4 leaves 1 for each worker, which "
            "needs 2, one of them for its subscription; give REDIS_POOL_SIZE of at least 8 or WORKERS of at most 2"
        )
        assert refused_redis(pod(1, 1)).endswith("; give REDIS_POOL_SIZE of at least 2")

    def test_every_way_out_that_a_refusal_names_leads_out_and_is_the_nearest(self) -> None:
        for connections, workers in product(range(1, 30), range(1, 30)):
            if connections // workers >= 2:
                continue
            message = refused_redis(pod(connections, workers))
            more = way(message, "REDIS_POOL_SIZE of at least")
            fewer = way(message, "WORKERS of at most")
            assert more is not None
            assert redis_share(pod(more, workers)).connections == 2
            refused_redis(pod(more - 1, workers))
            if fewer is not None:
                assert redis_share(pod(connections, fewer)).connections >= 2
            refused_redis(pod(connections, (fewer or 0) + 1))
