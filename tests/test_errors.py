"""Every refusal becomes a problem answer that says what to change, and a failure shows nothing of the inside."""

from __future__ import annotations

import msgspec
import pytest

from app import errors, wire
from app.errors import ProblemKind, ProblemTable, problem_answer

FAULT = wire.Fault("/business/name", "required, but missing")

CASES: list[tuple[Exception, int, str]] = [
    (errors.RequestMalformed("Two Host headers were sent."), 400, "malformed-request"),
    (errors.BodyUnreadable("The body is empty."), 400, "unreadable-body"),
    (errors.NotFound("assessment 0193"), 404, "not-found"),
    (errors.MethodNotAllowed(["GET", "POST"]), 405, "method-not-allowed"),
    (errors.BodyTooSlow(10), 408, "slow-body"),
    (errors.Conflict("The stored model version is not known here."), 409, "conflict"),
    (errors.KeyBusy(), 409, "idempotency-key-busy"),
    (errors.ProfileRunning(), 409, "profile-running"),
    (errors.BodyTooLarge(1 << 20), 413, "body-too-large"),
    (errors.BatchTooLarge(1000), 413, "batch-too-large"),
    (errors.WrongContentType("text/plain"), 415, "wrong-content-type"),
    (errors.WrongContentType(None), 415, "wrong-content-type"),
    (errors.ProfileRefused([FAULT]), 422, "invalid-profile"),
    (errors.BatchRefused([FAULT]), 422, "invalid-batch"),
    (errors.ParameterRefused([FAULT]), 422, "invalid-parameter"),
    (errors.KeyReused(), 422, "idempotency-key-reused"),
    (errors.HeadersTooLarge(32768, 100), 431, "headers-too-large"),
    (errors.Unavailable("The store does not answer."), 503, "unavailable"),
    (errors.Unauthorized(), 401, "unauthorized"),
    (errors.Forbidden("keys"), 403, "forbidden"),
    (errors.KeyWider([wire.Fault("/rate", "expected at most 1/s burst 1")]), 403, "wider-key"),
    (errors.PageRefused("List it in CORS_ORIGINS."), 403, "page-refused"),
    (errors.WrongEncoding("br"), 415, "wrong-encoding"),
    (errors.BodyRefused([FAULT]), 422, "invalid-body"),
    (errors.TooManyRequests("Too many requests.", 2.5), 429, "too-many-requests"),
    (errors.Saturated(), 503, "saturated"),
    (RuntimeError("password=hunter2"), 500, "internal-error"),
]


def answered(exc: BaseException) -> tuple[int, dict[str, str], wire.Problem]:
    status, headers, body = problem_answer(exc, "req-1")
    named = {name.decode(): value.decode() for name, value in headers}
    assert len(named) == len(headers), "a header is sent twice"
    assert named["content-type"] == "application/problem+json"
    assert named["content-length"] == str(len(body))
    assert named["x-request-id"] == "req-1"
    return status, named, msgspec.json.decode(body, type=wire.Problem)


@pytest.mark.parametrize(("exc", "status", "slug"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_an_exception_is_answered_as_its_problem(exc: Exception, status: int, slug: str) -> None:
    sent, _, problem = answered(exc)
    assert (sent, problem.status, problem.type) == (status, status, f"/problems/{slug}")
    assert problem.instance == "req-1"
    assert problem.detail.endswith((".", "!"))


def test_every_row_of_the_table_has_its_case_and_its_own_slug() -> None:
    assert {type(exc) for exc, _, _ in CASES if isinstance(exc, errors.Refusal)} == set(errors.KINDS) - {Exception}
    assert len({kind.slug for kind in errors.KINDS.values()}) == len(errors.KINDS)


def test_an_unexpected_exception_shows_nothing_of_itself() -> None:
    _, _, body = problem_answer(RuntimeError("password=hunter2"), "req-1")
    assert b"hunter2" not in body
    assert b"RuntimeError" not in body


def test_a_refusal_that_the_table_does_not_know_is_a_500_without_its_text() -> None:
    class Unlisted(errors.Refusal):
        pass

    status, _, body = problem_answer(Unlisted("secret"), "req-1")
    assert status == 500
    assert b"secret" not in body


def test_faults_stand_under_errors_and_are_counted_in_the_detail() -> None:
    _, _, problem = answered(errors.ProfileRefused([FAULT, FAULT]))
    assert problem.errors == [FAULT, FAULT]
    assert "2 faults" in problem.detail


def test_no_more_than_twenty_faults_are_sent_and_the_detail_says_so() -> None:
    _, _, problem = answered(errors.ProfileRefused([FAULT] * 21))
    assert len(problem.errors) == errors.FAULT_LIMIT
    assert "the first 20" in problem.detail


def test_405_names_the_methods_in_allow() -> None:
    _, headers, problem = answered(errors.MethodNotAllowed(["GET", "POST"]))
    assert headers["allow"] == "GET, POST"
    assert "GET, POST" in problem.detail


@pytest.mark.parametrize(("asked", "sent"), [(1, "1"), (30, "30"), (0, "1")])
def test_503_says_when_to_come_back(asked: int, sent: str) -> None:
    _, headers, _ = answered(errors.Unavailable("The store does not answer.", retry_after_s=asked))
    assert headers["retry-after"] == sent


def test_exceptions_of_other_layers_join_a_table_without_changing_the_first() -> None:
    class Lost(Exception):
        pass

    class LostAgain(Lost):
        pass

    kind = ProblemKind(
        503, "store-lost", "The store is away", "Try again.", detail="Nothing was recorded.", retry_after_s=2
    )
    table = ProblemTable().extended({Lost: kind})
    status, headers, body = table.answer(LostAgain("host=10.0.0.7"), "req-1")
    problem = msgspec.json.decode(body, type=wire.Problem)
    assert (status, problem.type, problem.detail) == (503, "/problems/store-lost", "Nothing was recorded.")
    assert (b"retry-after", b"2") in headers
    assert problem_answer(LostAgain("host=10.0.0.7"), "req-1")[0] == 500


def test_a_batch_item_carries_the_problem_alone() -> None:
    problem = ProblemTable().problem(errors.ProfileRefused([FAULT]), None)
    assert (problem.status, problem.instance, problem.errors) == (422, None, [FAULT])
    assert "instance" not in msgspec.to_builtins(problem)


def test_a_callers_text_is_repeated_only_in_part() -> None:
    _, _, problem = answered(errors.WrongContentType("x" * 5000))
    assert len(problem.detail) < 160


@pytest.mark.parametrize("text", ["", "ä" * 60, "ä" * 61, "\ud800"])
def test_clipped_text_is_short_and_can_be_encoded(text: str) -> None:
    assert len(errors.clipped(text).encode()) <= 3 * 60
