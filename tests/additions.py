"""What the tests add to the text of the shipped model, one piece at a time."""

from __future__ import annotations

from shipped import changed

ADDED = """
  - name: x_layers
    title: Layers
    category: reputational
    feature: ownership_layers
    attributes:
      - {when: "(-inf, 2)", points: 0, code: X_FEW, message: "Few."}
      - {when: "[2, inf)", points: 0, adverse: true, code: X_MANY, message: "Many."}
      - {when: missing, points: 0, code: X_MISSING, message: "Unknown."}
"""
RULE = """
  - {code: X_RULE, when: [{is_shell_bank: "true"}], floor: high, decision: review, message: "A rule."}
"""


def put(section: str, lines: str) -> str:
    """The shipped text with lines put first into a section."""
    return changed((f"\n{section}:\n", f"\n{section}:\n{lines.strip(chr(10))}\n"))


def added(*changes: tuple[str, str]) -> str:
    """The shipped text with one more characteristic, changed."""
    block = ADDED
    for old, new in changes:
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    return put("characteristics", block)


def rule(old: str, new: str) -> str:
    assert RULE.count(old) == 1
    return put("overrides", RULE.replace(old, new))


def feature(text: str) -> str:
    return put("features", f"  x_feature: {text}")


def table(text: str) -> str:
    return put("tables", f"  x_table: {text}")


DATED = 'source: "s", as_of: 2026-01-01'
