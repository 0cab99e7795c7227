"""The connections to Redis: how many there are, how old they grow, and that nobody reads another's answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cached import Pod, open_sockets, play, running, until
from databases import Valkey
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy import Proxy

from app.cache.pool import FAILURES, Pool


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60))
def test_who_gives_up_leaves_no_answer_to_others(valkey: Valkey, asks: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        valkey.flush()
        with Proxy(valkey.port, latency_s=0.002) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", min_calls=10_000)
            async with running(pod, linked=False):
                for number in range(31):
                    valkey.command("SET", b"%d" % number, b"%d" % number)
                waiting = []
                for number, patience_ms in asks:
                    ask = asyncio.create_task(pod.redis.get(b"%d" % number))
                    waiting.append((number, ask))
                    await asyncio.sleep(patience_ms / 1000)
                    if patience_ms:
                        ask.cancel()
                for number, ask in waiting:
                    if not (await asyncio.wait((ask,)))[0].pop().cancelled():
                        assert ask.result() == (True, b"%d" % number)

    play(scenario)


def test_a_connection_that_grew_old_is_replaced_and_the_spare_ones_stay_open(redis_url: str) -> None:
    async def scenario() -> None:
        now_s = 0.0
        pool = Pool(
            redis_url,
            connections=3,
            min_idle=2,
            max_age_s=100,
            timeout_s=5,
            acquire_timeout_s=0.05,
            clock=lambda: now_s,
            random=lambda: 0.5,
        )
        sockets = open_sockets()
        await pool.warm()
        assert (pool.idle, open_sockets()) == (2, sockets + 2)
        first = await pool.take()
        before = socket_of(first)
        now_s = 94
        await pool.release(first)
        assert (await pool.take(), socket_of(first)) == (first, before)
        now_s = 95
        await pool.release(first)
        assert pool.idle == 2
        assert socket_of(first) != before
        # The other grew old while nobody used it.
        held = [await pool.take(), await pool.take()]
        other = next(connection for connection in held if connection is not first)
        assert pool._is_old(other) is False
        third = await pool.take()
        with pytest.raises(FAILURES, match="No connection available"):
            await pool.take()
        now_s = 200
        for connection in (*held, third):
            await pool.release(connection)
        assert (pool.idle, pool.in_use) == (2, 0)
        sockets_before = {socket_of(connection) for connection in (*held, third) if connection.is_connected}
        now_s = 310
        await pool.renew()
        sockets_after = {socket_of(connection) for connection in (*held, third) if connection.is_connected}
        assert len(sockets_after) == 2
        assert not sockets_before & sockets_after
        assert (pool.idle, pool.in_use) == (2, 0)
        await pool.disconnect()
        await until(lambda: open_sockets() <= sockets)

    play(scenario)


def socket_of(connection: Any) -> object:
    return connection._writer.get_extra_info("sockname")


def test_the_bounds_given_count_whatever_the_url_says() -> None:
    pool = Pool(
        "redis://user:secret@host:1/2?socket_timeout=60&max_connections=900&protocol=3&retry_on_timeout=true",
        connections=3,
        min_idle=0,
        max_age_s=100,
        timeout_s=0.2,
        acquire_timeout_s=0.05,
    )
    connection = pool.make()
    assert (connection.socket_timeout, connection.socket_connect_timeout, pool.max_connections) == (None, 0.2, 3)
    assert (connection.retry.get_retries(), connection.protocol) == (0, 2)
    assert (connection.username, connection.password, connection.db) == ("user", "secret", 2)


def test_a_pool_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="min_idle"):
        Pool("redis://h", connections=1, min_idle=2, max_age_s=1, timeout_s=1, acquire_timeout_s=1)
