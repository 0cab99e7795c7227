"""The shapes of /match: those of yente, the matching service of OpenSanctions, so that its clients need only another
address. Here alone unknown fields of a request are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MatchSchema = Literal["Person", "Organization", "Company", "LegalEntity", "PublicBody", "Vessel", "Airplane", "Thing"]


class MatchQuery(Struct, frozen=True):
    """One query: a FollowTheMoney schema and properties, each a text or a list of texts; unknown ones are ignored."""

    schema: MatchSchema
    properties: Annotated[dict[str, Any], Meta(description="such as `name`, `country`, `birthDate`, `leiCode`")] = {}


class MatchRequest(Struct, frozen=True):
    """Queries by names of the caller's own."""

    queries: Annotated[dict[str, MatchQuery], Meta(min_length=1)]


class Explanation(Struct, frozen=True):
    """What one part of a comparison came to. detail: in words."""

    score: float
    detail: str | None = None


class Result(Struct, frozen=True):
    """One entity that resembles the query."""

    id: str
    caption: str
    schema: str
    properties: dict[str, list[str]]
    datasets: list[str]
    referents: list[str]
    target: bool
    first_seen: str | None
    last_seen: str | None
    last_change: str | None
    score: float
    features: dict[str, float]
    explanations: dict[str, Explanation]
    match: bool


class Total(Struct, frozen=True):
    value: int
    relation: str = "eq"


class MatchResponse(Struct, frozen=True):
    """The results of one query, best first."""

    status: int
    results: list[Result]
    total: Total
    query: MatchQuery


class MatchAnswer(Struct, frozen=True):
    responses: dict[str, MatchResponse]
    limit: int
