"""Assessments for people: one in detail, or many as a table."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from app import wire
from app.cli.exits import printable
from core.model import HUNDREDTHS, MAX_SCORE, Model

DETAIL_WIDTH = 110
TOP_CODES = 3
FLUSH_ROWS = 500

LEVEL_STYLE = {"low": "green", "medium": "yellow", "high": "red", "critical": "bold white on red"}
DECISION_STYLE = {"approve": "green", "review": "yellow", "decline": "bold red"}


class Table:
    """Many assessments, a line or a few each. Widths are fixed, so that rows are written as they come."""

    def __init__(self, console: Console, model: Model) -> None:
        self.console = console
        self.model = model
        self._rows: list[tuple[int, wire.Profile, wire.Assessment]] = []
        self._begun = False
        self._last: wire.Assessment | None = None
        self._unscreened = True

    def add(self, line: int, profile: wire.Profile, answer: wire.Assessment) -> None:
        self._rows.append((line, profile, answer))
        self._last = answer
        self._unscreened = self._unscreened and answer.screening.status == "not_screened"
        if len(self._rows) >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        grid = self._grid()
        for line, profile, answer in self._rows:
            grid.add_row(
                str(line),
                Text(printable(profile.business.name), overflow="ellipsis", no_wrap=True),
                f"{answer.score:.2f}",
                Text(answer.level, LEVEL_STYLE[answer.level]),
                Text(answer.decision, DECISION_STYLE[answer.decision]),
                _percent(answer.completeness),
                ", ".join(reason.code for reason in answer.reasons[:TOP_CODES]) or "-",
            )
        self.console.print(grid)
        self._rows.clear()
        self._begun = True

    def close(self) -> None:
        self.flush()
        if self._last is not None:
            self.console.print(_footer(self._last, self._unscreened))

    def _grid(self) -> Grid:
        width = self.console.width
        fixed = 6 + 6 + 8 + 8 + 5
        rest = max(width - fixed - 6, 24)
        name = min(max(rest * 2 // 5, 12), 40)
        grid = Grid(box=None, padding=(0, 1, 0, 0), show_header=not self._begun, width=width, header_style="bold")
        grid.add_column("line", width=6, justify="right", no_wrap=True)
        grid.add_column("business", width=name, no_wrap=True, overflow="ellipsis")
        grid.add_column("score", width=6, justify="right", no_wrap=True)
        grid.add_column("level", width=8, no_wrap=True)
        grid.add_column("decision", width=8, no_wrap=True)
        grid.add_column("known", width=5, justify="right", no_wrap=True)
        grid.add_column("main reasons", ratio=1)
        return grid


class Details:
    """One assessment after the other, each explained."""

    def __init__(self, console: Console, model: Model) -> None:
        self.console = console
        self.model = model
        self.width = min(console.width, DETAIL_WIDTH)
        self._titles = {c.name: c.title for c in model.characteristics}
        self._categories = {c.name: c.title for c in model.categories}
        self._full_block, self._empty_block = ("#", ".") if console.options.ascii_only else ("█", "░")

    def add(self, profile: wire.Profile, top: wire.Assessment, full: wire.Assessment, everything: bool) -> None:
        """top, full: the same assessment, explained so. everything: show all that `full` holds."""
        shown = full if everything else top
        parts: list[RenderableType] = [
            self._heading(profile, top),
            self._verdict(top),
            self._section("Points by category", self._category_bars(top)),
            self._section("All characteristics" if everything else "Main reasons", self._reasons(shown)),
        ]
        if top.overrides:
            parts.append(self._section("Rules outside the sum", self._overrides(top)))
        if shown.distress:
            parts.append(self._section("Financial distress", self._distress(shown)))
        missing = [reason for reason in full.reasons if reason.missing]
        if missing and not everything:
            parts.append(self._section(f"Not known ({len(missing)} of {len(full.reasons)})", self._missing(missing)))
        parts.append(Text())
        parts.append(_footer(top, top.screening.status == "not_screened"))
        self.console.print(Group(*parts), width=self.width)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held back."""

    def _section(self, title: str, content: RenderableType) -> RenderableType:
        return Group(Text(), Text(title, "bold"), Padding(content, (0, 0, 0, 2)))

    def _heading(self, profile: wire.Profile, answer: wire.Assessment) -> Text:
        business = profile.business
        text = Text(printable(business.name), "bold")
        text.append(f", {printable(business.jurisdiction)}", "not bold")
        if business.id is not None:
            text.append(f"  ({printable(business.id)})", "not bold dim")
        return text

    def _verdict(self, answer: wire.Assessment) -> RenderableType:
        verdict = Text("Score ")
        verdict.append(f"{answer.score:.2f}", "bold")
        verdict.append(" of 100   level ")
        verdict.append(answer.level, LEVEL_STYLE[answer.level])
        verdict.append("   decision ")
        verdict.append(answer.decision, DECISION_STYLE[answer.decision])
        band = self._band(answer)
        if band != answer.level:
            verdict.append(f"\nThe points alone would be {band}; the rules below raise the level.")
        low, high = answer.score_range
        known = f"{_percent(answer.completeness)} of what the model weighs is known."
        if low != high:
            known += f" The rest could move the score to between {low:.2f} and {high:.2f}."
        return Group(Text(), verdict, *self._scale(answer), Text(known))

    def _band(self, answer: wire.Assessment) -> str:
        return next(level for level, mark in reversed(self.model.bands) if round(answer.score * HUNDREDTHS) >= mark)

    def _scale(self, answer: wire.Assessment) -> list[Text]:
        """The score as a bar, with the bands below: each name begins where its band does."""
        cells = self.width
        full = round(cells * answer.score / 100)
        band = self._band(answer)
        bar = Text(self._full_block * full, LEVEL_STYLE[band].replace("bold white on red", "bold red"))
        bar.append(self._empty_block * (cells - full), "dim")
        names = ""
        for level, mark in self.model.bands:
            names = names.ljust(round(cells * mark / MAX_SCORE)) + f"{mark / HUNDREDTHS:g} {level} "
        return [bar, Text(names[:cells], "dim")]

    def _category_bars(self, answer: wire.Assessment) -> Grid:
        grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
        longest = max(category.max_points for category in answer.categories)
        cells = min(40, self.width - 50)
        for category in answer.categories:
            width = round(cells * category.max_points / longest) or 1
            full = min(round(width * category.points / category.max_points), width) if category.max_points else 0
            bar = Text(self._full_block * full)
            bar.append(self._empty_block * (width - full), "dim")
            points = f"{category.points:.2f} of {category.max_points:g}"
            grid.add_row(self._categories[category.name], Text(points, justify="right"), bar)
        return grid

    def _reasons(self, answer: wire.Assessment) -> RenderableType:
        if not answer.reasons:
            return Text("Nothing adds to the score.")
        grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
        grid.add_column(justify="right", no_wrap=True, style="bold")
        grid.add_column(ratio=1)
        for reason in answer.reasons:
            text = Text(reason.message)
            text.append(f"\n{reason.code}", "dim")
            text.append(f"  {reason.characteristic} {_observed(reason)}", "dim")
            grid.add_row(f"{reason.points:.2f}", text)
        return grid

    def _overrides(self, answer: wire.Assessment) -> Grid:
        grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
        grid.add_column(ratio=1)
        for override in answer.overrides:
            text = Text(override.message)
            law = ", by law" if override.legal else ""
            text.append(f"\n{override.code}  at least {override.floor}, {override.decision}{law}", "dim")
            grid.add_row(text)
        return grid

    def _missing(self, reasons: list[wire.Reason]) -> Grid:
        grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        for name, title in self._categories.items():
            titles = [self._titles[reason.characteristic] for reason in reasons if reason.category == name]
            if titles:
                grid.add_row(title, Text("; ".join(titles), "dim"))
        return grid

    def _distress(self, answer: wire.Assessment) -> Grid:
        grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        for model in answer.distress:
            value = "-" if model.value is None else f"{model.value:.4f}"
            note = "used by the score" if model.used else ""
            if model.missing:
                note = f"lacks {', '.join(model.missing)}"
            grid.add_row(model.model, value, model.zone or "", Text(note, "dim"))
        return grid


def _observed(reason: wire.Reason) -> str:
    if reason.observed is None:
        return f"is {reason.attribute}".replace("_", " ")
    value = str(reason.observed).lower() if isinstance(reason.observed, bool) else reason.observed
    shown = f"{value:.6g}" if isinstance(value, int | float) else str(value)
    return f"= {shown}" + (f" in {reason.attribute}" if reason.attribute[:1] in "[(" else "")


def _percent(share: float) -> str:
    """Rounded down: 100 % is written only where everything is known."""
    return f"{int(share * 100 + 1e-9)} %"


def _footer(answer: wire.Assessment, unscreened: bool) -> Text:
    text = Text(
        f"Model {answer.model.id}@{answer.model.version} ({answer.model.sha256[:12]}), as of {answer.as_of}.", "dim"
    )
    if unscreened:
        text.append(" Nothing was screened against watchlists.")
    return text
