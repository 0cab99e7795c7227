"""Writes the dashboards, as Grafana imports them, from the modules beside this one.

.venv/bin/python deploy/grafana/build.py [--runbook https://...] [FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import errors
import overview
import performance
import resources
import scaling
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from panels import RUNBOOK

FOLDER = Path(__file__).resolve().parent / "dashboards"


def built(runbook: str = RUNBOOK) -> dict[str, str]:
    """Every dashboard by the name of its file."""
    boards = [module.board() for module in (overview, performance, resources, errors, scaling)]
    return {f"{board.name}.json": _text(board.built(runbook)) for board in boards}


def _text(dashboard: object) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards.")
    parser.add_argument("--runbook", default=RUNBOOK, help="where docs/runbook.md can be read")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    for name, text in built(told.runbook).items():
        (told.folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
