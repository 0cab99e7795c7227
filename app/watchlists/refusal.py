"""What a list is refused for."""

from __future__ import annotations


class ListRefused(Exception):
    """A list that cannot be used. reason: what is wrong and what would be right.  where: file, and line or entry."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.where = where


def shown(text: str, longest: int = 60) -> str:
    """A piece of a file as a message may repeat it: in quotes, on one line, not too long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: longest + 1])
    return f'"{text[:longest]}..."' if len(text) > longest else f'"{text}"'
