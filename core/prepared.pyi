from typing import Self, final

from core.model import Model

__all__ = ["PreparedTexts"]

@final
class PreparedTexts:
    def __new__(cls, model: Model) -> Self: ...
