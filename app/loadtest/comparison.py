"""This run beside an earlier one: the ratio of each figure, and what was not the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from app.loadtest.figures import UNKNOWN, duration, memory, milliseconds, number, percent
from app.loadtest.results import Environment, Percentiles, Report, Scenario, Second

NOISE = 0.05
"""Ratios nearer to 1 than this say nothing."""
NEVER_THE_SAME = {"process of the generator", "process_id", "uptime_s"}

Change = Literal["better", "worse", "same", "unknown"]


class Pair(NamedTuple):
    """A figure of both runs, as text. ratio: now to earlier, None where there is none."""

    name: str
    earlier: str
    now: str
    ratio: float | None
    change: Change


class Difference(NamedTuple):
    """What of the runs themselves was not the same."""

    name: str
    earlier: str
    now: str


class _Figure(NamedTuple):
    name: str
    read: Callable[[Scenario], float | None]
    text: Callable[[float], str]
    is_cost: bool


def pairs(now: Scenario, earlier: Scenario) -> list[Pair]:
    """Every figure that at least one of the two has."""
    found = [(figure, figure.read(earlier), figure.read(now)) for figure in FIGURES]
    return [_pair(figure, before, after) for figure, before, after in found if (before, after) != (None, None)]


def counterpart(name: str, earlier: Report | None) -> Scenario | None:
    """The scenario of the same name in an earlier run."""
    return next((one for one in earlier.scenarios if one.name == name), None) if earlier else None


def differences(now: Report, earlier: Report) -> list[Difference]:
    """Of machine, versions, settings, and what the scenarios of the same name asked for."""
    found = [*_differing("", _facts(earlier.environment), _facts(now.environment))]
    found += _differing("setting ", earlier.environment.settings, now.environment.settings)
    found += _differing("service ", earlier.environment.service or {}, now.environment.service or {})
    for scenario in now.scenarios:
        before = counterpart(scenario.name, earlier)
        if before:
            found += _differing(f"{scenario.name}: ", _asked(before), _asked(scenario))
    return found


def missing(now: Report, earlier: Report) -> list[str]:
    """Scenarios that cannot be compared, as sentences."""
    names, before = [one.name for one in now.scenarios], [one.name for one in earlier.scenarios]
    added, gone = [name for name in names if name not in before], [name for name in before if name not in names]
    wrong = [one.name for one in earlier.scenarios if one.name in names and one.invalid is not None]
    told = (
        ("Not in the earlier run", added),
        ("Only in the earlier run", gone),
        ("Invalid in the earlier run, so that its ratios say nothing", wrong),
    )
    return [f"{where}: {', '.join(which)}." for where, which in told if which]


def _pair(figure: _Figure, before: float | None, after: float | None) -> Pair:
    texts = [UNKNOWN if value is None else figure.text(value) for value in (before, after)]
    if before is None or after is None:
        return Pair(figure.name, texts[0], texts[1], None, "unknown")
    if before == after:
        return Pair(figure.name, texts[0], texts[1], 1.0 if before else None, "same")
    ratio = after / before if before else None
    if ratio is not None and abs(ratio - 1) < NOISE:
        return Pair(figure.name, texts[0], texts[1], ratio, "same")
    return Pair(figure.name, texts[0], texts[1], ratio, "better" if (after < before) == figure.is_cost else "worse")


def _latency(field: str) -> Callable[[Scenario], float | None]:
    def read(scenario: Scenario) -> float | None:
        latency: Percentiles = scenario.latency
        return float(getattr(latency, field)) if latency.count else None

    return read


def _known(scenario: Scenario, field: str) -> list[float]:
    return [value for second in scenario.seconds if (value := getattr(second, field)) is not None]


def _cpu(scenario: Scenario) -> float | None:
    known = _known(scenario, "service_cpu")
    return sum(known) / len(known) if known else None


def _cpu_a_request(scenario: Scenario) -> float | None:
    """Milliseconds."""
    known: Sequence[Second] = [second for second in scenario.seconds if second.service_cpu is not None]
    answered = sum(second.answered for second in known)
    return 1000 * sum(second.service_cpu or 0.0 for second in known) / answered if answered else None


def _lag(scenario: Scenario) -> float | None:
    return max((1000 * value for value in _known(scenario, "service_lag_s")), default=None)


def _recovery(scenario: Scenario) -> float | None:
    known = [fault.recovered_after_s for fault in scenario.faults if fault.recovered_after_s is not None]
    return max(known, default=None)


FIGURES = (
    _Figure("requests/s", lambda s: s.per_second, lambda v: number(v, 4), False),
    _Figure("mean latency", _latency("mean"), milliseconds, True),
    _Figure("p50", _latency("p50"), milliseconds, True),
    _Figure("p95", _latency("p95"), milliseconds, True),
    _Figure("p99", _latency("p99"), milliseconds, True),
    _Figure("p99.9", _latency("p999"), milliseconds, True),
    _Figure("slowest", _latency("most"), milliseconds, True),
    _Figure("errors", lambda s: 100 * s.errors / s.intended if s.intended else None, percent, True),
    _Figure("service CPU, mean", _cpu, lambda v: f"{number(v)} cores", True),
    _Figure("service CPU per request", _cpu_a_request, milliseconds, True),
    _Figure("service memory, most", lambda s: max(_known(s, "service_memory"), default=None), memory, True),
    _Figure("event-loop lag p99, worst second", _lag, milliseconds, True),
    _Figure("recovery", _recovery, duration, True),
    _Figure("breaking point", lambda s: s.breaking_point, lambda v: f"{number(v, 6)} users", False),
)


def _facts(environment: Environment) -> dict[str, str]:
    return {
        "machine": environment.machine,
        "cores": str(environment.cores),
        "Python": environment.python,
        "generator": environment.generator_version,
        "commit": environment.commit or UNKNOWN,
    }


def _asked(scenario: Scenario) -> dict[str, str]:
    mix = ", ".join(f"{kind} {share:.0%}" for kind, share in sorted(scenario.mix.items()))
    return {"users": f"{scenario.users:,}", "time": duration(scenario.duration_s), "mix": mix}


def _differing(prefix: str, earlier: dict[str, str], now: dict[str, str]) -> Iterator[Difference]:
    for name in sorted({*earlier, *now}):
        before, after = earlier.get(name, UNKNOWN), now.get(name, UNKNOWN)
        if before != after and name not in NEVER_THE_SAME:
            yield Difference(prefix + name, before, after)
