"""`kyb doctor`: what an operator asks first, answered a line each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import setup
from app.cli.exits import FAULTS_FOUND, SCORED, printable
from app.cli.output import Output, write_json
from app.doctor import limits, postgres, providers, redis, sqlite
from app.doctor.findings import VERDICTS, Finding, Verdict, worst
from app.settings import Settings

Part = Literal["db", "redis", "providers", "limits"]

STYLES: dict[Verdict, str] = {"ok": "green", "look": "yellow", "wrong": "bold red"}
ABOUT_WIDTH = 22
WIDTH = 110


async def _database(settings: Settings) -> list[Finding]:
    if settings.database.is_postgres:
        return await postgres.examined(settings)
    return await asyncio.to_thread(sqlite.examined, settings)


_PARTS: dict[Part, Callable[[Settings], Coroutine[Any, Any, list[Finding]]]] = {
    "db": _database,
    "redis": redis.examined,
    "providers": providers.examined,
    "limits": limits.examined,
}


def examine(config: str | None, part: Part, as_json: bool) -> int:
    """Show what was found; the exit code: FAULTS_FOUND where something is wrong."""
    settings = setup.settings(config, {}).settings
    findings = asyncio.run(_PARTS[part](settings))
    verdict = worst(findings)
    if as_json:
        write_json({"verdict": verdict, "findings": findings})
    else:
        _write(findings)
    return FAULTS_FOUND if verdict == "wrong" else SCORED


def _write(findings: Sequence[Finding]) -> None:
    """A finding a line; on a terminal wrapped in columns, its action below it."""
    with Output() as out:
        if not out.isatty():
            width = max(len(printable(finding.about)) for finding in findings)
            for finding in findings:
                words = [printable(finding.seen), *([f"-> {printable(finding.action)}"] if finding.action else [])]
                line = " ".join(" ".join(words).split())
                out.write(f"{finding.verdict:5}  {printable(finding.about):{width}}  {line}\n")
            return
        console = out.console()
        console.print(_grid(findings, console), width=min(console.width, WIDTH))
        console.print(_sum(findings))


def _grid(findings: Sequence[Finding], console: Console) -> Table:
    arrow = "->" if console.options.ascii_only else "→"
    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    grid.add_column(width=5, no_wrap=True)
    grid.add_column(width=min(ABOUT_WIDTH, max(len(finding.about) for finding in findings)))
    grid.add_column(ratio=1)
    for finding in findings:
        words = Text(printable(finding.seen))
        if finding.action:
            words.append(f"\n{arrow} {printable(finding.action)}", "bold")
        grid.add_row(Text(finding.verdict, STYLES[finding.verdict]), Text(printable(finding.about)), words)
    return grid


def _sum(findings: Sequence[Finding]) -> Text:
    """`12 ok, 1 to look at, 1 wrong`."""
    count = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in VERDICTS}
    words = {"ok": "ok", "look": "to look at", "wrong": "wrong"}
    parts = [
        (f"{count[verdict]} {words[verdict]}", STYLES[verdict])
        for verdict in VERDICTS
        if count[verdict] or verdict == "ok"
    ]
    return Text("\n") + Text(", ").join(Text(text, style) for text, style in parts)
