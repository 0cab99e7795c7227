"""Every metric of the service. No label holds a tenant, a business or an id: their values are few and known.

Names follow Prometheus; those of HTTP follow OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

from app.telemetry.meters import Metric

REQUEST_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds: those of OpenTelemetry's http.server.request.duration, two below them, and the 2 s of the deadline and the
alert, which between 1 and 2.5 could only be guessed."""
WAIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SCREENING_BOUNDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
SCORE_BOUNDS = tuple(float(score) for score in range(5, 100, 5))

REQUEST_DURATION = Metric(
    "http_server_request_duration_seconds",
    "histogram",
    "Time from a request's head to its answer being handed to the server.",
    ("method", "route", "status"),
    REQUEST_BOUNDS,
)
REQUESTS_IN_FLIGHT = Metric("http_server_requests_in_flight", "gauge", "Requests that have no answer yet.")
REQUEST_ERRORS = Metric(
    "http_server_errors_total", "counter", "Answers that are problems, by the slug of their type.", ("route", "kind")
)
REJECTIONS = Metric(
    "http_server_rejections_total",
    "counter",
    "Requests turned away unworked: no room in the queue, too long in it, over a rate, no key that works.",
    ("reason",),
)
ADMITTED = Metric("admission_in_flight", "gauge", "Requests that hold one of the places to be worked on.")
QUEUE_LENGTH = Metric("admission_queue_length", "gauge", "Requests that wait for a place.")
QUEUE_AGE = Metric("admission_queue_age_seconds", "gauge", "How long the oldest of them has waited.", over="max")
SATURATION = Metric("admission_saturation_ratio", "gauge", "Share of the places that are taken.", over="max")

ASSESSMENTS = Metric(
    "assessments_total", "counter", "Recorded assessments by what the model decided.", ("level", "decision", "model")
)
DRY_RUNS = Metric("assessment_dry_runs_total", "counter", "Assessments that nothing was recorded of.", ("model",))
SCORES = Metric("assessment_score", "histogram", "Scores of recorded assessments.", ("model",), SCORE_BOUNDS)
MISSING = Metric(
    "assessment_missing_features_total",
    "counter",
    "Recorded assessments in which the feature of a characteristic was not known.",
    ("characteristic", "model"),
)
OVERRIDES = Metric(
    "assessment_overrides_total", "counter", "Overrides and floors of the model that held.", ("code", "model")
)

SCREENING_DURATION = Metric(
    "screening_duration_seconds",
    "histogram",
    "Time to screen the parties of a profile that was not screened before.",
    (),
    SCREENING_BOUNDS,
)
SCREENING_REMEMBERED = Metric(
    "screening_remembered_total", "counter", "Profiles all of whose parties were screened before."
)
SCREENING_HITS = Metric("screening_hits_total", "counter", "Entries found when parties were screened.", ("list",))
LIST_AGE = Metric(
    "watchlist_age_seconds", "gauge", "Time since a list was last looked after with success.", ("list",), over="max"
)
LIST_ENTRIES = Metric("watchlist_entries", "gauge", "Entries of a list in force.", ("list",), over="max")
LISTS_STALE = Metric("watchlists_stale", "gauge", "Lists that nobody looked after for too long.", over="max")
LISTS_MISSING = Metric(
    "watchlists_missing", "gauge", "Lists that the model requires and that are not in force.", over="max"
)

PROVIDER_CALLS = Metric(
    "provider_calls_total", "counter", "Questions to an external provider by how they ended.", ("provider", "outcome")
)
PROVIDER_FLYING = Metric("provider_calls_in_flight", "gauge", "Questions under way.", ("provider",))

CACHE_HITS = Metric("cache_hits_total", "counter", "Values found, by tier: local or shared.", ("cache", "tier"))
CACHE_MISSES = Metric("cache_misses_total", "counter", "Values that had to be loaded.", ("cache",))
CACHE_ENTRIES = Metric("cache_entries", "gauge", "Values kept by the local tier.", ("store",))
CACHE_BYTES = Metric("cache_bytes", "gauge", "Their size.", ("store",))
CACHE_EVICTIONS = Metric("cache_evictions_total", "counter", "Values pushed out for lack of room.", ("store",))
REDIS_ERRORS = Metric("redis_errors_total", "counter", "Exchanges with Redis that failed.", ("reason",))

BATCH_SIZE = Metric("batch_size", "histogram", "Items sent in one call.", ("batcher",), SIZE_BOUNDS)
BATCH_FLUSH = Metric("batch_flush_seconds", "histogram", "Time that one call took.", ("batcher",), WAIT_BOUNDS)
BATCH_QUEUE = Metric("batch_queue_length", "gauge", "Items that wait to be sent.", ("batcher",))

POOL_IN_USE = Metric("pool_connections_in_use", "gauge", "Connections that are lent out.", ("pool",))
POOL_OPEN = Metric("pool_connections_open", "gauge", "Connections that are open.", ("pool",))
POOL_LIMIT = Metric("pool_connections_limit", "gauge", "Connections that may be open.", ("pool",))
POOL_WAIT = Metric("pool_wait_seconds_total", "counter", "Time waited for a free connection.", ("pool",))
POOL_WAITED = Metric("pool_waits_total", "counter", "Times that a connection was waited for.", ("pool",))
POOL_EXHAUSTED = Metric("pool_exhausted_total", "counter", "Waits for a connection that ended without one.", ("pool",))

BREAKER_STATE = Metric(
    "breaker_state", "gauge", "0 closed, 1 half open, 2 open; the worst of a pod's workers.", ("breaker",), over="max"
)
BREAKER_OPENED = Metric("breaker_opened_total", "counter", "Times that a breaker opened.", ("breaker",))
BREAKER_REJECTED = Metric(
    "breaker_rejected_total", "counter", "Calls that a breaker did not let through.", ("breaker",)
)
RETRIES = Metric("retries_total", "counter", "Calls made again.", ("dependency",))
RETRY_BUDGET = Metric(
    "retry_budget_tokens", "gauge", "Retries that could be made now; the least of a pod's workers.", ("dependency",),
    over="min",
)  # fmt: skip

AUDIT_ENTRIES = Metric(
    "audit_entries_total", "counter", "Acts entered in the audit trail besides recorded assessments.", ("kind",)
)
AUDIT_DROPPED = Metric("audit_notes_dropped_total", "counter", "Noted acts that found no room and were only counted.")
AUDIT_CHECKPOINTS = Metric("audit_checkpoints_total", "counter", "Signed checkpoints of the audit trail.")
AUDIT_BROKEN = Metric(
    "audit_chain_broken", "gauge", "Tenants whose trail does not continue what its last checkpoint covers.", over="max"
)

CPU = Metric("process_cpu_seconds_total", "counter", "CPU time of the pod's processes.")
MEMORY = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the pod's processes.")
OPEN_FDS = Metric("process_open_fds", "gauge", "Open file descriptors; the most of a pod's processes.", over="max")
MAX_FDS = Metric("process_max_fds", "gauge", "Descriptors that a process may open.", over="min")
START_TIME = Metric("process_start_time_seconds", "gauge", "When the oldest process started, Unix time.", over="min")
WORKERS = Metric("service_workers", "gauge", "Processes of the pod that serve.")
WORKER_STARTS = Metric("service_worker_starts_total", "counter", "Processes of the pod that started to serve.")
READY = Metric("service_ready", "gauge", "1 where every process takes requests, else 0.", over="min")
INFO = Metric("service_info", "gauge", "1, with what runs here.", ("version", "model", "schema", "store"), over="max")
LOOP_LAG = Metric(
    "event_loop_lag_seconds", "histogram", "How late the event loop came to what was due.", (), WAIT_BOUNDS
)
GC_PAUSE = Metric("gc_pause_seconds", "histogram", "Time of one garbage collection.", ("generation",), WAIT_BOUNDS)
LOG_DROPPED = Metric("log_lines_dropped_total", "counter", "Log lines that found no room on their way to the log.")
SERIES_DROPPED = Metric("metric_series_dropped", "gauge", "Series of metrics that found no room and are not shown.")

METRICS: tuple[Metric, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
