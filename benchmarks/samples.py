"""Profiles to measure with: the documented example, and as many different ones as wanted."""

from __future__ import annotations

import copy
import random
from typing import Any

import msgspec

from app.api.operations import PROFILE_EXAMPLE

SEED = 20261123
EXAMPLE = msgspec.json.encode(PROFILE_EXAMPLE)

COUNTRIES = ("DE", "FR", "PL", "GB", "US", "LU", "CH", "SG", "AE", "CN", "BG", "KE", "VG", "IR", "BR", "IN", "JP", "ZA")
STATUSES = ("active", "inactive", "dissolved", "in_liquidation", "unknown")
CHANNELS = ("face_to_face", "remote_verified", "remote", "intermediary")
LICENCES = ("held", "not_required", "applied_for", "missing", "revoked")
OPINIONS = ("unqualified", "qualified", "adverse", "disclaimer", "unaudited")
ADDRESSES = ("operating", "registered_agent", "virtual", "residential")
SEVERITIES = ("none", "low", "medium", "high")
KINDS = ("person", "company", "trust", "state")
INDUSTRIES = ("46.90", "64.19", "92.00", "01.11", "62.01", "68.20", "47.91", "25.11", "70.22", "49.41")
SECTIONS = ("business", "ownership", "financials", "signals")
REQUIRED = ("name", "jurisdiction")


def generated(count: int, missing: float = 0.0, seed: int = SEED, *, three_names: bool = False) -> list[bytes]:
    """Different valid profiles as compact JSON, as large as the example. missing: the share of fields left out.
    three_names: of a business without alias, one owner and one director, not five."""
    chance = random.Random(seed)
    made = (_profile(chance, number) for number in range(count))
    return [msgspec.json.encode(_thinned(_trimmed(one) if three_names else one, missing, chance)) for one in made]


def _trimmed(profile: dict[str, Any]) -> dict[str, Any]:
    del profile["business"]["aliases"]
    del profile["ownership"]["owners"][1:]
    return profile


def _profile(chance: random.Random, number: int) -> dict[str, Any]:
    made = copy.deepcopy(PROFILE_EXAMPLE)
    business, ownership = made["business"], made["ownership"]
    business |= {
        "id": f"cust-{number:06d}",
        "name": f"{_word(chance)} {_word(chance)} {chance.choice(('GmbH', 'Ltd', 'S.A.', 'sp. z o.o.'))}",
        "aliases": [_word(chance)],
        "jurisdiction": chance.choice(COUNTRIES),
        "registration_number": f"HRB {chance.randrange(100_000)}",
        "incorporated_on": _date(chance, 1950, 2025),
        "status": chance.choices(STATUSES, (90, 3, 1, 2, 4))[0],
        "industry": {"scheme": "nace", "code": chance.choice(INDUSTRIES)},
        "operating_countries": chance.sample(COUNTRIES, chance.randint(0, 4)),
        "employees": chance.randrange(5000),
        "delivery_channel": chance.choice(CHANNELS),
        "licence_status": chance.choice(LICENCES),
        "is_shell_bank": chance.random() < 0.01,
        "cash_intensive": chance.random() < 0.2,
    }
    business["address"] |= {"country": chance.choice(COUNTRIES), "kind": chance.choice(ADDRESSES)}
    share = round(chance.uniform(10, 60), 2)
    for owner, held in zip(ownership["owners"], (share, round(100 - share - chance.uniform(0, 30), 2)), strict=True):
        owner |= {"name": f"{_word(chance)} {_word(chance)}", "share_pct": held, "country": chance.choice(COUNTRIES)}
        owner["kind"] = chance.choice(KINDS)
    ownership |= {"layers": chance.randrange(6), "has_nominees": chance.random() < 0.1}
    ownership["directors"][0] |= {"name": f"{_word(chance)} {_word(chance)}", "is_pep": chance.random() < 0.1}
    made["financials"] |= {
        "audit_opinion": chance.choice(OPINIONS),
        "filing_overdue_days": chance.choice((0, 0, 20, 90, 400)),
        "listed": chance.random() < 0.2,
        "manufacturer": chance.random() < 0.3,
        "current": _statement(chance, "2025-12-31"),
    }
    for name in ("adverse_media_count", "litigation_count", "insolvency_events", "regulatory_actions"):
        made["signals"][name] = chance.choices((0, 1, 2, 5), (80, 10, 6, 4))[0]
    made["signals"]["adverse_media_severity"] = chance.choice(SEVERITIES)
    made["signals"]["website_verified"] = chance.random() < 0.8
    return made


def _statement(chance: random.Random, period_end: str) -> dict[str, Any]:
    assets = round(10 ** chance.uniform(4, 8), 2)

    def part(low: float, high: float) -> float:
        return round(assets * chance.uniform(low, high), 2)

    return {
        "period_end": period_end,
        "period_months": chance.choice((12, 12, 12, 6)),
        "total_assets": assets,
        "current_assets": part(0.1, 0.9),
        "current_liabilities": part(0.05, 0.7),
        "total_liabilities": part(0.1, 1.3),
        "retained_earnings": part(-0.5, 0.5),
        "ebit": part(-0.3, 0.3),
        "ebt": part(-0.3, 0.3),
        "net_income": part(-0.3, 0.3),
        "revenue": part(0.1, 3.0),
        "depreciation": part(0.0, 0.1),
        "inventories": part(0.0, 0.3),
    }


def _word(chance: random.Random) -> str:
    return "".join(chance.choice("bdfgklmnprst") + chance.choice("aeiou") for _ in range(chance.randint(2, 4))).title()


def _date(chance: random.Random, first: int, last: int) -> str:
    return f"{chance.randint(first, last)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"


def _thinned(profile: dict[str, Any], missing: float, chance: random.Random) -> dict[str, Any]:
    if missing:
        for section in SECTIONS:
            held: dict[str, Any] = profile[section]
            kept = {name: held[name] for name in held if name in REQUIRED or chance.random() >= missing}
            if isinstance(statement := kept.get("current"), dict):
                kept["current"] = {name: statement[name] for name in statement if chance.random() >= missing}
            profile[section] = kept
    return profile
