"""The parts of an answer that only the model decides, as JSON bytes ready to be copied."""

from __future__ import annotations

from typing import Any

import msgspec

from core.model import CATEGORIES, DECISIONS, HUNDREDTHS, LEVELS, Model
from core.ratios import INPUTS, MODELS, ZONES

_NUMBER_BYTES = 40
_MARK = "\x00observed\x00"


def points_number(hundredths: int) -> int | float:
    """Points as a JSON number without a needless fraction."""
    return hundredths // HUNDREDTHS if hundredths % HUNDREDTHS == 0 else hundredths / HUNDREDTHS


class Fragments:
    """Bytes per characteristic, attribute, category and rule, in the order that core.scorer indexes them."""

    def __init__(self, model: Model) -> None:
        self.reason_heads: list[bytes] = []
        self.reason_tails: list[bytes] = []
        self.codes: list[bytes] = []
        self.first_code: list[int] = []
        self.n_codes: list[int] = []
        self._add_reasons(model)
        self._add_categories(model)
        self._add_rules(model)
        self._add_distress()
        self.levels = [_json(level) for level in LEVELS]
        self.decisions = [_json(decision) for decision in DECISIONS]
        self.base = b',"base":' + _json(points_number(model.base)) + b',"categories":['
        reference = {"id": model.id, "version": model.version, "sha256": model.sha256.hex()}
        self.tail = b',"model":' + _json(reference) + b"}"
        self.size = self._size(model)

    def _add_reasons(self, model: Model) -> None:
        for c in model.characteristics:
            for a in c.attributes:
                reason = {
                    "code": a.code,
                    "characteristic": c.name,
                    "category": c.category,
                    "points": points_number(a.points),
                    "observed": _MARK,
                    "attribute": a.label,
                    "missing": a.missing,
                    "message": a.message,
                }
                head, _, tail = _json(reason).partition(_json(_MARK))
                self.reason_heads.append(head)
                self.reason_tails.append(tail)
            feature = model.features[c.feature]
            values = feature.values or ()
            self.first_code.append(len(self.codes))
            self.n_codes.append(len(values))
            self.codes.extend(value.encode() if feature.is_flag else _json(value) for value in values)

    def _add_categories(self, model: Model) -> None:
        self.category_order = [CATEGORIES.index(category.name) for category in model.categories]
        self.category_heads, self.category_tails = [], []
        for place, category in enumerate(model.categories):
            highest = sum(worst for _, worst in model.spans(category.name))
            self.category_heads.append((b"," if place else b"") + b'{"name":' + _json(category.name) + b',"points":')
            self.category_tails.append(b',"max_points":' + _json(points_number(highest)) + b"}")

    def _add_rules(self, model: Model) -> None:
        self.overrides = [_applied(o.code, o.floor, o.decision, o.legal, o.message) for o in model.overrides]
        floors = [floor for category in model.categories for floor in category.floors]
        self.floors = [_applied(f.code, f.level, model.decisions[f.level], False, f.message) for f in floors]
        self.floor_above = []
        for f in floors:
            above = [place for place, g in enumerate(floors) if g.category == f.category and g.points > f.points]
            self.floor_above.append(min(above, key=lambda place: floors[place].points, default=-1))

    def _add_distress(self) -> None:
        self.distress_heads = [b'{"model":' + _json(name) + b',"value":' for name in MODELS]
        self.zones = [_json(zone) for name in MODELS for zone in ZONES[name]]
        self.inputs: list[bytes] = []
        self.first_input: list[int] = []
        for name in MODELS:
            self.first_input.append(len(self.inputs))
            self.inputs.extend(_json(field) for field in INPUTS[name])

    def _size(self, model: Model) -> int:
        """An upper bound of the bytes of an answer, less what the caller adds."""
        prepared = [
            self.reason_heads, self.reason_tails, self.codes, self.category_heads, self.category_tails, self.overrides,
            self.floors, self.distress_heads, self.zones, self.inputs, [self.base, self.tail],
        ]  # fmt: skip
        fixed = sum(len(part) + 1 for parts in prepared for part in parts)
        numbers = len(model.characteristics) + len(CATEGORIES) + len(MODELS) + 8
        longest_code = max((len(code) for code in self.codes), default=0)
        return fixed + numbers * _NUMBER_BYTES + longest_code * len(model.characteristics) + 1024


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _applied(code: str, floor: str, decision: str, legal: bool, message: str) -> bytes:
    return _json({"code": code, "floor": floor, "decision": decision, "legal": legal, "message": message})
