"""Formulas of ratio features: a quotient, or a sum, of statement fields with factors."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRIOR = "prior."

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|((?:prior\.)?[a-z_]+)|([-+*/()]))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Formula:
    """Σ factor · field, over Σ factor · field where there is a denominator (else empty)."""

    text: str
    numerator: tuple[tuple[float, str], ...]
    denominator: tuple[tuple[float, str], ...]


class FormulaError(Exception):
    """A formula that cannot be read; the message says where."""


def parse(text: str) -> Formula:
    """Read `A / B` or `A`, with A and B sums of fields. Raises FormulaError."""
    tokens = _tokens(text)
    numerator, rest = _sum(tokens, text)
    denominator: tuple[tuple[float, str], ...] = ()
    if rest and rest[0] == "/":
        denominator, rest = _sum(rest[1:], text)
    if rest:
        raise FormulaError(f'"{rest[0]}" is not expected; write `A / B` with A and B sums of fields, in brackets')
    return Formula(text, numerator, denominator)


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormulaError(f'cannot read "{text[place:]}"')
        tokens.append(match.group(0).strip())
        place = match.end()
    return tokens


def _sum(tokens: list[str], text: str) -> tuple[tuple[tuple[float, str], ...], list[str]]:
    """Terms of a bracketed sum or of a single product, and the tokens after it."""
    if tokens[:1] != ["("]:
        end = tokens.index("/") if "/" in tokens else len(tokens)
        return _terms(tokens[:end]), tokens[end:]
    if ")" not in tokens:
        raise FormulaError(f'a bracket of "{text}" is not closed')
    end = tokens.index(")")
    return _terms(tokens[1:end]), tokens[end + 1 :]


def _terms(tokens: list[str]) -> tuple[tuple[float, str], ...]:
    """`[-] [number *] field`, joined by + and -."""
    terms: list[tuple[float, str]] = []
    rest = list(tokens)
    while rest or not terms:
        sign = rest.pop(0) if rest[:1] in (["+"], ["-"]) else "" if terms else "+"
        if not sign:
            raise FormulaError(f'"{rest[0]}" is not expected')
        factor = 1.0
        if rest and rest[0][-1] in "0123456789.":
            factor = float(rest.pop(0))
            if rest[:1] != ["*"]:
                raise FormulaError("a number must be followed by `*` and a field")
            rest.pop(0)
        if not rest:
            raise FormulaError("a field is missing")
        name = rest.pop(0)
        if not (name[0].isalpha() or name[0] == "_"):
            raise FormulaError(f'"{name}" is not expected')
        terms.append((-factor if sign == "-" else factor, name))
    return tuple(terms)
