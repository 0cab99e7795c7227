"""Traces through a service that runs: from its caller to its providers, and into a collector."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from provider_server import PROVIDER, Behaviour, Exchange, FakeProvider, good, status
from service import Client, Service, named, serving, wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MARK = "Zyxwvut"


@contextmanager
def provider(behaviour: Behaviour = good) -> Iterator[FakeProvider]:
    """A provider in a thread of its own."""
    server = FakeProvider(behaviour)
    up, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server:
            up.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


class Collector:
    """Takes spans over OTLP/HTTP. spans: each with its ids in hexadecimal and its attributes."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self.bytes = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                assert self.path == "/v1/traces"
                collector.take(ExportTraceServiceRequest.FromString(data), data)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def take(self, asked: Any, data: bytes) -> None:
        self.bytes += data
        for resource in asked.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                for span in scope.spans:
                    told = {name: getattr(span, name).hex() for name in ("trace_id", "span_id", "parent_span_id")}
                    times = (span.start_time_unix_nano, span.end_time_unix_nano)
                    more = {"name": span.name, "kind": span.kind, "times": times, "failed": span.status.code == 2}
                    self.spans.append({**told, **more, **_attributes(span.attributes)})

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in list(self.spans) if span["name"] == name]

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _attributes(told: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in told}


def config(*providers: FakeProvider) -> str:
    sections = [PROVIDER.format(name=f"p{n}", url=one.url, timeout="1s") for n, one in enumerate(providers)]
    return "providers:\n" + "".join(sections)


def forgotten(*providers: FakeProvider) -> list[Exchange]:
    """What came to them so far, such as the example that a start assesses."""
    sent = [exchange for one in providers for exchange in one.requests]
    for one in providers:
        one.requests.clear()
    return sent


def business(number: int) -> dict[str, Any]:
    return named(f"{MARK} GmbH", registration_number=f"{MARK}{number}")


def assess(client: Client, number: int, **headers: str) -> None:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    assert client.assess(business(number), told).status == 201


def requests_of(service: Service) -> list[dict[str, Any]]:
    rows = [json.loads(row) for row in service.logged().splitlines() if row.startswith("{")]
    return [row for row in rows if row["event"] == "request" and row["route"] == "/v1/assessments"]


def test_a_trace_goes_from_the_caller_to_every_provider_and_into_the_log(tmp_path: Path) -> None:
    with provider() as one, provider() as other:
        chatty = {"LOG_LEVEL": "info", "LOG_ACCESS_SAMPLE": "1"}
        with serving(tmp_path, config(one, other), **chatty) as service:
            client = service.client()
            of_the_start = forgotten(one, other)
            assert not any("traceparent" in exchange.headers for exchange in of_the_start)
            assess(
                client, 1, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
            )
            sent = [exchange.headers for server in (one, other) for exchange in server.requests]
            assert len(sent) == 2
            parents = {headers["traceparent"].split("-")[2] for headers in sent}
            assert len(parents) == 2
            assert PARENT not in parents
            for headers in sent:
                assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", headers["traceparent"])
                assert headers["tracestate"] == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
            # Invalid: begun anew, and what was said of the old one is not passed on.
            assess(client, 2, traceparent=f"00-{'0' * 32}-{PARENT}-01", tracestate="congo=t61rcWkgMzE")
            assess(client, 3)
            anew = [exchange.headers for exchange in one.requests[1:]]
            ids = [headers["traceparent"].split("-")[1] for headers in anew]
            assert len({TRACE, "0" * 32, *ids}) == 4
            assert not any("tracestate" in headers for headers in anew)
            wait_until(lambda: len(requests_of(service)) == 3, "all are logged")
            assert [row["trace_id"] for row in requests_of(service)] == [TRACE, *ids]


@pytest.mark.parametrize("twice", ["traceparent", "tracestate"])
def test_headers_that_stand_twice(tmp_path: Path, service: Service, twice: str) -> None:
    from service import KEY, exchange

    head = f"GET /health HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n"
    for value in (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"):
        head += f"{twice}: {value}\r\n"
    assert exchange(service.port, f"{head}\r\n".encode()).status == 200


def test_spans_reach_a_collector(tmp_path: Path) -> None:
    with Collector() as collector, provider() as one, provider(status(503)) as broken:
        traced = {"TRACING_ENDPOINT": collector.url, "TRACING_SAMPLE": "0", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with serving(tmp_path, config(one, broken), **traced) as service:
            client = service.client()
            forgotten(one, broken)
            assess(client, 1, traceparent=f"00-{TRACE}-{PARENT}-01", X_Request_ID="request-1")
            assess(client, 2, traceparent=f"00-{TRACE[::-1]}-{PARENT}-00")
            assess(client, 3)
            wait_until(lambda: collector.named("record") and collector.named("provider p1"), "spans arrive")
            assert {span["trace_id"] for span in collector.spans} == {TRACE}
            [server] = collector.named("POST /v1/assessments")
            assert (server["parent_span_id"], server["kind"], server["failed"]) == (PARENT, 2, False)
            assert server["http.response.status_code"] == 201
            assert server["http.route"] == "/v1/assessments"
            assert server["request.id"] == "request-1"
            for name in ("gather", "score", "record"):
                [inner] = collector.named(name)
                assert inner["parent_span_id"] == server["span_id"]
                assert server["times"][0] <= inner["times"][0] <= inner["times"][1] <= server["times"][1]
            [gather] = collector.named("gather")
            [asked] = collector.named("provider p0")
            assert (asked["parent_span_id"], asked["kind"], asked["failed"]) == (gather["span_id"], 3, False)
            assert asked["span_id"] == one.requests[0].headers["traceparent"].split("-")[2]
            failed = collector.named("provider p1")
            assert all(span["failed"] and span["error.type"] for span in failed)
            assert len(failed) == sum(TRACE in exchange.headers["traceparent"] for exchange in broken.requests)
            assert collector.resources[0]["service.name"] == "risk-assessment-service"
            assert MARK.encode() not in collector.bytes
            # The others carry on what was decided.
            flags = [exchange.headers["traceparent"][-2:] for exchange in one.requests]
            assert flags == ["01", "00", "00"]
        assert MARK.encode() not in collector.bytes


def test_what_waits_is_sent_at_the_end_and_an_absent_collector_is_no_hindrance(tmp_path: Path) -> None:
    traced = {"TRACING_SAMPLE": "100%", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with Collector() as collector, serving(tmp_path, TRACING_ENDPOINT=collector.url, **traced) as service:
        assert service.client().assess(named("A")).status == 201
        assert collector.spans == []
        assert service.terminate() == 0
        assert collector.named("POST /v1/assessments")
    with serving(tmp_path / "gone", TRACING_ENDPOINT="http://127.0.0.1:9", **traced) as service:
        client = service.client()
        for _ in range(50):
            assert client.assess(named("A")).status == 201
        assert service.terminate() == 0
        assert "Traceback" not in service.logged()


def test_tracing_without_its_packages_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.server import StartRefused, check_tracing
    from app.settings import load

    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"] + ["app.telemetry.otlp"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = load({"TRACING_ENDPOINT": "http://127.0.0.1:4318", "DATA_DIR": str(tmp_path)}).settings
    with pytest.raises(StartRefused, match=r"install the extra otel .* or leave TRACING_ENDPOINT out"):
        check_tracing(settings)
    check_tracing(load({"DATA_DIR": str(tmp_path)}).settings)
