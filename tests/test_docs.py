"""What README and guides say is what happens to whoever follows them."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from manual import Reader, blocks, differences, missing_headers, missing_lines
from proxy import Proxy
from publishers import publishing
from service import ANSWER_LIMIT_S, HOST, Client, Service, named, unique, wait_until

INTEGRATORS = "docs/integrators.md"
INSTALLED = "pip install openapi-python-client==0.29.1"
NOT_RUN = {"make test": "it is what runs this", INSTALLED: "it is installed with the tests"}
SOONER = "watchlists: {check_every: 500ms}\n"
SLOW_WAY_S = 2.5
PROGRAMS = ["kyb_httpx.py", "kyb_stdlib.py"]
OF_ONE_CASE = "kyb_stdlib.py"


def lists_in_force(reader: Reader) -> None:
    key = (reader.folder / "data" / "admin.key").read_text().strip()
    with closing(Client(reader.port, key)) as client:
        wait_until(lambda: client.get("/v1/watchlists").json["complete"], "the lists are in force")


def test_whoever_follows_the_readme_gets_what_it_shows(tmp_path: Path) -> None:
    settings, checkout, lists = (tmp_path / name for name in ("settings.yaml", "checkout", "lists"))
    settings.write_text(SOONER)
    checkout.mkdir()
    lists.mkdir()
    with publishing(lists) as addresses:
        told = {"WATCHLIST_ADDRESSES": addresses, "CONFIG_FILE": str(settings)}
        with Reader(checkout, skipped=NOT_RUN, after={"watchlist update": lists_in_force}, **told) as reader:
            reader.follow("README.md")


@pytest.mark.parametrize("page", [INTEGRATORS, "docs/analysts.md"])
def test_whoever_follows_a_guide_gets_what_it_shows(page: str, tmp_path: Path) -> None:
    with Reader(tmp_path, skipped=NOT_RUN) as reader:
        reader.follow(page)


def test_the_generator_that_the_guide_installs_is_the_one_tried() -> None:
    assert INSTALLED.endswith(f"=={version('openapi-python-client')}")
    assert INSTALLED in "".join(block.text for block in blocks(INTEGRATORS))


def started(program: str, key: str, port: int, profile: Path) -> subprocess.Popen[str]:
    """A program of the guide at work on one profile."""
    [text] = [block.text for block in blocks(INTEGRATORS) if block.text.startswith(f"# {program}\n")]
    script = profile.parent / program
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, script, profile, *([unique("case")] if program == OF_ONE_CASE else [])],
        env={"KYB_URL": f"http://{HOST}:{port}", "KYB_KEY": key}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_guide_waits_as_long_as_it_is_told(service: Service, tmp_path: Path, program: str) -> None:
    key = service.new_key("assessor", rate="30/min burst 1", tier=None)
    profile = tmp_path / "profile.json"
    profile.write_bytes(msgspec.json.encode(named(unique("Acme"))))
    assert service.client(key).get("/v1/watchlists").status == 200
    begin = time.monotonic()
    with started(program, key, service.port, profile) as process:
        out, _ = process.communicate(timeout=ANSWER_LIMIT_S)
    assert process.returncode == 0
    assert "53.48" in out
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_guide_whose_answer_was_lost_has_it_recorded_once(
    service: Service, client: Client, tmp_path: Path, program: str
) -> None:
    business_id = unique("business")
    profile = tmp_path / "profile.json"
    profile.write_bytes(msgspec.json.encode(named(unique("Acme"), id=business_id)))

    def recorded() -> int:
        return len(client.get("/v1/assessments", business_id=business_id).json["items"])

    with Proxy(service.port, latency_s=SLOW_WAY_S) as way:
        with started(program, service.new_key("assessor"), way.port, profile) as process:
            wait_until(recorded, "it is recorded, and the answer on its way")
            way.reset()
            way.latency_s = 0
            way.heal()
            out, _ = process.communicate(timeout=ANSWER_LIMIT_S)
        assert way.count(b"POST /v1/assessments") >= 2
    assert process.returncode == 0
    assert "53.48" in out
    assert recorded() == 1


@pytest.mark.parametrize(
    ("shown", "real", "at"),
    [
        ({"a": 1}, {"a": 2}, ["/a"]),
        ({"a": 1}, {"b": 1}, ["/a"]),
        ({"a": 1}, {"a": 1.0}, ["/a"]),
        ({"a": True}, {"a": 1}, ["/a"]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, ["/a"]),
        ({"a": [{"b": 2}, {"b": 1}]}, {"a": [{"b": 1}, {"b": 2}]}, ["/a/1"]),
        ({"a": "2026-11-27"}, {"a": "2026-11-28"}, ["/a"]),
        ({"a": 1}, [{"a": 1}], [""]),
    ],
)
def test_what_differs_from_a_page_is_noticed(shown: object, real: object, at: list[str]) -> None:
    assert [fault.partition(":")[0] for fault in differences(shown, real)] == at
    assert differences(real, real) == []


def test_what_is_made_anew_and_what_is_not_shown_are_no_differences() -> None:
    shown = {"id": "01a2093b-4c15-709b-8680-a56229c69c26", "items": [{"b": 2}]}
    real = {"id": "0193a1b2-0000-7000-8000-000000000000", "items": [{"b": 1}, {"b": 2, "c": 3}], "more": None}
    assert differences(shown, real) == []


def test_lines_and_headers_that_do_not_come_are_noticed() -> None:
    assert missing_lines("one\nthree\n", "one\ntwo\nthree\n") == []
    assert missing_lines("three\none\n", "one\ntwo\nthree\n") == ["one"]
    head = "HTTP/1.1 201 Created\r\nA: 1\r\nB: 2"
    assert missing_headers("HTTP/1.1 201 Created\nB: 2\nA: 1", head) == []
    assert missing_headers("HTTP/1.1 200 OK\nA: 2", head) == ["HTTP/1.1 200 OK", "A: 2"]
