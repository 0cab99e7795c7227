"""`kyb watchlist`: lists fetched, added, shown, searched, and taken out of force."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from app import ids
from app.audit.aside import REMOVED
from app.cli import setup
from app.cli.exits import CONFIG_REFUSED, FAILED, UNREADABLE, Stopped, printable
from app.cli.opening import Kept, cover, with_store
from app.cli.output import Output, complain, write_json, write_rows
from app.evidence.lists import SnapshotGone, open_version
from app.evidence.loaded import DEMO, version_text
from app.evidence.publishing import Overtaken, check, content_of, publish
from app.secrets import SecretsMissing, secrets_of
from app.settings import Settings
from app.store.lists import ListVersion
from app.store.trail import SYSTEM_TENANT, act
from app.watchlists.countries import table
from app.watchlists.dates import one_date
from app.watchlists.download import Validators, fetch
from app.watchlists.reading import ReadList, check_plausible, read
from app.watchlists.refusal import ListRefused
from app.watchlists.sources import SOURCES, Source
from app.watchlists.transfer import FetchFailed, Validator
from core.entities import EntitySchema, Identifier, ListKind
from core.matches import Match, Query, explain
from core.names import SnapshotDamaged, SnapshotOutdated
from core.normal import prepare

Answer = TypeVar("Answer")

ACTOR = "cli"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RESERVED = ("default", DEMO)
"""`default` is all lists together, and the packaged list comes with the service."""
_encode = msgspec.json.Encoder().encode
_decode_validators = msgspec.json.Decoder(dict[str, Validator]).decode


class Addition(NamedTuple):
    """Files that are to be a list."""

    files: Sequence[str]
    name: str | None
    title: str | None
    form: str | None
    kind: ListKind | None
    force: bool


class Sought(NamedTuple):
    """Whom `kyb watchlist search` looks for."""

    name: str
    person: bool | None
    country: str | None
    birth_date: str | None
    identifier: str | None
    lists: Sequence[str]
    limit: int
    cutoff: float | None


class Found(NamedTuple):
    """A match as it is shown."""

    score: float
    list: str
    kind: str
    entity_id: str
    name: str
    explanation: str


# Fetching


def update(config: str | None, names: Sequence[str], urls: Sequence[str], force: bool, as_json: bool) -> int:
    """Fetch lists; the exit code. names: none for those that the model requires and those in force that have a source.

    urls: other addresses, of the one list named.
    """
    loaded = setup.settings(config, {})
    settings = loaded.settings
    required = setup.selected(loaded).required_lists
    if urls and len(names) != 1:
        raise Stopped("--url gives the addresses of one list: name it", UNREADABLE)

    async def each(store: Kept) -> list[dict[str, object]]:
        known = {one.name: one for one in await store.lists()}
        wanted = names or [*required, *(name for name in known if name not in required and _has_source(settings, name))]
        told = []
        for name in dict.fromkeys(wanted):
            source = _source(settings, name, urls)
            told.append(await _updated(store, source, known.get(name), force))
            if not as_json:
                _say(told[-1])
        return told

    outcomes = _with_store(settings, each)
    if as_json:
        write_json({"lists": outcomes})
    return FAILED if any(one["outcome"] == "failed" for one in outcomes) else 0


async def _updated(store: Kept, source: Source, known: ListVersion | None, force: bool) -> dict[str, object]:
    """Fetch one list, and bring it into force where it has changed and is plausible. The one before stays otherwise."""
    told: dict[str, object] = {"name": source.name}
    try:
        with tempfile.TemporaryDirectory(prefix="kyb-watchlist-") as folder:
            validators: Validators = {} if known is None or force else _decode_validators(known.validators)
            fetched = await fetch(source, Path(folder), validators)
            if known is not None and fetched.unchanged:
                return {**told, **await _checked(store, known, known.validators)}
            content = await asyncio.to_thread(content_of, fetched.paths)
            validators_now = _encode(fetched.validators)
            if known is not None and content == known.content_sha256 and not force:
                return {**told, **await _checked(store, known, validators_now)}
            made = await asyncio.to_thread(read, fetched.paths, format=source.format or None, kind=source.kind)
            if not force:
                check_plausible(made, None if known is None else known.entities, source.minimum)
            version = await publish(
                store,
                source.name,
                made,
                title=source.title,
                source=source.urls[0],
                content_sha256=content,
                published=fetched.modified,
                validators=validators_now,
                actor=ACTOR,
            )
    except (FetchFailed, ListRefused, Overtaken) as error:
        kept = "no list is in force" if known is None else f"version {version_text(known)} stays in force"
        return {**told, "outcome": "failed", "detail": f"{error}; {kept}"}
    except (SnapshotGone, SnapshotDamaged, SnapshotOutdated) as error:
        return {**told, "outcome": "failed", "detail": f"{error}; --force fetches the list even if it is unchanged"}
    return {**told, "outcome": "updated", **_told(version, made)}


async def _checked(store: Kept, known: ListVersion, validators: bytes) -> dict[str, object]:
    recompiled = await check(store, known, validators, ACTOR)
    return {"outcome": "unchanged", "version": version_text(known), "recompiled": recompiled}


def _told(version: ListVersion, made: ReadList) -> dict[str, object]:
    return {
        "version": version_text(version),
        "entities": version.entities,
        "names": version.names,
        "notes": made.sentences(),
    }


def _say(told: dict[str, object]) -> None:
    name, outcome = printable(str(told["name"])), told["outcome"]
    if outcome == "failed":
        complain(f"kyb: {name}: {told['detail']}")
        return
    with Output() as out:
        if outcome == "unchanged":
            again = ", compiled again for this version of the service" if told["recompiled"] else ""
            out.write(f"{name}: unchanged, version {told['version']}{again}\n")
            return
        out.write(
            f"{name}: version {told['version']} with {told['entities']:,} entries and {told['names']:,} names is in "
            "force, in every pod within a minute\n"
        )
    notes = told["notes"]
    assert isinstance(notes, list)
    for note in notes:
        complain(f"kyb: {name}: {note}")


def _source(settings: Settings, name: str, urls: Sequence[str]) -> Source:
    """Where a list is fetched. Raises Stopped for one that nobody knows an address of."""
    known = SOURCES.get(name)
    given = tuple(urls) or (settings.watchlists.addresses or {}).get(name)
    if known is not None:
        return known if given is None else msgspec.structs.replace(known, urls=given)
    if given is None:
        raise Stopped(
            f"no address of a list {name} is known; known are {', '.join(SOURCES)}. "
            "Give one with --url or WATCHLIST_ADDRESSES, or add a file with `kyb watchlist add`",
            UNREADABLE,
        )
    _check_name(name)
    return Source(name, name, given, "", None, 1)


def _has_source(settings: Settings, name: str) -> bool:
    return name in SOURCES or name in (settings.watchlists.addresses or {})


# Files


def add(config: str | None, asked: Addition, as_json: bool) -> None:
    """Bring files into force as one list."""
    name = asked.name or _name_of(asked.files[0])
    _check_name(name)
    settings = setup.settings(config, {}).settings
    known_source = SOURCES.get(name)
    try:
        made = read(
            list(asked.files),
            format=asked.form or (known_source.format if known_source and asked.name else None),
            kind=asked.kind or (known_source.kind if known_source else None),
        )
    except ListRefused as refused:
        raise Stopped(f"{refused}; nothing was changed", UNREADABLE) from None

    async def put(store: Kept) -> ListVersion:
        known = {one.name: one for one in await store.lists()}.get(name)
        if not asked.force:
            try:
                check_plausible(
                    made, None if known is None else known.entities, known_source.minimum if known_source else 1
                )
            except ListRefused as refused:
                kept = "nothing was changed" if known is None else f"version {version_text(known)} stays in force"
                raise Stopped(f"{refused} (--force); {kept}", FAILED) from None
        return await publish(
            store,
            name,
            made,
            title=asked.title or (known_source.title if known_source else name),
            source=", ".join(Path(file).name for file in asked.files),
            content_sha256=content_of([Path(file) for file in asked.files]),
            actor=ACTOR,
        )

    version = _with_store(settings, put)
    told: dict[str, object] = {"name": name, "outcome": "updated", **_told(version, made)}
    if as_json:
        write_json(told)
    else:
        _say(told)


def remove(config: str | None, name: str) -> None:
    """Take a list out of force."""
    settings = setup.settings(config, {}).settings
    told = act(SYSTEM_TENANT, REMOVED, ACTOR, list=name)
    if not _with_store(settings, lambda store: store.drop_list(name, told)):
        raise Stopped(f"there is no list {name}; `kyb watchlist list` shows those there are", FAILED)
    with Output() as out:
        out.write(
            f"{printable(name)} is no longer in force, in every pod within a minute; then `kyb watchlist rescreen "
            f"{printable(name)}` assesses anew the businesses whose screening names it\n"
        )


def _name_of(file: str) -> str:
    stem = re.sub(r"[^a-z0-9_-]+", "-", Path(file).name.split(".")[0].lower()).strip("-")
    return stem or "list"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name in RESERVED:
        taken = " (these two are taken)" if name in RESERVED else ""
        raise Stopped(
            f"{name} is no name for a list{taken}; give one with --name: a letter, then up to 63 of a-z, 0-9, - and _",
            UNREADABLE,
        )


# Looking


def show_list(config: str | None, as_json: bool) -> None:
    """The lists in force, and what the model misses."""
    loaded = setup.settings(config, {})
    required = setup.selected(loaded).required_lists
    found = _with_store(loaded.settings, lambda store: store.lists())
    missing = [name for name in required if name not in {one.name for one in found}]
    now_ms, max_age_ms = ids.now_ms(), round(loaded.settings.watchlists.max_age * 1000)
    stale = [one.name for one in found if one.name != DEMO and now_ms - one.checked_ms > max_age_ms]
    if as_json:
        items = [
            {
                "name": one.name,
                "title": one.title,
                "version": version_text(one),
                "source": one.source,
                "format": one.format,
                "published": one.published,
                "sha256": one.content_sha256.hex(),
                "entities": one.entities,
                "names": one.names,
                "required": one.name in required,
                "stale": one.name in stale,
                "added_at": ids.instant(one.added_ms),
                "checked_at": ids.instant(one.checked_ms),
            }
            for one in found
        ]
        write_json({"lists": items, "missing": missing})
        return
    rows = [
        (
            one.name,
            version_text(one),
            f"{one.entities:,} entries",
            f"{one.names:,} names",
            f"checked {ids.instant(one.checked_ms)}",
            "stale" if one.name in stale else "",
            "required" if one.name in required else "",
        )
        for one in found
    ]
    write_rows(rows, "no list is in force; `kyb watchlist update` fetches those that the model requires")
    if missing:
        complain(f"kyb: the model requires {', '.join(missing)} too; without them no screening is clear")


def search(config: str | None, asked: Sought, as_json: bool) -> None:
    """Whom the lists in force know by a name."""
    loaded = setup.settings(config, {})
    cutoff = setup.selected(loaded).screening.threshold if asked.cutoff is None else asked.cutoff

    async def find(store: Kept) -> list[Found]:
        lists = await store.lists()
        unknown = [name for name in asked.lists if name not in {one.name for one in lists}]
        if unknown:
            raise Stopped(f"there is no list {unknown[0]}; `kyb watchlist list` shows those there are", FAILED)
        found: list[Found] = []
        query = _query(asked)
        for one in lists:
            if asked.lists and one.name not in asked.lists:
                continue
            index = await open_version(store, one)
            for match in index.search(query, cutoff, asked.limit):
                found.append(_found(one, match, index.entity(match.entity).kind, index.entity(match.entity).id))
        found.sort(key=lambda match: -match.score)
        return found[: asked.limit]

    found = _with_store(loaded.settings, find)
    if as_json:
        write_json({"matches": [match._asdict() for match in found]})
        return
    rows = [
        (f"{match.score:.4f}", match.list, match.kind, match.entity_id, match.name, match.explanation)
        for match in found
    ]
    write_rows(rows, f"nobody on the lists resembles {printable(asked.name)} (from a score of {cutoff:g})")


def _query(asked: Sought) -> Query:
    schema: EntitySchema | None = {True: "Person", False: "Organization", None: None}[asked.person]
    where = None if asked.country is None else table().code(asked.country)
    if asked.country is not None and not where:
        raise Stopped(f"{printable(asked.country)} is no country; give its code, such as DE", UNREADABLE)
    if asked.birth_date is not None and one_date(asked.birth_date) != asked.birth_date:
        raise Stopped(
            f"{printable(asked.birth_date)} is no date; write it as 1970-03-02, or 1970-03 or 1970", UNREADABLE
        )
    identifiers = () if asked.identifier is None else (Identifier("other", asked.identifier, where),)
    return Query(
        (prepare(asked.name, schema),), asked.person, () if where is None else (where,), asked.birth_date, identifiers
    )


def _found(one: ListVersion, match: Match, kind: str, entity_id: str) -> Found:
    return Found(match.score, one.name, kind, entity_id, match.name, explain(match))


# What all of them need


def _with_store(settings: Settings, work: Callable[[Kept], Awaitable[Answer]]) -> Answer:
    """What `work` makes of the store, and what it did to lists under a checkpoint. Raises Stopped."""
    try:
        secrets = secrets_of(settings)
    except SecretsMissing as missing:
        raise Stopped(str(missing), CONFIG_REFUSED) from None

    async def run(store: Kept) -> Answer:
        try:
            return await work(store)
        finally:
            await cover(settings, store, secrets.audit_signing)

    try:
        return with_store(settings, run)
    except (SnapshotGone, SnapshotDamaged, SnapshotOutdated, Overtaken) as error:
        raise Stopped(f"{error}; `kyb watchlist update` or `add` brings the list again", FAILED) from None
