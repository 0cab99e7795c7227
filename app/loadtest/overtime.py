"""The seconds of a scenario as charts: what was asked, what came back, and what service and generator took for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from app.loadtest.charts import Chart, Level, Line, Span, absent, drawn
from app.loadtest.figures import bound, clock, duration, memory, milliseconds, number
from app.loadtest.results import Scenario, Second
from app.loadtest.scales import Axis, clocked, linear, logarithmic

MOST_POINTS = 240
NOT_READ = "Not measured: the service's /metrics could not be read."
PERCENTILES = (("p999", "purple"), ("p99", "orange"), ("p95", "blue"), ("p50", "sky"))

Reading = Callable[[Second], float | None]


class Steps(NamedTuple):
    """Seconds taken together, so many at a time, that no chart has more points than can be told apart."""

    of_s: int
    groups: list[list[Second]]

    def mean(self, read: Reading) -> list[float | None]:
        """The mean of what is known in each step."""
        return [_over(group, read, lambda known: sum(known) / len(known)) for group in self.groups]

    def most(self, read: Reading) -> list[float | None]:
        """The worst second of each step."""
        return [_over(group, read, max) for group in self.groups]

    def total(self, read: Reading) -> list[float | None]:
        """The sum of each step."""
        return [_over(group, read, sum) for group in self.groups]


def steps(seconds: Sequence[Second]) -> Steps:
    """The seconds of a run, thinned."""
    if not seconds:
        return Steps(1, [])
    lasting = seconds[-1].at_s + 1
    of_s = next(s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600, lasting) if lasting / s <= MOST_POINTS)
    groups: dict[int, list[Second]] = {}
    for second in seconds:
        groups.setdefault(second.at_s // of_s, []).append(second)
    return Steps(of_s, [groups[place] for place in sorted(groups)])


def charts(scenario: Scenario, name: str) -> Iterator[str]:
    """Every chart over time. name: what their ids begin with."""
    if not scenario.seconds:
        yield absent("Over time", "Nothing was measured: the run ended before its first second did.")
        return
    over = _OverTime(scenario, name)
    yield over.throughput()
    yield over.latency()
    yield over.errors()
    yield over.users()
    yield over.cpu()
    yield over.memory()
    yield over.lag()
    yield over.lateness()


def marks(scenario: Scenario) -> list[Span]:
    """What happened when: stages, faults, and the time that the service took to recover from these."""
    begun = [stage for stage in scenario.stages if stage.ended_s > stage.started_s]
    spans = [Span(stage.started_s, stage.started_s, f"{stage.users:,}", "stage") for stage in begun]
    for fault in scenario.faults:
        spans.append(Span(fault.set_s, fault.removed_s, fault.name, "fault"))
        if fault.recovered_after_s:
            until = fault.removed_s + fault.recovered_after_s
            spans.append(Span(fault.removed_s, until, "", "recovery"))
        elif fault.recovered_after_s is None:
            spans.append(Span(fault.removed_s, max(scenario.duration_s, fault.removed_s), "", "recovery"))
    return spans


class _OverTime:
    def __init__(self, scenario: Scenario, name: str) -> None:
        self._scenario = scenario
        self._name = name
        self._steps = steps(scenario.seconds)
        self._at = [float(group[0].at_s) for group in self._steps.groups]
        lasting = max([scenario.duration_s, *(at + self._steps.of_s for at in self._at)])
        self._x = clocked(lasting)
        self._moments = [clock(at) for at in self._at]
        self._marks = marks(scenario)
        step = self._steps.of_s
        self._worst = "" if step == 1 else f"; the worst second of each {duration(step)}"
        self._mean = "" if step == 1 else f"; means of {duration(step)}"

    def throughput(self) -> str:
        asked, answered = self._steps.mean(lambda s: s.intended), self._steps.mean(lambda s: s.answered)
        lines = [Line("answered", "blue", answered), Line("intended", "ink dotted", asked)]
        title, told = "Throughput", f"requests per second{self._mean}"
        return self._drawn("throughput", title, told, lines, lambda v: f"{number(v, 4)}/s", number, filled=True)

    def latency(self) -> str:
        def read(field: str) -> Reading:
            return lambda s: getattr(s.latency, field) if s.latency.count else None

        lines = [Line(named(field), tone, self._steps.most(read(field))) for field, tone in PERCENTILES]
        levels = bounds(self._scenario)
        title, told = "Latency", f"from the intended moment of sending, logarithmic{self._worst}"
        values = [*_known(lines), *(level.value for level in levels)]
        axis = logarithmic(values, milliseconds)
        return self._drawn("latency", title, told, lines, milliseconds, milliseconds, axis=axis, levels=levels)

    def errors(self) -> str:
        lines = [Line("errors", "red", self._steps.total(lambda s: s.errors))]
        told = f"in each {duration(self._steps.of_s)}" if self._steps.of_s > 1 else "per second"
        axis = linear(_known(lines), number, 4, whole=True)
        return self._drawn("errors", "Errors", told, lines, number, number, axis=axis, bars=True,
                           note="" if any(_known(lines)) else "no errors")  # fmt: skip

    def users(self) -> str:
        lines = [
            Line("users", "blue", self._steps.mean(lambda s: s.users)),
            Line("connections", "orange dotted", self._steps.mean(lambda s: s.connections)),
        ]
        point = self._scenario.breaking_point
        levels = [Level(point, f"breaking point: {point:,} users")] if point else []
        axis = linear([*_known(lines), point or 0], number, 4, whole=True)
        told = f"at the end of each second{self._mean}"
        return self._drawn("users", "Users and connections", told, lines, lambda v: number(v, 6), number, axis=axis,
                           levels=levels)  # fmt: skip

    def cpu(self) -> str:
        service = Line("service", "blue", self._steps.mean(lambda s: s.service_cpu))
        own = Line("load generator", "orange dotted", self._steps.mean(lambda s: s.generator_cpu))
        told = f"cores in use{self._mean}"
        lines = [service, own]
        if not _known([service]):
            lines, told = [own], f"cores in use by the load generator; the service's could not be read{self._mean}"
        return self._drawn("cpu", "CPU", told, lines, lambda v: f"{number(v)} cores", number, at_least=1.0)

    def memory(self) -> str:
        lines = [Line("service", "blue", self._steps.mean(lambda s: s.service_memory))]
        told = f"of the service's processes{self._mean}"
        return self._drawn("memory", "Memory", told, lines, memory, memory, at_least=1e8, filled=True)

    def lag(self) -> str:
        def read(second: Second) -> float | None:
            return None if second.service_lag_s is None else second.service_lag_s * 1000

        lines = [Line("p99", "green", self._steps.most(read))]
        told = f"how late the service's event loop came to its work, p99{self._worst}"
        return self._drawn("lag", "Event-loop lag", told, lines, milliseconds, milliseconds, at_least=1.0)

    def lateness(self) -> str:
        lines = [Line("p99", "orange", self._steps.most(lambda s: s.late_p99_ms))]
        told = f"how late the generator itself sent, p99{self._worst}"
        title = "Lateness of the load generator"
        return self._drawn("lateness", title, told, lines, milliseconds, milliseconds, at_least=1.0)

    def _drawn(
        self,
        name: str,
        title: str,
        told: str,
        lines: Sequence[Line],
        text: Callable[[float], str],
        tick: Callable[[float], str],
        *,
        axis: Axis | None = None,
        at_least: float = 0.0,
        levels: Sequence[Level] = (),
        bars: bool = False,
        filled: bool = False,
        note: str = "",
    ) -> str:
        known = _known(lines)
        if not known:
            return absent(title, NOT_READ if name in ("memory", "lag") else "Nothing was measured.")
        y = axis or linear(known, tick, at_least)
        made = Chart(f"{self._name}-{name}", title, told, self._x, y, self._at, self._moments, lines, text)
        return drawn(made._replace(spans=self._marks, levels=levels, bars=bars, filled=filled, note=note))


def bounds(scenario: Scenario) -> list[Level]:
    """The bounds of latencies that are drawn."""
    drawn_too = {named(field) for field, _ in PERCENTILES}
    return [
        Level(target.bound, f"{target.name} {bound(target)}")
        for target in scenario.targets
        if target.unit == "ms" and target.bound > 0 and percentile_of(target.name) in drawn_too
    ]


def percentile_of(name: str) -> str | None:
    """The percentile that a target is of, None where it is of none."""
    found = re.search(r"\bp(?:\d\d(?:\.\d+)?|999)\b", name)
    return found and ("p99.9" if found[0] == "p999" else found[0])


def named(field: str) -> str:
    """A percentile's field as people write it."""
    return "p99.9" if field == "p999" else field


def _known(lines: Sequence[Line]) -> list[float]:
    return [value for line in lines for value in line.values if value is not None]


def _over(group: list[Second], read: Reading, combine: Callable[[list[float]], float]) -> float | None:
    known = [value for second in group if (value := read(second)) is not None]
    return combine(known) if known else None
