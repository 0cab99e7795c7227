"""From the tree of a model file to typed parts. Everything unknown, malformed or pointing nowhere is a fault."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal

from core import conditions, formula
from core.catalogue import Catalogue, Field, Kind, UnknownPath
from core.conditions import Alternative, Condition, Rule
from core.document import Faults, Mapping, Section, Sequence, Text, nearest, read
from core.model import (
    CATEGORIES,
    DECISIONS,
    DEFAULT_SCREENING,
    DISTRESS_CHOICES,
    FLAG_VALUES,
    HUNDREDTHS,
    LEVELS,
    MAX_SCORE,
    Attribute,
    CategoryInfo,
    Characteristic,
    Feature,
    Floor,
    Model,
    Override,
    Screening,
    Table,
)
from core.ratios import MODELS, STATEMENT_FIELDS

TABLE_KINDS = ["countries", "set", "classes", "industries", "series"]
FEATURE_KINDS = [
    "value", "age", "first", "highest", "lowest", "count", "sum", "max", "any", "given", "class", "member", "ratio",
    "distress", "distress_choice", "statement_faults",
]  # fmt: skip
SCALARS: tuple[Kind, ...] = ("number", "flag", "category")
REQUIRED_MISSING = "required_missing"
STATEMENTS = {"": "financials.current.", formula.PRIOR: "financials.prior."}

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_CODE = re.compile(r"[A-Z][A-Z0-9_]*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_POINTS = re.compile(r"([-+]?[0-9]{1,6})(?:\.([0-9]+))?")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
# What the keys of a series must look like, where the core reads the series itself.
_SERIES_KEYS = {"gnp_index": re.compile(r"[0-9]{4}"), "fx": re.compile(r"[A-Z]{3}")}


def read_model(text: bytes, sha256: bytes, catalogue: Catalogue, faults: Faults) -> Model | None:
    """The model of one file. None where nothing could be read at all; otherwise `faults` says what is wrong."""
    tree = read(text, faults)
    if tree is None:
        return None
    top = Section(tree, "", faults)
    head = top.section("model")
    version = head.text("version")
    if version and not _VERSION.fullmatch(version):
        head.fault("must be three numbers such as 1.0.0", "version")
    identity = (_name(head, "id"), version, head.text("title"), _date(head, "released"))
    head.text("description", required=False)
    head.close()
    base = _points(top, "base")
    bands = tuple(_band(section) for section in top.sections("bands"))
    decisions = _decisions(top.section("decisions"))
    required_lists = tuple(top.texts("required_lists", required=False))
    screening = _screening(top.section("screening")) if top.has("screening") else DEFAULT_SCREENING
    categories = tuple(_category(section) for section in top.sections("categories"))
    tables = {name: _table(name, node, faults) for name, node in top.section("tables").items()}
    reader = _FeatureReader(catalogue, tables, faults)
    features = {name: reader.feature(name, node) for name, node in top.section("features").items()}
    rules = _RuleReader(features, faults)
    characteristics = tuple(_characteristic(section, rules) for section in top.sections("characteristics"))
    overrides = tuple(_override(section, rules) for section in top.sections("overrides"))
    top.close()
    return Model(
        *identity, base, bands, decisions, required_lists, screening, categories, tables, features, characteristics,
        overrides, text, sha256,
    )  # fmt: skip


def _name(section: Section, key: str) -> str:
    value = section.text(key)
    if value and not _NAME.fullmatch(value):
        section.fault(f'"{value}" must be lower_case letters, digits and _', key)
    return value


def _code(section: Section) -> str:
    value = section.text("code")
    if value and not _CODE.fullmatch(value):
        section.fault(f'"{value}" must be UPPER_CASE letters, digits and _', "code")
    return value


def _date(section: Section, key: str) -> str:
    value = section.text(key)
    if value:
        try:
            if not _DATE.fullmatch(value):
                raise ValueError
            dt.date.fromisoformat(value)
        except ValueError:
            section.fault(f'"{value}" is not a date such as 2026-11-23', key)
    return value


def _points(section: Section, key: str) -> int:
    """Hundredths of a point."""
    value = section.text(key)
    if not value:
        return 0
    match = _POINTS.fullmatch(value)
    if match is None:
        section.fault(f'"{value}" is not a finite number such as 2.5', key)
        return 0
    decimals = (match[2] or "").rstrip("0")
    if len(decimals) > 2:
        section.fault(f'"{value}" has more than two decimals', key)
        return 0
    points = int(Decimal(value) * HUNDREDTHS)
    if abs(points) > MAX_SCORE:
        section.fault(f'"{value}" is out of range (-100 to 100)', key)
        return 0
    return points


def _band(section: Section) -> tuple[str, int]:
    band = section.one_of("level", list(LEVELS)), _points(section, "from")
    section.close()
    return band


def _decisions(section: Section) -> dict[str, str]:
    decisions = {level: section.one_of(level, list(DECISIONS)) for level in LEVELS}
    section.close()
    return decisions


def _screening(section: Section) -> Screening:
    value = section.text("threshold")
    section.close()
    if not _NUMBER.fullmatch(value) or not 0 < float(value) <= 1:
        if value:
            section.fault(f'"{value}" is no score of a match: above 0 and at most 1', "threshold")
        return DEFAULT_SCREENING
    return Screening(float(value))


def _category(section: Section) -> CategoryInfo:
    name, title = section.one_of("name", list(CATEGORIES)), section.text("title")
    floors = []
    for floor in section.sections("floors", required=False):
        points, level = _points(floor, "points"), floor.one_of("level", list(LEVELS))
        floors.append(Floor(name, points, level, _code(floor), floor.text("message"), floor.line))
        floor.close()
    section.close()
    return CategoryInfo(name, title, tuple(floors))


def _table(name: str, node: object, faults: Faults) -> Table:
    section = Section(node, f"tables.{name}", faults)
    kind, source, as_of = section.one_of("kind", TABLE_KINDS), section.text("source"), _date(section, "as_of")
    table = Table(name, kind, source, as_of)
    if kind == "countries":
        codes = tuple(section.texts("codes"))
        aliases, withdrawn = _text_map(section, "aliases"), _text_map(section, "withdrawn")
        table = Table(name, kind, source, as_of, codes=codes, aliases=aliases, withdrawn=withdrawn)
    elif kind == "set":
        table = Table(name, kind, source, as_of, codes=tuple(section.texts("codes")))
    elif kind == "classes":
        classes = tuple(section.texts("classes"))
        class_of: dict[str, str] = {}
        lists = section.section("codes")
        for label in classes:
            for code in lists.texts(label, required=False):
                if code in class_of:
                    lists.fault(f'"{code}" stands in two classes ({class_of[code]} and {label})', label)
                class_of[code] = label
        lists.close()
        default = section.one_of("default", list(classes), required=False)
        table = Table(name, kind, source, as_of, classes=classes, class_of=class_of, default=default)
    elif kind == "industries":
        groups = tuple(section.texts("groups"))
        listed = section.section("schemes").items()
        schemes = {scheme: _prefixes(scheme, codes, groups, faults) for scheme, codes in listed}
        table = Table(name, kind, source, as_of, groups=groups, schemes=schemes)
    elif kind == "series":
        series = section.section("values")
        values = {key: _series_value(series, name, key, value) for key, value in series.items()}
        table = Table(name, kind, source, as_of, values=values)
    section.close()
    return replace(table, line=section.line)


def _text_map(section: Section, key: str) -> dict[str, str]:
    if not section.has(key):
        section.any(key, required=False)
        return {}
    texts = section.section(key)
    return {k: texts.text(k) for k, _ in texts.items()}


def _prefixes(scheme: str, node: object, groups: tuple[str, ...], faults: Faults) -> dict[str, str]:
    section = Section(node, f"tables.industries.schemes.{scheme}", faults)
    result = {}
    for prefix, group in section.items():
        if group not in groups:
            section.fault(f'unknown group "{group}"{nearest(str(group), list(groups))}', prefix)
        result[prefix] = str(group)
    return result


def _series_value(section: Section, name: str, key: str, value: object) -> float:
    keys = _SERIES_KEYS.get(name)
    if keys is not None and not keys.fullmatch(key):
        section.fault("is not a key of this series (gnp_index: a year, fx: a currency)", key)
    if not isinstance(value, Text) or not _NUMBER.fullmatch(value) or not float(value) > 0:
        section.fault("must be a finite number above 0", key)
        return 1.0
    return float(value)


class _FeatureReader:
    def __init__(self, catalogue: Catalogue, tables: dict[str, Table], faults: Faults) -> None:
        self.catalogue = catalogue
        self.tables = tables
        self.faults = faults

    def feature(self, name: str, node: object) -> Feature:
        section = Section(node, f"features.{name}", self.faults)
        if not _NAME.fullmatch(name) or name == REQUIRED_MISSING:
            section.fault("a feature's name must be lower_case letters, digits and _ (and not required_missing)")
        kind = section.one_of("kind", FEATURE_KINDS)
        feature = self._of_kind(name, kind, section)
        section.close()
        return replace(feature, line=section.line)

    def _of_kind(self, name: str, kind: str, section: Section) -> Feature:
        if kind in ("value", "age", "given"):
            return self._plain(name, kind, section)
        if kind in ("first", "highest", "lowest"):
            return self._of_several(name, kind, section)
        if kind in ("count", "sum", "max", "any"):
            return self._over_list(name, kind, section)
        if kind in ("class", "member"):
            return self._by_table(name, kind, section)
        if kind == "ratio":
            return Feature(name, kind, None, formula=self._formula(section))
        if kind == "distress":
            return Feature(name, kind, None, distress=section.one_of("model", list(MODELS[:4])))
        if kind == "distress_choice":
            return Feature(name, kind, DISTRESS_CHOICES)
        return Feature(name, kind, None)

    def _fields(self, section: Section, kinds: tuple[Kind, ...], in_list: bool | None = None) -> list[Field]:
        fields = []
        paths = section.texts("of")
        if not paths and section.has("of"):
            section.fault("must name at least one field", "of")
        for path in paths:
            try:
                field = self.catalogue.field(path)
            except UnknownPath as unknown:
                hint = f'; did you mean "{unknown.nearest}"?' if unknown.nearest else ""
                section.fault(f'"{path}" is not a field of the profile or the evidence{hint}', "of")
                continue
            if kinds and field.kind not in kinds:
                section.fault(f'"{path}" is a {field.kind}; this kind of feature needs a {" or ".join(kinds)}', "of")
            elif in_list is not None and field.in_list != in_list:
                section.fault(f'"{path}" must {"" if in_list else "not "}go through a list ([])', "of")
            else:
                fields.append(field)
        return fields

    def _plain(self, name: str, kind: str, section: Section) -> Feature:
        if kind == "given":
            fields = self._fields(section, (), in_list=False)
            return Feature(name, kind, None, tuple(f.path for f in fields))
        kinds: tuple[Kind, ...] = ("date",) if kind == "age" else SCALARS
        fields = self._fields(section, kinds, in_list=False)
        if len(fields) != 1:
            if fields:
                section.fault("takes exactly one path", "of")
            return Feature(name, kind, None)
        values = {"flag": FLAG_VALUES, "category": fields[0].values}.get(fields[0].kind)
        return Feature(name, kind, values, (fields[0].path,))

    def _of_several(self, name: str, kind: str, section: Section) -> Feature:
        """One value out of several fields that tell the same thing: all numbers, flags, dates or one category."""
        fields = self._fields(section, (*SCALARS, "date"), in_list=False)
        order = tuple(section.texts("order", required=False))
        if not fields:
            return Feature(name, kind, None)
        first, paths = fields[0], tuple(f.path for f in fields)
        for other in fields[1:]:
            if other.kind != first.kind:
                section.fault(f'"{other.path}" is a {other.kind}, and "{first.path}" a {first.kind}', "of")
            elif set(other.values) != set(first.values):
                section.fault(f'"{other.path}" has other values than "{first.path}"', "of")
        for path in sorted({path for path in paths if paths.count(path) > 1}):
            section.fault(f'"{path}" stands twice', "of")
        values = {"flag": FLAG_VALUES, "category": first.values}.get(first.kind)
        if first.kind == "category" and kind != "first":
            if sorted(order) == sorted(first.values):
                values = order
            else:
                message = f"`order` must name each of {', '.join(first.values)} once, the lowest first"
                section.fault(message, "order" if section.has("order") else None)
        elif section.has("order"):
            section.fault("stands with highest and lowest of categories only", "order")
        return Feature(name, kind, values, paths)

    def _over_list(self, name: str, kind: str, section: Section) -> Feature:
        kinds: dict[str, tuple[Kind, ...]] = {"count": (), "any": ("flag",)}
        fields = self._fields(section, kinds.get(kind, ("number",)))
        values = FLAG_VALUES if kind == "any" else None
        sound = len(fields) == 1 and fields[0].in_list and (kind != "count" or fields[0].path.endswith("[]"))
        if not sound:
            if fields:
                wanted = "ends in [], as it names a list's members" if kind == "count" else "goes through a list ([])"
                section.fault(f"takes exactly one path, and it {wanted}", "of")
            section.any("where", required=False)
            return Feature(name, kind, values)
        list_path = fields[0].path[: fields[0].path.index("[]") + 2]
        return Feature(name, kind, values, (fields[0].path,), self._where(section, list_path))

    def _where(self, section: Section, list_path: str) -> tuple[tuple[str, Condition], ...]:
        if not section.has("where"):
            section.any("where", required=False)
            return ()
        where, members, result = section.section("where"), self.catalogue.members(list_path), []
        for key, node in where.items():
            field = members.get(key)
            if field is None or field.kind not in SCALARS:
                hint = nearest(key, list(members))
                where.fault(f'"{key}" is not a number, flag or category of {list_path}{hint}', key)
                continue
            values = {"flag": FLAG_VALUES, "category": field.values}.get(field.kind)
            condition = _condition(where, key, node, values)
            if condition is not None:
                if condition.not_applicable:
                    where.fault("`not_applicable` stands in attributes only", key)
                result.append((key, condition))
        return tuple(result)

    def _by_table(self, name: str, kind: str, section: Section) -> Feature:
        wanted = "classes" if kind == "class" else "set"
        named = section.text("table")
        table = self.tables.get(named)
        fields = self._fields(section, ("country", "industry"))
        if table is None or table.kind != wanted:
            known = [t.name for t in self.tables.values() if t.kind == wanted]
            section.fault(f'"{named}" is not a table of kind {wanted}{nearest(named, known)}', "table")
            section.any("unknown_below", required=False)
            return Feature(name, kind, FLAG_VALUES if kind == "member" else ())
        if len({f.kind for f in fields}) > 1:
            section.fault("countries and industries cannot be mixed", "of")
        paths = tuple(f.path for f in fields)
        unknown_below = section.one_of("unknown_below", list(table.classes), required=False) if kind == "class" else ""
        values = table.classes if kind == "class" else FLAG_VALUES
        of_industry = bool(fields) and fields[0].kind == "industry"
        return Feature(
            name, kind, values, paths, table=table.name, unknown_below=unknown_below, of_industry=of_industry
        )

    def _formula(self, section: Section) -> formula.Formula | None:
        try:
            parsed = formula.parse(section.text("formula"))
        except formula.FormulaError as error:
            section.fault(str(error), "formula")
            return None
        for _, name in (*parsed.numerator, *parsed.denominator):
            prior = formula.PRIOR if name.startswith(formula.PRIOR) else ""
            field = self.catalogue.fields.get(STATEMENTS[prior] + name.removeprefix(prior))
            if field is None or name.removeprefix(prior) not in STATEMENT_FIELDS:
                hint = nearest(name, [*STATEMENT_FIELDS, *(formula.PRIOR + name for name in STATEMENT_FIELDS)])
                section.fault(f'"{name}" is not an amount of a statement{hint}', "formula")
        return parsed


def _condition(section: Section, key: str, node: object, values: tuple[str, ...] | None) -> Condition | None:
    texts = [node] if isinstance(node, Text) else node
    if not isinstance(texts, (list, Sequence)) or not texts or not all(isinstance(t, Text) for t in texts):
        section.fault("must be a condition or a list of conditions", key)
        return None
    parsed = conditions.parse_condition([str(t) for t in texts], values)
    if isinstance(parsed, str):
        section.fault(parsed, key)
        return None
    return parsed


class _RuleReader:
    def __init__(self, features: dict[str, Feature], faults: Faults) -> None:
        self.features = features
        self.faults = faults

    def rule(self, section: Section, key: str, of_override: bool = False) -> Rule:
        alternatives = section.sections(key)
        if not alternatives and section.has(key):
            section.fault("must hold at least one alternative", key)
        return Rule(tuple(self._alternative(alternative, of_override) for alternative in alternatives))

    def _alternative(self, section: Section, of_override: bool) -> Alternative:
        terms: list[tuple[str, Condition]] = []
        required_missing: tuple[str, ...] = ()
        entries = section.items()
        if not entries:
            section.fault("an alternative must hold at least one condition")
        for key, node in entries:
            if key == REQUIRED_MISSING:
                required_missing = tuple(section.texts(key))
                if not required_missing or not of_override:
                    section.fault("stands in overrides only, and names at least one category", key)
                for category in required_missing:
                    if category not in CATEGORIES:
                        section.fault(f'unknown category "{category}"', key)
                continue
            feature = self.features.get(key)
            if feature is None:
                section.fault(f'unknown feature "{key}"{nearest(key, list(self.features))}', key)
                continue
            condition = _condition(section, key, node, feature.values)
            if condition is not None:
                if condition.not_applicable:
                    section.fault("`not_applicable` stands in attributes only", key)
                terms.append((key, condition))
        return Alternative(tuple(terms), required_missing)


def _characteristic(section: Section, rules: _RuleReader) -> Characteristic:
    name = _name(section, "name")
    feature_name = section.text("feature")
    feature = rules.features.get(feature_name)
    if feature is None and feature_name:
        section.fault(f'unknown feature "{feature_name}"{nearest(feature_name, list(rules.features))}', "feature")
    not_applicable_when, chosen_when = (
        rules.rule(section, key) if section.has(key) else None for key in ("not_applicable_when", "chosen_when")
    )
    section.asked.update(("not_applicable_when", "chosen_when"))
    title, category = section.text("title"), section.one_of("category", list(CATEGORIES))
    required, direction = section.flag("required"), section.one_of("direction", ["rising", "falling"], required=False)
    exclusive = section.text("exclusive", required=False)
    if bool(exclusive) != (chosen_when is not None):
        section.fault("`exclusive` and `chosen_when` belong together")
    if exclusive and not_applicable_when is not None:
        section.fault("`exclusive` and `not_applicable_when` cannot stand together")
    attributes = tuple(_attribute(child, feature) for child in section.sections("attributes"))
    section.close()
    return Characteristic(
        name, title, category, feature_name, required, direction, attributes, not_applicable_when, exclusive,
        chosen_when, section.line,
    )  # fmt: skip


def _attribute(section: Section, feature: Feature | None) -> Attribute:
    node = section.any("when")
    condition = Condition()
    if feature is not None and node is not None:
        condition = _condition(section, "when", node, feature.values) or condition
    label = str(node) if isinstance(node, Text) else ", ".join(node) if isinstance(node, Sequence) else ""
    attribute = Attribute(
        condition, label.replace("=", ""), _points(section, "points"), _code(section), section.text("message"),
        section.flag("adverse"), section.flag("unknown"), section.line,
    )  # fmt: skip
    section.close()
    return attribute


def _override(section: Section, rules: _RuleReader) -> Override:
    override = Override(
        _code(section),
        rules.rule(section, "when", of_override=True),
        section.one_of("floor", list(LEVELS)),
        section.one_of("decision", list(DECISIONS)),
        section.flag("legal"),
        section.text("message"),
        section.text("source", required=False),
        section.line,
    )
    section.close()
    return override


def tree_of(text: bytes) -> Mapping:
    """The tree of a model file that is known to be sound."""
    tree = read(text, Faults())
    assert isinstance(tree, Mapping)
    return tree
