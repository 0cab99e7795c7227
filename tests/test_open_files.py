"""How many files, and so connections, a worker may open: a container often starts with a soft limit of 1,024."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import service
from service import serving


def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "COMMAND", ("prlimit", "--nofile=300:4000", *service.COMMAND))
    with serving(tmp_path) as running:
        shown = running.client().get("/metrics").body.decode()
    assert re.findall(r"^process_max_fds (\d+)", shown, re.MULTILINE) == ["4000"]
