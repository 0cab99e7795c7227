"""The project's own load generator, in a process of its own, that keeps the id of every assessment it was told of."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
from proxy import HOST
from service import KEY

from app.loadtest import process
from app.loadtest.histogram import Histogram
from app.loadtest.mix import ServiceMix
from app.loadtest.process import CONNECTED, Orders, Point, Told, histogram
from app.loadtest.users import UNSENT

LONGEST_S = 60.0
"""How late an answer may be: a machine that is busy is slow, and fails nobody."""
WHOLE_S = 3600
"""As long as it runs where nobody stops it."""
STARTED_WITHIN_S = 60.0
TOO_SLOW = (UNSENT, "not sent in time")
"""What was never asked since earlier requests of its user were still waited for."""


def generate(orders: Orders, pipe: Connection, file: Path) -> None:
    """As `process.generate`, and at its end the ids are in the file, 16 bytes each."""
    ids = bytearray()

    class Keeping(ServiceMix):
        def told(self, kind: str, status: int, head: bytes) -> None:
            super().told(kind, status, head)
            if status == 201:
                location = head.partition(b"\r\nlocation: /v1/assessments/")[2].partition(b"\r\n")[0]
                ids.extend(uuid.UUID(location.decode("ascii")).bytes)

    process.ServiceMix = Keeping  # type: ignore[misc]
    try:
        process.generate(orders, pipe)
    finally:
        file.write_bytes(ids)


class Load:
    """Assessments at a rate, each with an Idempotency-Key, from users who keep their connection.

    Each user sends once a second. `with` starts it and stops it; afterwards everything that was told is here.
    answers: by status.  failures: requests without an answer, by why.  unasked: that this machine could not send.
    """

    def __init__(self, port: int, users: int, file: Path, run: str) -> None:
        self.users = users
        self.answers: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.unasked = 0
        self.seconds = 0.0
        self.times = Histogram()
        self.late = Histogram()
        self._file = file
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        points = [Point(0, users), Point(WHOLE_S, users)]
        orders = Orders(
            HOST, port, f"{HOST}:{port}", KEY, {"assess": 1.0}, run, 0, 1, points, 1.0, LONGEST_S, (), False, 0
        )
        self._process = context.Process(target=generate, args=(orders, theirs, file), daemon=True)
        self._theirs = theirs
        self._begun = 0.0

    @property
    def ids(self) -> list[bytes]:
        """Of the assessments that were acknowledged."""
        data = self._file.read_bytes()
        return [data[at : at + 16] for at in range(0, len(data), 16)]

    @property
    def rate(self) -> float:
        """Requests a second that were answered."""
        return self.answers.total() / self.seconds

    @property
    def said(self) -> str:
        """What was found, in a line."""
        ms = {percent: self.times.percentile_us(percent) / 1000 for percent in (50, 99)}
        return (
            f"{self.answers.total():,} requests in {self.seconds:.0f} s ({self.rate:,.0f}/s of {self.users:,}/s): "
            f"statuses {dict(self.answers)}, failures {dict(self.failures)}, not asked {self.unasked}, "
            f"p50 {ms[50]:.1f} ms, p99 {ms[99]:.1f} ms, the generator late by {self.late.percentile_us(99) / 1000:.1f} "
            f"ms at p99"
        )

    def take(self) -> None:
        """Take what was told so far, so that the generator need not wait for that."""
        while self._pipe.poll():
            if not self._add():
                return

    def __enter__(self) -> Load:
        self._process.start()
        self._theirs.close()
        assert self._pipe.poll(STARTED_WITHIN_S), "the generator does not connect"
        assert self._pipe.recv_bytes() == CONNECTED
        self._begun = time.monotonic() + 0.1
        self._pipe.send(self._begun)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                self.seconds = time.monotonic() - self._begun
                self._pipe.send(None)
                while self._add():
                    pass
                self._process.join(STARTED_WITHIN_S)
                assert self._process.exitcode == 0
        finally:
            self._process.kill()
            self._process.join()
            self._pipe.close()

    def _add(self) -> bool:
        data = self._pipe.recv_bytes()
        if not data:
            return False
        told = msgspec.msgpack.decode(data, type=Told)
        for _, status, count in told.answers:
            self.answers[status] += count
        for kind, why, count in told.errors:
            if (kind, why) == TOO_SLOW:
                self.unasked += count
            else:
                self.failures[why] += count
        for packed in told.times.values():
            self.times.merge(histogram(packed))
        self.late.merge(histogram(told.late))
        return True
