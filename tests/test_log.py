"""Log lines: what is in them, what never is, and a log that nobody can write to."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service import wait_until

from app.telemetry import log as log_module
from app.telemetry.course import Course, current, unmarked
from app.telemetry.lines import LineWriter
from app.telemetry.log import LineHandler, configure, event, json_line, text_line, told_of
from app.telemetry.trace import Tracing

NAME = "Acme Trading GmbH"


def record(message: str, *args: object, name: str = "app.part", **more: Any) -> logging.LogRecord:
    return logging.getLogger(name).makeRecord(
        name, logging.WARNING, "file.py", 1, message, args, more.pop("exc_info", None), extra=more
    )


def line(*args: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json_line(told_of(record(*args, **more))))
    return found


def failure() -> Any:
    """The exc_info of an exception whose messages name a business, as those of libraries may."""
    try:
        try:
            {}[NAME]
        except KeyError as error:
            raise ValueError(f"{NAME} is no number") from error
    except ValueError:
        return sys.exc_info()


def test_a_line_is_one_json_object() -> None:
    told = line("the breaker %s is open", "redis\n", **event("breaker_changed", breaker="redis", now="open"))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warning",
        "event": "breaker_changed",
        "logger": "app.part",
        "pid": os.getpid(),
        "message": "the breaker redis",
        "breaker": "redis",
        "now": "open",
    }
    assert line("plain")["event"] == "part"
    assert json_line({"of": {Path("a"), 1} and Path("a")}).endswith(b"\n")


def test_a_line_of_a_request_says_which() -> None:
    class Asked:
        id, method, headers = b"request-7", "GET", {b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"}

    token = current.set(Course(unmarked(), Asked(), Tracing()))  # type: ignore[arg-type]
    try:
        told = line("something")
    finally:
        current.reset(token)
    assert (told["request_id"], told["trace_id"]) == ("request-7", "a" * 32)
    assert "request_id" not in line("something")


def test_of_an_exception_there_are_types_and_frames_and_no_words() -> None:
    told = line("it failed", exc_info=failure())
    assert told["error"] == "ValueError"
    assert [frame.partition(":")[0] for frame in told["stack"]] == ["ValueError", "test_log", "KeyError", "test_log"]
    for text in (json_line(told_of(record("it failed", exc_info=failure()))), json.dumps(told).encode()):
        assert NAME.encode() not in text


def test_of_another_library_the_template_is_told_alone() -> None:
    assert line("cannot parse %r", NAME, name="aiohttp.client")["message"] == "cannot parse %r"
    assert line(f"never retrieved\nfuture: <{NAME}>", name="asyncio")["message"] == "never retrieved"
    assert line("database: %s", f"no\nDETAIL: {NAME}")["message"] == "database: no"


def test_a_line_for_people_stays_one_line() -> None:
    told = told_of(record("a\x1b[31m\tb", **event("odd", text="two words", more={"a": 1}, exc="x\ny")))
    text = text_line(told, colour=False).decode()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "WARNING  odd a\\x1b[31m\\tb" in text
    assert "text='two words' more={\"a\":1} exc='x\\ny'" in text
    assert "\x1b[33mWARNING" in text_line(told, colour=True).decode()
    stacked = text_line(told_of(record("it failed", exc_info=failure())), colour=False).decode().splitlines()
    assert [row[:4] for row in stacked[1:]] == ["    "] * 4


def test_a_call_that_is_wrong_is_said_and_hurts_nobody() -> None:
    lines: list[bytes] = []

    class Kept:
        def has_room(self) -> bool:
            return True

        put = lines.append

    kept: Any = Kept()
    LineHandler(kept, json_line).handle(record("%d too %s", NAME))
    [told] = map(json.loads, lines)
    assert (told["event"], told["message"], told["error"]) == ("log_failed", "%d too %s", "TypeError")


@contextmanager
def configured(descriptor: int, **more: Any) -> Iterator[LineWriter]:
    """The whole process logs to a descriptor; afterwards it is as before."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (threading.excepthook, sys.unraisablehook)
    told = {name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")}
    writer = configure("debug", as_text=False, descriptor=descriptor, **more)
    try:
        yield writer
    finally:
        writer.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in log_module.OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(False)
        for name, value in told.items():
            setattr(logging, name, value)
        threading.excepthook, sys.unraisablehook = hooks


def test_what_nobody_caught_is_logged_without_its_words(tmp_path: Path) -> None:
    def broken() -> None:
        raise ValueError(NAME)

    class Leaving:
        def __del__(self) -> None:
            raise KeyError(NAME)

    with (tmp_path / "log").open("wb") as file, configured(file.fileno()):
        thread = threading.Thread(target=broken)
        thread.start()
        thread.join()
        Leaving()
    text = (tmp_path / "log").read_text()
    assert [json.loads(row)["event"] for row in text.splitlines()] == ["thread_failed", "exception_unraised"]
    assert NAME not in text


def test_other_libraries_are_heard_from_warnings_on(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file, configured(file.fileno()):
        for name in ("app.part", "aiohttp.access"):
            logging.getLogger(name).debug("in passing")
        logging.getLogger("_granian.serve").info("Started worker-1")
    told = [json.loads(row) for row in (tmp_path / "log").read_text().splitlines()]
    assert [(one["event"], one["logger"]) for one in told] == [
        ("part", "app.part"),
        ("granian.serve", "_granian.serve"),
    ]


def counted(dropped: int) -> bytes:
    return b"dropped %d\n" % dropped


def is_writable(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(0))


def test_nobody_waits_for_a_pipe_that_is_full() -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing, counted, max_lines=50)
    text = b"x" * 999 + b"\n"
    sent = 0
    # Comes back although the pipe takes nothing any more.
    while writer.dropped < 1000 or is_writable(writing):
        writer.put(text)
        sent += 1
    dropped = writer.dropped
    received = b""
    while received.count(text) < sent - dropped or b"dropped" not in received:
        received += os.read(reading, 65_536)
    assert sum(int(row.split()[1]) for row in received.splitlines() if row.startswith(b"dropped")) == dropped
    assert received.count(text) == sent - dropped
    writer.put(b"after\n")
    wait_until(lambda: b"after\n" in os.read(reading, 65_536), "the next line is written")
    writer.close()
    os.close(reading)
    os.close(writing)


def test_lines_of_several_processes_stay_whole_in_a_pipe_that_is_read_slowly() -> None:
    reading, writing = os.pipe()
    writers = [LineWriter(writing, counted) for _ in range(4)]
    for number in range(2000):
        for place, writer in enumerate(writers):
            writer.put(b"%d-%04d-%s\n" % (place, number, b"x" * (number % 300)))
    received = b""
    while received.count(b"\n") < 8000:
        received += os.read(reading, 1000)
    rows = received.splitlines()
    assert all(re.fullmatch(rb"\d-\d{4}-x*", row) and len(row) == 7 + int(row[2:6]) % 300 for row in rows)
    for writer in writers:
        writer.close()
    os.close(reading)
    os.close(writing)


def test_the_end_does_not_wait_for_a_pipe_that_is_full() -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing, counted, max_lines=1000)
    for _ in range(500):
        writer.put(b"x" * 1000)
    writer.close(timeout_s=0.05)
    writer.put(b"too late")
    assert writer.dropped == 1
    os.close(reading)
    os.close(writing)


def test_lines_that_a_full_disk_refuses_are_counted() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LineWriter(full.fileno(), counted)
        for _ in range(3):
            writer.put(b"line\n")
        wait_until(lambda: writer.dropped == 3, "all are counted")
        writer.close()


def test_a_line_that_broke_off_does_not_swallow_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.write
    answers = iter([lambda fd, data: real(fd, data[:3]), lambda fd, data: (_ for _ in ()).throw(OSError(28, "full"))])

    def write(descriptor: int, data: Any) -> int:
        answer: Any = next(answers, real)
        return int(answer(descriptor, bytes(data)))

    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr("app.telemetry.lines.os.write", write)
        writer = LineWriter(file.fileno(), counted)
        writer.put(b"broken\n")
        wait_until(lambda: writer.dropped == 1, "it broke off")
        writer.put(b"whole\n")
        writer.close()
    assert (tmp_path / "log").read_bytes() == b"bro\nwhole\ndropped 1\n"


def test_a_descriptor_that_does_not_block_gets_everything() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    writer = LineWriter(writing, counted)
    for _ in range(300):
        writer.put(b"x" * 999 + b"\n")
    received = 0
    while received < 300_000:
        received += len(os.read(reading, 4096))
    assert writer.dropped == 0
    writer.close()
    os.close(reading)
    os.close(writing)
