"""What this machine allows the generator, and what it is: limits that are not the service's."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app.loadtest.service import Address
from app.loadtest.watching import Sample

OWN_FILES = 100
"""Of a process, besides its connections."""
MOST_USERS = 20_000
"""Of one process of the generator."""
MOST_PROCESSES = 16
PER_SOURCE = 25_000
"""Connections from one address to one port: there are about 28,000 local ports."""
SERVICE_FILES = 200
"""Of a worker of the service, besides connections: its database, its Redis, its lists, its log."""


class Share(NamedTuple):
    """How the users are spread. stopped_by: why this machine cannot hold them all."""

    processes: int
    sources: tuple[str, ...]
    stopped_by: str | None


def limits() -> dict[str, int]:
    """By name, as the report shows them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low, high = _ports()
    return {
        "open files of a process": soft,
        "open files of a process, at most": hard,
        "open files of the machine": _number("/proc/sys/fs/file-max"),
        "local ports": high - low + 1,
        "waiting connections (somaxconn)": _number("/proc/sys/net/core/somaxconn"),
    }


def shared(users: int, address: Address, service: Sample | None, processes: int | None) -> Share:
    """How so many users are generated here. processes: asked for, at least as many are taken as are needed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    each = max(1, min(MOST_USERS, hard - OWN_FILES))
    needed = -(-users // each)
    taken = max(processes or 1, needed)
    low, high = _ports()
    per_source = min(PER_SOURCE, max(1, (high - low + 1) * 9 // 10))
    sources: tuple[str, ...] = ()
    stopped_by = None
    if needed > MOST_PROCESSES:
        stopped_by = (
            f"a process of the generator may open {hard:,} files here, too few for {users:,} users in {MOST_PROCESSES} "
            f"processes; raise it to {-(-users // MOST_PROCESSES) + OWN_FILES:,} (ulimit -Hn)"
        )
    if users > per_source:
        if address.is_here and ":" not in address.address:
            count = -(-users // per_source) + 1
            sources = tuple(f"127.0.{number // 250}.{number % 250 + 1}" for number in range(count))
        else:
            stopped_by = (
                f"{users:,} connections to one address need more local ports than the {high - low + 1:,} of this "
                f"machine's one address; test with {per_source:,} users or fewer, or from several machines"
            )
    if address.is_here and service is not None and service.max_fds:
        workers = max(1.0, service.workers or 1.0)
        holds = int((service.max_fds - SERVICE_FILES) * workers)
        if users > holds:
            stopped_by = (
                f"a process of the service may open {service.max_fds:,.0f} files on this machine, too few for "
                f"{users:,} users; start it with a higher limit (ulimit -n {users + SERVICE_FILES})"
            )
    return Share(taken, sources, stopped_by)


def processor() -> str:
    """The machine in a few words."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {platform.system()} {platform.release()}"


def python() -> str:
    """The interpreter's version."""
    return f"{platform.python_implementation()} {sys.version.split()[0]}"


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def commit() -> str | None:
    """Of the sources this runs from; None where they are installed from elsewhere."""
    with suppress(OSError, subprocess.SubprocessError):
        made = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return made.stdout.strip() or None
    return None


def _ports() -> tuple[int, int]:
    with suppress(OSError, ValueError):
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    return 32768, 60999


def _number(path: str) -> int:
    with suppress(OSError, ValueError):
        return int(Path(path).read_text().split()[0])
    return 0
