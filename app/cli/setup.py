"""What a command needs before it can work: the settings in force and the model they select."""

from __future__ import annotations

from collections.abc import Mapping

from app.cli.exits import CONFIG_REFUSED, UNREADABLE, Stopped, reason
from app.registry import CATALOGUE, ModelUnknown, packaged, select
from app.settings import Loaded, SettingsError, load
from core.loader import load as load_model
from core.model import Model, ModelRefused


def settings(config: str | None, overrides: Mapping[str, str | None]) -> Loaded:
    """The settings in force. overrides: by dotted name; None is not given."""
    try:
        return load(config_path=config, overrides=overrides)
    except SettingsError as error:
        listed = "".join(f"\n  {fault}" for fault in error.faults)
        raise Stopped(f"the settings cannot be used:{listed}", CONFIG_REFUSED) from None


def selected(loaded: Loaded) -> Model:
    """The model that the settings select."""
    try:
        return select(loaded.settings.model)
    except ModelUnknown as error:
        raise Stopped(f"{error}; give one of these with --model, or a file with --model-path", CONFIG_REFUSED) from None
    except ModelRefused as error:
        raise refused(error) from None
    except OSError as error:
        path = loaded.settings.model.path
        raise Stopped(f"the model {path} cannot be read: {reason(error)}", CONFIG_REFUSED) from None


def from_text(text: bytes, name: str) -> Model:
    """The model of a file's bytes."""
    try:
        return load_model(text, name, CATALOGUE)
    except ModelRefused as error:
        raise refused(error) from None


def from_package(key: str) -> Model:
    """The packaged model called `id@version`."""
    files = packaged()
    if key not in files:
        problem = f"there is no file and no packaged model {key}; packaged: {', '.join(files) or 'none'}"
        raise Stopped(problem, UNREADABLE)
    return from_text(files[key], key)


def refused(error: ModelRefused) -> Stopped:
    """The message of a model with faults: each on its line."""
    count = f"{len(error.faults)} fault{'s' if len(error.faults) != 1 else ''}"
    listed = "".join(f"\n  {fault}" for fault in error.faults)
    return Stopped(f"{error.name}: the model has {count}:{listed}", CONFIG_REFUSED)
