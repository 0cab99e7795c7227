"""What is in the image, and what is not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from container import MADE, USER, built, inspected, python, run
from service import ROOT

pytestmark = pytest.mark.image

OVER_BASE_BYTES = 150_000_000
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PROGRAMS = {"cc", "gcc", "g++", "c++", "clang", "as", "ld", "make", "cython", "cythonize", "pip", "pip3", "git", "curl"}

WALK = """
import json, os
# What the kernel and the engine put there is not the image's.
OTHER = ("/proc", "/sys", "/dev")
print(json.dumps([
    os.path.join(folder, name)
    for folder, folders, files in os.walk("/") if not folder.startswith(OTHER)
    for name in files
]))
"""

INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps({one.metadata["Name"]: one.version for one in distributions()}))
"""

COMPILED_ANEW = """
import json, os, sys, app.server, app.cli.commands
print(json.dumps([
    name for name, module in sys.modules.items()
    if getattr(module, "__cached__", None) and not os.path.exists(module.__cached__)
]))
"""

PLACES = """
import json, sys
print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))
"""

OPEN_TO_OTHERS = """
import json, os, stat
found = {
    path: os.lstat(path)
    for folder, folders, files in os.walk("/opt/kyb")
    for path in (os.path.join(folder, name) for name in (".", *folders, *files))
}
print(json.dumps([
    path for path, about in found.items()
    if about.st_uid != 0 or (about.st_mode & 0o022 and not stat.S_ISLNK(about.st_mode))
]))
"""

DIGESTS = """
import hashlib, json, pathlib, app, core
print(json.dumps({
    f"{package.__name__}/{path.relative_to(root)}": hashlib.sha256(path.read_bytes()).hexdigest()
    for package in (app, core) for root in [pathlib.Path(package.__file__).parent]
    for path in root.rglob("*") if path.is_file() and path.parent.name != "__pycache__"
}))
"""


@cache
def files() -> tuple[str, ...]:
    """Every file of the image, those that only root can read too."""
    return tuple(json.loads(python(WALK, "--user=0", "--cap-add=DAC_READ_SEARCH")))


@cache
def config() -> dict[str, Any]:
    found: dict[str, Any] = inspected(built(), "image")
    return found


def components(kind: str) -> dict[str, str]:
    """Version by name of what the bill of materials lists with a package URL of a kind."""
    return {
        one["name"]: one["version"]
        for one in json.loads((MADE / "sbom.cdx.json").read_text())["components"]
        if one.get("purl", "").startswith(f"pkg:{kind}/")
    }


def test_the_containerfile_is_as_it_should_be() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "deploy" / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done


# How it is run


def test_it_runs_as_a_user_that_is_not_root_and_is_known_by_number() -> None:
    assert config()["Config"]["User"] == f"{USER}:{USER}"
    assert python("import os; print(os.getuid(), os.getgid(), os.getgroups())") == f"{USER} {USER} [{USER}]"


def test_it_serves_unless_another_command_is_named_and_asks_no_shell() -> None:
    assert config()["Config"]["Entrypoint"] == ["/opt/kyb/bin/kyb"]
    assert config()["Config"]["Cmd"] == ["serve"]
    assert config()["Healthcheck"]["Test"] == ["CMD", "/opt/kyb/bin/kyb", "health"]


def test_it_names_its_port_and_leaves_volumes_to_whoever_runs_it() -> None:
    assert list(config()["Config"]["ExposedPorts"]) == ["8080/tcp"]
    assert "Volumes" not in config()["Config"]
    assert config()["Config"]["WorkingDir"] == "/opt/kyb"


def test_it_says_what_it_is() -> None:
    labels = config()["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "risk-assessment-service"
    assert labels[f"{prefix}version"] == VERSION
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}base.name"]
    assert labels[f"{prefix}description"]
    assert run("--version").stdout == f"kyb {VERSION}\n"


def test_it_adds_little_to_its_base() -> None:
    base = inspected(config()["Labels"]["org.opencontainers.image.base.name"], "image")
    over = config()["Size"] - base["Size"]
    print(f"{config()['Size'] / 1e6:.0f} MB, {over / 1e6:.0f} MB over the base")
    assert 0 < over <= OVER_BASE_BYTES


# What is in it


def test_the_package_in_it_is_that_of_this_checkout_with_the_core_compiled() -> None:
    sources = {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for top in ("app", "core")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in (".pyx", ".pxd", ".pyi", ".so", ".pyc", ".c")
    }
    in_image = json.loads(python(DIGESTS))
    extensions = {name for name in in_image if name.endswith(".so")}
    assert {name.partition(".")[0] for name in extensions} == {
        f"core/{path.stem}" for path in (ROOT / "core").glob("*.pyx")
    }
    assert {name: digest for name, digest in in_image.items() if name not in extensions} == sources


def test_every_module_is_there_as_byte_code_since_none_can_be_written() -> None:
    here = set(files())
    tag = python("import sys; print(sys.implementation.cache_tag)")
    modules = [Path(name) for name in here if name.startswith("/opt/kyb/lib/") and name.endswith(".py")]
    assert len(modules) > 500
    assert [str(m) for m in modules if str(m.parent / "__pycache__" / f"{m.stem}.{tag}.pyc") not in here] == []
    # And of the standard library what the service uses.
    assert json.loads(python(COMPILED_ANEW)) == []


def test_there_is_no_compiler_and_nothing_to_install_with() -> None:
    own = {name.rpartition("/")[2] for name in files() if "/bin/" in name and name.startswith("/opt/kyb/")}
    assert own & PROGRAMS == set()
    everywhere = {name.rpartition("/")[2] for name in files() if "/bin/" in name or "/sbin/" in name}
    assert everywhere & {"cc", "gcc", "g++", "clang", "as", "ld", "make"} == set()
    assert [name for name in files() if name.endswith((".h", ".pyx", ".pxd")) and "/opt/kyb/" in name] == []


def test_the_sources_are_nowhere_but_where_they_are_installed() -> None:
    mains = [name for name in files() if name.endswith("/app/main.py")]
    assert len(mains) == 1
    assert mains[0].startswith("/opt/kyb/lib/python3.")
    assert mains[0].endswith("/site-packages/app/main.py")
    left = {"pyproject.toml", "constraints.txt", "Containerfile", "Makefile", "conftest.py", "sbom.py"}
    assert [name for name in files() if name.rpartition("/")[2] in left and not name.startswith("/usr/")] == []
    assert [name for name in files() if name.endswith(".whl") and name.startswith(("/opt/", "/given/", "/src/"))] == []


def test_what_is_installed_belongs_to_root_and_nobody_else_may_write_it() -> None:
    assert json.loads(python(OPEN_TO_OTHERS)) == []


def test_it_trusts_the_usual_authorities() -> None:
    trusted = int(python("import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"))
    assert trusted > 100


# Its bill of materials


def test_the_bill_of_materials_is_valid() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (MADE / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    about = json.loads(text)["metadata"]["component"]
    assert (about["name"], about["version"]) == ("risk-assessment-service", VERSION)


def test_the_bill_of_materials_is_the_one_in_the_image() -> None:
    assert python("print(open('/opt/kyb/sbom.cdx.json').read())") == (MADE / "sbom.cdx.json").read_text().strip()


def test_the_bill_of_materials_lists_what_is_installed() -> None:
    installed = json.loads(python(INSTALLED))
    service = installed.pop("risk-assessment-service")
    assert service == VERSION
    assert components("pypi") == installed
    listed = run("--show", entrypoint="/usr/bin/dpkg-query").stdout
    packages = dict(line.split("\t") for line in listed.splitlines())
    assert components("deb") == {name.partition(":")[0]: version for name, version in packages.items()}
    (interpreter,) = components("generic").items()
    assert interpreter == ("python", python("import platform; print(platform.python_version())"))


def test_the_environment_is_its_own_and_the_interpreter_of_the_base() -> None:
    prefix, base, *places = json.loads(python(PLACES))
    assert (prefix, base in ("/usr", "/usr/local")) == ("/opt/kyb", True)
    assert [place for place in places if place.endswith("-packages")] == [
        place for place in places if place.startswith("/opt/kyb/lib/python3.")
    ]
