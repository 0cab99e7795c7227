"""A thread with a database connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from app.store.base import StoreUnavailable

Answer = TypeVar("Answer")
Job = Callable[[sqlite3.Connection], Answer]

# After any other failure the connection is opened anew: its idea of the file may no longer be true.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT}


def result_code(fault: sqlite3.Error) -> int:
    """The primary result code, 0 when SQLite itself gave none."""
    extended: int = getattr(fault, "sqlite_errorcode", 0)
    return extended & 0xFF


class Lane:
    """A thread with a connection of its own, doing one job after another.

    Errors of SQLite become StoreUnavailable. The connection is opened anew when it broke or when another file stands
    at the path: rows written to a file that was deleted or replaced would be acknowledged and lost.
    """

    def __init__(self, name: str, path: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._jobs: SimpleQueue[tuple[Job[Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._running = False

    def start(self) -> None:
        self._running = True
        self._thread.start()

    async def stop(self) -> None:
        """Finish the jobs given, then close the connection and end the thread."""
        if self._running:
            self._running = False
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def run(self, job: Job[Answer]) -> asyncio.Future[Answer]:
        """Hand a job to the thread. Raises StoreUnavailable when the lane is not running."""
        if not self._running:
            raise StoreUnavailable("the store is not open")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        return future

    def interrupt(self) -> None:
        """End the statement that runs now, if any."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):
                connection.interrupt()

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, future = work
            answer: object = None
            error: BaseException | None = None
            try:
                answer = job(self._connected())
            except BaseException as fault:
                error = self._recover(fault)
            # The loop may be gone when the process is on its way out.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_settle, future, answer, error)
            # Nothing of a finished batch should live until the next one arrives.
            del work, job, future, answer, error
        self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        try:
            status = os.stat(self._path)
        except OSError as fault:
            self._disconnect()
            raise StoreUnavailable(f"the database file {self._path} is gone: {fault.strerror}") from fault
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self._disconnect()
            self._connection = self._connect()
            self._file = file
        return self._connection

    def _recover(self, fault: BaseException) -> BaseException:
        """Undo what the failed job began; the error to answer it with."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.rollback()
        except sqlite3.Error:
            self._disconnect()
        if not isinstance(fault, sqlite3.Error):
            return fault
        if result_code(fault) not in _PASSING:
            self._disconnect()
        failure = StoreUnavailable(f"the database did not do it: {fault}")
        failure.__cause__ = fault
        return failure

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _settle(future: asyncio.Future[Any], answer: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
