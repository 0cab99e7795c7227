"""A curve: what was measured at each of several sizes, what one more takes, and the charts of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import msgspec
from machine import Machine
from msgspec import Struct

from app.loadtest.charts import Chart, Line
from app.loadtest.figures import memory, milliseconds, number
from app.loadtest.scales import Text, linear, logarithmic

TONES = ("blue", "orange dashed", "purple long", "green", "blue dashed")


class Words(NamedTuple):
    """each: what one more is.  below: what all of them are, under the axis."""

    each: str
    below: str


WORDS = {
    "connections": Words("connection", "connections"),
    "rows": Words("row", "rows before"),
    "names": Words("name", "names listed"),
    "tenants": Words("tenant", "tenants"),
    "workers": Words("worker", "workers"),
}


class Point(Struct, frozen=True):
    """What was measured at one size.

    per_second: requests answered.  service_us, database_us: CPU time a request.  memory: bytes.  acts_ms: of the
    database, by name.  invalid: why it says more of the generator than of the service.  None: not known.
    """

    size: int
    per_second: float
    service_us: float | None
    p50_ms: float
    p99_ms: float
    memory: float | None
    errors: int
    invalid: str | None = None
    database_us: float | None = None
    acts_ms: dict[str, float] = {}


class Curve(Struct, frozen=True):
    """rate: requests a second that were intended, None flat out."""

    name: str
    rate: float | None
    seconds: int
    machine: Machine
    points: list[Point]


def doubling(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, and the last one."""
    return tuple(sorted({*(2**power for power in range(most.bit_length())), most}))


def scaled(sizes: Sequence[int], scale: float) -> list[int]:
    """Those of up to that share of the largest, two at least."""
    return [size for place, size in enumerate(sizes) if place < 2 or size <= sizes[-1] * scale]


def merged(rounds: Sequence[Point]) -> Point:
    """One point of several of its size: medians, and all errors."""

    def middle(name: str) -> float | None:
        values = [value for one in rounds if (value := getattr(one, name)) is not None]
        return median(values) if values else None

    figures = {name: middle(name) for name in ("per_second", "service_us", "p50_ms", "p99_ms", "memory", "database_us")}
    invalid = next((one.invalid for one in rounds if one.invalid), None)
    return msgspec.structs.replace(rounds[0], **figures, errors=sum(one.errors for one in rounds), invalid=invalid)


def apiece(points: Sequence[Point]) -> float | None:
    """Bytes that each one more takes, between the smallest size and the largest; None where it is not known."""
    first, last = points[0], points[-1]
    if first.memory is None or last.memory is None or last.size == first.size:
        return None
    return (last.memory - first.memory) / (last.size - first.size)


def charts(curve: Curve) -> Iterator[Chart]:
    """All that there is to be drawn of a curve."""
    words, points = WORDS[curve.name], curve.points
    sizes = [one.size for one in points]
    x = linear(sizes, whole=True) if curve.name == "workers" else logarithmic(sizes)
    load = "flat out" if curve.rate is None else f"at {number(curve.rate)} requests/s"

    def chart(what: str, title: str, told: str, lines: Sequence[Line], text: Text, is_log: bool = False) -> Chart:
        known = [value for line in lines for value in line.values if value is not None]
        y = (logarithmic if is_log else linear)(known, text)
        moments = [number(size) for size in sizes]
        return Chart(f"{curve.name}-{what}", f"{title}, by {words.below}", told, x, y, sizes, moments, lines, text)

    cost = [Line("service", TONES[0], [one.service_us for one in points])]
    if any(one.database_us is not None for one in points):
        cost.append(Line("PostgreSQL", TONES[1], [one.database_us for one in points]))
    yield chart("cost", "CPU time a request", f"Assessments recorded, {load}.", cost, _microseconds)
    resident = [Line("resident memory", TONES[0], [one.memory for one in points])]
    yield chart("memory", "Memory of the service", each(curve), resident, memory)
    p50, p99 = ([getattr(one, name) for one in points] for name in ("p50_ms", "p99_ms"))
    times = [Line("p50", TONES[0], p50), Line("p99", TONES[1], p99)]
    yield chart("latency", "Latency", f"From the intended moment, {load}.", times, milliseconds, True)
    if curve.rate is None:
        made = [Line("requests/s", TONES[0], [one.per_second for one in points])]
        yield chart("throughput", "Requests a second", "Flat out.", made, number)
    if acts := points[0].acts_ms:
        lines = [Line(act, tone, [one.acts_ms[act] for one in points]) for act, tone in zip(acts, TONES, strict=False)]
        yield chart("acts", "Acts on the database", "Medians.", lines, milliseconds, True)


def each(curve: Curve) -> str:
    """What one more takes, in words; nothing where it is not known."""
    value = apiece(curve.points)
    if value is None:
        return ""
    small = f"{number(value / 1000)} kB" if abs(value) >= 1000 else f"{number(value)} bytes"
    text = memory(value) if value >= 1e6 else small
    return f"{text} for each further {WORDS[curve.name].each}, from the smallest number to the largest."


def _microseconds(value: float) -> str:
    return f"{number(value)} µs"
