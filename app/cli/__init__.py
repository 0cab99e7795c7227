"""The command `kyb`: its commands are declared in `commands`, and each imports what it needs when it runs."""

from __future__ import annotations

from app.cli.commands import main

__all__ = ["main"]
