"""Answers as JSON: strict about the form, and read at pointers."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from app.evidence.providers.base import Absurd
from core.prescan import Prescan, Refused

Answer = TypeVar("Answer")

_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_prescan = Prescan().check


class Nothing:
    """Says that a pointer leads nowhere, which null does not."""


NOTHING = Nothing()


def read_json(body: bytes, decoder: msgspec.json.Decoder[Answer]) -> Answer:
    """The document of a body. Raises Absurd for what is no JSON of this form, is nested deeply or has a key twice."""
    try:
        _prescan(body)
        return decoder.decode(body)
    except Refused as refused:
        raise Absurd(f"the answer cannot be read ({refused.kind})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Absurd("the answer is not JSON of the form expected") from None


def at_pointer(document: Any, pointer: str) -> Any:
    """What stands at a pointer (RFC 6901), or NOTHING."""
    here = document
    for step in pointer.split("/")[1:]:
        if isinstance(here, dict):
            here = here.get(step.replace("~1", "/").replace("~0", "~"), NOTHING)
        elif isinstance(here, list) and _INDEX.fullmatch(step):
            here = here[int(step)] if int(step) < len(here) else NOTHING
        else:
            return NOTHING
    return here
