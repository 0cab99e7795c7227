"""A real HAProxy before two services, as deploy/haproxy.cfg has it."""

from __future__ import annotations

import csv
import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from databases import CALL_LIMIT_S, Server
from proxy import HOST
from service import ROOT, wait_until

CONFIG = ROOT / "deploy" / "haproxy.cfg"
SERVERS = ("one", "two")


class HAProxy(Server):
    """HAProxy with the shipped configuration, but for what is changed in it.

    ports: of the two services.  changes: texts of the configuration, each with what stands there instead.
    """

    name = "haproxy"

    def __init__(self, ports: tuple[int, int], changes: dict[str, str] | None = None) -> None:
        program = self.program()
        assert program is not None, "haproxy is not installed (Debian: apt-get install haproxy)"
        super().__init__()
        self._program = program
        text = CONFIG.read_text(encoding="utf-8")
        for given, instead in (changes or {}).items():
            assert text.count(given) == 1, given
            text = text.replace(given, instead)
        self._socket = self.folder / "stats"
        self._config = self.folder / "haproxy.cfg"
        self._config.write_text(text, encoding="utf-8")
        self._told = {"BIND": f"{HOST}:{self.port}", "STATS": str(self._socket)}
        self._told |= {name.upper(): f"{HOST}:{port}" for name, port in zip(SERVERS, ports, strict=True)}

    @staticmethod
    def program() -> str | None:
        return shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

    def command_line(self) -> Sequence[str | Path]:
        return [
            "env",
            *(f"{name}={value}" for name, value in self._told.items()),
            self._program,
            "-db",
            "-f",
            self._config,
        ]

    def ready(self) -> bool:
        with suppress(OSError):
            return bool(self.figures())
        return False

    def stop(self) -> None:
        """It keeps nothing."""
        self.kill()

    def figures(self) -> dict[str, dict[str, str]]:
        """What it knows of each server, and of all as BACKEND. Source: its management guide, `show stat`."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(CALL_LIMIT_S)
            asking.connect(str(self._socket))
            asking.sendall(b"show stat service 6 -1\n")
            with asking.makefile(encoding="utf-8") as answer:
                rows = csv.DictReader(line.removeprefix("# ") for line in answer if line.strip())
                return {row["svname"]: row for row in rows}

    def takes(self, server: str) -> bool:
        """Whether requests go to a server."""
        return self.figures()[server]["status"].startswith("UP")

    def wait_for(self, server: str, up: bool) -> None:
        wait_until(lambda: self.takes(server) == up, f"{server} is {'up' if up else 'down'} for HAProxy")
