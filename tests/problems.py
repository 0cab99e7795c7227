"""What the tests of wrong requests share: the problem that an answer must be, and its faults."""

from __future__ import annotations

from service import Answer, Json


def problem(answer: Answer, status: int, kind: str) -> Json:
    """The problem that an answer must be, with every member of RFC 9457; returned for its words and faults."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json
    assert set(told) - {"errors"} == {"type", "title", "status", "detail", "instance"}
    assert (told["type"], told["status"]) == (f"/problems/{kind}", status)
    assert told["instance"] == answer.headers["x-request-id"]
    assert told["detail"].endswith((".", "!"))
    assert told["title"]
    for fault in told.get("errors", []):
        assert set(fault) == {"pointer", "detail"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
        assert fault["detail"]
    return told


def faults(answer: Answer, kind: str = "invalid-profile") -> dict[str, str]:
    told = problem(answer, 422, kind)["errors"]
    found = {fault["pointer"]: fault["detail"] for fault in told}
    assert len(found) == len(told)
    return found
