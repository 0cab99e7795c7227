"""Lists of invented parties, brought into force, and profiles that are screened against them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from service import Json

from app import wire
from app.assembly import Assembly
from app.audit.aside import REMOVED
from app.evidence.base import Gathered
from app.evidence.publishing import publish
from app.neighbours import Tiers
from app.settings import load
from app.store.base import opened
from app.store.sqlite import SqliteStore
from app.store.trail import SYSTEM_TENANT, act
from app.watchlists.reading import ReadList
from core.entities import Entity, EntitySchema, Identifier, ListKind

Answer = TypeVar("Answer")

TENANT = "acme"
REQUIRED = ("ofac-sdn", "un-consolidated", "eu-consolidated")
NOBODY = Entity("nobody-1", "Organization", "other", ("Quorblax Zentrumsgesellschaft",))
"""What lists hold that shall match nobody."""


def party(
    id: str, *names: str, kind: ListKind = "sanction", schema: EntitySchema = "Organization", **more: Any
) -> Entity:
    return Entity(id, schema, kind, names, **more)


def registered(number: str, country: str | None = None) -> tuple[Identifier, ...]:
    return (Identifier("registration", number, country),)


def profile(name: str = "Harmless Trading GmbH", **members: Json) -> wire.Profile:
    """The least profile with further members of `business`; owners and directors stand beside it."""
    ownership = {part: members.pop(part) for part in ("owners", "directors") if part in members}
    document = {"business": {"name": name, "jurisdiction": "DE", **members}}
    if ownership:
        document["ownership"] = ownership
    return msgspec.convert(document, wire.Profile)


class Lists:
    """A store with lists, and everything that assesses on it. settings: environment variables over the defaults."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.settings = load({"DATA_DIR": str(folder), "WATCHLIST_DEMO": "false", **settings}).settings
        folder.mkdir(parents=True, exist_ok=True)
        self.store = SqliteStore(folder / "kyb.db")
        self.assembly: Assembly

    def run(self, work: Callable[[Lists], Awaitable[Answer]]) -> Answer:
        """What `work` makes of it, opened."""

        async def opened_up() -> Answer:
            async with opened(self.store):
                tiers = Tiers(self.settings)
                self.assembly = Assembly(self.settings, self.store, tiers)
                await self.assembly.open("tests")
                try:
                    return await work(self)
                finally:
                    await self.assembly.close()
                    await tiers.close()

        return asyncio.run(opened_up())

    async def put(self, name: str, *entities: Entity) -> None:
        """Bring a list into force, and take it up."""
        read = ReadList("ftm-json", list(entities), len(entities))
        content = sha256(repr(entities).encode()).digest()
        await publish(self.store, name, read, title=name, source="tests", content_sha256=content, actor="tests")
        await self.assembly.lists.refresh()

    async def drop(self, name: str) -> None:
        """Take a list out of force, and notice it."""
        await self.store.drop_list(name, act(SYSTEM_TENANT, REMOVED, "tests", list=name))
        await self.assembly.lists.refresh()

    async def put_required(self, **lists: Sequence[Entity]) -> None:
        """All lists that the model requires; those that are not given hold nobody who matters."""
        for name in REQUIRED:
            await self.put(name, *lists.get(name.partition("-")[0], (NOBODY,)))

    async def gather(self, sent: wire.Profile, tenant_id: str = TENANT) -> Gathered:
        return await self.assembly.assessor.source.gather(tenant_id, sent)

    async def screening(self, sent: wire.Profile) -> wire.Screening:
        return msgspec.json.decode((await self.gather(sent)).screening, type=wire.Screening)


def evidence(gathered: Gathered) -> dict[str, str]:
    """By source, its status."""
    return {row.source: row.status for row in msgspec.json.decode(gathered.evidence_rows, type=list[wire.Evidence])}


def ftm(entity: Entity) -> str:
    """The entity as a FollowTheMoney line."""
    topics: Mapping[str, list[str]] = {"sanction": ["sanction"], "pep": ["role.pep"], "other": []}
    properties: dict[str, Any] = {
        "name": list(entity.names),
        "country": [code.lower() for code in entity.countries],
        "birthDate": list(entity.birth_dates),
        "registrationNumber": [one.value for one in entity.identifiers if one.kind == "registration"],
        "imoNumber": [one.value for one in entity.identifiers if one.kind == "imo"],
        "leiCode": [one.value for one in entity.identifiers if one.kind == "lei"],
        "topics": topics[entity.kind],
    }
    told = {name: values for name, values in properties.items() if values}
    return json.dumps({"id": entity.id, "schema": entity.schema, "properties": told}, ensure_ascii=False)


def list_file(path: Path, *entities: Entity) -> Path:
    """A file of FollowTheMoney lines."""
    path.write_text("".join(ftm(entity) + "\n" for entity in entities), encoding="utf-8")
    return path
