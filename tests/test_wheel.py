"""The package as a wheel, installed far from the checkout: nothing is missing, and nothing there is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from databases import Postgres
from service import HOST, ROOT, SECRETS, STOP_LIMIT_S, Client, free_port, named, wait_until

pytestmark = pytest.mark.slow

SOURCES = ("app", "core", "pyproject.toml", "setup.py", "README.md", "LICENSE")
COMPILED = ("build/release", "build/lib.*/core/*.so")
"""What of it is not compiled again, if it was before."""

NOT_PACKAGED = (".pyx", ".c", ".so", ".pyc")
LIMIT_S = 600.0


class Installed(NamedTuple):
    """folder: where its commands are run, with nothing of the checkout in it."""

    kyb: Path
    folder: Path
    names: frozenset[str]

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.kyb, *arguments], env=self.environment(settings), cwd=self.folder, capture_output=True, text=True,
            timeout=LIMIT_S, check=True,
        )  # fmt: skip

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "DATA_DIR": str(self.folder / "data"), **settings}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of a copy of the sources, in an environment whose other packages are those of the tests' own."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for source in (path for name in (*SOURCES, *COMPILED) for path in ROOT.glob(name)):
        target = copy / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(source, target)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, copy]
    subprocess.run(build, check=True, timeout=LIMIT_S)
    shutil.rmtree(copy)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=LIMIT_S)
    subprocess.run([*pip, f"--python={environment}", "install", "--no-deps", "--no-index", wheel], check=True)
    # A path in a .pth is only added: the finder of the checkout, which stands in one itself, is not started.
    (packages,) = environment.glob("lib/python3.*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = folder / "work"
    work.mkdir()
    return Installed(environment / "bin" / "kyb", work, frozenset(zipfile.ZipFile(wheel).namelist()))


@pytest.fixture
def port(installed: Installed) -> Iterator[int]:
    """Of a service that serves from the wheel."""
    port = free_port()
    with (installed.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [installed.kyb, "serve"],
            env=installed.environment({"PORT": str(port), **SECRETS}),
            cwd=installed.folder,
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        assert process.poll() is None, (installed.folder / "log").read_text()
        return False

    try:
        wait_until(ready, "the service of the wheel is ready")
        yield port
        process.terminate()
        assert process.wait(STOP_LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()


def test_everything_of_the_tree_is_in_the_wheel_and_the_core_compiled(installed: Installed) -> None:
    tree = {
        str(path.relative_to(ROOT))
        for top in ("app", "core")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in NOT_PACKAGED
    }
    packaged = {name for name in installed.names if ".dist-info/" not in name}
    extensions = {name for name in packaged if name.endswith(".so")}
    assert packaged - extensions == tree
    assert {name.partition(".")[0] for name in extensions} == {
        f"core/{path.stem}" for path in (ROOT / "core").glob("*.pyx")
    }


def test_it_does_not_look_into_the_checkout(installed: Installed) -> None:
    python = installed.kyb.with_name("python")
    script = "import app, core, core.kernel; print(app.__file__, core.__file__, core.kernel.__file__)"
    told = subprocess.run([python, "-c", script], cwd=installed.folder, capture_output=True, text=True, check=True)
    assert {Path(path).is_relative_to(installed.kyb.parent.parent) for path in told.stdout.split()} == {True}


def test_its_commands_find_what_they_need(installed: Installed, postgres: Postgres) -> None:
    told = installed.run("score", str(ROOT / "examples" / "healthy-manufacturer.json"), "--json")
    assert json.loads(told.stdout)["score"] == 4.23
    assert "kyb@1.0.0" in installed.run("model", "list").stdout
    assert "schema none →" in installed.run("migrate", DATABASE_URL=postgres.create_database()).stdout
    assert "server.port" in installed.run("config").stdout


def test_it_serves(installed: Installed, port: int) -> None:
    key = (installed.folder / "data" / "admin.key").read_text().strip()
    with closing(Client(port, key)) as client:
        assert client.get("/docs").status == client.get("/openapi.json").status == 200
        assert [one["name"] for one in client.get("/v1/watchlists").json["items"]] == ["demo"]
        made = client.recorded(named("Wheel Ltd"))
        assert client.post(f"/v1/assessments/{made['id']}/replay", b"").json == {"identical": True}
