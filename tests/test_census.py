"""How many processes there are is learnt from Redis while it answers, and shares the rates once it does not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from cached import Pod, play, running, until
from databases import Valkey
from limits import Clock, allowance, bucket
from service import Client, keep_key, serving, wait_until

from app.cache.invalidation import CHANNEL
from app.credentials import mint
from app.limits.census import EVERY_S, REMEMBERED_S, SCRIPT, Census
from app.limits.limiter import Limiter
from app.settings import load


def counting(pod: Pod, clock: Clock, least: int = 1) -> tuple[Census, list[int]]:
    told: list[int] = []
    return Census(pod.redis, least, told.append, every_s=0.01, clock=clock), told


def test_each_process_that_listens_is_counted(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        one, two, three = (Pod(own_valkey.url()) for _ in range(3))
        async with running(one):
            census, told = counting(one, Clock())
            census.start()
            async with running(two, three):
                await until(lambda: told == [3] or told == [2, 3])
                assert await one.redis.evaluate_each(SCRIPT, CHANNEL) == [3]
            await until(lambda: int(own_valkey.command("PUBSUB", "NUMSUB", CHANNEL)[1]) == 1)
            own_valkey.stop()
            await census.stop()
            assert told[-1] == 3

    play(scenario)


def test_what_was_there_of_late_counts_and_what_was_long_ago_does_not(redis_url: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        census, told = counting(Pod(redis_url), clock, least=2)
        for processes in (1, 4, 3, 4):
            census.counted(processes)
        assert told == [4]
        clock.now += REMEMBERED_S
        census.counted(3)
        clock.now += REMEMBERED_S - 1
        census.counted(3)
        assert told == [4]
        clock.now += 1
        census.counted(1)
        clock.now += REMEMBERED_S
        census.counted(1)
        assert told == [4, 3, 2]

    play(scenario)


def test_a_process_that_learns_of_others_grants_less_of_what_it_granted_before() -> None:
    async def scenario() -> None:
        clock = Clock()
        limiter = Limiter(None, 1, clock)
        whose, other = allowance(bucket(per_s=4, burst=8)), allowance(bucket("other", per_s=4, burst=8))
        assert [(await limiter.take(whose)).granted for _ in range(3)] == [True] * 3
        limiter.divide(4)
        assert not (await limiter.take(whose)).granted
        assert [(await limiter.take(other)).granted for _ in range(3)] == [True, True, False]
        clock.now += 2
        assert [(await limiter.take(whose)).granted for _ in range(2)] == [True, False]

    play(scenario)


@pytest.mark.parametrize("told", [{}, {"MAX_REPLICAS": "4"}])
def test_two_pods_that_lose_redis_grant_no_more_than_one_rate(
    own_valkey: Valkey, tmp_path: Path, told: dict[str, str]
) -> None:
    settings = {"REDIS_URL": own_valkey.url(), "RATE_TIERS": "few 1/h burst 40", "RATE_DEFAULT_TIER": "few", **told}
    text = mint("test").text

    def counts() -> int:
        stats = own_valkey.command("INFO", "commandstats")
        return int(stats.get("cmdstat_pubsub|numsub", {"calls": 0})["calls"])

    def granted(client: Client) -> int:
        return [client.get("/v1/assessments").status for _ in range(45)].count(200)

    with ExitStack() as stack:
        pods = [stack.enter_context(serving(tmp_path / name, **settings)) for name in ("one", "two")]
        for pod in pods:
            limited = load({"DATA_DIR": str(pod.folder / "data"), **pod.settings}).settings
            asyncio.run(keep_key(limited, text, tier=None))
        clients = [pod.client(text) for pod in pods]
        assert [client.get("/v1/assessments").status for client in clients] == [200, 200]
        wait_until(lambda: int(own_valkey.command("PUBSUB", "NUMSUB", CHANNEL)[1]) == 2, "both listen")
        before = counts()
        # Of four counts in a row each pod has made one.
        wait_until(lambda: counts() >= before + 4, "both counted", 10 * EVERY_S)
        own_valkey.pause()
        accepted = sum(map(granted, clients))
        own_valkey.resume()
    assert accepted == (20 if told else 40)
