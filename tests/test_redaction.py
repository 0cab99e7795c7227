"""What is left of a record once a business is erased: how the score came about, and nobody's name."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from shipped import TODAY, profile, scorer
from strategies import all_findings, profiles

from app import wire
from app.evidence.base import Findings, Gathered, ScreeningFacts, members
from app.records import Answer, Record
from app.redaction import redact

HIT = wire.Hit(
    subject="/ownership/owners/0/name",
    list="ofac-sdn",
    list_version="2026-11-20",
    kind="sanction",
    entity_id="NK-maria-7",
    entity_digest="00" * 16,
    matched_name="Maria Musterfrau",
    score=0.93,
    explanation="Maria Musterfrau is written as on the list",
)
EVIDENCE = [
    wire.Evidence("watchlist", "ok", "2026-11-20", "2026-11-23T14:00:00.000Z"),
    wire.Evidence("registry", "timeout"),
]
FOUND = Findings(ScreeningFacts("potential", False, 12.5, True))


def recorded(made: wire.Profile, findings: Findings, hits: list[wire.Hit]) -> Record:
    screening = msgspec.json.encode(wire.Screening(findings.screening.status, hits))
    found = Gathered(findings, screening, members(EVIDENCE), degraded=True)
    result = scorer().assess(made, findings, TODAY).record()
    return Record(1, result, found.findings, found.screening, found.own_rows, found.degraded)


def rendered(record: bytes) -> wire.Assessment:
    """The answer as it is made of a stored record whose row has lost its business."""
    opened = msgspec.msgpack.decode(record, type=Record)
    found = Gathered(opened.findings, opened.screening, opened.evidence[1:-1], opened.degraded)
    answer = Answer(bytes(16), b"null", scorer().restore(opened.result), found).render(True)
    return msgspec.json.decode(answer, type=wire.Assessment, strict=True)


def test_no_hit_is_left_and_everything_else_is() -> None:
    record = msgspec.msgpack.encode(recorded(profile(name="Acme Trading"), FOUND, [HIT, HIT]))
    left = redact(record)
    for named in (b"Maria", b"NK-maria-7", b"owners", b"ofac", b"Acme"):
        assert named not in left
    before, after = rendered(record), rendered(left)
    assert len(before.screening.hits) == 2
    assert after == msgspec.structs.replace(before, screening=wire.Screening("potential"))
    assert after.evidence == EVIDENCE
    assert after.degraded
    assert msgspec.msgpack.decode(left, type=Record).findings == FOUND


def test_a_record_is_redacted_once() -> None:
    record = msgspec.msgpack.encode(recorded(profile(), FOUND, [HIT]))
    assert redact(redact(record)) == redact(record) != record


def test_a_record_without_hits_stays_as_it_is() -> None:
    record = msgspec.msgpack.encode(recorded(profile(), Findings(), []))
    assert redact(record) == record


@settings(max_examples=60)
@given(profiles(), all_findings())
def test_a_redacted_record_renders_whatever_was_assessed(made: wire.Profile, findings: Findings) -> None:
    record = msgspec.msgpack.encode(recorded(made, findings, [HIT]))
    assert rendered(redact(record)) == rendered(msgspec.msgpack.encode(recorded(made, findings, [])))


def test_what_a_later_version_says_of_a_hit_is_left_out_too() -> None:
    made = recorded(profile(), FOUND, [HIT])
    screening = json.loads(made.screening)
    screening["people"] = ["Maria Musterfrau"]
    screening["hits"][0]["born"] = "1970-01-01"
    later = msgspec.structs.replace(made, screening=json.dumps(screening).encode())
    left = redact(msgspec.msgpack.encode(later))
    assert b"Maria" not in left
    assert b"1970" not in left


def test_what_is_no_record_is_refused() -> None:
    damaged = msgspec.structs.replace(recorded(profile(), FOUND, []), screening=b"?")
    for record in (b"", b"\x00\x01\xff", msgspec.msgpack.encode(damaged)):
        with pytest.raises(ValueError, match="cannot be read by this version"):
            redact(record)
