from collections.abc import Sequence
from typing import Self, final

from typing_extensions import Buffer

from core.scorer import Assessed, Scorer

__all__ = ["Tally"]

@final
class Tally:
    scorer: Scorer
    def __new__(
        cls,
        scorer: Scorer,
        numbers: Buffer,
        *,
        outcomes: Sequence[int],
        scores: int,
        score_bounds: Sequence[int],
        missing: Sequence[int],
        overrides: Sequence[int],
        floors: Sequence[int],
    ) -> Self: ...
    def add(self, assessed: Assessed) -> None: ...
