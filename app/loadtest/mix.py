"""What virtual users ask for: assessments of ever different businesses or of few, dry runs, reads, batches, health."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from itertools import accumulate

from app.loadtest.profiles import Profiles
from app.loadtest.users import Ask

KINDS = ("assess", "dry-run", "read", "batch", "health")
MIXES: Mapping[str, Mapping[str, float]] = {
    "assessments": {"assess": 1.0},
    "dry-runs": {"dry-run": 1.0},
    "realistic": {"assess": 0.70, "read": 0.24, "batch": 0.01, "health": 0.05},
    "reads": {"read": 0.95, "assess": 0.05},
}
"""The share of each kind of request."""
REPEATED = 0.1
"""The share of assessments that are of a business assessed a moment ago."""
REMEMBERED = 1000
BATCH_ITEMS = 10


class MixUnknown(ValueError):
    """The text says which there are."""


def shares(text: str) -> dict[str, float]:
    """A mix by its name, or as `assess=80,read=20`. Raises MixUnknown."""
    if text in MIXES:
        return dict(MIXES[text])
    found: dict[str, float] = {}
    for part in text.split(","):
        kind, _, weight = part.partition("=")
        try:
            number = float(weight)
        except ValueError:
            number = -1.0
        if kind not in KINDS or not 0 < number < float("inf"):
            raise MixUnknown(
                f"there is no mix {text!r}; take {', '.join(MIXES)}, or weights of {', '.join(KINDS)} such as "
                "assess=80,read=20"
            )
        found[kind] = number
    total = sum(found.values())
    return {kind: number / total for kind, number in found.items()}


class ServiceMix:
    """Requests to the service.

    host: of the Host header.  key: of the API, "" for none.  shares: of each kind, summing to 1.
    run: short text that makes the ids of this run's businesses its own.  seed: of this process.
    businesses: that are assessed again and again; 0 for ever new ones.
    A read is of something that this process recorded; before there is anything it is an assessment.
    """

    def __init__(
        self, host: str, key: str, shares: Mapping[str, float], run: str, seed: int, businesses: int = 0
    ) -> None:
        self._chance = random.Random(seed)
        self._kinds = tuple(shares)
        self._bounds = tuple(accumulate(shares.values()))
        self._profiles = Profiles(f"{run}-{seed}", seed)
        self._made = 0
        self._run = f"{run}-{seed}".encode()
        self._bodies: deque[bytes] = deque([self._profiles.body() for _ in range(businesses)], businesses or REMEMBERED)
        self._repeated = 1.0 if businesses else REPEATED
        self._paths: deque[bytes] = deque(maxlen=REMEMBERED)
        self._common = f"Host: {host}\r\nUser-Agent: kyb-loadtest\r\nAccept: */*\r\n".encode()
        if key:
            self._common += f"X-API-Key: {key}\r\n".encode()
        self._health = Ask("health", b"GET /health HTTP/1.1\r\n%b\r\n" % self._common)

    def ask(self) -> Ask:
        """The next request."""
        kind = self._kinds[min(bisect_right(self._bounds, self._chance.random()), len(self._kinds) - 1)]
        if kind == "health":
            return self._health
        if kind == "read" and self._paths:
            path = self._paths[int(self._chance.random() * len(self._paths))]
            return Ask(kind, b"GET %b HTTP/1.1\r\n%b\r\n" % (path, self._common))
        if kind == "batch":
            return self._batch()
        if self._bodies and self._chance.random() < self._repeated:
            body = self._bodies[int(self._chance.random() * len(self._bodies))]
        else:
            body = self._profiles.body()
            self._bodies.append(body)
        if kind == "dry-run":
            return Ask(kind, self._posted(b"/v1/assessments?dry_run=true", body))
        return Ask("assess", self._posted(b"/v1/assessments", body))

    def ask_most(self) -> Ask:
        """A batch, where there are any."""
        return self._batch() if "batch" in self._kinds else self.ask()

    def told(self, kind: str, status: int, head: bytes) -> None:
        """Remember where a recorded assessment is."""
        if status == 201:
            at = head.find(b"\r\nlocation: ")
            if at >= 0:
                end = head.find(b"\r\n", at + 12)
                self._paths.append(head[at + 12 : end if end > 0 else len(head)])

    def _batch(self) -> Ask:
        items = b",".join([self._profiles.body() for _ in range(BATCH_ITEMS)])
        return Ask("batch", self._posted(b"/v1/assessments/batch", b'{"items":[%b]}' % items))

    def _posted(self, path: bytes, body: bytes) -> bytes:
        self._made += 1
        own = b"Content-Type: application/json\r\nIdempotency-Key: %b-%d\r\n" % (self._run, self._made)
        return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, self._common, own, len(body), body)


def described(given: Mapping[str, float]) -> str:
    """A mix as the report shows it."""
    return ", ".join(f"{kind} {share:.0%}" for kind, share in given.items())
