"""The peer for scale: FastAPI with a Pydantic model made from the profile's wire types, so that it checks the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Response
from msgspec import inspect
from pydantic import BaseModel, ConfigDict, Field, create_model

from app import wire

LIMITS = ("ge", "le", "gt", "lt", "min_length", "max_length", "pattern")


def create_peer(answer: bytes) -> FastAPI:
    """An application that validates a profile and answers a constant."""
    app = FastAPI(openapi_url=None)
    profile = model(wire.Profile)

    async def assess(body: Any) -> Response:
        return Response(answer, media_type="application/json")

    assess.__annotations__["body"] = profile
    app.post("/v1/assessments")(assess)
    return app


@cache
def model(struct: type[msgspec.Struct]) -> type[BaseModel]:
    """The Pydantic model of a wire type: the same fields, limits, patterns and enumerations, unknown fields refused."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        kind = annotation(inspect.type_info(field.type))
        fields[field.name] = (kind, ... if field.required else field.default)
    made: type[BaseModel] = create_model(struct.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    return made


def annotation(info: inspect.Type) -> Any:
    """A type as Pydantic wants it. Raises TypeError for a kind that no profile has."""
    match info:
        case inspect.Metadata():
            return annotation(info.type)
        case inspect.UnionType():
            # Every union of the wire types is a type or null.
            (member,) = (one for one in info.types if not isinstance(one, inspect.NoneType))
            return annotation(member) | None
        case inspect.StructType():
            return model(info.cls)
        case inspect.ListType():
            return Annotated[list[annotation(info.item_type)], _limits(info)]  # type: ignore[misc]
        case inspect.LiteralType():
            return Literal[tuple(info.values)]
        case inspect.StrType():
            return Annotated[str, _limits(info)]
        case inspect.IntType():
            return Annotated[int, _limits(info)]
        case inspect.FloatType():
            return Annotated[float, _limits(info)]
    plain: dict[Callable[..., Any], type] = {inspect.BoolType: bool, inspect.DateType: dt.date}
    try:
        return plain[type(info)]
    except KeyError:
        raise TypeError(f"no profile has a {type(info).__name__}") from None


def _limits(info: inspect.Type) -> Any:
    given = {name: getattr(info, name, None) for name in LIMITS}
    return Field(**{name: value for name, value in given.items() if value is not None})
