"""One direction: a layer imports only what stands below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    "core",
    "app.roles",
    "app.wire",
    "app.yente",
    "app.facts",
    "app.settings",
    "app.secrets",
    "app.ids",
    "app.ports",
    "app.errors",
    "app.credentials",
    "app.faults",
    "app.queries",
    "app.profiles",
    "app.telemetry",
    "app.profiling",
    "app.resilience",
    "app.store",
    "app.audit",
    "app.cache",
    "app.limits",
    "app.keys",
    "app.watchlists",
    "app.evidence",
    "app.registry",
    "app.records",
    "app.overrides",
    "app.dispositions",
    "app.redaction",
    "app.assess",
    "app.rescreening",
    "app.edge",
    "app.health",
    "app.api",
    "app.neighbours",
    "app.assembly",
    "app.metering",
    "app.doctor",
    "app.loadtest",
    "app.main",
    "app.server",
    "app.cli",
]
"""Lowest first. A new room of `app` is given its floor here."""

FOREIGN_TO_CORE = {"app", "asyncio", "asyncpg", "granian", "http", "redis", "socket", "sqlite3", "starlette", "uvloop"}

CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for top in ("core", "app") for path in sorted((ROOT / top).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
CYTHON_SOURCES = sorted(path for suffix in ("pyx", "pxd", "pyi") for path in (ROOT / "core").glob(f"*.{suffix}"))
COMPILED = {module_name(path) for path in CYTHON_SOURCES}


def imported(name: str) -> Iterator[str]:
    """Every module that a module names in an import, wherever in it the import stands."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES or inner in COMPILED else str(node.module)


def floor(name: str) -> int | None:
    """The place of a module's layer, or None for `app` itself and for what is not ours."""
    return next((place for place, layer in enumerate(LAYERS) if name == layer or name.startswith(f"{layer}.")), None)


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_has_a_floor_and_imports_only_from_below(name: str) -> None:
    here = floor(name)
    if name == "app":
        assert not [other for other in imported(name) if other.partition(".")[0] in ("app", "core")]
        return
    assert here is not None, f"{name} has no place in LAYERS"
    ours = [other for other in imported(name) if other.partition(".")[0] in ("app", "core") and other != "app"]
    floors = {other: floor(other) for other in ours}
    assert {other: place for other, place in floors.items() if place is None or place > here} == {}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: {other for other in imported(name) if other in SOURCES and other != name} for name in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_the_core_knows_nothing_of_the_service() -> None:
    named = [(name, other) for name in SOURCES if name.startswith("core") for other in imported(name)]
    named += [
        (path.name, first or second)
        for path in CYTHON_SOURCES
        for first, second in CYTHON_IMPORT.findall(path.read_text())
    ]
    assert [(name, other) for name, other in named if other.partition(".")[0] in FOREIGN_TO_CORE] == []


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"environ", "getenv"}
        )
    }
    assert {name for name in readers if not name.startswith("app.settings")} == set()
