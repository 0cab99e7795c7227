"""What one operation of the HTTP interface is described by, and the refusals that many of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

from app import errors, queries

Json = dict[str, Any]


class Answer(NamedTuple):
    """A good answer. schema: a wire type, a ready schema, or None for no body. headers: names in HEADERS."""

    status: int
    description: str
    schema: type | Json | None = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"


class Operation(NamedTuple):
    """One method of one path. problems: what it can be refused with, beyond COMMON_PROBLEMS."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    query: type[queries.Query] = queries.Query
    headers: tuple[str, ...] = ()
    body: type | None = None
    examples: tuple[tuple[str, Json], ...] = ()
    problems: tuple[type[Exception], ...] = ()


COMMON_PROBLEMS: tuple[type[Exception], ...] = (
    errors.RequestMalformed,
    errors.PageRefused,
    errors.ParameterRefused,
    errors.HeadersTooLarge,
    Exception,
)
KEY_PROBLEMS: tuple[type[Exception], ...] = (errors.Conflict, errors.KeyBusy, errors.KeyReused)
SECURED_PROBLEMS: tuple[type[Exception], ...] = (
    errors.Unauthorized,
    errors.Forbidden,
    errors.TooManyRequests,
    errors.Saturated,
    errors.Unavailable,
)
"""Of every operation that asks for a permission."""
BODY_PROBLEMS: tuple[type[Exception], ...] = (
    errors.BodyUnreadable,
    errors.BodyTooSlow,
    errors.BodyTooLarge,
    errors.WrongContentType,
    errors.WrongEncoding,
)
