"""What is logged, as lines: one JSON object each, or words for people.

Modules log with the standard library. `extra=event("breaker_changed", breaker="redis")` gives a line its event and its
fields; one without is known by its module. No line holds what a caller sent: of an exception nobody expected it has the
type and where it was raised, never its message, which may quote a profile.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from app.telemetry.course import current
from app.telemetry.lines import LineWriter

OURS = ("app", "core", "_granian", "py.warnings")
"""Loggers whose messages are known to hold no personal data. Of another library's only the template is told."""
STDERR = 2
MESSAGE_CHARS = 1000
FRAMES = 12
CAUSES = 4

_COLOURS = {"critical": 31, "error": 31, "warning": 33, "info": 32, "debug": 36}
"""ANSI codes."""
_WORDS = ("time", "level", "event", "message", "stack")
"""Of a line for people, what has its own place in it."""

Told = dict[str, Any]
Render = Callable[[Told], bytes]

log = logging.getLogger(__name__)


def event(name: str, /, **fields: object) -> dict[str, Any]:
    """What a logging call takes as `extra`. name: a short word that stays the same.  fields: for machines."""
    return {"event": name, "fields": fields}


def configure(level: str, *, as_text: bool, colour: bool = False, descriptor: int = STDERR) -> LineWriter:
    """Have all that this process logs written to a descriptor from now on, and what nobody caught as well."""
    render = (lambda told: text_line(told, colour)) if as_text else json_line

    def dropped(count: int) -> bytes:
        record = log.makeRecord(log.name, logging.WARNING, "", 0, "lines found no room and were dropped", (), None)
        return render(_head(record, "log_lines_dropped") | {"message": record.msg, "lines": count})

    writer = LineWriter(descriptor, dropped)
    chosen = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [LineHandler(writer, render)]
    # What other libraries say in passing is no business of the operator's.
    root.setLevel(max(chosen, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(chosen)
    logging.captureWarnings(True)
    # PERF: a line costs half without them, and none tells them (the logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    threading.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    return writer


class LineHandler(logging.Handler):
    """Hands every record to a writer as one line."""

    def __init__(self, writer: LineWriter, render: Render) -> None:
        super().__init__()
        self._writer = writer
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        # In an outage there are thousands a second, and one that finds no room is not worth making.
        if not self._writer.has_room():
            return
        try:
            line = self._render(told_of(record))
        except Exception as error:
            # The standard library would write what was to be logged to stderr, and wait for that.
            told = _head(record, "log_failed") | {"message": str(record.msg), "error": type(error).__name__}
            line = self._render(told)
        self._writer.put(line)


def told_of(record: logging.LogRecord) -> Told:
    """The members of a record's line, in order."""
    told = _head(record, getattr(record, "event", "") or record.name.removeprefix("app.").removeprefix("_"))
    if record.msg:
        told["message"] = _message(record)
    told |= getattr(record, "fields", {})
    course = current.get()
    if course.request is not None:
        told.setdefault("request_id", course.request.id.decode("ascii"))
    if course.trace is not None:
        told.setdefault("trace_id", course.trace.trace_id)
    if record.exc_info and record.exc_info[1] is not None:
        told.setdefault("error", type(record.exc_info[1]).__name__)
        told["stack"] = list(_stack(record.exc_info[1]))
    return told


def json_line(told: Told) -> bytes:
    """One JSON object and the end of the line."""
    return orjson.dumps(told, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def text_line(told: Told, colour: bool) -> bytes:
    """The same for people; only the frames of an exception stand on lines of their own."""
    level = told["level"]
    shown = f"{level.upper():8}"
    if colour:
        shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
    words = [told["time"].astimezone().strftime("%H:%M:%S.%f")[:-3], shown, told["event"]]
    if "message" in told:
        words.append(_printable(told["message"]))
    words += [f"{name}={_word(value)}" for name, value in told.items() if name not in _WORDS]
    frames = [f"    {_printable(frame)}" for frame in told.get("stack", ())]
    return "\n".join([" ".join(words), *frames, ""]).encode("utf-8", "backslashreplace")


def _head(record: logging.LogRecord, named: str) -> Told:
    return {
        "time": datetime.fromtimestamp(record.created, UTC),
        "level": record.levelname.lower(),
        "event": named,
        "logger": record.name,
        "pid": os.getpid(),
    }


def _message(record: logging.LogRecord) -> str:
    """Its first line: what a database or a library adds below it quotes values."""
    is_ours = record.name.partition(".")[0] in OURS or record.name in OURS
    text = record.getMessage() if is_ours else str(record.msg)
    return text.partition("\n")[0][:MESSAGE_CHARS]


def _stack(error: BaseException) -> Iterator[str]:
    """Types and frames of an exception and of what it came of, the innermost frame last."""
    told: BaseException | None = error
    for _ in range(CAUSES):
        if told is None:
            return
        yield type(told).__name__
        yield from list(_frames(told.__traceback__))[-FRAMES:]
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)


def _frames(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        frame = traceback.tb_frame
        yield f"{frame.f_globals.get('__name__', '?')}:{traceback.tb_lineno} {frame.f_code.co_name}"
        traceback = traceback.tb_next


def _word(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return orjson.dumps(value, default=str).decode()
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _uncaught(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        log.error("a thread ended by an exception", exc_info=told.exc_value, extra=event("thread_failed"))


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    log.error("an exception went nowhere", exc_info=told.exc_value, extra=event("exception_unraised"))
