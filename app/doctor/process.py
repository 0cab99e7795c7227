"""What Linux tells in /proc and of its control groups, as numbers; None for what it does not tell."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")

UNLIMITED = 1 << 60
"""What a control group says instead of nothing is near 2**63."""

TIME_ERROR = 5
"""What adjtimex(2) answers while nothing keeps the clock right."""


def text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def numbers_of(file: Path) -> list[int] | None:
    """The whole numbers at the beginning of a file."""
    text = text_of(file)
    if text is None:
        return None
    found = []
    for word in text.split():
        if not word.isdigit():
            break
        found.append(int(word))
    return found


def number_of(file: Path) -> int | None:
    found = numbers_of(file)
    return found[0] if found else None


def holders(inode: int, byte: int, locks: Path = PROC / "locks") -> list[str]:
    """The processes that hold an exclusive lock on a byte of a file, as `pid 42 (kyb)`. Source: proc(5)."""
    found = []
    for line in (text_of(locks) or "").splitlines():
        words = line.split()
        if len(words) != 8 or words[3] != "WRITE" or words[5].rpartition(":")[2] != str(inode):
            continue
        first, last = int(words[6]), UNLIMITED if words[7] == "EOF" else int(words[7])
        if first <= byte <= last:
            name = text_of(PROC / words[4] / "comm")
            found.append(f"pid {words[4]} ({name})" if name else f"pid {words[4]}")
    return found


def clock_is_kept() -> bool | None:
    """Whether something keeps the machine's clock right; None where the kernel does not say."""
    if sys.platform != "linux":
        return None
    # All zeros asks, and changes nothing; the structure has about 200 bytes.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(1024))
    return None if state < 0 else state != TIME_ERROR


class ControlGroups:
    """The control groups this process is in, of either version. A limit is the least of its and its parents'."""

    def __init__(self, root: Path = CONTROL_GROUPS, membership: Path = PROC / "self/cgroup") -> None:
        self._paths: dict[str, Path] = {}
        for line in (text_of(membership) or "").splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(","):
                self._paths[name] = Path(path.lstrip("/"))
        self._root = root
        self._unified = (root / "cgroup.controllers").exists()

    def memory(self) -> tuple[int | None, int | None]:
        """Bytes in use and at most."""
        if self._unified:
            return self._least("", "memory.current", "memory.max")
        return self._least("memory", "memory.usage_in_bytes", "memory.limit_in_bytes")

    def pids(self) -> tuple[int | None, int | None]:
        """Processes and threads that there are and at most."""
        return self._least("" if self._unified else "pids", "pids.current", "pids.max")

    def cpus(self) -> float | None:
        """CPUs that may be used at once, None without a limit."""
        quotas = []
        for folder in self._folders("" if self._unified else "cpu"):
            if self._unified:
                words = (text_of(folder / "cpu.max") or "").split()
                if len(words) == 2 and words[0].isdigit():
                    quotas.append(int(words[0]) / int(words[1]))
            else:
                quota, period = number_of(folder / "cpu.cfs_quota_us"), number_of(folder / "cpu.cfs_period_us")
                if quota and period:
                    quotas.append(quota / period)
        return min(quotas, default=None)

    def throttled(self) -> tuple[int, int] | None:
        """Periods in which more CPU was wanted than allowed, and all periods."""
        for folder in self._folders("" if self._unified else "cpu"):
            words = (text_of(folder / "cpu.stat") or "").split()
            told = dict(zip(words[::2], words[1::2], strict=False))
            if int(told.get("nr_periods", 0)):
                return int(told.get("nr_throttled", 0)), int(told["nr_periods"])
        return None

    def _least(self, controller: str, used: str, most: str) -> tuple[int | None, int | None]:
        """Of the group with the least limit: what is used, and the limit. Without any: what the group itself uses."""
        limited = []
        first: int | None = None
        for folder in self._folders(controller):
            now, limit = number_of(folder / used), number_of(folder / most)
            first = now if first is None else first
            if now is not None and limit is not None and limit < UNLIMITED:
                limited.append((limit, now))
        if not limited:
            return first, None
        limit, now = min(limited)
        return now, limit

    def _folders(self, controller: str) -> Iterator[Path]:
        """The group of a controller and its parents, as far as they can be seen from here."""
        mount = self._root / controller
        path = self._paths.get(controller, Path())
        for part in (path, *path.parents):
            if part.parts[:1] != ("..",) and os.path.isdir(mount / part):
                yield mount / part
