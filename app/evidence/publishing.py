"""Bringing a list into force: compiled, kept in the store under its next version, and noted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from msgspec.structs import replace

from app.evidence.lists import compiled_again, snapshot_of
from app.evidence.loaded import DEMO, version_text
from app.ids import now_ms
from app.store.lists import Lists, ListVersion
from app.store.trail import SYSTEM_TENANT, act
from app.watchlists.demo import demo_sha256, read_demo
from app.watchlists.reading import ReadList
from core.names import NameIndex
from core.snapshot import ENGINE

ATTEMPTS = 5


class Overtaken(Exception):
    """Others brought versions of the list into force again and again, faster than this one."""


async def publish(
    store: Lists,
    name: str,
    read: ReadList,
    *,
    title: str,
    source: str,
    content_sha256: bytes,
    published: str | None = None,
    validators: bytes = b"{}",
    actor: str,
) -> ListVersion:
    """Compile a list and bring it into force.

    source: the address or file it came from.  published: a date for lists that say none of themselves.
    Raises Overtaken, StoreUnavailable.
    """
    snapshot = await asyncio.to_thread(NameIndex.build, read.entities)
    names = sum([len(entity.names) + len(entity.weak_names) for entity in read.entities])
    now = now_ms()
    version = ListVersion(
        name=name,
        number=0,
        title=title,
        source=source,
        format=read.format,
        published=read.published or published,
        content_sha256=content_sha256,
        snapshot=sha256(snapshot).digest(),
        size=len(snapshot),
        engine=ENGINE,
        entities=len(read.entities),
        names=names,
        added_ms=now,
        checked_ms=now,
        validators=validators,
    )
    for _ in range(ATTEMPTS):
        version = replace(version, number=await store.list_number(name) + 1)
        if await _put(store, version, snapshot, actor):
            return version
    raise Overtaken(f"others brought versions of {name} into force {ATTEMPTS} times while this one was kept; try again")


async def check(store: Lists, known: ListVersion, validators: bytes, actor: str) -> bool:
    """Note that the version in force is still the newest; whether it was compiled again, by this engine, for that.

    What another engine compiled gets the next number and is the same version in all that is told of it.
    Raises SnapshotGone, SnapshotDamaged, SnapshotOutdated, StoreUnavailable.
    """
    now = now_ms()
    if not await store.check_list(known.name, known.number, now, validators) or known.engine == ENGINE:
        return False
    snapshot = await asyncio.to_thread(compiled_again, await snapshot_of(store, known))
    version = replace(
        known,
        number=known.number + 1,
        snapshot=sha256(snapshot).digest(),
        size=len(snapshot),
        engine=ENGINE,
        checked_ms=now,
        validators=validators,
    )
    # Not where somebody brought a newer one meanwhile.
    return await _put(store, version, snapshot, actor)


async def _put(store: Lists, version: ListVersion, snapshot: bytes, actor: str) -> bool:
    told = act(
        SYSTEM_TENANT,
        "watchlist.updated",
        actor,
        list=version.name,
        number=version.number,
        version=version_text(version),
        content_sha256=version.content_sha256.hex(),
        entities=version.entities,
    )
    return await store.put_list(version, snapshot, told)


async def publish_demo(store: Lists, actor: str) -> ListVersion | None:
    """Bring the packaged list of invented names into force, unless it is; None where it was."""
    content = demo_sha256()
    known = {one.name: one for one in await store.lists()}.get(DEMO)
    if known is not None and (known.content_sha256, known.engine) == (content, ENGINE):
        return None
    read = await asyncio.to_thread(read_demo)
    return await publish(
        store, DEMO, read, title="Invented names, to try it out", source="package", content_sha256=content, actor=actor
    )


def content_of(files: Sequence[Path]) -> bytes:
    """SHA-256 over the contents of files, in order."""
    digest = sha256()
    for file in files:
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    return digest.digest()
