"""What the two forms of the EU's consolidated list of financial sanctions have in common: its codes.

Source: the schema of the Commission's financial sanctions files, version 1.1 (FSD export).
"""

from __future__ import annotations

from collections.abc import Sequence

from app.watchlists.dates import years
from app.watchlists.party import joined
from core.entities import EntitySchema, IdentifierKind

_KINDS: dict[str, IdentifierKind] = {
    "passport": "passport",
    "id": "national_id",
    "ssn": "national_id",
    "nrn": "national_id",
    "residentperm": "national_id",
    "travelcardid": "passport",
    "regnumber": "registration",
    "tradelic": "registration",
    "fiscalcode": "tax",
    "taxid": "tax",
    "swiftbic": "bic",
    "imo": "imo",
    "lei": "lei",
}


def schema(*codes: str) -> EntitySchema:
    """Of a subject, from its code and its classification, which the two forms give the other way round; of one without
    either, what may be a person and may be none."""
    told = [code.strip().lower() for code in codes if code.strip()]
    if not told:
        return "LegalEntity"
    return "Person" if "p" in told or "person" in told else "Organization"


def identifier_kind(code: str) -> IdentifierKind:
    return _KINDS.get(code.strip().lower(), "other")


def birth_dates(date: str, year: str, month: str, day: str, first: str, last: str, circa: str) -> list[str]:
    """The words of one date of birth, from its parts as the list gives them; `` for those it does not."""
    if first.strip("0 ") and last.strip("0 "):
        # A range that is too long is told as it stands, so that it is counted.
        return years(first, last) or [f"{first} to {last}"]
    if circa.lower() == "true":
        return [f"circa {date or year}"]
    if date:
        return [date]
    parts = [year, *(part.zfill(2) for part in (month, day) if part.strip("0"))]
    return ["-".join(parts)] if year else []


def is_gregorian(calendar: str) -> bool:
    """Whether a date of birth is of this calendar; the list also has dates of the Islamic one."""
    return calendar.strip().upper() in ("", "GREGORIAN")


def address(parts: Sequence[str]) -> str:
    """One address from its parts. What is not known is written UNKNOWN in the list."""
    return joined(*(part for part in parts if part != "UNKNOWN"))


def country(code: str, description: str) -> str:
    """Of a place: its code, or its name where there is no code."""
    return code.strip() if code.strip(" 0") else description.strip()
