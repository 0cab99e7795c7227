"""Resource Usage: what the pods take, and of how much."""

from __future__ import annotations

from panels import NEEDS_CLUSTER, Board, lines
from queries import most, now, of_pods, quantile, rate, scraped, total

from app.telemetry import catalogue as metric


def board() -> Board:
    """Machine first, then connections and caches."""
    made = Board(
        "resources", "KYB: Resource Usage", "What the pods take of CPU, memory, connections and caches.", minutes=180
    )
    made.row(
        "Processes",
        lines(
            "CPU by pod",
            "Cores that the pod's processes use. A worker is one process, and can use little more than one.",
            (total(rate(metric.CPU), "pod"), "{{pod}}"),
            unit="cores",
            section="high-response-times",
        ),
        lines(
            "Memory by pod",
            "Resident memory of the pod's processes; pages that workers share are counted in each.",
            (total(now(metric.MEMORY), "pod"), "{{pod}}"),
            unit="bytes",
            section="restarts",
        ),
        lines(
            "File descriptors",
            "Share of what it may open that the fullest process of a pod has open. Each connection takes one.",
            (f"{most(now(metric.OPEN_FDS), 'pod')} / {most(now(metric.MAX_FDS), 'pod')}", "{{pod}}"),
            unit="percentunit",
            section="file-descriptors",
            limits=(0.6, 0.8),
            greatest=1,
        ),
        lines(
            "CPU of its limit",
            f"At 100 % the kernel holds the pod back, and response times grow. {NEEDS_CLUSTER}",
            (
                f"{total(rate(metric.CPU), 'namespace', 'pod')} / "
                f"{total(of_pods('container_resource_limits', _of('cpu')), 'namespace', 'pod')}",
                "{{pod}}",
            ),
            unit="percentunit",
            section="high-response-times",
            limits=(0.7, 0.9),
        ),
        lines(
            "Memory of its limit",
            f"At 100 % the kernel kills the pod (OOMKilled). {NEEDS_CLUSTER}",
            (
                f"{total(now(metric.MEMORY), 'namespace', 'pod')} / "
                f"{total(of_pods('container_resource_limits', _of('memory')), 'namespace', 'pod')}",
                "{{pod}}",
            ),
            unit="percentunit",
            section="restarts",
            limits=(0.8, 0.9),
        ),
        lines(
            "Workers",
            "Processes that serve, over all pods.",
            (total(now(metric.WORKERS), "pod"), "{{pod}}"),
            unit="none",
            section="restarts",
            stepped=True,
            stacked=True,
        ),
        lines(
            "Event loop: lateness, p99",
            "Of all pods together, beside the CPU that they had.",
            (quantile(0.99, metric.LOOP_LAG), "lateness"),
            unit="s",
            section="high-response-times",
            limits=(0.05, 0.25),
        ),
        lines(
            "Garbage collections",
            "By second and generation. The oldest one reads everything that lives.",
            (total(rate(metric.GC_PAUSE, suffix="_count"), "generation"), "generation {{generation}}"),
            unit="ops",
            section="high-response-times",
        ),
        lines(
            "Cost of being watched",
            "How long a scrape of /metrics takes, the slowest pod.",
            (f"max({scraped('duration_seconds')})", "scrape"),
            unit="s",
            section="pod-down",
            limits=(0.02, 1),
        ),
    )
    made.row(
        "Connections",
        lines(
            "Connections in use",
            "Lent out, of those that may be open, over all pods. The embedded database has no pool.",
            (f"{total(now(metric.POOL_IN_USE), 'pool')} / {total(now(metric.POOL_LIMIT), 'pool')}", "{{pool}}"),
            unit="percentunit",
            section="pool-exhausted",
            limits=(0.8, 0.95),
            greatest=1,
        ),
        lines(
            "Connections open",
            "Over all pods. Those of the database together must stay below DB_MAX_CONNECTIONS.",
            (total(now(metric.POOL_OPEN), "pool"), "{{pool}}"),
            unit="none",
            section="pool-exhausted",
            stacked=True,
        ),
        lines(
            "Waits for a connection",
            "How often by second a call found all connections busy.",
            (total(rate(metric.POOL_WAITED), "pool"), "{{pool}}"),
            unit="ops",
            section="pool-exhausted",
        ),
    )
    made.row(
        "Caches and lists",
        lines(
            "Memory of caches",
            "What the processes keep themselves, over all pods. Each worker is bounded by cache.local_bytes.",
            (total(now(metric.CACHE_BYTES), "store"), "{{store}}"),
            unit="bytes",
            section="high-response-times",
            stacked=True,
        ),
        lines(
            "Entries of caches",
            "Over all pods. Each worker is bounded by cache.local_entries.",
            (total(now(metric.CACHE_ENTRIES), "store"), "{{store}}"),
            unit="short",
            section="high-response-times",
            stacked=True,
        ),
        lines(
            "Evictions",
            "Values pushed out for lack of room, by second. Many, with few hits, call for more room.",
            (total(rate(metric.CACHE_EVICTIONS), "store"), "{{store}}"),
            unit="ops",
            section="high-response-times",
        ),
        lines(
            "Entries of lists",
            "Of the lists in force. A step down is an update that lost something.",
            (most(now(metric.LIST_ENTRIES), "list"), "{{list}}"),
            unit="short",
            section="stale-or-missing-lists",
            stepped=True,
            width=12,
        ),
        lines(
            "Lost on the way",
            "Log lines and series of metrics that found no room. More than none: what is shown here is not all.",
            (total(rate(metric.LOG_DROPPED)), "log lines by second"),
            (most(now(metric.SERIES_DROPPED)), "series"),
            unit="short",
            section="first-minute",
            width=12,
        ),
    )
    return made


def _of(resource: str) -> str:
    return f'resource="{resource}"'
