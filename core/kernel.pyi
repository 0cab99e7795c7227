from typing import Any, Self, final

from core.plan import CardPlan

__all__ = ["Card", "ShapeError", "conclude_row", "score_rows"]

class ShapeError(ValueError): ...

@final
class Card:
    n_features: int
    n_characteristics: int
    def __new__(cls, plan: CardPlan) -> Self: ...

# Any: what offers the buffer protocol with the shape and type that the docstring names.
def score_rows(card: Card, rows: Any, points: Any, attributes: Any) -> None: ...
def conclude_row(card: Card, row: Any) -> dict[str, Any]: ...
