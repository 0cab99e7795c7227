"""What the README shows is what a newcomer gets."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from app.evidence.base import NOT_SCREENED
from app.ids import Uuid7
from app.profiles import read_profile
from app.registry import CATALOGUE, select
from app.settings import load
from core.scorer import Scorer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MADE_ANEW = {"id", "created_at"}


def shown_answer() -> dict[str, Any]:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    answer: dict[str, Any] = json.loads(blocks[0])
    return answer


def real_answer(as_of: str) -> dict[str, Any]:
    (name,) = re.findall(r"@examples/(\S+\.json)", README)
    profile = read_profile((ROOT / "examples" / name).read_bytes())
    scorer = Scorer(select(load({}).settings.model), CATALOGUE)
    made = scorer.assess(profile, NOT_SCREENED.findings, dt.date.fromisoformat(as_of).toordinal())
    business_id = msgspec.json.encode(profile.business.id)
    answer: dict[str, Any] = json.loads(
        made.render(Uuid7().new(), business_id, False, NOT_SCREENED.screening, NOT_SCREENED.evidence_rows)
    )
    return answer


def test_the_answer_shown_is_the_answer_given_in_part() -> None:
    shown = shown_answer()
    real = real_answer(shown["as_of"])
    assert shown.keys() <= real.keys()
    for name, value in shown.items():
        if name in MADE_ANEW:
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            assert all(item in real[name] for item in value), name
        else:
            assert value == real[name], name


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
