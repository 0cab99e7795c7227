"""What docs/containers.md says of the image is what the sources say."""

from __future__ import annotations

import re

from service import ROOT

from app.api.permissions import RULES
from app.cli import exits, loadtest
from app.cli.commands import kyb
from app.settings import load
from app.settings.tree import KEYS

TEXT = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
OF_OTHERS = {"SQLITE_TMPDIR", "PATH", "SSL_CERT_FILE"}
NOT_OF_KYB = {1, 137}
"""What the server and the kernel end a process with."""


def section(title: str) -> str:
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[2]


def test_the_base_is_the_same_everywhere() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", CONTAINERFILE, re.MULTILINE)
    script = (ROOT / "scripts" / "build_image.sh").read_text()
    assert f"\nofficial={base}\n" in script
    assert f"`{base.rpartition('/')[2]}`" in section("Building it")


def test_its_variables_are_settings() -> None:
    told = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", section("Environment")))
    known = {key.env for key in KEYS.values()} | {"CONFIG_FILE"}
    assert told - OF_OTHERS <= known
    assert {"DATABASE_URL", "REDIS_URL", "KEY_HASH_SECRET", "AUDIT_SIGNING_KEY"} <= told


def test_what_the_image_sets_is_told() -> None:
    (line,) = re.findall(r"^ENV (PATH=.*)$", CONTAINERFILE, re.MULTILINE)
    for word in line.split():
        name = word.partition("=")[0]
        assert (f"`{name}`" if name == "PATH" else f"`{word}`") in section("Environment"), word


def test_its_exit_codes_are_all_there_are() -> None:
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", section("Exit codes"), re.MULTILINE)
        for code in row.split(",")
    }
    there = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert told - NOT_OF_KYB == there - NOT_OF_KYB | {loadtest.PROVES_NOTHING}


def test_its_ports_and_probes_are_answered() -> None:
    port = load({}).settings.server.port
    assert f"**{port}/tcp**" in section("Ports and connections")
    assert f"EXPOSE {port}\n" in CONTAINERFILE
    paths = set(re.findall(r"`GET (/[a-z/]+)`", section("Probes")))
    assert paths == {"/health/ready", "/health/live"}
    assert paths <= {path for _, path in RULES}


def test_its_bounds_are_those_of_the_settings() -> None:
    server = load({}).settings.server
    assert f"`server.shutdown_grace` ({server.shutdown_grace:g} s)" in section("Signals")
    assert f"{server.backpressure + 100:,} by default" in section("Limits")


def test_its_commands_are_there() -> None:
    commands = set(re.findall(r"`kyb ([a-z]+)", TEXT)) | set(re.findall(r"IMAGE ([a-z]+)", TEXT))
    assert commands <= set(kyb.commands)
    assert {"health", "migrate", "keys", "watchlist", "loadtest"} <= commands


def test_every_file_that_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
