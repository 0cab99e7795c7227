"""Error Analysis: what fails, whom it hits, and who is to blame."""

from __future__ import annotations

from panels import Board, lines, number
from queries import FAILED, error_ratio, most, now, rate, requests, total

from app.telemetry import catalogue as metric

ERRORS = "high-error-rates"
BUDGET = 0.001
"""What 99.9 % allows."""
RATIO = "namespace:http_server_request_errors:ratio_rate"
WINDOWS = {"5m": (6, 14.4), "1h": (6, 14.4), "6h": (3, 6), "3d": (0.5, 1)}
"""Where a burn rate turns yellow, and red: red is where the alert of this window is."""


def board() -> Board:
    """The budget, then what is answered, then what is behind it."""
    made = Board("errors", "KYB: Error Analysis", "What fails, whom it hits, and what is behind it.", minutes=180)
    made.row(
        "Error budget of 99.9 %",
        *(
            number(
                f"Burn rate, {window}",
                f"The share of errors over {window} as a multiple of what 99.9 % allows: at 1 a month's budget lasts a "
                "month. Of the chosen namespaces, from the recording rules of deploy/prometheus.",
                f'max({RATIO}{window}{{namespace=~"$namespace"}}) / {BUDGET:g}',
                unit="none",
                section=ERRORS,
                limits=limits,
                decimals=2,
                width=6,
            )
            for window, limits in WINDOWS.items()
        ),
    )
    made.row(
        "What is answered",
        lines(
            "Errors by route",
            "Share of a route's answers that are 5xx.",
            (error_ratio("route"), "{{route}}"),
            unit="percentunit",
            section=ERRORS,
            limits=(BUDGET / 2, BUDGET),
        ),
        lines(
            "5xx by status",
            "500 is a fault of the service, with a stack in the log; 503 is overload, or a neighbour that is away.",
            (total(requests(FAILED), "status"), "{{status}}"),
            unit="reqps",
            section=ERRORS,
        ),
        lines(
            "Problems by kind",
            "All answers that are problems, 4xx too, by the slug of their type: /problems/<kind> explains each.",
            (total(rate(metric.REQUEST_ERRORS), "kind"), "{{kind}}"),
            unit="reqps",
            section=ERRORS,
        ),
        lines(
            "Problems by route and kind",
            "The ten most frequent.",
            (f"topk(10, {total(rate(metric.REQUEST_ERRORS), 'route', 'kind')})", "{{route}} {{kind}}"),
            unit="reqps",
            section=ERRORS,
            width=12,
        ),
        lines(
            "Turned away",
            "queue_full and queue_wait: overload. rate: a caller's limit. key: no key that works. permission: of a key "
            "that lacks it. Much of key from outside is somebody guessing.",
            (total(rate(metric.REJECTIONS), "reason"), "{{reason}}"),
            unit="reqps",
            section="saturation",
            width=12,
        ),
    )
    made.row(
        "What is behind it",
        lines(
            "Breakers opened",
            "How often within five minutes, over all pods.",
            (total(f"increase({now(metric.BREAKER_OPENED)}[5m])", "breaker"), "{{breaker}}"),
            unit="none",
            section="breaker-open",
        ),
        lines(
            "Calls not made",
            "Calls that a breaker did not let through, by second.",
            (total(rate(metric.BREAKER_REJECTED), "breaker"), "{{breaker}}"),
            unit="ops",
            section="breaker-open",
        ),
        lines(
            "Calls made again",
            "Retries by second. They are bounded to a tenth of all calls (retry.budget_percent).",
            (total(rate(metric.RETRIES), "dependency"), "{{dependency}}"),
            unit="ops",
            section="breaker-open",
        ),
        lines(
            "Waits without a connection",
            "By second: waits for a connection that ended without one.",
            (total(rate(metric.POOL_EXHAUSTED), "pool"), "{{pool}}"),
            unit="ops",
            section="pool-exhausted",
        ),
        lines(
            "Redis",
            "Exchanges with Redis that failed, by why. Without Redis nothing fails; it costs time.",
            (total(rate(metric.REDIS_ERRORS), "reason"), "{{reason}}"),
            unit="ops",
            section="breaker-open",
        ),
        lines(
            "External providers",
            "Questions by how they ended. All but ok leave facts missing, and the answer says degraded.",
            (total(rate(metric.PROVIDER_CALLS), "provider", "outcome"), "{{provider}} {{outcome}}"),
            unit="ops",
            section=ERRORS,
        ),
    )
    made.row(
        "Audit trail",
        lines(
            "Acts entered",
            "Besides recorded assessments: awaited by the request, or noted in passing (refusals).",
            (total(rate(metric.AUDIT_ENTRIES), "kind"), "{{kind}}"),
            unit="ops",
            section="audit-chain-broken",
        ),
        lines(
            "Refusals only counted",
            "Noted acts that found no room: a flood of refusals.",
            (total(rate(metric.AUDIT_DROPPED)), "only counted"),
            unit="ops",
            section="audit-chain-broken",
        ),
        lines(
            "Trails broken",
            "Tenants whose trail does not continue what its last checkpoint covers, as the pods saw it.",
            (most(now(metric.AUDIT_BROKEN), "pod"), "{{pod}}"),
            unit="none",
            section="audit-chain-broken",
            limits=(1, 1),
            stepped=True,
        ),
    )
    return made
