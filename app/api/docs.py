"""The reference page at /docs: the OpenAPI document as plain HTML, rendered once, without scripts or outside hosts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, NamedTuple

import msgspec

from app import errors

Json = dict[str, Any]

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6676;--line:#dfe3ea;--page:#fff;--well:#f5f7fa;--link:#1d5fbf;
--get:#0b6b50;--get-well:#dff3ec;--post:#8a4b08;--post-well:#fbecd6;--bad:#a1263a}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ef;--soft:#98a3b3;--line:#2b3442;--page:#12171f;--well:#1a212c;
--link:#82b4ff;--get:#74d9b6;--get-well:#12352b;--post:#f0bd7b;--post-well:#3b2a12;--bad:#ff94a4}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:1.5rem}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;display:grid;grid-template-columns:19rem minmax(0,1fr)}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}
code,pre{font:.86em/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{overflow-wrap:anywhere}
td:first-child code{overflow-wrap:normal;white-space:nowrap}
nav{position:sticky;top:0;height:100vh;overflow-y:auto;padding:1.6rem 1.2rem 3rem 1.6rem;background:var(--well);
border-right:1px solid var(--line);font-size:.9rem}
nav strong{display:block;font-size:1.02rem;line-height:1.35}
nav .version{color:var(--soft)}
nav h2{margin:1.5rem 0 .35rem;font-size:.74rem;letter-spacing:.07em;text-transform:uppercase;color:var(--soft);
border:0;padding:0}
nav ul{list-style:none;margin:0;padding:0}
nav li a{display:flex;gap:.55rem;align-items:baseline;padding:.17rem 0;color:var(--ink)}
main{padding:2.2rem clamp(1.2rem,4vw,3.6rem) 6rem;max-width:64rem}
h1{margin:0;font-size:2rem;line-height:1.2;letter-spacing:-.015em}
h2{margin:3.4rem 0 .3rem;font-size:1.4rem;letter-spacing:-.01em;border-top:1px solid var(--line);padding-top:1.9rem}
h3{margin:2.6rem 0 .2rem;font-size:1.12rem}
h4{margin:1.5rem 0 .4rem;font-size:.76rem;letter-spacing:.06em;text-transform:uppercase;color:var(--soft)}
p{margin:.45rem 0;max-width:46rem}
.soft,.lead{color:var(--soft)}
article{margin-top:2.2rem}
article h3{margin-top:0}
.route{display:flex;gap:.7rem;align-items:center;flex-wrap:wrap;margin:.35rem 0 .6rem;font-size:1.02rem}
.verb{font:600 .7rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;letter-spacing:.04em;
padding:.05rem .45rem;border-radius:4px;min-width:3.1rem;text-align:center;color:var(--get);background:var(--get-well)}
.verb.post,.verb.delete{color:var(--post);background:var(--post-well)}
nav .verb{font-size:.6rem;min-width:2.6rem;padding:0 .3rem}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{text-align:left;font-weight:600;color:var(--soft);font-size:.8rem}
th,td{padding:.42rem 1rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child{width:13rem}
.narrow td:first-child{width:5rem}
.four td:nth-child(3){min-width:11rem}
td p{margin:0}
.must{color:var(--bad);font-size:.78rem;white-space:nowrap}
pre{background:var(--well);border:1px solid var(--line);border-radius:7px;padding:.85rem 1rem;
overflow-x:auto;margin:.4rem 0}
summary{cursor:pointer;color:var(--link);font-size:.92rem;padding:.15rem 0}
.anchor{opacity:0;margin-left:.4rem;font-weight:400}
h2:hover .anchor,h3:hover .anchor,.anchor:focus{opacity:1}
@media(max-width:60rem){body{display:block}nav{position:static;height:auto;border-right:0;
border-bottom:1px solid var(--line);padding-bottom:1.5rem}nav .schemas{columns:2}
td:first-child,.narrow td:first-child{width:auto}.four td:nth-child(3){min-width:0}}
@media print{nav,.anchor{display:none}body{display:block}}
"""


class Page(NamedTuple):
    """html: the page. headers: content type, and the policy that allows its own style and nothing else."""

    html: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def page(document: Json, base_url: str = "http://127.0.0.1:8080") -> Page:
    """The page of an OpenAPI document as app.api.openapi makes it. base_url: the host of the curl examples."""
    html = "".join(_page(document, base_url)).encode()
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest())
    policy = b"default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Page(
        html,
        (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy % digest),
        ),
    )


def _page(document: Json, base_url: str) -> Iterator[str]:
    info = document["info"]
    title = escape(info["title"])
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title} · API reference</title><style>{STYLE}</style></head><body>"
    yield from _navigation(document)
    yield f'<main><h1 id="top">{title}</h1><p class="lead">API reference, version {escape(info["version"])}, '
    yield 'made from <a href="/openapi.json">openapi.json</a></p>'
    yield _prose(info["description"])
    for tag in document["tags"]:
        yield _heading(2, f"tag-{tag['name']}", escape(tag["name"]))
        yield _prose(tag["description"])
        for path, method, operation in _operations(document, tag["name"]):
            yield from _operation(document, path, method, operation, base_url)
    yield from _schemas(document["components"]["schemas"])
    yield from _problems()
    yield "</main></body></html>\n"


def _operations(document: Json, tag: str) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if tag in operation["tags"]:
                yield path, method, operation


def _navigation(document: Json) -> Iterator[str]:
    info = document["info"]
    yield f'<nav aria-label="Contents"><a href="#top"><strong>{escape(info["title"])}</strong></a>'
    yield f'<span class="version">{escape(info["version"])}</span>'
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2><ul>"
        for _, method, operation in _operations(document, tag["name"]):
            yield f'<li><a href="#{operation["operationId"]}">{_verb(method)}{escape(operation["summary"])}</a></li>'
        yield "</ul>"
    for title, names in _schema_groups(document["components"]["schemas"]).items():
        yield f'<h2>{title}</h2><ul class="schemas">'
        yield from (f'<li><a href="#{name}">{name}</a></li>' for name in names)
        yield "</ul>"
    yield '<h2>Errors</h2><ul><li><a href="#problems">Problem types</a></li></ul></nav>'


def _operation(document: Json, path: str, method: str, operation: Json, base_url: str) -> Iterator[str]:
    yield "<article>" + _heading(3, operation["operationId"], escape(operation["summary"]))
    yield f'<div class="route">{_verb(method)}<code>{escape(path)}</code></div>'
    yield _prose(operation["description"])
    parameters = [_resolved(document, p) for p in operation["parameters"]]
    yield "<h4>Parameters</h4>"
    rows = _table(("Name", "In", "Type", "Meaning"), map(_parameter_row, parameters))
    yield f'<div class="four">{rows}</div>'
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        yield f"<h4>Body</h4><p>{_type(body['schema'])} as <code>application/json</code></p>"
    yield "<h4>Example</h4>"
    line = _curl(path, method, parameters, body, base_url, secured=bool(operation["security"]))
    yield f"<pre><code>{escape(line)}</code></pre>"
    for name, example in (body or {}).get("examples", {}).items():
        yield _folded(f"Body: {name}", example["value"])
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values():
            if "example" in media:
                yield _folded(f"Answer: {status}", media["example"])
    yield "<h4>Answers</h4>"
    answers = _table(("Status", "Meaning", "Body"), (_answer_row(s, r) for s, r in operation["responses"].items()))
    yield f'<div class="narrow">{answers}</div>'
    yield "</article>"


def _parameter_row(parameter: Json) -> tuple[str, ...]:
    must = ' <span class="must">required</span>' if parameter["required"] else ""
    return (
        f"<code>{escape(parameter['name'])}</code>{must}",
        parameter["in"],
        _type(parameter["schema"]) + _limits(parameter["schema"]),
        _inline(parameter["description"]) + _default(parameter["schema"]),
    )


def _answer_row(status: str, response: Json) -> tuple[str, ...]:
    meaning = _inline(response["description"])
    bodies = []
    for media_type, media in response.get("content", {}).items():
        if "examples" in media:
            kinds = [example["value"] for example in media["examples"].values()]
            meaning = "<br>".join(f'<a href="#{_slug(kind)}">{escape(kind["title"])}</a>' for kind in kinds)
        elif "$ref" not in media["schema"]:
            bodies.append(f"<code>{escape(media_type)}</code>")
            continue
        bodies.append(_type(media["schema"]))
    names = [name for name in response["headers"] if name != "X-Request-ID"]
    sent = "".join(f'<br><span class="soft">with <code>{escape(name)}</code></span>' for name in names)
    return f"<code>{status}</code>", meaning + sent, "<br>".join(bodies) or '<span class="soft">none</span>'


def _slug(problem: Json) -> str:
    return "problem-" + str(problem["type"]).rsplit("/", 1)[-1]


def _curl(path: str, method: str, parameters: list[Json], body: Json | None, base_url: str, *, secured: bool) -> str:
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    chosen = "" if method == "get" or (method == "post" and body is not None) else f"-X {method.upper()} "
    lines = [f"curl -sS {chosen}'{base_url}{path}'"]
    if secured:
        lines.append('-H "X-API-Key: $KYB_KEY"')
    if body is not None:
        smallest = min((e["value"] for e in body["examples"].values()), key=lambda v: len(msgspec.json.encode(v)))
        text = msgspec.json.encode(smallest).decode().replace("'", "'\\''")
        lines += ["-H 'Content-Type: application/json'", f"-d '{text}'"]
    return " \\\n  ".join(lines)


def _schema_groups(schemas: Json) -> dict[str, list[str]]:
    """Schemas that a caller sends, and those that are answered."""
    groups: dict[str, list[str]] = {"Schemas sent": [], "Schemas answered": []}
    for name, schema in schemas.items():
        groups["Schemas sent" if schema.get("additionalProperties") is False else "Schemas answered"].append(name)
    return groups


def _schemas(schemas: Json) -> Iterator[str]:
    for title, names in _schema_groups(schemas).items():
        yield _heading(2, title.lower().replace(" ", "-"), title)
        if title == "Schemas sent":
            yield _prose("Other fields than these are refused. Absent and null both mean that a value is not known.")
        for name in names:
            yield _heading(3, name, name)
            yield _prose(schemas[name].get("description", ""))
            yield _table(("Field", "Type", "Meaning"), _field_rows(schemas[name]))


def _field_rows(schema: Json) -> Iterator[tuple[str, ...]]:
    for name, member in schema["properties"].items():
        must = ' <span class="must">required</span>' if name in schema.get("required", ()) else ""
        parts = [p for p in member.get("anyOf", [member]) if p != {"type": "null"}]
        notes = [text for part in parts if (text := _inline(part.get("description", "")) + _default(part))]
        yield f"<code>{escape(name)}</code>{must}", _type(member) + "".join(map(_limits, parts)), "; ".join(notes)


def _problems() -> Iterator[str]:
    yield _heading(2, "problems", "Problem types")
    yield _prose("Each error answer carries one of these as `type`, and the request's id as `instance`.")
    kinds = sorted(errors.KINDS.values(), key=lambda kind: (kind.status, kind.slug))
    yield _table(
        ("Type", "Status", "Meaning", "What to do"),
        (
            (
                f'<code id="problem-{k.slug}">{escape(k.type_uri)}</code>',
                f"<code>{k.status}</code>",
                _inline(k.title),
                _inline(k.advice),
            )
            for k in kinds
        ),
    )


def _type(schema: Json) -> str:
    """What a schema allows, in words and links."""
    match schema:
        case {"$ref": ref}:
            name = escape(ref.rsplit("/", 1)[-1])
            return f'<a href="#{name}">{name}</a>'
        case {"enum": values}:
            return " · ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"anyOf": parts}:
            return " or ".join(_type(part) for part in parts)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "string", "format": kind}:
            return escape(kind)
        case {"type": kind}:
            return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(kind, escape(kind))
        case _:
            return "any value"


_RANGES = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items"))


def _limits(schema: Json) -> str:
    words = ", ".join(_limit_words(schema))
    return f'<br><span class="soft">{words}</span>' if words else ""


def _limit_words(schema: Json) -> Iterator[str]:
    for low, high, unit in _RANGES:
        least, most = schema.get(low), schema.get(high)
        if least is not None and least == most:
            yield f"{_figure(least)}{unit}"
        elif least is not None and most is not None:
            yield f"{_figure(least)} to {_figure(most)}{unit}"
        elif least is not None:
            yield f"at least {_figure(least)}{unit}"
        elif most is not None:
            yield f"at most {_figure(most)}{unit}"
    if "u0000" not in schema.get("pattern", "u0000"):
        yield f"matching <code>{escape(schema['pattern'])}</code>"
    if "items" in schema:
        yield from (f"each {words}" for words in _limit_words(schema["items"]))


def _figure(value: float) -> str:
    if abs(value) >= 1e12:
        return f"{value:.0e}".replace("e+", "e")
    return f"{int(value):,}" if value == int(value) else str(value)


def _default(schema: Json) -> str:
    value = schema.get("default")
    return f" (default <code>{escape(msgspec.json.encode(value).decode())}</code>)" if value not in (None, []) else ""


def _resolved(document: Json, parameter: Json) -> Json:
    if "$ref" not in parameter:
        return parameter
    found: Json = document["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[-1]]
    return found


def _folded(title: str, value: Any) -> str:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return f"<details><summary>{escape(title)}</summary><pre><code>{escape(text)}</code></pre></details>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f'<div class="table"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _heading(level: int, anchor: str, title: str) -> str:
    link = f'<a class="anchor" href="#{escape(anchor)}" aria-label="Link to this section">#</a>'
    return f'<h{level} id="{escape(anchor)}">{title}{link}</h{level}>'


def _verb(method: str) -> str:
    return f'<span class="verb {method}">{method.upper()}</span>'


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part)


def _inline(text: str) -> str:
    """Escaped text in which `backticks` mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
