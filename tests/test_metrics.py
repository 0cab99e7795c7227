"""What /metrics says over HTTP after traffic that is known, over all workers of a pod."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from databases import Postgres, Valkey
from outage import prepared
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from screened import list_file, party
from service import KEY, Answer, Client, Crowd, Service, environment, example, named, serving, unique, wait_until

from app import __version__
from app.telemetry import catalogue, process
from app.telemetry.catalogue import METRICS
from core.model import DECISIONS, LEVELS

MODEL = "kyb@1.1.0"
Labels = Mapping[str, str]


class Scrape:
    """What one reading of /metrics told."""

    def __init__(self, client: Client) -> None:
        answer = client.get("/metrics")
        assert answer.status == 200, answer
        self.text = answer.body.decode()
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }
        self.names = {line.split()[2] for line in self.text.splitlines() if line.startswith("# TYPE")}

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels."""
        wanted = labels.items()
        return sum(
            value for (told, held), value in self.samples.items() if told == name and wanted <= dict(held).items()
        )

    def label(self, name: str, label: str) -> set[str]:
        """The values that a label has."""
        return {dict(held)[label] for (told, held) in self.samples if told == name}


class Provider(http.server.BaseHTTPRequestHandler):
    """A provider that knows every company, but for those it has an error for."""

    def do_GET(self) -> None:
        body = json.dumps({"company": {"cases": 0}}).encode()
        self.send_response(500 if "bad" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@contextmanager
def provided() -> Iterator[str]:
    """The settings of a provider that runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield (
                f"providers:\n  registry:\n    kind: http_json\n    url: http://127.0.0.1:{server.server_port}/"
                "{business.registration_number}\n    facts: {litigation_count: /company/cases}\n"
            )
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def pod(postgres: Postgres, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with provided() as provider:
        settings = {"DATABASE_URL": prepared(postgres), "REDIS_URL": valkey.url(2)}
        with serving(tmp_path_factory.mktemp("pod"), provider, **settings) as service:
            yield service


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        yield service


OF_POSTGRES_AND_REDIS = {one.name for one in METRICS if one.name.startswith(("pool_", "breaker_", "retr", "redis_"))}
OF_PROVIDERS = {one.name for one in METRICS if one.name.startswith("provider_")}


def test_every_metric_is_there(pod: Service, tmp_path: Path) -> None:
    every = {one.name for one in METRICS}
    client = pod.client()
    traffic(client)
    client.recorded(named("Told Ltd", registration_number="HRB 1"))
    wait_until(lambda: "gc_pause_seconds" in Scrape(client).names, "the collector ran")
    assert Scrape(client).names >= every - {catalogue.REDIS_ERRORS.name, catalogue.LIST_AGE.name} - LISTED
    with serving(tmp_path) as embedded:
        alone = embedded.client()
        traffic(alone)
        found = Scrape(alone)
        assert every - OF_POSTGRES_AND_REDIS - OF_PROVIDERS <= found.names
        assert not found.names & (OF_POSTGRES_AND_REDIS | OF_PROVIDERS)


LISTED = {catalogue.LIST_AGE.name, catalogue.LIST_ENTRIES.name, catalogue.SCREENING_HITS.name}
"""Of lists, which an empty PostgreSQL has none of."""


def traffic(client: Client) -> None:
    """A little of everything."""
    made = client.recorded(example("listed-trader"))
    client.assess(named("Dry Ltd"), dry_run=True)
    assert client.get(f"/v1/assessments/{made['id']}").status == 200
    assert client.get("/nowhere").status == 404
    assert client.send("GET", "/v1/assessments", None, {"X-API-Key": "wrong"}).status == 401


def test_requests_and_problems_are_counted_by_route(embedded: Service) -> None:
    client = embedded.client()
    viewer, slow = embedded.client(embedded.new_key("viewer")), embedded.client(embedded.new_key(tier=None, rate="1/h"))
    before = Scrape(client)
    id = client.recorded(named("Acme Ltd"))["id"]
    for _ in range(3):
        assert client.get(f"/v1/assessments/{id}").status == 200
    assert client.send("HEAD", f"/v1/assessments/{id}").status == 200
    assert client.assess({"business": {}}).status == 422
    assert client.assess(b"{").status == 400
    for path in ("/nowhere", "/v1/assessments/x/y/z", f"/v1/{unique('secret')}"):
        assert client.get(path).status == 404
    for method in ("BREW", "PROPFIND"):
        assert client.send(method, "/v1/assessments").status in (404, 405, 501)
    assert client.get("/v1/assessments", {"X-API-Key": "wrong"}).status == 401
    assert viewer.assess(named("Acme Ltd")).status == 403
    assert [slow.get("/v1/models").status for _ in range(3)] == [200, 429, 429]
    after = Scrape(client)

    def more(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    requests = "http_server_request_duration_seconds_count"
    one, many = "/v1/assessments/{id}", "/v1/assessments"
    assert more(requests, method="GET", route=one, status="200") == 3
    assert more(requests, method="HEAD", route=one, status="200") == 1
    assert more(requests, method="POST", route=many, status="201") == 1
    assert more(requests, method="POST", route=many, status="422") == 1
    assert more(requests, method="POST", route=many, status="400") == 1
    assert more(requests, method="POST", route=many, status="403") == 1
    assert more(requests, method="GET", route=many, status="401") == 1
    assert more(requests, method="GET", route="/v1/models", status="429") == 2
    assert more(requests, method="GET", route="unmatched", status="404") == 3
    assert more(requests, method="_OTHER") == 2
    assert more(requests, method="GET", route="/metrics", status="200") == 1
    assert after.label(requests, "method") <= {"GET", "HEAD", "POST", "_OTHER"}
    assert after.total("http_server_request_duration_seconds_bucket", le="+Inf") == after.total(requests)
    errors = "http_server_errors_total"
    assert more(errors, route="unmatched", kind="not-found") == 3
    assert more(errors, route=many, kind="unauthorized") == 1
    assert more(errors, route=many, kind="forbidden") == 1
    assert more(errors, route="/v1/models", kind="too-many-requests") == 2
    assert more(errors) == sum(
        more(requests, status=status) for status in ("400", "401", "403", "404", "405", "422", "429", "501")
    )
    rejected = {reason: more("http_server_rejections_total", reason=reason) for reason in ("key", "permission", "rate")}
    assert rejected == {"key": 1, "permission": 1, "rate": 2}
    # The one that asks is still under way.
    assert after.total("http_server_requests_in_flight") == 1


def test_assessments_are_counted_by_what_they_came_to_once_they_are_on_record(embedded: Service) -> None:
    client = embedded.client()
    key = {"Idempotency-Key": unique("key")}
    profiles = [example("healthy-manufacturer"), example("listed-trader"), named("Acme Ltd")]
    made = [client.recorded(profile, explain="full") for profile in profiles]
    made += [client.assess(profiles[0], key, explain="full").json]
    assert client.assess(profiles[0], key, explain="full").headers["idempotent-replayed"] == "true"
    for _ in range(2):
        assert client.assess(profiles[1], dry_run=True).status == 200
    items = [profiles[0], {"business": {}}, profiles[2]]
    batch = client.post("/v1/assessments/batch", {"items": items}, explain="full").json["items"]
    made += [item["assessment"] for item in batch if item["status"] == 201]
    whole = {"Idempotency-Key": unique("key")}
    for _ in range(2):
        answer = client.post("/v1/assessments/batch", {"items": [profiles[2]]}, whole, explain="full")
        assert answer.status == 200, answer
    made += [answer.json["items"][0]["assessment"]]
    assert len(made) == 7
    found = Scrape(client)
    told = [(one["level"], one["decision"]) for one in made]
    for level in LEVELS:
        for decision in DECISIONS:
            counted = found.total("assessments_total", level=level, decision=decision, model=MODEL)
            assert counted == told.count((level, decision)), (level, decision)
    # One more is scored at the start, as the example of the description.
    assert found.total("assessment_dry_runs_total", model=MODEL) == 3
    assert found.total("assessment_score_count", model=MODEL) == 7
    assert found.total("assessment_score_sum") == pytest.approx(sum(one["score"] for one in made))
    for bound in catalogue.SCORE_BOUNDS:
        below = sum(one["score"] <= bound for one in made)
        assert found.total("assessment_score_bucket", le=str(bound)) == below, bound
    missing = [reason["characteristic"] for one in made for reason in one["reasons"] if reason["missing"]]
    for name in found.label("assessment_missing_features_total", "characteristic"):
        assert found.total("assessment_missing_features_total", characteristic=name) == missing.count(name), name
    codes = [override["code"] for one in made for override in one["overrides"]]
    for code in found.label("assessment_overrides_total", "code") | set(codes):
        assert found.total("assessment_overrides_total", code=code) == codes.count(code), code


def test_evidence_is_counted(pod: Service) -> None:
    client = pod.client()
    before = Scrape(client)
    numbers = [unique("good") for _ in range(3)] + [unique("bad") for _ in range(2)]
    for number in numbers:
        client.recorded(named("Asked Ltd", registration_number=number))
    client.recorded(named("Asked Ltd", registration_number=numbers[0]))
    after = Scrape(client)

    def more(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert more("provider_calls_total", provider="registry", outcome="ok") == 3
    assert more("provider_calls_total", provider="registry", outcome="unavailable") == 2
    assert after.total("provider_calls_in_flight", provider="registry") == 0
    assert more("cache_hits_total", cache="provider.registry", tier="local") == 1
    assert more("screening_duration_seconds_count") + more("screening_remembered_total") == len(numbers) + 1


def test_batches_pools_breakers_and_caches_are_counted(pod: Service) -> None:
    client = pod.client()
    before = Scrape(client)
    ids = [client.recorded(named("Acme Ltd"))["id"] for _ in range(4)]
    for id in ids:
        assert client.get(f"/v1/assessments/{id}").status == 200
    assert client.get("/v1/assessments/01890000-0000-7000-8000-000000000000").status == 404
    assert client.get("/v1/assessments").status == 200
    after = Scrape(client)

    def more(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert more("batch_size_sum", batcher="records") == 4
    assert 1 <= more("batch_size_count", batcher="records") <= 4
    assert more("batch_flush_seconds_count", batcher="records") == more("batch_size_count", batcher="records")
    assert more("batch_flush_seconds_sum", batcher="records") > 0
    assert more("cache_hits_total", cache="assessment", tier="local") == 4
    assert more("cache_misses_total", cache="assessment") == 1
    assert more("audit_entries_total", kind="awaited") >= 1
    assert after.label("pool_connections_limit", "pool") == {"database_writes", "database_reads", "redis"}
    for pool in ("database_writes", "database_reads", "redis"):
        opened, limit = (after.total(f"pool_connections_{part}", pool=pool) for part in ("open", "limit"))
        assert 1 <= opened <= limit
        assert after.total("pool_connections_in_use", pool=pool) <= opened
    breakers = {"database_writes", "database_reads", "redis", "provider_registry"}
    assert after.label("breaker_state", "breaker") == breakers
    assert after.total("breaker_state") == 0
    assert after.label("retries_total", "dependency") == {"database", "provider.registry"}
    assert after.total("retry_budget_tokens", dependency="database") > 0
    assert after.total("health_component_status", component="database_writes") == 0
    assert after.total("service_ready") == after.total("service_workers") == 1
    assert after.total("service_info", version=__version__, model=MODEL, store="postgresql") == 1


def test_hits_are_counted_by_list(embedded: Service) -> None:
    client = embedded.client()
    client.recorded(example("listed-trader"))
    client.recorded(named("Harmless Bakery"))
    found = Scrape(client)
    assert found.label("screening_hits_total", "list") == {"demo"}
    assert found.total("screening_hits_total") >= 1
    assert found.total("watchlist_entries", list="demo") > 0
    assert found.total("watchlists_missing") == 3
    assert found.total("watchlists_stale") == 0


def test_no_label_tells_whose_request_it_was(embedded: Service) -> None:
    secrets = [unique(what) for what in ("tenant", "business", "path", "header", "code")]
    tenant, business, path, header, code = secrets
    client = embedded.client(embedded.new_key(tenant_id=tenant))
    made = client.recorded(named(business, id=business))
    client.get(f"/v1/assessments/{made['id']}")
    client.get("/v1/assessments", None, business_id=business)
    client.get(f"/{path}")
    client.send(f"X{code}"[:12], f"/v1/{path}", None, {"X-Request-ID": header})
    client.post(f"/match/{path}", {"queries": {"q": {"schema": "Company", "properties": {"name": [business]}}}})
    client.get(f"/v1/models/{path}/1.0.0")
    text = Scrape(client).text
    for secret in (*secrets, made["id"], KEY, KEY[9:21], f"X{code}"[:12]):
        assert secret not in text, secret


def sums(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The series that may only rise."""
    rising = {one.name for one in METRICS if one.kind == "counter"}
    return {
        series: value
        for series, value in Scrape(client).samples.items()
        if series[0] in rising or series[0].endswith(("_bucket", "_count", "_sum"))
    }


def test_no_counter_goes_back_when_workers_are_killed(tmp_path: Path) -> None:
    with serving(tmp_path, WORKERS="3") as service:
        sent = threading.Semaphore(0)
        acknowledged: list[int] = []

        def work(client: Client) -> None:
            if client.assess(named("Load Ltd")).status == 201:
                acknowledged.append(1)
                sent.release()

        def assessed(seen: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]) -> float:
            return sum(value for (name, _), value in seen.items() if name == "assessments_total")

        with Crowd(service, 6, work):
            before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
            for _ in range(3):
                for _ in range(100):
                    assert sent.acquire(timeout=30), service.logged()
                # The oldest: the server gives up where one ends that it has just made anew.
                victim = service.workers()[0]
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: victim not in service.workers(), "it is gone")  # type: ignore[misc]
                rounds = 0
                while rounds < 10 or len(service.workers()) < 3 or workers_told(service) < 3:
                    seen = read_by_anyone(service)
                    back = {series: value for series, value in before.items() if seen.get(series, -1.0) < value}
                    assert not back, {series: seen.get(series) for series in back}
                    before, rounds = seen, rounds + 1
        total = assessed(read_by_anyone(service))
        # What was counted between a worker's commit and its end may not have been told to a caller.
        assert len(acknowledged) <= total <= len(acknowledged) + 3 * 6
        with closing(Client(service.port)) as client:
            found = Scrape(client)
            assert found.total("service_worker_starts_total") == 6
            assert found.total("service_workers") == 3
            wait_until(lambda: Scrape(client).total("service_ready") == 1, "all of them are ready")
            wait_until(lambda: takes_part(service), "the workers that came last are counted, too")


def workers_told(service: Service) -> float:
    with closing(Client(service.port)) as client:
        return Scrape(client).total("service_workers")


def takes_part(service: Service) -> bool:
    """Whether each worker's own file of numbers has requests in it."""
    for worker in service.workers():
        [file] = [path for path in folder_of(service).glob(f"{worker}-*.cells")]
        if b"/v1/assessments" not in file.read_bytes():
            with closing(Client(service.port)) as client:
                client.get("/v1/assessments")
            return False
    return True


def read_by_anyone(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    while service.process.poll() is None:
        try:
            with closing(Client(service.port)) as client:
                return sums(client)
        except (OSError, http.client.HTTPException):
            # It came to a worker that was just killed.
            continue
    raise AssertionError(service.logged())


def folder_of(service: Service) -> Path:
    """Where the workers of a service keep their numbers."""
    [worker, *_] = service.workers()
    maps = Path(f"/proc/{worker}/maps").read_text().splitlines()
    [folder] = {Path(line.split()[-1]).parent for line in maps if line.endswith(".cells")}
    return folder


def test_the_folder_is_removed_at_the_end_and_what_is_left_of_a_kill_by_the_next_start(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as service:
        first = folder_of(service)
        assert first.stat().st_mode & 0o777 == 0o700
        assert service.terminate() == 0
        assert not first.exists()
        service.start()
        left = folder_of(service)
        service.kill()
        assert left.exists()
        with serving(tmp_path / "two") as other:
            assert not left.exists()
            assert folder_of(other).exists()


SAMPLED = {
    one.name
    for one in (
        catalogue.CPU, catalogue.MEMORY, catalogue.OPEN_FDS, catalogue.LOOP_LAG, catalogue.GC_PAUSE,
    )
}  # fmt: skip


@pytest.mark.parametrize("folder", [process.OPEN_FILES, "/proc/self/fdinfo"], ids=["size", "names"])
def test_open_files_are_counted_by_the_size_of_their_folder_or_by_their_names(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A kernel that tells no size of the first tells none of the second."""
    monkeypatch.setattr(process, "OPEN_FILES", folder)
    before = process.open_files()
    with ExitStack() as stack:
        for _ in range(50):
            stack.callback(os.close, os.dup(0))
        assert process.open_files() == before + 50
    assert process.open_files() == before


def test_what_is_sampled_can_be_switched_off_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, PERFORMANCE_MONITORING_INTERVAL="100ms") as service:
        client = service.client()
        traffic(client)
        wait_until(lambda: Scrape(client).total("event_loop_lag_seconds_count") > 2, "the loop is watched")
        on = Scrape(client)
        assert on.names >= SAMPLED
        assert on.total("process_cpu_seconds_total") > 0
        assert on.total("process_resident_memory_bytes") > 10e6
        assert on.total("process_open_fds") > 5
        wait_until(
            lambda: Scrape(client).total("process_cpu_seconds_total") > on.total("process_cpu_seconds_total"),
            "CPU time is sampled again",
        )
        service.restart(ENABLE_PERFORMANCE_MONITORING="false")
        client = service.client()
        traffic(client)
        assert on.names - Scrape(client).names == SAMPLED


def test_a_list_that_is_removed_is_not_told_of_any_more(tmp_path: Path) -> None:
    with serving(tmp_path, "watchlists: {check_every: 100ms}\n") as service:
        client = service.client()

        def watchlist(*arguments: object) -> None:
            command = (sys.executable, "-m", "app.cli", "watchlist", *map(str, arguments))
            subprocess.run(command, env=environment(service.settings), check=True, capture_output=True, timeout=60)

        def lists() -> set[str]:
            found = Scrape(client)
            assert found.label("watchlist_age_seconds", "list") == found.label("watchlist_entries", "list")
            return found.label("watchlist_entries", "list")

        watchlist("add", list_file(tmp_path / "mine.jsonl", party("w1", "Onyx Ferries")), "--name", "mine")
        wait_until(lambda: lists() == {"demo", "mine"}, "the list is in force")
        assert Scrape(client).total("watchlist_entries", list="mine") == 1
        watchlist("remove", "mine")
        wait_until(lambda: lists() == {"demo"}, "the list is gone")


def test_the_accept_header_chooses_between_the_formats(embedded: Service) -> None:
    client = embedded.client()

    def kind(answer: Answer) -> str:
        assert answer.headers["cache-control"] == "no-store"
        return answer.headers["content-type"].partition(";")[0]

    told = client.get("/metrics", {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert kind(told) == "application/openmetrics-text"
    assert "assessments" in {family.name for family in open_metrics(told.body.decode())}
    assert kind(client.get("/metrics")) == kind(client.get("/metrics", {"Accept": "*/*"})) == "text/plain"
    head = client.send("HEAD", "/metrics")
    assert (head.status, head.body, kind(head)) == (200, b"", "text/plain")
    assert client.get("/metrics", name="x").status == 422
