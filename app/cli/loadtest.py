"""`kyb loadtest`: scenarios one after the other, shown while they run, judged, and written down."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from app.cli.exits import FAILED, FAULTS_FOUND, SCORED, Stopped, reason
from app.cli.loadtest_view import View
from app.cli.output import complain
from app.loadtest import report as reports
from app.loadtest import running
from app.loadtest.breaking import Breaking, FaultOrder, ordered
from app.loadtest.judging import overall
from app.loadtest.mix import MixUnknown, shares
from app.loadtest.results import Report, Scenario
from app.loadtest.running import GeneratorFailed, Setup
from app.loadtest.scenarios import FULL_USERS, QUICK_USERS, SCENARIOS, USUAL, Plan, lasting, quick
from app.loadtest.service import Address, NotUsable, check, found, limited_to
from app.settings.kinds import Malformed, parse_duration

PROVES_NOTHING = 6
FIRST_KEY = Path("data/admin.key")
"""Of a service that was started here."""


class Order(Struct, frozen=True):
    """What was typed. chosen: scenarios by name."""

    chosen: tuple[str, ...]
    quick: bool
    url: str
    key: str | None
    key_file: str | None
    users: int | None
    duration: str | None
    scale: float
    mix: str
    processes: int | None
    fault: str | None
    fault_command: str | None
    restore_command: str | None
    fault_pid: int | None
    generate_report: bool
    compare: str | None
    output: str


def test(order: Order) -> int:
    """Do it; the exit code."""
    earlier = _earlier(order.compare)
    if order.generate_report and not order.chosen and not order.quick:
        return _again(order, earlier)
    plans = _plans(order)
    # So that what was broken on purpose is mended, and no process is left, however it is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        address = found(order.url, _key(order))
        fault = _fault(order, plans, address)
        mix = shares(order.mix)
        check(address, mix)
    except (NotUsable, MixUnknown) as error:
        raise Stopped(str(error)) from None
    _warn_of_rate(address, plans)
    now = dt.datetime.now(dt.UTC)
    folder = Path(order.output) / now.strftime("%Y-%m-%dT%H-%M-%SZ")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stopped(f"{folder} cannot be made: {reason(error)}", FAILED) from None
    setup = Setup(address, mix, f"{int(now.timestamp()):x}{os.getpid():x}", order.processes)
    about = running.environment(setup)
    scenarios: list[Scenario] = []
    with View() as view:
        for plan in plans:
            view.begin(plan)
            try:
                breaking = None if fault is None else Breaking(fault, address, plan.seconds)
                scenario = running.run(plan, setup, breaking, view.show)
            except (NotUsable, GeneratorFailed) as error:
                raise Stopped(str(error), FAILED) from None
            scenarios.append(scenario)
            view.tell(scenario)
            # What there is is kept, whatever becomes of the rest.
            paths = _write(running.report(about, scenarios), folder, earlier)
        whole = running.report(about, scenarios)
        view.end(whole, paths)
    return code(whole)


def code(report: Report) -> int:
    """The exit code of a report."""
    if report.verdict == "missed":
        return FAULTS_FOUND
    return PROVES_NOTHING if any(map(_proves_nothing, report.scenarios)) else SCORED


def _proves_nothing(scenario: Scenario) -> bool:
    """Whether nothing of it was met or missed. A search that a limit of this machine ended shows what it came to."""
    if scenario.stopped_by is not None:
        return not any(overall(stage.targets) == "met" for stage in scenario.stages)
    return scenario.invalid is not None


def _plans(order: Order) -> list[Plan]:
    if order.quick and order.chosen:
        raise Stopped("--quick is scenarios of its own; give it without others")
    try:
        seconds = None if order.duration is None else parse_duration(order.duration)
    except Malformed as error:
        raise Stopped(f"--duration: {error}; give one such as 90s or 10m") from None
    if seconds == 0:
        raise Stopped("--duration: nothing can be seen in no time")
    if order.quick:
        plans = quick(order.users or QUICK_USERS)
    else:
        names: Sequence[str] = order.chosen or (USUAL if order.fault is None else ("sustained",))
        plans = [SCENARIOS[name](order.users or FULL_USERS) for name in names]
    return [lasting(plan, seconds, order.scale) for plan in plans]


def _fault(order: Order, plans: Sequence[Plan], address: Address) -> FaultOrder | None:
    if order.fault is None:
        if order.fault_command or order.restore_command or order.fault_pid:
            raise NotUsable("what is to be broken? Name it with --fault, such as redis-down@30s+10s")
        return None
    if len(plans) != 1 or plans[0].seeks_limit:
        raise NotUsable(
            "a fault goes with one scenario, and not with --stress; --sustained is taken where none is given"
        )
    fault = ordered(order.fault, order.fault_command, order.restore_command, order.fault_pid)
    # So that it is refused before anything is asked of the service.
    Breaking(fault, address, plans[0].seconds)
    return fault


def _key(order: Order) -> str:
    if order.key:
        return order.key.strip()
    file = Path(order.key_file) if order.key_file else FIRST_KEY
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        if order.key_file is None:
            return ""
        why = reason(error) if isinstance(error, OSError) else "it is not ASCII"
        raise Stopped(f"the key file {file} cannot be read: {why}") from None


def _warn_of_rate(address: Address, plans: Sequence[Plan]) -> None:
    rate = limited_to(address)
    wanted = max(plan.users / 5 for plan in plans)
    if rate is not None and (rate < wanted or any(plan.flat_out for plan in plans)):
        complain(
            f"kyb: the key may make {rate:,.0f} requests/s, and the test makes up to {wanted:,.0f}: the rest will be "
            "refused. A key without a limit is made with `kyb keys create --tier unlimited`"
        )


def _earlier(compare: str | None) -> Report | None:
    if compare is None:
        return None
    try:
        return reports.read(Path(compare))
    except reports.ReportUnreadable as error:
        raise Stopped(str(error)) from None


def _again(order: Order, earlier: Report | None) -> int:
    folders = sorted(path.parent for path in Path(order.output).glob(f"*/{reports.NAME}"))
    if not folders:
        raise Stopped(
            f"there is no run in {order.output} whose report could be written; run one first, such as --quick"
        )
    try:
        last = reports.read(folders[-1])
    except reports.ReportUnreadable as error:
        raise Stopped(str(error)) from None
    with View() as view:
        for scenario in last.scenarios:
            view.tell(scenario)
        view.end(last, _write(last, folders[-1], earlier))
    return code(last)


def _write(report: Report, folder: Path, earlier: Report | None) -> list[Path]:
    try:
        return reports.write(report, folder, earlier)
    except OSError as error:
        raise Stopped(f"{error.filename or folder} cannot be written: {reason(error)}", FAILED) from None
