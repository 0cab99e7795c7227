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


class FeatureDoc(Struct, frozen=True):
    """What a feature of a result is. coefficient: by how much it counts; the numbers here are effects as they are."""

    description: str
    coefficient: float = 1.0
    url: str = "/docs"


class MatchAnswer(Struct, frozen=True):
    """matcher: the features that results can have."""

    responses: dict[str, MatchResponse]
    matcher: dict[str, FeatureDoc]
    limit: int


MATCHER = {
    "name": FeatureDoc("The score."),
    "equal": FeatureDoc("Words that are the same in both names: 1."),
    "similar": FeatureDoc("Words that resemble each other: how much, 0 to 1."),
    "left_over": FeatureDoc("Words of the name asked for that the listed name has not: 0."),
    "left_over_listed": FeatureDoc("Words of the listed name that the name asked for has not: 0."),
    "numbers": FeatureDoc("What the score lost because numbers in the names differ."),
    "whole": FeatureDoc("How much the names resemble each other as a whole, 0 to 1."),
    "weak_name": FeatureDoc("What the score lost because the list calls the name a weak one."),
    "country": FeatureDoc("What the score gained or lost by countries."),
    "birth_date": FeatureDoc("What the score gained or lost by dates of birth."),
    "identifier": FeatureDoc("The score that the same identifier gives at least."),
}
"""Every feature that a result can have."""
