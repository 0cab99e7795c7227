"""What goes to a provider: values of the profile in their places, and nothing that could be more than a value."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_server import Exchange, FakeProvider, body, business, providers, run
from yarl import URL

from app import wire
from app.evidence.providers.answers import NOTHING, at_pointer
from app.evidence.providers.filling import Lacking, fill_body, fill_path, fill_query, needs
from app.settings.kinds import Malformed
from app.settings.provider_kinds import split_url, url_path
from app.settings.providers import Hole
from app.settings.templates import template

NASTY = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        "..", ".", "../../admin", "a/b", "a\\b", "%2e%2e", "%2F", "a?b=c", "a#b", "a&b=c", "@evil.example", ":80",
        "//evil.example", "a\r\nHost: evil.example", "\x00", '"}, "admin": true, {"', "{business.name}", "ü", "甲 乙",
        "\ud800",
    ]
)  # fmt: skip


def named(name: str, **fields: Any) -> wire.Profile:
    return wire.Profile(wire.Business(name, "DE", **fields))


# ---------------------------------------------------------------- templates


def test_a_template_is_texts_and_fields() -> None:
    assert template("a {business.name}{business.lei?} {{b}}") == (
        "a ",
        Hole("business.name"),
        Hole("business.lei", True),
        " {b}",
    )
    assert template("") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{business.nme}", '"business.nme" is not a field of the profile; did you mean business.name?'),
        ("{}", '"" is not a field'),
        ("{evidence.external.employees}", "is not a field"),
        ("{ownership.owners[].name}", "is not a single value"),
        ("{ownership.owners}", "is not a single value"),
        ("{business.address}", "is not a single value"),
        ("{business.industry}", "is not a single value"),
        ("{business.name", "a brace has no partner"),
        ("business.name}", "a brace has no partner"),
        ("{a{business.name}}", "a brace has no partner"),
        ("{business.__class__}", "is not a field"),
        ("x" * 5000, "longer than"),
    ],
)
def test_a_template_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(Malformed, match=says.replace("[", r"\[")):
        template(text)


# ---------------------------------------------------------------- addresses


@given(NASTY)
def test_no_value_changes_the_host_or_the_shape_of_the_path(value: str) -> None:
    path = url_path("/v1/companies/{business.name}/status")
    try:
        filled = fill_path(path, named(value))
    except Lacking:
        return
    url = f"https://registry.example{filled}?{fill_query((('q', template('{business.name}')),), named(value))}"
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "registry.example", "")
    assert parts.path.count("/") == 4
    assert unquote(parts.path.split("/")[3]) == value.strip()
    assert parse_qsl(parts.query, keep_blank_values=True) == [("q", value.strip())]
    sent = URL(url, encoded=True)
    assert (sent.host, str(sent.raw_path_qs), url.isascii(), url.isprintable()) == (
        "registry.example",
        f"{filled}?{parts.query}",
        True,
        True,
    )
    assert not {".", ".."} & set(unquote(parts.path).split("/"))


@pytest.mark.parametrize("value", ["..", ".", "a/b", "a\\b", "%2e", "a%2Fb", "\n", "a\tb", " ", "\ud800"])
def test_a_value_that_is_no_segment_is_not_sent(value: str) -> None:
    with pytest.raises(Lacking):
        fill_path(url_path("/{business.name}"), named(value))


def test_dots_do_not_add_up_to_a_step() -> None:
    with pytest.raises(Lacking):
        fill_path(url_path("/a/.{business.name}"), named("."))
    with pytest.raises(Lacking):
        fill_path(url_path("/a/{business.legal_form}{business.name}"), named(".", legal_form="."))


@pytest.mark.parametrize(
    "text",
    [
        "http://registry.example/a", "ftp://registry.example/", "registry.example", "https://user:pw@registry.example/",
        "https://registry.example:0/", "https://registry.example:65536/", "https:///a", "https://{business.name}/a",
        "https://registry.{business.name}/", "https://regis try/", "https://registry.example\\@evil.example/",
        "//registry.example/", "http://127.0.0.1.evil.example/", "http://localhost.evil.example/", "",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be(text: str) -> None:
    with pytest.raises(Malformed):
        split_url(text)


@pytest.mark.parametrize(
    "path",
    [
        "/a?b=c",
        "/a#b",
        "/a b",
        "/ü",
        "/%zz",
        "/..",
        "/a/../b",
        "/a/%2e%2E/b",
        "/{business.lei?}",
        "/a/./b",
        "/a\\b",
        "/{",
    ],
)
def test_a_path_that_cannot_be(path: str) -> None:
    with pytest.raises(Malformed):
        url_path(path)


def test_loopback_may_be_asked_in_clear() -> None:
    assert split_url("http://127.0.0.1:8000/a") == ("http://127.0.0.1:8000", "/a")
    assert split_url("http://[::1]:8000") == ("http://[::1]:8000", "")
    assert split_url("HTTPS://Registry.Example/A") == ("https://registry.example", "/A")


# ---------------------------------------------------------------- queries and bodies


def test_a_parameter_whose_optional_field_lacks_is_left_out() -> None:
    query = (("name", template("{business.name}")), ("lei", template("LEI {business.lei?}")), ("v", template("1")))
    assert fill_query(query, named("A & B")) == "name=A%20%26%20B&v=1"
    lei = "529900T8BM49AURSDO55"
    assert fill_query(query, named("A", lei=lei)) == f"name=A&lei=LEI%20{lei}&v=1"


@given(NASTY)
def test_no_value_changes_the_shape_of_a_body(value: str) -> None:
    tree = {"name": template("{business.name}"), "q": [template("name:{business.name}"), 1, None, True]}
    try:
        filled = fill_body(tree, named(value))
    except Lacking:
        return
    assert json.loads(filled) == {"name": value.strip(), "q": [f"name:{value.strip()}", 1, None, True]}


def test_a_field_alone_keeps_its_type_in_a_body() -> None:
    profile = named("A", employees=57, cash_intensive=False, incorporated_on=dt.date(2009, 5, 1))
    tree = {
        "n": template("{business.employees}"),
        "f": template("{business.cash_intensive}"),
        "d": template("{business.incorporated_on}"),
        "t": template("{business.employees} people, {business.cash_intensive}"),
        "lei": template("{business.lei?}"),
        "text": template("LEI {business.lei?}"),
    }
    assert json.loads(fill_body(tree, profile)) == {
        "n": 57, "f": False, "d": "2009-05-01", "t": "57 people, false", "lei": None, "text": None,
    }  # fmt: skip


def test_what_is_needed_is_what_is_not_optional() -> None:
    assert needs(template("{business.name}{business.lei?}"), template("{business.id}")) == {
        "business.name",
        "business.id",
    }


def test_a_request_is_as_the_settings_say(tmp_path: Path) -> None:
    text = """\
  news:
    kind: http_json
    url: {url}/v2/search/{{business.jurisdiction}}
    auth: {{user: me, password_env: NEWS_PASSWORD}}
    headers: {{X-Client: kyb}}
    query: {{since: "{{business.incorporated_on?}}", language: "en"}}
    body: {{name: "{{business.name}}", country: NO, strict: true, top: 5, "null": null, quoted: "5"}}
    facts: {{adverse_media_count: {{count: /articles}}}}
"""

    async def scenario() -> None:
        async with (
            FakeProvider(body({"articles": [1, {}, None]})) as server,
            providers(tmp_path, text.format(url=server.url), {"NEWS_PASSWORD": "p:w"}) as asked,
        ):
            external = await asked.gather(business())
            assert external.facts.adverse_media_count == 3
            [sent] = server.requests
            check(sent)
            assert asked.guarded[0]._provider.needs == {"business.jurisdiction", "business.name"}

    def check(sent: Exchange) -> None:
        assert (sent.method, sent.target) == ("POST", "/v2/search/DE?language=en")
        assert sent.headers["authorization"] == "Basic bWU6cDp3"
        assert (sent.headers["x-client"], sent.headers["content-type"]) == ("kyb", "application/json")
        assert (sent.headers["accept-encoding"], sent.headers["accept"]) == ("identity", "application/json")
        assert "cookie" not in sent.headers
        assert json.loads(sent.body) == {
            "name": "Acme GmbH", "country": "NO", "strict": True, "top": 5, "null": None, "quoted": "5",
        }  # fmt: skip

    run(scenario)


def test_cookies_are_neither_kept_nor_sent(tmp_path: Path) -> None:
    text = "  a:\n    kind: http_json\n    url: {url}/{{business.registration_number}}\n    facts: {{employees: /n}}\n"

    async def scenario() -> None:
        async with (
            FakeProvider(body({"n": 1}, Set_Cookie="session=1; Path=/")) as server,
            providers(tmp_path, text.format(url=server.url)) as asked,
        ):
            for number in ("1", "2"):
                assert not (await asked.gather(business(number))).degraded
            assert ["cookie" in sent.headers for sent in server.requests] == [False, False]

    run(scenario)


def test_the_environments_proxies_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  a:\n    kind: http_json\n    url: {url}/{{business.name}}\n    facts: {{employees: /n}}\n"

    async def scenario() -> None:
        async with FakeProvider() as proxy, FakeProvider(body({"n": 1})) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            async with providers(tmp_path, text.format(url=server.url)) as asked:
                assert not (await asked.gather(business())).degraded
                assert (proxy.connections, server.connections) == (0, 1)

    run(scenario)


# ---------------------------------------------------------------- pointers


# The examples of RFC 6901, section 5.
DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8), ("/foo/2", NOTHING), ("/foo/00", NOTHING),
        ("/foo/-", NOTHING), ("/foo/-1", NOTHING), ("/foo/\u0660", NOTHING), ("/foo/0/x", NOTHING), ("/none", NOTHING),
        ("/foo/99999999999999999999", NOTHING),
    ],
)  # fmt: skip
def test_a_pointer_leads_where_the_standard_says(pointer: str, value: Any) -> None:
    assert at_pointer(DOCUMENT, pointer) is value or at_pointer(DOCUMENT, pointer) == value
