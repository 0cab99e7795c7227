from collections.abc import Iterable

from core.entities import Entity

__all__ = ["build"]

def build(entities: Iterable[Entity]) -> bytes: ...
