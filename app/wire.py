"""The msgspec types of requests, answers and problems, and their enumerations.

The profile's types are the one description of what a caller may send: the decoder, the OpenAPI document and the
scoring core's field catalogue are all made from them. Absent and null both decode to None and mean missing.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Raw, Struct

from app.roles import Permission, Role

NUMBER_LIMIT = 1e15
LONGEST_OVERLAP_S = 30 * 86_400

Text = Annotated[str, Meta(min_length=1, max_length=512)]
ShortText = Annotated[str, Meta(min_length=1, max_length=128)]
Country = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=8,
        description="ISO 3166-1 alpha-2, or ISO 3166-2 for a subdivision (US-DE)",
        extra={"kind": "country"},
    ),
]
# PERF: a `pattern` is a regular expression run for every body (a fifth of the decoder's time), so the shape of these
# codes is checked by the core, and the schema says the pattern.
Currency = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=3,
        description="ISO 4217",
        extra={"shape": "AAA"},
        extra_json_schema={"pattern": "^[A-Z]{3}$"},
    ),
]
Amount = Annotated[float, Meta(ge=-NUMBER_LIMIT, le=NUMBER_LIMIT, description="units of `currency`")]
PositiveAmount = Annotated[float, Meta(ge=0, le=NUMBER_LIMIT, description="units of `currency`")]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Days = Annotated[int, Meta(ge=0, le=100_000)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Date = Annotated[dt.date, Meta(description="ISO 8601; at most one day ahead (UTC)")]
Lei = Annotated[
    str,
    Meta(
        min_length=20,
        max_length=20,
        description="ISO 17442",
        extra={"shape": "XXXXXXXXXXXXXXXXXX99"},
        extra_json_schema={"pattern": "^[A-Z0-9]{18}[0-9]{2}$"},
    ),
]

BusinessStatus = Literal["active", "inactive", "dissolved", "in_liquidation", "unknown"]
AddressKind = Literal["operating", "registered_agent", "virtual", "residential"]
DeliveryChannel = Literal["face_to_face", "remote_verified", "remote", "intermediary"]
LicenceStatus = Literal["held", "not_required", "applied_for", "missing", "revoked"]
AuditOpinion = Literal["unqualified", "qualified", "adverse", "disclaimer", "unaudited"]
MediaSeverity = Literal["none", "low", "medium", "high"]
IndustryScheme = Literal["nace", "naics", "sic", "isic", "mcc"]
OwnerKind = Literal["person", "company", "trust", "state"]
ScreeningStatus = Literal["clear", "potential", "confirmed", "not_screened"]
EvidenceStatus = Literal["ok", "not_screened", "not_configured", "stale", "timeout", "unavailable", "invalid"]
Level = Literal["low", "medium", "high", "critical"]
Decision = Literal["approve", "review", "decline"]
Category = Literal["financial", "operational", "compliance", "geographic", "ownership", "industry", "reputational"]
Explain = Literal["top", "full"]
ProfileFormat = Literal["html", "speedscope"]

LEVELS: tuple[Level, ...] = get_args(Level)
DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""In the order of the numbers that stand for them in records."""


class Request(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Base of everything a caller sends: unknown fields are refused."""


class Industry(Request, frozen=True):
    scheme: IndustryScheme
    code: Annotated[str, Meta(min_length=1, max_length=16, extra_json_schema={"pattern": "^[0-9A-Z][0-9A-Z. ]*$"})]


class Address(Request, frozen=True):
    street: Text | None = None
    city: ShortText | None = None
    region: ShortText | None = None
    postal_code: ShortText | None = None
    country: Country | None = None
    kind: AddressKind | None = None


class Business(Request, frozen=True):
    name: Text
    jurisdiction: Country
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    aliases: Annotated[list[Text], Meta(max_length=100)] | None = None
    registration_number: ShortText | None = None
    incorporated_on: Date | None = None
    status: BusinessStatus | None = None
    legal_form: ShortText | None = None
    lei: Lei | None = None
    vat_number: ShortText | None = None
    is_shell_bank: bool | None = None
    industry: Industry | None = None
    operating_countries: Annotated[list[Country], Meta(max_length=300)] | None = None
    address: Address | None = None
    website: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    email: Annotated[str, Meta(min_length=3, max_length=320)] | None = None
    phone: Annotated[str, Meta(min_length=3, max_length=32)] | None = None
    employees: Count | None = None
    delivery_channel: DeliveryChannel | None = None
    cash_intensive: bool | None = None
    licence_status: LicenceStatus | None = None


class Owner(Request, frozen=True):
    name: Text
    kind: OwnerKind | None = None
    country: Country | None = None
    share_pct: Percent | None = None
    birth_date: Date | None = None
    is_pep: bool | None = None
    registration_number: ShortText | None = None
    lei: Lei | None = None


class Director(Request, frozen=True):
    name: Text
    country: Country | None = None
    birth_date: Date | None = None
    is_pep: bool | None = None


class Ownership(Request, frozen=True):
    owners: Annotated[list[Owner], Meta(max_length=500)] | None = None
    directors: Annotated[list[Director], Meta(max_length=500)] | None = None
    layers: Annotated[int, Meta(ge=0, le=1000)] | None = None
    has_nominees: bool | None = None
    has_bearer_shares: bool | None = None


class Statement(Request, frozen=True):
    period_end: Date | None = None
    period_months: Annotated[int, Meta(ge=1, le=36)] | None = None
    total_assets: PositiveAmount | None = None
    current_assets: PositiveAmount | None = None
    cash: Amount | None = None
    receivables: PositiveAmount | None = None
    inventories: PositiveAmount | None = None
    fixed_assets: PositiveAmount | None = None
    current_liabilities: PositiveAmount | None = None
    long_term_liabilities: PositiveAmount | None = None
    total_liabilities: PositiveAmount | None = None
    retained_earnings: Amount | None = None
    revenue: Amount | None = None
    cost_of_sales: Amount | None = None
    gross_profit: Amount | None = None
    sga_expense: Amount | None = None
    operating_expenses: Amount | None = None
    depreciation: Amount | None = None
    ebit: Amount | None = None
    interest_expense: Amount | None = None
    ebt: Amount | None = None
    net_income: Amount | None = None
    operating_cash_flow: Amount | None = None
    market_value_of_equity: PositiveAmount | None = None
    shares_outstanding: PositiveAmount | None = None


class Financials(Request, frozen=True):
    currency: Currency | None = None
    listed: bool | None = None
    manufacturer: bool | None = None
    audit_opinion: AuditOpinion | None = None
    filing_overdue_days: Days | None = None
    current: Statement | None = None
    prior: Statement | None = None


class Signals(Request, frozen=True):
    adverse_media_count: Count | None = None
    adverse_media_severity: MediaSeverity | None = None
    litigation_count: Count | None = None
    insolvency_events: Count | None = None
    regulatory_actions: Count | None = None
    director_turnover_12m: Count | None = None
    website_verified: bool | None = None


class Profile(Request, frozen=True):
    """A business as its caller describes it. Only its name and jurisdiction are required."""

    business: Business
    ownership: Ownership | None = None
    financials: Financials | None = None
    signals: Signals | None = None


class Reason(Struct, frozen=True):
    """One characteristic's contribution to the score."""

    code: str
    characteristic: str
    category: Category
    points: float
    observed: float | bool | str | None
    attribute: str
    missing: bool
    message: str


class CategoryPoints(Struct, frozen=True):
    name: Category
    points: float
    max_points: float


class AppliedOverride(Struct, frozen=True):
    """A rule outside the sum that held: an override of the model, or the floor of a category."""

    code: str
    floor: Level
    decision: Decision
    legal: bool
    message: str


class Hit(Struct, frozen=True):
    """A listed name that resembles a subject's. `entity_digest`: of what the entry says; it changes with the entry.
    `confirmed`: by an identifier, or an equal name with the full birth date.
    `disposition_id`: of the finding of a person by which it is a namesake's, and counts for nothing."""

    subject: str
    list: str
    list_version: str
    kind: Literal["sanction", "pep", "other"]
    entity_id: str
    entity_digest: str
    matched_name: str
    score: float
    explanation: str
    confirmed: bool = False
    disposition_id: str | None = None


class Screening(Struct, frozen=True):
    """What screening found, for people; the scored facts are `app.evidence.base.ScreeningFacts`."""

    status: ScreeningStatus
    hits: list[Hit] = []


class Evidence(Struct, frozen=True):
    source: str
    status: EvidenceStatus
    version: str | None = None
    fetched_at: str | None = None


class Distress(Struct, frozen=True):
    """A financial distress model: its raw value, its zone, what it lacks, and whether the score used it."""

    model: str
    value: float | None
    zone: str | None
    missing: list[str]
    used: bool


class Effective(Struct, frozen=True):
    """The level and decision in force: the recorded ones, or those a person decided later."""

    level: Level
    decision: Decision
    override_id: str | None = None


class ModelRef(Struct, frozen=True):
    id: str
    version: str
    sha256: str


class Assessment(Struct, frozen=True):
    """The explained answer. `base` plus the points of all characteristics is the score, to the hundredth."""

    id: str | None
    created_at: str | None
    as_of: str
    business_id: str | None
    score: Annotated[float, Meta(ge=0, le=100)]
    level: Level
    decision: Decision
    completeness: Annotated[float, Meta(ge=0, le=1)]
    score_range: tuple[float, float]
    base: float
    categories: list[CategoryPoints]
    reasons: list[Reason]
    overrides: list[AppliedOverride]
    screening: Screening
    evidence: list[Evidence]
    distress: list[Distress]
    degraded: bool
    effective: Effective
    model: ModelRef


class Fault(Struct, frozen=True):
    """Where a body is wrong (RFC 6901 pointer) and what would be right."""

    pointer: str
    detail: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[Fault] = []


class AssessmentList(Struct, frozen=True):
    items: list[Assessment]
    next_cursor: str | None


class Batch(Request, frozen=True):
    items: Annotated[list[Profile], Meta(min_length=1, max_length=1000)]


class BatchItem(Struct, frozen=True, omit_defaults=True):
    index: int
    status: int
    assessment: Assessment | None = None
    problem: Problem | None = None


class BatchAnswer(Struct, frozen=True):
    items: list[BatchItem]


OverrideState = Literal["applied", "pending", "approved"]


class OverrideRequest(Request, frozen=True):
    """What a person decides: `level`, `decision` or both. What is left out stays as it is in force."""

    reason: Annotated[str, Meta(min_length=1, max_length=2000)]
    level: Level | None = None
    decision: Decision | None = None


class Override(Struct, frozen=True):
    """A person's decision. `actor` and `approver` are ids of keys; `reason` is null once it was erased. One that is
    `void` was pending when another took effect, and can be approved no more."""

    id: str
    assessment_id: str
    created_at: str
    level: Level
    decision: Decision
    reason: str | None
    actor: str
    state: OverrideState
    approver: str | None
    approved_at: str | None
    void: bool


class OverrideList(Struct, frozen=True):
    items: list[Override]


class AuditEntry(Struct, frozen=True):
    """One link of the trail. `previous` is the hash before it in its segment; `subjects` are ids of assessments."""

    id: str
    segment: str
    number: int
    at: str
    act: str
    actor: str
    detail: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    subjects: list[str]
    previous: str
    hash: str


class AuditList(Struct, frozen=True):
    items: list[AuditEntry]
    next_cursor: str | None


class SegmentHead(Struct, frozen=True):
    """How far a segment had come: `hash` is that of its entry `number`."""

    segment: str
    number: int
    hash: str


class Checkpoint(Struct, frozen=True):
    """A signed mark of the trail: `heads` of the segments that moved since the one before, and all `entries` so far."""

    number: int
    at: str
    entries: int
    heads: list[SegmentHead]
    previous: str
    hash: str
    mac: str


class CheckpointList(Struct, frozen=True):
    items: list[Checkpoint]
    next_cursor: str | None


KeyStatus = Literal["active", "expired", "revoked"]
Network = Annotated[
    str,
    Meta(min_length=1, max_length=64, description="a network or an address, such as 10.0.0.0/8 or 2001:db8::1"),
]


class KeyRequest(Request, frozen=True):
    """A key as it is asked for. `scopes` narrow the role, absent for all of it; `networks` are where it may be used
    from, absent for everywhere. Its rate is that of a `tier` of the settings, or a `rate` of its own."""

    name: ShortText
    role: Role
    scopes: Annotated[list[Permission], Meta(min_length=1, max_length=16)] | None = None
    networks: Annotated[list[Network], Meta(max_length=100)] | None = None
    tier: ShortText | None = None
    rate: (
        Annotated[str, Meta(min_length=1, max_length=64, description="such as `100/s burst 200`, or `unlimited`")]
        | None
    ) = None
    expires_at: (
        Annotated[
            dt.datetime,
            Meta(tz=True, description="a date-time with Z or an offset, such as 2027-11-23T14:00:00Z, in the future"),
        ]
        | None
    ) = None


class Key(Struct, frozen=True):
    """An API key, without its text. `permissions` is what it may do; `replaces` is the key that it was made in
    place of; `last_used_at` may be a minute behind."""

    id: str
    tenant_id: str
    name: str
    role: Role
    scopes: list[Permission] | None
    permissions: list[Permission]
    networks: list[str]
    tier: str | None
    rate: str | None
    status: KeyStatus
    created_at: str
    created_by: str
    replaces: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKey(Key, frozen=True):
    """A key that was just made. `key` is its text, which is shown this once."""

    key: str


class KeyList(Struct, frozen=True):
    items: list[Key]


class DispositionRequest(Request, frozen=True):
    """A potential hit of a recorded assessment that is a namesake's. `list` and `entity_id` as the hit shows them."""

    assessment_id: ShortText
    list: ShortText
    entity_id: Text
    reason: Annotated[str, Meta(min_length=1, max_length=2000)]


class Disposition(Struct, frozen=True):
    """A potential hit that a person set aside for a business. It holds for later assessments until the entry changes,
    or somebody ends it. `actor` and `ended_by` are ids of keys; `reason` and `business_id` are null once erased."""

    id: str
    created_at: str
    business_id: str | None
    assessment_id: str
    subject: str
    list: str
    entity_id: str
    matched_name: str
    reason: str | None
    actor: str
    ended_at: str | None
    ended_by: str | None


class DispositionList(Struct, frozen=True):
    items: list[Disposition]
    next_cursor: str | None


class WatchlistInfo(Struct, frozen=True):
    """A list in force. `version`: its date and the start of `sha256`, which is of the file that it was read from."""

    name: str
    title: str
    source: str
    format: str
    version: str
    published: str | None
    sha256: str
    entities: int
    names: int
    required: bool
    stale: bool
    added_at: str
    checked_at: str
    loaded_at: str


class WatchlistInfos(Struct, frozen=True):
    """`complete`: every list that the model requires is in force and fresh, without which nothing is `clear`."""

    complete: bool
    missing: list[str]
    items: list[WatchlistInfo]


class Difference(Struct, frozen=True):
    pointer: str
    recorded: Any
    replayed: Any


class Replay(Struct, frozen=True, omit_defaults=True):
    identical: bool
    differences: list[Difference] = []


class ModelSummary(Struct, frozen=True):
    id: str
    version: str
    sha256: str
    title: str
    active: bool


class ModelList(Struct, frozen=True):
    items: list[ModelSummary]


class ModelDetail(Struct, frozen=True):
    id: str
    version: str
    sha256: str
    title: str
    active: bool
    definition: dict[str, Any]


BreakerState = Literal["closed", "open", "half_open"]


HealthStatus = Literal["ok", "degraded", "starting", "draining"]


class Health(Struct, frozen=True):
    """degraded: it answers, and something is to be seen to; /health/detailed tells what."""

    status: HealthStatus
    version: str


class Liveness(Struct, frozen=True):
    status: Literal["alive"]


class Readiness(Struct, frozen=True):
    """reasons: why it takes no requests, a sentence each."""

    status: Literal["ready", "not_ready"]
    reasons: list[str] = []


ComponentStatus = Literal["ok", "degraded", "down"]


class Component(Struct, frozen=True, omit_defaults=True):
    """Something that the service depends on. latency_ms: of the last probe, None where it is not probed.
    breaker_since: RFC 3339.  figures: what it counts or measures now, by name with the unit.
    problem: what is wrong, a sentence."""

    name: str
    status: ComponentStatus
    problem: str | None = None
    latency_ms: float | None = None
    breaker: BreakerState | None = None
    breaker_since: str | None = None
    figures: dict[str, float] = {}


class DetailedHealth(Struct, frozen=True):
    """Of the process that answered; `workers` share its port.

    schema: the version of the database's schema that this service works on.
    warnings: what an operator should see to, a sentence each."""

    status: HealthStatus
    version: str
    model: ModelSummary
    schema: str
    started_at: str
    uptime_s: float
    process_id: int
    workers: int
    components: list[Component]
    warnings: list[str]
