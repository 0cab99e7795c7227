"""Performance Metrics: where the time of a request goes."""

from __future__ import annotations

from panels import Board, buckets, lines
from queries import CALLERS, least, mean, most, now, quantile, rate, total

from app.telemetry import catalogue as metric

WRITES = 'route=~"/v1/assessments|/v1/assessments/batch"'
SLOW = "high-response-times"


def board() -> Board:
    """From the whole to its stages."""
    made = Board(
        "performance", "KYB: Performance Metrics", "Where the time of a request goes, from the whole to its stages."
    )
    made.row(
        "Response times",
        lines(
            "p95 by route",
            "The lines are where the alerts of p95 and p99 of all routes are.",
            (quantile(0.95, metric.REQUEST_DURATION, "route", matchers=(CALLERS,)), "{{route}}"),
            unit="s",
            section=SLOW,
            limits=(1, 2),
        ),
        lines(
            "p99 by route",
            "Far above p95, a route waits for something now and then: a neighbour, a place, the collector.",
            (quantile(0.99, metric.REQUEST_DURATION, "route", matchers=(CALLERS,)), "{{route}}"),
            unit="s",
            section=SLOW,
            limits=(1, 2),
        ),
        buckets(
            "Assessments: response times",
            "How many requests that assess, single ones and batches, took how long. Two bands are two kinds.",
            total(rate(metric.REQUEST_DURATION, WRITES, suffix="_bucket"), "le"),
            unit="s",
            section=SLOW,
        ),
        lines(
            "p99 by pod",
            "One pod above the others has a noisy neighbour, a cold cache, or too little CPU.",
            (quantile(0.99, metric.REQUEST_DURATION, "pod", matchers=(CALLERS,)), "{{pod}}"),
            unit="s",
            section=SLOW,
            width=12,
        ),
        lines(
            "Mean by route",
            "What percentiles hide: the mean times the rate is the work.",
            (
                f"{total(rate(metric.REQUEST_DURATION, CALLERS, suffix='_sum'), 'route')} / "
                f"{total(rate(metric.REQUEST_DURATION, CALLERS, suffix='_count'), 'route')}",
                "{{route}}",
            ),
            unit="s",
            section=SLOW,
            width=12,
        ),
    )
    made.row(
        "Waiting for a place",
        lines(
            "Saturation",
            "Share of the places for requests (MAX_CONCURRENT_REQUESTS) that is taken, in a pod's busiest worker.",
            (most(now(metric.SATURATION), "pod"), "{{pod}}"),
            unit="percentunit",
            section="saturation",
            limits=(0.7, 0.9),
            greatest=1,
        ),
        lines(
            "Age of the queue",
            "How long the oldest request has waited for a place. After 1.5 s (concurrency.queue_wait) it gets 503.",
            (most(now(metric.QUEUE_AGE), "pod"), "{{pod}}"),
            unit="s",
            section="queue-age",
            limits=(0.25, 0.5),
        ),
        lines(
            "Requests under way",
            "All that have no answer yet, those that hold a place, and those that wait for one.",
            (total(now(metric.REQUESTS_IN_FLIGHT)), "without an answer"),
            (total(now(metric.ADMITTED)), "hold a place"),
            (total(now(metric.QUEUE_LENGTH)), "wait for a place"),
            unit="short",
            section="queue-age",
        ),
    )
    made.row(
        "Recording and reading",
        lines(
            "Time of a batch, p95",
            "How long one call to database, Redis or the audit trail took; records is the group commit that every "
            "assessment waits for.",
            (quantile(0.95, metric.BATCH_FLUSH, "batcher"), "{{batcher}}"),
            unit="s",
            section=SLOW,
            limits=(0.25, 0.5),
        ),
        lines(
            "Items of a batch, mean",
            "It grows with the load and with slowness: what comes while one batch is under way makes the next.",
            (mean(metric.BATCH_SIZE, "batcher"), "{{batcher}}"),
            unit="short",
            section=SLOW,
        ),
        lines(
            "Items that wait",
            "For the next batch. Steady growth means that a neighbour takes less than comes.",
            (total(now(metric.BATCH_QUEUE), "batcher"), "{{batcher}}"),
            unit="short",
            section=SLOW,
        ),
        lines(
            "Waiting for a connection, mean",
            "How long one wait for a free connection lasts. The embedded database has no pool.",
            (f"{total(rate(metric.POOL_WAIT), 'pool')} / {total(rate(metric.POOL_WAITED), 'pool')}", "{{pool}}"),
            unit="s",
            section="pool-exhausted",
            limits=(0.05, 0.25),
        ),
        lines(
            "Cache hits",
            "The share of look-ups answered by the process itself (local) or by Redis (shared).",
            (
                f"{total(rate(metric.CACHE_HITS), 'cache', 'tier')} / on (cache) group_left () "
                f"({total(rate(metric.CACHE_HITS), 'cache')} + {total(rate(metric.CACHE_MISSES), 'cache')})",
                "{{cache}} {{tier}}",
            ),
            unit="percentunit",
            section=SLOW,
            greatest=1,
        ),
        lines(
            "Retry budget",
            "Retries that the poorest worker could make now. At 0 calls that fail are not made again.",
            (least(now(metric.RETRY_BUDGET), "dependency"), "{{dependency}}"),
            unit="short",
            section="breaker-open",
        ),
    )
    made.row(
        "Computing",
        lines(
            "Screening",
            "Time to screen the parties of a profile that was not screened before.",
            *((quantile(q, metric.SCREENING_DURATION), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            unit="s",
            section=SLOW,
        ),
        lines(
            "Profiles screened before",
            "By second: those remembered, which cost next to nothing, and those that were looked up.",
            (total(rate(metric.SCREENING_REMEMBERED)), "remembered"),
            (total(rate(metric.SCREENING_DURATION, suffix="_count")), "looked up"),
            unit="ops",
            section=SLOW,
            stacked=True,
        ),
        lines(
            "Event loop: lateness, p99",
            "How late the loop came to what was due. Above some 50 ms a pod has too much work or too little CPU.",
            (quantile(0.99, metric.LOOP_LAG, "pod"), "{{pod}}"),
            unit="s",
            section=SLOW,
            limits=(0.05, 0.25),
        ),
        lines(
            "Garbage collection",
            "Share of the time that a process spends in collections, by generation, summed over pods.",
            (total(rate(metric.GC_PAUSE, suffix="_sum"), "generation"), "generation {{generation}}"),
            unit="percentunit",
            section=SLOW,
            width=12,
        ),
        lines(
            "External providers under way",
            "Questions that have no answer yet. Providers are asked within the deadline of the request.",
            (total(now(metric.PROVIDER_FLYING), "provider"), "{{provider}}"),
            unit="short",
            section=SLOW,
            width=12,
        ),
    )
    return made
