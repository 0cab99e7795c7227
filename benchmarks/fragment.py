"""The fragments of the model file: the features of the ratios and the characteristics of a fitted card, as YAML."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ratios import Ratio
from scorecard import Scored

# The names of a ratio's bins, worst first: of the adverse ones, and of the others by how many there are.
ADVERSE_GRADES = ("CRITICAL", "EXTREMELY_POOR", "VERY_POOR", "POOR")
GRADES = {
    1: ("GOOD",),
    2: ("FAIR", "GOOD"),
    3: ("WEAK", "FAIR", "GOOD"),
    4: ("WEAK", "FAIR", "GOOD", "STRONG"),
    5: ("WEAK", "FAIR", "SOUND", "GOOD", "STRONG"),
    6: ("WEAK", "FAIR", "SOUND", "GOOD", "VERY_GOOD", "STRONG"),
}
FIELD_WORDS = {"prior_revenue": "last year's revenue", "ebt": "profit before tax"}


def _percent(bound: float) -> str:
    return f"{100.0 * bound:.6g} %"


def _range_words(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{_percent(low)} or more" if low is not None else f"below {_percent(high or 0.0)}"
    return f"at least {_percent(low)} and below {_percent(high)}"


def _needs(formula: str) -> str:
    """The fields of a formula in words, the denominator's above zero."""
    above, below = (_fields(part) for part in formula.split(" / "))
    words = [FIELD_WORDS.get(name, name.replace("_", " ")) for name in above if name not in below]
    words += [f"a positive figure for {FIELD_WORDS.get(name, name.replace('_', ' '))}" for name in below]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _fields(expression: str) -> list[str]:
    tree = ast.parse(expression.replace("prior.", "prior_"), mode="eval")
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _attribute(when: str, points: int, adverse: bool, code: str, message: str) -> str:
    mark = "adverse: true, " if adverse else ""
    return f'      - {{when: {when}, points: {points / 100:.2f}, {mark}code: FIN_{code}, message: "{message}"}}'


def grades(scored: Scored) -> list[str]:
    """The names of the bins in the order of their bounds."""
    adverse = sum(scored.adverse)
    worst_first = [*ADVERSE_GRADES[len(ADVERSE_GRADES) - adverse :], *GRADES[len(scored.points) - adverse]]
    return worst_first if scored.ratio.direction == "falling" else worst_first[::-1]


def attributes(scored: Scored) -> Iterator[str]:
    """The attribute lines of one characteristic, in the order of its bounds, missing last."""
    ratio, names = scored.ratio, grades(scored)
    bounds = [None, *scored.binned.bounds.tolist(), None]
    for at, points in enumerate(scored.points.tolist()):
        low, high = bounds[at], bounds[at + 1]
        when = f'"{"(-inf" if low is None else f"[{low:g}"}, {"inf" if high is None else f"{high:g}"})"'
        meaning = ratio.weak if scored.adverse[at] else ratio.strong if points == 0 else ""
        message = ratio.subject.format(_range_words(low, high)) + (f", {meaning}." if meaning else ".")
        yield _attribute(when, points, scored.adverse[at], f"{ratio.code}_{names[at]}", message)
    missing = f"{ratio.title} is not known: it takes {_needs(ratio.formula)}."
    yield _attribute("missing", scored.missing, False, f"{ratio.code}_MISSING", missing)


def features_yaml(ratios: Sequence[Ratio]) -> str:
    return "\n".join(f'  {ratio.name}: {{kind: ratio, formula: "{ratio.formula}"}}' for ratio in ratios)


def characteristics_yaml(card: Sequence[Scored]) -> str:
    lines: list[str] = []
    for scored in card:
        ratio = scored.ratio
        lines += [f"  - name: {ratio.name}", f"    title: {ratio.title}", "    category: financial"]
        lines += [f"    feature: {ratio.name}", f"    direction: {ratio.direction}", "    attributes:"]
        lines += attributes(scored)
    return "\n".join(lines)
