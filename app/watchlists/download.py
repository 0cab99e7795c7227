"""Fetching a list from its source: all its files or none, and only where it has changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from msgspec import Struct

import app
from app.watchlists.sources import Source
from app.watchlists.transfer import (
    FetchedFile,
    FetchFailed,
    FetchLimits,
    Passing,
    Validator,
    public_url,
    transfer,
)

USER_AGENT = f"risk-assessment-service/{app.__version__}"

Validators = dict[str, Validator]
"""By URL, of the files of one list."""


class Fetched(Struct, frozen=True):
    """What a fetch brought.

    unchanged: the list is still the one that the validators were of, and there are no files.  files: in the order of
    the source's URLs.  sha256: over all files.  modified: the latest date that the server gave a file, `2026-02-27`.
    """

    source: str
    unchanged: bool
    files: tuple[FetchedFile, ...] = ()
    sha256: str = ""
    modified: str | None = None

    @property
    def paths(self) -> list[Path]:
        """What `reading.read` takes."""
        return [file.path for file in self.files]

    @property
    def validators(self) -> Validators:
        """To be given with the next fetch, once this one is in use."""
        return {file.url: file.validator for file in self.files}


async def fetch(
    source: Source,
    folder: Path,
    known: Validators | None = None,
    limits: FetchLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> Fetched:
    """Fetch the files of a source into a new folder inside `folder`, which is named by their content.

    known: of the list in use; where no file has changed nothing is brought, where one has, all are. tls: to trust other
    authorities than the machine does. Raises FetchFailed, and then leaves nothing behind.
    """
    limits = limits or FetchLimits()
    work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f".{source.name}-", dir=folder))
    try:
        async with asyncio.timeout(limits.total_s), _session(limits, tls) as session:
            files = await _all(session, source, work, known or {}, limits)
        if files is None:
            return Fetched(source.name, unchanged=True)
        return await asyncio.to_thread(_kept, source, folder, work, files)
    except TimeoutError as error:
        url = public_url(source.urls[0])
        what = f"the list did not come within {limits.total_s:g} s"
        raise FetchFailed(url, what, "try again later, or allow more time") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def _session(limits: FetchLimits, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=True if tls is None else tls),
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s, sock_read=limits.stall_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": USER_AGENT},
    )


async def _all(
    session: aiohttp.ClientSession, source: Source, work: Path, known: Validators, limits: FetchLimits
) -> list[FetchedFile] | None:
    """Every file of a source, or None where none has changed."""
    places = dict(zip(source.urls, _file_names(source.urls), strict=True))
    found = {url: await _twice(session, url, work / name, known.get(url), limits) for url, name in places.items()}
    if not any(found.values()):
        return None
    # One that has not changed is not here, and may only seem not to have changed: all come from now.
    return [file or await _needed(session, url, work / places[url], limits) for url, file in found.items()]


async def _needed(session: aiohttp.ClientSession, url: str, path: Path, limits: FetchLimits) -> FetchedFile:
    file = await _twice(session, url, path, None, limits)
    assert file is not None  # a request without validators is not answered by 304
    return file


async def _twice(
    session: aiohttp.ClientSession, url: str, path: Path, known: Validator | None, limits: FetchLimits
) -> FetchedFile | None:
    """One file, with a second try after a failure that may be over."""
    try:
        return await transfer(session, url, path, known, limits)
    except Passing:
        await asyncio.sleep(limits.retry_pause_s)
        await asyncio.to_thread(path.unlink, missing_ok=True)
    try:
        return await transfer(session, url, path, known, limits)
    except Passing as again:
        failure = again.failure
        raise FetchFailed(failure.url, f"{failure.what}, twice", failure.advice) from again


def _kept(source: Source, folder: Path, work: Path, files: Sequence[FetchedFile]) -> Fetched:
    """Put what came to its place: with its content on disk before its name is."""
    digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
    for file in files:
        _sync(file.path)
    _sync(work)
    place = folder / f"{source.name}-{digest[:16]}"
    # The same content may lie there from before, whole or damaged since: what has just come is whole.
    shutil.rmtree(place, ignore_errors=True)
    work.rename(place)
    _sync(folder)
    moved = tuple(
        FetchedFile(file.url, place / file.path.name, file.sha256, file.bytes, file.validator) for file in files
    )
    dates = [date for file in files if (date := _date(file.validator.last_modified))]
    return Fetched(source.name, False, moved, digest, max(dates, default=None))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _date(last_modified: str | None) -> str | None:
    try:
        return parsedate_to_datetime(last_modified or "").date().isoformat()
    except ValueError:
        return None


def _file_names(urls: Sequence[str]) -> list[str]:
    """A plain name for each URL's file, no two the same: its last part, numbered where that is taken."""
    names: list[str] = []
    for number, url in enumerate(urls, start=1):
        last = url.partition("?")[0].rpartition("/")[2].lower()
        name = re.sub(r"[^a-z0-9._-]+", "-", last).strip(".-")[:100] or "list"
        names.append(f"{number}-{name}" if name in names else name)
    return names
