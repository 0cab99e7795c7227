"""The section `providers` of a settings file: external sources of evidence, by name."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec
import yaml

from app.facts import ExternalFacts
from app.settings import provider_kinds as kinds
from app.settings.kinds import NAME, Malformed, quoted
from app.settings.nodes import Entries, Outline, plain, tree
from app.settings.providers import AnyProvider, Fact, HttpJson, Secret, Template, Yente
from app.settings.sources import named
from app.settings.templates import template

MAX_PROVIDERS = 32
RESERVED = ("watchlist",)
"""Names of the service's own sources of evidence."""

FACTS: dict[str, Any] = {name: hint for name, hint in get_type_hints(ExternalFacts, include_extras=True).items()}
_COMMON = ("kind", "url", "auth", "headers", "timeout", "ttl", "concurrency", "max_bytes", "ca_file")
_HTTP_JSON = (*_COMMON, "method", "query", "body", "facts", "version", "absent_status")
_YENTE = (*_COMMON, "dataset", "algorithm", "threshold", "limit", "batch")
_AUTH = ("bearer_env", "header", "value_env", "user", "password_env")
_TEMPLATE = "a text with fields of the profile in braces, such as {business.name}"
_PARAMETER = re.compile(r"[A-Za-z0-9._~$\[\]-]{1,128}")


def read_providers(node: yaml.Node, outline: Outline, environ: Mapping[str, str]) -> tuple[AnyProvider, ...]:
    """Every sound provider; what is wrong with the others is added to the outline's faults."""
    section = Entries(node, "providers", outline, None)
    names = [name for name, _, _ in section]
    if len(names) > MAX_PROVIDERS:
        section.fault(None, f"there are {len(names)}", f"give at most {MAX_PROVIDERS}")
        return ()
    found = []
    for name, key, value in section:
        before = len(outline.faults)
        where = f"providers.{named(name)}"
        try:
            NAME.parse(name)
        except Malformed as error:
            outline.fault(key, where, str(error), f"give {NAME.right}")
        if name in RESERVED:
            outline.fault(key, where, "it is the name of a source of the service's own", "give another name")
        provider = _provider(name, value, outline, environ)
        if provider is not None and len(outline.faults) == before:
            found.append(provider)
    return tuple(found)


def _provider(name: str, node: yaml.Node, outline: Outline, environ: Mapping[str, str]) -> AnyProvider | None:
    where = f"providers.{named(name)}"
    kind = _kind_of(node)
    known = {"http_json": _HTTP_JSON, "yente": _YENTE}.get(kind, tuple(dict.fromkeys((*_HTTP_JSON, *_YENTE))))
    entries = Entries(node, where, outline, known)
    if not isinstance(node, yaml.MappingNode) or entries.required("kind", kinds.KIND) is None:
        return None
    is_yente = kind == "yente"
    url = entries.required("url", kinds.BASE_URL if is_yente else kinds.URL)
    common = {
        "name": name,
        "auth": _secret(entries, environ),
        "headers": _headers(entries),
        "timeout": entries.value("timeout", kinds.TIMEOUT, "800ms"),
        "ttl": entries.value("ttl", kinds.TTL, "1h"),
        "concurrency": entries.value("concurrency", kinds.CONCURRENCY, "16"),
        # Entities of a list are described at length, and there are several for each name.
        "max_bytes": entries.value("max_bytes", kinds.BYTES, "2MiB" if is_yente else "256KiB"),
        "ca_file": entries.value("ca_file", kinds.CA_FILE),
    }
    return _yente(entries, url, common) if is_yente else _http_json(entries, url, common)


def _kind_of(node: yaml.Node) -> str:
    """The kind that a provider's mapping names, to know its keys before they are read; empty where it names none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    texts = [value.value for key, value in pairs if key.value == "kind" and isinstance(value, yaml.ScalarNode)]
    return texts[0].lower() if texts else ""


def _yente(entries: Entries, url: str | None, common: dict[str, Any]) -> Yente:
    return Yente(
        **common,
        url=url or "",
        dataset=entries.value("dataset", kinds.DATASET, "default"),
        algorithm=entries.value("algorithm", kinds.ALGORITHM),
        threshold=entries.value("threshold", kinds.THRESHOLD, "0.7"),
        limit=entries.value("limit", kinds.LIMIT, "5"),
        batch=entries.value("batch", kinds.BATCH, "50"),
    )


def _http_json(entries: Entries, url: str | None, common: dict[str, Any]) -> HttpJson:
    origin, path = kinds.split_url(url) if url else ("", "")
    method = entries.value("method", kinds.METHOD, "post" if entries.has("body") else "get")
    body = None
    if entries.has("body"):
        node = entries.found["body"][1]
        body = tree(node, f"{entries.where}.body", entries.outline, template)
        entries.note("body", yaml.serialize(node, Dumper=yaml.SafeDumper, width=1 << 20).strip())
        if method == "get":
            entries.fault("body", "a GET has none", "give method: post, or query")
    return HttpJson(
        **common,
        url=origin,
        path=kinds.url_path(path) if url else (),
        method="POST" if method == "post" else "GET",
        query=_query(entries),
        body=body,
        facts=_facts(entries),
        version=entries.value("version", kinds.POINTER),
        absent_status=entries.value("absent_status", kinds.ABSENT),
    )


def _secret(entries: Entries, environ: Mapping[str, str]) -> Secret | None:
    """Who asks: a bearer token, a header or a user with a password, whose secret part is in the environment."""
    auth = entries.inner("auth", _AUTH)
    if auth is None:
        return None
    given = tuple(sorted(name for name in _AUTH if auth.has(name)))
    if given == ("bearer_env",):
        token = _from_environment(auth, "bearer_env", environ)
        return token and Secret("Authorization", f"Bearer {token}")
    if given == ("header", "value_env"):
        header, value = auth.value("header", kinds.AUTH_HEADER), _from_environment(auth, "value_env", environ)
        return Secret(header, value) if header and value else None
    if given == ("password_env", "user"):
        user, password = auth.value("user", kinds.USER), _from_environment(auth, "password_env", environ)
        if user and ":" in user:
            auth.fault("user", "it holds a colon, which ends the name", "give a name without one")
        token = b64encode(f"{user}:{password}".encode()).decode()
        return Secret("Authorization", f"Basic {token}") if user and password else None
    if isinstance(auth.node, yaml.MappingNode):
        auth.fault(None, "it is not said how", "give bearer_env, header with value_env, or user with password_env")
    return None


def _from_environment(auth: Entries, name: str, environ: Mapping[str, str]) -> Any:
    variable = auth.value(name, kinds.VARIABLE)
    if variable is None:
        return None
    if not environ.get(variable):
        auth.fault(name, "the environment has no such variable", "set it, or name another")
        return None
    try:
        return kinds.header_value(environ[variable])
    except Malformed as error:
        auth.fault(name, f"what the variable holds cannot stand in a header: {error}", "correct it")
        return None


def _headers(entries: Entries) -> tuple[tuple[str, str], ...]:
    headers = entries.inner("headers", None)
    found: list[tuple[str, str]] = []
    for name, _, _ in headers or ():
        assert headers is not None
        try:
            kinds.HEADER.parse(name)
        except Malformed as error:
            headers.fault(name, str(error), f"give {kinds.HEADER.right}")
        if name.lower() in (other.lower() for other, _ in found):
            headers.fault(name, "the header stands twice", "remove one of the two")
        found.append((name, headers.required(name, kinds.HEADER_VALUE)))
    return tuple(found)


def _query(entries: Entries) -> tuple[tuple[str, Template], ...]:
    query = entries.inner("query", None)
    found = []
    for name, _, _ in query or ():
        assert query is not None
        if not _PARAMETER.fullmatch(name):
            query.fault(name, f"{quoted(name)} is no name of a parameter", "give letters, digits, . _ ~ $ [ ] or -")
        text = query.text(name, _TEMPLATE) if query.has(name) else ""
        if text is not None:
            found.append((name, query.read(name, text, template, lambda _, text=text: text, _TEMPLATE) or ()))  # type: ignore[misc]
    return tuple(found)


def _facts(entries: Entries) -> tuple[Fact, ...]:
    facts = entries.inner("facts", FACTS)
    if facts is None:
        entries.fault(None, "the key facts is missing", f"give what the answer tells, of {', '.join(FACTS)}")
        return ()
    found = [_fact(facts, name, value) for name, _, value in facts]
    if not found and isinstance(facts.node, yaml.MappingNode):
        facts.fault(None, "there is none", f"give what the answer tells, of {', '.join(FACTS)}")
    return tuple(fact for fact in found if fact is not None)


def _fact(facts: Entries, name: str, node: yaml.Node) -> Fact | None:
    """`name: /pointer`, or a mapping with pointer and values, or with count."""
    if isinstance(node, yaml.ScalarNode):
        pointer = facts.required(name, kinds.POINTER)
        return None if pointer is None else Fact(name, pointer)
    entries = Entries(node, f"{facts.where}.{name}", facts.outline, ("pointer", "values", "count"))
    if entries.has("count") and not entries.has("pointer") and not entries.has("values"):
        if not _is_number(name):
            entries.fault("count", "only a number can be one", "give pointer, or count under another fact")
        pointer = entries.value("count", kinds.POINTER)
        return None if pointer is None else Fact(name, pointer, "count")
    if entries.has("count"):
        entries.fault("count", "it stands alone", "give count, or pointer with values")
    pointer = entries.required("pointer", kinds.POINTER) if isinstance(node, yaml.MappingNode) else None
    values = _values(entries, name)
    return None if pointer is None else Fact(name, pointer, "value", values)


def _values(entries: Entries, name: str) -> dict[str, Any] | None:
    """What stands in an answer, as text, to the fact that it means."""
    values = entries.inner("values", None)
    if values is None:
        return None
    found = {}
    right = _right(name)
    for text, _, node in values:
        told = plain(node) if isinstance(node, yaml.ScalarNode) else None
        try:
            if told is None:
                raise Malformed("it is not a single value")
            found[text] = fact_value(name, told)
        except Malformed as error:
            values.fault(text, str(error), f"give {right}")
            continue
        values.note(text, str(node.value))
    return found


def fact_value(name: str, told: Any) -> Any:
    """A JSON value as the fact that it is. Raises Malformed for one of a wrong type or out of range."""
    try:
        return msgspec.convert(told, FACTS[name], strict=True)
    except msgspec.ValidationError:
        raise Malformed(f"{quoted(str(told))} is no {name}") from None


def _schema(name: str) -> dict[str, Any]:
    variants: list[dict[str, Any]] = msgspec.json.schema(FACTS[name])["anyOf"]
    return next(schema for schema in variants if schema.get("type") != "null")


def _is_number(name: str) -> bool:
    return _schema(name).get("type") == "integer"


def _right(name: str) -> str:
    schema = _schema(name)
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "integer":
        return f"a whole number from {schema['minimum']} to {schema['maximum']}"
    return "true or false" if schema["type"] == "boolean" else "a date such as 2009-05-01"
