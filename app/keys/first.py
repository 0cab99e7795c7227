"""The first key of a service with an embedded database: an administrator's, in a file that its owner alone can read."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hmac import compare_digest
from pathlib import Path

from app import ids
from app.credentials import LONGEST_BYTES, digest, mint, recognise
from app.keys.issue import created
from app.keys.validity import works
from app.secrets import ADMIN_KEY, Secrets
from app.settings import Settings
from app.settings.rates import UNLIMITED
from app.store.access import Access, StoredKey
from app.store.base import StoreUnavailable

TENANT = "default"
NAME = "first key"
LOCK_WAIT_S = 10.0
LOCK_PAUSE_S = 0.02


async def first_key(
    settings: Settings,
    store: Access,
    secrets: Secrets,
    *,
    actor: str = "service",
    now_ms: Callable[[], int] = ids.now_ms,
) -> Path | None:
    """See to it that some key works: where none does, make an administrator's and put it into DATA_DIR/admin.key.

    The file, if the key in it works; None where other keys do and it does not. Of the embedded database alone.
    Raises OSError where the folder does not take the file, StoreUnavailable.

    # Design: file first, store second, under a lock that all processes of the folder share. Whoever is killed between
    the two leaves a key that the store does not know; the next one takes it up, as it would for a database made anew.
    A file that others may have read or written is not taken up, and neither is a key that was revoked or expired.
    """
    file = settings.database.data_dir / ADMIN_KEY
    file.parent.mkdir(parents=True, exist_ok=True)
    async with _locked(file.parent):
        text = _read(file)
        id = None if text is None else recognise(text.encode("ascii"))
        known = None if id is None else await store.key(id)
        if text is not None and known is not None:
            given = digest(text.encode("ascii"), secrets.key_hash)
            if works(known, now_ms()) and compare_digest(known.digest, given):
                return file
        if await store.has_key(now_ms()):
            return None
        if text is None or id is None or known is not None or not _is_private(file):
            text, id = mint(settings.auth.environment)
            _write(file, text)
        tiered = UNLIMITED in settings.limits.tiers
        key = StoredKey(
            id=id,
            tenant_id=TENANT,
            name=NAME,
            role="admin",
            scopes=None,
            digest=digest(text.encode("ascii"), secrets.key_hash),
            networks=(),
            tier=UNLIMITED if tiered else None,
            rate=None if tiered else UNLIMITED,
            created_ms=now_ms(),
            created_by=actor,
        )
        await store.add_key(key, created(key, actor))
        return file


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """Alone with the folder, among all who ask; the system ends the lock with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise StoreUnavailable(
                        f"another process has been busy with {folder / ADMIN_KEY} for {LOCK_WAIT_S:g} s"
                    ) from None
            await asyncio.sleep(LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _read(file: Path) -> str | None:
    """What stands in the file; None where there is none, or nothing that could be a key."""
    try:
        with file.open("rb") as handle:
            return handle.read(2 * LONGEST_BYTES).decode("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _is_private(file: Path) -> bool:
    """Whether it is a file of our own that nobody else can read or write."""
    found = file.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _write(file: Path, text: str) -> None:
    """Put the text in the file's place, whole or not at all. For whoever holds the lock."""
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
