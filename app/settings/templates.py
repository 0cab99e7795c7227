"""Texts with fields of the profile in braces: `{business.name}`, and `{business.lei?}` for what may lack."""

from __future__ import annotations

import re

from app.facts import ExternalFacts
from app.settings.kinds import Malformed, quoted
from app.settings.providers import Hole, Template
from app.wire import Profile
from core.catalogue import Catalogue, UnknownPath

MAX_CHARS = 4096
FILLABLE = ("text", "country", "category", "number", "date", "flag")

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_CATALOGUE = Catalogue(Profile, ExternalFacts)


def template(text: str) -> Template:
    """The parts of a text; `{{` and `}}` stand for braces. Raises Malformed."""
    if len(text) > MAX_CHARS:
        raise Malformed(f"it is longer than {MAX_CHARS} characters")
    parts: list[str | Hole] = []
    for match in _PART.finditer(text):
        part = match[0]
        if match[1] is not None:
            parts.append(_hole(match[1]))
            continue
        if part in ("{", "}"):
            raise Malformed("a brace has no partner (for a brace itself write it twice)")
        literal = part[0] if part in ("{{", "}}") else part
        if parts and isinstance(parts[-1], str):
            parts[-1] += literal
        else:
            parts.append(literal)
    return tuple(parts)


def _hole(text: str) -> Hole:
    path, optional = text.removesuffix("?"), text.endswith("?")
    try:
        if path.startswith("evidence."):
            raise UnknownPath(path, "")
        field = _CATALOGUE.field(path)
    except UnknownPath as unknown:
        hint = f"; did you mean {unknown.nearest}?" if unknown.nearest else ""
        raise Malformed(f"{quoted(path)} is not a field of the profile{hint}") from None
    if field.in_list or field.kind not in FILLABLE:
        raise Malformed(f"{quoted(path)} is not a single value")
    return Hole(path, optional)
