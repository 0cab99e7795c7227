from typing import Any, Never, Self, final

from core.catalogue import Catalogue
from core.features import Extractor
from core.kernel import Card
from core.model import Model
from core.validity import ProfileInvalid

__all__ = ["RECORD_FORMAT", "Assessed", "RecordDamaged", "Scorer"]

RECORD_FORMAT: int

class RecordDamaged(Exception): ...

@final
class Scorer:
    model: Model
    card: Card
    extractor: Extractor
    n_number_lines: int
    record_bytes: int
    def __new__(cls, model: Model, catalogue: Catalogue) -> Self: ...
    def assess(self, profile: object, findings: object, as_of: int) -> Assessed: ...
    def assess_many(self, profiles: list[Any], findings: list[Any], as_of: int) -> list[Assessed | ProfileInvalid]: ...
    def restore(self, record: bytes) -> Assessed: ...

@final
class Assessed:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    scorer: Scorer
    as_of: int
    @property
    def score(self) -> int: ...
    @property
    def level(self) -> int: ...
    @property
    def decision(self) -> int: ...
    @property
    def completeness(self) -> float: ...
    def record(self) -> bytes: ...
    def render(
        self,
        id: bytes | None,
        business_id: bytes,
        full: bool,
        screening: bytes,
        evidence: bytes,
        degraded: bool = False,
        effective: bytes | None = None,
    ) -> bytes: ...
