"""Compiling another engine's snapshot again, in a process of its own: a million names take seconds, in which requests
are not held up, and memory that is given back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from core.names import NameIndex
from core.snapshot import SnapshotDamaged, SnapshotOutdated, entities_of

NICENESS = 5
"""Beside a busy worker on one processor it gets a quarter: a million names, 5 s alone, are in force within a minute."""
REFUSED = 3


async def recompile(source: Path, to: Path, lock: int) -> None:
    """Write the snapshot in a file as this engine makes it, into another.

    lock: a descriptor that is held until the writing has ended, even where this process ends before.
    Raises SnapshotOutdated where that cannot be done.
    """
    # Without the current folder, which is anybody's, among those that modules are sought in.
    command = (sys.executable, "-P", "-m", __name__, str(source), str(to))
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, pass_fds=(lock,)
        )
    except OSError as error:
        raise SnapshotOutdated(f"no process could be started to compile it again: {error}") from error
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        why = last if process.returncode == REFUSED else f"exit {process.returncode} {last}".strip()
        raise SnapshotOutdated(f"another version of the service compiled it, and it cannot be compiled again: {why}")


def main(arguments: Sequence[str]) -> int:
    """What the process does; its exit code. arguments: the two files."""
    source, to = map(Path, arguments)
    os.nice(NICENESS)
    with source.open("rb") as handle, mmap(handle.fileno(), 0, access=ACCESS_READ) as snapshot:
        try:
            compiled = NameIndex.build(entities_of(snapshot))
        except (SnapshotDamaged, SnapshotOutdated) as error:
            print(error, file=sys.stderr)
            return REFUSED
        to.write_bytes(compiled)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
