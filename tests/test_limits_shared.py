"""Rate limits over processes that share a Redis: exact with it, careful without it, and exact again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
import redis
from cached import PATIENCE_S, TIMEOUT_S, Pod, play, running, until
from databases import Valkey
from hypothesis import given
from hypothesis import strategies as st
from limits import COSTS, PAUSES_US, WHERE, Clock, Oracle, allowance, bucket, three_buckets
from proxy import Proxy

from app.limits.allowance import Allowance, Bucket, Taken, fields
from app.limits.batch import Batch
from app.limits.limiter import AWAY_S, Limiter
from app.limits.script import CLOCK, GIVE_BACK, SCRIPT, answered, returned

TIMED, TIMED_BACK = (
    script.replace(CLOCK, b"local now = tonumber(ARGV[2])\n").replace(b"'PX', ttl", b"'PX', 3600000")
    for script in (SCRIPT, GIVE_BACK)
)
"""The scripts with a clock that is told to them, and without forgetting by Redis's own."""

DATABASE = 3
"""Of the Valkey that many tests use: no other test flushes it."""

numbers = itertools.count()


def own_buckets(buckets: Sequence[Bucket]) -> list[Bucket]:
    """The same, under keys that nobody used."""
    number = next(numbers)
    return [one._replace(key=b"%b:%d" % (one.key, number)) for one in buckets]


class Timed:
    """The script on a real server, by a clock that is told."""

    def __init__(self, valkey: Valkey) -> None:
        self._client = redis.Redis.from_url(valkey.url(DATABASE))

    def take(self, takes: list[tuple[Allowance, int]], now_us: float) -> list[Taken]:
        batch = Batch(takes)
        reply = self._client.execute_command("EVAL", TIMED, len(batch.keys), *batch.keys, batch.asked(), repr(now_us))
        return batch.taken(answered(reply))

    def give_back(self, one: Bucket, count: int, now_us: float) -> None:
        self._client.execute_command("EVAL", TIMED_BACK, 1, one.key, returned([one.rate], [count]), repr(now_us))


@pytest.fixture(scope="module")
def timed(valkey: Valkey) -> Timed:
    return Timed(valkey)


@given(three_buckets(), st.lists(st.tuples(PAUSES_US, st.lists(st.tuples(WHERE, COSTS), min_size=1)), max_size=12))
def test_the_script_grants_what_token_buckets_grant(
    timed: Timed, buckets: tuple[Bucket, ...], batches: list[tuple[int, list[tuple[tuple[int, ...], int]]]]
) -> None:
    own, oracle, now_us = own_buckets(buckets), Oracle(), 1_800_000_000_000_000
    oracle_start_us = now_us
    whose = {places: allowance(*(own[place] for place in places)) for places in {p for _, b in batches for p, _ in b}}
    for pause_us, requests in batches:
        now_us += pause_us
        takes = [(whose[places], cost) for places, cost in requests]
        taken = timed.take(takes, now_us)
        for (wanted, cost), one in zip(takes, taken, strict=True):
            oracle.check(wanted.buckets, cost, now_us - oracle_start_us, one.granted)
        for (wanted, _), one in zip(takes, taken, strict=True):
            for kept, told in zip(wanted.buckets, one.standings, strict=True):
                assert told is not None
                owed = oracle.owed(kept)
                assert told[0] == pytest.approx(max(0, kept.rate.burst - owed), abs=1)
                assert told[1] == pytest.approx(owed / kept.rate.per_s, abs=1.01, rel=1e-6)


def test_who_came_first_is_served_first(timed: Timed) -> None:
    one, two, service = own_buckets([bucket("one"), bucket("two"), bucket("service", burst=5)])
    first, second = allowance(one, service), allowance(two, service)
    taken = timed.take([(first, 1), (second, 1), (second, 2), (first, 1), (first, 1), (second, 1)], 1)
    assert [one.granted for one in taken] == [True, True, True, True, False, False]


def test_a_request_too_large_now_does_not_hold_up_a_small_one_behind_it(timed: Timed) -> None:
    whose = allowance(*own_buckets([bucket(burst=5)]))
    assert [one.granted for one in timed.take([(whose, 3), (whose, 3), (whose, 1)], 1)] == [True, False, True]


def test_what_one_bucket_refuses_costs_the_others_nothing(timed: Timed) -> None:
    key, service = own_buckets([bucket("key", burst=5), bucket("service", burst=2)])
    both, alone = allowance(key, service), allowance(key)
    assert [one.granted for one in timed.take([(both, 1)] * 4 + [(alone, 1)] * 4, 1)] == [True] * 2 + [False] * 2 + [
        True
    ] * 3 + [False]


def test_a_clock_that_is_set_back_locks_nobody_out(timed: Timed) -> None:
    whose = allowance(*own_buckets([bucket(per_s=1, burst=2)]))
    ahead_us, us = 1_800_000_000_000_000, 1_000_000
    assert [one.granted for one in timed.take([(whose, 1)] * 3, ahead_us)] == [True, True, False]
    behind_us = ahead_us - 3600 * us
    assert not timed.take([(whose, 1)], behind_us)[0].granted
    assert timed.take([(whose, 1)], behind_us + us)[0].granted
    assert not timed.take([(whose, 1)], behind_us + us)[0].granted


def test_what_is_no_bucket_is_a_full_one(valkey: Valkey, timed: Timed) -> None:
    client = redis.Redis.from_url(valkey.url(DATABASE))
    for poison in (b"", b"garbage", b"\xff" * 15):
        (one,) = own_buckets([bucket(burst=2)])
        client.set(one.key, poison)
        assert [taken.granted for taken in timed.take([(allowance(one), 1)] * 3, 1)] == [True, True, False]
    (one,) = own_buckets([bucket(burst=2)])
    client.rpush(one.key, b"poison")
    assert [taken.granted for taken in timed.take([(allowance(one), 1)] * 3, 1)] == [True, True, False]
    client.close()


def test_what_is_refused_is_granted_once_it_has_waited_as_it_was_told(timed: Timed) -> None:
    for per_s in (1 / 3, 0.7, 3.0, 10 / 3, 7.3, 999.9):
        whose, now_us = allowance(*own_buckets([bucket(per_s=per_s, burst=7)])), 1_000_000.0
        assert all(one.granted for one in timed.take([(whose, 1)] * 7, now_us))
        for cost in (1, 2, 7, 1, 3, 5):
            (refused,) = timed.take([(whose, cost)], now_us)
            assert not refused.granted
            now_us += refused.wait_s * 1e6
            assert not timed.take([(whose, cost)], now_us - 2 / per_s)[0].granted
            assert timed.take([(whose, cost)], now_us)[0].granted


@given(
    st.integers(1, 8), st.integers(0, 8), st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 6)), max_size=6)
)
def test_what_is_given_back_was_never_taken(timed: Timed, taken: int, kept: int, later: list[tuple[int, int]]) -> None:
    """later: pauses in µs and costs of requests that come, and are given back after the pause that follows."""
    with_them, without = (own_buckets([bucket(per_s=1, burst=9)])[0] for _ in range(2))
    now_us = 1_800_000_000_000_000.0
    kept = min(kept, taken)
    timed.take([(allowance(with_them), taken)], now_us)
    timed.take([(allowance(without), kept)] if kept else [(allowance(own_buckets([bucket()])[0]), 1)], now_us)
    timed.give_back(with_them, taken - kept, now_us)
    for pause_us, cost in later:
        now_us += pause_us
        (tried,) = timed.take([(allowance(with_them), cost)], now_us)
        now_us += pause_us
        if tried.granted:
            timed.give_back(with_them, cost, now_us)
    probes = [timed.take([(allowance(one), 1)] * 12, now_us) for one in (with_them, without)]
    assert [one.granted for one in probes[0]] == [one.granted for one in probes[1]]


def test_nothing_is_given_back_to_a_bucket_that_was_forgotten(timed: Timed) -> None:
    (one,) = own_buckets([bucket(burst=3)])
    timed.give_back(one, 2, 1.0)
    assert [taken.granted for taken in timed.take([(allowance(one), 1)] * 4, 1)] == [True] * 3 + [False]


async def granted(limiter: Limiter, whose: Allowance, times: int, cost: int = 1) -> int:
    """How many of so many requests at once are granted."""
    taken = await asyncio.gather(*(limiter.take(whose, cost) for _ in range(times)))
    return sum(one.granted for one in taken)


def test_two_processes_grant_the_burst_once_together(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two, linked=False):
            limiters = [Limiter(pod.shared, 2) for pod in (one, two)]
            whose = [allowance(bucket(burst=50)) for _ in limiters]
            counts = await asyncio.gather(*(granted(limiters[n % 2], whose[n % 2], 7) for n in range(40)))
            assert sum(counts) == 50
            for limiter in limiters:
                assert limiter.asked_here == 0
                await limiter.close()

    play(scenario)


@pytest.mark.parametrize(("per_s", "cost", "held"), [(2000, 10, 0), (5000, 1, 10), (20_000, 1, 40)])
def test_two_processes_grant_the_rate_once_together_by_the_servers_clock(
    redis_url: str, per_s: int, cost: int, held: int
) -> None:
    """held: requests that each of them may have taken ahead, and nobody came for."""

    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two, linked=False):
            limiters = [Limiter(pod.shared, 2) for pod in (one, two)]
            whose = allowance(bucket(per_s=per_s, burst=per_s))
            started_s = await server_time_s(one)
            count = last = sum(await asyncio.gather(*(granted(limiter, whose, 20, cost) for limiter in limiters)))
            # Until its first request, the bucket was full and gained nothing.
            emptying_s = asked_s = await server_time_s(one)
            while asked_s < started_s + 0.5 or last == 40:
                asked_s = await server_time_s(one)
                last = sum(await asyncio.gather(*(granted(limiter, whose, 20, cost) for limiter in limiters)))
                count += last
            ended_s = await server_time_s(one)
            # What is not enough for one more request may be left over.
            left = 2 * (cost + held)
            assert (asked_s - emptying_s) * per_s + per_s - left < count * cost <= (ended_s - started_s) * per_s + per_s
            assert [limiter.ahead.used > 0 for limiter in limiters] == [held > 0, held > 0]
            assert [limiter.asked_here for limiter in limiters] == [0, 0]
            for limiter in limiters:
                await limiter.close()

    play(scenario)


async def server_time_s(pod: Pod) -> float:
    (reply,) = await pod.redis.evaluate_each(
        b"local t = redis.call('TIME') return t[1] .. '.' .. ('%06d'):format(t[2])", b""
    )
    assert isinstance(reply, bytes)
    return float(reply)


def test_what_one_turn_wants_is_one_call(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod, linked=False):
            limiter = Limiter(pod.shared, 1)
            one, two = (allowance(bucket(name, burst=100)) for name in ("one", "two"))
            counts = await asyncio.gather(granted(limiter, one, 60), granted(limiter, two, 60))
            assert counts == [60, 60]
            assert pod.redis.round_trips == 1
            await limiter.close()

    play(scenario)


def test_a_batch_of_many_counts_as_many_and_what_it_owes_is_made_good_first(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod, linked=False):
            limiter = Limiter(pod.shared, 1)
            whose = allowance(bucket(burst=10, name="key"))
            first = await limiter.take(whose, 4)
            assert first.standings[0] == (6, 4 * 3600)
            assert not (await limiter.take(whose, 25)).granted
            other = allowance(bucket("other", burst=10, name="key"))
            large = await limiter.take(other, 25)
            assert large.granted
            assert large.standings[0] == (0, 25 * 3600)
            small = await limiter.take(other)
            assert not small.granted
            assert small.wait_s == pytest.approx(16 * 3600, abs=2)
            await limiter.close()

    play(scenario)


def test_a_bucket_that_is_full_again_leaves_nothing_in_redis(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod, linked=False):
            limiter = Limiter(pod.shared, 1)
            await limiter.take(allowance(bucket("quick", per_s=100, burst=5)), 2)
            await limiter.take(allowance(bucket("slow", burst=5)), 2)
            await until(lambda: own_valkey.command("KEYS", "*") == [b"kyb:limit:slow"])
            assert 7199 <= own_valkey.command("TTL", "kyb:limit:slow") <= 7200
            await limiter.close()

    play(scenario)


def test_a_refusal_that_is_known_costs_redis_nothing_and_is_asked_for_again_within_a_second(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod, linked=False):
            clock = Clock()
            limiter = Limiter(pod.shared, 1, clock)
            service, key = bucket("service", burst=5, name="service"), bucket("key", burst=9, name="key")
            whose, others = allowance(key, service), allowance(bucket("other"), service)
            assert await granted(limiter, whose, 5) == 5
            round_trips = pod.redis.round_trips
            for known in (whose, others):
                refused = await limiter.take(known)
                assert not refused.granted
                assert refused.wait_s == limiter.refusal(known) == pytest.approx(3600, abs=2)
            told = fields(whose, await limiter.take(whose))
            assert told[1] == (b"ratelimit", b'"service";r=0;t=3600')
            assert limiter.refusal(whose, 3) == pytest.approx(3 * 3600, abs=2)
            assert limiter.refusal(allowance(key)) == 0
            assert pod.redis.round_trips == round_trips
            assert limiter.recalled == 3
            # Redis loses what it had: nobody is refused for longer than a second on its word.
            own_valkey.flush()
            assert not (await limiter.take(whose)).granted
            clock.now += 1.0
            assert (await limiter.take(whose)).granted
            await limiter.close()

    play(scenario)


def test_a_refusal_is_not_remembered_for_longer_than_it_lasts(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod, linked=False):
            clock = Clock()
            limiter = Limiter(pod.shared, 1, clock)
            whose = allowance(bucket(per_s=20, burst=1))
            assert (await limiter.take(whose)).granted
            wait_s = limiter.refusal(whose)
            assert 0 < wait_s <= 0.05
            clock.now += wait_s
            assert limiter.refusal(whose) == 0
            round_trips = pod.redis.round_trips
            await limiter.take(whose)
            assert pod.redis.round_trips == round_trips + 1
            await limiter.close()

    play(scenario)


def test_while_redis_is_away_each_process_grants_its_part_and_then_all_are_exact_again(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        one, two = Pod(own_valkey.url()), Pod(own_valkey.url())
        async with running(one, two, linked=False):
            limiters = [Limiter(pod.shared, 4) for pod in (one, two)]
            whose = allowance(bucket(burst=8, name="key"))
            assert [await granted(limiter, whose, 3) for limiter in limiters] == [3, 3]
            own_valkey.stop()
            assert [await granted(limiter, whose, 6) for limiter in limiters] == [2, 2]
            for limiter in limiters:
                refused = await limiter.take(whose)
                assert not refused.granted
                assert limiter.refusal(whose) == pytest.approx(refused.wait_s, rel=1e-3)
                assert refused.wait_s == pytest.approx(4 * 3600, abs=30)
                assert fields(whose, refused)[1][1].startswith(b'"key";r=0;t=')
                assert limiter.asked_here == 7
            own_valkey.start()
            await asyncio.gather(*map(answers, limiters, (one, two)))
            assert sum(await asyncio.gather(*(granted(limiter, whose, 9) for limiter in limiters))) == 8
            for limiter in limiters:
                await limiter.close()

    play(scenario)


async def answers(limiter: Limiter, pod: Pod) -> None:
    """Wait until Redis decides again, and the breaker has seen enough of that."""
    before = -1
    while limiter.asked_here != before or pod.breaker.state != "closed":
        before = limiter.asked_here
        await limiter.take(allowance(bucket("probe", per_s=1000, burst=1000)))
        await asyncio.sleep(AWAY_S)


def test_a_redis_that_refuses_to_write_is_away(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod, linked=False):
            limiter = Limiter(pod.shared, 2)
            whose = allowance(bucket(burst=8))
            own_valkey.config("maxmemory", "1")
            assert await granted(limiter, whose, 9) == 4
            own_valkey.config("maxmemory", "0")
            await answers(limiter, pod)
            assert await granted(limiter, whose, 9) == 8
            await limiter.close()

    play(scenario)


def test_with_a_redis_that_hangs_nobody_waits_longer_than_for_one_call(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with Proxy(own_valkey.port) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S * 2)
            async with running(pod, linked=False):
                limiter = Limiter(pod.shared, 2)
                whose = allowance(bucket(burst=1000))
                assert (await limiter.take(whose)).granted
                proxy.black_hole()

                async def timed_take() -> float:
                    started = loop.time()
                    await limiter.take(whose)
                    return loop.time() - started

                first = asyncio.create_task(timed_take())
                await until(lambda: pod.redis.round_trips == 2)
                late = await asyncio.gather(*(timed_take() for _ in range(20)))
                took = await first
                assert max(late) <= took + 0.1
                assert took < PATIENCE_S
                proxy.heal()
                await limiter.close()

    play(scenario)


def test_requests_that_wait_for_redis_weigh_in_its_breaker(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url(), min_calls=100)
        async with running(pod, linked=False):
            own_valkey.stop()
            limiter = Limiter(pod.shared, 2)
            await granted(limiter, allowance(bucket()), 100)
            assert pod.breaker.state == "open"
            await limiter.close()

    play(scenario)


def test_a_limiter_that_was_closed_decides_by_itself(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod, linked=False):
            limiter = Limiter(pod.shared, 2)
            waiting = asyncio.create_task(limiter.take(allowance(bucket())))
            await asyncio.sleep(0)
            await limiter.close()
            assert (await waiting).granted
            assert limiter.asked_here == 0
            assert (await limiter.take(allowance(bucket()))).granted
            assert limiter.asked_here == 1

    play(scenario)


def test_a_script_is_evaluated_and_no_failure_of_it_is_raised(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod, linked=False):
            assert await pod.redis.evaluate(b"return {KEYS[1], KEYS[2], ARGV[1]}", [b"a", b"b"], b"c") == [
                b"a",
                b"b",
                b"c",
            ]
            assert await pod.redis.evaluate(b"return nil +", [b"a"], b"") is None
            assert await pod.redis.evaluate(b"return redis.call('NONE')", [b"a"], b"") is None
            assert pod.breaker.state == "closed"
            own_valkey.stop()
            assert await pod.redis.evaluate(b"return 1", [b"a"], b"") is None

    play(scenario)
