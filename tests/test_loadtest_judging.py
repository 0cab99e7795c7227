"""What is judged, what is not, and why: without a server."""

from __future__ import annotations

import pytest

from app.loadtest import judging, machine
from app.loadtest.breaking import ordered
from app.loadtest.collected import Collected, Moment
from app.loadtest.histogram import Histogram
from app.loadtest.mix import MIXES, MixUnknown, ServiceMix, shares
from app.loadtest.process import Point, Told, mine, users_at
from app.loadtest.results import Fault
from app.loadtest.scenarios import SCENARIOS, SOAK_S, STRESS, WARM_S, Phase, Plan, lasting, quick
from app.loadtest.service import Address, NotUsable, found
from app.loadtest.watching import read, readings

PER_TIME = ("requests per second", "requests per minute")
HERE = Address("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", "")
THERE = Address("http://192.0.2.1:8080", "192.0.2.1", 8080, "192.0.2.1:8080", "")
PLAN = SCENARIOS["sustained"](10_000)


def packed(milliseconds: float, count: int) -> tuple[int, int, int, list[tuple[int, int]]]:
    made = Histogram()
    for _ in range(count):
        made.add(int(milliseconds * 1000))
    return made.packed()


def told(
    second: int, answered: int = 2000, errors: int = 0, ms: float = 5.0, late_ms: float = 1.0, **more: float
) -> Told:
    return Told(
        0,
        second,
        int(more.get("users", 10_000)),
        10_000,
        answered + errors,
        [("assess", 201, answered)],
        [("assess", "no answer in time", errors)] if errors else [],
        {"assess": packed(ms, answered)},
        packed(late_ms, answered + errors),
        more.get("cpu", 0.2),
    )


def moments(*given: Told) -> list[Moment]:
    collected = Collected(len(given))
    for one in given:
        collected.add(one)
    return collected.moments


def verdicts(given: list[Moment], faults: tuple[Fault, ...] = ()) -> dict[str, str]:
    return {target.name: target.verdict for target in judging.targets(given, PLAN, faults)}


def test_all_targets_are_met_by_what_is_wanted() -> None:
    assert set(verdicts(moments(*map(told, range(5)))).values()) == {"met"}


@pytest.mark.parametrize(
    ("second", "missed"),
    [
        (told(0, ms=600), {"average"}),
        (told(0, ms=1200), {"average", "p95"}),
        (told(0, ms=2500), {"average", "p95", "p99"}),
        (told(0, 1997, 3), {"errors", "availability"}),
        (
            told(0, 1980, 20),
            {"errors", "availability", "answered in time", "requests per second", "requests per minute"},
        ),
    ],
)
def test_each_target_is_missed_for_its_own_reason(second: Told, missed: set[str]) -> None:
    found = verdicts(moments(second))
    assert {name for name, verdict in found.items() if verdict == "missed"} == missed


def test_throughput_is_asked_from_ten_thousand_users_on() -> None:
    found = verdicts(moments(told(0, 20, users=100)))
    assert found["requests per second"] == found["requests per minute"] == "not_judged"
    assert found["answered in time"] == "met"


def test_recovery_is_judged_only_where_something_was_broken() -> None:
    assert not [name for name in verdicts(moments(told(0))) if name.startswith("recovery")]


def test_memory_may_not_grow() -> None:
    def judged(*memories: float | None) -> tuple[float | None, str]:
        target = judging.growth_target(memories)
        return target.measured, target.verdict

    warm_up = [1e8 + 5e5 * at for at in range(210)]
    level = [2e8 + 1e6 * (at % 7) for at in range(420)]
    assert judged(*warm_up, *level) == (0, "met")
    # For two minutes it takes more, and gives it back.
    assert judged(*warm_up, *[memory + 5e6 * (200 < at < 320) for at, memory in enumerate(level)]) == (0, "met")
    growing = [memory * (1 + 0.02 * at / 3600) for at, memory in enumerate(level)]
    assert judged(*warm_up, *growing) == (pytest.approx(2, abs=0.01), "missed")
    assert judged(*warm_up, *[memory * (1 - 0.02 * at / 3600) for at, memory in enumerate(level)])[1] == "met"
    assert judged(*warm_up, *level[:300]) == (None, "not_judged")
    assert judged(*[None] * 630) == judged() == (None, "not_judged")


def test_memory_is_judged_where_the_users_stay_for_ten_minutes() -> None:
    assert [name for name, make in SCENARIOS.items() if make(10_000).is_soak] == ["sustained", "endurance"]
    long, short = lasting(PLAN, 600, 1.0), lasting(PLAN, 599, 1.0)
    assert (long.is_soak, long.warm_s) == (True, WARM_S)
    assert (short.is_soak, short.warm_s) == (False, 0)
    # Within what is not looked at.
    assert WARM_S < SOAK_S / 3


def test_a_recovery_is_ten_seconds_within_all_targets() -> None:
    broken, well = [told(at, 100, 1900) for at in range(10, 24)], [told(at) for at in range(24, 40)]
    seen = moments(*[told(at) for at in range(10)], *broken, *well)
    assert judging.recovered_after(seen, 20.5) == 3.5
    assert judging.recovered_after(seen[:33], 20.5) is None
    fault = Fault("redis-down", 10.2, 20.5, 3.5)
    found = verdicts(seen, (fault,))
    assert found.pop("recovery from redis-down") == "met"
    assert set(found.values()) == {"met"}
    assert verdicts(seen)["errors"] == "missed"
    assert verdicts(seen, (Fault("redis-down", 10.2, 20.5, None),))["recovery from redis-down"] == "missed"
    assert verdicts(seen, (Fault("redis-down", 10.2, 20.5, 31.0),))["recovery from redis-down"] == "missed"


def test_a_generator_that_was_late_itself_proves_nothing() -> None:
    late = [told(at, late_ms=judging.LATE_MS + 20 if at % 4 == 0 else 1) for at in range(400)]
    assert judging.INVALID in str(judging.bottleneck(moments(*late[:4])))
    assert judging.bottleneck(moments(told(0))) is None
    assert judging.bottleneck(moments(late[0], *[told(at) for at in range(1, 101)])) is None


def test_a_generator_that_took_a_whole_core_proves_nothing() -> None:
    assert judging.INVALID in str(judging.bottleneck(moments(*[told(at, cpu=0.99) for at in range(5)])))
    assert judging.bottleneck(moments(*[told(at, cpu=0.99 if at == 0 else 0.3) for at in range(20)])) is None


def test_what_comes_later_of_a_second_is_added_to_it() -> None:
    collected = Collected(100)
    for second in range(60):
        collected.add(told(second))
    later = Told(0, 3, 0, 0, 0, [("assess", 201, 5)], [], {"assess": packed(9000, 5)}, packed(0, 0), 0.0)
    collected.add(later)
    assert (collected.moments[3].answered, collected.moments[3].users) == (2005, 10_000)
    assert collected.moments[3].times.count == 2005
    assert collected.moments[3].times.most_us == 9_000_000


def test_the_scenarios_are_those_promised() -> None:
    shown = {name: (make(10_000).users, make(10_000).seconds) for name, make in SCENARIOS.items()}
    assert shown == {
        "baseline": (100, 60),
        "ramp-up": (10_000, 300),
        "sustained": (10_000, 1800),
        "spike": (15_000, 420),
        "stress": (100_000, 120 * len(STRESS)),
        "endurance": (10_000, 7200),
        "flat-out": (10_000, 60),
    }
    stages = [phase.last for phase in SCENARIOS["stress"](10_000).phases]
    assert stages[:5] == [10_000, 12_000, 15_000, 18_000, 20_000]
    assert stages == sorted(stages)
    assert [(plan.name, plan.users) for plan in quick(1000)] == [("baseline", 100), ("ramp-up", 1000), ("spike", 2000)]
    assert sum(plan.seconds for plan in quick(1000)) <= 120


def test_times_shrink_and_users_do_not() -> None:
    plan = lasting(SCENARIOS["spike"](10_000), None, 0.1)
    assert [phase.seconds for phase in plan.phases] == [12, 12, 18]
    assert plan.users == 15_000
    assert [phase.seconds for phase in lasting(plan, None, 0.001).phases] == [5, 5, 5]
    assert lasting(SCENARIOS["sustained"](10), 90, 1).seconds == 90
    assert {phase.seconds for phase in lasting(SCENARIOS["stress"](10), 30, 1).phases} == {30}


def test_users_between_points() -> None:
    points = Plan("", "", (Phase(10, 0, 100), Phase(5, 200, 200))).points()
    assert [users_at(points, at) for at in (0, 5, 9.9, 10, 14, 15, 99)] == [0, 50, 99, 200, 200, 200, 200]
    assert users_at([Point(0, 7), Point(0, 9), Point(1, 9)], 0) == 9
    assert [sum(mine(users, number, 3) for number in range(3)) for users in (0, 1, 2, 3, 100.4)] == [0, 1, 2, 3, 100]


def test_a_mix_is_a_name_or_weights() -> None:
    assert shares("assess=3,read=1") == {"assess": 0.75, "read": 0.25}
    assert all(sum(shares(name).values()) == pytest.approx(1) for name in MIXES)
    for text in ("nonsense", "assess", "assess=-1", "assess=x", "write=1", "assess=nan", ""):
        with pytest.raises(MixUnknown, match="take assessments, dry-runs, realistic"):
            shares(text)


def test_a_mix_asks_in_its_shares_and_reads_what_was_recorded() -> None:
    mix = ServiceMix("service:8080", "kyb_test_key", shares("realistic"), "run", 1)
    assert mix.ask().kind != "read"
    mix.told("assess", 201, b"http/1.1 201 created\r\nlocation: /v1/assessments/7\r\nx: y")
    asks = [mix.ask() for _ in range(5000)]
    counts = {kind: sum(ask.kind == kind for ask in asks) / 5000 for kind in MIXES["realistic"]}
    assert counts == pytest.approx(MIXES["realistic"], abs=0.03)
    assert {ask.data.split()[1] for ask in asks if ask.kind == "read"} == {b"/v1/assessments/7"}
    keys = [ask.data.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0] for ask in asks if b"POST" in ask.data[:4]]
    assert len(set(keys)) == len(keys) > 3000
    bodies = [ask.data.partition(b"\r\n\r\n")[2] for ask in asks if ask.kind == "assess"]
    assert 0.05 < 1 - len(set(bodies)) / len(bodies) < 0.15
    assert all(b"\r\nX-API-Key: kyb_test_key\r\n" in ask.data for ask in asks)
    for ask in asks[:200]:
        head, _, body = ask.data.partition(b"\r\n\r\n")
        assert head.count(b"Content-Length: %d" % len(body)) == (b"POST" in head[:4])


def test_the_most_of_a_mix_is_a_batch_where_it_has_any() -> None:
    made = {
        text: ServiceMix("service:8080", "", shares(text), "run", 1).ask_most() for text in ("realistic", "assess=1")
    }
    assert {text: ask.kind for text, ask in made.items()} == {"realistic": "batch", "assess=1": "assess"}
    assert made["realistic"].data.startswith(b"POST /v1/assessments/batch ")


def test_a_mix_can_keep_to_some_businesses_and_to_dry_runs() -> None:
    mix = ServiceMix("service:8080", "kyb_test_key", shares("dry-runs"), "run", 1, businesses=20)
    asks = [mix.ask() for _ in range(1000)]
    assert len({ask.data.partition(b"\r\n\r\n")[2] for ask in asks}) == 20
    assert {ask.data.split(b" ")[1] for ask in asks} == {b"/v1/assessments?dry_run=true"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("earthquake", "is no fault; give redis-down, db-restart, worker-kill, provider-slow"),
        ("redis-down@soon", "is no fault"),
        ("redis-down@30s", "--fault-command and --restore-command"),
    ],
)
def test_a_fault_that_cannot_be_set_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(NotUsable, match=says):
        ordered(text, None, None, None)


def test_a_fault_with_its_times() -> None:
    fault = ordered("redis-down@1m+20s", "systemctl stop redis", "systemctl start redis", None)
    assert (fault.at_s, fault.lasts_s) == (60.0, 20.0)
    assert ordered("worker-kill", None, None, None).lasts_s == 0
    assert ordered("db-restart@5s", "systemctl restart postgresql", None, None).lasts_s == 0


@pytest.mark.parametrize(
    "url", ["https://a", "127.0.0.1:8080", "http://", "http://a/v1", "http://[::1", "http://h:99999"]
)
def test_a_url_that_cannot_be_tested_is_refused(url: str) -> None:
    with pytest.raises(NotUsable):
        found(url, "")


def test_this_machine_s_limits_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (1024, 20_000))
    monkeypatch.setattr(machine, "_ports", lambda: (32768, 60999))
    few = machine.shared(10_000, HERE, None, None)
    assert (few.processes, few.sources, few.stopped_by) == (1, (), None)
    many = machine.shared(60_000, HERE, None, None)
    assert many.processes == 4
    assert len(many.sources) == len(set(many.sources)) >= 3
    assert many.stopped_by is None
    assert "local ports" in str(machine.shared(60_000, THERE, None, None).stopped_by)
    held = read("process_max_fds 1024\nservice_workers 2\n", 0.0)
    assert "may open 1,024 files" in str(machine.shared(2000, HERE, held, None).stopped_by)
    assert machine.shared(1500, HERE, held, None).stopped_by is None
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (256, 256))
    assert "ulimit" in str(machine.shared(10_000, HERE, None, None).stopped_by)


def test_what_the_service_tells_of_itself_second_by_second() -> None:
    def sample(at: float, cpu: float, fast: int, slow: int) -> str:
        return (
            "# HELP process_cpu_seconds_total CPU\n"
            f"process_cpu_seconds_total {cpu}\nprocess_resident_memory_bytes 1e+08\n"
            f'event_loop_lag_seconds_bucket{{le="0.005"}} {fast}\n'
            f'event_loop_lag_seconds_bucket{{le="0.25"}} {fast + slow}\n'
            f'event_loop_lag_seconds_bucket{{le="+Inf"}} {fast + slow}\n'
        )

    samples = [
        read(sample(at, cpu, fast, slow), at)
        for at, cpu, fast, slow in [(9.5, 1.0, 0, 0), (10.5, 1.0, 4, 0), (11.5, 2.0, 8, 0), (12.5, 2.0, 8, 4)]
    ]
    first, second, third = readings(samples, 10.0, 3)
    assert (first.cpu, second.cpu, third.cpu) == (0.5, None, None)
    assert (first.memory, first.lag_s, second.lag_s, third.lag_s) == (1e8, 0.005, 0.005, 0.25)
    assert readings([], 10.0, 1) == [(None, None, None)]
