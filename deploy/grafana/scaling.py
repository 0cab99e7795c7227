"""Scaling Events: how many pods there are, how many there should be, and why."""

from __future__ import annotations

from panels import NEEDS_CLUSTER, Board, lines, number
from queries import most, now, of_autoscaler, of_deployment, of_pods, rate, requests, total, up

from app.telemetry import catalogue as metric

SCALING = "scaling-issues"


def board() -> Board:
    """Replicas, then the load that decides on them, then what starts and ends."""
    made = Board(
        "scaling", "KYB: Scaling Events", "How many pods there are, how many there should be, and why.", minutes=360
    )
    made.row(
        "Replicas",
        number(
            "Replicas",
            f"Running now, as the autoscaler sees them. {NEEDS_CLUSTER}",
            f"sum({of_autoscaler('status_current_replicas')})",
            unit="none",
            section=SCALING,
            decimals=0,
        ),
        number(
            "Wanted",
            f"What the autoscaler asks for. {NEEDS_CLUSTER}",
            f"sum({of_autoscaler('status_desired_replicas')})",
            unit="none",
            section=SCALING,
            decimals=0,
        ),
        number(
            "Share of the maximum",
            f"At 100 % no replica can be added. {NEEDS_CLUSTER}",
            f"sum({of_autoscaler('status_current_replicas')}) / sum({of_autoscaler('spec_max_replicas')})",
            unit="percentunit",
            section=SCALING,
            limits=(0.8, 1),
        ),
        number(
            "Not available",
            f"Replicas of the deployment that are not ready. {NEEDS_CLUSTER}",
            f"sum({of_deployment('status_replicas_unavailable')})",
            unit="none",
            section="not-ready",
            limits=(1, 2),
            decimals=0,
        ),
        number(
            "Pods that answer",
            "That Prometheus reaches.",
            f"sum({up()})",
            unit="none",
            section="pod-down",
            decimals=0,
        ),
        number(
            "Restarts, 1 h",
            f"Containers that Kubernetes started again in the last hour. {NEEDS_CLUSTER}",
            f"sum(increase({of_pods('container_status_restarts_total')}[1h]))",
            unit="none",
            section="restarts",
            limits=(1, 3),
            decimals=0,
        ),
        lines(
            "Replicas over time",
            "What runs between the bounds that the autoscaler keeps. Wanted above running means that pods cannot be "
            f"placed or do not become ready. {NEEDS_CLUSTER}",
            (f"sum({of_autoscaler('status_current_replicas')})", "running"),
            (f"sum({of_autoscaler('status_desired_replicas')})", "wanted"),
            (f"sum({of_autoscaler('spec_min_replicas')})", "at least"),
            (f"sum({of_autoscaler('spec_max_replicas')})", "at most"),
            unit="none",
            section=SCALING,
            stepped=True,
        ),
        lines(
            "Of the deployment",
            f"Replicas that are there, of the new version, and available. {NEEDS_CLUSTER}",
            (f"sum({of_deployment('status_replicas')})", "there"),
            (f"sum({of_deployment('status_replicas_updated')})", "of the new version"),
            (f"sum({of_deployment('status_replicas_available')})", "available"),
            unit="none",
            section=SCALING,
            stepped=True,
        ),
        lines(
            "Pods by phase",
            f"Pending ones wait for a node or an image. {NEEDS_CLUSTER}",
            (total(of_pods("status_phase"), "phase"), "{{phase}}"),
            unit="none",
            section=SCALING,
            stepped=True,
            stacked=True,
        ),
    )
    made.row(
        "Load that decides",
        lines(
            "CPU of what was requested",
            f"The mean, which the autoscaler holds against TARGET_CPU_PERCENT (70 unless set). {NEEDS_CLUSTER}",
            (
                f"{total(rate(metric.CPU), 'namespace')} / {_requested('cpu')}",
                "{{namespace}}",
            ),
            unit="percentunit",
            section=SCALING,
            limits=(0.7, 0.9),
        ),
        lines(
            "Memory of what was requested",
            f"The same against TARGET_MEMORY_PERCENT (80 unless set). {NEEDS_CLUSTER}",
            (
                f"{total(now(metric.MEMORY), 'namespace')} / {_requested('memory')}",
                "{{namespace}}",
            ),
            unit="percentunit",
            section=SCALING,
            limits=(0.8, 0.95),
        ),
        lines(
            "Requests by pod",
            "A pod far below the others is newer than the connections of callers, or is not ready.",
            (total(requests(), "pod"), "{{pod}}"),
            unit="reqps",
            section=SCALING,
        ),
        lines(
            "Saturation, mean",
            "Share of the places for requests that are taken. High at little CPU: they wait for a neighbour, and more "
            "pods do not help.",
            (f"avg({now(metric.SATURATION)})", "mean"),
            (most(now(metric.SATURATION)), "fullest"),
            unit="percentunit",
            section="saturation",
            limits=(0.7, 0.9),
            greatest=1,
        ),
        lines(
            "Shed",
            "Requests answered 503 since there was no place for them, by second.",
            (total(rate(metric.REJECTIONS), "reason"), "{{reason}}"),
            unit="reqps",
            section=SCALING,
        ),
        lines(
            "Connections to the database",
            "Open, and how many these pods may open together: below DB_MAX_CONNECTIONS also at the greatest number of "
            "replicas. The embedded database has no pool.",
            (total(now(metric.POOL_OPEN, 'pool=~"database.*"')), "open"),
            (total(now(metric.POOL_LIMIT, 'pool=~"database.*"')), "allowed to these pods"),
            unit="none",
            section=SCALING,
        ),
    )
    made.row(
        "Starts and ends",
        lines(
            "Restarts by pod",
            f"Containers started again, in all. {NEEDS_CLUSTER}",
            (total(of_pods("container_status_restarts_total"), "pod"), "{{pod}}"),
            unit="none",
            section="restarts",
            stepped=True,
        ),
        lines(
            "Why containers ended last",
            f"OOMKilled: too little memory. Error: the log of the container before tells. {NEEDS_CLUSTER}",
            (total(of_pods("container_status_last_terminated_reason"), "reason"), "{{reason}}"),
            unit="none",
            section="restarts",
            stepped=True,
        ),
        lines(
            "Workers that started",
            "Within five minutes. Each pod counts its own at its start; more are replacements of dead ones.",
            (f"sum(increase({now(metric.WORKER_STARTS)}[5m]))", "started"),
            unit="none",
            section="restarts",
        ),
        lines(
            "Uptime by pod",
            "Since its oldest process started. Lines that fall to the ground are restarts.",
            (f"time() - {most(now(metric.START_TIME), 'pod')}", "{{pod}}"),
            unit="s",
            section="restarts",
            width=12,
        ),
        lines(
            "Ready",
            "Pods all of whose processes take requests, and pods that Prometheus knows.",
            (total(now(metric.READY)), "ready"),
            (f"count({up()})", "known"),
            unit="none",
            section="not-ready",
            stepped=True,
            width=12,
        ),
    )
    return made


def _requested(resource: str) -> str:
    requested = of_pods("container_resource_requests", f'resource="{resource}"')
    return total(requested, "namespace")
