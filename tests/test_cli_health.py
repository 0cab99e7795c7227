"""`kyb health`: one word of the service for what watches a container, and an exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from service import HOST, Service, environment, free_port

COMMAND = (sys.executable, "-m", "app.cli", "health")
LIMIT_S = 60.0
STOPPING = b'{"status":"not_ready","reasons":["The service is stopping, and finishes what it has begun."]}'


def asked(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment(settings), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def stopping() -> Iterator[int]:
    """The port of a service that lives and takes no requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            live = self.path == "/health/live"
            body = b'{"status":"alive"}' if live else STOPPING
            self.send_response(200 if live else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((HOST, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", [HOST, "localhost", "0.0.0.0"])
def test_a_service_that_takes_requests_is_well(service: Service, host: str) -> None:
    done = asked(HOST=host, PORT=str(service.port))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"status": "ready", "reasons": []})
    assert json.loads(asked("--live", HOST=host, PORT=str(service.port)).stdout) == {"status": "alive"}


def test_one_that_stops_is_not_and_lives() -> None:
    with stopping() as port:
        done = asked(PORT=str(port))
        assert done.returncode == 5
        assert done.stdout == ""
        assert "503" in done.stderr
        assert "stopping" in done.stderr
        assert asked("--live", PORT=str(port)).returncode == 0


def test_nobody_there_is_not_well() -> None:
    done = asked(PORT=str(free_port()))
    assert (done.returncode, "refused" in done.stderr) == (4, True)


def test_one_that_does_not_answer_is_not_waited_for() -> None:
    with closing(socket.create_server((HOST, 0))) as silent:
        done = asked(PORT=str(silent.getsockname()[1]))
    assert (done.returncode, "timed out" in done.stderr) == (4, True)


def test_settings_that_cannot_be_used_are_told() -> None:
    assert asked(PORT="none").returncode == 3
