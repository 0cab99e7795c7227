"""What can be typed behind `kyb loadtest`."""

from __future__ import annotations

from typing import Any

import click

_CODES = """\b
Exit codes:
  0    every target that was judged was met
  2    wrong usage, or the service cannot be tested like this
  4    a result could not be written, or the generator failed
  5    a target was missed
  6    a scenario proves nothing: the generator was the bottleneck, or this machine cannot hold so many users
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""

_SCENARIOS = {
    "baseline": "100 users, 1 min.",
    "ramp-up": "From none to all users, 5 min.",
    "sustained": "All users, 30 min.",
    "spike": "All users, half as many more at once, all users again; 2 + 2 + 3 min.",
    "stress": "More and more users, 2 min each, until a target is missed.",
    "endurance": "All users, 2 h.",
    "flat-out": "All users, each sending as soon as it is answered, 1 min.",
}


def _scenario_options(command: Any) -> Any:
    for name, text in reversed(_SCENARIOS.items()):
        command = click.option(f"--{name}", is_flag=True, help=text)(command)
    return command


@click.command(epilog=_CODES)
@click.option("--quick", is_flag=True, help="Baseline, ramp-up to 1,000 users, spike to twice that: 2 min.")
@_scenario_options
@click.option("--url", metavar="URL", default="http://127.0.0.1:8080", show_default=True, help="Of the service.")
@click.option("--key", metavar="KEY", envvar="KYB_KEY", help="API key (else KYB_KEY, else that of --key-file).")
@click.option("--key-file", metavar="FILE", envvar="KYB_KEY_FILE", help="File with the API key (else KYB_KEY_FILE).")
@click.option(
    "--users", metavar="NUMBER", type=click.IntRange(1, 1_000_000), help="All users: 10,000; 1,000 if --quick."
)
@click.option("--duration", metavar="TIME", help="Of each scenario, such as 90s or 10m; of --stress, of each stage.")
@click.option(
    "--scale",
    metavar="FACTOR",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    help="Of all times; 0.1 for CI.",
)
@click.option(
    "--mix",
    metavar="MIX",
    default="realistic",
    show_default=True,
    help="assessments, realistic, reads, or weights such as assess=80,read=20 (kinds: assess, read, batch, health).",
)
@click.option(
    "--processes", metavar="NUMBER", type=click.IntRange(1, 16), help="Of the generator; else as few as will do."
)
@click.option(
    "--fault",
    metavar="NAME@TIME+TIME",
    help="Break something meanwhile: redis-down, db-restart, worker-kill or provider-slow, such as redis-down@30s+10s.",
)
@click.option("--fault-command", metavar="COMMAND", help="What breaks it.")
@click.option("--restore-command", metavar="COMMAND", help="What mends it.")
@click.option("--fault-pid", metavar="PID", type=int, help="Or a process that stands still meanwhile (SIGSTOP).")
@click.option("--generate-report", is_flag=True, help="Write the report; alone, that of the last run again.")
@click.option(
    "--compare", metavar="FILE", help="Show the report beside an earlier one: its folder, or its report.json."
)
@click.option(
    "--output", metavar="FOLDER", default="logs/load-testing", show_default=True, help="Each run gets a folder in it."
)
@click.pass_context
def loadtest(context: click.Context, /, **options: Any) -> None:
    """Prove what the service holds: users who each send a request every 5 s, whatever becomes of the last.

    Without a scenario it is all of baseline, ramp-up, sustained, spike and stress. Latencies count from the moment a
    request was intended for. Assessments are really recorded, for the tenant of the key: give a key of a tenant that is
    there for this. docs/load-testing.md says how to read the result.
    """
    from app.cli import loadtest as running

    chosen = [name for name in _SCENARIOS if options.pop(name.replace("-", "_"))]
    context.exit(running.test(running.Order(tuple(chosen), **options)))
