"""The image as an orchestrator runs it: hardened, in podman, on the loopback of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from service import HOST, ROOT, STOP_LIMIT_S, Client, Service, environment, free_port, wait_until

MADE = ROOT / "build" / "image"
"""Where `make image` leaves the id of what it built, and its bill of materials."""

PYTHON = "/opt/kyb/bin/python"
USER = 10001
CALL_LIMIT_S = 120.0

HARDENED = (
    "--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    # Within what a sandbox allows: podman's own defaults are more.
    "--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096",
    # Whose timers podman hands to systemd, which need not run; a test asks for a check itself.
    "--health-interval=disable",
)  # fmt: skip
"""Nothing can be written, not even /tmp, but what a test mounts, and /dev/shm, which every engine gives a container."""

SCRATCH = "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"

Done = subprocess.CompletedProcess[str]


def engine() -> list[str]:
    """podman with a runtime that takes control groups of either version, and with no need for systemd."""
    runtime = ["--runtime", "runc"] if shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") else []
    return ["podman", "--log-level=fatal", "--cgroup-manager=cgroupfs", *runtime]


def podman(*arguments: str | Path, told: str | None = None, check: bool = True) -> Done:
    """A command of podman to its end. told: its input."""
    done = subprocess.run(
        [*engine(), *map(str, arguments)],
        input=told,
        stdin=subprocess.DEVNULL if told is None else None,
        # Where its monitor leaves a note of a container that was killed for want of memory.
        cwd=MADE,
        capture_output=True,
        text=True,
        timeout=CALL_LIMIT_S,
        check=False,
    )
    assert not check or done.returncode == 0, f"podman {arguments[0]} ended with {done.returncode}: {done.stderr}"
    return done


@cache
def built() -> str:
    """The id of the image under test, once a container of it has been run. Fails the test where none can be."""
    file = MADE / "id"
    if not file.exists():
        pytest.fail("there is no image to test; `make test-image` builds it first", pytrace=False)
    image = file.read_text().strip().removeprefix("sha256:")
    if os.geteuid() != 0:
        pytest.fail("hardened containers are run as root: sudo make test-image", pytrace=False)
    if shutil.which("podman") is None:
        pytest.fail("podman is not installed (Debian: apt-get install podman buildah runc)", pytrace=False)
    tried = podman("run", "--rm", *HARDENED, image, "--version", check=False)
    if tried.returncode != 0:
        pytest.fail(f"containers cannot be run on this machine: {tried.stderr.strip()}", pytrace=False)
    return image


def inspected(name: str, kind: str = "container") -> Any:
    (found,) = json.loads(podman("inspect", "--type", kind, name).stdout)
    return found


def options(settings: Mapping[str, str]) -> list[str]:
    """The environment of a container, as options."""
    return [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]


def run(
    *arguments: str | Path,
    flags: Sequence[str] = (),
    entrypoint: str | None = None,
    told: str | None = None,
    check: bool = True,
    **settings: str,
) -> Done:
    """A command of the image in a hardened container of its own, to its end. flags: of podman run, besides HARDENED."""
    more = [] if entrypoint is None else ["--entrypoint", entrypoint]
    if told is not None:
        more.append("--interactive")
    command = ["run", "--rm", *HARDENED, *flags, *more, *options(settings), built(), *arguments]
    return podman(*command, told=told, check=check)


def python(script: str, *flags: str) -> str:
    """What a script prints in a hardened container of its own."""
    return run("-c", script, flags=flags, entrypoint=PYTHON).stdout.strip()


def silent() -> socket.socket:
    """A server that takes connections and never says a word."""
    server = socket.create_server((HOST, 0))
    server.settimeout(30)
    return server


class Container(Service):
    """A service in a container. `folder`/data is its volume at /data.

    process: podman's own, which hands on signals and ends as the container does.  flags: of podman run, besides
    HARDENED.  arguments: of the image.
    """

    def __init__(
        self, folder: Path, *, flags: Sequence[str] = (SCRATCH,), arguments: Sequence[str] = (), **settings: str
    ) -> None:
        super().__init__(folder, **settings)
        self.image = built()
        self.name = f"kyb-test-{secrets.token_hex(6)}"
        self.flags = flags
        self.arguments = arguments
        (folder / "data").mkdir(exist_ok=True)

    def spawn(self, **settings: str) -> None:
        """Run the container and do not wait until it answers."""
        self.port = free_port()
        volume = self.folder / "data"
        for path in (volume, *volume.rglob("*")):
            os.chown(path, USER, USER)
        told = {**self.settings, "HOST": HOST, "PORT": str(self.port), **settings, "DATA_DIR": "/data"}
        command = [
            *engine(), "run", "--rm", "--name", self.name, *HARDENED, *self.flags,
            "--volume", f"{volume}:/data", *options(told), self.image, *self.arguments,
        ]  # fmt: skip
        self.run(command, environment({}))

    @property
    def pid(self) -> int:
        """The first process of the container, as this machine numbers it."""
        return int(inspected(self.name)["State"]["Pid"])

    def started(self) -> float:
        """When that process began, in the time of time.monotonic()."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")

    def waited_s(self) -> float:
        """How long it and then its worker were ready to run, and had to wait for a CPU that others used."""
        delays = [Path(f"/proc/{pid}/schedstat").read_text().split()[1] for pid in (self.pid, *self.workers())]
        return sum(map(int, delays)) / 1e9

    def wait_until_ready(self, limit_s: float = 30.0) -> float:
        """Wait until requests should come here; when that was, in the time of time.monotonic()."""
        client = Client(self.port)

        def ready() -> bool:
            with suppress(OSError):
                return client.get("/health/ready").status == 200
            client.close()
            return False

        wait_until(ready, f"the container is ready: {self.logged()}", limit_s)
        client.close()
        return time.monotonic()

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def exec(self, *command: str, check: bool = True) -> Done:
        """A command in the running container."""
        return podman("exec", self.name, *command, check=check)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is None:
            return
        podman("rm", "--force", "--time", "0", self.name, check=False)
        self.process.wait(STOP_LIMIT_S)
        self._forget()
