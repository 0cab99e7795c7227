"""What the system allows a process that is started here, against what the settings need of it."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from app.assembly import lists_folder
from app.doctor import clocks
from app.doctor.findings import (
    Finding,
    Verdict,
    by_share,
    bytes_text,
    counted,
    judged,
    ok,
    share_text,
    wrong,
)
from app.doctor.process import PROC, ControlGroups, number_of, numbers_of, text_of
from app.settings import Settings
from app.settings.budget import BudgetTooSmall, database_share, redis_share
from app.settings.kinds import show_size

OWN_FILES = 100
"""Of a worker, besides connections: libraries, lists, the log, sockets it listens on, the embedded database."""
OWN_THREADS = 48
"""Of a worker: the server's, the event loop's for looking names up and reading files, the store's."""
WORKER_BYTES = 256 << 20
"""Of a worker, besides its own cache and its connections; lists come on top, once for all workers."""
CONNECTION_BYTES = 16 << 10
"""Of one that is open: its buffers here."""
SHM = Path("/dev/shm")  # noqa: S108
SHM_BYTES = (64 << 20, 8 << 20)
TEMP_BYTES = (512 << 20, 64 << 20)
THROTTLED = (0.05, 0.25)

NET = PROC / "sys/net"


async def examined(settings: Settings) -> list[Finding]:
    """All findings."""
    groups = ControlGroups()
    return [
        _files(settings),
        *_cpus(settings, groups),
        _memory(settings, groups),
        _threads(settings, groups),
        _backlog(settings),
        _ports(settings),
        *_folders(settings),
        *await clocks.examined(settings),
    ]


def _pools(settings: Settings) -> int:
    """The connections that a worker makes itself, at most."""
    connections = settings.concurrency.worker_pool_size if settings.providers else 0
    for wanted, share in (
        (settings.database.is_postgres, database_share),
        (settings.redis.url is not None, redis_share),
    ):
        if wanted:
            try:
                connections += share(settings).connections
            except BudgetTooSmall:
                # `kyb doctor db` and `redis` say so; a worker would not start.
                continue
    return connections


def _files(settings: Settings) -> Finding:
    # The HTTP server raises the soft limit to the hard one (tests/test_open_files.py).
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken, pools = settings.server.backpressure, _pools(settings)
    needed = taken + pools + OWN_FILES
    # Half of the connections a worker takes are those that are expected.
    least = taken // 2 + pools + OWN_FILES
    seen = (
        f"a process may open {_limit(hard)} (at its start {_limit(soft)}); a worker needs {needed:,}: "
        f"{taken:,} connections taken, {pools:,} made, {OWN_FILES} more"
    )
    figures = {"soft": _figure(soft), "hard": _figure(hard), "needed": needed}
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return ok("open files", seen, **figures)
    fewer = max(0, hard - pools - OWN_FILES)
    verdict: Verdict = "wrong" if hard < least else "look"
    raised = f"Raise the limit to {needed:,} or more (ulimit -Hn, LimitNOFILE=, --ulimit nofile={needed}:{needed})"
    lower = f", or set server.backpressure to {fewer:,} at most" if fewer else ""
    return judged("open files", verdict, seen, f"{raised}{lower}.", **figures)


def _cpus(settings: Settings, groups: ControlGroups) -> list[Finding]:
    there, quota, workers = len(os.sched_getaffinity(0)), groups.cpus(), settings.server.workers
    usable = min(there, quota) if quota else there
    seen = f"{counted(there, 'CPU')} there"
    seen += f", of which the control group allows {quota:g}" if quota else ", without a limit of the control group"
    seen += f", for {counted(workers, 'worker')}; load {os.getloadavg()[0]:.1f}"
    figures = {"cpus": there, "quota": quota, "workers": workers, "load": os.getloadavg()[0]}
    # A worker is one thread that computes: more of them than CPUs only wait for each other.
    over = workers > max(1.0, usable)
    remedy = f"Set WORKERS to {max(1, int(usable))}, or give it more CPU."
    findings = [judged("CPU", "look" if over else "ok", seen, remedy, **figures)]
    throttled = groups.throttled()
    if throttled is not None:
        held, periods = throttled
        findings.append(
            judged(
                "CPU throttled",
                by_share(held, periods, *THROTTLED),
                f"in {share_text(held, periods)} of {periods:,} periods more was wanted than allowed",
                "Raise the CPU limit, or leave it out and keep the request.",
                throttled=held,
                periods=periods,
            )
        )
    return findings


def _memory(settings: Settings, groups: ControlGroups) -> Finding:
    used, most = groups.memory()
    workers = settings.server.workers
    one = WORKER_BYTES + settings.cache.local_bytes + settings.server.backpressure * CONNECTION_BYTES
    needed = one * workers
    cached = show_size(settings.cache.local_bytes)
    wanted = f"{counted(workers, 'worker')} may need about {bytes_text(needed)} (cache {cached} each)"
    if most is None:
        available = _available_bytes()
        seen = f"no limit of the control group, {bytes_text(available)} available on the machine; {wanted}"
        remedy = "Lower cache.local_bytes, server.backpressure or WORKERS, or use a machine with more."
        figures = {"limit": None, "available": available, "needed": needed}
        return judged("memory", "look" if available < needed else "ok", seen, remedy, **figures)
    now = used or 0
    seen = f"{bytes_text(now)} of {bytes_text(most)} in use ({share_text(now, most)}); {wanted}"
    verdict = by_share(now, most, 0.85, 0.97)
    if verdict == "ok" and needed > most:
        verdict = "look"
    return judged(
        "memory",
        verdict,
        seen,
        "Raise the memory limit, or lower cache.local_bytes, server.backpressure or WORKERS.",
        used=now,
        limit=most,
        needed=needed,
    )


def _available_bytes() -> int:
    for line in (text_of(PROC / "meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _threads(settings: Settings, groups: ControlGroups) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    used, most = groups.pids()
    needed = (OWN_THREADS + len(os.sched_getaffinity(0))) * settings.server.workers
    allowed = [limit for limit in (most, number_of(PROC / "sys/kernel/threads-max")) if limit is not None]
    # Root is not held to it.
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        allowed.append(soft)
    limit = min(allowed, default=None)
    if limit is None:
        return ok("threads", f"no limit known; about {needed:,} needed", needed=needed)
    there = f", {used:,} there" if used is not None else ""
    seen = f"{limit:,} processes and threads allowed{there}; about {needed:,} needed"
    tight = limit < 2 * needed or (used or 0) > 0.9 * limit
    verdict: Verdict = "wrong" if limit < needed else "look" if tight else "ok"
    remedy = f"Raise the limit to {2 * needed:,} or more (ulimit -u, TasksMax=, --pids-limit)."
    return judged("threads", verdict, seen, remedy, limit=limit, used=used, needed=needed)


def _backlog(settings: Settings) -> Finding:
    most, wanted = number_of(NET / "core/somaxconn"), settings.server.backlog
    if most is None:
        return ok("backlog", f"net.core.somaxconn is not told; {wanted:,} wanted")
    return judged(
        "backlog",
        "look" if most < wanted else "ok",
        f"net.core.somaxconn {most:,}; server.backlog {wanted:,}",
        f"Set net.core.somaxconn to {wanted:,}: the kernel holds no more connections until they are accepted, and a "
        "burst beyond waits a second and longer.",
        somaxconn=most,
        backlog=wanted,
    )


def _ports(settings: Settings) -> Finding:
    bounds = numbers_of(NET / "ipv4/ip_local_port_range")
    needed = _pools(settings) * settings.server.workers
    if bounds is None or len(bounds) != 2:
        return ok("ports", f"net.ipv4.ip_local_port_range is not told; {needed:,} needed")
    there = bounds[1] - bounds[0] + 1
    waiting = _time_wait()
    return judged(
        "ports",
        by_share(needed + waiting, there, 0.5, 0.9),
        f"{there:,} to connect from, to each place; {needed:,} needed, {waiting:,} wait for their end",
        "Widen net.ipv4.ip_local_port_range, and look for what opens a connection for each call.",
        ports=there,
        needed=needed,
        time_wait=waiting,
    )


def _time_wait() -> int:
    for line in (text_of(PROC / "net/sockstat") or "").splitlines():
        words = line.split()
        if words[:1] == ["TCP:"] and "tw" in words:
            return int(words[words.index("tw") + 1])
    return 0


def _folders(settings: Settings) -> list[Finding]:
    findings = (
        [_folder("shared memory", SHM, SHM_BYTES)] if SHM.is_dir() else [ok("shared memory", f"there is no {SHM}")]
    )
    try:
        temporary, lists = Path(tempfile.gettempdir()), lists_folder(settings)
    except FileNotFoundError:
        remedy = "Mount a folder at TMPDIR that the service's user may write."
        return [*findings, wrong("temporary files", "no folder for them can be written", remedy)]
    return [*findings, _folder("temporary files", temporary, TEMP_BYTES), _folder("lists", lists, TEMP_BYTES)]


def _folder(about: str, path: Path, least: tuple[int, int]) -> Finding:
    # Where it is not there yet, it is made in the nearest above it that is.
    there = next(part for part in (path, *path.absolute().parents) if part.is_dir())
    state = os.statvfs(there)
    free, whole = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
    figures = {"path": str(path), "free_bytes": free, "whole_bytes": whole}
    if not os.access(there, os.W_OK):
        remedy = "Mount a folder there that the service's user may write."
        return wrong(about, f"{path} cannot be written", remedy, **figures)
    look_at, wrong_at = least
    return judged(
        about,
        "wrong" if free < wrong_at else "look" if free < look_at else "ok",
        f"{path}, {bytes_text(free)} of {bytes_text(whole)} free",
        f"Give it {bytes_text(look_at)} or more.",
        **figures,
    )


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"


def _figure(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value
