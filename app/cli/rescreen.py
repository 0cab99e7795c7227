"""`kyb watchlist rescreen`: the recorded businesses against what changed in the lists."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from app.assembly import Assembly
from app.audit.aside import REMOVED
from app.cli import setup
from app.cli.exits import CONFIG_REFUSED, FAILED, Stopped, printable
from app.cli.opening import Kept, cover, frugal, with_store
from app.cli.output import Output, write_json
from app.evidence.loaded import version_text
from app.neighbours import Tiers
from app.rescreening import Rescreened, Rescreener
from app.secrets import SecretsMissing, secrets_of
from app.store.lists import ListVersion
from app.store.trail import SYSTEM_TENANT

ACTOR = "cli"
REMOVALS = 1000
"""How far back a list's removal is looked for, in removals."""


def rescreen(config: str | None, names: Sequence[str], as_json: bool) -> None:
    """Rescreen against each list, all of them if none is named."""
    settings = setup.settings(config, {}).settings
    try:
        secrets = secrets_of(settings)
    except SecretsMissing as missing:
        raise Stopped(str(missing), CONFIG_REFUSED) from None

    async def run(store: Kept) -> list[tuple[str, ListVersion | None, Rescreened | None]]:
        known = {one.name: one for one in await store.lists()}
        for name in names:
            if name not in known and name not in await _removed(store):
                raise Stopped(f"there is no list {name}; `kyb watchlist list` shows those there are", FAILED)
        tiers = Tiers(frugal(settings))
        parts = Assembly(settings, store, tiers)
        await parts.open(ACTOR)
        outcomes = []
        try:
            with Bar(shown=sys.stderr.isatty()) as bar:
                for name in names or known:
                    bar.begin(name)
                    rescreener = Rescreener(
                        store,
                        store,
                        parts.assessor,
                        threshold=parts.lists.loaded.threshold,
                        actor=ACTOR,
                        tell=bar.update,
                    )
                    version = known.get(name)
                    done = rescreener.run_removed(name) if version is None else rescreener.run(version)
                    outcomes.append((name, version, await done))
        finally:
            await parts.close()
            await tiers.close()
            await cover(settings, store, secrets.audit_signing)
        return outcomes

    outcomes = with_store(settings, run)
    if as_json:
        write_json({"lists": [_row(*each) for each in outcomes]})
        return
    with Output() as out:
        for name, version, outcome in outcomes:
            out.write(f"{printable(name)}: {_sentence(version, outcome)}\n")


async def _removed(store: Kept) -> set[object]:
    """The names of lists that were taken out of force."""
    acts = await store.entries(SYSTEM_TENANT, act=REMOVED, limit=REMOVALS)
    return {msgspec.json.decode(act.detail)["list"] for act in acts}


def _row(name: str, version: ListVersion | None, outcome: Rescreened | None) -> dict[str, object]:
    """version: None of a list that is in force no more."""
    shown = None if version is None else version_text(version)
    told: dict[str, object] = {"name": name, "version": shown, "done_before": outcome is None}
    if outcome is not None:
        change = outcome.change
        told |= {
            "entries": {"new": change.new, "changed": change.changed, "removed": change.removed},
            "businesses": outcome.businesses,
            "recorded": outcome.recorded,
            "left_out": outcome.left_out,
        }
    return told


def _sentence(version: ListVersion | None, outcome: Rescreened | None) -> str:
    if version is None:
        assert outcome is not None
        return (
            f"not in force; of {outcome.businesses:,} businesses {outcome.recorded:,} whose screening named it were "
            f"assessed anew"
        )
    if outcome is None:
        return f"all businesses were compared with version {version_text(version)} before"
    change = outcome.change
    entries = f"{change.new:,} new, {change.changed:,} changed and {change.removed:,} removed entries"
    if change.entries is None:
        return f"no entry differs in version {version_text(version)}"
    left_out = (
        f"; {outcome.left_out:,} assessments of no business that can be told were left out" if outcome.left_out else ""
    )
    return (
        f"{entries} against {outcome.businesses:,} businesses; the screening of {outcome.recorded:,} differs, and they "
        f"were assessed anew{left_out}"
    )


class Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr, stderr=True),
            transient=True,
            disable=not shown,
        )
        self._task = self._progress.add_task("", total=1.0, counts="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        """The work on the next list begins."""
        self._progress.reset(self._task, total=1.0, description=f"rescreening {printable(name)}", counts="")

    def update(self, share: float, businesses: int, recorded: int) -> None:
        """Tell how far it is, 0 to 1."""
        counts = f"{businesses:,} businesses, {recorded:,} assessed anew"
        self._progress.update(self._task, completed=share, counts=counts)
