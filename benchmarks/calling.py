"""The application called as its server would, without a socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from service import KEY, SECRETS, keep_key

from app import settings
from app.main import create_app

REQUESTS = 1000
PATH = "/v1/assessments"


def headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """A head as an HTTP client of a service sends it."""
    return [
        (b"x-api-key", KEY.encode()),
        (b"host", b"127.0.0.1:8080"),
        (b"user-agent", b"onboarding/2.1"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]


def scope(body: bytes, path: str = PATH, query: bytes = b"dry_run=true", method: str = "POST") -> dict[str, Any]:
    """What the server hands over."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": headers(body),
    }


class Client:
    """Calls the application as the server would. status, bytes: of the last answer."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.status = 0
        self.bytes = 0

    def call(self, count: int, body: bytes, **head: Any) -> None:
        """The same request so many times, one after the other."""
        asked = scope(body, **head)
        message = {"type": "http.request", "body": body, "more_body": True}

        async def receive() -> dict[str, Any]:
            return message

        async def send(answer: dict[str, Any]) -> None:
            if answer["type"] == "http.response.start":
                self.status = answer["status"]
            else:
                self.bytes = len(answer["body"])

        async def run() -> None:
            for _ in range(count):
                await self.app(asked, receive, send)

        self.loop.run_until_complete(run())


async def bare(asked: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    """An application that takes the body and sends nothing."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def calling(loop: asyncio.AbstractEventLoop, folder: Path) -> Iterator[Client]:
    """The whole application, started, with its records in a folder."""
    options = {"database.data_dir": folder, "logging.level": "error"}
    rates = {"limits.tiers": "measured 1000000/s burst 1000000", "limits.default_tier": "measured"}
    chosen = settings.load(SECRETS, None, {**options, **rates}).settings
    loop.run_until_complete(keep_key(chosen, tier=None))
    app = create_app(chosen)
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    ready = asyncio.Event()

    async def send(message: dict[str, str]) -> None:
        assert message["type"].endswith(".complete"), message
        ready.set()

    async def tell(kind: str) -> None:
        ready.clear()
        await told.put({"type": kind})
        await ready.wait()

    life = loop.create_task(app({"type": "lifespan"}, told.get, send))
    loop.run_until_complete(tell("lifespan.startup"))
    yield Client(app, loop)
    loop.run_until_complete(tell("lifespan.shutdown"))
    loop.run_until_complete(life)
