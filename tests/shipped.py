"""The model that the package ships, ready for tests, and variants of its text."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Any

from oracle import Value
from strategies import AS_OF

from app import wire
from app.evidence.base import Findings
from core.catalogue import Catalogue
from core.features import feature_row
from core.loader import load
from core.model import Model, ModelRefused
from core.scorer import Scorer

TODAY = AS_OF.toordinal()
CATALOGUE = Catalogue(wire.Profile, Findings)
TEXT = files("core").joinpath("models/kyb-1.1.0.yaml").read_bytes().decode()
NO_FINDINGS = Findings()


@cache
def model() -> Model:
    return load(TEXT.encode(), "kyb-1.1.0.yaml", CATALOGUE)


@cache
def scorer() -> Scorer:
    return Scorer(model(), CATALOGUE)


def changed(*changes: tuple[str, str]) -> str:
    """The shipped text with replacements, each of which must apply to exactly one place."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the model"
        text = text.replace(old, new)
    return text


def faults(text: str) -> list[str]:
    """What is wrong with a model file; nothing where it loads and can be scored with."""
    try:
        sound = load(text.encode(), "test", CATALOGUE)
    except ModelRefused as refused:
        return refused.faults
    Scorer(sound, CATALOGUE)
    return []


@cache
def with_features(features: str) -> Scorer:
    """A scorer of the shipped model with further features, given as lines of YAML."""
    text = changed(("\nfeatures:\n", f"\nfeatures:\n{features}\n"))
    return Scorer(load(text.encode(), "test", CATALOGUE), CATALOGUE)


def row(of: Scorer, profile: Any, findings: Any = NO_FINDINGS, as_of: int = TODAY) -> dict[str, Value]:
    """The features that the core reads, by name, categories as text and what is missing as None."""
    found = feature_row(of.extractor, profile, findings, as_of)
    named = zip(of.model.features.values(), found, strict=True)
    return {f.name: None if math.isnan(x) else x if f.values is None else f.values[int(x)] for f, x in named}


def profile(**parts: Any) -> wire.Profile:
    """A profile with the two required fields; further fields of `business`, and whole other parts by name."""
    whole = {name: parts.pop(name) for name in ("ownership", "financials", "signals") if name in parts}
    return wire.Profile(wire.Business(**{"name": "Acme", "jurisdiction": "DE", **parts}), **whole)
