"""Requests from templates: what a profile says goes in encoded, so that it can only ever be a value."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import quote

import msgspec

from app import wire
from app.settings.provider_kinds import has_dot_segment
from app.settings.providers import Hole, Template


class Lacking(Exception):
    """The profile has no usable value for a place that needs one. path: of the field."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def needs(*templates: Template) -> frozenset[str]:
    """The fields that the templates cannot do without."""
    return frozenset(part.path for one in templates for part in one if isinstance(part, Hole) and not part.optional)


def templates_in(tree: Any) -> list[Template]:
    """Every template of a JSON tree."""
    if isinstance(tree, tuple):
        return [tree]
    members = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [template for member in members for template in templates_in(member)]


def fill_path(template: Template, profile: wire.Profile) -> str:
    """A path of as many segments as the template has. Raises Lacking, also for a value that would be more than one.

    An encoded slash is a slash to some servers, and a segment of dots a step up: neither is sent.
    """
    filled = ""
    for part in template:
        if isinstance(part, str):
            filled += part
            continue
        text = _text(profile, part)
        if text is None or not text.isprintable() or "/" in text or "\\" in text or "%" in text:
            raise Lacking(part.path)
        filled += quote(text, safe="")
    if has_dot_segment(filled):
        raise Lacking(next(part.path for part in template if isinstance(part, Hole)))
    return filled


def fill_query(query: tuple[tuple[str, Template], ...], profile: wire.Profile) -> str:
    """name=value&name=value; a parameter whose optional field lacks is left out. Raises Lacking."""
    filled = []
    for name, template in query:
        text = _filled(template, profile)
        if text is not None:
            filled.append(f"{quote(name, safe='')}={quote(text, safe='')}")
    return "&".join(filled)


def fill_body(tree: Any, profile: wire.Profile) -> bytes:
    """The tree as JSON; a text whose optional field lacks is null. Raises Lacking."""
    return msgspec.json.encode(_fill_tree(tree, profile))


def _fill_tree(tree: Any, profile: wire.Profile) -> Any:
    if isinstance(tree, tuple):
        if len(tree) == 1 and isinstance(tree[0], Hole):
            return _value(profile, tree[0])
        return _filled(tree, profile)
    if isinstance(tree, dict):
        return {name: _fill_tree(member, profile) for name, member in tree.items()}
    if isinstance(tree, list):
        return [_fill_tree(member, profile) for member in tree]
    return tree


def _filled(template: Template, profile: wire.Profile) -> str | None:
    filled = ""
    for part in template:
        text = part if isinstance(part, str) else _text(profile, part)
        if text is None:
            return None
        filled += text
    return filled


def _text(profile: wire.Profile, hole: Hole) -> str | None:
    value = _value(profile, hole)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dt.date):
        return value.isoformat()
    return msgspec.json.encode(value).decode()


def _value(profile: wire.Profile, hole: Hole) -> Any:
    """The field's value; None where an optional one lacks. A text of blanks, or one that UTF-8 cannot say, is none."""
    value: Any = profile
    for step in hole.path.split("."):
        value = getattr(value, step, None)
    if isinstance(value, str):
        value = value.strip()
        if not value or any("\ud800" <= character <= "\udfff" for character in value):
            value = None
    if value is None and not hole.optional:
        raise Lacking(hole.path)
    return value
