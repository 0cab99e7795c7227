"""What can be typed: the commands and their options. Heavy modules are imported when a command runs, not before."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import click

from app import __version__
from app.cli import exits
from app.cli.doctor_commands import doctor
from app.cli.drain_command import drain
from app.cli.health import health
from app.cli.loadtest_commands import loadtest
from app.cli.watchlist_commands import watchlist
from app.roles import PERMISSIONS, ROLES

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

Command = Callable[..., Any]

_config = click.option("--config", metavar="FILE", help="Settings file (else CONFIG_FILE, else the defaults).")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_day = click.DateTime(["%Y-%m-%d"])

_DATABASE_CODES = """\b
Exit codes:
  0    done
  2    wrong usage
  3    settings refused
  4    the database could not be used, or Redis could not be told of an erasure
  70   a fault of kyb itself
  130  interrupted (Ctrl-C), or not agreed to
  141  the reader of the output went away"""


_KEY_CODES = """\b
Exit codes:
  0    done
  2    wrong usage, or a key that cannot be as it is asked for
  3    settings refused
  4    the database could not be used, or holds no such key
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""

_AUDIT_CODES = """\b
Exit codes:
  0    done; what was verified is intact
  2    wrong usage, or a file that cannot be read as what it should be
  3    settings refused
  4    the database could not be used, or the answer could not be written
  5    the audit trail has faults
  6    no fault was found, but not every trail could be compared with a checkpoint kept outside
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""


def _model_options(command: Command) -> Command:
    command = click.option("--model-path", metavar="FILE", help="Score with the model in this file.")(command)
    return click.option("--model", metavar="ID@VERSION", help="Score with this packaged model.")(command)


@click.group(context_settings=_CONTEXT, epilog=exits.CODES)
@click.version_option(__version__, message="kyb %(version)s")
def kyb() -> None:
    """Know your business: explained risk assessments of companies."""


@kyb.command(epilog=exits.CODES)
@_config
@click.option("--host", metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", metavar="NUMBER", help="Port to listen on.")
@click.option("--workers", metavar="NUMBER", help="Worker processes.")
@click.option("--data-dir", metavar="FOLDER", help="Folder of the embedded database.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning, error or critical.")
@_model_options
def serve(config: str | None, **options: str | None) -> None:
    """Start the service.

    Options overrule the environment, which overrules the settings file. `kyb config` shows what is in force.
    """
    from app.cli import service

    names = {
        "host": "server.host",
        "port": "server.port",
        "workers": "server.workers",
        "data_dir": "database.data_dir",
        "log_level": "logging.level",
        "model": "model.id",
        "model_path": "model.path",
    }
    service.serve(config, {names[option]: value for option, value in options.items()})


@kyb.command(epilog=exits.CODES)
@click.argument("file")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "ndjson", "csv"]),
    help="What FILE is; without it, its ending and its beginning tell.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON assessment a line, for programs.")
@click.option(
    "--explain",
    type=click.Choice(["top", "full"]),
    default="top",
    show_default=True,
    help="The main reasons, or every characteristic and distress model.",
)
@click.option("--output", "-o", metavar="FILE", help="Write there and not to standard output.")
@click.option("--problems", metavar="FILE", help='Also write refused profiles there, as {"line", "problem"} a line.')
@click.option(
    "--as-of",
    metavar="DATE",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Count ages to this day (YYYY-MM-DD); today (UTC) without it.",
)
@_config
@_model_options
@click.pass_context
def score(
    context: click.Context,
    file: str,
    form: str | None,
    as_json: bool,
    explain: str,
    output: str | None,
    problems: str | None,
    as_of: dt.datetime | None,
    config: str | None,
    model: str | None,
    model_path: str | None,
) -> None:
    """Score the profiles in FILE (- is standard input). Nothing is recorded.

    FILE is JSON (one profile, a list of them, or {"items": [...]}), NDJSON (one profile a line), or CSV.
    One profile alone is explained in detail, several make a table; --json writes the answers of the API.
    A refused profile is reported with its line on standard error and does not stop the rest.

    CSV: the first line names fields with dots (business.name, ownership.owners.0.name); an empty cell is a
    missing answer; lists of words are separated by ; or | in their cell, and [] is an empty list. The
    delimiter may be a comma, a semicolon or a tab.
    """
    from app.cli import scoring

    order = scoring.Order(
        file=file,
        form=form,
        as_json=as_json,
        full=explain == "full",
        output=output,
        problems=problems,
        as_of=(as_of.date() if as_of else dt.datetime.now(dt.UTC).date()),
    )
    context.exit(scoring.score(order, config, {"model.id": model, "model.path": model_path}))


@kyb.group()
def model() -> None:
    """Check, show and list models."""


@model.command("check", epilog=exits.CODES)
@click.argument("file")
def model_check(file: str) -> None:
    """Check a model file (- is standard input) and list every fault with its line."""
    from app.cli import models

    models.check(file)


@model.command("show", epilog=exits.CODES)
@click.argument("which", metavar="[ID@VERSION|FILE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="The whole definition, for programs.")
@_config
def model_show(which: str | None, as_json: bool, config: str | None) -> None:
    """Show what a model scores: categories, characteristics, attributes, points, overrides.

    Without an argument it is the model that the settings select.
    """
    from app.cli import models

    models.show(which, as_json, config)


@model.command("list", epilog=exits.CODES)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_config
def model_list(as_json: bool, config: str | None) -> None:
    """List the packaged models, and which one the settings select."""
    from app.cli import models

    models.show_list(as_json, config)


@kyb.command(epilog=_DATABASE_CODES)
@_config
def migrate(config: str | None) -> None:
    """Bring the database to the schema of this version, and make the partitions of the coming months.

    PostgreSQL is migrated at DATABASE_DIRECT_URL, else at DATABASE_URL. It may run in many places at once, and again.
    """
    from app.cli import migration

    migration.migrate(config)


@kyb.group(invoke_without_command=True, epilog=_DATABASE_CODES)
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@_json
@_config
@click.pass_context
def retention(context: click.Context, dry_run: bool, as_json: bool, config: str | None) -> None:
    """Delete the assessments that are past their tenant's retention, now.

    Without a retention a tenant's assessments are kept for ever. The time runs from the day of the assessment, or from
    the end of the relationship with the business if that is later (see `kyb relationship`).
    """
    if context.invoked_subcommand is not None:
        if dry_run or as_json or config is not None:
            raise click.UsageError(f"Options go behind {context.invoked_subcommand}.")
        return
    from app.cli import database

    database.drop_past(config, dry_run, as_json)


@retention.command("set", epilog=_DATABASE_CODES, context_settings={"ignore_unknown_options": True})
@click.argument("tenant")
@click.argument("days", metavar="DAYS|forever")
@_config
def retention_set(tenant: str, days: str, config: str | None) -> None:
    """Say how long a tenant's assessments are kept: 1826 or 1826d for days, 5y for years, or forever.

    Five years are 1827 days: as many as they can have with their leap days.
    """
    from app.cli import database

    database.set_retention(config, tenant, days)


@retention.command("list", epilog=_DATABASE_CODES)
@_json
@_config
def retention_list(as_json: bool, config: str | None) -> None:
    """List the tenants that have a retention."""
    from app.cli import database

    database.list_retentions(config, as_json)


@kyb.group()
def relationship() -> None:
    """The relationships with businesses, from whose end the retention of their assessments counts."""


@relationship.command("set", epilog=_DATABASE_CODES)
@click.argument("tenant")
@click.argument("business")
@click.argument("ended", metavar="ongoing|YYYY-MM-DD")
@_config
def relationship_set(tenant: str, business: str, ended: str, config: str | None) -> None:
    """Say that a tenant's relationship with a business is ongoing, or which day was its last.

    While it is ongoing, all assessments of the business are kept. Without a relationship each counts from its own day.
    """
    from app.cli import database

    database.set_relationship(config, tenant, business, ended)


@relationship.command("list", epilog=_DATABASE_CODES)
@click.argument("tenant")
@_json
@_config
def relationship_list(tenant: str, as_json: bool, config: str | None) -> None:
    """List a tenant's relationships."""
    from app.cli import database

    database.list_relationships(config, tenant, as_json)


@kyb.command(epilog=_DATABASE_CODES)
@click.argument("tenant")
@click.argument("business")
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the note, so it should name nobody.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_config
def erase(tenant: str, business: str, reason: str, yes: bool, config: str | None) -> None:
    """Take from a tenant's assessments of a business what names it or its people.

    Gone are its id, the input and the hits of its screening; the scores stay, with the SHA-256 of each input. The
    assessments can be read as before, and no longer be replayed. Its dispositions end, and name nobody any more. It
    cannot be undone. Running services forget what they remember when they share a Redis; otherwise within the time of
    CACHE_TTL. The same command again does what is left.
    """
    from app.cli import database

    database.erase(config, tenant, business, reason, yes)


@kyb.command(epilog=_DATABASE_CODES)
@click.argument("tenant")
@_json
@_config
def erasures(tenant: str, as_json: bool, config: str | None) -> None:
    """List what was erased for a tenant: when, the SHA-256 of tenant, NUL and business, how much, and why."""
    from app.cli import database

    database.list_erasures(config, tenant, as_json)


@kyb.group()
def keys() -> None:
    """API keys: who may call the service, and what for."""


@keys.command("create", epilog=_KEY_CODES)
@click.option("--tenant", metavar="TENANT", default="default", show_default=True, help="Whose key it is.")
@click.option("--name", metavar="NAME", required=True, help="What it is for, as lists of keys show it.")
@click.option("--role", type=click.Choice([*ROLES]), required=True, help="What it may do.")
@click.option("--scope", "scopes", type=click.Choice(PERMISSIONS), multiple=True, help="Only this of it; repeatable.")
@click.option("--network", "networks", metavar="CIDR", multiple=True, help="Only from there; repeatable.")
@click.option("--tier", metavar="TIER", help="Its rate, by a name of the settings; else the default tier's.")
@click.option("--rate", metavar="RATE", help="A rate of its own, such as '100/s burst 200', or unlimited.")
@click.option("--expires", metavar="90d|DATE", help="When it ends: after a time, or with a day (UTC); else never.")
@click.option("--json", "as_json", is_flag=True, help="The key with all that is known of it, for programs.")
@_config
def keys_create(
    tenant: str,
    name: str,
    role: Any,
    scopes: tuple[Any, ...],
    networks: tuple[str, ...],
    tier: str | None,
    rate: str | None,
    expires: str | None,
    as_json: bool,
    config: str | None,
) -> None:
    """Make a key. Standard output gets the key and nothing else, so that it can be captured.

    The key is kept nowhere: what is not captured or copied is lost, and another has to be made.
    """
    from app.cli import keys

    keys.create(config, keys.Order(tenant, name, role, scopes, networks, tier, rate, expires), as_json)


@keys.command("list", epilog=_KEY_CODES)
@click.option("--tenant", metavar="TENANT", help="Only this tenant's.")
@_json
@_config
def keys_list(tenant: str | None, as_json: bool, config: str | None) -> None:
    """List the keys, newest first: those that ended too, and none of their texts."""
    from app.cli import keys

    keys.show_list(config, tenant, as_json)


@keys.command("revoke", epilog=_KEY_CODES)
@click.argument("id", metavar="ID|KEY")
@click.option("--tenant", metavar="TENANT", help="Only if it is this tenant's.")
@_config
def keys_revoke(id: str, tenant: str | None, config: str | None) -> None:
    """End a key, named by its id, or by its whole text where that was found in the open.

    It stops working everywhere within 5 s. That cannot be undone.
    """
    from app.cli import keys

    keys.revoke(config, tenant, id)


@keys.command("rotate", epilog=_KEY_CODES)
@click.argument("id")
@click.option("--tenant", metavar="TENANT", help="Only if it is this tenant's.")
@click.option("--overlap", metavar="TIME", default="0s", show_default=True, help="How long the old one still works.")
@click.option("--json", "as_json", is_flag=True, help="The key with all that is known of it, for programs.")
@_config
def keys_rotate(id: str, tenant: str | None, overlap: str, as_json: bool, config: str | None) -> None:
    """Replace a key by one with the same rights, rate and end. Standard output gets the new key and nothing else.

    With an overlap, such as 24h, both work for so long: time to bring the new one to where it is used.
    """
    from app.cli import keys

    keys.rotate(config, tenant, id, overlap, as_json)


@kyb.group()
def audit() -> None:
    """The audit trail: who did what, and the proof that nobody changed it since."""


@audit.command("verify", epilog=_AUDIT_CODES)
@click.option("--tenant", metavar="TENANT", help="Only this tenant's trail.")
@click.option(
    "--checkpoint",
    "anchors",
    metavar="FILE",
    help="Compare with what `kyb audit checkpoint` printed before (- is standard input).",
)
@click.option("--no-rows", is_flag=True, help="Look at the trail alone, and compare nothing that is on record with it.")
@_json
@_config
@click.pass_context
def audit_verify(
    context: click.Context, tenant: str | None, anchors: str | None, no_rows: bool, as_json: bool, config: str | None
) -> None:
    """Compute every hash of the audit trail again, and name what is not as it was: each fault on a line.

    Whoever can write the database can also cut off the last checkpoints with all that they cover. That shows in a
    comparison with checkpoints kept elsewhere: --checkpoint FILE, AUDIT_ANCHOR_FILE, and on the embedded database
    DATA_DIR/audit_anchor.
    """
    from app.cli import audit

    context.exit(audit.verify(config, tenant, anchors, with_rows=not no_rows, as_json=as_json))


@audit.command("export", epilog=_AUDIT_CODES)
@click.option("--tenant", metavar="TENANT", help="Only this tenant's trail.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--output", "-o", metavar="FILE", help="Write there and not to standard output.")
@click.option("--from", "first", metavar="DATE", type=_day, help="The first day (YYYY-MM-DD, UTC).")
@click.option("--to", "last", metavar="DATE", type=_day, help="The last day (YYYY-MM-DD, UTC).")
@_config
def audit_export(
    tenant: str | None,
    form: Literal["jsonl", "csv"],
    output: str | None,
    first: dt.datetime | None,
    last: dt.datetime | None,
    config: str | None,
) -> None:
    """Write out the audit trail, newest entry first. The export is itself entered in it."""
    from app.cli import audit

    audit.export(config, tenant, form, output, first and first.date(), last and last.date())


@audit.command("checkpoint", epilog=_AUDIT_CODES)
@click.option("--tenant", metavar="TENANT", help="Only this tenant's.")
@_config
def audit_checkpoint(tenant: str | None, config: str | None) -> None:
    """Print the newest checkpoint of each trail, to be kept elsewhere for `kyb audit verify --checkpoint`."""
    from app.cli import audit

    audit.checkpoint(config, tenant)


kyb.add_command(doctor)
kyb.add_command(drain)
kyb.add_command(health)
kyb.add_command(watchlist)
kyb.add_command(loadtest)


@kyb.command("config", epilog=exits.CODES)
@_config
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def config_command(config: str | None, as_json: bool) -> None:
    """Print every effective setting and where it came from. Passwords are masked."""
    from app.cli import service

    service.show_config(config, as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave the process with its exit code."""
    if os.getpid() == 1:
        # The first process of a container is told to stop in vain, unless it handles the signal itself.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(exits.TERMINATED))
    try:
        code = kyb.main(arguments, prog_name="kyb", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else exits.SCORED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)
    except OSError as error:
        exits.Stopped(f"{error.filename or 'the system'}: {exits.reason(error)}").show()
        sys.exit(exits.FAILED)
    except Exception:
        traceback.print_exc()
        click.echo("kyb: this is a fault of kyb itself; please report it with the lines above", err=True)
        sys.exit(exits.INTERNAL)
