"""A TCP proxy that does to connections what networks do: delay, silence, resets, refusal."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"

CHUNK_BYTES = 65_536
HELD_CHUNKS = 64
"""How many chunks of one direction wait for their time before nothing more is read."""

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST in place of FIN."""

TURN_LIMIT_S = 10.0


def reserve_port() -> socket.socket:
    """A bound socket that does not listen: its port refuses connections and is given to nobody else.

    A server that sets SO_REUSEADDR can listen on the port all the same, and again after it was down.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


class Mode(Enum):
    OPEN = auto()
    BLACK_HOLE = auto()
    RESET = auto()
    REFUSE = auto()


Queue = asyncio.Queue[tuple[float, bytes]]


class Proxy:
    """Passes connections on to a port of this machine until told otherwise. A mode holds when its method returns.

    port: where it listens, the same for life.
    latency_s: added to each direction, a round trip takes twice as much; may be changed at any time.
    accepted, bytes_up, bytes_down: totals of connections accepted and of bytes read from clients and from the target,
    whether or not they were passed on.
    """

    def __init__(self, target_port: int, latency_s: float = 0.0) -> None:
        self.target_port = target_port
        self.latency_s = latency_s
        self.accepted = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._held = reserve_port()
        self.port: int = self._held.getsockname()[1]
        self._mode = Mode.OPEN
        self._open: set[asyncio.StreamWriter] = set()
        self._sent: list[bytearray] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.heal()

    @property
    def connections(self) -> int:
        """Connections that their clients hold open now."""
        return len(self._open)

    def count(self, pattern: bytes) -> int:
        """How often the bytes were sent by clients so far; a pattern may arrive in pieces."""
        return sum(sent.count(pattern) for sent in self._sent)

    def heal(self) -> None:
        """Pass everything on, also what a black hole held back: as TCP sends again what was lost."""
        self._do(self._turn(Mode.OPEN))

    def black_hole(self) -> None:
        """Accept and keep connections, and pass nothing on: neither bytes nor their ends."""
        self._do(self._turn(Mode.BLACK_HOLE))

    def reset(self) -> None:
        """Abort every connection with RST, and each new one as soon as it is accepted."""
        self._do(self._turn(Mode.RESET))

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._do(self._turn(Mode.REFUSE))

    def close(self) -> None:
        """Abort what is open and end. Raises what went wrong in the proxy itself."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TURN_LIMIT_S)
        self._loop.close()
        self._held.close()
        if self._faults:
            raise self._faults[0]

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(TURN_LIMIT_S)

    async def _turn(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.BLACK_HOLE:
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode is Mode.RESET:
            await self._abort_all()
        if mode is Mode.REFUSE:
            self._stop_listening()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=1024)

    async def _end(self) -> None:
        self._stop_listening()
        await self._abort_all()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _abort_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._mode is Mode.RESET:
            _abort(writer)
            return
        self._open.add(writer)
        task = self._loop.create_task(self._link(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def _ended(self, client: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._open.discard(client)
        self._tasks.discard(task)
        # A task that was cancelled before its first step has aborted nothing.
        _abort(client)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.append(error)

    async def _link(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """One connection, from accepting it until both ends were passed on or either was reset."""
        up, down = Queue(HELD_CHUNKS), Queue(HELD_CHUNKS)
        sent = bytearray()
        self._sent.append(sent)
        target: asyncio.StreamWriter | None = None

        def note_up(data: bytes) -> None:
            sent.extend(data)
            self.bytes_up += len(data)
            if not data:
                self._open.discard(client)

        def note_down(data: bytes) -> None:
            self.bytes_down += len(data)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(reader, up, note_up))
                await self._flowing.wait()
                answers, target = await asyncio.open_connection(HOST, self.target_port)
                group.create_task(self._write(up, target))
                group.create_task(self._read(answers, down, note_down))
                group.create_task(self._write(down, client))
            client.close()
            target.close()
        except* OSError:
            # One side was reset or is not there; the other is told in the same way.
            _abort(client)
        finally:
            if target is not None:
                _abort(target)

    async def _read(self, reader: asyncio.StreamReader, queue: Queue, note: Callable[[bytes], None]) -> None:
        data = b"."
        while data:
            data = await reader.read(CHUNK_BYTES)
            note(data)
            await queue.put((self._loop.time() + self.latency_s, data))

    async def _write(self, queue: Queue, writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, data = await queue.get()
            if (early_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(early_s)
            await self._flowing.wait()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST, unless the connection was closed before."""
    if writer.transport.is_closing():
        return
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    writer.transport.abort()
