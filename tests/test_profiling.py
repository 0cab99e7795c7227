"""Tasks, threads, allocations and CPU time of this very process."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from app.profiling import cpu, flame, heap, stacks
from app.profiling.cpu import Beside, Frame, Refused, Samples, Within, folded
from app.profiling.heap import Heap
from app.profiling.turn import Busy, Turn

MAIN, WORK, REST = Frame("main", "app/x.py", 1), Frame("work", "app/y.py", 7), Frame("<rest>", "app/z.py", 9)
SAMPLES = Samples(Counter({(MAIN, WORK): 42, (MAIN,): 8, (REST, WORK): 10}), 2, 100, "py-spy")


async def inner_wait(event: asyncio.Event) -> None:
    await event.wait()


async def outer_wait(event: asyncio.Event) -> None:
    await inner_wait(event)


def group(text: str, what: str) -> str:
    """The one group of a text that mentions something."""
    (found,) = [part for part in text.split("\n\n") if what in part]
    return found


def busy(over: threading.Event) -> None:
    while not over.is_set():
        sum(range(1000))


@pytest.fixture
def hot() -> object:
    """A thread that does nothing but work."""
    over = threading.Event()
    thread = threading.Thread(target=busy, args=(over,), name="hot")
    thread.start()
    yield thread
    over.set()
    thread.join()


def seen(stacks: Counter[tuple[Frame, ...]], name: str) -> int:
    return sum(count for stack, count in stacks.items() if any(frame.name == name for frame in stack))


# Tasks and threads


def test_tasks_of_the_same_stack_are_one_group_down_to_what_they_wait_for() -> None:
    async def scenario() -> str:
        event = asyncio.Event()
        tasks = [asyncio.create_task(outer_wait(event)) for _ in range(30)]
        tasks.append(asyncio.create_task(outer_wait(event), name="the-last"))
        await asyncio.sleep(0)
        text = await stacks.tasks_and_threads()
        event.set()
        await asyncio.gather(*tasks)
        return text

    found = group(asyncio.run(scenario()), "inner_wait")
    lines = found.splitlines()
    assert lines[0] == "31 tasks, waits for Future: the-last"
    assert [line.split()[0] for line in lines[1:]] == ["outer_wait", "inner_wait", "Event.wait"]
    assert re.search(r"test_profiling\.py:\d+$", lines[1])


def test_what_a_task_waits_for_is_told() -> None:
    async def waits_for(task: asyncio.Task[None]) -> None:
        await task

    async def not_begun() -> None: ...

    async def scenario() -> str:
        event = asyncio.Event()
        awaited = asyncio.create_task(inner_wait(event), name="awaited")
        waiting = asyncio.create_task(waits_for(awaited))
        await asyncio.sleep(0)
        ready = asyncio.create_task(not_begun(), name="about to begin")
        text = await stacks.tasks_and_threads()
        event.set()
        await asyncio.gather(waiting, ready)
        return text

    text = asyncio.run(scenario())
    assert "waits for task awaited\n" in group(text, ".waits_for  ")
    assert "ready: about to begin" in text
    assert "1 task, running\n" in text


def test_threads_are_shown_with_their_names(hot: threading.Thread) -> None:
    text = asyncio.run(stacks.tasks_and_threads())
    assert ": hot\n" in group(text, " busy ")
    assert "MainThread" in text
    assert "by the kernel's names" in text


def test_ten_thousand_tasks_hold_nobody_up() -> None:
    async def scenario() -> tuple[str, float]:
        event = asyncio.Event()
        tasks = [asyncio.create_task(outer_wait(event)) for _ in range(10_000)]
        await asyncio.sleep(0)
        longest, over = 0.0, False

        async def beat() -> None:
            nonlocal longest
            while not over:
                began = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - began)

        beating = asyncio.create_task(beat())
        text = await stacks.tasks_and_threads()
        found, over = longest, True
        event.set()
        await asyncio.gather(beating, *tasks)
        return text, found

    text, longest_s = asyncio.run(scenario())
    assert text.count("outer_wait") == 1
    assert "10,000 tasks, waits for Future" in text
    # CPU time of one turn, which a busy neighbour does not count towards.
    assert longest_s < 0.02


# Allocations


def test_what_is_allocated_and_kept_is_found_and_nothing_stays_traced() -> None:
    kept: list[bytearray] = []

    async def scenario() -> str:
        async def allocate() -> None:
            await asyncio.sleep(0.05)
            kept.extend(bytearray(10_000) for _ in range(300))

        found, _ = await asyncio.gather(Heap(False).growth(0.3, 5), allocate())
        return found

    text = asyncio.run(scenario())
    assert not tracemalloc.is_tracing()
    line = next(line for line in text.splitlines() if "test_profiling.py" in line)
    assert line.split()[:2] == ["2.9", "MiB"]
    # A bytearray is two blocks.
    assert int(line.split()[5]) in range(600, 610)
    assert "resident" in text
    assert kept


def test_a_look_at_allocations_that_is_given_up_leaves_nothing_traced() -> None:
    async def scenario() -> None:
        look = asyncio.create_task(Heap(False).growth(30, 5))
        await asyncio.sleep(0)
        assert tracemalloc.is_tracing()
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        assert not tracemalloc.is_tracing()

    asyncio.run(scenario())


def test_traced_from_the_start_what_was_there_before_is_shown_beside_what_is_new() -> None:
    always = Heap(True)
    try:
        kept = [bytearray(10_000) for _ in range(300)]
        text = asyncio.run(always.growth(0.05, 1000))
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert kept
    line = next(line for line in text.splitlines() if "test_profiling.py" in line and " MiB" in line)
    assert line.split()[:4] == ["2.9", "MiB", "0", "B"]
    assert "since the start" in text


def test_places_that_are_too_many_are_summed_up() -> None:
    tracemalloc.start()
    many = {number: bytearray(number) for number in range(50)}
    others = [object() for _ in range(50)]
    found = heap._compared(tracemalloc.take_snapshot(), tracemalloc.Snapshot([], 1))
    tracemalloc.stop()
    assert many
    assert others
    assert "other places" in list(heap._lines(found, 1))[-1]


# CPU time


def test_py_spy_finds_the_function_that_is_hot(hot: threading.Thread) -> None:
    samples = asyncio.run(cpu.sampled(1))
    assert samples.sampler == "py-spy"
    assert seen(samples.stacks, "busy") > 20
    (frame,) = {frame for stack in samples.stacks for frame in stack if frame.name == "busy"}
    assert frame.file.endswith("test_profiling.py")


def test_where_py_spy_cannot_be_a_thread_samples(
    hot: threading.Thread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "Beside", lambda: Beside(Path("/nowhere/py-spy")))
    samples = asyncio.run(cpu.sampled(1))
    assert samples.sampler == "a thread of the process"
    assert seen(samples.stacks, "busy") > 5
    # What only waits is not counted.
    assert seen(samples.stacks, "busy") > 0.5 * sum(samples.stacks.values())
    assert "/nowhere/py-spy" in caplog.text


def test_what_py_spy_says_when_it_is_refused_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "py-spy"
    program.write_text("#!/bin/sh\necho 'Error: Operation not permitted (os error 1)' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(Refused, match="Operation not permitted"):
        Beside(program).take(1)


def test_stacks_that_could_not_be_read_are_no_profile(tmp_path: Path) -> None:
    program = tmp_path / "py-spy"
    program.write_text("#!/bin/sh\necho 'py-spy> Wrote raw flamegraph data. Samples: 0 Errors: 99'\n")
    program.chmod(0o755)
    with pytest.raises(Refused, match="99"):
        Beside(program).take(1)


def test_py_spy_is_not_told_what_the_environment_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_HASH_SECRET", "a secret")
    program = tmp_path / "py-spy"
    program.write_text('#!/bin/sh\n/usr/bin/env | /bin/grep -c SECRET > "${0%/*}/found"\nexit 0\n')
    program.chmod(0o755)
    Beside(program).take(1)
    assert (tmp_path / "found").read_text().strip() == "0"


@pytest.mark.parametrize("sampler", [Beside, Within])
def test_a_profile_that_is_given_up_ends_at_once(sampler: type[Beside] | type[Within]) -> None:
    async def scenario() -> float:
        work = asyncio.create_task(cpu._in_thread(sampler(), 60))
        await asyncio.sleep(0.3)
        work.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await work
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 5


def test_folded_lines_are_read_as_stacks() -> None:
    text = (
        "main (app/x.py:1);f.<locals>.g (a b.py:7) 42\nmain (app/x.py:1) 8\nbuilt-in 1\n"
        "py-spy> Wrote raw flamegraph data to '/dev/stdout'. Samples: 51 Errors: 0\n\n"
    )
    assert folded(text) == {
        (MAIN, Frame("f.<locals>.g", "a b.py", 7)): 42,
        (MAIN,): 8,
        (Frame("built-in", "", 0),): 1,
    }


# What is made of it


def test_a_speedscope_file_holds_every_stack_with_its_time() -> None:
    made = json.loads(flame.speedscope(SAMPLES))
    frames, (profile,) = made["shared"]["frames"], made["profiles"]
    assert made["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert (profile["type"], profile["unit"], profile["endValue"]) == ("sampled", "seconds", 0.6)
    named = [[frames[place]["name"] for place in stack] for stack in profile["samples"]]
    assert dict(zip(map(tuple, named), profile["weights"], strict=True)) == {
        ("main", "work"): 0.42,
        ("main",): 0.08,
        ("<rest>", "work"): 0.1,
    }


def test_the_page_is_whole_in_itself_and_its_policy_lets_nothing_else_in() -> None:
    page = flame.page(SAMPLES)
    html = page.html.decode()
    assert re.findall(r"(?:src|href)=|url\(|@import|https?://", html) == []
    assert page.policy.startswith(b"default-src 'none'; style-src 'sha256-")
    assert b"unsafe" not in page.policy
    data = re.search(r'id="data">(.*?)</script>', html)
    assert data is not None
    # A name cannot end the element that holds it.
    assert "<" not in data[1]
    told = json.loads(data[1])
    names = [frame[0] for frame in told["frames"]]

    def nodes(node: list[object]) -> object:
        place, count, children = node
        return names[place], count, [nodes(child) for child in children]  # type: ignore[index, attr-defined]

    assert nodes(told["root"]) == (
        "all",
        60,
        [("main", 50, [("work", 42, [])]), ("<rest>", 10, [("work", 10, [])])],
    )


# One at a time


def test_a_second_measurement_is_told_when_the_first_is_over() -> None:
    now = 100.0
    turn = Turn(lambda: now)
    with turn.take(10):
        now = 103.0
        with pytest.raises(Busy) as busy, turn.take(1):
            pytest.fail("two at a time")
        assert busy.value.free_in_s == 7.0
        now = 999.0
        with pytest.raises(Busy) as late, turn.take(1):
            pytest.fail("two at a time")
        assert late.value.free_in_s == 0.0
    with turn.take(1):
        pass
