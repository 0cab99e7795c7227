from collections.abc import Iterator

from typing_extensions import Buffer

from core.entities import Entity

__all__ = ["ENGINE", "SnapshotDamaged", "SnapshotOutdated", "entities_of"]

ENGINE: int

class SnapshotDamaged(ValueError): ...
class SnapshotOutdated(ValueError): ...

def entities_of(snapshot: Buffer) -> Iterator[Entity]: ...
