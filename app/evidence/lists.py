"""Taking up the lists that the store has in force: snapshots mapped from files that all workers of a pod share.

# Design: a snapshot is of the engine that compiled it, and while a new version of the service comes, pods of both use
# one database. Whoever finds another engine's snapshot compiles it again for its pod and leaves the database as it is:
# two engines that replaced each other's would never end, and the other's pods need theirs. `kyb watchlist update` keeps
# a list as its own engine compiles it, and from then on nobody of that engine has to.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import mmap
import os
import random
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from hashlib import sha256
from pathlib import Path

from app.evidence.loaded import Loaded, LoadedList, version_text
from app.evidence.recompiling import recompile
from app.ids import now_ms
from app.store.base import StoreUnavailable
from app.store.lists import Lists, ListVersion
from core.names import NameIndex, SnapshotDamaged, SnapshotOutdated
from core.snapshot import ENGINE, entities_of

log = logging.getLogger(__name__)

SUFFIX = ".names"
OWN = f"engine-{ENGINE:08x}"
"""The folder, in that of the files, of what this engine compiled again."""
KEPT_S = 3600.0
"""How long a file that is not in force any more is kept: another worker may be about to open it."""


class SnapshotGone(Exception):
    """A snapshot is not in the store any more, or not what its version says; the text says which."""


class ListsInForce:
    """Keeps `loaded` as the store has it.

    folder: of the files.  required, threshold: of the model.  every_s: how often the store is asked.
    on_change: told of what assessments will be screened against, once that is kept.
    A list that cannot be taken up leaves the one before in force, and is tried again.
    """

    def __init__(
        self,
        store: Lists,
        folder: Path,
        required: Sequence[str],
        threshold: float,
        *,
        every_s: float,
        max_age_s: float,
        on_change: Callable[[Loaded], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._required = required
        self._threshold = threshold
        self._every_s = every_s
        self._max_age_ms = round(max_age_s * 1000)
        self._task: asyncio.Task[None] | None = None
        self._refused: dict[str, tuple[int, str]] = {}
        self._on_change = on_change
        self._kept = b""
        self.loaded = self._made((), None)

    @property
    def warnings(self) -> list[str]:
        """What an operator should know: a sentence each."""
        loaded = self.loaded
        days = self._max_age_ms / 86_400_000
        return [
            *[
                f"the watchlist {name}, which the model requires, is not loaded; `kyb watchlist update` loads it"
                for name in loaded.missing
            ],
            *[
                f"nobody looked for a newer watchlist {name} for over {days:g} days; `kyb watchlist update` does"
                for name in loaded.stale
            ],
            *[f"the watchlist {name} could not be taken up: {why}" for name, (_, why) in self._refused.items()],
        ]

    async def open(self) -> None:
        """Take up what is there, and go on looking. Raises StoreUnavailable."""
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watchlists", context=Context())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def refresh(self) -> None:
        """Take up what changed in the store. Raises StoreUnavailable, and then nothing has changed."""
        before = self.loaded
        lists = []
        refused: dict[str, tuple[int, str]] = {}
        for known in await self._store.lists():
            held = before.named(known.name)
            try:
                lists.append(await self._taken_up(known, held))
            except (SnapshotGone, SnapshotDamaged, SnapshotOutdated, OSError) as error:
                refused[known.name] = (known.number, str(error))
                if self._refused.get(known.name) != refused[known.name]:
                    log.error("the watchlist %s cannot be taken up: %s", known.name, error)
                if held is not None:
                    lists.append(held)
        loaded = self._made(lists, before)
        if loaded.digest != self._kept:
            # Before the first assessment that refers to it.
            await self._store.save_screened_against(loaded.digest, loaded.rows)
            self._kept = loaded.digest
            self._on_change(loaded)
        for one in loaded.lists:
            held = before.named(one.name)
            if held is None or held.version != one.version:
                log.info(
                    "the watchlist %s is in force in version %s, %d entries", one.name, one.version, one.known.entities
                )
        self._refused = refused
        self.loaded = loaded
        await asyncio.to_thread(self._clean, {one.known.snapshot.hex() for one in loaded.lists})

    def _made(self, lists: Sequence[LoadedList], before: Loaded | None) -> Loaded:
        return Loaded(
            lists, self._required, self._threshold, now_ms=now_ms(), max_age_ms=self._max_age_ms, before=before
        )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.75, 1.0))  # noqa: S311
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.warning("watchlists are not looked after: %s", error)
            except Exception:
                # Whatever it was, the next change of a list must not be missed for it.
                log.exception("watchlists could not be looked after")

    async def _taken_up(self, known: ListVersion, held: LoadedList | None) -> LoadedList:
        if held is not None and held.known.snapshot == known.snapshot:
            return held if held.known == known else LoadedList(known, held.index, held.loaded_ms)
        file = self._folder / f"{known.snapshot.hex()}{SUFFIX}"
        try:
            if not file.exists():
                await self._fetch(known, file)
            try:
                index = await asyncio.to_thread(_opened, file, known)
            except SnapshotOutdated:
                index = await self._recompiled(known, file)
        except OSError as error:
            log.warning(
                "the watchlist %s is in this worker's memory alone, for %s takes no files: %s; WATCHLIST_FOLDER names "
                "another",
                known.name,
                self._folder,
                error,
            )
            index = await open_version(self._store, known)
        return LoadedList(known, index, now_ms())

    async def _fetch(self, known: ListVersion, file: Path) -> None:
        """Put the snapshot into its file, unless another worker of the pod did so meanwhile."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _making(file) as lock:
            if lock is None:
                return
            draft = file.with_suffix(".draft")
            digest = sha256()
            with draft.open("wb") as out:
                async for data in _parts(self._store, known):
                    digest.update(data)
                    await asyncio.to_thread(out.write, data)
            if digest.digest() != known.snapshot:
                draft.unlink()
                raise SnapshotGone(
                    f"version {version_text(known)} in the database is not what it was when it was added"
                )
            os.replace(draft, file)

    async def _recompiled(self, known: ListVersion, source: Path) -> NameIndex:
        """The index that this engine makes of another's snapshot, from a file of its own."""
        file = _own_folder(self._folder) / source.name
        if not file.exists():
            async with _making(file) as lock:
                if lock is not None:
                    begun_s = time.monotonic()
                    draft = file.with_suffix(".draft")
                    await recompile(source, draft, lock)
                    os.replace(draft, file)
                    _tell_recompiled(known, begun_s)
        return await asyncio.to_thread(_opened_own, file)

    def _clean(self, in_force: set[str]) -> None:
        """Remove files of versions not in force any more, and of other engines. A mapped one stays readable."""
        if not self._folder.is_dir():
            return
        now = time.time()
        for folder in (self._folder, *self._folder.glob("engine-*")):
            needed = in_force if folder == self._folder or folder.name == OWN else set()
            for file in folder.iterdir():
                if file.suffix in (SUFFIX, ".lock", ".draft") and file.stem not in needed:
                    try:
                        if now - file.stat().st_mtime > KEPT_S:
                            file.unlink()
                    except FileNotFoundError:
                        continue


@asynccontextmanager
async def _making(file: Path) -> AsyncIterator[int | None]:
    """The lock under which one worker of the pod makes the file; None where it is there by then."""
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield None if await asyncio.to_thread(file.exists) else lock
    finally:
        os.close(lock)


def _own_folder(folder: Path) -> Path:
    """Where nobody else can put a file: the database does not tell what is right of what is compiled here.

    Raises PermissionError.
    """
    own = folder / OWN
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise PermissionError(f"{own} is not this user's alone")
    return own


def _tell_recompiled(known: ListVersion, begun_s: float) -> None:
    log.info(
        "the watchlist %s, version %s, was compiled by another version of this service, and again here in %.1f s; `kyb"
        " watchlist update` of this version compiles it for all pods",
        known.name,
        version_text(known),
        time.monotonic() - begun_s,
    )


async def open_version(store: Lists, known: ListVersion) -> NameIndex:
    """The index of a version, for a command: in this process alone.

    Raises SnapshotGone, SnapshotDamaged, SnapshotOutdated, StoreUnavailable.
    """
    data = await snapshot_of(store, known)
    try:
        return NameIndex(data)
    except SnapshotOutdated:
        begun_s = time.monotonic()
        index = NameIndex(await asyncio.to_thread(compiled_again, data))
        _tell_recompiled(known, begun_s)
        return index


async def snapshot_of(store: Lists, known: ListVersion) -> bytes:
    """The snapshot of a version. Raises SnapshotGone, StoreUnavailable."""
    data = b"".join([part async for part in _parts(store, known)])
    if sha256(data).digest() != known.snapshot:
        raise SnapshotGone(f"version {version_text(known)} in the database is not what was added")
    return data


def compiled_again(snapshot: bytes) -> bytes:
    """The snapshot that this engine makes of any engine's. Raises SnapshotDamaged, SnapshotOutdated."""
    return NameIndex.build(entities_of(snapshot))


async def _parts(store: Lists, known: ListVersion) -> AsyncIterator[bytes]:
    """A snapshot, part by part. Raises SnapshotGone where one is missing."""
    size = part = 0
    while size < known.size:
        data = await store.snapshot_part(known.snapshot, part)
        if not data:
            raise SnapshotGone(f"part {part} of version {version_text(known)} is not in the database")
        yield data
        size, part = size + len(data), part + 1


def _opened(file: Path, known: ListVersion) -> NameIndex:
    """The index in a file, which must be the one that the database names, whoever put it there."""
    mapped = _mapped(file)
    if sha256(mapped).digest() != known.snapshot:
        file.unlink()
        raise SnapshotGone(
            f"the file {file} was not version {version_text(known)} of the database; it is fetched again"
        )
    return NameIndex(mapped)


def _opened_own(file: Path) -> NameIndex:
    """The index in a file of this engine's own folder."""
    try:
        return NameIndex(_mapped(file))
    except (SnapshotDamaged, SnapshotOutdated):
        file.unlink(missing_ok=True)
        raise


def _mapped(file: Path) -> mmap.mmap | bytes:
    with file.open("rb") as handle:
        # What lost its bytes with the machine's power is no mapping.
        empty = os.fstat(handle.fileno()).st_size == 0
        return b"" if empty else mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
