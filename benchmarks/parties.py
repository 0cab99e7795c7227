"""Parties to screen and parties to screen against: real lists, generated ones, and names on no list."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from core.entities import Entity, EntitySchema

OFAC_SCHEMAS: dict[str, EntitySchema] = {"individual": "Person", "vessel": "Vessel", "aircraft": "Airplane"}


def ofac(folder: Path) -> list[Entity]:
    """Names and aliases of the SDN list in its own CSV form (sdn.csv, alt.csv)."""
    aliases: dict[str, list[str]] = {}
    for row in _rows(folder / "alt.csv"):
        aliases.setdefault(row[0], []).append(row[3])
    return [
        Entity(row[0], OFAC_SCHEMAS.get(row[2].strip(), "Organization"), "sanction", (row[1], *aliases.get(row[0], ())))
        for row in _rows(folder / "sdn.csv")
    ]


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="latin-1", newline="") as file:
        yield from (row for row in csv.reader(file) if len(row) > 3)


def un(path: Path) -> list[Entity]:
    """Names and aliases of the UN Security Council's consolidated list (XML)."""
    found = []
    for tag, schema in (("INDIVIDUAL", "Person"), ("ENTITY", "Organization")):
        for node in ElementTree.parse(path).getroot().iter(tag):
            parts = [node.findtext(f"{part}_NAME") for part in ("FIRST", "SECOND", "THIRD", "FOURTH")]
            names = [" ".join(part.strip() for part in parts if part), *_aliases(node, tag, low=False)]
            weak = tuple(_aliases(node, tag, low=True))
            found.append(Entity(node.findtext("DATAID") or "", schema, "sanction", tuple(names), weak))  # type: ignore[arg-type]
    return found


def _aliases(node: ElementTree.Element, tag: str, low: bool) -> Iterator[str]:
    for alias in node.iter(f"{tag}_ALIAS"):
        text = (alias.findtext("ALIAS_NAME") or "").strip()
        if text and (alias.findtext("QUALITY") == "Low") == low:
            yield text


def _words(text: str) -> list[str]:
    return text.split()


# Words of ordinary names. None is taken from a list of sanctions.
PLACES = _words(
    """
    Harbour Bremen Lakeside Northern Riverside Alpine Kent Oslo Tampa Cedar Devon Fjord Jutland Tuscany Malmo
    Antwerp Brighton Dakota Highland Solent Valley Coastal Ravenna Bergen Lisbon Granite Orchard Willow Summit
    Prairie
    """
)
SURNAMES = _words(
    """
    Miller Schneider Larsen Bianchi Moreau Kowalski Novak Fischer Jensen Peeters Andersson Murphy Evans Dupont
    Rossi Keller Walker Olsen Virtanen Horvath Svoboda Baker Thompson Nilsson Weber Lefebvre Marino Costa
    Pereira Vogel Brandt Hoffmann Becker Claes Maes Byrne Walsh Patel Sharma Tanaka Sato Nguyen Chen Okafor
    Mensah Larkin Whitfield Ashworth
    """
)
FIRST_NAMES = _words(
    """
    Anna Peter Julia Thomas Marie Lukas Sofia Erik Laura Daniel Emma Jan Clara Martin Helena David Sarah Pierre
    Giulia Marco Ingrid Lars Katarina Tomas Olivia Jack Grace Henry Amelie Victor
    """
)
BRANDS = _words(
    """
    Bluefin Quantix Lumora Vertiq Oakhurst Silverline Brightwell Pinecrest Novaterra Ecolume Softpeak Redwood
    Ironbridge Clearwater Greenfield Sunmark Maplewood Starling Kingfisher Otterburn Fairview Stonegate
    Rosemount Copperleaf Heather Swift Juniper Larkspur Meadow Falconer
    """
)
TRADES = _words(
    """
    Bakery Logistics Consulting Trading Foods Plumbing Software Design Interiors Dental Roofing Catering Print
    Timber Fitness Travel Media Motors Electrical Optics Packaging Gardens Furniture Brewery Ceramics Textiles
    Solar Holding Engineering Pharmacy Events Coffee Services Construction Insurance Marketing Vineyards
    Robotics
    """
)
FORMS = [
    "GmbH",
    "Ltd",
    "Limited",
    "Inc.",
    "LLC",
    "AG",
    "S.A.",
    "SARL",
    "B.V.",
    "AB",
    "AS",
    "Oy",
    "S.r.l.",
    "Sp. z o.o.",
    "PLC",
    "",
]


def companies(count: int, seed: int = 1) -> list[str]:
    """Ordinary names of companies that are on no list, all different."""
    chance = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        shape = chance.randrange(5)
        trade, form = chance.choice(TRADES), chance.choice(FORMS)
        if shape == 0:
            name = f"{chance.choice(SURNAMES)} & {chance.choice(SURNAMES)} {trade} {form}"
        elif shape == 1:
            name = f"{chance.choice(PLACES)} {trade} {form}"
        elif shape == 2:
            name = f"{chance.choice(BRANDS)} {trade} {form}"
        elif shape == 3:
            name = f"{chance.choice(PLACES)} {chance.choice(BRANDS)} {trade} {form}"
        else:
            name = f"{chance.choice(SURNAMES)} {trade} {chance.choice(PLACES)} {form}"
        made[name.strip()] = None
    return list(made)


def persons(count: int, seed: int = 2) -> list[str]:
    """Ordinary names of persons, all different; some listed person may well bear one of them."""
    chance = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        made[f"{chance.choice(FIRST_NAMES)} {chance.choice(SURNAMES)}"] = None
    return list(made)


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def with_typo(name: str, chance: random.Random) -> str:
    """One letter of a name left out, put in, exchanged or swapped with the next."""
    places = [i for i, c in enumerate(name) if c.isalpha()]
    at = chance.choice(places)
    match chance.randrange(4):
        case 0:
            return name[:at] + name[at + 1 :]
        case 1:
            return name[:at] + chance.choice(LETTERS) + name[at:]
        case 2:
            other = chance.choice([c for c in LETTERS if c != name[at].lower()])
            return name[:at] + other + name[at + 1 :]
        case _:
            inner = [i for i in places if name[i + 1 : i + 2].isalpha() and name[i] != name[i + 1]]
            if not inner:
                return name[:at] + name[at + 1 :]
            at = chance.choice(inner)
            return name[:at] + name[at + 1] + name[at] + name[at + 2 :]


SYLLABLES = _words(
    """
    ab ad al am an ar as ba be bi bo bra bu ca che chi co cra da de di do dra du ek el em en er es fa fe fi fo
    fra ga ge gi gor gra gu ha he hi ho hu ib id il im in ir is ja je jo ju ka ke khi ko kra ku la le li lo lu
    ma me mi mo mu na ne ni no nu ob od ol om on or os pa pe pi po pra pu qa ra re ri ro ru sa se sha shi so
    stra su ta te ti to tra tu ul um un ur va ve vi vo wa we wi xi ya ye yo yu za ze zi zo
    """
)
PARTICLES = ["al", "el", "bin", "ben", "de", "van", "der", "la", "abu", "da"]
COMMON = _words(
    """
    Trading International Group Company General Bank Industries Shipping Services Holding Investment Import
    Export Oil Engineering Construction Transport Marine Development Technology Global National Petroleum
    Aviation Commercial
    """
)


def many(count: int, seed: int = 3, vocabulary: int = 300_000) -> Iterator[Entity]:
    """Generated entities of one name each: half persons of two to four words with particles, half organisations with
    common words and legal forms; words by Zipf's law with exponent 0.9."""
    chance = np.random.default_rng(seed)
    words = _vocabulary(vocabulary, chance)
    shares = np.arange(1, vocabulary + 1, dtype=np.float64) ** -0.9
    ends = np.cumsum(shares / shares.sum())
    drawn: NDArray[np.int64] = np.searchsorted(ends, chance.random(4 * count)).clip(0, vocabulary - 1)
    rolls = chance.random((count, 4))
    for i in range(count):
        a, b, c, d = (words[k] for k in drawn[4 * i : 4 * i + 4])
        length, roll, pick, form = rolls[i]
        if roll < 0.5:
            parts = [a, b] if length < 0.4 else [a, b, c] if length < 0.8 else [a, b, c, d]
            if pick < 0.3:
                parts.insert(len(parts) - 1, PARTICLES[int(pick * 10 / 0.3)])
            yield Entity(f"g-{i}", "Person", "other", (" ".join(parts).title(),))
        else:
            parts = [a] if length < 0.25 else [a, b] if length < 0.8 else [a, b, c]
            parts.append(COMMON[int(pick * len(COMMON))])
            if form < 0.3:
                parts.append(COMMON[int(form * len(COMMON) / 0.3)])
            parts.append(FORMS[int(form * len(FORMS))])
            yield Entity(f"g-{i}", "Company", "other", (" ".join(parts).strip().title(),))


def _vocabulary(count: int, chance: np.random.Generator) -> list[str]:
    made: dict[str, None] = {}
    while len(made) < count:
        lengths = chance.integers(2, 5, size=count)
        picks = chance.integers(0, len(SYLLABLES), size=(count, 4))
        for length, pick in zip(lengths, picks, strict=True):
            made["".join(SYLLABLES[k] for k in pick[:length])] = None
    return list(made)[:count]
