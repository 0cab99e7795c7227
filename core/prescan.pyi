from typing import Literal, final

__all__ = ["MAX_DEPTH", "Prescan", "Refused", "has_more_items"]

MAX_DEPTH: int

class Refused(Exception):
    kind: Literal["bom", "depth", "nul", "duplicate"]
    pointer: str
    key: str
    def __init__(self, kind: Literal["bom", "depth", "nul", "duplicate"], pointer: str, key: str = "") -> None: ...

@final
class Prescan:
    @property
    def capacity(self) -> int: ...
    def check(self, body: bytes) -> None: ...

def has_more_items(body: bytes, limit: int) -> bool: ...
