"""What a load test found: the same structure as JSON, and what HTML and Markdown are made from."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Verdict = Literal["met", "missed", "not_judged"]


class Environment(Struct, frozen=True):
    """Where it ran. service: what /health/detailed and /metrics told of it, None where they are not to be read.
    limits: of the generator's machine, such as open files and local ports, by name."""

    at: str
    url: str
    machine: str
    cores: int
    python: str
    generator_version: str
    commit: str | None
    settings: dict[str, str]
    limits: dict[str, int]
    service: dict[str, str] | None


class Percentiles(Struct, frozen=True):
    """Milliseconds, from the intended moment of sending."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    most: float


class Second(Struct, frozen=True):
    """One second by intended moments. at_s: from the start of the scenario.

    users, connections: at its end.  intended, answered, errors: requests; an error is a status of 400 and above, a lost
    connection, or an answer that came too late or never; answered is what was no error.  latency: of those answered.
    late_p99_ms: how late the generator itself was.  generator_cpu: cores.  service_*: of the service's processes, None
    where /metrics is not to be read: cores, bytes, seconds (p99 of event-loop lag).
    """

    at_s: int
    users: int
    connections: int
    intended: int
    answered: int
    errors: int
    latency: Percentiles
    late_p99_ms: float
    generator_cpu: float
    service_cpu: float | None = None
    service_memory: float | None = None
    service_lag_s: float | None = None


class Route(Struct, frozen=True):
    """All requests of one kind. statuses: by code.  errors: by what happened."""

    kind: str
    latency: Percentiles
    statuses: dict[str, int]
    errors: dict[str, int]


class Target(Struct, frozen=True):
    """A bound and what was measured. at_most: else at least.  why: where it is not judged."""

    name: str
    unit: str
    bound: float
    measured: float | None
    at_most: bool
    verdict: Verdict
    why: str = ""


class Stage(Struct, frozen=True):
    """One step of a scenario with a fixed number of users, such as one of a stress test. stopped_by: what of this
    machine, not of the service, made it impossible."""

    users: int
    started_s: int
    ended_s: int
    targets: list[Target]
    stopped_by: str | None = None


class Fault(Struct, frozen=True):
    """What was broken on purpose, when (seconds from the start), and how long after its removal all targets were met
    for ten seconds in a row; None where they never were."""

    name: str
    set_s: float
    removed_s: float
    recovered_after_s: float | None


class Scenario(Struct, frozen=True):
    """One scenario. invalid: why the figures say more of the generator than of the service, None where they do not.

    histogram: (milliseconds, count), ascending, of all answers.  breaking_point: users, of a stress test.
    """

    name: str
    description: str
    mix: dict[str, float]
    users: int
    started_at: str
    duration_s: float
    latency: Percentiles
    per_second: float
    per_minute: float
    intended: int
    answered: int
    errors: int
    routes: list[Route]
    seconds: list[Second]
    histogram: list[tuple[float, int]]
    targets: list[Target]
    stages: list[Stage] = []
    faults: list[Fault] = []
    breaking_point: int | None = None
    stopped_by: str | None = None
    invalid: str | None = None


class Report(Struct, frozen=True):
    """A whole run. verdict: met where every target of every scenario that was judged is."""

    environment: Environment
    scenarios: list[Scenario]
    verdict: Verdict
