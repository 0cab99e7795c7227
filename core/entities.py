"""Listed parties as the name index takes them, whatever list they come from."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ListKind = Literal["sanction", "pep", "other"]
EntitySchema = Literal["Person", "Organization", "Company", "LegalEntity", "Vessel", "Airplane"]
IdentifierKind = Literal["registration", "lei", "vat", "tax", "passport", "national_id", "imo", "bic", "other"]


class Identifier(Struct, frozen=True):
    """A number that some register gave a party, as the list prints it. country: of the register, where that is told."""

    kind: IdentifierKind
    value: str
    country: str | None = None


class Entity(Struct, frozen=True):
    """One entry of a list.

    id: the list's own, unique in it.  schema: as FollowTheMoney names it; LegalEntity where the list does not tell
    persons from organisations.
    names: the primary one first, then aliases of full worth.  weak_names: aliases that the list itself calls weak.
    countries: ISO 3166-1 alpha-2.  birth_dates: `1970`, `1970-03` or `1970-03-02`.
    """

    id: str
    schema: EntitySchema
    kind: ListKind
    names: tuple[str, ...]
    weak_names: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    birth_dates: tuple[str, ...] = ()
    identifiers: tuple[Identifier, ...] = ()
    programmes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
