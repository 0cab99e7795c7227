"""What all benchmarks share: the collector set as in the service, and a summary per unit of work."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from baselines import Turns, Yardstick
from calling import Client, calling
from machine import machine
from msgspec import Struct
from pytest_benchmark.fixture import BenchmarkFixture

from app import settings
from app.assembly import Assembly
from app.assess import Assessor
from app.main import GC_THRESHOLD
from app.neighbours import Tiers
from app.registry import Registry, select
from app.store.base import Store
from core.scorer import Scorer

PACKAGES = ("msgspec", "uvloop", "granian")


def assessor_on(store: Store) -> Assessor:
    """The pipeline on a store, as the service builds it from its defaults."""
    chosen = settings.load({}).settings
    return Assembly(chosen, store, Tiers(chosen)).assessor


class Figure(Struct, frozen=True):
    """One figure of the summary: `median` and `least` in `unit`. target: in words, for the reader."""

    name: str
    median: float
    least: float
    unit: str
    target: str = ""


ROUNDS = 25
"""Of a ratio: each times what is measured once, between two yardsticks."""

FIGURES = pytest.StashKey[list[Figure]]()

Measure = Callable[..., Any]
Note = Callable[[str, float, str, str], None]
Relate = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []
    config.addinivalue_line("markers", "wall: timed by the clock; all others by the CPU time of the process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # A neighbour on the same cores takes no CPU time of ours; only what waits needs the clock.
        if item.get_closest_marker("wall") is None:
            item.add_marker(pytest.mark.benchmark(timer=time.process_time))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[FIGURES]
    if not figures:
        return
    terminalreporter.section("per unit of work")
    terminalreporter.write_line(machine(PACKAGES).line())
    terminalreporter.write_line(f"{'':44} {'median':>12} {'least':>12}")
    for one in figures:
        least = f"{one.least:12,.3f}" if one.least == one.least else " " * 12
        terminalreporter.write_line(f"{one.name:44} {one.median:12,.3f} {least}  {one.unit:16} {one.target}".rstrip())


@pytest.fixture(scope="session", autouse=True)
def collector() -> Iterator[None]:
    """The garbage collector as the service sets it once it has started."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    """The scorer of the default model."""
    return Registry(select(settings.load({}).settings.model)).active


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of the kind that the service runs on."""
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The whole application, started, with its records in a temporary folder."""
    with calling(loop, tmp_path_factory.mktemp("data")) as started:
        yield started


@pytest.fixture
def note(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Note:
    """Adds a figure that is no time to the summary and to the benchmark's extra_info: name, value, unit, target."""

    def add(name: str, value: float, unit: str, target: str = "") -> None:
        benchmark.extra_info[name] = round(value, 4)
        pytestconfig.stash[FIGURES].append(Figure(name, value, float("nan"), unit, target))

    return add


@pytest.fixture
def measure(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Measure:
    """Times a function without arguments and reports microseconds per unit of what it does; returns its last result.

    per: how many units one call is.  rate: report units a second instead.  rounds: exactly so many calls.
    """

    def timed(
        function: Callable[[], Any],
        *,
        per: float = 1.0,
        unit: str = "call",
        target: str = "",
        rate: bool = False,
        rounds: int = 0,
    ) -> Any:
        pedantic: Callable[..., Any] = benchmark.pedantic
        result = pedantic(function, rounds=rounds, warmup_rounds=1) if rounds else benchmark(function)
        if benchmark.stats is None:  # --benchmark-disable
            return result
        median, least = (value * 1e6 / per for value in (benchmark.stats.stats.median, benchmark.stats.stats.min))
        benchmark.extra_info |= {"us_per_unit": round(median, 4), "unit": unit, "target": target}
        name = request.node.name.removeprefix("test_")
        figure = Figure(name, median, least, f"us a {unit}", target)
        if rate:
            figure = Figure(name, 1e6 / median, 1e6 / least, f"{unit}s/s", target)
        request.config.stash[FIGURES].append(figure)
        return result

    return timed


@pytest.fixture
def relate(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Relate:
    """Measures something in multiples of a yardstick, in turns with it.

    per: how many of the yardstick's units one call of it is.
    """

    def related(subject: Callable[[], Any], yardstick: Yardstick, per: float = 1.0) -> None:
        turns = Turns(subject, yardstick, per)
        pedantic: Callable[..., Any] = benchmark.pedantic
        pedantic(subject, setup=turns.pace, rounds=ROUNDS, warmup_rounds=2)
        if benchmark.stats is None:  # --benchmark-disable
            return
        ratio = turns.ratio(benchmark.stats.stats.data)
        benchmark.extra_info |= {"ratio": ratio, "yardstick": yardstick.name}
        name = request.node.name.removeprefix("test_")
        request.config.stash[FIGURES].append(Figure(name, ratio, float("nan"), f"x {yardstick.name}"))

    return related
