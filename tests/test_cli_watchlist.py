"""`kyb watchlist` as an operator types it: lists added, fetched, kept when what comes is broken, searched, removed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from screened import list_file, party, registered
from service import SECRETS, environment, named, serving

COMMAND = (sys.executable, "-m", "app.cli", "watchlist")
LIMIT_S = 60.0
WIDGETS = party("w1", "Veridian Shadow Trading", identifiers=registered("HE 900417", "CY"), countries=("CY",))
MARIA = party("p1", "Maria Musterfrau", "Мария Мустерфрау", schema="Person", birth_dates=("1970-01-01",))

Settings = Mapping[str, str]
Done = subprocess.CompletedProcess[str]


def run(settings: Settings, *arguments: object) -> Done:
    """The real command in a process of its own, with these settings of the environment only."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A fresh embedded database."""
    told = {"DATA_DIR": str(tmp_path / "data"), **SECRETS}
    subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate"], env=environment(told), check=True, capture_output=True, timeout=60
    )
    return told


def shown(settings: Settings) -> dict[str, dict[str, object]]:
    """The lists in force by name."""
    return {one["name"]: one for one in json.loads(run(settings, "list", "--json").stdout)["lists"]}


def test_a_file_becomes_a_list_that_can_be_searched(settings: Settings, tmp_path: Path) -> None:
    file = list_file(tmp_path / "My List.jsonl", WIDGETS, MARIA)
    done = run(settings, "add", file)
    assert done.returncode == 0
    assert done.stdout.startswith("my-list: version ")
    assert "2 entries and 3 names" in done.stdout
    assert shown(settings)["my-list"]["entities"] == 2
    found = json.loads(run(settings, "search", "Musterfrau, Maria", "--person", "--json").stdout)["matches"]
    assert [(one["entity_id"], one["score"]) for one in found] == [("p1", 1.0)]
    by_number = json.loads(run(settings, "search", "-", "--identifier", "he900417", "--json").stdout)["matches"]
    assert [one["entity_id"] for one in by_number] == ["w1"]
    none = run(settings, "search", "Zacharias Unbekannt")
    assert (none.returncode, none.stdout) == (
        0,
        "nobody on the lists resembles Zacharias Unbekannt (from a score of 0.75)\n",
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [("--country", "XXX"), ("--country", "zz"), ("--birth-date", "1970-13-01"), ("--birth-date", "x")],
)
def test_a_search_for_what_is_no_country_or_date_is_refused(settings: Settings, option: str, value: str) -> None:
    done = run(settings, "search", "Maria Musterfrau", option, value)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{value} is no {'country' if option == '--country' else 'date'}" in done.stderr


def test_versions_count_and_each_is_in_the_audit_trail(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "l.jsonl"
    for entities in ((WIDGETS,), (WIDGETS, MARIA)):
        list_file(file, *entities)
        assert run(settings, "add", file, "--name", "mine").returncode == 0
    assert run(settings, "remove", "mine").returncode == 0
    assert shown(settings) == {}
    trail = subprocess.run(
        [sys.executable, "-m", "app.cli", "audit", "export"],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    acts = [json.loads(line) for line in trail.splitlines()]
    told = [(one["act"], one["detail"].get("number")) for one in acts if one["act"].startswith("watchlist.")]
    assert told == [("watchlist.removed", None), ("watchlist.updated", 2), ("watchlist.updated", 1)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "empty"),
        ("page.csv", b"<!doctype html><html><body>Sorry</body></html>", "is a web page"),
        ("cut.jsonl", b'{"id":"a","schema":"Company","properties":{"name":["A"]}}\n{"id":"b","sch', "line 2"),
        ("utf16.jsonl", '{"id":"a"}'.encode("utf-16"), "UTF-16"),
        (
            "bomb.xml",
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
            b"<CONSOLIDATED_LIST>&b;</CONSOLIDATED_LIST>",
            "<!DOCTYPE",
        ),
    ],
)
def test_a_broken_file_leaves_the_old_list(
    settings: Settings, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    run(settings, "add", list_file(tmp_path / "good.jsonl", WIDGETS), "--name", "mine")
    before = shown(settings)
    bad = tmp_path / name
    bad.write_bytes(content)
    done = run(settings, "add", bad, "--name", "mine")
    assert done.returncode == 2
    assert words.lower() in done.stderr.lower()
    assert name in done.stderr
    assert "nothing was changed" in done.stderr
    assert shown(settings) == before


def test_a_list_that_shrank_is_kept_out_unless_it_is_forced(settings: Settings, tmp_path: Path) -> None:
    many = [party(f"n{n}", f"Harmless Number {n} Trading") for n in range(10)]
    run(settings, "add", list_file(tmp_path / "l.jsonl", *many), "--name", "mine")
    few = list_file(tmp_path / "f.jsonl", *many[:4])
    done = run(settings, "add", few, "--name", "mine")
    assert done.returncode == 4
    assert "less than half" in done.stderr
    assert "stays in force" in done.stderr
    assert shown(settings)["mine"]["entities"] == 10
    assert run(settings, "add", few, "--name", "mine", "--force").returncode == 0
    assert shown(settings)["mine"]["entities"] == 4


@pytest.mark.parametrize("name", ["default", "demo", "Upper", "-x", "a" * 65, "a b"])
def test_names_that_a_list_cannot_have(settings: Settings, tmp_path: Path, name: str) -> None:
    done = run(settings, "add", list_file(tmp_path / "l.jsonl", WIDGETS), f"--name={name}")
    assert done.returncode == 2
    assert "is no name for a list" in done.stderr
    assert shown(settings) == {}


class Publisher(BaseHTTPRequestHandler):
    """Publishes `content` under an ETag, and answers 304 where that still holds."""

    content = b""
    etag = '"1"'
    status = 200
    conditional = 0

    def do_GET(self) -> None:
        own = type(self)
        if self.headers.get("If-None-Match") == own.etag and own.status == 200:
            own.conditional += 1
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(own.status)
        self.send_header("ETag", own.etag)
        self.send_header("Content-Length", str(len(own.content)))
        self.end_headers()
        self.wfile.write(own.content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def publisher() -> Iterator[tuple[type[Publisher], str]]:
    class Own(Publisher):
        pass

    with _answering(Own) as url:
        yield Own, url


@contextmanager
def published(content: bytes) -> Iterator[str]:
    """The address under which it is published."""
    with _answering(type("Own", (Publisher,), {"content": content})) as url:
        yield url


@contextmanager
def _answering(handler: type[Publisher]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/list.jsonl"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_list_is_fetched_and_only_anew_when_it_has_changed(
    settings: Settings, tmp_path: Path, publisher: tuple[type[Publisher], str]
) -> None:
    own, url = publisher
    told = {**settings, "WATCHLIST_ADDRESSES": f"mine {url}"}
    own.content = list_file(tmp_path / "l", WIDGETS).read_bytes()
    first = run(told, "update", "mine")
    assert first.returncode == 0, first
    before = shown(told)["mine"]
    again = run(told, "update", "mine")
    assert "unchanged" in again.stdout
    assert own.conditional == 1
    after = shown(told)["mine"]
    assert after["version"] == before["version"]
    assert str(after["checked_at"]) > str(before["checked_at"])
    # The same content under another tag is no new version either.
    own.etag = '"2"'
    assert "unchanged" in run(told, "update", "mine").stdout
    own.content, own.etag = list_file(tmp_path / "l", WIDGETS, MARIA).read_bytes(), '"3"'
    assert "2 entries" in run(told, "update", "mine").stdout
    assert shown(told)["mine"]["version"] != before["version"]


@pytest.mark.parametrize("status", [404, 500, 200])
def test_what_cannot_be_fetched_leaves_the_old_list_in_force(
    settings: Settings, tmp_path: Path, publisher: tuple[type[Publisher], str], status: int
) -> None:
    own, url = publisher
    own.content = list_file(tmp_path / "l", WIDGETS).read_bytes()
    run(settings, "update", "mine", "--url", url)
    before = shown(settings)
    own.status, own.etag, own.content = status, '"2"', b"<html>Maintenance</html>"
    done = run(settings, "update", "mine", "--url", url)
    assert done.returncode == 4
    assert "stays in force" in done.stderr
    assert shown(settings) == before


def test_a_list_without_an_address_is_asked_for(settings: Settings) -> None:
    done = run(settings, "update", "nowhere")
    assert done.returncode == 2
    assert "WATCHLIST_ADDRESSES" in done.stderr


def test_recorded_businesses_are_compared_with_what_changed(tmp_path: Path) -> None:
    with serving(tmp_path / "service", config="watchlists: {check_every: 100ms, demo: false}\n") as service:
        client = service.client()
        for name, id in (("Veridian Shadow Trading", "b1"), ("Harmless Bakery", "b2")):
            client.recorded(named(name, id=id))
        client.recorded(named("Veridian Shadow Trading"))
        told = service.settings
        assert run(told, "add", list_file(tmp_path / "l.jsonl", WIDGETS), "--name", "mine").returncode == 0
        done = run(told, "rescreen")
        assert done.returncode == 0
        assert done.stdout == (
            "mine: 1 new, 0 changed and 0 removed entries against 2 businesses; the screening of 1 differs, and they "
            "were assessed anew; 1 assessments of no business that can be told were left out\n"
        )
        [newest, first] = client.walk(business_id="b1")
        assert newest["screening"]["hits"][0]["entity_id"] == "w1"
        assert first["screening"]["hits"] == []
        again = json.loads(run(told, "rescreen", "mine", "--json").stdout)["lists"]
        assert [(one["name"], one["done_before"]) for one in again] == [("mine", True)]
        assert run(told, "rescreen", "nothing").returncode == 4
