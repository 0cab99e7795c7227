"""What assessments came to, as metrics."""

from __future__ import annotations

from app.telemetry import catalogue
from app.telemetry.meters import Meters
from core.model import DECISIONS, HUNDREDTHS, LEVELS
from core.scorer import Assessed, Scorer
from core.tally import Tally


class Outcomes:
    """Counts the assessments of one scorer: what was decided, the scores, what was missing and which rules held."""

    __slots__ = ("_tally", "_untold", "recorded")

    def __init__(self, meters: Meters, scorer: Scorer) -> None:
        model = scorer.model
        key = model.key
        floors = [floor for category in model.categories for floor in category.floors]
        self._tally = Tally(
            scorer,
            meters.cells.numbers,
            outcomes=[
                meters.reserve(catalogue.ASSESSMENTS, level, decision, key)
                for level in LEVELS
                for decision in DECISIONS
            ],
            scores=meters.reserve(catalogue.SCORES, key),
            score_bounds=[round(bound * HUNDREDTHS) for bound in catalogue.SCORE_BOUNDS],
            missing=[meters.reserve(catalogue.MISSING, one.name, key) for one in model.characteristics],
            overrides=[meters.reserve(catalogue.OVERRIDES, override.code, key) for override in model.overrides],
            floors=[meters.reserve(catalogue.OVERRIDES, floor.code, key) for floor in floors],
        )
        self._untold = meters.counter(catalogue.DRY_RUNS, key)
        self.recorded = self._tally.add
        """Count an assessment that is on record now."""

    def dry_run(self, _: Assessed) -> None:
        """Count one of which nothing was recorded."""
        self._untold.add()
