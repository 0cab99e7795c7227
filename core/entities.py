"""Listed parties as the name index takes them, whatever list they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, get_args

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

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


KINDS: tuple[IdentifierKind, ...] = get_args(IdentifierKind)
_COMPATIBLE: tuple[frozenset[IdentifierKind], ...] = (
    frozenset({"registration", "tax", "vat"}),
    frozenset({"passport", "national_id"}),
)
LEAST_VALUE = 4
"""Letters and digits of an identifier that tells anything."""


def country_number(code: str) -> int:
    """Two letters as one number, 0 for what is no ISO 3166-1 alpha-2 code."""
    if len(code) != 2 or not (code.isascii() and code.isalpha()):
        return 0
    first, second = code.upper().encode()
    return first << 8 | second


def birth_number(date: str) -> int:
    """`1970-03-02` as 19700302, `1970-03` as 19700300, `1970` as 19700000, 0 for what is no date."""
    parts = date.split("-")
    if not all(part.isascii() and part.isdigit() for part in parts) or tuple(map(len, parts)) not in (
        (4,),
        (4, 2),
        (4, 2, 2),
    ):
        return 0
    year, month, day = (*map(int, parts), 0, 0)[:3]
    return year * 10000 + month * 100 + day


def identifier_value(value: str) -> str:
    """Letters and digits in upper case; '' where they tell nothing: fewer than LEAST_VALUE, or zeros alone."""
    found = "".join(c for c in value.upper() if c.isascii() and c.isalnum())
    return found if len(found) >= LEAST_VALUE and found.strip("0") else ""


def identifier_keys(identifiers: Iterable[Identifier]) -> list[tuple[int, str, int]]:
    """(number of its kind, value, number of its country) of each that tells anything."""
    values = ((item, identifier_value(item.value)) for item in identifiers)
    return [(KINDS.index(item.kind), value, country_number(item.country or "")) for item, value in values if value]


def are_compatible(first: IdentifierKind, second: IdentifierKind) -> bool:
    """Whether two identifiers of these kinds with one value are one number."""
    if first == second or "other" in (first, second):
        return True
    return any(first in kinds and second in kinds for kinds in _COMPATIBLE)


def digest_of(entity: Entity) -> bytes:
    """16 bytes that change with whatever screening of the entity depends on, and with nothing else.

    The order of aliases, countries and so on does not count, nor do programmes and addresses. It is the same on every
    machine.
    """
    told = [
        entity.id,
        entity.schema,
        entity.kind,
        sorted(entity.names),
        sorted(entity.weak_names),
        sorted(entity.countries),
        sorted(entity.birth_dates),
        sorted([item.kind, item.value, item.country or ""] for item in entity.identifiers),
    ]
    return sha256(json.dumps(told).encode()).digest()[:16]


class _Stored(Struct, frozen=True, array_like=True):
    """An entity as a snapshot keeps it: without the names of its fields.

    Older and newer engines read it too: a further field comes last, with a default.
    """

    id: str
    schema: EntitySchema
    kind: ListKind
    names: tuple[str, ...]
    weak_names: tuple[str, ...]
    countries: tuple[str, ...]
    birth_dates: tuple[str, ...]
    identifiers: tuple[tuple[IdentifierKind, str, str | None], ...]
    programmes: tuple[str, ...]
    addresses: tuple[str, ...]


_encode = Encoder().encode
_decode = Decoder(_Stored).decode


def stored(entity: Entity) -> bytes:
    """Raises UnicodeEncodeError for lone surrogates."""
    identifiers = tuple((item.kind, item.value, item.country) for item in entity.identifiers)
    return _encode(
        _Stored(
            entity.id,
            entity.schema,
            entity.kind,
            entity.names,
            entity.weak_names,
            entity.countries,
            entity.birth_dates,
            identifiers,
            entity.programmes,
            entity.addresses,
        )
    )


def restored(data: bytes | memoryview) -> Entity:
    """Raises msgspec.DecodeError."""
    kept = _decode(data)
    return Entity(
        kept.id,
        kept.schema,
        kept.kind,
        kept.names,
        kept.weak_names,
        kept.countries,
        kept.birth_dates,
        tuple(Identifier(*item) for item in kept.identifiers),
        kept.programmes,
        kept.addresses,
    )
