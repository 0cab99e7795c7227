"""The compiled core and the pipeline around it, without a server: what one profile costs, piece by piece."""

from __future__ import annotations

import asyncio
import datetime as dt
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Measure, assessor_on
from samples import EXAMPLE, generated

from app import wire
from app.evidence.base import NOT_SCREENED
from app.ids import Uuid7
from app.profiles import read_profile
from app.store.sqlite import SqliteStore
from core.features import feature_row
from core.kernel import score_rows
from core.prescan import Prescan
from core.scorer import Scorer

TODAY = dt.date(2026, 11, 23).toordinal()
COUNT = 1000
ID = Uuid7().new()
BODIES = {"example": [EXAMPLE], "different": generated(COUNT), "sparse": generated(COUNT, missing=0.3)}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(wire.Profile).decode

bodies = pytest.mark.parametrize("kind", list(BODIES))


def whole(scorer: Scorer, body: bytes, full: bool = False) -> bytes:
    """Profile in, encoded answer out."""
    profile = read_profile(body)
    assessed = scorer.assess(profile, NOT_SCREENED.findings, TODAY)
    return assessed.render(
        None,
        _encode(profile.business.id),
        full,
        NOT_SCREENED.screening,
        NOT_SCREENED.evidence_rows,
        NOT_SCREENED.degraded,
    )


def test_kernel(measure: Measure, scorer: Scorer) -> None:
    card = scorer.card
    lines = len(scorer.model.characteristics)
    values = array("d")
    for body in BODIES["different"]:
        values.extend(feature_row(scorer.extractor, _decode(body), NOT_SCREENED.findings, TODAY))
    rows = memoryview(values).cast("B").cast("d", (COUNT, len(values) // COUNT))
    points = memoryview(bytearray(4 * COUNT * lines)).cast("i", (COUNT, lines))
    attributes = memoryview(bytearray(COUNT * lines)).cast("B", (COUNT, lines))
    target = f"<= 0.3 at 45 characteristics; these are {lines}"
    measure(lambda: score_rows(card, rows, points, attributes), per=COUNT, unit="row", target=target)
    assert sum(points[0, line] for line in range(lines)) > 0


@bodies
def test_prescan(measure: Measure, kind: str) -> None:
    check, sent = Prescan().check, BODIES[kind]

    def run() -> None:
        for body in sent:
            check(body)

    measure(run, per=sum(map(len, sent)) / 1000, unit="kB", target="<= 2")


@bodies
def test_decode(measure: Measure, kind: str) -> None:
    """The typed decoder alone, for context: the part that is not ours."""
    sent = BODIES[kind]
    measure(lambda: [_decode(body) for body in sent], per=len(sent), unit="profile")


@bodies
def test_features(measure: Measure, scorer: Scorer, kind: str) -> None:
    """Feature extraction with the distress models; making a list of the row is in it."""
    profiles, extractor, found = [_decode(body) for body in BODIES[kind]], scorer.extractor, NOT_SCREENED.findings

    def run() -> None:
        for profile in profiles:
            feature_row(extractor, profile, found, TODAY)

    measure(run, per=len(profiles), unit="profile")


@bodies
def test_assess(measure: Measure, scorer: Scorer, kind: str) -> None:
    """Decoded profile in, result out: features, distress models, kernel, sums, rules."""
    profiles, found = [_decode(body) for body in BODIES[kind]], NOT_SCREENED.findings

    def run() -> None:
        for profile in profiles:
            scorer.assess(profile, found, TODAY)

    measure(run, per=len(profiles), unit="profile")


@pytest.mark.parametrize("explain", ["top", "full"])
def test_render(measure: Measure, scorer: Scorer, explain: str) -> None:
    assessed = [scorer.assess(_decode(body), NOT_SCREENED.findings, TODAY) for body in BODIES["different"]]
    screening, evidence, full = NOT_SCREENED.screening, NOT_SCREENED.evidence_rows, explain == "full"

    def run() -> None:
        for one in assessed:
            one.render(ID, b'"cust-0042"', full, screening, evidence, False)

    measure(run, per=COUNT, unit="answer")


def test_record(measure: Measure, scorer: Scorer) -> None:
    assessed = [scorer.assess(_decode(body), NOT_SCREENED.findings, TODAY) for body in BODIES["different"]]
    measure(lambda: [one.record() for one in assessed], per=COUNT, unit="record")


def test_restore(measure: Measure, scorer: Scorer) -> None:
    records = [scorer.assess(_decode(body), NOT_SCREENED.findings, TODAY).record() for body in BODIES["different"]]
    measure(lambda: [scorer.restore(record) for record in records], per=COUNT, unit="record")


@bodies
def test_whole(measure: Measure, scorer: Scorer, kind: str) -> None:
    sent = BODIES[kind]

    def run() -> None:
        for body in sent:
            whole(scorer, body)

    measure(run, per=len(sent), unit="profile", target="<= 8")


def test_batch_core(measure: Measure, scorer: Scorer) -> None:
    """A thousand decoded profiles in one call."""
    profiles, found = [_decode(body) for body in BODIES["different"]], [NOT_SCREENED.findings] * COUNT
    measure(lambda: scorer.assess_many(profiles, found, TODAY), per=COUNT, unit="assessment", rate=True)


def test_batch(measure: Measure, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    """A thousand bodies through the pipeline in its slices: pre-scan, decode, features, score."""
    assessor = assessor_on(SqliteStore(tmp_path / "unused.db"))
    sent = BODIES["different"]

    async def run() -> list[Any]:
        return (await assessor.score_batch("default", sent, dry_run=True)).outcomes

    outcomes = measure(
        lambda: loop.run_until_complete(run()), per=COUNT, unit="assessment", rate=True, target=">= 60,000"
    )
    assert not any(isinstance(outcome, Exception) for outcome in outcomes)
