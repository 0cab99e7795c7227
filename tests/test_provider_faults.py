"""Whatever a provider does: its evidence says so, its facts are missing, and no score is the better for it."""

from __future__ import annotations

import asyncio
import gc
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_server import (
    FAULTS,
    GOOD,
    Exchange,
    FakeProvider,
    business,
    connections_to,
    deafness,
    described,
    good,
    providers,
    run,
    until,
)
from shipped import TODAY, scorer
from strategies import profiles

from app import wire
from app.evidence.base import Findings
from app.evidence.providers.base import Provided, ProviderFailed
from app.evidence.providers.collection import External
from app.facts import ExternalFacts

UNBOUNDED = ("a gigabyte announced", "a gigabyte not announced", "chunks without end", "headers without end",
             "a header without end", "a gzip bomb")  # fmt: skip

HIGHEST = ("litigation_count", "insolvency_events", "regulatory_actions", "adverse_media_count")
"""Facts of which the more is the more adverse."""


def score(profile: wire.Profile, external: ExternalFacts | None) -> Any:
    """What the shipped model says, which reads from the evidence too what it reads from the profile."""
    return scorer().assess(profile, Findings(external=external), TODAY)


def outcome(folder: Path, server: FakeProvider, text: str = "") -> External:
    """What one question to the server comes to."""
    found: list[External] = []

    async def scenario() -> None:
        async with server, providers(folder, text or described(server)) as asked:
            found.append(await asked.gather(business()))

    run(scenario)
    return found[0]


def check_failed(external: External, status: str) -> None:
    assert external == External(None, (), (wire.Evidence("registry", status),), degraded=True)  # type: ignore[arg-type]


def test_a_good_answer_tells_facts_with_their_version_and_time(tmp_path: Path) -> None:
    external = outcome(tmp_path, FakeProvider())
    [evidence] = external.evidence
    assert (evidence.source, evidence.status, evidence.version) == ("registry", "ok", "7")
    assert evidence.fetched_at is not None
    assert external.facts is not None
    assert (external.facts.litigation_count, external.facts.business_status) == (2, "active")
    assert str(external.facts.incorporated_on) == "2009-05-01"
    assert not external.degraded


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_by_the_status_of_the_evidence_and_no_fact_is(name: str, tmp_path: Path) -> None:
    behaviour, status = FAULTS[name]
    server = FakeProvider(behaviour)
    external = outcome(tmp_path, server)
    check_failed(external, status)
    assert server.requests
    if name in UNBOUNDED:
        # What the sockets' buffers hold, and no more: the rest is not read.
        assert server.sent_bytes < 20_000_000


@pytest.mark.parametrize("name", FAULTS)
def test_after_a_fault_the_next_question_is_answered(name: str, tmp_path: Path) -> None:
    server = FakeProvider(FAULTS[name][0])

    async def scenario() -> None:
        async with server, providers(tmp_path, described(server)) as asked:
            assert (await asked.gather(business("1"))).degraded
            server.behaviour = good
            assert not (await asked.gather(business("2"))).degraded

    run(scenario)


@settings(max_examples=60, derandomize=True)
@given(profiles(), st.sampled_from(list(FAULTS.values())))
def test_a_failing_provider_changes_no_score(profile: wire.Profile, fault: Any) -> None:
    told = Provided(fault[1])
    without, failing = score(profile, None), score(profile, told.facts)
    assert failing.record() == without.record()
    assert (failing.score, failing.level, failing.decision) == (without.score, without.level, without.decision)


COUNTS = st.none() | st.integers(0, 12)


@settings(max_examples=200, derandomize=True)
@given(
    profiles(),
    st.builds(wire.Signals, **{name: st.integers(0, 12) for name in HIGHEST}, website_verified=st.booleans()),
    st.builds(ExternalFacts, **{name: COUNTS for name in HIGHEST}, website_verified=st.none() | st.booleans()),
)
def test_what_the_caller_said_is_never_made_better(
    profile: wire.Profile, said: wire.Signals, facts: ExternalFacts
) -> None:
    profile = msgspec.structs.replace(profile, signals=said)
    assert score(profile, facts).score >= score(profile, None).score


@pytest.mark.parametrize("name", ["status 500", "silence", "a gigabyte announced", "NaN", "a reset"])
def test_a_fault_on_the_wire_scores_as_no_provider_does(name: str, tmp_path: Path) -> None:
    external = outcome(tmp_path, FakeProvider(FAULTS[name][0]))
    assert external.degraded
    assert score(business(), external.facts).record() == score(business(), None).record()


@pytest.mark.parametrize("name", ["status 503", "silence", "a gigabyte not announced", "NaN", "a reset"])
def test_nothing_of_a_failure_stays_until_garbage_is_collected(name: str, tmp_path: Path) -> None:
    """With its buffers that would be as much as an answer may have, times all questions asked till then."""
    server = FakeProvider(FAULTS[name][0])

    def left() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, ProviderFailed | aiohttp.ClientResponse)]

    async def scenario() -> None:
        async with server, providers(tmp_path, described(server)) as asked:
            assert (await asked.gather(business())).degraded
            async with asyncio.timeout(5):
                await until(lambda: not left())

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


def test_a_redirection_is_not_followed(tmp_path: Path) -> None:
    for status in (301, 302, 303, 307, 308):
        other = FakeProvider()

        async def elsewhere(exchange: Exchange, status: int = status, other: FakeProvider = other) -> None:
            await exchange.answer(GOOD, status, Location=f"{other.url}/companies/1")

        server = FakeProvider(elsewhere)

        async def scenario(server: FakeProvider = server, other: FakeProvider = other) -> None:
            async with other, server, providers(tmp_path, described(server)) as asked:
                check_failed(await asked.gather(business()), "invalid")

        run(scenario)
        assert (len(server.requests), other.connections) == (1, 0)


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = FakeProvider()
        async with server:
            pass
        async with providers(tmp_path, described(server)) as asked:
            check_failed(await asked.gather(business()), "unavailable")

    run(scenario)


def test_a_host_without_an_address_is_unavailable(tmp_path: Path) -> None:
    text = described(FakeProvider(tls=ssl.create_default_context(), host="registry.invalid", port=443))

    async def scenario() -> None:
        async with providers(tmp_path, text.replace("500ms", "1900ms")) as asked:
            external = await asked.gather(business())
            assert external.evidence[0].status in ("unavailable", "timeout")
            assert external.degraded

    run(scenario)


def test_no_business_of_that_number_is_an_answer_without_facts(tmp_path: Path) -> None:
    async def unknown(exchange: Exchange) -> None:
        await exchange.answer({"error": "no such company"}, 404)

    external = outcome(tmp_path, FakeProvider(unknown))
    assert (external.facts, external.degraded, external.evidence[0].status) == (None, False, "ok")


# ---------------------------------------------------------------- certificates


def served_by(authority: trustme.CA, name: str) -> FakeProvider:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return FakeProvider(tls=context, host="localhost")


@pytest.mark.parametrize(
    ("name", "trusted", "status"),
    [("localhost", True, "ok"), ("localhost", False, "unavailable"), ("other.example", True, "unavailable")],
)
def test_a_certificate_must_be_of_an_authority_that_is_trusted_and_of_this_host(
    name: str, trusted: bool, status: str, tmp_path: Path
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    (authority if trusted else other).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = served_by(authority, name)
    found: list[External] = []

    async def scenario() -> None:
        # What a refused handshake leaves on the server's side is of no interest.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with server, providers(tmp_path, described(server, more=f"    ca_file: {tmp_path}/ca.pem\n")) as asked:
            found.append(await asked.gather(business()))

    run(scenario)
    assert found[0].evidence[0].status == status
    assert len(server.requests) == (1 if status == "ok" else 0)


def test_a_certificate_that_nobody_vouches_for_is_refused_without_a_file_of_authorities_too(tmp_path: Path) -> None:
    server = served_by(trustme.CA(), "localhost")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with server, providers(tmp_path, described(server)) as asked:
            check_failed(await asked.gather(business()), "unavailable")

    run(scenario)
    assert server.requests == []


def test_a_provider_that_fell_silent_keeps_no_connection_by_not_answering_the_farewell(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = served_by(authority, "localhost")
    server.behaviour = deafness

    async def scenario() -> None:
        more = f"    ca_file: {tmp_path}/ca.pem\n"
        async with server, providers(tmp_path, described(server, timeout="1s", more=more)) as asked:
            check_failed(await asked.gather(business()), "timeout")
            assert len(server.requests) == 1
            async with asyncio.timeout(5):
                await until(lambda: connections_to(server.port) == 0)

    run(scenario)


def test_a_handshake_that_never_ends_is_given_up_with_its_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(writer)
            await over.wait()
            writer.close()

        met: list[asyncio.StreamWriter] = []
        over = asyncio.Event()
        listener = await asyncio.start_server(wait, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        server = FakeProvider(tls=ssl.create_default_context(), host="localhost", port=port)
        async with listener, providers(tmp_path, described(server)) as asked:
            check_failed(await asked.gather(business()), "timeout")
            assert len(met) == 1
            async with asyncio.timeout(5):
                await until(lambda: connections_to(port) == 0)
            over.set()

    run(scenario)
