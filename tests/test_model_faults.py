"""Every check of a model file refuses the smallest change that breaks it, and says where."""

from __future__ import annotations

import re

import pytest
from additions import ADDED, DATED, RULE, added, feature, put, rule, table
from shipped import CATALOGUE, changed, faults

from core.loader import load
from core.model import ModelRefused

LINE = re.compile(r"line (\d+): ")

BIG = "[" + ", ".join(f"c{i}" for i in range(64)) + "]"
MANY_RULES = "\n".join(RULE.strip("\n").replace("X_RULE", f"X_{i}") for i in range(65))
MANY_LINES = "".join(ADDED.replace("x_layers", f"x_{i}").replace("X_", f"X{i}_") for i in range(520))
GROUPED = '    exclusive: g\n    chosen_when: [{is_shell_bank: "true"}]\n'
NOT_APPLICABLE = '      - {when: not_applicable, points: 0, code: X_NA, message: "Does not apply."}\n'

BROKEN = {
    "unknown key at the top": (
        lambda: changed(("\nbase: 0\n", "\nbase: 0\nbasis: 0\n")),
        'unknown key; did you mean "base"?',
    ),
    "unknown key of the model": (
        lambda: changed(("\n  id: kyb\n", "\n  id: kyb\n  idd: 1\n")),
        "model.idd: unknown key",
    ),
    "unknown key of a category": (
        lambda: changed(("title: Reputation\n", "title: Reputation\n    tone: x\n")),
        "tone: unknown key",
    ),
    "unknown key of a table": (lambda: table(f"{{kind: set, {DATED}, codes: [DE], code: x}}"), "code: unknown key"),
    "unknown key of a feature": (lambda: feature("{kind: value, of: business.employees, off: x}"), "off: unknown key"),
    "unknown key of a characteristic": (
        lambda: added(("title: Layers", "title: Layers\n    weight: 2")),
        "weight: unknown key",
    ),
    "unknown key of an attribute": (lambda: added(("code: X_FEW", "code: X_FEW, colour: red")), "colour: unknown key"),
    "unknown key of a rule": (lambda: rule("floor: high", "floor: high, roof: low"), "roof: unknown key"),
    "a key that lacks": (lambda: added(("    title: Layers\n", "")), "the key `title` is missing"),
    "duplicate key": (lambda: changed(("\nbase: 0\n", "\nbase: 0\nbase: 1\n")), "the key stands twice"),
    "duplicate key of a table": (
        lambda: table(f"{{kind: set, {DATED}, codes: [DE], codes: [FR]}}"),
        "the key stands twice",
    ),
    "duplicate name": (lambda: added(("name: x_layers", "name: altman_z")), "the name stands twice"),
    "duplicate code": (lambda: added(("code: X_FEW", "code: X_MANY")), "the code X_MANY stands twice"),
    "duplicate code of a rule": (lambda: rule("X_RULE", "OVR_SHELL_BANK"), "the code OVR_SHELL_BANK stands twice"),
    "a code in lower case": (lambda: added(("code: X_FEW", "code: x_few")), "must be UPPER_CASE"),
    "a name in upper case": (lambda: added(("name: x_layers", "name: X")), "must be lower_case"),
    "an unknown category": (lambda: added(("category: reputational", "category: other")), 'unknown value "other"'),
    "a category that lacks": (
        lambda: changed(("- name: industry\n    title: Industry\n", "- name: financial\n    title: x\n")),
        "must hold each of",
    ),
    "a version that is none": (lambda: changed(("version: 1.1.0", "version: 1.0")), "must be three numbers"),
    "a date that is none": (lambda: changed(("released: 2026-11-27", "released: 2026-02-30")), "is not a date"),
    "a date in another form": (lambda: changed(("released: 2026-11-27", "released: 20261123")), "is not a date"),
    "an unknown path": (lambda: feature("{kind: value, of: business.employes}"), 'did you mean "business.employees"?'),
    "a path of another kind": (
        lambda: feature("{kind: age, of: business.employees}"),
        "is a number; this kind of feature needs a date",
    ),
    "no path": (lambda: feature("{kind: value, of: []}"), "must name at least one field"),
    "two paths": (
        lambda: feature("{kind: value, of: [business.employees, ownership.layers]}"),
        "takes exactly one path",
    ),
    "a list where none may be": (
        lambda: feature('{kind: value, of: "ownership.owners[].share_pct"}'),
        "must not go through a list",
    ),
    "no list where one must be": (lambda: feature("{kind: sum, of: business.employees}"), "goes through a list"),
    "a count of a member's field": (lambda: feature('{kind: count, of: "ownership.owners[].country"}'), "ends in []"),
    "fields that tell different things": (
        lambda: feature("{kind: first, of: [business.employees, business.status]}"),
        '"business.status" is a category, and "business.employees" a number',
    ),
    "categories of other values": (
        lambda: feature("{kind: first, of: [business.status, business.licence_status]}"),
        'has other values than "business.status"',
    ),
    "one field twice": (
        lambda: feature("{kind: lowest, of: [business.employees, ownership.layers, business.employees]}"),
        '"business.employees" stands twice',
    ),
    "several fields of a list": (
        lambda: feature('{kind: highest, of: [ownership.layers, "ownership.owners[].share_pct"]}'),
        "must not go through a list",
    ),
    "several texts": (
        lambda: feature("{kind: first, of: [business.name, business.legal_form]}"),
        "is a text; this kind of feature needs a number or flag or category or date",
    ),
    "several of no field": (lambda: feature("{kind: first, of: []}"), "must name at least one field"),
    "an order that lacks a value": (
        lambda: feature("{kind: highest, of: business.status, order: [active, inactive, dissolved, unknown]}"),
        "`order` must name each of active, dissolved, in_liquidation, inactive, unknown once",
    ),
    "an order with a value twice": (
        lambda: feature("{kind: highest, of: signals.adverse_media_severity, order: [none, low, low, medium, high]}"),
        "`order` must name each of high, low, medium, none once",
    ),
    "an order that is not said": (
        lambda: feature("{kind: lowest, of: signals.adverse_media_severity}"),
        "features.x_feature: `order` must name each of high, low, medium, none once, the lowest first",
    ),
    "an order of numbers": (
        lambda: feature("{kind: highest, of: business.employees, order: [1, 2]}"),
        "stands with highest and lowest of categories only",
    ),
    "an order of the first": (
        lambda: feature("{kind: first, of: signals.adverse_media_severity, order: [none, low, medium, high]}"),
        "stands with highest and lowest of categories only",
    ),
    "an unknown kind of feature": (
        lambda: feature("{kind: average, of: business.employees}"),
        'unknown value "average"',
    ),
    "an unknown feature": (lambda: added(("feature: ownership_layers", "feature: layers")), 'unknown feature "layers"'),
    "an unknown feature of a rule": (lambda: rule("is_shell_bank", "is_shelf_bank"), 'did you mean "is_shell_bank"?'),
    "an unknown table": (
        lambda: feature("{kind: class, table: risks, of: business.jurisdiction}"),
        "is not a table of kind classes",
    ),
    "a table of another kind": (
        lambda: feature("{kind: member, table: country_risk, of: business.jurisdiction}"),
        "is not a table of kind set",
    ),
    "a table of something else": (
        lambda: feature("{kind: class, table: industry_risk, of: business.jurisdiction}"),
        "is not of countries",
    ),
    "countries and industries": (
        lambda: feature("{kind: member, table: eu_high_risk, of: [business.jurisdiction, business.industry]}"),
        "cannot be mixed",
    ),
    "an unknown class": (
        lambda: feature("{kind: class, table: country_risk, of: business.jurisdiction, unknown_below: bad}"),
        'unknown value "bad"',
    ),
    "an unknown value": (lambda: rule('{is_shell_bank: "true"}', "{business_status: gone}"), '"gone" is not a value'),
    "an unknown member of a list": (
        lambda: feature('{kind: count, of: "ownership.owners[]", where: {shares: missing}}'),
        "is not a number, flag or category of",
    ),
    "a formula of unknown fields": (
        lambda: feature('{kind: ratio, formula: "cash / sales"}'),
        '"sales" is not an amount',
    ),
    "a formula of no amount": (
        lambda: feature('{kind: ratio, formula: "cash / period_months"}'),
        '"period_months" is not an amount',
    ),
    "a formula that cannot be read": (
        lambda: feature('{kind: ratio, formula: "cash / revenue + ebit)"}'),
        "is not expected",
    ),
    "an unknown distress model": (lambda: feature("{kind: distress, model: ohlson_o}"), 'unknown value "ohlson_o"'),
    "a class of too many values": (
        lambda: put(
            "tables", f"  x_table: {{kind: classes, {DATED}, classes: {BIG}, default: c0, codes: {{}}}}"
        ).replace(
            "\nfeatures:\n", "\nfeatures:\n  x_feature: {kind: class, table: x_table, of: business.jurisdiction}\n"
        ),
        "has more than 63 values",
    ),
    "a table of no classes": (
        lambda: table(f"{{kind: classes, {DATED}, classes: [], codes: {{}}}}"),
        "classes: there is none",
    ),
    "a class that stands twice": (
        lambda: table(f"{{kind: classes, {DATED}, classes: [a, a], default: a, codes: {{}}}}"),
        'the class "a" stands twice',
    ),
    "a code in two classes": (
        lambda: table(f"{{kind: classes, {DATED}, classes: [a, b], default: a, codes: {{a: [DE], b: [DE]}}}}"),
        "stands in two classes",
    ),
    "a class that is not listed": (
        lambda: table(f"{{kind: classes, {DATED}, classes: [a], default: a, codes: {{b: [DE]}}}}"),
        "b: unknown key",
    ),
    "a country that is none": (
        lambda: table(f"{{kind: set, {DATED}, codes: [DE, ZZ]}}"),
        '"ZZ" is neither a country nor',
    ),
    "a table without a date": (lambda: table('{kind: set, source: "s", codes: [DE]}'), "the key `as_of` is missing"),
    "a table without a source": (
        lambda: table("{kind: set, as_of: 2026-01-01, codes: [DE]}"),
        "the key `source` is missing",
    ),
    "a second table of countries": (
        lambda: table(f"{{kind: countries, {DATED}, codes: [DE]}}"),
        "exactly one table of kind countries",
    ),
    "an alias of nothing": (
        lambda: changed(("aliases: {EL: GR, UK: GB}", "aliases: {EL: ZZ, UK: GB}")),
        '"ZZ" is not one of the codes',
    ),
    "an alias that is a code": (
        lambda: changed(("aliases: {EL: GR, UK: GB}", "aliases: {DE: GR, UK: GB}")),
        '"DE" is one of the codes itself',
    ),
    "a code withdrawn and in use": (
        lambda: changed(('\n      AN: "', '\n      DE: "')),
        '"DE" is one of the codes or aliases',
    ),
    "an industry of no group": (
        lambda: changed(("\n      nace:\n", "\n      nace:\n        460: wholesaling\n")),
        'did you mean "wholesale"?',
    ),
    "a prefix that is no number": (
        lambda: changed(("\n      nace:\n", "\n      nace:\n        G46: wholesale\n")),
        '"G46" is not a prefix',
    ),
    "an unknown scheme": (lambda: changed(("\n      sic:\n", "\n      sics:\n")), "unknown scheme"),
    "a scheme that lacks": (lambda: changed(("\n      sic:\n", "\n      sics:\n")), "no codes for sic"),
    "a series of a wrong key": (
        lambda: changed(("{\n      1968: 100.0", "{\n      68: 100.0")),
        "is not a key of this series",
    ),
    "a series of a wrong value": (
        lambda: changed(("{\n      1968: 100.0", "{\n      1968: 1e999")),
        "must be a finite number above 0",
    ),
    "a gap": (lambda: added(("[2, inf)", "[3, inf)")), "a gap between (-inf, 2) and [3, inf)"),
    "a gap at one number": (lambda: added(("[2, inf)", "(2, inf)")), "a gap between (-inf, 2) and (2, inf)"),
    "an overlap": (lambda: added(("[2, inf)", "[1, inf)")), "(-inf, 2) and [1, inf) overlap"),
    "an overlap at one number": (lambda: added(("(-inf, 2)", "(-inf, 2]")), "(-inf, 2] and [2, inf) overlap"),
    "no beginning": (lambda: added(("(-inf, 2)", "[0, 2)")), "must begin at -inf and end at inf"),
    "no end": (lambda: added(("[2, inf)", "[2, 9)")), "must begin at -inf and end at inf"),
    "an interval that cannot be read": (lambda: added(("[2, inf)", "2 to inf")), "is not an interval"),
    "an interval that is empty": (lambda: added(("[2, inf)", "[9, 2)")), "is empty"),
    "an infinity that is closed": (lambda: added(("[2, inf)", "[2, inf]")), "must be open where it is infinite"),
    "a bound that is not finite": (lambda: added(("[2, inf)", "[2, 1e999)")), "a bound that is not finite"),
    "a value that no attribute has": (
        lambda: added(
            ("feature: ownership_layers", "feature: has_nominees"),
            ('"(-inf, 2)"', '"false"'),
            ('"[2, inf)"', '"false"'),
        ),
        "no attribute for true",
    ),
    "a value in two attributes": (
        lambda: added(
            ("feature: ownership_layers", "feature: has_nominees"),
            ('"(-inf, 2)"', '"false"'),
            ('"[2, inf)"', '["false", "true"]'),
        ),
        'the value "false" stands in two attributes',
    ),
    "no missing attribute": (
        lambda: added(('      - {when: missing, points: 0, code: X_MISSING, message: "Unknown."}\n', "")),
        "exactly one `missing` attribute, not 0",
    ),
    "missing among values": (
        lambda: added(("when: missing", 'when: [missing, "[7, 8)"]')),
        "`missing` must be an attribute of its own",
    ),
    "points that are no number": (
        lambda: added(("points: 0, code: X_FEW", "points: few, code: X_FEW")),
        "is not a finite number",
    ),
    "points that are not finite": (
        lambda: added(("points: 0, code: X_FEW", "points: .inf, code: X_FEW")),
        "is not a finite number",
    ),
    "points in a power of ten": (
        lambda: added(("points: 0, code: X_FEW", "points: 1e9999999, code: X_FEW")),
        "is not a finite number",
    ),
    "points of three decimals": (
        lambda: added(("points: 0, code: X_FEW", "points: 0.125, code: X_FEW")),
        "more than two decimals",
    ),
    "points out of range": (lambda: added(("points: 0, code: X_FEW", "points: 900, code: X_FEW")), "out of range"),
    "a base that is not finite": (lambda: changed(("\nbase: 0\n", "\nbase: nan\n")), "is not a finite number"),
    "a sum above 100": (lambda: changed(("\nbase: 0\n", "\nbase: 1\n")), "the score can run from 1 to 101"),
    "a sum below 0": (lambda: changed(("\nbase: 0\n", "\nbase: -1\n")), "the score can run from -1 to"),
    "a sum above 100 where it does not apply": (
        lambda: added(
            ("    attributes:\n", '    not_applicable_when: [{is_shell_bank: "true"}]\n    attributes:\n'),
            ("      - {when: missing", NOT_APPLICABLE.replace("points: 0", "points: 5") + "      - {when: missing"),
        ),
        "the score can run from 0 to 105",
    ),
    "a top band that is not reached": (
        lambda: changed(
            ("{level: critical, from: 60}", "{level: critical, from: 100}"), ("\nbase: 0\n", "\nbase: -0.01\n")
        ),
        "no profile can score above 99.99",
    ),
    "a band that lacks": (
        lambda: changed(("  - {level: medium, from: 20}\n", "")),
        "must hold low, medium, high, critical",
    ),
    "bands out of order": (
        lambda: changed(("{level: medium, from: 20}", "{level: medium, from: 50}")),
        "must begin above the one before",
    ),
    "a first band above 0": (lambda: changed(("{level: low, from: 0}", "{level: low, from: 1}")), "must begin at 0"),
    "an unknown decision": (lambda: changed(("critical: decline}", "critical: refuse}")), 'unknown value "refuse"'),
    "missing cheaper than a benign attribute": (
        lambda: added(("points: 0, code: X_FEW", "points: 1, code: X_FEW")),
        "missing has 0 points, fewer than the 1 of",
    ),
    "unknown cheaper than a benign attribute": (
        lambda: added(
            ("adverse: true, code: X_MANY", "unknown: true, code: X_MANY"),
            ("points: 0, code: X_FEW", "points: 1, code: X_FEW"),
        ),
        "[2, inf) has 0 points, fewer than the 1 of",
    ),
    "required and missing not the worst": (
        lambda: added(
            ("title: Layers", "title: Layers\n    required: true"), ("points: 0, adverse", "points: 1, adverse")
        ),
        "the feature is required, so missing must have the most points (1)",
    ),
    "every attribute adverse": (
        lambda: added(("0, code: X_FEW", "0, adverse: true, code: X_FEW")),
        "every attribute is adverse",
    ),
    "a direction that does not hold": (
        lambda: added(
            ("title: Layers", "title: Layers\n    direction: falling"), ("points: 0, adverse", "points: 1, adverse")
        ),
        "points must be falling, but (-inf, 2) has 0 and [2, inf) has 1",
    ),
    "a direction of a category": (
        lambda: added(
            ("title: Layers", "title: Layers\n    direction: rising"),
            ("feature: ownership_layers", "feature: has_nominees"),
            ('"(-inf, 2)"', '"false"'),
            ('"[2, inf)"', '"true"'),
        ),
        "a direction belongs to a number",
    ),
    "more than a third of all points": (
        lambda: added(("points: 0, adverse", "points: 60, adverse")),
        "no single one may hold more than a third",
    ),
    "a group without a choice": (
        lambda: added(("title: Layers", "title: Layers\n    exclusive: g")),
        "`exclusive` and `chosen_when` belong together",
    ),
    "a group whose choice leaves a value out": (
        lambda: added(
            ("    attributes:\n", GROUPED + "    attributes:\n"),
            ("      - {when: missing", NOT_APPLICABLE + "      - {when: missing"),
        ),
        "where is_shell_bank is false, none of them is chosen",
    ),
    "a group whose choices overlap": (
        lambda: changed(
            ("chosen_when: [{distress_model: [zmijewski]}]", "chosen_when: [{distress_model: [zmijewski, none]}]")
        ),
        "where distress_model is none, more than one of them is chosen",
    ),
    "a group that decides by a number": (
        lambda: changed(("chosen_when: [{distress_model: [zmijewski]}]", 'chosen_when: [{owner_count: "[0, 9)"}]')),
        "every chosen_when must ask for values of one and the same category",
    ),
    "a group in two categories": (
        lambda: added(
            (
                "    attributes:\n",
                "    exclusive: distress\n    chosen_when: [{distress_model: [none]}]\n    attributes:\n",
            ),
            ("      - {when: missing", NOT_APPLICABLE + "      - {when: missing"),
        ),
        "must stand in one category",
    ),
    "not chosen and yet points": (
        lambda: added(
            ("    attributes:\n", GROUPED + "    attributes:\n"),
            ("      - {when: missing", NOT_APPLICABLE.replace("points: 0", "points: 1") + "      - {when: missing"),
        ),
        "that is not chosen has 0 points",
    ),
    "not applicable without a rule": (
        lambda: added(("      - {when: missing", NOT_APPLICABLE + "      - {when: missing")),
        "must have no `not_applicable` attribute",
    ),
    "a rule without not applicable": (
        lambda: added(("    attributes:\n", '    not_applicable_when: [{is_shell_bank: "true"}]\n    attributes:\n')),
        "must have exactly one `not_applicable` attribute",
    ),
    "not applicable in a rule": (lambda: rule('"true"', "not_applicable"), "stands in attributes only"),
    "a rule of nothing": (lambda: rule('[{is_shell_bank: "true"}]', "[]"), "must hold at least one alternative"),
    "an alternative of nothing": (lambda: rule('{is_shell_bank: "true"}', "{}"), "must hold at least one condition"),
    "an unknown level": (lambda: rule("floor: high", "floor: higher"), 'did you mean "high"?'),
    "a switch that is neither": (lambda: rule("floor: high", "floor: high, legal: yes"), "must be true or false"),
    "required_missing of nothing": (
        lambda: rule('{is_shell_bank: "true"}', "{required_missing: []}"),
        "names at least one category",
    ),
    "required_missing of no category": (
        lambda: rule('{is_shell_bank: "true"}', "{required_missing: [law]}"),
        'unknown category "law"',
    ),
    "required_missing outside an override": (
        lambda: added(
            ("    attributes:\n", "    not_applicable_when: [{required_missing: [compliance]}]\n    attributes:\n"),
            ("      - {when: missing", NOT_APPLICABLE + "      - {when: missing"),
        ),
        "stands in overrides only",
    ),
    "a floor above its category": (
        lambda: changed(
            ("{points: 3.5, level: medium, code: FLR_IND_MEDIUM", "{points: 5.01, level: medium, code: FLR_IND_MEDIUM")
        ),
        "above the category's 5",
    ),
    "floors that do not rise": (
        lambda: changed(
            ("{points: 6, level: high, code: FLR_REP_HIGH", "{points: 6, level: medium, code: FLR_REP_HIGH")
        ),
        "lift to a higher level",
    ),
    "more overrides than a mask has bits": (lambda: put("overrides", MANY_RULES), "at most 64 are possible"),
    "more characteristics than there is room for": (
        lambda: put("characteristics", MANY_LINES),
        "at most 512 are possible",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_file_is_refused_for(name: str) -> None:
    make, says = BROKEN[name]
    text = make()
    found = faults(text)
    assert any(says in fault for fault in found), found[:5]
    for fault in found:
        match = LINE.match(fault)
        assert match, fault
        assert 1 <= int(match[1]) <= text.count("\n") + 1


def test_a_fault_names_the_line_to_change() -> None:
    text = added(("points: 0, code: X_FEW", "points: 1, code: X_FEW"))
    (fault,) = (f for f in faults(text) if "fewer than" in f)
    line = int(LINE.match(fault)[1])  # type: ignore[index]
    assert "X_MISSING" in text.splitlines()[line - 1]


def test_every_fault_is_listed_at_once() -> None:
    text = changed(
        ("\nbase: 0\n", "\nbase: 0\nbasis: 0\n"),
        ("aliases: {EL: GR, UK: GB}", "aliases: {EL: ZZ, UK: GB}"),
        ("{level: medium, from: 20}", "{level: medium, from: 50}"),
        ("\nfeatures:\n", "\nfeatures:\n  x_feature: {kind: value, of: business.size}\n"),
        (
            "\noverrides:\n",
            '\noverrides:\n  - {code: X, when: [{x: "true"}], floor: top, decision: review, message: "m"}\n',
        ),
    )
    found = "\n".join(faults(text))
    for says in (
        "basis: unknown key",
        '"ZZ" is not one of',
        "must begin above",
        '"business.size"',
        'feature "x"',
        '"top"',
    ):
        assert says in found, says
    with pytest.raises(ModelRefused, match=r"^bad\.yaml: \d+ faults\n  line ") as refused:
        load(text.encode(), "bad.yaml", CATALOGUE)
    assert refused.value.name == "bad.yaml"
