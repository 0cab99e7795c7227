"""One JSON object a line, in plain ASCII: nothing in it can begin a line of its own or steer a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping


def line(document: Mapping[str, object]) -> str:
    """The document without a line break. Control characters and all that is not ASCII are escaped."""
    return json.dumps(document, separators=(",", ":"))
