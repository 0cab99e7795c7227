"""The progress bar of a long input."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

AFTER_S = 0.5


class Meter:
    """A bar on standard error, drawn once the work has taken AFTER_S. total_bytes: None where it is not known."""

    def __init__(self, total_bytes: int | None, shown: bool, after_s: float = AFTER_S) -> None:
        self.total_bytes = total_bytes
        self._due = time.monotonic() + after_s if shown else float("inf")
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, read_bytes: int, rows: int) -> None:
        """Tell how far the work is."""
        if self._progress is None:
            if time.monotonic() < self._due:
                return
            self._begin()
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=read_bytes, rows=f"{rows:,}")

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("scoring"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %" if self.total_bytes is not None else ""),
            TextColumn("{task.fields[rows]} profiles"),
            TimeElapsedColumn() if self.total_bytes is None else TimeRemainingColumn(),
            console=Console(file=sys.stderr, stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=self.total_bytes, rows="0")
        self._progress.start()
