"""How each feature of a model is read from the profile's and evidence's structs: the plan behind core.features."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from core.catalogue import Catalogue, Field
from core.conditions import Condition
from core.formula import PRIOR
from core.model import FLAG_VALUES, Feature, Model, Table
from core.plan import add_condition
from core.ratios import MODELS, STATEMENT_FIELDS

PROFILE_NODE, EVIDENCE_NODE = 0, 1
_SUBDIVISION = re.compile(r"([A-Z]{2})-[A-Z0-9]{1,3}")
_DIGITS = re.compile(r"[A-U]?([0-9]{2,6})")
_DIGITS_OF_SCHEME = {"nace": (2, 4), "naics": (2, 6), "sic": (2, 4), "isic": (2, 4), "mcc": (4, 4)}


class Countries:
    """The countries of a model as numbers: codes and aliases, and subdivisions as their country."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.index = {code: place for place, code in enumerate(table.codes)}
        self.index |= {alias: self.index[code] for alias, code in table.aliases.items()}

    def find(self, text: str) -> int:
        """The number of a country; -1 where the code is not known."""
        found = self.index.get(text)
        if found is None and (match := _SUBDIVISION.fullmatch(text)):
            found = self.index.get(match[1])
        return -1 if found is None else found


class Industries:
    """The industry groups of a model as numbers, found by the longest prefix of a code."""

    CACHE_SIZE = 20_000

    def __init__(self, table: Table) -> None:
        number = {group: place for place, group in enumerate(table.groups)}
        self.prefixes = {
            scheme: {prefix: number[group] for prefix, group in groups.items()}
            for scheme, groups in table.schemes.items()
        }
        self.cache: dict[tuple[str, str], int] = {}

    def find(self, scheme: str, code: str) -> int:
        """The number of a code's group; -1 where the scheme has no such code."""
        found = self._find(scheme, code)
        if found >= 0 and len(self.cache) < self.CACHE_SIZE:
            self.cache[scheme, code] = found
        return found

    def _find(self, scheme: str, code: str) -> int:
        match = _DIGITS.fullmatch(code.replace(".", "").replace(" ", ""))
        shortest, longest = _DIGITS_OF_SCHEME[scheme]
        if match is None or not shortest <= len(match[1]) <= longest:
            return -1
        digits, prefixes = match[1], self.prefixes.get(scheme, {})
        for length in range(len(digits), 0, -1):
            found = prefixes.get(digits[:length])
            if found is not None:
                return found
        return -1


@dataclass(slots=True)
class NodePlan:
    """A struct (or list) inside the profile: its slot in the struct that holds it."""

    parent: int
    owner: type
    name: str
    type: type
    path: str


@dataclass(slots=True)
class SourcePlan:
    """Where countries, dates or codes are read: a field, a list's members, or a field of a list's members.

    shape: of a code, as catalogue.Field has it; empty for countries and dates.
    """

    node: int
    owner: type | None
    name: str
    member: type | None
    member_name: str
    path: str
    shape: str


@dataclass(slots=True)
class WherePlan:
    """A condition on a list's member: the fields of features.Where, with the type and name of its slot."""

    owner: type
    name: str
    kind: str
    missing: bool
    first_interval: int
    n_intervals: int
    codes: int
    values: dict[str, int] | None


@dataclass(slots=True)
class OpPlan:
    """One feature; the fields are those of features.Op, with types and names where it has slots."""

    kind: str
    node: int = -1
    owner: type | None = None
    name: str = ""
    member: type | None = None
    member_name: str = ""
    codes: dict[str, int] | None = None
    of: list[OpPlan] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    ranks: bytes = b""
    unknown_below: int = 0
    where: list[WherePlan] = field(default_factory=list)
    given: list[tuple[int, type, str]] = field(default_factory=list)
    numerator: list[tuple[float, int]] = field(default_factory=list)
    denominator: list[tuple[float, int]] = field(default_factory=list)
    distress: int = -1


@dataclass(slots=True)
class ExtractionPlan:
    roots: tuple[type, type]
    countries: Countries
    industries: Industries
    nodes: list[NodePlan] = field(default_factory=list)
    country_sources: list[SourcePlan] = field(default_factory=list)
    checked_sources: list[SourcePlan] = field(default_factory=list)
    ops: list[OpPlan] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    industry: tuple[int, type, str, type] | None = None
    statements: tuple[int, int] = (-1, -1)
    statement_type: type | None = None
    financials: tuple[int, type] | None = None
    shares: tuple[int, type, str, type, str] | None = None
    gnp_index: dict[int, float] = field(default_factory=dict)
    fx: dict[str, float] = field(default_factory=dict)


def extraction_plan(model: Model, catalogue: Catalogue) -> ExtractionPlan:
    """The plan of a sound model."""
    return _Planner(model, catalogue).build()


class _Planner:
    def __init__(self, model: Model, catalogue: Catalogue) -> None:
        self.model = model
        self.catalogue = catalogue
        self.plan = ExtractionPlan(
            (catalogue.profile, catalogue.evidence),
            Countries(model.tables["countries"]),
            Industries(model.tables["industries"]),
        )
        self.node_of = {"": PROFILE_NODE, "evidence": EVIDENCE_NODE}

    def build(self) -> ExtractionPlan:
        plan, fields = self.plan, self.catalogue.fields
        plan.country_sources = [self._source(f) for f in self.catalogue.of_kind("country")]
        # What is wrong in the evidence is not the caller's fault, and its sources have seen to it.
        checked = [f for f in fields.values() if (f.kind == "date" or f.shape) and not f.path.startswith("evidence.")]
        plan.checked_sources = [self._source(f) for f in checked]
        for f in self.catalogue.of_kind("industry"):
            assert f.item is not None
            plan.industry = (self._holder(f), f.owner, f.steps[-1], f.item)
        current = fields["financials.current"]
        plan.statement_type = current.item
        plan.financials = (self._holder(current), current.owner)
        plan.statements = (self._node("financials.current"), self._node("financials.prior"))
        share = fields["ownership.owners[].share_pct"]
        owners = fields["ownership.owners"]
        plan.shares = (self._holder(owners), owners.owner, "owners", share.owner, "share_pct")
        plan.ops = [self._op(feature) for feature in self.model.features.values()]
        tables = self.model.tables
        if "gnp_index" in tables:
            plan.gnp_index = {int(year): value for year, value in tables["gnp_index"].values.items()}
        if "fx" in tables:
            plan.fx = dict(tables["fx"].values)
        return plan

    def _node(self, path: str) -> int:
        """The number of the struct at a path, adding it and those that hold it."""
        if path not in self.node_of:
            struct = self.catalogue.fields[path]
            assert struct.item is not None
            parent = self._holder(struct)
            self.plan.nodes.append(NodePlan(parent, struct.owner, struct.steps[-1], struct.item, path))
            self.node_of[path] = len(self.plan.nodes) + 1
        return self.node_of[path]

    def _holder(self, f: Field) -> int:
        """The number of the struct that holds a field (or the list that the field goes through)."""
        path = f.path.split("[]")[0]
        return self._node(path.rpartition(".")[0])

    def _source(self, f: Field) -> SourcePlan:
        head, into, rest = f.path.partition("[]")
        if not into:
            return SourcePlan(self._holder(f), f.owner, f.steps[-1], None, "", f.path, f.shape)
        holder = self.catalogue.fields[head]
        member = f.owner if rest else None
        return SourcePlan(
            self._holder(f), holder.owner, holder.steps[-1], member, rest.removeprefix("."), f.path, f.shape
        )

    def _op(self, feature: Feature) -> OpPlan:
        if feature.kind in ("value", "age"):
            return self._value_op(feature.of[0], feature)
        if feature.kind in ("first", "highest", "lowest"):
            return OpPlan(feature.kind, of=[self._value_op(path, feature) for path in feature.of])
        if feature.kind in ("count", "sum", "max", "any"):
            return self._list_op(feature)
        if feature.kind in ("class", "member"):
            return self._table_op(feature)
        if feature.kind == "given":
            fields = [self.catalogue.fields[path] for path in feature.of]
            return OpPlan("given", given=[(self._holder(f), f.owner, f.steps[-1]) for f in fields])
        if feature.kind == "ratio":
            assert feature.formula is not None
            numerator, denominator = _slots(feature.formula.numerator), _slots(feature.formula.denominator)
            return OpPlan("ratio", numerator=numerator, denominator=denominator)
        if feature.kind == "distress":
            return OpPlan("distress", distress=MODELS.index(feature.distress))
        return OpPlan(feature.kind)

    def _value_op(self, path: str, feature: Feature) -> OpPlan:
        f = self.catalogue.fields[path]
        kind = "age" if f.kind == "date" else f.kind
        return OpPlan(kind, self._holder(f), f.owner, f.steps[-1], codes=_codes(feature.values))

    def _list_op(self, feature: Feature) -> OpPlan:
        source = self._source(self.catalogue.fields[feature.of[0]])
        members = self.catalogue.members(feature.of[0][: feature.of[0].index("[]") + 2])
        where = [self._where(members[name], condition) for name, condition in feature.where]
        member = source.member or (where[0].owner if where else None)
        return OpPlan(feature.kind, source.node, source.owner, source.name, member, source.member_name, where=where)

    def _where(self, f: Field, condition: Condition) -> WherePlan:
        values = {"flag": FLAG_VALUES, "category": f.values}.get(f.kind)
        as_feature = Feature(f.path, "value", values)
        first, codes = add_condition(condition, as_feature, self.plan.intervals)
        return WherePlan(
            f.owner, f.steps[-1], f.kind, condition.missing, first, len(condition.intervals), codes, _codes(values)
        )

    def _table_op(self, feature: Feature) -> OpPlan:
        table = self.model.tables[feature.table]
        industry, tables = feature.of_industry, self.model.tables
        names = tables["industries"].groups if industry else tables["countries"].codes
        if feature.kind == "class":
            ranks = bytes(table.classes.index(table.class_of.get(name, table.default)) for name in names)
            unknown_below = table.classes.index(feature.unknown_below or table.classes[-1])
        else:
            ranks = bytes(name in table.codes for name in names)
            unknown_below = 1
        kind = f"industry_{feature.kind}" if industry else feature.kind
        sources = [] if industry else [self._source_number(path) for path in feature.of]
        return OpPlan(kind, sources=sources, ranks=ranks, unknown_below=unknown_below)

    def _source_number(self, path: str) -> int:
        return next(place for place, source in enumerate(self.plan.country_sources) if source.path == path)


def _codes(values: tuple[str, ...] | None) -> dict[str, int] | None:
    return None if values is None else {value: code for code, value in enumerate(values)}


def _slots(terms: tuple[tuple[float, str], ...]) -> list[tuple[float, int]]:
    """Factors and places in the two statements laid end to end."""
    slots = []
    for factor, name in terms:
        prior = name.startswith(PRIOR)
        slots.append((factor, STATEMENT_FIELDS.index(name.removeprefix(PRIOR)) + prior * len(STATEMENT_FIELDS)))
    return slots
