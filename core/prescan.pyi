from typing import Literal, final

__all__ = ["MAX_DEPTH", "Prescan", "Refused"]

MAX_DEPTH: int

class Refused(Exception):
    kind: Literal["bom", "depth", "nul", "duplicate"]
    pointer: str
    key: str
    def __init__(self, kind: Literal["bom", "depth", "nul", "duplicate"], pointer: str, key: str = "") -> None: ...

@final
class Prescan:
    def check(self, body: bytes) -> None: ...
