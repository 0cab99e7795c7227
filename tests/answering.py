"""A server whose behaviour is known: `python tests/answering.py '{"delay_ms": 50}'` prints its port and serves.

delay_ms: between a request and its answer.  drop_every: of so many requests one loses its connection, unanswered.
statuses: in turn.  head: further header lines of each answer.  raw: the whole answer instead.  closes: the connection
ends after each answer.  silent: nothing is ever answered.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

HOST = "127.0.0.1"


class Behaviour:
    def __init__(
        self,
        delay_ms: float = 0.0,
        drop_every: int = 0,
        statuses: tuple[int, ...] = (200,),
        head: str = "",
        raw: str | None = None,
        closes: bool = False,
        silent: bool = False,
    ) -> None:
        self.delay_s = delay_ms / 1000
        self.drop_every, self.closes, self.silent = drop_every, closes, silent
        self.answers = [
            raw.encode() if raw is not None else f"HTTP/1.1 {status} X\r\n{head}content-length: 2\r\n\r\n{{}}".encode()
            for status in statuses
        ]
        self.asked = 0


class Answering(asyncio.Protocol):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            self.asked()

    def asked(self) -> None:
        behaviour = self.behaviour
        behaviour.asked += 1
        if behaviour.silent:
            return
        if behaviour.drop_every and behaviour.asked % behaviour.drop_every == 0:
            self.transport.abort()
            return
        answer = behaviour.answers[behaviour.asked % len(behaviour.answers)]
        if behaviour.delay_s:
            asyncio.get_running_loop().call_later(behaviour.delay_s, self.answer, answer)
        else:
            self.answer(answer)

    def answer(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            if self.behaviour.closes:
                self.transport.close()


async def serve(behaviour: Behaviour) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(behaviour), HOST, 0, backlog=4096)
    gc.freeze()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Answerer:
    """Such a server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def stand_still(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def answering(**behaviour: Any) -> Iterator[Answerer]:
    """A server that runs for as long as the block does."""
    command = [sys.executable, __file__, json.dumps(behaviour)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Answerer(process, int(process.stdout.readline()))
        finally:
            process.kill()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Behaviour(**json.loads(sys.argv[1]))))
