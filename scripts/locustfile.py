"""The mix of `kyb loadtest` for Locust, which spreads users over many machines.

    pip install locust     # into the environment of the service; nothing of the service needs it
    locust -f scripts/locustfile.py --host http://127.0.0.1:8080 --users 1000 --spawn-rate 100

KYB_KEY is the API key, KYB_MIX a mix (realistic). Each user sends every 5 s as far as Locust allows it: it does not
count from the intended moment, so an answer that is later than 5 s delays the next request unseen, and one core of it
makes about 1,700 requests/s. `kyb loadtest` measures; this one is for load from many places.
"""

from __future__ import annotations

import os
import time
from itertools import count

from locust import FastHttpUser, constant_pacing, events, task

from app.loadtest.mix import ServiceMix, shares

PERIOD_S = 5
_numbers = count()
_run = f"{int(time.time()):x}{os.getpid():x}"
_mixes: dict[str, ServiceMix] = {}


@events.test_start.add_listener
def _begin(environment, **_):
    """One mix a process, so that reads find what was recorded here."""
    key = os.environ.get("KYB_KEY", "")
    given = shares(os.environ.get("KYB_MIX", "realistic"))
    _mixes["of this process"] = ServiceMix("service", key, given, _run, os.getpid() + next(_numbers))


class Business(FastHttpUser):
    """A user who sends one request every PERIOD_S."""

    wait_time = constant_pacing(PERIOD_S)

    @task
    def one(self):
        mix = _mixes["of this process"]
        ask = mix.ask()
        head, _, body = ask.data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines if not line.startswith(("Host", "Content-Length")))
        with self.client.request(
            method, path, data=body or None, headers=headers, name=ask.kind, catch_response=True
        ) as answer:
            if not 200 <= answer.status_code < 400:
                answer.failure(f"status {answer.status_code}")
                return
            answer.success()
            location = answer.headers.get("location", "")
            told = f"http/1.1 {answer.status_code}\r\nlocation: {location}\r\n" if location else ""
            mix.told(ask.kind, answer.status_code, told.encode("latin-1"))
