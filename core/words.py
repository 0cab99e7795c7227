"""What words in names are worth: the dated table shipped with the engine, read once.

The weights of a comparison come from here alone, so that a pair of names scores the same among four hundred listed
names or a million.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Any, Literal

from msgspec import Struct

from core.document import Faults, read

Kind = Literal["full", "legal_form", "common", "particle", "title", "number", "numeral"]

TABLE = "tables/words-2026-11.yaml"

LISTS: dict[str, Kind] = {"common": "common", "particles": "particle", "titles": "title"}


class TableInvalid(ValueError):
    """The table of words cannot be used; says every fault."""


class Words(Struct, frozen=True):
    """The table.

    weights: by kind, hundredths of a full word's, (in names of persons, in names of organisations).  lengths: per cent
    of its weight that a word of that many letters keeps; longer ones keep all.  kinds: of words that are not full ones.
    phrases: words as written to the words compared in their place.  legal_endings: legal forms of one word that may
    stand unparted at the end of another.  sha256: of the file.
    """

    as_of: str
    source: str
    weights: dict[str, tuple[int, int]]
    lengths: tuple[int, ...]
    kinds: dict[str, Kind]
    ignored: frozenset[str]
    phrases: dict[tuple[str, ...], tuple[str, ...]]
    legal_endings: frozenset[str]
    sha256: str

    def weight(self, word: str) -> tuple[int, int]:
        """Hundredths in names of persons and in names of organisations."""
        kind: Kind = "number" if word.isdigit() else self.kinds.get(word, "full")
        person, organisation = self.weights["full" if kind == "numeral" else kind]
        if kind in ("full", "common", "numeral") and len(word) < len(self.lengths):
            person, organisation = (value * self.lengths[len(word)] // 100 for value in (person, organisation))
        return person, self.weights["number"][1] if kind == "numeral" else organisation


def load_words(text: bytes) -> Words:
    """Raises TableInvalid: not readable as YAML, or a section is missing or has the wrong form."""
    faults = Faults()
    tree = read(text, faults)
    if faults.found:
        raise TableInvalid("; ".join(faults.found))
    try:
        return _words(tree, sha256(text).hexdigest())
    except KeyError as error:
        raise TableInvalid(f"the section {error} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise TableInvalid(f"a section has another form than expected: {error}") from error


def _words(tree: Any, digest: str) -> Words:
    phrases: dict[tuple[str, ...], tuple[str, ...]] = {}
    for section in ("legal_forms", "same"):
        for compared, written in tree[section].items():
            for phrase in [compared, *written]:
                words = tuple(phrase.split())
                if phrases.setdefault(words, tuple(compared.split())) != tuple(compared.split()):
                    raise TableInvalid(f"{phrase!r} stands under two words, {phrases[words]} and {compared!r}")
    kinds: dict[str, Kind] = {}
    for section, kind in LISTS.items():
        for word in tree[section]:
            kinds.setdefault(str(word), kind)
    kinds |= dict.fromkeys(map(str, tree["numerals"]), "numeral")
    kinds |= dict.fromkeys(map(str, tree["legal_forms"]), "legal_form")
    return Words(
        as_of=str(tree["as_of"]),
        source=str(tree["source"]),
        weights={
            str(kind): (int(person), int(organisation)) for kind, (person, organisation) in tree["weights"].items()
        },
        lengths=tuple(map(int, tree["lengths"])),
        kinds=kinds,
        ignored=frozenset(map(str, tree["ignored"])),
        phrases=phrases,
        legal_endings=frozenset(
            words[0]
            for words, (compared, *_) in phrases.items()
            if len(words) == 1 and len(words[0]) > 1 and compared in tree["legal_forms"]
        ),
        sha256=digest,
    )


WORDS = load_words(files("core").joinpath(TABLE).read_bytes())
