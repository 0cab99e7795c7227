"""The model's meaning in plain Python: the slow, obvious reading that the compiled core is checked against.

It reads nothing but the parsed model, the profile and the findings; of the core it uses only what a model consists of.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from core.conditions import Condition, Rule
from core.model import CATEGORIES, DECISIONS, LEVELS, Attribute, Characteristic, Feature, Model

FLOWS = (
    "revenue", "cost_of_sales", "gross_profit", "sga_expense", "operating_expenses", "depreciation", "ebit",
    "interest_expense", "ebt", "net_income", "operating_cash_flow",
)  # fmt: skip
STOCKS = (
    "total_assets", "current_assets", "cash", "receivables", "inventories", "fixed_assets", "current_liabilities",
    "long_term_liabilities", "total_liabilities", "retained_earnings", "market_value_of_equity", "shares_outstanding",
)  # fmt: skip

Value = float | str | None
Books = dict[str, float | None]


def round9(x: float | None) -> float | None:
    """Nine significant digits; what is not finite is missing."""
    return None if x is None or not math.isfinite(x) else float(format(x, ".9g"))


# ---------------------------------------------------------------- features


def features(model: Model, profile: Any, findings: Any, as_of: dt.date) -> dict[str, Value]:
    """Every feature by name: a number, the text of a value, or None where it is missing."""
    books = statement(profile)
    financials = profile.financials
    values = distress(
        books,
        gnp_index=_gnp_index(model, profile),
        dollars=model.tables["fx"].values.get(financials.currency) if financials and "fx" in model.tables else None,
    )
    chosen = applicable(values, getattr(financials, "listed", None), getattr(financials, "manufacturer", None))
    return {
        feature.name: _feature(model, feature, profile, findings, as_of, books, values, chosen)
        for feature in model.features.values()
    }


def _feature(
    model: Model, feature: Feature, profile: Any, findings: Any, as_of: dt.date, books: Books, values: Any, chosen: str
) -> Value:
    of = [_at(profile, findings, path) for path in feature.of]
    match feature.kind:
        case "value":
            return _scalar(of[0])
        case "age":
            return None if of[0] is None else round9((as_of - of[0]).days / 365.25)
        case "first" | "highest" | "lowest":
            return _of_several(feature, of, as_of)
        case "count" | "sum" | "max" | "any":
            return _over_list(feature, profile, findings)
        case "given":
            return float(sum(value is not None for value in of))
        case "class" | "member":
            return _by_table(model, feature, of)
        case "ratio":
            return round9(_ratio(feature, books))
        case "distress":
            return values[feature.distress][0] if feature.distress == chosen else None
        case "distress_choice":
            return chosen
        case "statement_faults":
            return statement_faults(books)
    raise AssertionError(feature.kind)


def _of_several(feature: Feature, of: list[Any], as_of: dt.date) -> Value:
    known = [
        round9((as_of - value).days / 365.25) if isinstance(value, dt.date) else _scalar(value)
        for value in of
        if value is not None
    ]
    if not known or feature.kind == "first":
        return known[0] if known else None
    rank = feature.values.index if feature.values is not None else float
    return (max if feature.kind == "highest" else min)(known, key=rank)  # type: ignore[arg-type]


def _scalar(value: Any) -> Value:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else round9(value)


def _at(profile: Any, findings: Any, path: str) -> Any:
    """The value at a path; a path through a list gives the list of its members' values, None where there is no list."""
    value: Any = profile
    if path.startswith("evidence."):
        value, path = findings, path.removeprefix("evidence.")
    steps = path.split(".")
    for place, step in enumerate(steps):
        if value is None:
            return None
        if step.endswith("[]"):
            members = getattr(value, step[:-2])
            rest = steps[place + 1 :]
            if members is None or not rest:
                return members
            return [getattr(member, rest[0]) for member in members]
        value = getattr(value, step)
    return value


def _over_list(feature: Feature, profile: Any, findings: Any) -> Value:
    head, _, field = feature.of[0].partition("[]")
    members = _at(profile, findings, f"{head}[]")
    if members is None:
        return None
    members = [
        m for m in members if all(holds(condition, _scalar(getattr(m, key))) for key, condition in feature.where)
    ]
    if feature.kind == "count":
        return float(len(members))
    values = [getattr(member, field[1:]) for member in members]
    if feature.kind == "any":
        return "true" if True in values else None if None in values else "false"
    if None in values:
        return None
    total = 0.0
    for value in values:
        total = total + value if feature.kind == "sum" else max(total, value)
    return round9(total)


def _by_table(model: Model, feature: Feature, of: list[Any]) -> Value:
    table = model.tables[feature.table]
    named: list[str] = []
    unknown = False
    for value in of:
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                unknown = True
            else:
                named.append(_country(model, one) if isinstance(one, str) else _group(model, one))
    if feature.kind == "member":
        return "true" if any(name in table.codes for name in named) else None if unknown else "false"
    ranks = [table.classes.index(table.class_of.get(name) or table.default) for name in named]
    enough = table.classes.index(feature.unknown_below or table.classes[-1])
    if unknown and (not ranks or max(ranks) < enough):
        return None
    return table.classes[max(ranks, default=0)]


def _country(model: Model, text: str) -> str:
    table = model.tables["countries"]
    code = text if text in table.codes or text in table.aliases else text.split("-")[0]
    return table.aliases.get(code, code)


def _group(model: Model, industry: Any) -> str:
    digits = "".join(c for c in industry.code if c.isdigit())
    prefixes = model.tables["industries"].schemes[industry.scheme]
    return prefixes[max((p for p in prefixes if digits.startswith(p)), key=len)]


# ---------------------------------------------------------------- statements


def statement(profile: Any) -> Books:
    """Both years' amounts, the year before as `prior.…`; flows over twelve months, next to nothing as nothing."""
    books: Books = {}
    for prefix, year in (("", "current"), ("prior.", "prior")):
        stated = getattr(profile.financials, year, None)
        months = getattr(stated, "period_months", None) or 12
        for name in (*STOCKS, *FLOWS):
            value = getattr(stated, name, None)
            if value is not None:
                value = 0.0 if abs(value) < 1e-9 else float(value)
                value = value * (12 / months) if name in FLOWS else value
            books[prefix + name] = value
    return books


def _ratio(feature: Feature, books: Books) -> float | None:
    assert feature.formula is not None
    above = _linear(feature.formula.numerator, books)
    if not feature.formula.denominator or above is None:
        return above
    below = _linear(feature.formula.denominator, books)
    return above / below if below is not None and below > 0 else None


def _linear(terms: tuple[tuple[float, str], ...], books: Books) -> float | None:
    total = 0.0
    for factor, name in terms:
        value = books[name]
        if value is None:
            return None
        total += factor * value
    return total


def _gnp_index(model: Model, profile: Any) -> float | None:
    current = getattr(profile.financials, "current", None)
    if current is None or current.period_end is None or "gnp_index" not in model.tables:
        return None
    return model.tables["gnp_index"].values.get(str(current.period_end.year - 1))


def statement_faults(books: Books) -> float | None:
    """How many identities do not hold within one hundredth; None where none can be checked."""
    faults = checked = 0
    for prefix in ("", "prior."):
        s = {name: books.get(prefix + name) for name in (*STOCKS, *FLOWS)}

        def known(*names: str, s: dict[str, float | None] = s) -> bool:
            return all(s[name] is not None for name in names)

        def apart(left: Any, right: Any) -> bool:
            return abs(left - right) > 0.01 * max(abs(left), abs(right))

        if known("current_assets", "total_assets"):
            checked += 1
            faults += s["current_assets"] > s["total_assets"] and apart(s["current_assets"], s["total_assets"])  # type: ignore[operator]
            if known("fixed_assets"):
                faults += apart(s["current_assets"] + s["fixed_assets"], s["total_assets"])  # type: ignore[operator]
        if known("current_liabilities", "total_liabilities"):
            checked += 1
            short, total = s["current_liabilities"], s["total_liabilities"]
            faults += short > total and apart(short, total)  # type: ignore[operator]
            if known("long_term_liabilities"):
                faults += apart(short + s["long_term_liabilities"], total)  # type: ignore[operator]
        if known("revenue", "cost_of_sales", "gross_profit"):
            checked += 1
            faults += apart(s["revenue"] - s["cost_of_sales"], s["gross_profit"])  # type: ignore[operator]
        liquid = sum(s[name] or 0.0 for name in ("cash", "receivables", "inventories"))
        if known("current_assets"):
            faults += liquid > s["current_assets"] and apart(liquid, s["current_assets"])  # type: ignore[operator]
    return float(faults) if checked or faults else None


# ---------------------------------------------------------------- distress models


class _Needs:
    """Takes a model's inputs and remembers those that lack, or divide and are not above zero."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.lacking: set[str] = set()

    def __call__(self, name: str, value: float | None = None) -> float:
        value = self.books[name] if value is None else value
        if value is None:
            self.lacking.add(name)
        return math.nan if value is None else value

    def divisor(self, name: str, value: float | None = None) -> float:
        value = self(name, value)
        if not value > 0:
            self.lacking.add(name)
            return math.nan
        return value

    def computed(self, name: str, value: float) -> float:
        """A divisor worked out of inputs that were asked for already."""
        return value if math.isnan(value) else self.divisor(name, value)


def distress(books: Books, gnp_index: float | None, dollars: float | None) -> dict[str, tuple[float | None, set[str]]]:
    """Value (nine digits) and lacking inputs of each of the eight models."""
    books = {**books, "gnp_index": gnp_index, "fx": dollars}
    for prefix in ("", "prior."):
        gross, revenue, cost = (books[prefix + name] for name in ("gross_profit", "revenue", "cost_of_sales"))
        if gross is None and revenue is not None and cost is not None:
            books[prefix + "gross_profit"] = revenue - cost
    answers: dict[str, tuple[float | None, set[str]]] = {}
    for name, formula in MODELS.items():
        needs = _Needs(books)
        value = formula(needs)
        answers[name] = (round9(value), needs.lacking)
    return answers


def _altman(n: _Needs) -> tuple[float, float, float, float, float]:
    ta, tl = n.divisor("total_assets"), n.divisor("total_liabilities")
    working = n("current_assets") - n("current_liabilities")
    return working / ta, n("retained_earnings") / ta, n("ebit") / ta, (ta - tl) / tl, tl


def altman_z(n: _Needs) -> float:
    wc, re, ebit, _, tl = _altman(n)
    mve, sales = n("market_value_of_equity") / tl, n("revenue") / n.divisor("total_assets")
    return 1.2 * wc + 1.4 * re + 3.3 * ebit + 0.6 * mve + 0.999 * sales


def altman_z_prime(n: _Needs) -> float:
    wc, re, ebit, bve, _ = _altman(n)
    return 0.717 * wc + 0.847 * re + 3.107 * ebit + 0.420 * bve + 0.998 * (n("revenue") / n.divisor("total_assets"))


def altman_z_double_prime(n: _Needs) -> float:
    wc, re, ebit, bve, _ = _altman(n)
    return 6.56 * wc + 3.26 * re + 6.72 * ebit + 1.05 * bve


def zmijewski(n: _Needs) -> float:
    ta, ni, tl = n.divisor("total_assets"), n("net_income"), n("total_liabilities")
    liquidity = n("current_assets") / n.divisor("current_liabilities")
    return -4.336 - 4.513 * (ni / ta) + 5.679 * (tl / ta) + 0.004 * (0.0 if math.isnan(liquidity) else liquidity)


def ohlson_o(n: _Needs) -> float:
    ta, tl, ca = n.divisor("total_assets"), n.divisor("total_liabilities"), n.divisor("current_assets")
    cl, ni, before = n("current_liabilities"), n("net_income"), n("prior.net_income")
    ffo = ni + n("depreciation")
    size = ta * n.divisor("fx") / n.divisor("gnp_index")
    change = n.computed("prior.net_income", abs(ni) + abs(before))
    return (
        -1.32 - 0.407 * (math.nan if math.isnan(size) else math.log(size)) + 6.03 * (tl / ta) - 1.43 * ((ca - cl) / ta)
        + 0.0757 * (cl / ca) - (1.72 if tl > ta else 0.0) - 2.37 * (ni / ta) - 1.83 * (ffo / tl)
        + (0.285 if ni < 0 and before < 0 else 0.0) - 0.521 * ((ni - before) / change)
    )  # fmt: skip


def springate(n: _Needs) -> float:
    ta, cl = n.divisor("total_assets"), n.divisor("current_liabilities")
    working = n("current_assets") - cl
    return 1.03 * (working / ta) + 3.07 * (n("ebit") / ta) + 0.66 * (n("ebt") / cl) + 0.4 * (n("revenue") / ta)


def beneish_m(n: _Needs) -> float:
    ta, ta_p = n.divisor("total_assets"), n.divisor("prior.total_assets")
    rev, rev_p = n.divisor("revenue"), n.divisor("prior.revenue")
    receivables, receivables_p = n("receivables") / rev, n("prior.receivables") / rev_p
    gross, gross_p = n.divisor("gross_profit"), n("prior.gross_profit")
    ppe, ppe_p = n("fixed_assets"), n("prior.fixed_assets")
    soft = 1 - (n("current_assets") + ppe) / ta
    soft_p = 1 - (n("prior.current_assets") + ppe_p) / ta_p
    dep, dep_p = n.divisor("depreciation"), n("prior.depreciation")
    sga, sga_p = n("sga_expense") / rev, n("prior.sga_expense") / rev_p
    debt = (n("long_term_liabilities") + n("current_liabilities")) / ta
    debt_p = (n("prior.long_term_liabilities") + n("prior.current_liabilities")) / ta_p
    accruals = (n("net_income") - n("operating_cash_flow")) / ta
    dsri = receivables / n.computed("prior.receivables", receivables_p)
    gmi = (gross_p / rev_p) / (gross / rev)
    aqi = soft / n.computed("prior.fixed_assets", soft_p)
    rate = dep / n.computed("fixed_assets", dep + ppe)
    depi = (dep_p / n.computed("prior.depreciation", dep_p + ppe_p)) / rate
    sgai = sga / n.computed("prior.sga_expense", sga_p)
    lvgi = debt / n.computed("prior.current_liabilities", debt_p)
    return (
        -4.84 + 0.92 * dsri + 0.528 * gmi + 0.404 * aqi + 0.892 * (rev / rev_p) + 0.115 * depi - 0.172 * sgai
        + 4.679 * accruals - 0.327 * lvgi
    )  # fmt: skip


def piotroski_f(n: _Needs) -> float:
    ta, ta_p = n.divisor("total_assets"), n.divisor("prior.total_assets")
    rev, rev_p = n.divisor("revenue"), n.divisor("prior.revenue")
    roa, roa_p = n("net_income") / ta, n("prior.net_income") / ta_p
    cash = n("operating_cash_flow") / ta
    debt, debt_p = n("long_term_liabilities") / ta, n("prior.long_term_liabilities") / ta_p
    liquid = n("current_assets") / n.divisor("current_liabilities")
    liquid_p = n("prior.current_assets") / n.divisor("prior.current_liabilities")
    shares, shares_p = n("shares_outstanding"), n("prior.shares_outstanding")
    margin, margin_p = n("gross_profit") / rev, n("prior.gross_profit") / rev_p
    signals = (
        roa > 0, cash > 0, roa > roa_p, cash > roa, debt < debt_p, liquid > liquid_p, shares <= shares_p,
        margin > margin_p, rev / ta > rev_p / ta_p,
    )  # fmt: skip
    return math.nan if n.lacking else float(sum(signals))


MODELS = {
    "altman_z": altman_z,
    "altman_z_prime": altman_z_prime,
    "altman_z_double_prime": altman_z_double_prime,
    "zmijewski": zmijewski,
    "ohlson_o": ohlson_o,
    "springate": springate,
    "beneish_m": beneish_m,
    "piotroski_f": piotroski_f,
}


def applicable(values: dict[str, tuple[float | None, set[str]]], listed: bool | None, manufacturer: bool | None) -> str:
    """The model that applies, or `none`."""
    wanted = "altman_z_double_prime"
    if manufacturer and listed is not None:
        wanted = "altman_z" if listed else "altman_z_prime"
    return next((name for name in (wanted, "zmijewski") if values[name][0] is not None), "none")


# ---------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Expected:
    """What a row must come to; points in hundredths."""

    attributes: list[int]
    points: list[int]
    score: int
    low: int
    high: int
    known: int
    weight: int
    categories: dict[str, int]
    overrides: list[str]
    floors: list[str]
    level: str
    decision: str


def holds(condition: Condition, value: Value) -> bool:
    if value is None:
        return condition.missing
    if isinstance(value, str):
        return value in condition.values
    return any(interval.low <= value < interval.high for interval in condition.intervals)


def rule_holds(rule: Rule, row: dict[str, Value], required_missing: set[str]) -> bool:
    return any(
        all(holds(condition, row[name]) for name, condition in alternative.terms)
        and (not alternative.required_missing or bool(required_missing & set(alternative.required_missing)))
        for alternative in rule.alternatives
    )


def attribute(c: Characteristic, row: dict[str, Value]) -> Attribute:
    """The attribute of a characteristic that applies to a row."""
    applies = c.not_applicable_when is None or not rule_holds(c.not_applicable_when, row, set())
    if c.chosen_when is not None:
        applies = rule_holds(c.chosen_when, row, set())
    if not applies:
        return next(a for a in c.attributes if a.condition.not_applicable)
    return next(a for a in c.attributes if holds(a.condition, row[c.feature]))


def conclude(model: Model, row: dict[str, Value]) -> Expected:
    """Everything that follows from a row of features."""
    taken = [attribute(c, row) for c in model.characteristics]
    score = model.base + sum(a.points for a in taken)
    categories = {
        name: sum(a.points for a, c in zip(taken, model.characteristics, strict=True) if c.category == name)
        for name in CATEGORIES
    }
    required_missing = {
        c.category for a, c in zip(taken, model.characteristics, strict=True) if c.required and a.missing
    }
    low, high, known, weight = _spread(model, taken, score)
    overrides = [o for o in model.overrides if rule_holds(o.when, row, required_missing)]
    floors = [f for k in model.categories for f in k.floors if categories[f.category] >= f.points]
    ranks = [rank for rank, (_, mark) in enumerate(model.bands) if score >= mark]
    ranks += [LEVELS.index(o.floor) for o in overrides] + [LEVELS.index(f.level) for f in floors]
    level = LEVELS[max(ranks)]
    decision = max([model.decisions[level], *(o.decision for o in overrides)], key=DECISIONS.index)
    return Expected(
        [list(c.attributes).index(a) for a, c in zip(taken, model.characteristics, strict=True)],
        [a.points for a in taken], score, low, high, known, weight, categories,
        [o.code for o in overrides], [f.code for f in floors], level, decision,
    )  # fmt: skip


def _spread(model: Model, taken: list[Attribute], score: int) -> tuple[int, int, int, int]:
    """Lowest and highest score were the missing known, and the weight known of the whole weight."""
    low = high = score
    known = weight = 0
    groups: dict[str, list[tuple[Characteristic, Attribute]]] = {}
    for a, c in zip(taken, model.characteristics, strict=True):
        groups.setdefault(c.exclusive or f"alone: {c.name}", []).append((c, a))
    for members in groups.values():
        best, worst = min(c.best for c, _ in members), max(c.worst for c, _ in members)
        missing = [a for _, a in members if a.missing]
        weight += worst - best
        if missing:
            low += best - sum(a.points for a in missing)
            high += worst - sum(a.points for a in missing)
        else:
            known += worst - best
    return low, high, known, weight
