"""The section of providers: what is read, what is refused with its line, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configuration import write

from app.settings import SettingsError, effective, load
from app.settings.providers import Fact, Hole, HttpJson, Yente

SOUND = """\
providers:
  registry:
    kind: http_json
    url: https://registry.example/v1/companies/{business.registration_number}
    auth: {header: X-Api-Key, value_env: REGISTRY_KEY}
    headers: {X-Client: hunter2}
    query: {country: "{business.jurisdiction}"}
    timeout: 500ms
    ttl: 24h
    concurrency: 8
    max_bytes: 64KiB
    absent_status: 404
    version: /meta/version
    facts:
      incorporated_on: /company/founded
      litigation_count: {count: /company/cases}
      website_verified: {pointer: /site, values: {verified: true, "no": false}}
      filing_overdue_days: {pointer: /filing, values: {LATE: 30, ON_TIME: 0}}
  names:
    kind: yente
    url: http://127.0.0.1:8000/api/
    auth: {bearer_env: NAMES_TOKEN}
"""
ENVIRON = {"REGISTRY_KEY": "hunter2-key", "NAMES_TOKEN": "hunter2-token"}


def test_what_is_given_is_read(tmp_path: Path) -> None:
    registry, names = load(ENVIRON, write(tmp_path, SOUND)).settings.providers
    assert isinstance(registry, HttpJson)
    assert (registry.name, registry.url, registry.method) == ("registry", "https://registry.example", "GET")
    assert registry.path == ("/v1/companies/", Hole("business.registration_number"))
    assert registry.query == (("country", (Hole("business.jurisdiction"),)),)
    assert (registry.timeout, registry.ttl, registry.concurrency, registry.max_bytes) == (0.5, 86400.0, 8, 65536)
    assert (registry.absent_status, registry.version, registry.body) == (404, "/meta/version", None)
    assert registry.facts == (
        Fact("incorporated_on", "/company/founded"),
        Fact("litigation_count", "/company/cases", "count"),
        Fact("website_verified", "/site", "value", {"verified": True, "no": False}),
        Fact("filing_overdue_days", "/filing", "value", {"LATE": 30, "ON_TIME": 0}),
    )
    assert registry.auth is not None
    assert (registry.auth.header, registry.auth.value) == ("X-Api-Key", "hunter2-key")
    assert isinstance(names, Yente)
    assert (names.url, names.dataset, names.threshold, names.limit) == ("http://127.0.0.1:8000/api", "default", 0.7, 5)
    assert names.auth is not None
    assert names.auth.value == "Bearer hunter2-token"


def test_the_documented_example_is_sound(tmp_path: Path) -> None:
    documented = (Path(__file__).parent.parent / "docs/providers.md").read_text()
    example = documented.partition("```yaml\n")[2].partition("```")[0]
    found = load({"REGISTRY_KEY": "x", "NEWS_TOKEN": "y"}, write(tmp_path, example)).settings.providers
    assert [provider.name for provider in found] == ["registry", "news", "names"]


def test_there_are_none_by_default(tmp_path: Path) -> None:
    assert load({}).settings.providers == ()
    for text in ("providers:\n", "providers: {}\n", "providers: null\n"):
        assert load({}, write(tmp_path, text)).settings.providers == ()


def test_what_is_in_force_is_shown_with_its_origin_and_without_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    loaded = load(ENVIRON, path)
    shown = {name: (text, origin) for name, text, origin in effective(loaded) if name.startswith("providers.")}
    assert shown["providers.registry.url"][0].endswith("{business.registration_number}")
    assert shown["providers.registry.timeout"] == ("500ms", f"file {path}:8")
    assert shown["providers.registry.method"] == ("get", "default")
    assert shown["providers.registry.auth.value_env"] == ("REGISTRY_KEY", f"file {path}:5")
    assert shown["providers.registry.headers.X-Client"] == ("***", f"file {path}:6")
    assert shown["providers.registry.facts.website_verified.values.no"][0] == "false"
    assert shown["providers.names.threshold"] == ("0.7", "default")
    for text in (str(shown), repr(loaded), repr(loaded.settings), repr(loaded.settings.providers)):
        assert "hunter2" not in text
    assert "hunter2" not in repr(loaded.settings.providers[0].auth)


def provider(line: str = "", facts: str = "facts: {employees: /n}", kind: str = "http_json", url: str = "/a") -> str:
    line = f"    {line}\n" if line else ""
    facts = f"    {facts}\n" if facts else ""
    return f"providers:\n  a:\n    kind: {kind}\n    url: https://a.example{url}\n{line}{facts}"


WRONG: list[tuple[str, Any]] = [
    ("providers: 7\n", ":1: providers: must be a mapping"),
    ("providers:\n  a: 7\n", ":2: providers.a: must be a mapping"),
    ("providers:\n  A-b c: {kind: yente, url: https://a.example}\n", ":2: providers.A-b...: "),
    ("providers:\n  watchlist: {kind: yente, url: https://a.example}\n", ":2: providers.watchlist: it is the name of"),
    ("providers:\n  a: {url: https://a.example}\n", ":2: providers.a: the key kind is missing"),
    ("providers:\n  a: {kind: soap}\n", ':2: providers.a.kind: "soap" is not known; give one of http_json, yente'),
    ("providers:\n  a: {kind: yente}\n", ":2: providers.a: the key url is missing"),
    ("providers:\n  a: {kind: yente, kind: yente, url: https://a.example}\n", "given twice, first on line 2"),
    ("providers:\n  a: {kind: yente, url: http://a.example}\n", "url: without TLS only this machine itself is asked"),
    ("providers:\n  a: {kind: yente, url: 'https://a.example/{business.name}'}\n", "nothing of the profile goes into"),
    ("providers:\n  a: {kind: yente, url: 'https://hunter2:x@a.example'}\n", "is not the address of a web service"),
    ("providers:\n  a: {kind: yente, url: https://a.example, body: {}}\n", "providers.a.body: unknown key"),
    ("providers:\n  a: {kind: yente, url: https://a.example, treshold: 1}\n", "did you mean threshold?"),
    ("providers:\n  a: {kind: yente, url: https://a.example, threshold: 1.1}\n", '"1.1" is not a number from 0 to 1'),
    ("providers:\n  a: {kind: yente, url: https://a.example, dataset: ../x}\n", "is no name of a dataset"),
    ("providers:\n  a: {kind: yente, url: [https://a.example]}\n", "url: must be a single value"),
    (provider("timeout: 2s"), ":5: providers.a.timeout: 2s does not go with server.request_deadline = 2s (default)"),
    (provider("concurrency: 101"), ":5: providers.a.concurrency: 101 does not go with concurrency.worker_pool"),
    (provider("ttl: 0s"), "out of range"),
    (provider("max_bytes: 1GiB"), "out of range"),
    (provider("ca_file: /none.pem"), '"/none.pem" is no readable file of certificates'),
    (provider("method: put"), '"put" is not known'),
    (provider("method: get\n    body: {a: b}"), "providers.a.body: a GET has none"),
    (provider("body: {a: ['{business.nam}']}"), "providers.a.body.a.0: "),
    (provider("body: &x {a: *x}"), "nested deeper than 16 levels"),
    (provider("body: {a: &a [1,2,3,4,5,6,7,8,9], b: &b [*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b], d: [*c,*c]}"),
     "there are more than 1000 values"),
    (provider("query: {a b: x}"), "is no name of a parameter"),
    (provider("query: {a: '{business.owners}'}"), "providers.a.query.a: "),
    (provider("query: {a: [x]}"), "providers.a.query.a: must be a single value"),
    (provider("headers: {Host: a}"), '"Host" is written by the service itself'),
    (provider("headers: {'X Y': a}"), "is no name of a header"),
    (provider("headers: {X-A: hunter2é}"), "it must be printable ASCII"),
    (provider("headers: {X-A: a, x-a: b}"), "the header stands twice"),
    (provider("auth: {}"), "providers.a.auth: it is not said how"),
    (provider("auth: hunter2"), "providers.a.auth: must be a mapping"),
    (provider("auth: {bearer: hunter2}"), "providers.a.auth.bearer: unknown key; did you mean bearer_env?"),
    (provider("auth: {bearer_env: hunter2}"), "it is no name of an environment variable"),
    (provider("auth: {bearer_env: UNSET}"), ":5: providers.a.auth.bearer_env: the environment has no such variable"),
    (provider("auth: {bearer_env: BROKEN}"), "what the variable holds cannot stand in a header"),
    (provider("auth: {header: X-Key}"), "it is not said how"),
    (provider("auth: {header: Cookie, value_env: KEY}"), '"Cookie" is written by the service itself'),
    (provider("auth: {user: 'a:b', password_env: KEY}"), "it holds a colon"),
    (provider("absent_status: 200"), "out of range"),
    (provider("version: meta"), '"meta" is no JSON pointer'),
    (provider(facts=""), "providers.a: the key facts is missing; give what the answer tells, of business_status, "),
    (provider(facts="facts: {}"), "providers.a.facts: there is none"),
    (provider(facts="facts: {employes: /n}"), "providers.a.facts.employes: unknown key; did you mean employees?"),
    (provider(facts="facts: {employees: n}"), '"n" is no JSON pointer'),
    (provider(facts="facts: {employees: /a~2}"), "is no JSON pointer"),
    (provider(facts="facts: {employees: {values: {a: 1}}}"), "the key pointer is missing"),
    (provider(facts="facts: {employees: {count: /a, pointer: /b}}"), "it stands alone"),
    (provider(facts="facts: {website_verified: {count: /a}}"), "only a number can be one"),
    (provider(facts="facts: {business_status: {pointer: /a, values: {X: sold}}}"),
     '"sold" is no business_status; give one of active, dissolved, in_liquidation, inactive, unknown'),
    (provider(facts="facts: {employees: {pointer: /a, values: {X: -1}}}"), "give a whole number from 0 to 1000000000"),
    (provider(facts="facts: {website_verified: {pointer: /a, values: {X: maybe}}}"), "give true or false"),
    (provider(facts="facts: {employees: {pointer: /a, values: {X: [1]}}}"), "it is not a single value"),
    (provider(url="/a?key=hunter2"), "a query goes under `query`"),
    (provider(url="/a/../b"), "holds a segment that is . or .."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_with_its_place_and_no_secret(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"KEY": "hunter2", "BROKEN": "hunter2\n"}, write(tmp_path, text))
    message = str(caught.value)
    assert says in message
    assert "hunter2" not in message


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    text = provider("timeout: soon", facts="facts: {employees: n}") + "  b: {kind: soap}\nserver: {port: x}\n"
    with pytest.raises(SettingsError) as caught:
        load({}, write(tmp_path, text))
    assert len(caught.value.faults) == 4


def test_more_than_there_may_be(tmp_path: Path) -> None:
    many = "".join(f"  p{number}: {{kind: yente, url: https://a.example}}\n" for number in range(33))
    with pytest.raises(SettingsError, match=r"providers: there are 33; give at most 32"):
        load({}, write(tmp_path, f"providers:\n{many}"))
