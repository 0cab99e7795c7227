"""What makes a well-formed profile wrong all the same.

The slow path that names every fault: taken only when the fast one, in core.features, saw one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from core.catalogue import Catalogue, Field
from core.document import nearest
from core.extraction import Countries, ExtractionPlan
from core.rounding import rounded

MAX_SHARES_PCT = 100.5
DAYS_AHEAD = 1
MAX_FAULTS = 20


class ProfileInvalid(Exception):
    """A profile whose values cannot be: (RFC 6901 pointer, what would be right) for each."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in faults))
        self.faults = faults


def profile_faults(profile: Any, catalogue: Catalogue, plan: ExtractionPlan, as_of: int) -> list[tuple[str, str]]:
    """Every fault of a profile, at most MAX_FAULTS. as_of: proleptic ordinal of the day of scoring."""
    return [fault for fault, _ in zip(_all(profile, catalogue, plan, as_of), range(MAX_FAULTS), strict=False)]


def _all(profile: Any, catalogue: Catalogue, plan: ExtractionPlan, as_of: int) -> Iterator[tuple[str, str]]:
    for field in catalogue.of_kind("country"):
        for pointer, text in _values(profile, field):
            if plan.countries.find(text) < 0:
                yield pointer, _country_fault(text, plan.countries)
    for field in catalogue.of_kind("industry"):
        for pointer, industry in _values(profile, field):
            if plan.industries.find(industry.scheme, industry.code) < 0:
                yield f"{pointer}/code", f'"{industry.code}" is not a code of the scheme {industry.scheme}'
    for field in catalogue.of_kind("date"):
        for pointer, date in _values(profile, field):
            if date.toordinal() > as_of + DAYS_AHEAD:
                last = dt.date.fromordinal(as_of + DAYS_AHEAD)
                yield pointer, f"{date} lies in the future; the last date accepted today is {last} (UTC)"
    for field in catalogue.fields.values():
        for pointer, text in _values(profile, field) if field.shape else ():
            if not _has_shape(text, field.shape):
                yield pointer, f'"{text}" is not {_shape_words(field.shape)}'
    total = 0.0
    for _, share in _values(profile, catalogue.fields["ownership.owners[].share_pct"]):
        total += share  # one by one, as the fast path does: sum() of Python 3.12 on would round otherwise
    if rounded(total) > MAX_SHARES_PCT:
        detail = f"the owners' shares add up to {total:.9g} %; effective shares cannot exceed {MAX_SHARES_PCT} %"
        yield "/ownership/owners", detail


_SHAPES = {
    "A": (set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "capital letters"),
    "9": (set("0123456789"), "digits"),
    "X": (set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), "capital letters or digits"),
}


def _has_shape(text: str, shape: str) -> bool:
    return len(text) == len(shape) and all(letter in _SHAPES[kind][0] for letter, kind in zip(text, shape, strict=True))


def _shape_words(shape: str) -> str:
    return " and then ".join(f"{len(list(run))} {_SHAPES[kind][1]}" for kind, run in groupby(shape))


def _country_fault(text: str, countries: Countries) -> str:
    upper = text.upper()
    withdrawn = countries.table.withdrawn.get(upper.partition("-")[0])
    if withdrawn is not None:
        return f'"{text}" was withdrawn from ISO 3166-1; use {withdrawn}'
    hint = f'; did you mean "{upper}"?' if countries.find(upper) >= 0 else nearest(upper, countries.index)
    return f'"{text}" is not an ISO 3166-1 alpha-2 country code{hint}'


def _values(root: Any, field: Field) -> Iterator[tuple[str, Any]]:
    """Pointer and value of a field wherever it is given."""
    if field.path.startswith("evidence."):
        return
    found = [("", root)]
    for step in field.steps:
        name, into, _ = step.partition("[]")
        found = [(f"{pointer}/{name}", getattr(value, name)) for pointer, value in found]
        found = [(pointer, value) for pointer, value in found if value is not None]
        if into:
            found = [(f"{pointer}/{i}", member) for pointer, members in found for i, member in enumerate(members)]
    yield from found
