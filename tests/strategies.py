"""Profiles and findings of every kind: each field missing or given, extremes, zero divisors, six-month statements."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from app import wire
from app.evidence.base import Findings, ScreeningFacts
from app.facts import ExternalFacts

AS_OF = dt.date(2026, 11, 23)

Choose = Callable[[Sequence[Any]], Any]

COUNTRIES = (
    *("DE",) * 40, "PL", "FR", "US", "GB", "UK", "EL", "XK", "US-DE", "DE-BY", "UK-ENG", "KP", "IR", "MM",
    "BG", "RU", "AF", "TT", "PA", "KY", "NG", "CN", "BR", "LU", "VU", "NO", "TW",
)  # fmt: skip
INDUSTRIES = (
    ("nace", "46.90"), ("nace", "64.1"), ("nace", "92"), ("nace", "C24.41"), ("nace", "01"), ("nace", "66 12"),
    ("naics", "522110"), ("naics", "11"), ("naics", "332992"), ("sic", "6021"), ("sic", "01"), ("isic", "6419"),
    ("isic", "9200"), ("mcc", "7995"), ("mcc", "6051"), ("mcc", "5411"),
)  # fmt: skip
DATES = tuple(dt.date.fromisoformat(day) for day in (
    "1900-01-01", "1996-02-29", "2000-02-29", "2009-05-01", "2020-12-31", "2024-02-29", "2025-06-30", "2025-11-23",
    "2025-12-31", "2026-11-23", "2026-11-24",
))  # fmt: skip
NUMBERS = (0, 0, 1, 2, 3, 5, 7, 10, 12, 25, 49.999999999, 50, 57, 75, 99.5, 100, 1e-12, 1e-300, 0.1, 1 / 3, 1e9, 1e15)
MANTISSAS = (-250, -30, -1, 0, 0, 1, 3, 7, 11, 50, 60, 90, 99, 100, 120, 150, 250, 400, 500, 600, 999.123456789)
SCALES = (1.0, 1000.0, 1e6, 1e-3, 1e12)
COUNTS = (0, 0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 30, 400, 10**9)
TEXTS = {"currency": ("EUR", "USD", "PLN", "GBP", "JPY", "ZZZ"), "lei": ("529900T8BM49AURSDO55",)}
NAMES = ("Acme Trading GmbH", "Ünal & Söhne", "甲乙丙", 'a "quoted" \\ name')
MISSING = (True, False)
MOSTLY_GIVEN = (True, *(False,) * 15)


def profile(choose: Choose) -> wire.Profile:
    """A valid profile; `choose` takes one of a sequence."""
    return _struct(wire.Profile, choose, choose([MISSING, MOSTLY_GIVEN, MOSTLY_GIVEN]))


def findings(choose: Choose) -> Findings:
    """Findings of every status."""
    flag = [None, False, False, False, False, True]
    facts = ScreeningFacts(
        status=choose(["clear", "clear", "potential", "confirmed", "not_screened"]),
        business_confirmed=choose(flag),
        sanctioned_share_pct=choose([None, 0.0, 0.0, 0.0, 25.0, 49.9999999999, 50.0, 100.0]),
        pep_found=choose(flag),
    )
    external = choose([None, ExternalFacts, ExternalFacts])
    return Findings(facts, None if external is None else _struct(external, choose, choose([MISSING, MOSTLY_GIVEN])))


@st.composite
def profiles(draw: st.DrawFn) -> wire.Profile:
    """profile() as a hypothesis strategy."""
    return profile(lambda items: draw(st.sampled_from(items)))


@st.composite
def all_findings(draw: st.DrawFn) -> Findings:
    """findings() as a hypothesis strategy."""
    return findings(lambda items: draw(st.sampled_from(items)))


def many(count: int, seed: int) -> Iterator[tuple[wire.Profile, Findings]]:
    """Profiles and findings in bulk, the same every time."""
    random = Random(seed)
    for _ in range(count):
        yield profile(random.choice), findings(random.choice)


@dataclass(frozen=True)
class _Field:
    """One field of a struct type: its type without optionality and metadata."""

    name: str
    required: bool
    info: Any
    country: bool


@cache
def _fields(of: type) -> tuple[_Field, ...]:
    info = inspect.type_info(of)
    assert isinstance(info, inspect.StructType)
    return tuple(_field(field.name, field.required, field.type) for field in info.fields)


def _field(name: str, required: bool, info: Any) -> _Field:
    country = False
    while isinstance(info, (inspect.Metadata, inspect.UnionType)):
        if isinstance(info, inspect.Metadata):
            country = country or (info.extra or {}).get("kind") == "country"
            info = info.type
        else:
            (info,) = (member for member in info.types if not isinstance(member, inspect.NoneType))
    return _Field(name, required, info, country)


def _struct(of: type, choose: Choose, missing: Sequence[bool]) -> Any:
    if of is wire.Industry:
        return wire.Industry(*choose(INDUSTRIES))
    scale = choose(SCALES)
    values = {
        field.name: _value(field, choose, missing, scale)
        for field in _fields(of)
        if field.required or not choose(missing)
    }
    if of is wire.Ownership and values.get("owners"):
        values["owners"] = _within_hundred(values["owners"])
    return of(**values)


def _value(field: _Field, choose: Choose, missing: Sequence[bool], scale: float) -> Any:
    info = field.info
    if isinstance(info, inspect.StructType):
        return _struct(info.cls, choose, missing)
    if isinstance(info, inspect.ListType):
        member = _field(field.name, True, info.item_type)
        return [_value(member, choose, missing, scale) for _ in range(choose((0, 1, 1, 2, 3, 4)))]
    if isinstance(info, inspect.LiteralType):
        return choose(info.values)
    if isinstance(info, inspect.BoolType):
        return choose((False, False, False, False, True))
    if isinstance(info, inspect.DateType):
        return choose(DATES)
    if isinstance(info, inspect.StrType):
        return choose(COUNTRIES if field.country else TEXTS.get(field.name, NAMES))
    if isinstance(info, inspect.IntType):
        return int(_bounded(choose(COUNTS), info.ge, info.le))
    if info.le == wire.NUMBER_LIMIT and choose((True, True, True, False)):
        return float(_bounded(choose(MANTISSAS) * scale, info.ge, info.le))
    return float(_bounded(choose(NUMBERS), info.ge, info.le))


def _bounded(value: float, low: float | None, high: float | None) -> float:
    value = abs(value) if low is not None and low >= 0 else value
    return max(low if low is not None else value, min(high if high is not None else value, value))


def _within_hundred(owners: list[wire.Owner]) -> list[wire.Owner]:
    """The same owners with shares that add up to at most a hundred."""
    total = sum(owner.share_pct or 0.0 for owner in owners)
    if total <= 100:
        return owners
    shrunk = [owner.share_pct and owner.share_pct * 100 / total for owner in owners]
    return [msgspec.structs.replace(owner, share_pct=share) for owner, share in zip(owners, shrunk, strict=True)]
