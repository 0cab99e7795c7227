"""What can be typed behind `kyb watchlist`."""

from __future__ import annotations

from typing import Any

import click

_config = click.option("--config", metavar="FILE", help="Settings file (else CONFIG_FILE, else the defaults).")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")

_CODES = """\b
Exit codes:
  0    done
  2    wrong usage, or a file that cannot be read as a list
  3    settings or model refused
  4    the database could not be used, a list could not be fetched, or is not plausible; the old one stays in force
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""


@click.group()
def watchlist() -> None:
    """Watchlists: fetched, added, searched, and what a change of them means for recorded businesses."""


@watchlist.command(epilog=_CODES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--url", "urls", metavar="URL", multiple=True, help="Fetch the list from there; repeatable, in order.")
@click.option("--force", is_flag=True, help="Also what has not changed or is not plausible.")
@_json
@_config
@click.pass_context
def update(
    context: click.Context,
    names: tuple[str, ...],
    urls: tuple[str, ...],
    force: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """Fetch lists from their publishers and bring what has changed into force.

    Without a NAME: those that the model requires, and those in force that have an address. A list that cannot be
    fetched or read, or has too few entries to be whole, leaves the old one in force.
    """
    from app.cli import watchlist

    context.exit(watchlist.update(config, names, urls, force, as_json))


@watchlist.command(epilog=_CODES)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--name", metavar="NAME", help="What the list is called; else as its first file.")
@click.option("--title", metavar="TEXT", help="What it is, as lists show it.")
@click.option("--format", "form", metavar="FORMAT", help="What the files are; else their content tells.")
@click.option("--kind", type=click.Choice(["sanction", "pep", "other"]), help="Of every entry; else as the list says.")
@click.option("--force", is_flag=True, help="Also where it has far fewer entries than the one in force.")
@_json
@_config
def add(
    files: tuple[str, ...],
    name: str | None,
    title: str | None,
    form: str | None,
    kind: Any,
    force: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """Bring files into force as one list: OFAC's sdn.csv with alt.csv and add.csv, the UN's or EU's file, OpenSanctions
    targets.simple.csv, or FollowTheMoney lines."""
    from app.cli import watchlist

    watchlist.add(config, watchlist.Addition(files, name, title, form, kind, force), as_json)


@watchlist.command("list", epilog=_CODES)
@_json
@_config
def list_(as_json: bool, config: str | None) -> None:
    """Show the lists in force, and those that the model misses."""
    from app.cli import watchlist

    watchlist.show_list(config, as_json)


@watchlist.command(epilog=_CODES)
@click.argument("name")
@click.option("--person/--company", default=None, help="Compare as a person, or as an organisation; else both ways.")
@click.option("--country", metavar="CC", help="Its country.")
@click.option("--birth-date", metavar="DATE", help="A person's, such as 1970-03-02 or 1970.")
@click.option("--identifier", metavar="NUMBER", help="A registration, LEI, VAT or other number.")
@click.option("--list", "lists", metavar="NAME", multiple=True, help="Only in this list; repeatable.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--cutoff", type=click.FloatRange(0, 1), help="Show from this score on; else from the model's threshold.")
@_json
@_config
def search(
    name: str,
    person: bool | None,
    country: str | None,
    birth_date: str | None,
    identifier: str | None,
    lists: tuple[str, ...],
    limit: int,
    cutoff: float | None,
    as_json: bool,
    config: str | None,
) -> None:
    """Show whom the lists in force know by NAME, best first, and why."""
    from app.cli import watchlist

    asked = watchlist.Sought(name, person, country, birth_date, identifier, lists, limit, cutoff)
    watchlist.search(config, asked, as_json)


@watchlist.command(epilog=_CODES)
@click.argument("name")
@_config
def remove(name: str, config: str | None) -> None:
    """Take a list out of force."""
    from app.cli import watchlist

    watchlist.remove(config, name)


@watchlist.command(epilog=_CODES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_json
@_config
def rescreen(names: tuple[str, ...], as_json: bool, config: str | None) -> None:
    """Compare recorded businesses with what changed in the lists since they were last compared.

    Each by its latest assessment (of a business.id, or of a jurisdiction and registration number). Those whose
    screening would now differ are assessed anew, and that is recorded. Ended on the way, it goes on where it was.
    The NAME of a list that was removed: those whose screening names it.
    """
    from app.cli import rescreen

    rescreen.rescreen(config, names, as_json)
