"""What a report says in words, the same on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import structs

from app.loadtest.comparison import Pair
from app.loadtest.figures import UNKNOWN, bound, clock, duration, measured, milliseconds, number, percent, ratio
from app.loadtest.results import Environment, Fault, Report, Route, Scenario, Target, Verdict

WORDS: Final[dict[Verdict, str]] = {"met": "met", "missed": "missed", "not_judged": "not judged"}
SIGNS: Final[dict[Verdict, str]] = {"met": "✓", "missed": "✗", "not_judged": UNKNOWN}
OF_THE_GENERATOR: Final = "The figures say more of the generator than of the service: "
CHANGES: Final = {"better": "better", "worse": "worse", "same": "as before", "unknown": UNKNOWN}


def of_all(report: Report) -> str:
    """The verdict of a whole run as a sentence."""
    if not report.scenarios:
        return "Nothing was run: there is no scenario in this report."
    valid = [scenario for scenario in report.scenarios if scenario.invalid is None]
    judged = [target for scenario in valid for target in scenario.targets if target.verdict != "not_judged"]
    missed = sum(target.verdict == "missed" for target in judged)
    scenarios = counted(len(valid), "scenario")
    match report.verdict:
        case "met":
            told = f"Met: all {counted(len(judged), 'target')} that could be judged, in {scenarios}."
        case "missed":
            told = f"Missed: {missed} of {counted(len(judged), 'target')}, in {scenarios}."
        case _:
            told = "Not judged: no target could be."
    left_out = len(report.scenarios) - len(valid)
    return f"{told} Invalid, and not judged: {counted(left_out, 'scenario')}." if left_out else told


def targets(scenario: Scenario) -> list[Target]:
    """The targets of a scenario, none of them judged where it is invalid."""
    if scenario.invalid is None:
        return scenario.targets
    why = "the run is invalid"
    return [structs.replace(target, verdict="not_judged", why=target.why or why) for target in scenario.targets]


def misses(report: Report) -> list[str]:
    """Each target that was missed, as a sentence."""
    return [
        f"{scenario.name}: {target.name} {measured(target)}, wanted {bound(target)}"
        for scenario in report.scenarios
        for target in targets(scenario)
        if target.verdict == "missed"
    ]


def invalid(report: Report) -> list[Scenario]:
    """The scenarios whose figures say more of the generator than of the service."""
    return [scenario for scenario in report.scenarios if scenario.invalid is not None]


def verdict_of(scenario: Scenario) -> Verdict:
    """Missed where any target is; met where any is and none is missed. What is invalid is not judged."""
    verdicts = {target.verdict for target in scenario.targets}
    if scenario.invalid is not None:
        return "not_judged"
    return "missed" if "missed" in verdicts else "met" if "met" in verdicts else "not_judged"


def verdict_words(scenario: Scenario) -> str:
    """The verdict of a scenario."""
    return "invalid" if scenario.invalid is not None else WORDS[verdict_of(scenario)]


def sign_and_words(target: Target) -> str:
    """The verdict of a target."""
    return f"{SIGNS[target.verdict]} {WORDS[target.verdict]}"


def asked(scenario: Scenario) -> str:
    """Who asked for what, when, and for how long."""
    mix = ", ".join(f"{kind} {percent(100 * share)}" for kind, share in scenario.mix.items())
    parts = [counted(scenario.users, "user"), duration(scenario.duration_s), mix, f"started {scenario.started_at}"]
    return " · ".join(part for part in parts if part)


def errors(scenario: Scenario) -> str:
    """How many requests failed, and which share of all."""
    if not scenario.intended:
        return UNKNOWN
    share = percent(100 * scenario.errors / scenario.intended)
    return f"{scenario.errors:,} ({share})" if scenario.errors else "none"


def room(target: Target) -> str:
    """How much of its bound a measured value is, where that says something."""
    value = target.measured
    if value is None or target.verdict == "not_judged" or not is_share(target):
        return ""
    return f"{percent(100 * value / target.bound)} of the bound"


def is_share(target: Target) -> bool:
    """Whether what is measured is well told as a share of the bound: not so where all that counts is near 100 %."""
    return target.measured is not None and target.bound > 0 and (target.unit != "%" or target.at_most)


def recovery(fault: Fault) -> str:
    """How a fault ended."""
    if fault.recovered_after_s is None:
        return "never recovered"
    return duration(fault.recovered_after_s)


def breaking(scenario: Scenario) -> str:
    """What a stress test found; empty where it was none."""
    if scenario.breaking_point is not None:
        held = [s.users for s in scenario.stages if s.users < scenario.breaking_point and holds(s.targets)]
        before = f" {max(held):,} users were held." if held else ""
        return f"Breaking point: {scenario.breaking_point:,} users, where the first target was missed.{before}"
    if not scenario.stages:
        return ""
    return f"No breaking point was found up to {max(stage.users for stage in scenario.stages):,} users."


def holds(targets: list[Target]) -> bool:
    """Whether something was judged and nothing missed."""
    verdicts = {target.verdict for target in targets}
    return "met" in verdicts and "missed" not in verdicts


def stage_targets(scenario: Scenario) -> list[str]:
    """The names of targets of any stage, as they come."""
    return list(dict.fromkeys(target.name for stage in scenario.stages for target in stage.targets))


def statuses(counts: dict[str, int]) -> str:
    """How often each status or error came."""
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items())) or "none"


def share(route: Route, scenario: Scenario) -> str:
    """The share of a kind in all answers."""
    total = sum(one.latency.count for one in scenario.routes)
    return percent(100 * route.latency.count / total) if total else UNKNOWN


def fault_rows(scenario: Scenario) -> Iterator[tuple[str, str, str, str]]:
    """Name, set at, removed at, recovery."""
    for fault in scenario.faults:
        yield fault.name, clock(fault.set_s), clock(fault.removed_s), recovery(fault)


def headline(scenario: Scenario) -> list[tuple[str, str]]:
    """The figures that are asked for first."""
    latency = scenario.latency
    times = {
        "mean": latency.mean,
        "p50": latency.p50,
        "p95": latency.p95,
        "p99": latency.p99,
        "slowest": latency.most,
    }
    known = [(name, milliseconds(value) if latency.count else UNKNOWN) for name, value in times.items()]
    return [("requests/s", number(scenario.per_second, 4)), *known, ("errors", errors(scenario))]


def ratio_text(pair: Pair) -> str:
    """A ratio, or what stands for it."""
    return UNKNOWN if pair.ratio is None else ratio(pair.ratio)


def facts(environment: Environment) -> list[tuple[str, str]]:
    """Where it ran."""
    return [
        ("at", environment.at),
        ("service at", environment.url),
        ("machine", environment.machine),
        ("cores", str(environment.cores)),
        ("Python", environment.python),
        ("load generator", environment.generator_version),
        ("commit", environment.commit or "unknown"),
    ]


def counted(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
