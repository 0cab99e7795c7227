"""Rate limits in one process: what is granted, what callers are told, and whose requests count together."""

from __future__ import annotations

import asyncio
import logging
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import COSTS, PAUSES_US, WHERE, Clock, Oracle, allowance, bucket, three_buckets

from app.limits.allowance import Allowance, Bucket, Taken, fields
from app.limits.allowances import Allowances
from app.limits.batch import Batch
from app.limits.limiter import Limiter
from app.limits.part import Part
from app.settings.rates import Rate
from app.settings.tree import Limits
from app.store.access import StoredKey


def taken_here(limiter: Limiter, whose: Allowance, cost: int = 1, times: int = 1) -> list[Taken]:
    async def scenario() -> list[Taken]:
        return [await limiter.take(whose, cost) for _ in range(times)]

    return asyncio.run(scenario())


def granted_here(limiter: Limiter, whose: Allowance, cost: int = 1, times: int = 1) -> int:
    return sum(taken.granted for taken in taken_here(limiter, whose, cost, times))


@given(three_buckets(), st.lists(st.tuples(PAUSES_US, WHERE, COSTS), max_size=60))
def test_a_process_alone_grants_what_token_buckets_grant(
    buckets: tuple[Bucket, ...], requests: list[tuple[int, tuple[int, ...], int]]
) -> None:
    part, oracle, now_us = Part(1), Oracle(), 0
    for pause_us, places, cost in requests:
        now_us += pause_us
        wanted = [buckets[place] for place in places]
        known_s = part.wait_s(wanted, cost, now_us / 1e6)
        taken = part.take(wanted, cost, now_us / 1e6)
        oracle.check(wanted, cost, now_us, taken.granted)
        assert taken.wait_s == pytest.approx(known_s, rel=1e-6, abs=1e-9)
        for one, told in zip(wanted, taken.standings, strict=True):
            assert told is not None
            owed = oracle.owed(one)
            assert told[0] == pytest.approx(max(0, one.rate.burst - owed), abs=1)
            assert told[1] == pytest.approx(owed / one.rate.per_s, abs=1.01, rel=1e-6)


def test_what_is_refused_is_granted_once_it_has_waited_as_it_was_told() -> None:
    clock = Clock()
    limiter = Limiter(None, 1, clock)
    whose = allowance(bucket(per_s=3, burst=7))
    assert granted_here(limiter, whose, times=7) == 7
    for cost in (1, 2, 7):
        (refused,) = taken_here(limiter, whose, cost)
        assert not refused.granted
        assert limiter.refusal(whose, cost) == refused.wait_s == pytest.approx(cost / 3)
        clock.now += refused.wait_s * 0.999
        assert not taken_here(limiter, whose, cost)[0].granted
        clock.now += refused.wait_s * 0.001
        assert taken_here(limiter, whose, cost)[0].granted


def test_more_than_a_bucket_holds_is_granted_from_a_full_one_and_owed() -> None:
    clock = Clock()
    limiter = Limiter(None, 1, clock)
    whose = allowance(bucket(per_s=10, burst=5))
    (first,) = taken_here(limiter, whose, 25)
    assert first.granted
    assert first.standings == [(0, 3)]
    (second,) = taken_here(limiter, whose)
    assert not second.granted
    assert second.wait_s == pytest.approx(2.1)
    clock.now += 2.4
    assert not taken_here(limiter, whose, 25)[0].granted
    clock.now += 0.1
    assert taken_here(limiter, whose, 25)[0].granted


def test_a_request_is_taken_from_all_its_buckets_or_from_none() -> None:
    limiter = Limiter(None, 1, Clock())
    key, service = bucket("key", burst=5), bucket("service", burst=2)
    assert granted_here(limiter, allowance(key, service), times=4) == 2
    assert granted_here(limiter, allowance(key), times=4) == 3


def test_over_a_long_time_the_rate_is_exact() -> None:
    clock = Clock()
    limiter = Limiter(None, 1, clock)
    whose = allowance(bucket(per_s=1234.5, burst=10))

    async def scenario() -> int:
        granted = 0
        for _ in range(100_000):
            clock.now += 0.000_37
            granted += (await limiter.take(whose)).granted
        return granted

    assert asyncio.run(scenario()) == pytest.approx(1234.5 * 37 + 10, abs=2)


def test_several_processes_without_redis_grant_the_rate_among_them() -> None:
    clock = Clock()
    whose = allowance(bucket(per_s=100, burst=10))
    limiters = [Limiter(None, 4, clock) for _ in range(4)]
    assert [granted_here(limiter, whose, times=20) for limiter in limiters] == [2] * 4
    clock.now += 0.04
    assert [granted_here(limiter, whose, times=20) for limiter in limiters] == [1] * 4


def test_a_part_of_a_burst_is_one_request_at_least() -> None:
    assert granted_here(Limiter(None, 50, Clock()), allowance(bucket(burst=3)), times=5) == 1


def test_a_new_rate_counts_at_once_and_what_was_taken_stays_taken() -> None:
    clock = Clock()
    limiter = Limiter(None, 1, clock)
    assert granted_here(limiter, allowance(bucket(burst=5)), times=3) == 3
    assert granted_here(limiter, allowance(bucket(burst=8)), times=9) == 5
    clock.now += 1
    assert granted_here(limiter, allowance(bucket(per_s=2, burst=8)), times=9) == 0
    clock.now += 1
    assert granted_here(limiter, allowance(bucket(per_s=2, burst=8)), times=9) == 2


def test_the_bucket_not_used_for_longest_makes_room() -> None:
    part = Part(1, most=2)
    one, two, three = (bucket(key, burst=1) for key in ("one", "two", "three"))
    assert [part.take([kept], 1, 0.0).granted for kept in (one, two, one, three, one, two)] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_the_caller_is_told_of_every_bucket_with_a_name() -> None:
    limiter = Limiter(None, 1, Clock())
    whose = allowance(
        bucket("a", per_s=200, burst=400, name="key"),
        bucket("b", per_s=0.5, burst=3, name="tenant"),
        bucket("c", per_s=5000, burst=7),
    )
    assert fields(whose, taken_here(limiter, whose, 2)[0]) == (
        (b"ratelimit-policy", b'"key";q=400;w=2, "tenant";q=3;w=6'),
        (b"ratelimit", b'"key";r=398;t=1, "tenant";r=1;t=4'),
    )
    refused = taken_here(limiter, whose, 2)[0]
    assert not refused.granted
    # Two more are there in 2 s, and a refusal tells of no later time than Retry-After.
    assert fields(whose, refused)[1] == (b"ratelimit", b'"key";r=398;t=1, "tenant";r=1;t=2')


def test_of_a_bucket_in_debt_nothing_is_left() -> None:
    limiter = Limiter(None, 1, Clock())
    whose = allowance(bucket(per_s=1, burst=3, name="key"))
    assert fields(whose, taken_here(limiter, whose, 10)[0])[1] == (b"ratelimit", b'"key";r=0;t=10')


def test_nothing_is_told_of_buckets_without_names_or_of_unknown_standing() -> None:
    silent, named = allowance(bucket()), allowance(bucket(name="key"), bucket("b", name="service"))
    assert fields(silent, Taken(True, 0.0, [(4, 1)])) == ()
    assert fields(named, Taken(True, 0.0, [None, (0, 5)]))[1] == (b"ratelimit", b'"service";r=0;t=5')
    assert [name for name, _ in fields(named, Taken(False, 1.0, [None, None]))] == [b"ratelimit-policy"]


def test_what_wants_the_same_one_after_the_other_is_asked_for_together() -> None:
    shared = bucket("shared")
    one, two = allowance(bucket("one"), shared), allowance(bucket("two"), shared)
    batch = Batch([(one, 1), (one, 1), (two, 1), (one, 1), (one, 5)])
    assert batch.keys == [b"kyb:limit:one", b"kyb:limit:shared", b"kyb:limit:two"]
    assert batch.groups == [[1, 2], [3, 2]]
    assert batch.runs == [(1, 1, 2), (2, 1, 1), (1, 1, 1), (1, 5, 1)]


def limits(**changed: Rate | None) -> Limits:
    tiers = {"standard": Rate(200.0, 400), "high": Rate(2000.0, 4000), "own": None}
    given: dict[str, Rate | None] = {"tenant": Rate(3000.0, 3000), "service": Rate(9000.0, 9000)} | changed
    return Limits(tiers=MappingProxyType(tiers), default_tier="standard", **given)  # type: ignore[arg-type]


def key(
    id: str = "Key000000001", tenant_id: str = "acme", tier: str | None = None, rate: str | None = None
) -> StoredKey:
    return StoredKey(
        id=id, tenant_id=tenant_id, name="", role="viewer", scopes=None, digest=b"", networks=(), tier=tier, rate=rate,
        created_ms=0, created_by="",
    )  # fmt: skip


def test_a_key_is_limited_by_itself_with_its_tenant_and_with_all() -> None:
    made = Allowances(limits(), None).of_key(key())
    assert made is not None
    assert made.buckets == (
        Bucket("key", b"kyb:limit:{acme}:key:Key000000001", Rate(200.0, 400)),
        Bucket("tenant", b"kyb:limit:{acme}:tenant", Rate(3000.0, 3000)),
        Bucket("service", b"kyb:limit:service", Rate(9000.0, 9000)),
    )


@pytest.mark.parametrize(
    ("tier", "rate", "expected"),
    [
        (None, None, Rate(200.0, 400)),
        ("high", None, Rate(2000.0, 4000)),
        (None, "5/s burst 7", Rate(5.0, 7)),
        ("own", None, None),
        (None, "unlimited", None),
    ],
)
def test_a_key_has_its_own_rate_or_that_of_its_tier_or_the_default(
    tier: str | None, rate: str | None, expected: Rate | None
) -> None:
    made = Allowances(limits(tenant=None, service=None), None).of_key(key(tier=tier, rate=rate))
    assert (made and made.buckets[0].rate) == expected


def test_a_tier_that_is_no_longer_in_the_settings_is_the_default_one_and_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        made = Allowances(limits(), None).of_key(key(tier="gone"))
    assert made is not None
    assert made.buckets[0].rate == Rate(200.0, 400)
    assert "Key000000001" in caplog.text
    assert "gone" in caplog.text


def test_an_unlimited_key_still_shares_its_tenants_limit() -> None:
    made = Allowances(limits(service=None), None).of_key(key(tier="own"))
    assert made is not None
    assert [one.name for one in made.buckets] == ["tenant"]


def test_the_same_key_has_the_same_allowance_and_any_other_has_another() -> None:
    allowances = Allowances(limits(), None)
    others = [key("Key000000002"), key(tenant_id="other"), key(tier="high"), key(rate="1/s")]
    assert allowances.of_key(key()) is allowances.of_key(key())
    assert len({allowances.of_key(one) for one in [key(), *others]}) == 5


def test_a_tenant_of_any_text_has_a_bucket_of_its_own() -> None:
    allowances = Allowances(limits(), None)
    tenants = ["a", "a:b", "é", "\udc80", ""]
    made = [allowances.of_key(key(tenant_id=tenant_id)) for tenant_id in tenants]
    assert len({one.buckets[1].key for one in made if one is not None}) == len(tenants)


def test_refused_logins_are_limited_by_address_and_nobody_is_told() -> None:
    allowances = Allowances(limits(), Rate(1.0, 30))
    made = allowances.of_address("192.0.2.7")
    assert made is not None
    assert made.buckets == (Bucket(None, b"kyb:limit:address:192.0.2.7", Rate(1.0, 30)),)
    assert made.policy == b""
    assert allowances.of_address("192.0.2.7") is made
    assert Allowances(limits(), None).of_address("192.0.2.7") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0::1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("", "unix:", True),
    ],
)
def test_addresses_that_are_one_host_count_together(one: str, other: str, same: bool) -> None:
    allowances = Allowances(limits(), Rate(1.0, 30))
    made = [allowances.of_address(address) for address in (one, other)]
    assert len({one.buckets[0].key for one in made if one is not None}) == 2 - same
