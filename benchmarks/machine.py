"""What a figure was measured on: no number is kept without it."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from msgspec import Struct


class Machine(Struct, frozen=True):
    """busy: share of all cores that other programs used in the second before the measurement, 0 to 1."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    revision: str
    busy: float
    versions: dict[str, str]

    def line(self) -> str:
        """All of it in a sentence."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.date}, {self.cpu}, {self.cores} cores ({self.busy:.0%} busy before), {self.memory_gib:.0f} GiB, "
            f"{self.kernel}, Python {self.python}, revision {self.revision}, {versions}"
        )


def machine(packages: Iterable[str], programs: Iterable[str] = ()) -> Machine:
    """This machine now. packages: distributions whose versions matter; programs: asked with `-v`."""
    versions = {name: metadata.version(name) for name in packages}
    versions |= {name: _program_version(name) for name in programs}
    cpu = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    return Machine(
        dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu[1].strip() if cpu else platform.machine(),
        os.cpu_count() or 1,
        int(memory[1]) / 1024**2 if memory else 0.0,
        f"{platform.system()} {platform.release()}",
        platform.python_version(),
        _revision(),
        busy_share(),
        versions,
    )


def busy_share(seconds: float = 1.0) -> float:
    """The share of all cores in use over some seconds; 0 where the system does not tell."""
    first = _cpu_times()
    time.sleep(seconds)
    spent = [after - before for before, after in zip(first, _cpu_times(), strict=True)]
    return 1.0 - (spent[3] + spent[4]) / sum(spent) if sum(spent) else 0.0


def _cpu_times() -> list[int]:
    words = _text("/proc/stat").partition("\n")[0].split()
    return [int(word) for word in words[1:9]] or [0] * 8


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _program_version(name: str) -> str:
    done = subprocess.run([name, "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
