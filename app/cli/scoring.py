"""`kyb score`: rows in, assessments out, group by group, so that memory stays the same however long the input is."""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec
from msgspec import Struct

from app import wire
from app.cli import setup
from app.cli.documents import said_of
from app.cli.exits import SCORED, SOME_REFUSED
from app.cli.formats import Input, read
from app.cli.meter import Meter
from app.cli.output import Output, complain, refuse_same_file
from app.cli.sheet import place_of
from app.cli.source import Row, Source
from app.errors import ProblemTable, ProfileRefused, Refusal
from app.evidence.base import NOT_SCREENED
from app.registry import CATALOGUE
from core.model import LEVELS
from core.scorer import Scorer
from core.validity import ProfileInvalid

_decode = msgspec.json.Decoder(wire.Assessment).decode
_encode = msgspec.json.encode


class Order(Struct, frozen=True):
    """What was asked for."""

    file: str
    form: str | None
    as_json: bool
    full: bool
    output: str | None
    problems: str | None
    as_of: dt.date


def score(order: Order, config: str | None, overrides: Mapping[str, str | None]) -> int:
    """Score a file and return the exit code."""
    refuse_same_file(order.output, order.file)
    refuse_same_file(order.problems, order.file)
    refuse_same_file(order.problems, order.output)
    with Source(order.file) as source:
        loaded = setup.settings(config, overrides)
        scorer = Scorer(setup.selected(loaded), CATALOGUE)
        asked = read(source, order.form, loaded.settings.server.body_limit)
        with ExitStack() as outputs:
            out = outputs.enter_context(Output(order.output))
            problems = outputs.enter_context(Output(order.problems)) if order.problems is not None else None
            run = _Run(order, source, asked, scorer, out, problems)
            run.all()
    return run.close()


class _Run:
    """One file being scored."""

    def __init__(
        self, order: Order, source: Source, asked: Input, scorer: Scorer, out: Output, problems: Output | None
    ) -> None:
        self.order = order
        self.source = source
        self.asked = asked
        self.scorer = scorer
        self.out = out
        self.problems = problems
        self.refused = 0
        self.levels: Counter[int] = Counter()
        self._as_of = order.as_of.toordinal()
        self._table = ProblemTable()
        self._view: Any = None

    def all(self) -> None:
        """Every group of rows, in order."""
        shown = sys.stderr.isatty() and not self.out.isatty()
        with Meter(self.source.total_bytes, shown) as meter:
            for rows in self.asked.rows:
                self._group(rows)
                meter.update(self.source.read_bytes, self.levels.total() + self.refused)
        if self._view is not None:
            self._view.close()

    def close(self) -> int:
        """Say how it went, and give the exit code."""
        scored = self.levels.total()
        if self.refused or not (self.order.as_json or self.asked.single):
            counts = ", ".join(f"{self.levels[place]:,} {level}" for place, level in enumerate(LEVELS))
            complain(f"{scored:,} scored ({counts}); {self.refused:,} refused")
        return SOME_REFUSED if self.refused else SCORED

    def _group(self, rows: list[Row]) -> None:
        profiles = [row.profile for row in rows if row.profile is not None]
        answers = iter(self.scorer.assess_many(profiles, [NOT_SCREENED.findings] * len(profiles), self._as_of))
        lines: list[bytes] = []
        for row in rows:
            refusal = row.refusal
            if row.profile is not None:
                answer = next(answers)
                if not isinstance(answer, ProfileInvalid):
                    self.levels[answer.level] += 1
                    if self.order.as_json:
                        lines.append(self._rendered(answer, row.profile, self.order.full))
                    else:
                        self._show(row, answer)
                    continue
                refusal = ProfileRefused([wire.Fault(pointer, detail) for pointer, detail in answer.faults])
            assert refusal is not None
            self._refuse(row, refusal)
        if lines:
            lines.append(b"")
            self.out.write_bytes(b"\n".join(lines))
            self.out.flush()
        elif self._view is not None:
            self._view.flush()

    def _rendered(self, answer: Any, profile: wire.Profile, full: bool) -> bytes:
        identity = _encode(profile.business.id)
        rendered: bytes = answer.render(None, identity, full, NOT_SCREENED.screening, NOT_SCREENED.evidence_rows)
        return rendered

    def _show(self, row: Row, answer: Any) -> None:
        assert row.profile is not None
        top = _decode(self._rendered(answer, row.profile, False))
        detailed = self.asked.single or self.order.full
        if self._view is None:
            from app.cli import views

            made = views.Details if detailed else views.Table
            self._view = made(self.out.console(), self.scorer.model)
        if not detailed:
            self._view.add(row.line, row.profile, top)
            return
        full = _decode(self._rendered(answer, row.profile, True))
        self._view.add(row.profile, top, full, self.order.full)

    def _refuse(self, row: Row, refusal: Refusal) -> None:
        self.refused += 1
        place = self.source.name if self.asked.single else f"{self.source.name}:{row.line}"
        if refusal.faults:
            for fault in refusal.faults:
                where = place_of(fault.pointer, row.origins) if self.asked.form == "csv" else fault.pointer
                complain(f"{place}: {where or 'the profile'}: {fault.detail}")
        else:
            complain(f"{place}: {said_of(refusal, 'the profile')}")
        if self.problems is not None:
            entry = {"line": row.line, "problem": self._table.problem(refusal, None)}
            self.problems.write_bytes(_encode(entry) + b"\n")
