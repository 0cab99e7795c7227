"""Running a scenario: the generator's processes are started together, and what they tell is put together and judged."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import msgspec
from msgspec import Struct

from app import __version__
from app.loadtest import judging, machine
from app.loadtest.breaking import Breaking
from app.loadtest.collected import Collected, Moment, bars, percentiles
from app.loadtest.mix import described
from app.loadtest.process import CONNECTED, SETTLED_S, Orders, Told, generate
from app.loadtest.results import Environment, Fault, Report, Scenario, Second, Stage
from app.loadtest.scenarios import Plan
from app.loadtest.service import Address
from app.loadtest.service import described as service_described
from app.loadtest.watching import Reading, Sample, Watch, first_look, readings

STARTED_WITHIN_S = 120.0
START_S = 0.3
"""From the order to begin until it begins: all processes have heard of it by then."""
TURN_S = 0.1
TOLD_S = SETTLED_S + 2
"""How long after its end a second is taken as told when a stage is judged, and while it is shown."""

_decode = msgspec.msgpack.Decoder(Told).decode


class GeneratorFailed(Exception):
    """A process of the generator ended before its time."""


class Setup(Struct, frozen=True):
    """What holds of all scenarios of a run. shares: of each kind of request.  processes: None for as few as will do."""

    address: Address
    shares: dict[str, float]
    run: str
    processes: int | None = None
    period_s: float = 5.0
    longest_s: float = 10.0


class Glance(Struct, frozen=True):
    """What is known while it runs: one second, a moment after it ended."""

    plan: Plan
    at_s: int
    second: Second


Show = Callable[[Glance], None]


def run(plan: Plan, setup: Setup, breaking: Breaking | None, show: Show) -> Scenario:
    """Run one scenario. Raises GeneratorFailed."""
    started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    service = first_look(setup.address)
    plan, stopped_by = _possible(plan, setup, service)
    if not plan.phases:
        return _scenario(plan, setup, started_at, Collected(1), [], [], None, stopped_by)
    share = machine.shared(plan.users, setup.address, service, setup.processes)
    with Watch(setup.address) as watch:
        fleet = Fleet(plan, setup, share)
        try:
            collected = fleet.run(breaking, show)
        finally:
            if breaking is not None:
                breaking.end(time.monotonic() - fleet.begun)
            fleet.end()
    known = readings(watch.samples, fleet.begun, len(collected.moments))
    return _scenario(plan, setup, started_at, collected, known, fleet.stages, breaking, stopped_by)


class Fleet:
    """The processes of one scenario."""

    def __init__(self, plan: Plan, setup: Setup, share: machine.Share) -> None:
        self.begun = 0.0
        self.stages: list[Stage] = []
        self._plan = plan
        self._collected = Collected(plan.seconds)
        self._pipes: dict[Connection, SpawnProcess] = {}
        context = multiprocessing.get_context("spawn")
        for number in range(share.processes):
            ours, theirs = context.Pipe()
            orders = Orders(
                setup.address.address,
                setup.address.port,
                setup.address.host_header,
                setup.address.key,
                setup.shares,
                f"{setup.run}-{plan.name}",
                number,
                share.processes,
                plan.points(),
                setup.period_s,
                setup.longest_s,
                share.sources,
                plan.flat_out,
                plan.businesses,
                plan.warm_s,
            )
            process = context.Process(target=generate, args=(orders, theirs), name=f"loadtest-{number}", daemon=True)
            process.start()
            theirs.close()
            self._pipes[ours] = process
        self._open = set(self._pipes)

    def run(self, breaking: Breaking | None, show: Show) -> Collected:
        """Until the last process is done."""
        self._begin()
        shown = 0
        is_stopped = False
        while self._open:
            self._take()
            at_s = time.monotonic() - self.begun
            if breaking is not None:
                breaking.turn(at_s)
            while shown < min(len(self._collected.moments), int(at_s) - SETTLED_S):
                show(Glance(self._plan, shown, _second(shown, self._collected.moments[shown], None)))
                shown += 1
            if self._plan.is_staged and not is_stopped and self._stage_missed(at_s):
                is_stopped = True
                for pipe in self._open:
                    with suppress(OSError):
                        pipe.send(None)
        self._judge_all(is_stopped)
        return self._collected

    def end(self) -> None:
        """Leave no process behind."""
        for pipe, process in self._pipes.items():
            pipe.close()
            if process.is_alive():
                process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def _begin(self) -> None:
        waiting = set(self._pipes)
        patience = time.monotonic() + STARTED_WITHIN_S
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, patience - time.monotonic()))
            if not ready:
                raise GeneratorFailed("the generator's processes did not connect in time")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                if self._received(pipe) != CONNECTED:
                    raise GeneratorFailed("a process of the generator did not start as it should")
                waiting.discard(pipe)
        self.begun = time.monotonic() + START_S
        for pipe in self._pipes:
            pipe.send(self.begun)

    def _take(self) -> None:
        for pipe in wait(list(self._open), timeout=TURN_S):
            assert isinstance(pipe, Connection)
            told = self._received(pipe)
            if told:
                self._collected.add(_decode(told))
            else:
                self._open.discard(pipe)

    def _received(self, pipe: Connection) -> bytes:
        try:
            return pipe.recv_bytes()
        except (EOFError, OSError):
            process = self._pipes[pipe]
            process.join(5)
            raise GeneratorFailed(f"a process of the generator ended with {process.exitcode}") from None

    def _stage_missed(self, at_s: float) -> bool:
        """Judge the stages that have ended; whether the last one of them ends the search."""
        bounds = _bounds(self._plan)
        ended = sum(end + TOLD_S <= at_s for _, end in bounds)
        if ended <= len(self.stages):
            return False
        self.stages = [self._judged(place, *bounds[place]) for place in range(ended)]
        last = self.stages[-1]
        return self._plan.seeks_limit and (judging.overall(last.targets) == "missed" or last.stopped_by is not None)

    def _judge_all(self, is_stopped: bool) -> None:
        """Once more, with what came late. is_stopped: the search has ended with the last stage that was judged."""
        bounds = _bounds(self._plan)
        count = len(self.stages) if is_stopped else len(bounds)
        if self._plan.is_staged:
            self.stages = [self._judged(place, *bounds[place]) for place in range(count)]

    def _judged(self, place: int, start: int, end: int) -> Stage:
        moments = self._collected.moments[start:end]
        phase = self._plan.phases[place]
        if not moments:
            return Stage(phase.last, start, end, [], "it was ended before")
        found = judging.targets(moments, self._plan, [])
        why = judging.bottleneck(moments)
        if why is not None:
            found = judging.unjudged(found, why)
        return Stage(phase.last, start, end, found, why)


def _bounds(plan: Plan) -> list[tuple[int, int]]:
    """From which second to which each phase lasts."""
    at, found = 0, []
    for phase in plan.phases:
        found.append((at, at + phase.seconds))
        at += phase.seconds
    return found


def _possible(plan: Plan, setup: Setup, service: Sample | None) -> tuple[Plan, str | None]:
    """What of a plan this machine can hold: all or nothing, or as many stages of a search; and what stops the rest."""
    for place, phase in enumerate(plan.phases):
        users = max(phase.first, phase.last)
        stopped_by = machine.shared(users, setup.address, service, setup.processes).stopped_by
        if stopped_by is not None:
            kept = plan.phases[:place] if plan.seeks_limit else ()
            return plan._replace(phases=kept), stopped_by
    return plan, None


def _scenario(
    plan: Plan,
    setup: Setup,
    started_at: str,
    collected: Collected,
    known: Sequence[Reading],
    stages: list[Stage],
    breaking: Breaking | None,
    stopped_by: str | None,
) -> Scenario:
    moments = collected.moments
    times = collected.whole()
    faults = _faults(breaking, moments)
    invalid = judging.bottleneck(moments)
    breaking_point = None
    if plan.seeks_limit:
        for stage in stages:
            stopped_by = stage.stopped_by or stopped_by
            if judging.overall(stage.targets) == "missed":
                breaking_point, stopped_by = stage.users, None
        found = [judging.limit_target(plan, breaking_point, stopped_by)] if plan.phases else []
        # The stages say where the generator was at its end.
        invalid = None
    else:
        found = judging.targets(moments, plan, faults) if moments else []
        if found and breaking is None and plan.is_soak:
            found.append(judging.growth_target([reading.memory for reading in known]))
        if invalid is not None:
            found = judging.unjudged(found, invalid)
    if breaking is not None and breaking.failed:
        invalid = f"the fault was not set as it should be: {breaking.failed}"
        found = judging.unjudged(found, invalid)
    seconds = len(moments)
    answered = sum(moment.answered for moment in moments)
    per_second = answered / seconds if seconds else 0.0
    return Scenario(
        plan.name,
        plan.description,
        setup.shares,
        max((moment.users for moment in moments), default=0),
        started_at,
        float(seconds),
        percentiles(times),
        round(per_second, 3),
        round(60 * per_second, 1),
        collected.intended,
        answered,
        sum(moment.errors for moment in moments),
        collected.routes(),
        [_second(at, moment, known[at] if at < len(known) else None) for at, moment in enumerate(moments)],
        bars(times),
        found,
        stages,
        faults,
        breaking_point,
        stopped_by,
        invalid,
    )


def _faults(breaking: Breaking | None, moments: Sequence[Moment]) -> list[Fault]:
    if breaking is None or breaking.set_s is None:
        return []
    removed_s = len(moments) if breaking.removed_s is None else breaking.removed_s
    recovered = judging.recovered_after(moments, removed_s)
    return [Fault(breaking.order.name, round(breaking.set_s, 2), round(removed_s, 2), recovered)]


def _second(at: int, moment: Moment, known: Reading | None) -> Second:
    cpu, memory, lag_s = known or (None, None, None)
    return Second(
        at,
        moment.users,
        moment.connections,
        moment.intended,
        moment.answered,
        moment.errors,
        percentiles(moment.times),
        round(moment.late_p99_ms, 3),
        round(moment.cpu, 3),
        None if cpu is None else round(cpu, 3),
        memory,
        lag_s,
    )


def environment(setup: Setup) -> Environment:
    """Where it runs, as the report tells it."""
    about = service_described(setup.address)
    return Environment(
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        setup.address.url,
        machine.processor(),
        machine.cores(),
        machine.python(),
        __version__,
        machine.commit(),
        {
            "mix": described(setup.shares),
            "seconds between a user's requests": f"{setup.period_s:g}",
            "longest answer in time": f"{setup.longest_s:g} s",
            "process of the generator": str(os.getpid()),
        },
        machine.limits(),
        about or None,
    )


def report(about: Environment, scenarios: list[Scenario]) -> Report:
    """All of a run."""
    return Report(about, scenarios, judging.overall([target for one in scenarios for target in one.targets]))
