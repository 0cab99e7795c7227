"""The one table of routes: which permission each asks for, how urgent it is, what body it takes, how it may be kept.

A route that is not in it, or an entry without a route, ends the start: nothing is reachable by having been forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from app.edge.admission import BATCH, READ, WRITE
from app.edge.gate import Endpoint, Route
from app.edge.headers import NOTHING_LOADED, fixed_headers
from app.edge.nearby import Nearby
from app.roles import Permission

Body = Literal["none", "single", "batch"]

NO_STORE = b"no-store"
REVALIDATED = b"private, no-cache"
"""To be kept by the caller alone, and asked for again each time: so that the ETag serves."""
PUBLIC = b"public, max-age=300"


class Rule(NamedTuple):
    """permission: None where no key is asked for.  kind: of admission, None for what never waits.  cache: what the
    Cache-Control of its answers says.  policy: their Content-Security-Policy, b"" where the answer brings its own.
    by_content: as of `Route`.  nearby: the key is asked for only from elsewhere (`app.edge.nearby`), and no rate."""

    permission: Permission | None
    kind: int | None
    body: Body = "none"
    cache: bytes = REVALIDATED
    policy: bytes = NOTHING_LOADED
    by_content: bool = False
    nearby: bool = False


RULES: dict[tuple[str, str], Rule] = {
    ("POST", "/v1/assessments"): Rule("assess", WRITE, "single"),
    ("GET", "/v1/assessments"): Rule("read", READ),
    ("POST", "/v1/assessments/batch"): Rule("assess", BATCH, "batch", by_content=True),
    ("GET", "/v1/assessments/{id}"): Rule("read", READ),
    ("POST", "/v1/assessments/{id}/replay"): Rule("replay", WRITE),
    ("GET", "/v1/assessments/{id}/overrides"): Rule("read", READ),
    ("POST", "/v1/assessments/{id}/overrides"): Rule("override", WRITE, "single"),
    ("GET", "/v1/assessments/{id}/overrides/{override_id}"): Rule("read", READ),
    ("POST", "/v1/assessments/{id}/overrides/{override_id}/approve"): Rule("override", WRITE),
    ("GET", "/v1/dispositions"): Rule("read", READ),
    ("POST", "/v1/dispositions"): Rule("override", WRITE, "single"),
    ("GET", "/v1/dispositions/{id}"): Rule("read", READ),
    ("DELETE", "/v1/dispositions/{id}"): Rule("override", WRITE),
    ("GET", "/v1/watchlists"): Rule("read", READ),
    ("POST", "/match/{dataset}"): Rule("assess", WRITE, "batch", NO_STORE, by_content=True),
    ("GET", "/v1/models"): Rule("models", READ),
    ("GET", "/v1/models/{id}/{version}"): Rule("models", READ),
    ("GET", "/v1/keys"): Rule("keys", READ, cache=NO_STORE),
    ("POST", "/v1/keys"): Rule("keys", WRITE, "single", NO_STORE),
    ("GET", "/v1/keys/{id}"): Rule("keys", READ, cache=NO_STORE),
    ("DELETE", "/v1/keys/{id}"): Rule("keys", WRITE, cache=NO_STORE),
    ("POST", "/v1/keys/{id}/rotate"): Rule("keys", WRITE, "none", NO_STORE),
    ("GET", "/v1/audit"): Rule("audit", READ, cache=NO_STORE),
    ("GET", "/v1/audit/checkpoints"): Rule("audit", READ, cache=NO_STORE),
    ("GET", "/debug/pprof/goroutine"): Rule("debug", None, cache=NO_STORE),
    ("GET", "/debug/pprof/heap"): Rule("debug", None, cache=NO_STORE),
    ("GET", "/debug/pprof/profile"): Rule("debug", None, cache=NO_STORE, policy=b""),
    ("GET", "/problems/{slug}"): Rule(None, None, cache=PUBLIC),
    ("GET", "/health"): Rule(None, None, cache=NO_STORE),
    ("GET", "/health/live"): Rule(None, None, cache=NO_STORE),
    ("GET", "/health/ready"): Rule(None, None, cache=NO_STORE),
    ("GET", "/health/detailed"): Rule("monitor", None, cache=NO_STORE, nearby=True),
    ("GET", "/metrics"): Rule("monitor", None, cache=NO_STORE, nearby=True),
    ("GET", "/openapi.json"): Rule(None, READ, cache=PUBLIC),
    ("GET", "/docs"): Rule(None, READ, cache=PUBLIC, policy=b""),
}


class RouteUnlisted(Exception):
    """Routes and their table do not agree."""


def guarded(
    endpoints: Mapping[str, Mapping[str, Endpoint]], limits: Mapping[Body, int], tls: bool, nearby: Nearby
) -> dict[str, dict[str, Route]]:
    """The routes of the endpoints, by path and method, as the table says. Raises RouteUnlisted.

    limits: bytes of a body by its kind.  tls: callers come over TLS.  nearby: who reads without a key what a rule says.
    """
    there = {(method, path) for path, methods in endpoints.items() for method in methods}
    if there != RULES.keys():
        unlisted = sorted(f"{method} {path}" for method, path in there - RULES.keys())
        unserved = sorted(f"{method} {path}" for method, path in RULES.keys() - there)
        raise RouteUnlisted(f"routes without a rule: {unlisted or 'none'}; rules without a route: {unserved or 'none'}")
    return {
        path: {
            method: _route(endpoint, path, RULES[method, path], limits, tls, nearby)
            for method, endpoint in methods.items()
        }
        for path, methods in endpoints.items()
    }


def _route(endpoint: Endpoint, path: str, rule: Rule, limits: Mapping[Body, int], tls: bool, nearby: Nearby) -> Route:
    limit = 0 if rule.body == "none" else limits[rule.body]
    headers = fixed_headers(rule.cache, tls, rule.policy)
    if rule.nearby and rule.permission is not None:
        return Route(nearby.only(endpoint, rule.permission), None, rule.kind, limit, headers, False, path)
    return Route(endpoint, rule.permission, rule.kind, limit, headers, rule.by_content, path)
