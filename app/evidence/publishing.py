"""Bringing a list into force: compiled, kept in the store under its next version, and noted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from app.evidence.loaded import DEMO, version_text
from app.ids import now_ms
from app.store.lists import Lists, ListVersion
from app.store.trail import SYSTEM_TENANT, act
from app.watchlists.demo import read_demo
from app.watchlists.reading import ReadList
from core.names import NameIndex

ATTEMPTS = 5
ENGINE = 1
"""Of the snapshots made here. What an index cannot read it refuses itself; this tells who made it."""


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
    for _ in range(ATTEMPTS):
        number = await store.list_number(name) + 1
        now = now_ms()
        version = ListVersion(
            name=name,
            number=number,
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
        told = act(
            SYSTEM_TENANT,
            "watchlist.updated",
            actor,
            list=name,
            number=number,
            version=version_text(version),
            content_sha256=content_sha256.hex(),
            entities=version.entities,
        )
        if await store.put_list(version, snapshot, told):
            return version
    raise Overtaken(f"others brought versions of {name} into force {ATTEMPTS} times while this one was kept; try again")


async def publish_demo(store: Lists, actor: str) -> ListVersion | None:
    """Bring the packaged list of invented names into force, unless it is; None where it was."""
    read = await asyncio.to_thread(read_demo)
    content = sha256(repr(read.entities).encode()).digest()
    known = {one.name: one for one in await store.lists()}.get(DEMO)
    if known is not None and known.content_sha256 == content:
        return None
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
