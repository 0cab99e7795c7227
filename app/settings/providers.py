"""What the settings say of each external provider of evidence: where it is, what it is asked, what its answer means."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

FactForm = Literal["value", "count"]


class Hole(Struct, frozen=True, array_like=True):
    """A place in a request that a field of the profile fills. optional: the request makes sense without it."""

    path: str
    optional: bool = False


Template = tuple[str | Hole, ...]
"""Literal texts and holes, in order."""


class Secret(Struct, frozen=True):
    """A header that proves who asks."""

    header: str
    value: str

    def __repr__(self) -> str:
        return f"Secret({self.header!r}, ...)"


class Fact(Struct, frozen=True):
    """Where in an answer a fact stands. `values` translates what stands there; None takes it as it is.

    form: `count` takes how many members the list at the pointer has.
    """

    name: str
    pointer: str
    form: FactForm = "value"
    values: dict[str, Any] | None = None


class Provider(Struct, frozen=True, kw_only=True):
    """What all kinds of provider have. url: without what the request adds.  ca_file: of the certificates trusted."""

    name: str
    url: str
    auth: Secret | None
    headers: tuple[tuple[str, str], ...]
    timeout: float
    ttl: float
    concurrency: int
    max_bytes: int
    ca_file: str | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, ...)"


class HttpJson(Provider, frozen=True, kw_only=True):
    """A provider that answers one request about one business with JSON. Its url is a scheme and a host.

    path: begins with a slash.  body: a JSON tree with templates where the profile's fields go, None for no body.
    absent_status: the HTTP status that says that the provider knows no such business.
    """

    method: Literal["GET", "POST"]
    path: Template
    query: tuple[tuple[str, Template], ...]
    body: Any
    facts: tuple[Fact, ...]
    version: str | None
    absent_status: int | None


class Yente(Provider, frozen=True, kw_only=True):
    """A provider that screens names as yente does. Its url goes before /match.

    threshold: the least score that counts.  limit: results for each name.  batch: names in one request.
    """

    dataset: str
    algorithm: str | None
    threshold: float
    limit: int
    batch: int


AnyProvider = HttpJson | Yente
