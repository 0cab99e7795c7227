"""What the server hands over and the edge makes of it: `heads PORT` answers each request with that, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes, TaskImpl
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from app.edge.request import Bodies, Disconnected, Receive, Request, Scope, Send
from app.errors import Refusal

BODY_LIMIT_BYTES = 1 << 20
_bodies = Bodies(10)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for part in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{part}.complete"})
        return
    request = Request(scope, receive)
    told: dict[str, Any] = {"refused": None, "method": request.method, "path": request.path}
    try:
        request.read_head()
        body = await _bodies.read(request, BODY_LIMIT_BYTES)
        told["body"] = body.decode("latin-1") if len(body) < 100 else len(body)
    except (Refusal, Disconnected) as refusal:
        told["refused"] = type(refusal).__name__
    told["peer"] = request.peer
    told["headers"] = {name.decode("latin-1"): value[:100].decode("latin-1") for name, value in request.headers.items()}
    answer = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    Server(
        target="heads:app",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,
        runtime_mode=RuntimeModes.st,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=5000),
        log_level=LogLevels.error,
    ).serve()
