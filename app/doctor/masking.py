"""SQL as it may be shown: without literals and comments, in which names of people and secrets stand."""

from __future__ import annotations

import re

SHOWN_CHARS = 160

# A name or a parameter keeps its digits. What opens and does not close runs to the end: servers cut long statements.
_PIECE = re.compile(
    r"""
      (?P<comment> --[^\n]*+ | /\*(?:.*?\*/|.*) )
    | (?P<text> [eEbBxXnN]?'(?:[^']|'')*+(?:'|$) | \$(?P<tag>[A-Za-z_]\w*|)\$(?:.*?\$(?P=tag)\$|.*) )
    | (?P<name> "[^"]*+(?:"|$) | \$\d+ | [^\W\d]\w* )
    | (?P<number> (?:\d|\.\d)[\w.]*+ )
    """,
    re.VERBOSE | re.DOTALL,
)


def masked(statement: str, limit: int = SHOWN_CHARS) -> str:
    """The statement on one line, every text and number as ?, at most `limit` characters of it."""
    # Whether a backslash hides the quotation mark behind it is a setting of the server.
    if "\\" in statement:
        statement = statement.partition("'")[0]
    shown = " ".join(_PIECE.sub(_shown, statement).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def _shown(match: re.Match[str]) -> str:
    if match["comment"] is not None:
        return " "
    return match[0] if match["name"] is not None else "?"
