"""The shipped model loads as it is written, and files that hold no model are refused."""

from __future__ import annotations

import hashlib
import json

import pytest
from additions import DATED, RULE, added, feature, put, table
from shipped import CATALOGUE, TEXT, faults, model

from core.loader import load
from core.model import CATEGORIES, ModelRefused, definition
from core.reader import tree_of

# ---------------------------------------------------------------- the shipped model


def test_the_shipped_model_is_sound_and_named_by_the_hash_of_its_bytes() -> None:
    assert faults(TEXT) == []
    assert model().sha256 == hashlib.sha256(TEXT.encode()).digest()
    assert model().key == "kyb@1.1.0"


def test_the_shipped_model_has_forty_characteristics_over_all_categories() -> None:
    assert len(model().characteristics) >= 40
    assert {c.category for c in model().characteristics} == set(CATEGORIES)


def test_what_the_tests_add_is_sound_by_itself() -> None:
    assert faults(added()) == []
    assert faults(put("overrides", RULE)) == []
    assert faults(feature("{kind: value, of: business.employees}")) == []
    assert faults(table(f"{{kind: set, {DATED}, codes: [DE, NO]}}")) == []


def test_text_that_other_readers_would_type_stays_text() -> None:
    countries = model().tables["countries"].codes
    assert "NO" in countries
    assert all(type(code) is str for code in countries)
    nace = model().tables["industries"].schemes["nace"]
    assert "01" in nace
    assert all(type(prefix) is str and type(group) is str for prefix, group in nace.items())
    found = load(table(f"{{kind: set, {DATED}, codes: [NO, DE]}}").encode(), "x", CATALOGUE)
    assert found.tables["x_table"].codes == ("NO", "DE")
    tree = tree_of(b"a: 46.90\nb: NO\nc: 1_000\nd: 0x10\ne: null\nf: 2026-01-01")
    assert list(tree.values()) == ["46.90", "NO", "1_000", "0x10", "null", "2026-01-01"]


def test_points_are_read_as_exact_hundredths() -> None:
    assert faults(added(("0, code: X_FEW", "0.00, code: X_FEW"))) == []
    (c,) = (c for c in model().characteristics if c.name == "altman_z")
    assert [a.points for a in c.attributes][:2] == [400, 80]


def test_the_definition_of_a_model_is_json() -> None:
    tree = definition(tree_of(TEXT.encode()))
    shown = json.loads(json.dumps(tree))
    assert shown["bands"][1]["from"] == 20.0
    assert shown["tables"]["countries"]["codes"].count("NO") == 1
    odd = definition(tree_of(b'overrides: [{when: [{points: "[0, 1)", required: "true"}], legal: true}]'))
    assert odd == {"overrides": [{"when": [{"points": "[0, 1)", "required": "true"}], "legal": True}]}


# ---------------------------------------------------------------- files that are none

HOSTILE = {
    "nothing": (b"", "the file is empty"),
    "a list": (b"[1, 2]", "must be a mapping"),
    "a text": (b"hello", "must be a mapping"),
    "no UTF-8": (b"\xff\xfe\xfd", "not readable as YAML"),
    "a NUL": (b"model: \x00", "not readable as YAML"),
    "an open bracket": (b"model: [1", "not readable as YAML"),
    "deep brackets": (b"[" * 200_000, "nested deeper than"),
    "deep mappings": (b"{a: " * 200_000, "nested deeper than"),
    "deep dashes": (b"- " * 200_000 + b"x", "nested deeper than"),
    "too many bytes": (b"# " + b"x" * (4 << 20), "at most"),
    "an anchor": (b"a: &x [1]\nb: 2", "line 1: anchors (&x)"),
    "an alias": (b"a: 1\nb: *x", "line 2: aliases (*x)"),
    "a laugh": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors (&a)"),
    "a tag": (b"a: !!python/object:os.system x", "line 1: tags"),
    "two documents": (b"a: 1\n---\nb: 2", "line 2: the file holds more than one document"),
    "a key that is a list": (b"? [a]\n: b", "a key must be text"),
    "values that are lists": (
        TEXT.replace("aliases: {EL: GR, UK: GB}", "aliases: {EL: [GR], UK: GB}").encode(),
        "must be text",
    ),
    "sections that are texts": (
        b"model: x\nbands: x\ntables: x\nfeatures: x\ncharacteristics: x\noverrides: x",
        "must be a list",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_is_refused_that_holds(name: str) -> None:
    text, says = HOSTILE[name]
    with pytest.raises(ModelRefused) as refused:
        load(text, "x", CATALOGUE)
    assert any(says in fault for fault in refused.value.faults), refused.value.faults[:3]


def test_any_line_may_be_lost_and_the_file_still_loads_or_is_refused() -> None:
    lines = TEXT.splitlines(keepends=True)
    for place in range(3, len(lines), 41):
        text = "".join(lines[:place] + lines[place + 1 :])
        faults(text)
