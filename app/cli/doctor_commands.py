"""What can be typed behind `kyb doctor`."""

from __future__ import annotations

import click

_config = click.option("--config", metavar="FILE", help="Settings file (else CONFIG_FILE, else the defaults).")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")

_CODES = """\b
Exit codes:
  0    nothing is wrong; there may be something to look at
  2    wrong usage
  3    settings refused
  4    the answer could not be written
  5    something is wrong
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""


@click.group()
def doctor() -> None:
    """What is well and what is not: a finding a line, with what to do about it.

    A finding is ok, to look at, or wrong. No wait is long, also where something does not answer, and nothing shown
    holds secrets or data of businesses. It looks from where it runs, and as the user it runs as: run it in a pod.
    """


@doctor.command("db", epilog=_CODES)
@_json
@_config
@click.pass_context
def doctor_db(context: click.Context, as_json: bool, config: str | None) -> None:
    """Look at the database.

    Sessions, long transactions, locks and who holds them, slow statements, connections against the budget, sizes,
    dead rows, schema, replication; of the embedded database its file, log, soundness and lock.

    PostgreSQL is asked at DATABASE_DIRECT_URL where there is one, and with DB_POOLER=pgbouncer PgBouncer's console too.
    """
    from app.cli import doctor

    context.exit(doctor.examine(config, "db", as_json))


@doctor.command("redis", epilog=_CODES)
@_json
@_config
@click.pass_context
def doctor_redis(context: click.Context, as_json: bool, config: str | None) -> None:
    """Look at Redis.

    Latency, clients, memory and what happens when it is full, hit rate, evictions, keys, the slow log.

    To see whether it takes writes, a key of its own is written that ends after a second.
    """
    from app.cli import doctor

    context.exit(doctor.examine(config, "redis", as_json))


@doctor.command("providers", epilog=_CODES)
@_json
@_config
@click.pass_context
def doctor_providers(context: click.Context, as_json: bool, config: str | None) -> None:
    """Look at the external providers.

    Of each, how long it takes to connect, for TLS and to a first byte, its certificate, its settings.

    Nothing of any business is asked and no secret is sent: the only request is a HEAD of the root.
    """
    from app.cli import doctor

    context.exit(doctor.examine(config, "providers", as_json))


@doctor.command("limits", epilog=_CODES)
@_json
@_config
@click.pass_context
def doctor_limits(context: click.Context, as_json: bool, config: str | None) -> None:
    """Look at what the system allows.

    Against what the settings need: open files, CPU, memory, threads, backlog, ports, room for
    files, and whether the clocks agree."""
    from app.cli import doctor

    context.exit(doctor.examine(config, "limits", as_json))
