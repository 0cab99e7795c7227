"""A finding: what was looked at, what was seen, whether it is as it should be, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from app.store.base import StoreRefused

Verdict = Literal["ok", "look", "wrong"]

VERDICTS: tuple[Verdict, ...] = ("ok", "look", "wrong")
"""The better before the worse."""

Figures = Mapping[str, Any]

_UNITS = ("B", "kB", "MB", "GB", "TB")


class Finding(Struct, frozen=True):
    """about: what was looked at.  seen: in words.  action: what to do about it, nothing where it is ok.
    figures: what was seen as numbers, for programs."""

    about: str
    verdict: Verdict
    seen: str
    action: str = ""
    figures: Figures = {}


def ok(about: str, seen: str, **figures: Any) -> Finding:
    return Finding(about, "ok", seen, "", figures)


def look(about: str, seen: str, action: str, **figures: Any) -> Finding:
    return Finding(about, "look", seen, action, figures)


def wrong(about: str, seen: str, action: str, **figures: Any) -> Finding:
    return Finding(about, "wrong", seen, action, figures)


def refused(about: str, refusal: StoreRefused) -> Finding:
    """What a store would say that does not open."""
    return wrong(about, sentence(refusal.fault), refusal.remedy)


def judged(about: str, verdict: Verdict, seen: str, action: str, **figures: Any) -> Finding:
    """A finding whose action is told only where it is not ok."""
    return Finding(about, verdict, seen, "" if verdict == "ok" else action, figures)


def by_share(part: float, whole: float, look_at: float, wrong_at: float) -> Verdict:
    """How full something is: ok below look_at of it, wrong from wrong_at. Nothing fits into nothing."""
    share = part / whole if whole > 0 else 1.0
    return by_measure(share, look_at, wrong_at)


def by_measure(value: float, look_at: float, wrong_at: float) -> Verdict:
    return "wrong" if value >= wrong_at else "look" if value >= look_at else "ok"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict; ok where there is none."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="ok")


def sentence(text: str) -> str:
    """A sentence as a part of a line: without its full stop, and beginning small unless with a name."""
    text = text.removesuffix(".")
    first, _, rest = text.partition(" ")
    return f"{first.lower()} {rest}" if first.istitle() and rest else text


def bytes_text(size: float) -> str:
    """`1.4 GB` of 1,400,000,000."""
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def time_text(seconds: float) -> str:
    """A time as people say it, to two figures or units: `0.4 ms`, `250 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def share_text(part: float, whole: float) -> str:
    """`12 %`; of nothing it is 0."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def counted(number: int, noun: str) -> str:
    """`1 session`, `2,000 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
