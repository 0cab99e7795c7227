"""How source files are named in what is shown."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4096)
def place(file: str) -> str:
    """A source file from its outermost package on, as py-spy names it: `app/assess.py`."""
    path = Path(file)
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    # Alone in its folder, its name says enough.
    return str(path.relative_to(root)) if path.is_absolute() else file
