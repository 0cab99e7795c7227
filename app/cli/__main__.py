"""`python -m app.cli` is `kyb`, also where the console command is not installed."""

from __future__ import annotations

from app.cli.commands import main

if __name__ == "__main__":
    main()
