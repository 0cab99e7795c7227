"""Reports of load tests as they come out: made up, by arithmetic alone, so that they are the same every time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import structs

from app.loadtest.results import (
    Environment,
    Fault,
    Percentiles,
    Report,
    Route,
    Scenario,
    Second,
    Stage,
    Target,
    Verdict,
)

NONE = Percentiles(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
MIX = {"assess": 0.7, "read": 0.24, "batch": 0.01, "health": 0.05}
OF_KIND = {"assess": 1.0, "read": 0.6, "batch": 3.2, "health": 0.3}
"""How slow each kind is beside the others."""

Users = Callable[[int], int]
Slowness = Callable[[int], float]


def environment(
    at: str = "2026-11-26T09:30:00Z", *, is_told: bool = True, commit: str | None = "4f1c22a"
) -> Environment:
    service = {"version": "1.0.0", "workers": "1", "database": "PostgreSQL 18.1", "redis": "Valkey 9.1"}
    return Environment(
        at=at,
        url="http://127.0.0.1:8080",
        machine="Linux 6.8 x86_64, AMD EPYC 7B13",
        cores=2,
        python="CPython 3.11.7",
        generator_version="1.0.0",
        commit=commit,
        settings={"users": "10,000", "interval": "5 s", "mix": "realistic", "processes": "1"},
        limits={"open files": 1_048_576, "local ports": 28_232},
        service=service if is_told else None,
    )


def percentiles(times: Sequence[float], each: int) -> Percentiles:
    """each: how many answers every one of the times stands for."""
    if not times:
        return NONE
    ordered = sorted(times)

    def of(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    mean = round(sum(ordered) / len(ordered), 3)
    return Percentiles(
        each * len(ordered), mean, of(0.5), of(0.9), of(0.95), of(0.99), of(0.999), round(ordered[-1], 3)
    )


def judged(
    name: str, unit: str, bound: float, measured: float | None, *, at_most: bool = True, why: str = ""
) -> Target:
    if measured is None or why:
        return Target(name, unit, bound, measured, at_most, "not_judged", why)
    is_met = measured <= bound if at_most else measured >= bound
    return Target(name, unit, bound, measured, at_most, "met" if is_met else "missed")


def scenario(
    name: str,
    description: str,
    lasting_s: int,
    users: Users,
    *,
    slowness: Slowness = lambda _: 1.0,
    failing: Slowness = lambda _: 0.0,
    is_told: bool = True,
    late_ms: float = 0.4,
    seed: int = 7,
) -> Scenario:
    """users, slowness, failing: by second; slowness is a factor, failing a share.  A fifth of all answers is drawn."""
    chance = random.Random(seed)
    seconds: list[Second] = []
    every: list[float] = []
    of_kind: dict[str, list[float]] = {kind: [] for kind in MIX}
    buckets: Counter[float] = Counter()
    intended = answered = errors = 0
    for at in range(lasting_s):
        asked = users(at) // 5
        failed = min(asked, sum(chance.random() < failing(at) for _ in range(asked)))
        times: list[float] = []
        for _ in range(max(1, (asked - failed) // 5) if asked > failed else 0):
            kind = chance.choices(list(MIX), list(MIX.values()))[0]
            took = OF_KIND[kind] * slowness(at) * chance.lognormvariate(1.1, 0.55)
            took += chance.expovariate(1 / 18) if chance.random() < 0.012 else 0.0
            times.append(took)
            of_kind[kind].append(took)
            buckets[float(f"{took:.3g}")] += 5
        every += times
        intended, answered, errors = intended + asked, answered + asked - failed, errors + failed
        share = asked / 2000
        lag = slowness(at) * (0.0006 + 0.0009 * share * chance.uniform(0.7, 1.6))
        seconds.append(
            Second(
                at_s=at,
                users=users(at),
                connections=users(at) - failed // 3,
                intended=asked,
                answered=asked - failed,
                errors=failed,
                latency=percentiles(times, 5),
                late_p99_ms=round(late_ms * chance.uniform(0.6, 1.8), 3),
                generator_cpu=round(0.02 + 0.19 * share * chance.uniform(0.95, 1.05), 3),
                service_cpu=round(0.03 + 0.55 * share * chance.uniform(0.95, 1.08), 3) if is_told else None,
                service_memory=118e6 + 17_000.0 * users(at) + 25_000.0 * at if is_told else None,
                service_lag_s=round(lag, 6) if is_told else None,
            )
        )
    latency = percentiles(every, 5)
    per_second = answered / lasting_s if lasting_s else 0.0
    return Scenario(
        name=name,
        description=description,
        mix=MIX,
        users=max((second.users for second in seconds), default=0),
        started_at="2026-11-26T09:30:05Z",
        duration_s=float(lasting_s),
        latency=latency,
        per_second=per_second,
        per_minute=60 * per_second,
        intended=intended,
        answered=answered,
        errors=errors,
        routes=[
            Route(kind, percentiles(times, 5), {"200" if kind in ("read", "health") else "201": 5 * len(times)},
                  {"timed out": errors} if kind == "assess" and errors else {})
            for kind, times in of_kind.items()
        ],
        seconds=seconds,
        histogram=sorted(buckets.items()),
        targets=targets(latency, per_second, intended, errors),
    )  # fmt: skip


def targets(latency: Percentiles, per_second: float, intended: int, errors: int) -> list[Target]:
    if not intended:
        bounds = (("average", 500), ("p95", 1000), ("p99", 2000))
        return [judged(name, "ms", bound, None, why="no request was answered") for name, bound in bounds]
    failed = 100 * errors / intended
    return [
        judged("average", "ms", 500, latency.mean),
        judged("p95", "ms", 1000, latency.p95),
        judged("p99", "ms", 2000, latency.p99),
        judged("requests per second", "/s", 1990, per_second, at_most=False)
        if intended >= 300_000
        else judged("requests per second", "/s", 1990, per_second, at_most=False, why="asked from 10,000 users on"),
        judged("answered in time", "%", 99.5, 100 - failed, at_most=False),
        judged("errors", "%", 0.1, failed),
        judged("availability", "%", 99.9, 100 - failed, at_most=False),
    ]


def report(
    *scenarios: Scenario, at: str = "2026-11-26T09:30:00Z", is_told: bool = True, commit: str = "4f1c22a"
) -> Report:
    verdicts = {target.verdict for one in scenarios for target in one.targets}
    verdict: Verdict = "missed" if "missed" in verdicts else "met" if "met" in verdicts else "not_judged"
    return Report(environment(at, is_told=is_told, commit=commit), list(scenarios), verdict)


def sustained(*, faster: float = 1.0, is_told: bool = True) -> Scenario:
    return scenario(
        "sustained",
        "10,000 users, each with a connection of its own and a request every 5 s.",
        300,
        lambda _: 10_000,
        slowness=lambda at: faster * (1.6 if 140 <= at < 143 else 1.0),
        is_told=is_told,
    )


def stress() -> Scenario:
    levels = (10_000, 12_000, 15_000, 18_000)
    made = scenario(
        "stress",
        "More and more users until a target is missed.",
        480,
        lambda at: levels[at // 120],
        slowness=lambda at: (1.0, 1.5, 8.0, 300.0)[at // 120],
        failing=lambda at: 0.004 if at >= 360 else 0.0,
    )
    stages = []
    for place, users in enumerate(levels):
        of_stage = made.seconds[place * 120 : place * 120 + 120]
        p95 = sorted(second.latency.p95 for second in of_stage)[60]
        p99 = sorted(second.latency.p99 for second in of_stage)[60]
        asked, failed = sum(s.intended for s in of_stage), sum(s.errors for s in of_stage)
        judgements = [judged("p95", "ms", 1000, p95), judged("p99", "ms", 2000, p99)]
        judgements.append(judged("errors", "%", 0.1, 100 * failed / asked))
        stages.append(Stage(users, place * 120, place * 120 + 120, judgements))
    stages.append(Stage(20_000, 480, 480, [], "open files: 20,480 are needed, 16,384 are allowed"))
    found = [judged("breaking point found", "users", 10_000, 18_000, at_most=False)]
    return replaced(made, stages=stages, breaking_point=18_000, targets=found)


def broken() -> Scenario:
    made = scenario(
        "sustained with redis-down",
        "10,000 users while Redis is stopped for 20 s.",
        120,
        lambda _: 10_000,
        slowness=lambda at: 9.0 if 40 <= at < 60 else 3.0 if 60 <= at < 64 else 1.0,
        failing=lambda at: 0.02 if 40 <= at < 42 else 0.0,
    )
    faults = [Fault("redis-down", 40.0, 60.2, 4.6)]
    return replaced(made, faults=faults, targets=[*made.targets, judged("recovery from redis-down", "s", 30, 4.6)])


def invalid() -> Scenario:
    made = scenario("spike", "10,000 users, then 15,000 at once, then 10,000.", 140,
                    lambda at: 15_000 if 40 <= at < 80 else 10_000, late_ms=220.0)  # fmt: skip
    return replaced(
        made,
        invalid="the generator was the bottleneck: a hundredth of its requests was sent 210 ms late or later, and "
        "100 are allowed; give it a core of its own, or another machine",
        stopped_by="local ports: 28,232 are there, one source address is not enough for more",
    )


def empty() -> Scenario:
    return scenario("baseline", "Nobody came.", 0, lambda _: 0)


def replaced(made: Scenario, **changes: object) -> Scenario:
    return structs.replace(made, **changes)
