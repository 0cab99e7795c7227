"""Servers to measure against each other, each a process of its own.

    python benchmarks/servers.py service|bare|peer --port 8090 [--answer-bytes 2500] [--data-dir DIR]
        [--database-url URL] [--redis-url URL] [--key KEY] [--list NAME=FILE[,FILE]]... [--trace-allocations]

service: this service, with every layer of its edge at work: --key is let in, and limited by itself, its tenant and the
whole service at rates that nothing reaches; names are screened against each --list.  bare: an ASGI application on the
same server with the same options, which reads the body with one `receive()` and sends a constant.  peer: FastAPI on
Uvicorn with Pydantic, which validates the same body as fully and sends a constant, of --answer-bytes bytes as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from service import KEY, SECRETS, keep_key

from app import server, settings
from app.evidence.publishing import content_of, publish
from app.main import tune
from app.neighbours import make_store
from app.store.base import opened
from app.watchlists.reading import read

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
UNREACHED = "1000000/s burst 1000000"


class ServerFailed(Exception):
    """A server that did not start, with the end of what it wrote."""


class Stores(NamedTuple):
    """The addresses of a PostgreSQL database with its tables, and of a Redis."""

    database_url: str
    redis_url: str


class Bare:
    """The least an application can do with the request: read its body, answer a constant."""

    def __init__(self, answer_bytes: int) -> None:
        self._start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % answer_bytes)],
        }
        self._body = {"type": "http.response.body", "body": constant(answer_bytes)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        await receive()
        await send(self._start)
        await send(self._body)


async def _live(receive: Any, send: Any) -> None:
    await receive()
    # As the service's own, so that it is no part of the difference.
    tune()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def constant(size: int) -> bytes:
    """A JSON document of `size` bytes."""
    return b'{"constant":"' + b"x" * (size - 15) + b'"}'


def load_bare(answer_bytes: int, _settings: settings.Settings, _cells: Path) -> Bare:
    """What takes the place of app.server.load_worker."""
    return Bare(answer_bytes)


def run_service(
    port: int,
    data_dir: Path,
    database_url: str | None = None,
    redis_url: str | None = None,
    key: str | None = None,
    limit: str = UNREACHED,
    lists: Sequence[str] = (),
    trace: bool = False,
) -> None:
    options = {
        "server.host": HOST,
        "server.port": port,
        "server.drain_time": "0s",
        "database.data_dir": data_dir,
        "database.url": database_url,
        "redis.url": redis_url,
        "logging.level": "warning",
        "limits.tiers": f"measured {UNREACHED}",
        "limits.default_tier": "measured",
        "limits.tenant": UNREACHED,
        "limits.service": limit,
        "monitoring.trace_allocations": trace,
    }
    loaded = settings.load(SECRETS, None, options)
    if key is not None:
        asyncio.run(keep_key(loaded.settings, key, tier=None))
    asyncio.run(_bring(loaded.settings, lists))
    server.run(loaded)


async def _bring(chosen: settings.Settings, lists: Sequence[str]) -> None:
    """Bring lists into force. lists: as `NAME=FILE[,FILE]`."""
    async with opened(make_store(chosen)) as store:
        for told in lists:
            name, _, files = told.partition("=")
            paths = [Path(file) for file in files.split(",")]
            made = read(paths)
            await publish(store, name, made, title=name, source=files, content_sha256=content_of(paths), actor="cli")


def run_bare(port: int, data_dir: Path, answer_bytes: int) -> None:
    # The service's own start with another application in it: the server's options cannot drift apart.
    server.load_worker = partial(load_bare, answer_bytes)  # type: ignore[assignment]
    run_service(port, data_dir)


def run_peer(port: int, answer_bytes: int) -> None:
    import uvicorn
    from peer import create_peer

    uvicorn.run(
        create_peer(constant(answer_bytes)),
        host=HOST,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )


@contextlib.contextmanager
def started(
    kind: str,
    data_dir: Path,
    answer_bytes: int = 0,
    stores: Stores | None = None,
    limit: str = UNREACHED,
    lists: Sequence[str] = (),
    trace: bool = False,
) -> Iterator[str]:
    """A server in a process of its own, ready; ended with the block. Yields `http://host:port`. Raises ServerFailed."""
    data_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, str(Path(__file__)), kind, "--port", str(port), "--data-dir", str(data_dir)]
    command += ["--answer-bytes", str(answer_bytes), "--key", KEY, "--limit", limit]
    if stores is not None:
        command += ["--database-url", stores.database_url, "--redis-url", stores.redis_url]
    command += [part for told in lists for part in ("--list", told)]
    command += ["--trace-allocations"] if trace else []
    log = data_dir / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        _await_ready(process, port, log)
        yield f"http://{HOST}:{port}"
    finally:
        _end(process)


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise ServerFailed(log.read_text(encoding="utf-8", errors="replace")[-2000:]) from None
            time.sleep(0.05)
        finally:
            connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Its session holds only the processes that it started itself.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one of the servers that are measured against each other.")
    parser.add_argument("kind", choices=("service", "bare", "peer"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer-bytes", type=int, default=2500)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--database-url")
    parser.add_argument("--redis-url")
    parser.add_argument("--key", help="an API key that the service knows")
    parser.add_argument("--limit", default=UNREACHED, help="the rate of the whole service")
    parser.add_argument("--list", action="append", default=[], metavar="NAME=FILE[,FILE]", help="screened against")
    parser.add_argument("--trace-allocations", action="store_true", help="from the start")
    options = parser.parse_args()
    if options.kind == "service":
        stores = (options.database_url, options.redis_url)
        told = (options.key, options.limit, options.list, options.trace_allocations)
        run_service(options.port, options.data_dir, *stores, *told)
    elif options.kind == "bare":
        run_bare(options.port, options.data_dir, options.answer_bytes)
    else:
        run_peer(options.port, options.answer_bytes)


if __name__ == "__main__":
    main()
