"""What several providers told of one business, as one: where two tell the same fact, the more adverse counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.facts import NO_FACTS, ExternalFacts

# The lowest rank is the best. `unknown` and `unaudited` are findings of their own, worse than the best.
_STATUS = ("active", "unknown", "inactive", "in_liquidation", "dissolved")
_LICENCE = ("held", "not_required", "applied_for", "missing", "revoked")
_AUDIT = ("unqualified", "unaudited", "qualified", "disclaimer", "adverse")
_SEVERITY = ("none", "low", "medium", "high")


def _itself(value: Any) -> Any:
    return value


def _not(value: Any) -> Any:
    return not value


RANKS: dict[str, Callable[[Any], Any] | None] = {
    "business_status": _STATUS.index,
    "incorporated_on": _itself,
    "employees": None,
    "licence_status": _LICENCE.index,
    "filing_overdue_days": _itself,
    "audit_opinion": _AUDIT.index,
    "adverse_media_count": _itself,
    "adverse_media_severity": _SEVERITY.index,
    "litigation_count": _itself,
    "insolvency_events": _itself,
    "regulatory_actions": _itself,
    "director_turnover_12m": _itself,
    "website_verified": _not,
    "is_shell_bank": _itself,
}
"""Fact → how adverse a value of it is; None where no order is known, and the provider configured first is believed."""


def merged(told: Sequence[ExternalFacts]) -> ExternalFacts | None:
    """The facts of all, in the order of the settings; None where nobody told any."""
    told = [facts for facts in told if facts != NO_FACTS]
    if len(told) < 2:
        return told[0] if told else None
    return ExternalFacts(
        **{name: _merged([getattr(facts, name) for facts in told], rank) for name, rank in RANKS.items()}
    )


def _merged(values: list[Any], rank: Callable[[Any], Any] | None) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return known[0] if rank is None else max(known, key=rank)
