from typing import Self, final

from core.catalogue import Catalogue
from core.extraction import ExtractionPlan
from core.model import Model

__all__ = ["Extractor", "feature_row"]

@final
class Extractor:
    n_features: int
    plan: ExtractionPlan
    catalogue: Catalogue
    def __new__(cls, model: Model, catalogue: Catalogue) -> Self: ...

def feature_row(extractor: Extractor, profile: object, findings: object, as_of: int) -> list[float]: ...
