"""The OpenAPI 3.1 document: the table of operations, with schemas made from the wire types.

Built once when the service starts. The reference page is rendered from the same document.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Literal, get_args, get_origin

import msgspec

from app import errors, queries, wire
from app.api.operation import COMMON_PROBLEMS, SECURED_PROBLEMS, Answer, Json, Operation
from app.api.operations import OPERATIONS, PATH_PARAMETERS, REQUEST_HEADERS, RESPONSE_HEADERS, TAGS
from app.api.permissions import RULES
from app.roles import Permission

REF = "#/components/schemas/{name}"

SECURITY_SCHEMES: dict[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key as `Authorization: Bearer kyb_...`"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key as it is"},
}
"""Two ways to send the same key; one of them at a time."""

INTRODUCTION = """\
Send the profile of a business; the answer is a risk score that is explained line by line, a level, a decision, \
and a record that can be replayed. The score runs from 0 to 100, higher is riskier, and is exactly `base` plus the \
points of all characteristics.

Bodies are JSON in UTF-8. Unknown fields, duplicate keys, NUL characters and nesting beyond 32 are refused. Numbers of \
whole-number fields are written without a decimal point. Country and industry codes must be known ones, dates lie at \
most one day ahead (UTC), and owners' shares sum up to at most 100.5.

Errors are `application/problem+json` (RFC 9457); what is wrong in a body or parameter is listed under `errors` with \
JSON pointers (RFC 6901; parameters stand under `/query/` and `/header/`). A method that a path does not know is \
answered with 405 and `Allow`, a path that is not there with 404."""


def document(version: str, answer: wire.Assessment | None = None) -> Json:
    """The whole document. answer: a real assessment of PROFILE_EXAMPLE, shown as the example of an answer."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Business risk assessment",
            "version": version,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": _paths(answer),
        "components": {
            "schemas": _schemas(),
            "headers": RESPONSE_HEADERS,
            "parameters": REQUEST_HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def encoded(described: Json) -> bytes:
    """The document's bytes, as /openapi.json serves them."""
    return msgspec.json.encode(described)


def problem_kinds(operation: Operation) -> list[errors.ProblemKind]:
    """The problems of one operation, by status."""
    secured = SECURED_PROBLEMS if permission_of(operation) else ()
    kinds = {errors.KINDS[e] for e in (*COMMON_PROBLEMS, *secured, *operation.problems)}
    return sorted(kinds, key=lambda kind: (kind.status, kind.slug))


def permission_of(operation: Operation) -> Permission | None:
    """What an operation asks for, None where it is open to all."""
    return RULES[operation.method.upper(), operation.path].permission


def _security(operation: Operation) -> list[Json]:
    """The ways to show a key; beside them none, where one is not always needed."""
    rule = RULES[operation.method.upper(), operation.path]
    if rule.permission is None:
        return []
    return [{name: []} for name in SECURITY_SCHEMES] + ([{}] if rule.nearby else [])


def _paths(answer: wire.Assessment | None) -> Json:
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, answer)
    return paths


def _operation(operation: Operation, answer: wire.Assessment | None) -> Json:
    permission = permission_of(operation)
    needs = f" Needs the permission `{permission}`." if permission else ""
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description + needs,
        "security": _security(operation),
        "parameters": list(_parameters(operation)),
        "responses": {
            **_answers(operation, answer),
            **{str(status): _problems(status, operation) for status in {k.status for k in problem_kinds(operation)}},
        },
    }
    described["responses"] = dict(sorted(described["responses"].items()))
    if operation.body is not None:
        examples = {name: {"value": value} for name, value in operation.examples}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(operation.body), "examples": examples}},
        }
    return described


def _parameters(operation: Operation) -> Iterator[Json]:
    for (root, name), known in PATH_PARAMETERS.items():
        if operation.path.startswith(root) and f"{{{name}}}" in operation.path:
            yield {"name": name, "in": "path", "required": True, **known}
    if operation.query is not queries.Query:
        schema = msgspec.json.schema_components([operation.query])[1][operation.query.__name__]
        for name, member in schema["properties"].items():
            yield {"name": name, "in": "query", "required": False, **_parameter_schema(member)}
    for name in (*operation.headers, "X-Request-ID"):
        yield {"$ref": f"#/components/parameters/{name}"}


def _parameter_schema(schema: Json) -> Json:
    """A query field as a parameter: null is not sent in a query, it is the parameter's absence."""
    if len(schema.get("anyOf", ())) == 2 and {"type": "null"} in schema["anyOf"]:
        schema = next(s for s in schema["anyOf"] if s != {"type": "null"})
    schema = dict(schema)
    if "anyOf" in schema:
        schema.pop("type", None)  # a moment: text in the query, an integer in its structure
    _complete(schema)
    return {"description": schema.pop("description", ""), "schema": schema}


def _answers(operation: Operation, example: wire.Assessment | None) -> Json:
    """By status; one that is answered in several media types has them beside each other."""
    described: Json = {}
    for answer in operation.answers:
        told = _answer(answer, example)
        if str(answer.status) in described:
            described[str(answer.status)]["content"].update(told["content"])
        else:
            described[str(answer.status)] = told
    return described


def _answer(answer: Answer, example: wire.Assessment | None) -> Json:
    described: Json = {"description": answer.description, "headers": _header_refs(*answer.headers)}
    if answer.schema is not None:
        schema = answer.schema if isinstance(answer.schema, dict) else _ref(answer.schema)
        media: Json = {"schema": schema}
        if answer.schema is wire.Assessment and example is not None:
            shown = example if answer.status != 200 or answer.headers else _dry(example)
            media["example"] = msgspec.to_builtins(shown)
        described["content"] = {answer.media_type: media}
    return described


def _dry(example: wire.Assessment) -> wire.Assessment:
    return msgspec.structs.replace(example, id=None, created_at=None)


def _problems(status: int, operation: Operation) -> Json:
    """All problems of one status, each with an example."""
    kinds = [kind for kind in problem_kinds(operation) if kind.status == status]
    examples = {
        kind.slug: {
            "summary": kind.title,
            "description": kind.advice,
            "value": {
                "type": kind.type_uri,
                "title": kind.title,
                "status": status,
                "detail": kind.detail or kind.title,
            },
        }
        for kind in kinds
    }
    return {
        "description": "; ".join(kind.title for kind in kinds) or HTTPStatus(status).phrase,
        "headers": _header_refs(*_problem_headers(status)),
        "content": {"application/problem+json": {"schema": _ref(wire.Problem), "examples": examples}},
    }


def _problem_headers(status: int) -> list[str]:
    return {429: ["Retry-After", "RateLimit-Policy", "RateLimit"], 503: ["Retry-After"]}.get(status, [])


def _header_refs(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _ref(wire_type: type) -> Json:
    return {"$ref": REF.format(name=wire_type.__name__)}


_DECLARED = {
    frozenset(get_args(known)): list(get_args(known)) for known in vars(wire).values() if get_origin(known) is Literal
}
"""Enumerations in the order in which the wire types name them; msgspec sorts them."""

NO_NUL = "^[^\\u0000]*$"


def _schemas() -> Json:
    bodies = [o.body for o in OPERATIONS if o.body is not None]
    answers = [a.schema for o in OPERATIONS for a in o.answers if isinstance(a.schema, type)]
    schemas = msgspec.json.schema_components([*bodies, *answers, wire.Problem], ref_template=REF)[1]
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            _complete(member, sent=schema.get("additionalProperties") is False)
    return dict(sorted(schemas.items()))


def _complete(schema: Json, sent: bool = True) -> None:
    """Add what msgspec does not say: that an enumeration is of texts, and that no text sent may hold NUL.

    A tuple of equal members is told as a list of that length: generators of clients stumble over `prefixItems`.
    """
    if "prefixItems" in schema:
        first, *others = schema.pop("prefixItems")
        assert all(other == first for other in others), schema
        schema["items"] = first
    if "enum" in schema:
        schema["enum"] = _DECLARED.get(frozenset(schema["enum"]), schema["enum"])
        if all(isinstance(value, str) for value in schema["enum"]):
            schema["type"] = "string"
    if sent and schema.get("type") == "string" and not schema.keys() & {"enum", "format", "pattern"}:
        schema["pattern"] = NO_NUL
    for part in [*schema.get("anyOf", ()), *([schema["items"]] if isinstance(schema.get("items"), dict) else ())]:
        _complete(part, sent)
