"""A plain second reading of what an assessment claims, against the published definition of its model."""

from __future__ import annotations

from service import Json

LEVELS = ["low", "medium", "high", "critical"]
DECISIONS = ["approve", "review", "decline"]


def hundredths(number: float) -> int:
    """A number of at most two decimals as an integer, so that sums are exact."""
    whole = round(number * 100)
    assert abs(whole - number * 100) < 1e-6, f"{number} has more than two decimals"
    return whole


class Definition:
    """What `GET /v1/models/{id}/{version}` says, in the shape that the checks below need. Points are hundredths."""

    def __init__(self, definition: Json) -> None:
        self.base = hundredths(definition["base"])
        self.bands = [(band["level"], hundredths(band["from"])) for band in definition["bands"]]
        self.decisions = definition["decisions"]
        self.characteristics = {c["name"]: c for c in definition["characteristics"]}
        self.overrides = {o["code"]: o for o in definition["overrides"]}
        self.categories = {k["name"]: k for k in definition["categories"]}
        self.span = {name: self._span(c) for name, c in self.characteristics.items()}
        self.group_of = {name: c["exclusive"] for name, c in self.characteristics.items() if c.get("exclusive")}
        self.groups: dict[str, tuple[int, int]] = {}
        for name, group in self.group_of.items():
            best, worst = self.groups.get(group, self.span[name])
            self.groups[group] = (min(best, self.span[name][0]), max(worst, self.span[name][1]))

    @staticmethod
    def conditions(attribute: Json) -> list[str]:
        when = attribute["when"]
        return when if isinstance(when, list) else [when]

    def _span(self, characteristic: Json) -> tuple[int, int]:
        points = [
            hundredths(attribute["points"])
            for attribute in characteristic["attributes"]
            if "not_applicable" not in self.conditions(attribute)
        ]
        return min(points), max(points)

    def alone(self, category: str | None = None) -> list[str]:
        return [
            name
            for name, c in self.characteristics.items()
            if name not in self.group_of and category in (None, c["category"])
        ]

    def groups_of(self, category: str) -> set[str]:
        return {group for name, group in self.group_of.items() if self.characteristics[name]["category"] == category}

    def band(self, score: int) -> str:
        return str([level for level, mark in self.bands if score >= mark][-1])


def check(answer: Json, definition: Definition) -> None:
    """Everything that a full answer says about itself must follow from its reasons and the model."""
    reasons = {reason["characteristic"]: reason for reason in answer["reasons"]}
    assert sorted(reasons) == sorted(definition.characteristics)
    assert len(answer["reasons"]) == len(reasons)
    points = {name: hundredths(reason["points"]) for name, reason in reasons.items()}
    score = hundredths(answer["score"])
    assert 0 <= score <= 100_00
    assert hundredths(answer["base"]) == definition.base
    assert definition.base + sum(points.values()) == score
    check_reasons(reasons, definition)
    check_ranking(answer["reasons"], definition)
    check_categories(answer["categories"], points, definition)
    check_missing(answer, reasons, points, definition)
    check_level(answer, definition)


def check_reasons(reasons: dict[str, Json], definition: Definition) -> None:
    for name, reason in reasons.items():
        characteristic = definition.characteristics[name]
        [attribute] = [a for a in characteristic["attributes"] if a["code"] == reason["code"]]
        assert reason["category"] == characteristic["category"]
        assert hundredths(reason["points"]) == hundredths(attribute["points"])
        assert reason["message"] == attribute["message"]
        conditions = definition.conditions(attribute)
        assert reason["missing"] is ("missing" in conditions or attribute.get("unknown", False))
        if "missing" in conditions:
            assert reason["observed"] is None
        if isinstance(reason["observed"], float | int) and not isinstance(reason["observed"], bool):
            if "not_applicable" not in conditions:
                assert any(holds(condition, reason["observed"]) for condition in conditions), reason
        elif isinstance(reason["observed"], str) and "not_applicable" not in conditions:
            assert reason["observed"] in [condition.removeprefix("=") for condition in conditions], reason


def holds(interval: str, value: float) -> bool:
    """Whether a number lies in an interval such as [0, 2.5)."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    return (low < value or (interval[0] == "[" and low == value)) and (
        value < high or (interval[-1] == "]" and high == value)
    )


def gains(reasons: list[Json], definition: Definition) -> list[int]:
    """Points above the characteristic's best attribute, of each reason in order."""
    found = []
    for reason in reasons:
        best, _ = definition.span[reason["characteristic"]]
        found.append(max(hundredths(reason["points"]) - best, 0))
    return found


def check_ranking(reasons: list[Json], definition: Definition) -> None:
    ranked = gains(reasons, definition)
    assert ranked == sorted(ranked, reverse=True)


def check_categories(categories: list[Json], points: dict[str, int], definition: Definition) -> None:
    assert sorted(category["name"] for category in categories) == sorted(definition.categories)
    for category in categories:
        name = category["name"]
        own = [
            p for characteristic, p in points.items() if definition.characteristics[characteristic]["category"] == name
        ]
        assert hundredths(category["points"]) == sum(own)
        worst = sum(definition.span[characteristic][1] for characteristic in definition.alone(name))
        worst += sum(definition.groups[group][1] for group in definition.groups_of(name))
        assert hundredths(category["max_points"]) == worst


def check_missing(answer: Json, reasons: dict[str, Json], points: dict[str, int], definition: Definition) -> None:
    """Completeness and range, each missing characteristic (and each group with one) at its best and at its worst."""
    low = high = hundredths(answer["score"])
    known = weight = 0
    for name in definition.alone():
        best, worst = definition.span[name]
        weight += worst - best
        if reasons[name]["missing"]:
            low += best - points[name]
            high += worst - points[name]
        else:
            known += worst - best
    for group, (best, worst) in definition.groups.items():
        weight += worst - best
        lacking = [n for n, g in definition.group_of.items() if g == group and reasons[n]["missing"]]
        if lacking:
            low += best - sum(points[n] for n in lacking)
            high += worst - sum(points[n] for n in lacking)
        else:
            known += worst - best
    assert [hundredths(bound) for bound in answer["score_range"]] == [low, high]
    assert abs(answer["completeness"] - known / weight) < 1e-4
    assert (answer["completeness"] == 1) is (known == weight)


def check_level(answer: Json, definition: Definition) -> None:
    score = hundredths(answer["score"])
    floors = {}
    for category in answer["categories"]:
        for floor in definition.categories[category["name"]].get("floors", []):
            if hundredths(category["points"]) >= hundredths(floor["points"]):
                floors[floor["code"]] = floor
    applied = {override["code"]: override for override in answer["overrides"]}
    assert len(applied) == len(answer["overrides"])
    for code, override in applied.items():
        told = definition.overrides.get(code) or floors[code]
        assert override["floor"] == told.get("floor", told.get("level"))
        assert override["message"] == told["message"]
        assert override["legal"] is told.get("legal", False)
    lifted = [
        definition.band(score),
        *(o["floor"] for o in answer["overrides"]),
        *(f["level"] for f in floors.values()),
    ]
    assert answer["level"] == max(lifted, key=LEVELS.index)
    decided = [definition.decisions[answer["level"]], *(o["decision"] for o in answer["overrides"])]
    assert answer["decision"] == max(decided, key=DECISIONS.index)
    assert answer["effective"] == {"level": answer["level"], "decision": answer["decision"], "override_id": None}
