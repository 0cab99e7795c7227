"""The API description is valid, says what the wire types say, and its examples can be sent as they stand."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import errors, faults, queries, wire
from app.api import docs, openapi
from app.api.operation import COMMON_PROBLEMS, Operation
from app.api.operations import OPERATIONS
from app.api.permissions import RULES

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.encoded(openapi.document("1.2.3")))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

ROUTES = {
    ("post", "/v1/assessments"),
    ("get", "/v1/assessments"),
    ("get", "/v1/assessments/{id}"),
    ("get", "/v1/dispositions"),
    ("post", "/v1/dispositions"),
    ("get", "/v1/dispositions/{id}"),
    ("delete", "/v1/dispositions/{id}"),
    ("get", "/v1/watchlists"),
    ("post", "/match/{dataset}"),
    ("post", "/v1/assessments/batch"),
    ("post", "/v1/assessments/{id}/replay"),
    ("get", "/v1/assessments/{id}/overrides"),
    ("post", "/v1/assessments/{id}/overrides"),
    ("get", "/v1/assessments/{id}/overrides/{override_id}"),
    ("post", "/v1/assessments/{id}/overrides/{override_id}/approve"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{id}/{version}"),
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("get", "/v1/keys/{id}"),
    ("delete", "/v1/keys/{id}"),
    ("post", "/v1/keys/{id}/rotate"),
    ("get", "/v1/audit"),
    ("get", "/v1/audit/checkpoints"),
    ("get", "/debug/pprof/goroutine"),
    ("get", "/debug/pprof/heap"),
    ("get", "/debug/pprof/profile"),
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/health/detailed"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/docs"),
}


def described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method]
    return found


def parameter(path: str, method: str, name: str) -> dict[str, Any]:
    return next(p for p in DOCUMENT["paths"][path][method]["parameters"] if p.get("name") == name)


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_document_bears_the_services_version() -> None:
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_route_is_described() -> None:
    assert {(method, path) for path, item in DOCUMENT["paths"].items() for method in item} == ROUTES


def unwrapped(info: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, bool]:
    nullable = False
    while True:
        if isinstance(info, msgspec.inspect.Metadata):
            info = info.type
        elif isinstance(info, msgspec.inspect.UnionType):
            nullable = info.includes_none
            (info,) = (t for t in info.types if not isinstance(t, msgspec.inspect.NoneType))
        else:
            return info, nullable


def stated_pattern(info: msgspec.inspect.Type) -> str | None:
    """The pattern that a type states for its schema where something else than the decoder checks it."""
    while isinstance(info, msgspec.inspect.Metadata | msgspec.inspect.UnionType):
        if isinstance(info, msgspec.inspect.Metadata):
            if "pattern" in (info.extra_json_schema or {}):
                return str(info.extra_json_schema["pattern"])  # type: ignore[index]
            info = info.type
        else:
            (info,) = (t for t in info.types if not isinstance(t, msgspec.inspect.NoneType))
    return None


def check_schema(info: msgspec.inspect.Type, schema: dict[str, Any]) -> None:
    """Every constraint of the type stands in the schema."""
    stated = stated_pattern(info)
    info, nullable = unwrapped(info)
    if nullable:
        (schema,) = (s for s in schema["anyOf"] if s != {"type": "null"})
    match info:
        case msgspec.inspect.StructType(cls=cls):
            assert schema["$ref"] == f"#/components/schemas/{cls.__name__}"
        case msgspec.inspect.ListType(item_type=item, min_length=low, max_length=high):
            assert (schema.get("minItems"), schema.get("maxItems")) == (low, high)
            check_schema(item, schema["items"])
        case msgspec.inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            assert (schema.get("minLength"), schema.get("maxLength")) == (low, high)
            assert schema["pattern"] == (stated or pattern or openapi.NO_NUL)
        case msgspec.inspect.IntType(ge=low, le=high) | msgspec.inspect.FloatType(ge=low, le=high):
            assert (schema.get("minimum"), schema.get("maximum")) == (low, high)
        case msgspec.inspect.LiteralType(values=values):
            assert (schema["type"], set(schema["enum"])) == ("string", set(values))
        case msgspec.inspect.DateType():
            assert (schema["type"], schema["format"]) == ("string", "date")
        case msgspec.inspect.DateTimeType():
            assert (schema["type"], schema["format"]) == ("string", "date-time")
        case msgspec.inspect.BoolType():
            assert schema["type"] == "boolean"
        case _:
            pytest.fail(f"the test does not know {info}")


SENT = [cls for cls in vars(wire).values() if isinstance(cls, type) and issubclass(cls, wire.Request)]
SENT.remove(wire.Request)


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
def test_every_constraint_of_what_is_sent_is_described(cls: type) -> None:
    schema = SCHEMAS[cls.__name__]
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {field.encode_name for field in info.fields}
    assert set(schema.get("required", ())) == {field.encode_name for field in info.fields if field.required}
    for field in info.fields:
        check_schema(field.type, schema["properties"][field.encode_name])


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body is not None], ids=lambda o: o.name)
def test_examples_can_be_sent_as_they_stand(operation: Operation) -> None:
    examples = described(operation)["requestBody"]["content"]["application/json"]["examples"]
    assert examples
    for example in examples.values():
        assert faults.decode_faults(msgspec.json.encode(example["value"]), operation.body) == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_every_problem_is_described_with_its_type_and_the_request_id(operation: Operation) -> None:
    responses = described(operation)["responses"]
    for exception in (*COMMON_PROBLEMS, *operation.problems):
        kind = errors.KINDS[exception]
        response = responses[str(kind.status)]
        problem = response["content"]["application/problem+json"]
        assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert problem["examples"][kind.slug]["value"]["type"] == kind.type_uri
        assert ("Retry-After" in response["headers"]) == (kind.status in (429, 503))
    assert all("X-Request-ID" in response["headers"] for response in responses.values())


def test_query_parameters_follow_their_structures() -> None:
    limit = parameter("/v1/assessments", "get", "limit")["schema"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    moment = parameter("/v1/assessments", "get", "from")["schema"]
    assert [s["format"] for s in moment["anyOf"]] == ["date", "date-time"]
    assert "type" not in moment
    assert parameter("/v1/assessments", "get", "level")["schema"]["enum"] == ["low", "medium", "high", "critical"]
    assert parameter("/v1/assessments", "post", "dry_run")["schema"] == {"type": "boolean", "default": False}
    for operation in OPERATIONS:
        names = {p["name"] for p in described(operation)["parameters"] if p.get("in") == "query"}
        assert names == {field.encode_name for field in msgspec.structs.fields(operation.query)}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_path_parameters_are_those_of_the_path(operation: Operation) -> None:
    names = {p["name"] for p in described(operation)["parameters"] if p.get("in") == "path"}
    assert names == set(re.findall(r"\{(\w+)\}", operation.path))


@pytest.mark.parametrize("key", [b"a", b"a b", b"!~", b"k" * 255, b" a", b"a ", b"\x7f", b"k" * 256, b""])
def test_the_described_idempotency_key_is_the_accepted_one(key: bytes) -> None:
    schema = DOCUMENT["components"]["parameters"]["Idempotency-Key"]["schema"]
    text = key.decode()
    fits = schema["minLength"] <= len(text) <= schema["maxLength"] and re.search(schema["pattern"], text) is not None
    try:
        accepted = queries.idempotency_key(key) == text
    except errors.ParameterRefused:
        accepted = False
    assert fits == accepted


def test_a_real_answer_is_shown_as_the_example_and_as_null_in_a_dry_run() -> None:
    answer = wire.Assessment(
        id="0193",
        created_at="2026-11-23T14:00:00.000Z",
        as_of="2026-11-23",
        business_id="cust-0042",
        score=23.5,
        level="medium",
        decision="review",
        completeness=0.87,
        score_range=(21, 34.5),
        base=0,
        categories=[],
        reasons=[],
        overrides=[],
        screening=wire.Screening("not_screened"),
        evidence=[],
        distress=[],
        degraded=False,
        effective=wire.Effective("medium", "review"),
        model=wire.ModelRef("kyb", "1.0.0", "ab"),
    )
    document = msgspec.json.decode(openapi.encoded(openapi.document("1.2.3", answer)))
    OpenAPIV31SpecValidator(document).validate()
    responses = document["paths"]["/v1/assessments"]["post"]["responses"]
    assert responses["201"]["content"]["application/json"]["example"]["id"] == "0193"
    assert responses["200"]["content"]["application/json"]["example"]["id"] is None
    assert b"Answer: 201" in docs.page(document).html


class Anchors(HTMLParser):
    """What a page links to, what can be linked to, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.style = ""
        self.curls: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" else []
        self.loaded += [tag] if tag in ("script", "link", "img", "iframe", "object") else []
        assert "style" not in values
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        if data.startswith("curl "):
            self.curls.append(data)


@pytest.fixture(scope="module")
def page() -> docs.Page:
    return docs.page(DOCUMENT)


@pytest.fixture(scope="module")
def anchors(page: docs.Page) -> Anchors:
    return Anchors(page.html.decode())


def test_the_page_loads_nothing_and_is_well_formed(anchors: Anchors) -> None:
    assert anchors.loaded == []
    assert anchors.open == []
    assert "url(" not in anchors.style
    assert "@import" not in anchors.style


def test_every_link_of_the_page_leads_somewhere(anchors: Anchors) -> None:
    assert len(anchors.ids) == len(set(anchors.ids))
    assert {link[1:] for link in anchors.links if link.startswith("#")} <= set(anchors.ids)
    assert {link for link in anchors.links if not link.startswith("#")} == {"/openapi.json"}


def test_the_page_shows_every_operation_schema_and_problem(anchors: Anchors) -> None:
    assert {o.name for o in OPERATIONS} | set(SCHEMAS) <= set(anchors.ids)
    assert {f"problem-{kind.slug}" for kind in errors.KINDS.values()} <= set(anchors.ids)


def test_the_pages_policy_allows_its_own_style_only(page: docs.Page, anchors: Anchors) -> None:
    digest = base64.b64encode(hashlib.sha256(anchors.style.encode()).digest()).decode()
    policy = dict(page.headers)[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy


def test_the_pages_curl_lines_send_what_the_wire_types_accept(anchors: Anchors) -> None:
    assert len(anchors.curls) == len(OPERATIONS)
    bodies = {re.compile(re.sub(r"\{\w+\}", "[^/]+", o.path)): o.body for o in OPERATIONS if o.body is not None}
    for line in anchors.curls:
        words = shlex.split(line.replace("\\\n", " "))
        assert "{" not in next(word for word in words if word.startswith("http://127.0.0.1:8080/"))
        if "-d" in words:
            path = next(w for w in words if w.startswith("http")).removeprefix("http://127.0.0.1:8080")
            body = next(body for form, body in bodies.items() if form.fullmatch(path))
            assert faults.decode_faults(words[words.index("-d") + 1].encode(), body) == []


def test_what_asks_for_a_permission_says_which_and_how_to_send_a_key() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    for operation in OPERATIONS:
        rule = RULES[operation.method.upper(), operation.path]
        permission = rule.permission
        told = described(operation)
        optional: list[dict[str, list[str]]] = [{}] if rule.nearby else []
        assert told["security"] == ([*({name: []} for name in schemes), *optional] if permission else [])
        for status, slug in (("401", "unauthorized"), ("403", "forbidden"), ("429", "too-many-requests")):
            content = told["responses"].get(status, {}).get("content", {"application/problem+json": {"examples": {}}})
            assert (slug in content["application/problem+json"]["examples"]) == (permission is not None)
        assert permission is None or f"`{permission}`" in told["description"]


def test_what_the_document_says_is_escaped_on_the_page() -> None:
    document = msgspec.json.decode(openapi.encoded(openapi.document("1.0<script>")))
    assert b"<script>" not in docs.page(document).html
