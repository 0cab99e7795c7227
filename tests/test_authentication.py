"""Who gets in: a key that works, and nobody who can tell from the answer why another one does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
from databases import Postgres, Valkey, migrated
from service import KEY, Service, named, serving, wait_until

from app.credentials import mint
from app.ids import now_ms
from app.keys.ring import FRESH_S


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = "auth:\n  failures: unlimited\n"
    with serving(tmp_path_factory.mktemp("house"), config) as service:
        yield service


def refusals(service: Service) -> dict[str, dict[str, str]]:
    """Every way not to get in, as headers."""
    revoked = service.new_key("admin", revoked_ms=now_ms() - 1000)
    expired = service.new_key("admin", expires_ms=now_ms() - 1000)
    elsewhere = service.new_key("admin", networks=("192.0.2.0/24",))
    return {
        "none": {},
        "empty": {"X-API-Key": ""},
        "malformed": {"X-API-Key": "kyb_live_short"},
        "mistyped": {"X-API-Key": KEY[:-1] + ("a" if KEY[-1] != "a" else "b")},
        "unknown": {"X-API-Key": mint("test").text},
        "revoked": {"X-API-Key": revoked},
        "expired": {"X-API-Key": expired},
        "from elsewhere": {"X-API-Key": elsewhere},
        "another secret": {"X-API-Key": mint("test").text[:21] + KEY[21:]},
        "basic": {"Authorization": "Basic YWRtaW46YWRtaW4="},
        "bearer without a key": {"Authorization": "Bearer"},
        "both": {"Authorization": f"Bearer {KEY}", "X-API-Key": KEY},
        "huge": {"X-API-Key": "k" * 20_000},
    }


def test_every_refusal_is_alike(house: Service) -> None:
    client = house.client(None)
    answers = {}
    for name, headers in refusals(house).items():
        answer = client.get("/v1/assessments", {**headers, "X-Request-ID": "same"})
        assert answer.status == 401, (name, answer)
        answers[name] = ({n: v for n, v in answer.headers.items() if n != "date"}, answer.body)
    assert all(answer == answers["none"] for answer in answers.values())
    assert answers["none"][0]["www-authenticate"].startswith("Bearer")
    client.close()


def test_every_refusal_takes_the_same_time(house: Service) -> None:
    client = house.client(None)
    told = refusals(house)
    took: dict[str, list[float]] = {name: [] for name in told}
    for _ in range(9):
        for name, headers in told.items():
            start = time.perf_counter()
            assert client.get("/v1/assessments", headers).status == 401
            took[name].append(time.perf_counter() - start)
    # Each waits for the same moment after it came: what was looked up before it is not to be seen.
    medians = {name: median(times) for name, times in took.items()}
    assert min(medians.values()) >= 0.02
    assert max(medians.values()) - min(medians.values()) < 0.01, medians
    client.close()


@pytest.mark.parametrize("header", ["X-API-Key", "Bearer", "bearer", "ApiKey"])
def test_a_key_is_taken_either_way(house: Service, header: str) -> None:
    client = house.client(None)
    headers = {"X-API-Key": KEY} if header == "X-API-Key" else {"Authorization": f"{header} {KEY}"}
    assert client.get("/v1/assessments", headers).status == 200
    client.close()


def test_a_key_of_a_network_works_from_there(house: Service) -> None:
    client = house.client(house.new_key("viewer", networks=("127.0.0.0/8", "::1/128")))
    assert client.get("/v1/assessments").status == 200
    client.close()


def test_an_expiring_key_stops_when_its_time_is_over(house: Service) -> None:
    end_ms = now_ms() + 1500
    client = house.client(house.new_key("viewer", expires_ms=end_ms))
    assert client.get("/v1/assessments").status == 200
    wait_until(lambda: client.get("/v1/assessments").status == 401, "the key expired")
    assert now_ms() - end_ms < 1000
    client.close()


def test_refused_logins_are_limited_by_address_and_a_known_key_is_not(tmp_path: Path) -> None:
    config = "auth:\n  failures: 1/min burst 5\nserver:\n  trusted_proxies: 127.0.0.1\n"
    with serving(tmp_path, config) as service:
        guesser, known = service.client(None), service.client()
        assert known.get("/v1/assessments").status == 200

        def guess(address: str) -> int:
            headers = {"X-API-Key": mint("test").text, "X-Forwarded-For": address}
            answer = guesser.get("/v1/assessments", headers)
            assert answer.status != 429 or int(answer.headers["retry-after"]) >= 1
            return answer.status

        assert [guess("192.0.2.1") for _ in range(7)] == [401] * 5 + [429] * 2
        assert guess("192.0.2.2") == 401
        assert guess("192.0.2.99, 192.0.2.1") == 429, "the last address counts, whatever stands before it"
        assert known.get("/v1/assessments", {"X-Forwarded-For": "192.0.2.1"}).status == 200
        # Also once it has to be looked up again.
        time.sleep(FRESH_S + 0.1)
        assert guess("192.0.2.1") == 429
        assert known.get("/v1/assessments", {"X-Forwarded-For": "192.0.2.1"}).status == 200


def test_a_forwarded_address_of_anybody_else_is_not_believed(tmp_path: Path) -> None:
    with serving(tmp_path, "auth:\n  failures: 1/min burst 3\n") as service:
        guesser = service.client(None)
        told = [
            guesser.get("/v1/assessments", {"X-Forwarded-For": f"192.0.2.{i}", "Forwarded": f"for=192.0.2.{i}"}).status
            for i in range(5)
        ]
        assert told == [401] * 3 + [429] * 2


def test_refused_logins_are_in_the_audit_trail_with_their_address(house: Service) -> None:
    house.client(mint("test").text).get("/v1/keys")
    auditor = house.client(house.new_key("auditor", ""))

    def told() -> bool:
        items = auditor.get("/v1/audit", act="login.refused").json["items"]
        return bool(items) and all(item["detail"]["address"] == "127.0.0.1" for item in items)

    wait_until(told, "the refused login is in the trail")
    auditor.close()


def test_a_key_revoked_in_one_pod_stops_working_in_the_other(
    postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    url = migrated(postgres.create_database())
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(serving(tmp_path / name, DATABASE_URL=url, REDIS_URL=valkey.url(2)))
            for name in ("one", "other")
        )
        text = one.new_key("viewer")
        user, admin = other.client(text), one.client()
        assert user.get("/v1/assessments").status == 200
        start = time.monotonic()
        assert admin.send("DELETE", f"/v1/keys/{text[9:21]}").status == 200
        wait_until(lambda: user.get("/v1/assessments").status == 401, "the other pod heard of it")
        assert time.monotonic() - start < 5.0


def test_a_key_revoked_without_redis_stops_working_within_five_seconds(postgres: Postgres, tmp_path: Path) -> None:
    url = migrated(postgres.create_database())
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(tmp_path / n, DATABASE_URL=url)) for n in ("one", "other"))
        text = one.new_key("assessor")
        user, admin = other.client(text), one.client()
        assert user.assess(named("Acme Trading GmbH")).status == 201
        start = time.monotonic()
        assert admin.send("DELETE", f"/v1/keys/{text[9:21]}").status == 200
        wait_until(lambda: user.get("/v1/assessments").status == 401, "the other pod looked again")
        assert time.monotonic() - start < 5.0
