"""Providers together: what is asked of whom, how often, how long, and how their answers become one."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest
from databases import command
from hypothesis import given
from hypothesis import strategies as st
from provider_server import (
    FAULTS,
    GOOD,
    Asked,
    Exchange,
    FakeProvider,
    business,
    company,
    described,
    good,
    providers,
    run,
    silence,
    status,
    until,
)

from app import wire
from app.cache.local import Local
from app.cache.tiers import Cache
from app.evidence.providers import guarded
from app.evidence.providers.base import Absurd, Declined, Dropped, Late, Match, Provided, ProviderFailed, Unavailable
from app.evidence.providers.client import Client
from app.evidence.providers.collection import NOTHING, Providers
from app.evidence.providers.guarded import Guarded
from app.evidence.providers.merging import RANKS, merged
from app.facts import NO_FACTS, ExternalFacts
from app.resilience.breaker import Breaker
from app.resilience.deadline import Deadline
from app.resilience.retry import Retry, RetryBudget

FAST = "cache: {negative_ttl: 1ms}"


class Stub:
    """A provider of the tests' own: `answer` is what it tells, or raises."""

    def __init__(self, name: str = "stub") -> None:
        self.name = name
        self.needs = frozenset(("business.registration_number",))
        self.answers: list[Provided | BaseException] = []
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def key(self, profile: wire.Profile) -> bytes | None:
        number = profile.business.registration_number
        return None if number is None else number.encode()

    async def gather(self, profile: wire.Profile, deadline: float) -> Provided:
        self.asked.append(str(profile.business.registration_number))
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


OK = Provided("ok", ExternalFacts(litigation_count=1), "v", "t")


def around(
    stub: Stub,
    slots: asyncio.Semaphore | None = None,
    *,
    answer: Provided | BaseException = OK,
    concurrency: int = 4,
    timeout_s: float = 5.0,
    failed_s: float = 60.0,
    attempts: int = 2,
    clock: Callable[[], float] | None = None,
    min_calls: int = 3,
) -> Guarded:
    stub.answers = stub.answers or [answer]
    local = Local(1000, 1 << 20, **({} if clock is None else {"clock": clock}))  # type: ignore[arg-type]
    return Guarded(
        stub,
        Cache(
            f"provider.{stub.name}", "1", local=local, shared=None, ttl_s=3600, negative_ttl_s=1, encode=guarded.encode,
            decode=guarded.decode, size=guarded.size_bytes,
        ),
        Breaker(stub.name, failures=guarded.BREAKING, slow_s=guarded.SLOW_S, min_calls=min_calls, open_s=10),
        Retry(RetryBudget(1.0), retry_on=guarded.RETRIED, attempts=attempts, base_s=0, cap_s=0),
        local,
        slots or asyncio.Semaphore(100),
        concurrency=concurrency,
        timeout_s=timeout_s,
        failed_s=failed_s,
    )  # fmt: skip


def of(*each: Guarded, reserve_s: float = 0.0) -> Providers:
    return Providers(each, Client(10), reserve_s=reserve_s)


# ---------------------------------------------------------------- none, and not asked


def test_without_providers_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with providers(tmp_path, "  {}\n") as asked:
            assert asked.providers.known("t", business()) is NOTHING
            assert await asked.gather(business()) is NOTHING
            assert asked.providers.breakers == []

    run(scenario)


def test_a_provider_is_not_asked_without_what_it_needs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            external = await asked.gather(business(None))
            assert external.evidence == (wire.Evidence("registry", "not_screened"),)
            assert (external.facts, external.degraded, server.connections) == (None, False, 0)

    run(scenario)


# ---------------------------------------------------------------- cache and single-flight


def test_an_answer_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            assert asked.providers.known("t", business()) is None
            first = await asked.gather(business())
            assert await asked.gather(business()) == first
            assert asked.providers.known("t", business()) == first
            # Nothing that the request does not hold makes it another question.
            assert await asked.gather(business(employees=12)) == first
            assert len(server.requests) == 1

    run(scenario)


def test_another_tenant_or_another_input_is_another_question(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            await asked.gather(business("1"), "a")
            await asked.gather(business("1"), "b")
            await asked.gather(business("2"), "a")
            assert [exchange.target for exchange in server.requests] == ["/companies/1", "/companies/1", "/companies/2"]

    run(scenario)


def test_another_meaning_of_the_answer_is_another_question(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server:
            keys = []
            for more in ("", "      regulatory_actions: /company/acts\n"):
                async with providers(tmp_path, described(server, more=more)) as asked:
                    keys.append(asked.guarded[0].known("t", business()))
            async with providers(
                tmp_path, described(server, more="    auth: {bearer_env: KEY}\n"), {"KEY": "secret"}
            ) as asked:
                keys.append(asked.guarded[0].known("t", business()))
            assert keys[0] != keys[1]
            assert keys[0] == keys[2]
            assert all(isinstance(key, bytes) and len(key) == 32 for key in keys)

    run(scenario)


def test_all_who_ask_the_same_at_once_are_one_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            found = await asyncio.gather(*(asked.gather(business()) for _ in range(50)))
            assert len(server.requests) == 1
            assert all(one == found[0] for one in found)

    run(scenario)


def test_whoever_leaves_early_does_not_end_the_call_of_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        stub = Stub()
        stub.gate.clear()
        together = of(around(stub))
        leaving = asyncio.create_task(together.gather("t", business()))
        staying = asyncio.create_task(together.gather("t", business()))
        await until(lambda: len(stub.asked) == 1)
        leaving.cancel()
        await asyncio.wait((leaving,))
        stub.gate.set()
        assert (await staying).evidence[0].status == "ok"
        assert stub.asked == ["HRB 12345"]

    run(scenario)


def test_a_failure_is_remembered_shortly_and_not_as_an_answer() -> None:
    async def scenario() -> None:
        now = 100.0
        stub = Stub()
        stub.answers = [Absurd("x"), OK]
        together = of(around(stub, failed_s=5, clock=lambda: now))
        for _ in range(3):
            external = await together.gather("t", business())
            assert (external.degraded, external.evidence[0].status) == (True, "invalid")
        assert together.known("t", business()) == external
        assert len(stub.asked) == 1
        now += 5
        assert not (await together.gather("t", business())).degraded
        assert len(stub.asked) == 2

    run(scenario)


def test_the_keys_of_shared_caches_hold_nothing_in_clear(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            key = asked.guarded[0].known("t", business("HRB-SECRET"))
            assert isinstance(key, bytes)
            assert b"SECRET" not in key

    run(scenario)


def test_processes_that_share_a_redis_share_answers_and_nothing_there_names_the_business(
    tmp_path: Path, redis_url: str
) -> None:
    async def scenario() -> None:
        folders = [tmp_path / name for name in ("one", "other")]
        for folder in folders:
            folder.mkdir()
        async with FakeProvider() as server, AsyncExitStack() as stack:
            one, other = [
                await stack.enter_async_context(providers(folder, described(server), redis=f"url: '{redis_url}'"))
                for folder in folders
            ]
            first = await one.gather(business("HRB-SECRET"))
            # Filled beside the answer, not before it.
            await until(lambda: any(b"claim" not in key for key in command(redis_url, "KEYS", "kyb:*")))
            assert await other.gather(business("HRB-SECRET")) == first
            assert len(server.requests) == 1
            keys = command(redis_url, "KEYS", "*")
            assert keys
            held = [(key, command(redis_url, "GET", key)) for key in keys]
            assert b"SECRET" not in repr(held).encode()

    run(scenario)


def test_an_answer_survives_the_shared_cache() -> None:
    match = Match("/business/name", "NK-1", "Acme", "Company", 0.9, "sanction", ("x",), ("sanction",), ("name",))
    told = Provided("ok", ExternalFacts("active", dt.date(2009, 5, 1), 57), "7", "t", (match,))
    assert guarded.decode(guarded.encode(told)) == told
    with pytest.raises(msgspec.ValidationError):
        guarded.decode(msgspec.msgpack.encode(["ok", [None, None, -1]]))


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("kind", [Late, Unavailable, Dropped, Declined, Absurd, ZeroDivisionError, OSError])
def test_whatever_a_provider_raises_ends_as_a_status(kind: type[Exception]) -> None:
    async def scenario() -> None:
        external = await of(around(Stub(), answer=kind("x"))).gather("t", business())
        expected = kind.status if issubclass(kind, ProviderFailed) else "unavailable"
        assert external.evidence == (wire.Evidence("stub", expected),)
        assert (external.facts, external.matches, external.degraded) == (None, (), True)

    run(scenario)


@pytest.mark.parametrize(("failure", "calls"), [(Dropped, 3), (Unavailable, 1), (Absurd, 1), (Declined, 1), (Late, 1)])
def test_only_what_may_be_over_is_tried_again(failure: type[ProviderFailed], calls: int) -> None:
    async def scenario() -> None:
        stub = Stub()
        assert (await of(around(stub, answer=failure("x"), attempts=3)).gather("t", business())).degraded
        assert len(stub.asked) == calls

    run(scenario)


def test_a_dropped_connection_that_was_an_accident_costs_nothing_but_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = FakeProvider()

        async def once(exchange: Exchange) -> None:
            server.behaviour = good
            exchange.reset()

        server.behaviour = once
        async with server, providers(tmp_path, described(server)) as asked:
            assert not (await asked.gather(business())).degraded
            assert len(server.requests) == 2

    run(scenario)


@pytest.mark.parametrize(("failure", "opens"), [(Late, True), (Unavailable, True), (Absurd, False), (Declined, False)])
def test_what_says_something_about_the_provider_opens_its_breaker(failure: type[ProviderFailed], opens: bool) -> None:
    async def scenario() -> None:
        stub = Stub()
        one = around(stub, answer=failure("x"), min_calls=3)
        for number in range(3):
            assert (await of(one).gather("t", business(str(number)))).degraded
        assert (one.breaker.state == "open") is opens
        stub.answers = [OK]
        external = await of(one).gather("t", business("new"))
        assert external.degraded is opens
        assert external.evidence[0].status == ("unavailable" if opens else "ok")
        assert len(stub.asked) == (3 if opens else 4)

    run(scenario)


def test_what_is_cached_is_told_while_the_breaker_is_open() -> None:
    async def scenario() -> None:
        stub = Stub()
        one = around(stub)
        assert not (await of(one).gather("t", business("kept"))).degraded
        stub.answers = [Unavailable("x")]
        for number in range(3):
            await of(one).gather("t", business(str(number)))
        assert one.breaker.state == "open"
        assert not (await of(one).gather("t", business("kept"))).degraded

    run(scenario)


# ---------------------------------------------------------------- time and slots


def test_nobody_waits_longer_than_there_is_time_and_the_answer_comes_to_the_next() -> None:
    async def scenario() -> None:
        stub = Stub()
        stub.gate.clear()
        together = of(around(stub))
        external = await Deadline(0.05).run(_within(together))
        assert (external.evidence[0].status, external.degraded) == ("timeout", True)
        stub.gate.set()
        assert (await together.gather("t", business())).evidence[0].status == "ok"
        assert len(stub.asked) == 1

    async def _within(together: Providers) -> Any:
        # The deadline around is longer than what the providers may take of it.
        return await Providers(together._guarded, Client(1), reserve_s=0.04).gather("t", business())

    run(scenario)


def test_where_no_time_is_left_nobody_is_asked() -> None:
    async def scenario() -> None:
        stub = Stub()
        external = await Deadline(1).run(of(around(stub), reserve_s=2).gather("t", business()))
        assert external.evidence[0].status == "timeout"
        assert stub.asked == []

    run(scenario)


def test_a_wait_for_a_slot_counts_and_is_no_failure_of_the_provider() -> None:
    async def scenario() -> None:
        slots = asyncio.Semaphore(1)
        holder, waiter = Stub("holder"), Stub("waiter")
        holder.gate.clear()
        holding, late = around(holder, slots), around(waiter, slots, timeout_s=0.02, min_calls=1)
        held = asyncio.create_task(of(holding).gather("t", business()))
        await until(lambda: bool(holder.asked))
        external = await of(late).gather("t", business())
        assert (external.evidence[0].status, waiter.asked, late.breaker.state) == ("timeout", [], "closed")
        holder.gate.set()
        assert not (await held).degraded

    run(scenario)


def test_to_end_a_call_that_is_late_already_is_no_failure() -> None:
    async def scenario() -> None:
        class Clinging(Stub):
            async def gather(self, profile: wire.Profile, deadline: float) -> Provided:
                try:
                    await asyncio.Event().wait()
                finally:
                    late.set()
                    await self.gate.wait()
                return OK

        late = asyncio.Event()
        stub = Clinging()
        stub.gate.clear()
        one = around(stub, timeout_s=0.01)
        asking = asyncio.create_task(of(one).gather("t", business()))
        await late.wait()
        ending = asyncio.create_task(one.stop())
        await asyncio.sleep(0)
        stub.gate.set()
        await ending
        assert one.flying == 0
        assert (await asking).evidence[0].status == "timeout"

    run(scenario)


def test_calls_are_bounded_for_each_and_in_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def lingering(exchange: Exchange) -> None:
            both = first.busy + second.busy
            most[0] = max(most[0], both)
            # As many as may are let in before the first is answered.
            await until(lambda: most[0] >= 5)
            await exchange.answer(GOOD)

        most = [0]
        first, second = FakeProvider(lingering), FakeProvider(lingering)
        async with first, second, AsyncExitStack() as stack:
            text = described(first, "first", "1900ms", "    concurrency: 3\n")
            text += described(second, "second", "1900ms", "    concurrency: 4\n")
            asked = await stack.enter_async_context(providers(tmp_path, text, concurrency="worker_pool_size: 5"))
            found = await asyncio.gather(*(asked.gather(business(str(number))) for number in range(40)))
            assert not any(external.degraded for external in found)
            assert first.busiest <= 3
            assert second.busiest <= 4
            assert most[0] == 5

    run(scenario)


def test_a_provider_that_hangs_takes_no_slot_and_no_time_from_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        hanging, well = FakeProvider(silence), FakeProvider()
        async with hanging, well, AsyncExitStack() as stack:
            text = described(hanging, "hanging", "1900ms", "    concurrency: 2\n") + described(well, "well", "1900ms")
            asked = await stack.enter_async_context(providers(tmp_path, text, concurrency="worker_pool_size: 16"))
            stuck = [asyncio.create_task(asked.gather(business(str(number)))) for number in range(30)]
            await until(lambda: well.busy == 0 and len(well.requests) == 30)
            assert hanging.busy == 2
            assert not any(task.done() for task in stuck)
            for task in stuck:
                task.cancel()
            await asyncio.wait(stuck)

    run(scenario)


def test_under_every_fault_at_once_others_are_answered(tmp_path: Path) -> None:
    """What needs no provider that fails is answered while all faults are under way, and none of them lasts."""

    async def scenario() -> None:
        names = list(FAULTS)

        async def any_fault(exchange: Exchange) -> None:
            await FAULTS[names[int(exchange.target.rpartition("/")[2]) % len(names)]][0](exchange)

        folders = [tmp_path / name for name in ("failing", "well")]
        for folder in folders:
            folder.mkdir()
        async with FakeProvider(any_fault) as failing, FakeProvider() as well, AsyncExitStack() as stack:
            text = described(failing, timeout="50s", more="    concurrency: 100\n")
            limits = {"server": "request_deadline: 1m, shutdown_grace: 2m", "breaker": "min_calls: 1000000"}
            asked = await stack.enter_async_context(providers(folders[0], text, **limits))
            other = await stack.enter_async_context(providers(folders[1], described(well, timeout="1900ms")))
            faulty = [asyncio.create_task(asked.gather(business(str(number)))) for number in range(len(names))]
            await until(lambda: len(failing.requests) > len(names) // 2)
            for number in range(50):
                assert not (await other.gather(business(str(number)))).degraded
                assert other.providers.known("t", business(str(number))) is not None
            hanging = {number for number, name in enumerate(names) if FAULTS[name][1] == "timeout"}
            await until(lambda: sum(task.done() for task in faulty) == len(names) - len(hanging))
            assert {number for number, task in enumerate(faulty) if not task.done()} == hanging
            # Nothing hangs on when the providers are closed.
            await asked.providers.close()
            assert asked.guarded[0].flying == 0
            found = await asyncio.gather(*faulty)
            assert all(external.degraded and external.facts is None for external in found)

    run(scenario)


# ---------------------------------------------------------------- several as one


def facts() -> st.SearchStrategy[ExternalFacts]:
    return st.builds(
        ExternalFacts,
        business_status=st.none() | st.sampled_from(get_args(wire.BusinessStatus)),
        incorporated_on=st.none() | st.dates(),
        employees=st.none() | st.integers(0, 9),
        licence_status=st.none() | st.sampled_from(get_args(wire.LicenceStatus)),
        filing_overdue_days=st.none() | st.integers(0, 9),
        audit_opinion=st.none() | st.sampled_from(get_args(wire.AuditOpinion)),
        adverse_media_count=st.none() | st.integers(0, 9),
        adverse_media_severity=st.none() | st.sampled_from(get_args(wire.MediaSeverity)),
        website_verified=st.none() | st.booleans(),
        is_shell_bank=st.none() | st.booleans(),
    )


WORST = {
    "business_status": ["dissolved", "in_liquidation", "inactive", "unknown", "active"],
    "licence_status": ["revoked", "missing", "applied_for", "not_required", "held"],
    "audit_opinion": ["adverse", "disclaimer", "qualified", "unaudited", "unqualified"],
    "adverse_media_severity": ["high", "medium", "low", "none"],
    "website_verified": [False, True],
    "is_shell_bank": [True, False],
}


@given(st.lists(facts(), max_size=4))
def test_of_several_that_tell_the_same_the_most_adverse_counts(told: list[ExternalFacts]) -> None:
    found = merged(told)
    if all(one == NO_FACTS for one in told):
        assert found is None
        return
    assert found is not None
    for name in ExternalFacts.__struct_fields__:
        known = [getattr(one, name) for one in told if getattr(one, name) is not None]
        value = getattr(found, name)
        if not known:
            assert value is None
        elif name == "employees":
            assert value == known[0]
        elif name in WORST:
            assert value == next(worst for worst in WORST[name] if worst in known)
        else:
            assert value == sorted(known)[-1]


def test_every_fact_has_its_order() -> None:
    assert tuple(RANKS) == ExternalFacts.__struct_fields__


def test_one_that_fails_leaves_the_facts_of_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        failing, more, fewer = FakeProvider(status(500)), FakeProvider(company(cases=9)), FakeProvider()
        async with failing, more, fewer, AsyncExitStack() as stack:
            text = described(failing, "failing") + described(fewer, "fewer") + described(more, "more")
            asked = await stack.enter_async_context(providers(tmp_path, text))
            external = await asked.gather(business())
            assert [(line.source, line.status) for line in external.evidence] == [
                ("failing", "unavailable"),
                ("fewer", "ok"),
                ("more", "ok"),
            ]
            assert cast("ExternalFacts", external.facts).litigation_count == 9
            assert external.degraded

    run(scenario)


def test_all_are_asked_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        stubs = [Stub(str(number)) for number in range(3)]
        for stub in stubs:
            stub.gate.clear()
        task = asyncio.create_task(of(*map(around, stubs)).gather("t", business()))
        await until(lambda: all(stub.asked for stub in stubs))
        for stub in stubs:
            stub.gate.set()
        assert not (await task).degraded

    run(scenario)


def test_connections_are_used_again_and_none_is_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeProvider() as server, providers(tmp_path, described(server)) as asked:
            for number in range(5):
                await asked.gather(business(str(number)))
            assert (server.connections, len(server.requests)) == (1, 5)
            await close(asked)
            assert (await asked.gather(business("late"))).evidence[0].status == "unavailable"

    async def close(asked: Asked) -> None:
        await asked.providers.close()

    run(scenario)
