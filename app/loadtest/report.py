"""A load test's report as three files: JSON that can be read again, Markdown, and one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.loadtest.markdown import markdown
from app.loadtest.page import page
from app.loadtest.results import Report

NAME = "report.json"


class ReportUnreadable(Exception):
    """The text says which file, what is wrong with it, and what would be right."""


def write(report: Report, folder: Path, compare: Report | None = None) -> list[Path]:
    """Write all three into a folder that is made where it is not there. compare: an earlier run to compare with."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        NAME: msgspec.json.encode(report) + b"\n",
        "report.md": markdown(report, compare).encode(),
        "report.html": page(report, compare).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def read(path: Path) -> Report:
    """The report in a file, or in the folder that was written to. Raises ReportUnreadable."""
    if path.is_dir():
        path = path / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        raise ReportUnreadable(f"{path} is not there; name a folder that a load test wrote, or its {NAME}") from None
    except OSError as error:
        raise ReportUnreadable(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise ReportUnreadable(
            f"{path} is JSON, but no load test's report: {error}; name the {NAME} of a run, of no later version"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportUnreadable(f"{path} is not JSON, or was cut off: {error}; name the {NAME} of a run") from None
