"""The schemata of FollowTheMoney that a business or a person can be screened against. Source: followthemoney.tech."""

from __future__ import annotations

from core.entities import EntitySchema

SCHEMATA: dict[str, EntitySchema] = {
    "Person": "Person",
    "Organization": "Organization",
    "PublicBody": "Organization",
    "Company": "Company",
    "LegalEntity": "LegalEntity",
    "Vessel": "Vessel",
    "Airplane": "Airplane",
}
