"""What is installed is what the sources say: compiled core, typed packages, one version."""

from __future__ import annotations

import importlib
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

import app

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTENSIONS = sorted(path.stem for path in (ROOT / "core").glob("*.pyx"))
INSTALLED = distribution("risk-assessment-service")


def test_there_is_a_core_to_compile() -> None:
    assert "kernel" in EXTENSIONS


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_installed_core_is_the_compiled_one(name: str) -> None:
    module = importlib.import_module(f"core.{name}")
    assert isinstance(module.__loader__, ExtensionFileLoader)
    assert str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.parametrize("name", EXTENSIONS)
def test_every_extension_has_a_stub(name: str) -> None:
    assert (ROOT / "core" / f"{name}.pyi").is_file()


def test_no_module_exists_both_compiled_and_plain() -> None:
    assert [name for name in EXTENSIONS if (ROOT / "core" / f"{name}.py").exists()] == []


def test_one_version_everywhere() -> None:
    assert app.__version__ == INSTALLED.version == PYPROJECT["project"]["version"]


def test_the_console_command_is_kyb() -> None:
    commands = {entry.name: entry.value for entry in INSTALLED.entry_points if entry.group == "console_scripts"}
    assert commands == {"kyb": "app.cli:main"}


def test_every_package_of_the_tree_is_packaged() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("app", "core")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize(
    "resource",
    [
        "app/py.typed",
        "app/defaults.yaml",
        "app/watchlists/countries.yaml",
        "app/watchlists/demo.jsonl",
        "core/py.typed",
        "core/models/kyb-1.1.0.yaml",
    ],
)
def test_the_data_files_are_found_beside_their_package(resource: str) -> None:
    package, _, name = resource.partition("/")
    assert files(package).joinpath(name).is_file()


def test_the_licence_is_apache() -> None:
    assert INSTALLED.metadata["License-Expression"] == "Apache-2.0"
