"""PromQL about the service's metrics. A metric or label that the catalogue does not have cannot be written here."""

from __future__ import annotations

import re

from app.telemetry.catalogue import REQUEST_DURATION
from app.telemetry.meters import Metric

JOB = "risk-assessment-service"
DEPLOYMENT = "risk-assessment-service"
AUTOSCALER = "risk-assessment-service-hpa"
PODS = "risk-assessment-service-.*"

OWN = f'job="{JOB}"'
CHOSEN = 'namespace=~"$namespace",pod=~"$pod"'
"""What the viewer chose. All of it matches what has no such labels too, outside of Kubernetes."""
CALLERS = 'route!~"/health.*|/metrics|/debug/.*"'
"""Requests of callers, not probes, scrapes or profiles."""
FAILED = 'status=~"5.."'
WINDOW = "$__rate_interval"

MATCHER = re.compile(r'(\w+)(?:=|!=|=~|!~)".*"')


def now(metric: Metric, *matchers: str, suffix: str = "") -> str:
    """A metric as it stands. matchers: on its own labels, such as 'tier="local"'."""
    for matcher in matchers:
        match = MATCHER.fullmatch(matcher)
        if match is None or match[1] not in metric.labels:
            raise ValueError(f"{metric.name} has the labels {metric.labels}, and is asked for {matcher}")
    told = ",".join((OWN, CHOSEN, *matchers))
    return f"{metric.name}{suffix}{{{told}}}"


def rate(metric: Metric, *matchers: str, suffix: str = "") -> str:
    """Of a counter, or of a histogram's suffix (_count, _sum, _bucket), by second."""
    if metric.kind == "gauge" or (metric.kind == "histogram") != bool(suffix):
        raise ValueError(f"{metric.name} is a {metric.kind}, and has no rate of {suffix or 'itself'}")
    return f"rate({now(metric, *matchers, suffix=suffix)}[{WINDOW}])"


def requests(*matchers: str) -> str:
    """Answers to callers by second."""
    return rate(REQUEST_DURATION, CALLERS, *matchers, suffix="_count")


def total(query: str, *by: str) -> str:
    """Summed over pods and all labels but those named."""
    return _over("sum", query, by)


def most(query: str, *by: str) -> str:
    """The greatest over pods and all labels but those named."""
    return _over("max", query, by)


def least(query: str, *by: str) -> str:
    """The least over pods and all labels but those named."""
    return _over("min", query, by)


def quantile(share: float, metric: Metric, *by: str, matchers: tuple[str, ...] = ()) -> str:
    """Of a histogram over all pods, in its own unit."""
    return f"histogram_quantile({share:g}, {total(rate(metric, *matchers, suffix='_bucket'), *by, 'le')})"


def mean(metric: Metric, *by: str) -> str:
    """Of a histogram over all pods, in its own unit."""
    return f"{total(rate(metric, suffix='_sum'), *by)} / {total(rate(metric, suffix='_count'), *by)}"


def or_zero(query: str, whole: str) -> str:
    """The query, and 0 where it has nothing and the whole has."""
    return f"({query} or 0 * {whole})"


def error_ratio(*by: str) -> str:
    """The share of answers to callers that are 5xx."""
    every = total(requests(), *by)
    return f"{or_zero(total(requests(FAILED), *by), every)} / {every}"


def top(count: int, query: str) -> str:
    """The greatest of many series."""
    return f"topk({count}, {query})"


def up() -> str:
    """1 for each pod that Prometheus reaches, 0 for the others."""
    return f"up{{{OWN},{CHOSEN}}}"


def scraped(name: str) -> str:
    """What Prometheus notes of each scrape."""
    return f"scrape_{name}{{{OWN},{CHOSEN}}}"


def of_pods(name: str, *matchers: str) -> str:
    """kube-state-metrics about the pods."""
    told = ",".join((CHOSEN, f'pod=~"{PODS}"', *matchers))
    return f"kube_pod_{name}{{{told}}}"


def of_deployment(name: str) -> str:
    """kube-state-metrics about the deployment."""
    return f'kube_deployment_{name}{{namespace=~"$namespace",deployment="{DEPLOYMENT}"}}'


def of_autoscaler(name: str, *matchers: str) -> str:
    """kube-state-metrics about the autoscaler."""
    told = ",".join(('namespace=~"$namespace"', f'horizontalpodautoscaler="{AUTOSCALER}"', *matchers))
    return f"kube_horizontalpodautoscaler_{name}{{{told}}}"


def _over(how: str, query: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({query})" if by else f"{how}({query})"
