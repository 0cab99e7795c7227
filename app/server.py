"""Running the service: what must be right before a worker starts, and the server's own settings."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import math
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes, TaskImpl
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer
from rich.console import Console

from app import __version__
from app.assembly import lists_folder
from app.edge.gate import Application
from app.edge.stopping import DRAIN, mark
from app.ids import now_ms
from app.keys import first_key
from app.main import create_app, make_exporter
from app.neighbours import Tiers, make_store
from app.registry import ModelUnknown, select
from app.secrets import SecretsMissing, secrets_of
from app.settings import Loaded, Settings
from app.settings.budget import BudgetTooSmall
from app.settings.kinds import is_loopback
from app.store.base import StoreRefused, StoreUnavailable, opened
from app.store.postgres.schema import database_place
from app.store.postgres.store import START_PATIENCE_S, PostgresStore
from app.store.sqlite import SqliteStore
from app.store.trail import SYSTEM_TENANT, act
from app.telemetry.cells import Folder
from app.telemetry.lines import LineWriter
from app.telemetry.log import configure
from app.telemetry.trace import ExtraMissing
from core.model import ModelRefused

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
MODEL_SWITCHED = "model.switched"


GRANIAN_LOG = {
    "incremental": True,
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}},
}
"""The server's own log goes where everything else does, and leaves that as it is."""


class StartRefused(Exception):
    """The service cannot start as it is set up; the text says why and what to do."""


def run(loaded: Loaded) -> None:
    """Serve until told to stop. Raises StartRefused before anything is served."""
    settings = loaded.settings
    check_model(settings)
    check_tracing(settings)
    check_port(settings)
    check_lists_folder(settings)
    key_file = asyncio.run(check_store(settings))
    lines = log_to_stderr(settings)
    server = settings.server
    granian = MPServer(
        target="app.main:create_app",
        address=server.host,
        port=server.port,
        interface=Interfaces.ASGI,
        workers=server.workers,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,
        # PERF: its other mode wakes more threads for an answer (benchmarks/README.md).
        runtime_mode=RuntimeModes.st,
        http=HTTPModes.http1,
        websockets=False,
        backlog=server.backlog,
        backpressure=server.backpressure,
        http1_settings=HTTP1Settings(header_read_timeout=int(server.header_timeout * 1000)),
        log_level=LogLevels(settings.logging.level),
        log_dictconfig=GRANIAN_LOG,
        workers_kill_timeout=math.ceil(server.drain_time + server.shutdown_grace),
        respawn_failed_workers=True,
    )
    cells = Folder()
    granian.on_startup(partial(hand_on_signals, granian, cells.path))
    granian.on_startup(partial(announce_if_heard, settings, key_file))
    try:
        granian.serve(target_loader=partial(load_worker, settings, cells.path), wrap_loader=False)
    finally:
        cells.close()
        lines.close()


def load_worker(settings: Settings, cells: Path) -> Application:
    """The application, in the worker's own process. cells: the folder that the workers of the pod share."""
    _end_with_parent()
    # Until it takes requests it has none to send elsewhere; then it looks whether the others do.
    signal.signal(DRAIN, signal.SIG_IGN)
    lines = log_to_stderr(settings)
    # The end of a worker is none of the interpreter, and runs only this.
    Finalize(None, lines.close, exitpriority=0)
    return create_app(settings, cells, lines)


def hand_on_signals(granian: MPServer, shared: Path) -> None:
    """Have the workers told of what the server itself does not hand on to them: to drain, and to stop at once (SIGINT).

    shared: the folder that the workers share.
    """
    stop = signal.getsignal(signal.SIGTERM)
    parent = os.getpid()

    def hand_on(number: int, frame: FrameType | None) -> None:
        # A worker that was just forked has this handler, too.
        if os.getpid() != parent:
            return
        if number == DRAIN:
            mark(shared)
        if number != signal.SIGTERM:
            for worker in granian.wrks:
                with suppress(ProcessLookupError):
                    os.kill(worker.inner.pid, number)
        if number != DRAIN and not granian.interrupt_signal and callable(stop):
            # Once: a second signal may come while the server holds the lock that this takes.
            stop(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM, DRAIN):
        signal.signal(number, hand_on)


def log_to_stderr(settings: Settings) -> LineWriter:
    """Have all that this process logs go to stderr: for people where that is a terminal, unless the settings say."""
    chosen = settings.logging
    console = Console(stderr=True)
    as_text = chosen.format == "text" or (chosen.format == "auto" and console.is_terminal)
    return configure(chosen.level, as_text=as_text, colour=console.color_system is not None and not console.no_color)


def _end_with_parent() -> None:
    """On Linux, end when the parent is killed: an orphan would go on serving, unseen, and keep the port.

    With SIGKILL, since a worker that is still starting does not heed SIGTERM; what was acknowledged is on disk.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:
            os._exit(1)


def check_model(settings: Settings) -> None:
    """Refuse a model that cannot be used, with all its faults."""
    try:
        select(settings.model)
    except (ModelRefused, ModelUnknown) as error:
        raise StartRefused(f"the model cannot be used: {error}") from None
    except OSError as error:
        raise StartRefused(
            f"the model file {error.filename} cannot be read ({error.strerror}); check MODEL_PATH"
        ) from None


def check_tracing(settings: Settings) -> None:
    """Refuse to trace without the packages that send traces."""
    try:
        exporter = make_exporter(settings)
    except ExtraMissing as missing:
        raise StartRefused(str(missing)) from None
    if exporter is not None:
        exporter.close()


def check_port(settings: Settings) -> None:
    """Refuse an address that cannot be bound: the server itself would only say so in a worker's log."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} on {host} is in use; stop what uses it, or choose another with PORT or --port"
            else:
                why = (
                    f"{host}:{port} cannot be bound ({error.strerror}); choose another with HOST, PORT or their options"
                )
            raise StartRefused(why) from None


def check_lists_folder(settings: Settings) -> None:
    """Refuse a system on which compiled lists have no place."""
    try:
        lists_folder(settings)
    except FileNotFoundError:
        raise StartRefused(
            "no folder for temporary files can be written, where the workers share compiled lists; mount one at /tmp, "
            "or name another folder with WATCHLIST_FOLDER"
        ) from None


async def check_store(settings: Settings) -> Path | None:
    """Refuse a database that cannot be opened and written, and a service that nobody could call.

    The embedded database is made where it is not there, and in it the first key: the file that holds that key's text.
    """
    embedded = not settings.database.is_postgres
    if embedded:
        make_folder(settings.database.sqlite_file.parent)
    try:
        secrets = secrets_of(settings)
        Tiers(settings)
        async with opened(make_store(settings)) as store:
            await _check(store)
            await _note_model(settings, store)
            if not settings.auth.enabled:
                return None
            if embedded:
                return await first_key(settings, store, secrets)
            if not await store.has_key(now_ms()) and not is_loopback(settings.server.host):
                raise StartRefused(
                    "there is no key yet, so nobody could call the service; make one with "
                    "`kyb keys create --tenant default --name admin --role admin`"
                )
            return None
    except (StoreRefused, BudgetTooSmall, SecretsMissing) as refused:
        raise StartRefused(str(refused)) from None
    except OSError as error:
        raise StartRefused(f"{error.filename or settings.database.data_dir}: {error.strerror or error}") from None
    except StoreUnavailable as unavailable:
        raise StartRefused(f"the database takes no writes: {unavailable}") from None


async def _check(store: SqliteStore | PostgresStore) -> None:
    """Prove that a commit is possible; one that is slow is tried again for START_PATIENCE_S."""
    end = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return await store.check()
        except StoreUnavailable:
            if time.monotonic() >= end:
                raise
        await asyncio.sleep(0.1)


async def _note_model(settings: Settings, store: SqliteStore | PostgresStore) -> None:
    """Enter a model that was not in use before into the audit trail."""
    model = select(settings.model)
    told = act(SYSTEM_TENANT, MODEL_SWITCHED, "service", id=model.id, version=model.version, sha256=model.sha256.hex())
    last = await store.entries(SYSTEM_TENANT, act=MODEL_SWITCHED, limit=1)
    if not last or last[0].detail != told.detail:
        await store.note([told])


def make_folder(folder: Path) -> None:
    """Make the folder of the embedded database. Raises StartRefused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"the data folder {folder} cannot be made ({error.strerror}); name another with DATA_DIR or --data-dir"
        raise StartRefused(why) from None


def announce_if_heard(settings: Settings, key_file: Path | None) -> None:
    """The same as `announce`; a disk that is full is no reason not to serve."""
    with suppress(OSError):
        announce(settings, key_file)


def announce(settings: Settings, key_file: Path | None) -> None:
    """Say where the service is and how to try it. key_file: holds a key, whose text is never shown."""
    address = settings.server.url
    console = Console(highlight=False, soft_wrap=True)
    database = settings.database
    place = database_place(database.url) if database.url and database.is_postgres else database.sqlite_file
    console.print(f"kyb {__version__} on {address}, records in {place}, description at {address}/docs", markup=False)
    if not settings.auth.enabled:
        console.print("authentication is off: whoever reaches this address may do everything", markup=False)
    console.print(curl_line(address, _sent_key(settings, key_file)), markup=False)


def _sent_key(settings: Settings, key_file: Path | None) -> str:
    """The option of curl that sends the key, nothing where none is asked for."""
    if not settings.auth.enabled:
        return ""
    return f"""-H "X-API-Key: $(cat {shlex.quote(str(key_file))})" """ if key_file else '-H "X-API-Key: $KYB_KEY" '


def curl_line(address: str, sent_key: str) -> str:
    """A request that works when pasted."""
    body = (
        '{"business":{"name":"Acme Trading GmbH","jurisdiction":"DE","status":"active","incorporated_on":"2009-05-01"}}'
    )
    return f"  curl -s {address}/v1/assessments {sent_key}-H 'Content-Type: application/json' -d '{body}'"
