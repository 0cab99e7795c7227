"""The parts that assess, put together alike for the service and for commands that assess."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from app.assess import Assessor
from app.evidence.dispositions import Dispositions
from app.evidence.gathering import Gatherer
from app.evidence.lists import ListsInForce
from app.evidence.publishing import publish_demo
from app.ids import Uuid7
from app.neighbours import Store, Tiers, make_providers
from app.records import Records
from app.registry import Registry, select
from app.settings import Settings
from app.telemetry.cells import Cells
from app.telemetry.meters import Meters
from app.telemetry.outcomes import Outcomes


class Assembly:
    """Registry, records, evidence and assessor on one store.

    meters: of what they do; without them nobody sees it.
    Raises what `registry.select` raises for a model that cannot be used.
    """

    def __init__(self, settings: Settings, store: Store, tiers: Tiers, meters: Meters | None = None) -> None:
        self._settings = settings
        self._store = store
        meters = meters or Meters(Cells())
        timeout_s = settings.database.timeout
        self.registry = Registry(select(settings.model))
        model = self.registry.active.model
        self.records = Records(self.registry, store, store, tiers.of_assessments(), timeout_s)
        self.lists = ListsInForce(
            store,
            lists_folder(settings),
            model.required_lists,
            model.screening.threshold,
            every_s=settings.watchlists.check_every,
            max_age_s=settings.watchlists.max_age,
            # Whoever reads what another pod records must not need the database for it.
            on_change=lambda loaded: self.records.know(loaded.digest, loaded.rows),
        )
        self.dispositions = Dispositions(store, tiers.of_dispositions(), timeout_s)
        self.providers = make_providers(settings, tiers)
        self.gatherer = Gatherer(self.lists, self.dispositions, self.providers, meters)
        self.assessor = Assessor(
            self.registry,
            self.gatherer,
            store,
            self.records,
            Uuid7(),
            Outcomes(meters, self.registry.active),
            commit_timeout_s=timeout_s,
            batch_timeout_s=settings.server.request_deadline,
            item_limit_bytes=settings.server.body_limit,
        )

    async def open(self, actor: str) -> None:
        """Keep the models, take up the lists, connect to providers. The store is open.

        actor: who brings the packaged list into force, on the embedded database.  Raises StoreUnavailable.
        """
        await self.registry.keep(self._store)
        if self._settings.watchlists.demo and not self._settings.database.is_postgres:
            await publish_demo(self._store, actor)
        await self.lists.open()
        await self.providers.open()

    async def close(self) -> None:
        """End what runs besides. The store stays open."""
        await asyncio.gather(self.lists.close(), self.providers.close())


def lists_folder(settings: Settings) -> Path:
    """Where the workers of a pod share compiled lists."""
    if settings.watchlists.folder is not None:
        return settings.watchlists.folder
    if not settings.database.is_postgres:
        return settings.database.sqlite_file.parent / "watchlists"
    return Path(tempfile.gettempdir()) / f"kyb-watchlists-{os.geteuid()}"
