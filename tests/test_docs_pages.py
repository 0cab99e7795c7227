"""All pages for people: their links lead somewhere, their tables are whole, what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from manual import ROOT
from monitored import anchor

from app.cli.commands import kyb

FOLDERS = (".", "benchmarks", "deploy", "docs", "examples")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
SOURCES = sorted(path for folder in ("app", "configs", "scripts") for path in (ROOT / folder).rglob("*.*"))
PICTURE_BYTES = 200_000

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```\w*\n.*?^```$|^ {4}.+$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_COMMAND = re.compile(r"(?<!exec )(?<![\w@.-])kyb +([a-z][^`|#;&>()\n\"']*)")
_NUMBER = re.compile(r"(?<![\w.,])\.?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """What of a page can be linked to."""
    text = _FENCED.sub("", path.read_text(encoding="utf-8"))
    return {anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_leads_somewhere(page: str) -> None:
    here = ROOT / page
    for target, place in _LINK.findall(_FENCED.sub("", text_of(page))):
        path = (here.parent / target).resolve() if target else here
        assert path.exists(), target
        assert not place or place in anchors(path), f"{target}#{place}"


def test_every_page_is_in_the_index() -> None:
    listed = {target for target, _ in _LINK.findall(text_of("docs/README.md"))}
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= listed
    assert "docs/README.md" in {target for target, _ in _LINK.findall(text_of("README.md"))}


def test_pages_that_are_named_elsewhere_are_there() -> None:
    named = {
        name
        for path in [*SOURCES, *(ROOT / page for page in PAGES)]
        if path.suffix in (".py", ".yaml", ".md", ".sh")
        for name in re.findall(r"\bdocs/[\w-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert "docs/load-testing.md" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page: str) -> None:
    head = 0
    for line in _FENCED.sub("", text_of(page)).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else 0
        assert not cells or not head or cells == head, line
        head = cells


def commands_named(page: str) -> list[list[str]]:
    """Every `kyb` command that a page shows as code, in words, with its options."""
    return [
        match[1].split()
        for code in _CODE.findall(text_of(page))
        for match in _COMMAND.finditer(code.replace("\\\n", " "))
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists_with_its_options(page: str) -> None:
    for words in commands_named(page):
        found: click.Command = kyb
        rest = list(words)
        while rest and rest[0][0] != "-" and isinstance(found, click.Group):
            assert rest[0] in found.commands, f"kyb {' '.join(words)}"
            found = found.commands[rest.pop(0)]
        options = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0].rstrip("`,.") for word in rest if word.startswith("-") and word != "-"}
        assert asked <= {*options, "--help"}, f"kyb {' '.join(words)}"


def test_commands_are_found() -> None:
    assert ["doctor", "db"] in commands_named("docs/runbook.md")
    assert len(commands_named("docs/runbook.md")) >= 20


def test_every_figure_of_the_readme_stands_in_the_benchmarks() -> None:
    table = text_of("README.md").partition("| measured on ")[2].partition("\n\n")[0]
    told = set(_NUMBER.findall(table.partition("\n")[2]))
    assert len(told) > 10
    assert told <= set(_NUMBER.findall(text_of("benchmarks/README.md")))


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "pictures").glob("*")), ids=lambda path: path.name)
def test_a_picture_is_small(picture: Path) -> None:
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size <= PICTURE_BYTES
