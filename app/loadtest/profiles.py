"""Profiles of businesses that do not exist, each as large as the documented example and none like another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

VARIANTS = 1000
"""Different financial and other facts; name and id are each business's own."""
WORDS = 4096
"""Of which names are made, two each."""

COUNTRIES = ("DE", "FR", "PL", "GB", "US", "LU", "CH", "SG", "NL", "IT", "ES", "SE", "AT", "BE", "CZ", "IE")
CODES = ("46.90", "62.01", "25.11", "70.22", "49.41", "68.20", "47.91", "64.19", "10.71", "41.20")
FORMS = {"DE": "GmbH", "FR": "SARL", "PL": "sp. z o.o.", "GB": "Ltd", "US": "Inc.", "LU": "S.A.", "NL": "B.V."}
CHANNELS = ("face_to_face", "remote_verified", "remote", "intermediary")
STARTS = ["B", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Br", "Kl", "St", "Tr", "Gr", "Pl"]
MIDDLES = ["a", "e", "i", "o", "u", "au", "ei", "ia", "or", "an", "en", "al"]
ENDS = ["nt", "rk", "lm", "sk", "nd", "ld", "rn", "st", "x", "v", "ra", "no", "ta", "li"]
_NAME = "@name@"
_ID = "@id@"


class Profiles:
    """Bodies of assessments. run: makes the ids its own.  seed: of everything else."""

    def __init__(self, run: str, seed: int) -> None:
        chance = random.Random(seed)
        self._chance = chance
        self._run = run.encode()
        self._words = [f"{_word(chance)} ".encode() for _ in range(WORDS)]
        self._variants = [_split(msgspec.json.encode(_profile(chance))) for _ in range(VARIANTS)]
        self._made = 0

    def body(self) -> bytes:
        """The profile of a business that was not there before, as JSON."""
        self._made += 1
        parts = self._variants[int(self._chance.random() * VARIANTS)]
        words = self._words
        first, second = words[int(self._chance.random() * WORDS)], words[int(self._chance.random() * WORDS)]
        return b"%b%b-%d%b%b%b%b" % (parts[0], self._run, self._made, parts[1], first, second, parts[2])


def _split(body: bytes) -> tuple[bytes, bytes, bytes]:
    start, _, rest = body.partition(_ID.encode())
    middle, _, end = rest.partition(_NAME.encode())
    return start, middle, end


def _word(chance: random.Random) -> str:
    made = _of(chance, STARTS) + _of(chance, MIDDLES) + _of(chance, ENDS)
    return made + _of(chance, MIDDLES) + _of(chance, ENDS) if chance.random() < 0.5 else made


def _of(chance: random.Random, choices: Sequence[str]) -> str:
    return choices[int(chance.random() * len(choices))]


def _person(chance: random.Random) -> str:
    return f"{_word(chance).title()} {_word(chance).title()}"


def _profile(chance: random.Random) -> dict[str, Any]:
    country = _of(chance, COUNTRIES)
    assets = round(10 ** chance.uniform(4.5, 8), 2)
    share = round(chance.uniform(25, 75), 2)

    def part(low: float, high: float) -> float:
        return round(assets * chance.uniform(low, high), 2)

    return {
        "business": {
            "id": _ID,
            "name": f"{_NAME}{FORMS.get(country, 'Ltd')}",
            "jurisdiction": country,
            "registration_number": f"R {chance.randrange(1_000_000)}",
            "incorporated_on": f"{chance.randint(1960, 2024)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}",
            "status": "active",
            "industry": {"scheme": "nace", "code": _of(chance, CODES)},
            "operating_countries": [country, _of(chance, COUNTRIES)],
            "address": {"city": "Musterstadt", "postal_code": "10115", "country": country, "kind": "operating"},
            "website": "https://business.example",
            "employees": chance.randrange(1, 2000),
            "delivery_channel": _of(chance, CHANNELS),
            "cash_intensive": chance.random() < 0.2,
            "licence_status": "not_required",
            "is_shell_bank": False,
        },
        "ownership": {
            "owners": [
                {"name": _person(chance), "kind": "person", "country": country, "share_pct": share, "is_pep": False},
                {"name": f"{_word(chance)} Holding", "kind": "company", "country": country,
                 "share_pct": round(100 - share, 2)},
            ],
            "directors": [{"name": _person(chance), "country": country, "birth_date": "1975-03-02", "is_pep": False}],
            "layers": chance.randrange(4),
            "has_nominees": False,
            "has_bearer_shares": False,
        },
        "financials": {
            "currency": "EUR",
            "listed": False,
            "manufacturer": chance.random() < 0.3,
            "audit_opinion": "unqualified",
            "filing_overdue_days": 0,
            "current": {
                "period_end": "2025-12-31",
                "period_months": 12,
                "total_assets": assets,
                "current_assets": part(0.2, 0.8),
                "current_liabilities": part(0.1, 0.5),
                "total_liabilities": part(0.2, 0.9),
                "retained_earnings": part(-0.2, 0.5),
                "ebit": part(-0.1, 0.3),
                "ebt": part(-0.1, 0.3),
                "net_income": part(-0.1, 0.2),
                "revenue": part(0.2, 2.5),
            },
        },
        "signals": {
            "adverse_media_count": 0,
            "adverse_media_severity": "none",
            "litigation_count": chance.choice((0, 0, 0, 1)),
            "insolvency_events": 0,
            "regulatory_actions": 0,
            "director_turnover_12m": 0,
            "website_verified": True,
        },
    }  # fmt: skip
