"""The models known: the one selected, and every one that a record may have been scored with, by its sha256."""

from __future__ import annotations

from importlib import resources
from typing import Any

from app import wire
from app.evidence.base import Findings
from app.settings.tree import Model as ModelSettings
from app.store.base import Store, StoredModel
from core.catalogue import Catalogue
from core.loader import load
from core.model import Model, definition
from core.reader import tree_of
from core.scorer import Scorer

CATALOGUE = Catalogue(wire.Profile, Findings)
"""The fields that a model may read: those of the profile and of the evidence."""


class ModelUnknown(Exception):
    """A model that was asked for and is not there. what: its name or sha256."""

    def __init__(self, what: str, known: list[str]) -> None:
        super().__init__(f"there is no model {what}; known: {', '.join(known) or 'none'}")
        self.what = what
        self.known = known


def packaged() -> dict[str, bytes]:
    """The model files that come with the service, by `id@version`."""
    files = (resources.files("core") / "models").iterdir()
    found = {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}
    return {"@".join(name.rsplit("-", 1)): file.read_bytes() for name, file in sorted(found.items())}


def select(settings: ModelSettings) -> Model:
    """The model that the settings name. Raises ModelUnknown, ModelRefused, OSError for a file that cannot be read."""
    if settings.path is not None:
        return load(settings.path.read_bytes(), str(settings.path), CATALOGUE)
    files = packaged()
    if settings.id not in files:
        raise ModelUnknown(settings.id, list(files))
    return load(files[settings.id], settings.id, CATALOGUE)


class Registry:
    """Scorers by sha256. The active one scores; others are loaded from the store when a record asks for them."""

    def __init__(self, model: Model) -> None:
        self.active = Scorer(model, CATALOGUE)
        self._scorers: dict[bytes, Scorer] = {model.sha256: self.active}
        self._packaged = {self.active.model.key: model}
        for key, text in packaged().items():
            if key not in self._packaged:
                self._packaged[key] = load(text, key, CATALOGUE)

    @property
    def active_summary(self) -> wire.ModelSummary:
        """The model that scores, as answers show it."""
        model = self.active.model
        return wire.ModelSummary(model.id, model.version, model.sha256.hex(), model.title, True)

    async def keep(self, store: Store) -> None:
        """Put every model at hand into the store, so that what they score can be replayed for ever."""
        for model in self._packaged.values():
            await store.save_model(model.sha256, model.id, model.version, model.text)

    async def scorer(self, sha256: bytes, store: Store) -> Scorer:
        """The scorer of a model ever used. Raises ModelUnknown, and ModelRefused where its text no longer passes."""
        scorer = self._scorers.get(sha256)
        if scorer is None:
            text = await store.model(sha256)
            if text is None:
                raise ModelUnknown(sha256.hex(), [])
            scorer = Scorer(load(text, sha256.hex(), CATALOGUE), CATALOGUE)
            self._scorers[sha256] = scorer
        return scorer

    async def known(self, store: Store) -> list[wire.ModelSummary]:
        """Every model ever kept, by id and version."""
        return [await self._summary(stored, store) for stored in await store.models()]

    async def detail(self, model_id: str, version: str, store: Store) -> list[wire.ModelDetail]:
        """The models of this id and version, the active one first: one, unless a file was changed under its version."""
        found = [s for s in await store.models() if (s.model_id, s.version) == (model_id, version)]
        found.sort(key=lambda stored: stored.sha256 != self.active.model.sha256)
        details = []
        for stored in found:
            text = await store.model(stored.sha256)
            summary = await self._summary(stored, store)
            if text is not None:
                details.append(wire.ModelDetail(**_fields(summary), definition=definition(tree_of(text))))
        return details

    async def _summary(self, stored: StoredModel, store: Store) -> wire.ModelSummary:
        model = (await self.scorer(stored.sha256, store)).model
        active = stored.sha256 == self.active.model.sha256
        return wire.ModelSummary(stored.model_id, stored.version, stored.sha256.hex(), model.title, active)


def _fields(summary: wire.ModelSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in summary.__struct_fields__}
