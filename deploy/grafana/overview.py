"""Service Overview: is it well, what does it do, and what does it stand on."""

from __future__ import annotations

from panels import GREEN, RED, YELLOW, Board, buckets, lines, number, states, words
from queries import CALLERS, error_ratio, most, now, quantile, rate, requests, top, total, up

from app.telemetry import catalogue as metric

BUDGET = 0.001
"""What 99.9 % allows."""


def board() -> Board:
    """The first to look at."""
    made = Board("overview", "KYB: Service Overview", "Whether the service is well, what it does, what it stands on.")
    made.row(
        "Is it well?",
        number(
            "Alerts",
            "Alerts of this service that fire now. Alertmanager and Prometheus list them.",
            'count(ALERTS{alertname=~"Kyb.+",alertstate="firing"}) or vector(0)',
            unit="none",
            section="first-minute",
            limits=(1, 3),
            decimals=0,
        ),
        number(
            "Pods that are ready",
            "Share of the pods that Prometheus knows which take requests. Red below half.",
            f"sum({now(metric.READY)}) / count({up()})",
            unit="percentunit",
            section="not-ready",
            limits=(1, 0.5),
            falling=True,
        ),
        number(
            "Requests",
            "Answers to callers by second. Probes, scrapes and profiles are not counted.",
            total(requests()),
            unit="reqps",
            section="scaling-issues",
        ),
        number(
            "Errors",
            "Share of answers that are 5xx. Yellow from half of what 99.9 % allows, red from all of it.",
            error_ratio(),
            unit="percentunit",
            section="high-error-rates",
            limits=(BUDGET / 2, BUDGET),
            decimals=3,
        ),
        number(
            "p95",
            "Nineteen of twenty requests are answered within this. The alert is at 1 s.",
            quantile(0.95, metric.REQUEST_DURATION, matchers=(CALLERS,)),
            unit="s",
            section="high-response-times",
            limits=(0.5, 1),
        ),
        number(
            "p99",
            "Ninety-nine of a hundred requests are answered within this. The alert is at 2 s.",
            quantile(0.99, metric.REQUEST_DURATION, matchers=(CALLERS,)),
            unit="s",
            section="high-response-times",
            limits=(1, 2),
        ),
    )
    made.row(
        "Traffic",
        lines(
            "Requests by route",
            "Answers to callers by second.",
            (total(requests(), "route"), "{{route}}"),
            unit="reqps",
            section="scaling-issues",
            stacked=True,
        ),
        lines(
            "Answers by status",
            "4xx are the caller's, 429 their rate; 503 is overload or a neighbour that is away; 500 is a fault.",
            (total(requests(), "status"), "{{status}}"),
            unit="reqps",
            section="high-error-rates",
            stacked=True,
        ),
        lines(
            "Response times",
            "Percentiles over all routes of callers. The lines are where the alerts of p95 and p99 are.",
            *((quantile(q, metric.REQUEST_DURATION, matchers=(CALLERS,)), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            unit="s",
            section="high-response-times",
            limits=(1, 2),
        ),
    )
    made.row(
        "Assessments",
        lines(
            "Decisions",
            "Recorded assessments by what the model decided. A change of the mix without one of the callers or of the "
            "model is worth a question.",
            (total(rate(metric.ASSESSMENTS), "decision"), "{{decision}}"),
            unit="ops",
            section="unusual-decisions",
            stacked=True,
        ),
        lines(
            "Levels",
            "The same by level, and by the model that was used.",
            (total(rate(metric.ASSESSMENTS), "level", "model"), "{{level}} {{model}}"),
            unit="ops",
            section="unusual-decisions",
            stacked=True,
        ),
        buckets(
            "Scores",
            "How many assessments by second have which score: the shape of the portfolio.",
            total(rate(metric.SCORES, suffix="_bucket"), "le"),
            unit="none",
            section="unusual-decisions",
        ),
        lines(
            "Overrides of the model",
            "Rules and floors that held, such as a confirmed hit or a screening that could not be done.",
            (top(10, total(rate(metric.OVERRIDES), "code")), "{{code}}"),
            unit="ops",
            section="unusual-decisions",
        ),
        lines(
            "Missing features",
            "The ten characteristics that were most often not known. A jump means that a caller or a provider has "
            "stopped telling something.",
            (top(10, total(rate(metric.MISSING), "characteristic")), "{{characteristic}}"),
            unit="ops",
            section="unusual-decisions",
        ),
        lines(
            "Not on record",
            "Dry runs, of which nothing is kept.",
            (total(rate(metric.DRY_RUNS), "model"), "{{model}}"),
            unit="ops",
            section="unusual-decisions",
        ),
    )
    made.row(
        "What it stands on",
        states(
            "Breakers",
            "The worst state over the pods. Open: the neighbour is left alone; half open: it is being tried, or nobody "
            "asked for it since. The embedded database has none.",
            (most(now(metric.BREAKER_STATE), "breaker"), "{{breaker}}"),
            {0: ("closed", GREEN), 1: ("half open", YELLOW), 2: ("open", RED)},
            section="breaker-open",
        ),
        lines(
            "Ages of lists",
            "Time since a list was last looked after. From WATCHLIST_MAX_AGE (72 h unless set) on it is stale, and no "
            "screening comes out clear.",
            (most(now(metric.LIST_AGE), "list"), "{{list}}"),
            unit="s",
            section="stale-or-missing-lists",
            limits=(172800, 259200),
        ),
        lines(
            "Hits",
            "Entries of lists that were found when parties were screened.",
            (total(rate(metric.SCREENING_HITS), "list"), "{{list}}"),
            unit="ops",
            section="unusual-decisions",
        ),
        number(
            "Lists stale",
            "Required or loaded lists that nobody looked after for too long.",
            most(now(metric.LISTS_STALE)),
            unit="none",
            section="stale-or-missing-lists",
            limits=(1, 1),
            decimals=0,
        ),
        number(
            "Lists missing",
            "Lists that the model requires and that are not in force.",
            most(now(metric.LISTS_MISSING)),
            unit="none",
            section="stale-or-missing-lists",
            limits=(1, 1),
            decimals=0,
        ),
        number(
            "Audit trails broken",
            "Trails that do not continue what their last signed checkpoint covers. More than none is an incident.",
            most(now(metric.AUDIT_BROKEN)),
            unit="none",
            section="audit-chain-broken",
            limits=(1, 1),
            decimals=0,
        ),
        number(
            "Checkpoints",
            "Signed checkpoints of the audit trail by second. None while something is recorded is wrong.",
            total(rate(metric.AUDIT_CHECKPOINTS)),
            unit="ops",
            section="audit-chain-broken",
        ),
        words(
            "Running now",
            "Pods by version, model, schema of the database and kind of store. Two lines are a rollout.",
            f"count by (version, model, schema, store) ({now(metric.INFO)})",
            "{{version}} · {{model}} · schema {{schema}} · {{store}}",
            section="restarts",
        ),
    )
    return made
