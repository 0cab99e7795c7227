"""What the tests of the settings share: a configuration file, a value read by its name, and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.settings import Loaded

# What some settings need beside them: they are of PostgreSQL alone.
POSTGRES = {"database.url": "postgresql://kyb@pooler:6432/kyb"}


def value_of(loaded: Loaded, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(loaded.settings, section), key)


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "service.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)
