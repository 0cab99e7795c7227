"""Whether what was measured is what is wanted, and whether it may be judged at all."""

from __future__ import annotations

from collections.abc import Sequence

from app.loadtest.collected import LATE_MS, Moment, merged, summed
from app.loadtest.results import Fault, Target, Verdict
from app.loadtest.scenarios import FULL_USERS, Plan

MEAN_MS = 500.0
P95_MS = 1000.0
P99_MS = 2000.0
ERRORS_PERCENT = 0.1
AVAILABLE_PERCENT = 99.9
IN_TIME_PERCENT = 99.5
FULL_PER_SECOND = 2000.0
RECOVERY_S = 30.0
GROWTH_PERCENT = 1.0
"""An hour, of the service's memory."""
GROWTH_LEAST_S = 600
"""In less time, what comes and goes looks like growth."""
CALM_S = 10
"""So many seconds within all targets are a recovery."""
CPU_CORES = 0.95
"""A process of the generator that takes this much for a tenth of the time had no more to give."""

INVALID = "the generator was the bottleneck"


def targets(moments: Sequence[Moment], plan: Plan, faults: Sequence[Fault]) -> list[Target]:
    """What holds of so many seconds of a scenario. What was intended from a fault to the recovery is left out."""
    judged = [moment for at, moment in enumerate(moments) if not any(_is_broken(at, fault) for fault in faults)]
    times = merged(moment.times for moment in judged)
    intended = summed(judged, "intended")
    answered = summed(judged, "answered")
    errors, failed = summed(judged, "errors"), summed(judged, "failed")
    if not intended:
        return [Target("requests", "", 1, 0, False, "missed")]
    per_second = answered / len(judged)
    found = [
        _below("average", "ms", MEAN_MS, times.mean_us / 1000 if times.count else None),
        _below("p95", "ms", P95_MS, times.percentile_us(95) / 1000 if times.count else None),
        _below("p99", "ms", P99_MS, times.percentile_us(99) / 1000 if times.count else None),
        _below("errors", "%", ERRORS_PERCENT, 100 * errors / intended),
        _least("availability", "%", AVAILABLE_PERCENT, 100 * (1 - failed / intended)),
        _least("answered in time", "%", IN_TIME_PERCENT, 100 * answered / intended),
        *_throughput(per_second, min(moment.users for moment in judged)),
    ]
    found += [_recovery(fault) for fault in faults]
    return found


def _throughput(per_second: float, users: int) -> list[Target]:
    least = FULL_PER_SECOND * IN_TIME_PERCENT / 100
    asked = [
        _least("requests per second", "/s", least, per_second),
        _least("requests per minute", "/min", 60 * least, 60 * per_second),
    ]
    if users >= FULL_USERS:
        return asked
    why = f"asked from {FULL_USERS:,} users on"
    return [_unjudged(target, why) for target in asked]


def _recovery(fault: Fault) -> Target:
    name = f"recovery from {fault.name}"
    if fault.recovered_after_s is None:
        return Target(name, "s", RECOVERY_S, None, True, "missed")
    return _below(name, "s", RECOVERY_S, fault.recovered_after_s)


def growth_target(memories: Sequence[float | None]) -> Target:
    """How much more memory a service takes by the hour under the same load. memories: bytes, by seconds.

    Of the last third of the time and of the one before, the least that it took: what was given back at any moment is
    no growth. In the first third caches, pools and the buffers of connections fill (`scenarios.WARM_S`).
    """
    third_s = len(memories) // 3
    before, last = (
        [known for known in part if known is not None] for part in (memories[third_s:-third_s], memories[-third_s:])
    )
    if not before or not last or len(memories) < GROWTH_LEAST_S:
        why = f"the service did not tell it throughout {GROWTH_LEAST_S} s"
        return Target("memory growth", "%/h", GROWTH_PERCENT, None, True, "not_judged", why)
    grown = min(last) / min(before) - 1
    return _below("memory growth", "%/h", GROWTH_PERCENT, 100 * grown * 3600 / third_s)


def limit_target(plan: Plan, breaking_point: int | None, stopped_by: str | None) -> Target:
    """A stress test has succeeded where it found how many users are too many."""
    if breaking_point is None:
        why = stopped_by or "every stage met its targets"
        return Target("breaking point found", "users", plan.phases[0].first, None, False, "not_judged", why)
    return Target("breaking point found", "users", plan.phases[0].first, breaking_point, False, "met")


def is_calm(moment: Moment) -> bool:
    """Whether one second is within all targets that a second can be judged by."""
    times = moment.times
    return (
        moment.intended > 0
        and times.count > 0
        and times.mean_us < MEAN_MS * 1000
        and times.percentile_us(95) < P95_MS * 1000
        and times.percentile_us(99) < P99_MS * 1000
        and 100 * moment.errors < ERRORS_PERCENT * moment.intended
        and 100 * moment.answered >= IN_TIME_PERCENT * moment.intended
    )


def recovered_after(moments: Sequence[Moment], removed_s: float) -> float | None:
    """Seconds from the end of a fault to the first of CALM_S seconds within all targets; None where there are none."""
    calm = [is_calm(moment) for moment in moments]
    for at in range(int(removed_s), len(calm) - CALM_S + 1):
        if all(calm[at : at + CALM_S]):
            return max(0.0, at - removed_s)
    return None


def bottleneck(moments: Sequence[Moment]) -> str | None:
    """Why what was measured says more of the generator than of the service; None where it does not."""
    too_late, intended = summed(moments, "too_late"), summed(moments, "intended")
    if too_late > intended / 100:
        return (
            f"{INVALID}: {100 * too_late / intended:.1f} % of its requests were sent more than {LATE_MS:.0f} ms late, "
            "and 1 % may be; give it a core of its own, or another machine"
        )
    busy = sum(moment.cpu_most >= CPU_CORES for moment in moments)
    if busy > len(moments) / 10:
        return (
            f"{INVALID}: one of its processes took a whole core in {busy} of {len(moments)} seconds; "
            "give it more processes (--processes)"
        )
    return None


def unjudged(given: Sequence[Target], why: str) -> list[Target]:
    """The same, of a run that proves nothing."""
    return [_unjudged(target, why) for target in given]


def overall(given: Sequence[Target]) -> Verdict:
    """Of all targets together."""
    verdicts = {target.verdict for target in given}
    if "missed" in verdicts:
        return "missed"
    return "met" if "met" in verdicts else "not_judged"


def _is_broken(at: int, fault: Fault) -> bool:
    after_s = RECOVERY_S if fault.recovered_after_s is None else fault.recovered_after_s
    return fault.set_s - 1 < at < fault.removed_s + after_s


def _below(name: str, unit: str, bound: float, measured: float | None) -> Target:
    met = measured is not None and measured < bound
    return Target(name, unit, bound, _shown(measured), True, "met" if met else "missed")


def _least(name: str, unit: str, bound: float, measured: float) -> Target:
    return Target(name, unit, bound, _shown(measured), False, "met" if measured >= bound else "missed")


def _shown(measured: float | None) -> float | None:
    return None if measured is None else round(measured, 4)


def _unjudged(target: Target, why: str) -> Target:
    return Target(target.name, target.unit, target.bound, target.measured, target.at_most, "not_judged", why)
