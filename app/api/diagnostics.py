"""The operations below /debug/pprof: what a running process is doing."""

from __future__ import annotations

from app import errors, queries
from app.api.operation import Answer, Json, Operation

WORKER: Json = {
    "X-Worker-Pid": {
        "description": "the process that was measured: of several workers, the one that answers",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
}
_ONE_AT_A_TIME = (
    " One measurement at a time: while another runs, 409 with a Retry-After that says when it will be over. It ends "
    "when its caller goes away. It waits neither for a place nor for the deadline of requests."
)

DEBUG_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "get",
        "/debug/pprof/goroutine",
        "show_tasks",
        "Debug",
        "Tasks and threads",
        "Every asyncio task and every thread with its stack and what it waits for, equal ones together, as text.",
        (Answer(200, "The stacks", {"type": "string"}, ("X-Worker-Pid",), "text/plain"),),
    ),
    Operation(
        "get",
        "/debug/pprof/heap",
        "profile_heap",
        "Debug",
        "Allocations",
        "What was allocated within `seconds` and is still there, by file and line, most first, as text. With "
        "`monitoring.trace_allocations` everything since the start is traced, and shown beside it." + _ONE_AT_A_TIME,
        (Answer(200, "The allocations", {"type": "string"}, ("X-Worker-Pid",), "text/plain"),),
        query=queries.HeapQuery,
        problems=(errors.ProfileRunning,),
    ),
    Operation(
        "get",
        "/debug/pprof/profile",
        "profile_cpu",
        "Debug",
        "CPU profile",
        "Stacks of Python's threads, sampled a hundred times a second: as a page with a flame graph, or as a file for "
        "speedscope.app." + _ONE_AT_A_TIME,
        (
            Answer(200, "The profile", {"type": "string"}, ("X-Worker-Pid",), "text/html"),
            Answer(200, "The profile", {"type": "object", "required": ["profiles"]}, ("X-Worker-Pid",)),
        ),
        query=queries.ProfileQuery,
        problems=(errors.ProfileRunning,),
    ),
)
