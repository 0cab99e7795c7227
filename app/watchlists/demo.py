"""The demonstration list, `demo.jsonl`: fifteen parties for trying the service out.

Every name, number and address in it is invented: no entry stands for a real party, and none of its registration, tax or
IMO numbers was given out by a register. It must never be used as evidence; its programmes begin with `DEMO-`.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import as_file, files

from app.watchlists.reading import ReadList, read

NAME = "demo"
_FILE = files(__package__).joinpath("demo.jsonl")


def read_demo() -> ReadList:
    """The demonstration list, read like any other."""
    with as_file(_FILE) as path:
        return read(path)


def demo_sha256() -> bytes:
    """Of its file, like any other list's."""
    return sha256(_FILE.read_bytes()).digest()
