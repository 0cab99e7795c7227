"""Countries as lists write them, and their ISO 3166-1 alpha-2 codes: a dated table, `countries.yaml`."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files

from msgspec import Struct

from core.document import Faults, Mapping, Section, read

REMEMBERED = 10_000

_SUBDIVISION = re.compile(r"([A-Za-z]{2})-[A-Za-z0-9]{1,3}")


class CountryTable(Struct, frozen=True):
    """codes and names: as `key` writes them, to ISO code.  no_country: words that say that there is none."""

    source: str
    as_of: str
    codes: dict[str, str]
    names: dict[str, str]
    no_country: frozenset[str]
    found: dict[str, str | None]

    def code(self, text: str) -> str | None:
        """The ISO code of a country's code or name; `` where the text says that there is none; None = unknown.

        A subdivision (`us-de`) counts as its country.
        """
        try:
            return self.found[text]
        except KeyError:
            code = self._look_up(text)
            if len(self.found) < REMEMBERED:
                self.found[text] = code
            return code

    def _look_up(self, text: str) -> str | None:
        name = key(text)
        if not name or name in self.no_country:
            return ""
        subdivision = _SUBDIVISION.fullmatch(text.strip())
        code = self.codes.get((subdivision[1] if subdivision else text.strip()).upper())
        return code or self.names.get(name)


def key(text: str) -> str:
    """A name without what does not tell countries apart: accents, case, punctuation and the article."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    words = re.findall(r"\w+", plain.casefold().replace("&", " and "))
    return " ".join("saint" if word == "st" else word for word in words if word != "the")


@cache
def table() -> CountryTable:
    """The packaged table. Raises ValueError with every fault of the file."""
    faults = Faults()
    root = Section(read(files(__package__).joinpath("countries.yaml").read_bytes(), faults), "", faults)
    codes: dict[str, str] = {}
    names: dict[str, str] = {}
    countries = root.any("countries") or Mapping()
    for code, spellings in countries.items():
        codes[code] = code
        for name in map(key, spellings):
            if names.setdefault(name, code) != code:
                root.fault(f'"{name}" stands for both {names[name]} and {code}', "countries")
    for code, meant in (root.any("codes") or Mapping()).items():
        codes[code] = str(meant)
    no_country = frozenset(map(key, root.texts("no_country")))
    made = CountryTable(root.text("source"), root.text("as_of"), codes, names, no_country, {})
    if faults.found:
        raise ValueError("; ".join(faults.found))
    return made
