"""`kyb doctor providers` against providers that are there, and that are not in every way."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from doctored import examined, run, within
from provider_server import FakeProvider, closed, raw, silence, status
from service import free_port

from app.doctor import providers as examination
from app.doctor.findings import Finding
from app.settings import load

SECRET = "the secret of the registry"

PROVIDER = """\
providers:
  registry:
    kind: http_json
    url: {url}/companies/{{business.registration_number}}
    auth: {{header: X-Api-Key, value_env: REGISTRY_KEY}}
    timeout: {timeout}
    facts: {{employees: /company/staff}}
"""


def described(folder: Path, url: str, timeout: str = "500ms", ca_file: Path | None = None) -> str:
    """The file of settings with one provider."""
    file = folder / "service.yaml"
    text = PROVIDER.format(url=url, timeout=timeout)
    file.write_text(text + (f"    ca_file: {ca_file}\n" if ca_file else ""))
    return str(file)


async def found(config: str) -> list[Finding]:
    return await examination.examined(load({"REGISTRY_KEY": SECRET}, config).settings)


def asked(folder: Path, server: FakeProvider, timeout: str = "500ms", ca_file: Path | None = None) -> list[Finding]:
    """What was found of a provider that runs."""

    async def scenario() -> list[Finding]:
        # What a refused handshake leaves on the server's side is of no interest.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with server, asyncio.timeout(20):
            return await found(described(folder, server.url, timeout, ca_file))

    return asyncio.run(scenario())


def one(findings: list[Finding], name: str = "registry") -> Finding:
    (only,) = [finding for finding in findings if finding.about == name]
    return only


def secured(authority: trustme.CA, name: str = "localhost", days: int | None = None) -> FakeProvider:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=days) if days is not None else None
    authority.issue_cert(name, not_after=until).configure_cert(context)
    return FakeProvider(tls=context, host="localhost")


def authority_file(authority: trustme.CA, folder: Path) -> Path:
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


def test_without_providers_there_is_nothing_to_look_at() -> None:
    (shown,) = examined({}, "providers")
    assert (shown["verdict"], shown["seen"]) == ("ok", "none is configured")


def test_each_step_to_a_provider_is_timed_and_nothing_is_asked_of_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = secured(authority)
    findings = asked(tmp_path, server, ca_file=authority_file(authority, tmp_path))
    shown = one(findings)
    assert shown.verdict == "ok"
    assert set(shown.figures) == {"address", "look_up_s", "connect_s", "tls_s", "first_byte_s"}
    assert "TLS in " in shown.seen
    assert "(status 200)" in shown.seen
    assert one(findings, "registry certificate").figures["days"] > 21
    assert "timeout 500ms, kept for 1h, 16 calls at once by a worker" in one(findings, "registry settings").seen
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("HEAD", "/", b"")
    assert "x-api-key" not in request.headers
    assert SECRET not in str(findings)


def test_a_refusal_is_an_answer_too(tmp_path: Path) -> None:
    assert one(asked(tmp_path, FakeProvider(status(404)))).verdict == "ok"


def test_a_port_that_refuses(tmp_path: Path) -> None:
    port = free_port()
    done = run({"REGISTRY_KEY": SECRET}, "providers", "--config", described(tmp_path, f"http://127.0.0.1:{port}"))
    assert done.returncode == 5
    assert (
        f"wrong  registry           127.0.0.1 port {port} (127.0.0.1) cannot be reached: connection refused"
        in done.stdout
    )
    assert SECRET not in done.stdout


def test_a_host_without_an_address(tmp_path: Path) -> None:
    shown = one(asyncio.run(found(described(tmp_path, "https://nowhere.invalid"))))
    assert (shown.verdict, "nowhere.invalid cannot be looked up" in shown.seen) == ("wrong", True)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_one_that_takes_the_connection_and_then_says_nothing(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, within(10):
        port = listening.getsockname()[1]
        shown = one(asyncio.run(found(described(tmp_path, f"{scheme}://127.0.0.1:{port}"))))
    assert shown.verdict == "wrong"
    assert (
        "does not answer in TLS within 1.0 s" if scheme == "https" else "does not answer within 1.0 s"
    ) in shown.seen


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (silence, "takes the connection and then does not answer"),
        (closed, "ends the connection without an answer"),
        (raw(b"220 mail.example ESMTP\r\n"), "something that is not HTTP"),
    ],
)
def test_one_that_does_not_answer_as_a_web_service_does(
    tmp_path: Path, behaviour: Callable[..., Awaitable[None]], words: str
) -> None:
    shown = one(asked(tmp_path, FakeProvider(behaviour)))
    assert (shown.verdict, words in shown.seen) == ("wrong", True), shown


def test_one_that_takes_longer_than_its_timeout(tmp_path: Path) -> None:
    async def late(exchange: object) -> None:
        await asyncio.sleep(0.3)
        await status(200)(exchange)  # type: ignore[arg-type]

    shown = one(asked(tmp_path, FakeProvider(late), timeout="200ms"))
    assert (shown.verdict, "It has 200ms for a whole question" in shown.action) == ("wrong", True)


def test_a_certificate_that_is_not_accepted_is_explained(tmp_path: Path) -> None:
    authority = trustme.CA()
    unknown = one(asked(tmp_path, secured(authority)))
    trusted = authority_file(authority, tmp_path)
    mistaken = one(asked(tmp_path, secured(authority, "other.example"), ca_file=trusted))
    over = one(asked(tmp_path, secured(authority, days=-1), ca_file=trusted))
    assert "unable to get local issuer certificate" in unknown.seen
    assert "ca_file" in unknown.action
    assert "Hostname mismatch" in mistaken.seen
    assert "certificate has expired" in over.seen
    assert {unknown.verdict, mistaken.verdict, over.verdict} == {"wrong"}


def test_a_certificate_that_ends_soon_is_to_be_looked_at(tmp_path: Path) -> None:
    authority = trustme.CA()
    findings = asked(tmp_path, secured(authority, days=10), ca_file=authority_file(authority, tmp_path))
    assert (one(findings).verdict, one(findings, "registry certificate").verdict) == ("ok", "look")


def test_tls_with_a_port_that_does_not_speak_it(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def scenario() -> list[Finding]:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await found(described(tmp_path, f"https://127.0.0.1:{port}"))

    shown = one(asyncio.run(scenario()))
    assert (shown.verdict, shown.seen) == ("wrong", "TLS with 127.0.0.1 fails: wrong version number")


def test_all_providers_are_asked_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, within(10):
        port = listening.getsockname()[1]
        file = described(tmp_path, f"http://127.0.0.1:{port}")
        one_of_many = Path(file).read_text().removeprefix("providers:\n")
        many = "".join(one_of_many.replace("registry:", f"registry{number}:") for number in range(20))
        Path(file).write_text(f"providers:\n{many}")
        findings = asyncio.run(found(file))
    assert sum(finding.verdict == "wrong" for finding in findings) == 20
    assert one(findings, "registry7").verdict == "wrong"
