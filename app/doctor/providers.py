"""The external providers: whether each is there, who it says it is, and how long each step to it takes.

Nothing of any business is asked, and no secret is sent: the only request is a HEAD of the root.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from app.doctor.findings import Finding, Verdict, judged, ok, sentence, time_text, wrong
from app.doctor.reaching import Unknown, looked_up
from app.evidence.providers.client import USER_AGENT
from app.evidence.providers.http_json import trusted
from app.settings import Settings
from app.settings.kinds import show_duration
from app.settings.providers import AnyProvider

LONGEST_S = 5.0
"""Of one step, whatever a provider's timeout is."""
CERTIFICATE_DAYS = (21, 3)
"""How long before its end a certificate is to be looked at, and when it is as good as over."""

_PORTS = {"https": 443, "http": 80}


class _Failed(Exception):
    """A step failed. The finding says how."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.seen)
        self.finding = finding


async def examined(settings: Settings) -> list[Finding]:
    """All findings, those of each provider together."""
    if not settings.providers:
        return [ok("providers", "none is configured")]
    found = await asyncio.gather(*[_provider(one, settings) for one in settings.providers])
    return [finding for findings in found for finding in findings]


async def _provider(provider: AnyProvider, settings: Settings) -> list[Finding]:
    findings = [_settings(provider, settings)]
    name = provider.name
    writer: asyncio.StreamWriter | None = None
    try:
        parts = urlsplit(provider.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        within_s = min(LONGEST_S, max(provider.timeout, 1.0))
        began = time.monotonic()
        address = await _address(name, host, port)
        looked_up_s = time.monotonic() - began
        reader, writer, connect_s = await _connected(name, host, address, port, within_s)
        steps = [f"connected in {time_text(connect_s)}"]
        figures: dict[str, Any] = {"address": address, "look_up_s": looked_up_s, "connect_s": connect_s}
        if parts.scheme == "https":
            tls_s = await _secured(provider, writer, host, within_s)
            steps.append(f"TLS in {time_text(tls_s)}")
            figures["tls_s"] = tls_s
            findings.append(_certificate(name, writer))
        status, answer_s = await _first_byte(name, reader, writer, parts.netloc, within_s)
        steps.append(f"first byte after {time_text(answer_s)} ({status})")
        figures["first_byte_s"] = answer_s
        whole_s = time.monotonic() - began
        verdict: Verdict = "wrong" if answer_s >= provider.timeout else "look" if whole_s >= provider.timeout else "ok"
        findings.append(
            judged(
                name,
                verdict,
                f"{parts.netloc} at {address}: {', '.join(steps)}",
                f"It has {show_duration(provider.timeout)} for a whole question: raise `timeout`, or ask its operator.",
                **figures,
            )
        )
    except _Failed as failed:
        findings.append(failed.finding)
    finally:
        if writer is not None:
            writer.transport.abort()
    return findings


def _settings(provider: AnyProvider, settings: Settings) -> Finding:
    workers, replicas = settings.server.workers, settings.scaling.max_replicas or 1
    most = provider.concurrency * workers * replicas
    trust = provider.ca_file or "the platform's authorities"
    secret = f", secret in the header {provider.auth.header}" if provider.auth is not None else ""
    return ok(
        f"{provider.name} settings",
        f"{provider.url}, timeout {show_duration(provider.timeout)}, kept for {show_duration(provider.ttl)}, "
        f"{provider.concurrency} calls at once by a worker and {most} by the fleet, trusts {trust}{secret}",
        timeout_s=provider.timeout,
        ttl_s=provider.ttl,
        concurrency=provider.concurrency,
        fleet_concurrency=most,
    )


async def _address(name: str, host: str, port: int) -> str:
    try:
        return (await looked_up(host, port, LONGEST_S))[0]
    except Unknown as unknown:
        raise _Failed(wrong(name, str(unknown), "Check its `url`, and the name servers.")) from None


async def _connected(
    name: str, host: str, address: str, port: int, within_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float]:
    began = time.monotonic()
    remedy = "Check its `url`, that the network lets the service out to it, and with its operator."
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host if ":" in address else address, port)
    except TimeoutError:
        problem = f"{host} port {port} ({address}) does not take a connection within {time_text(within_s)}"
        raise _Failed(wrong(name, problem, remedy)) from None
    except OSError as error:
        words = sentence(os.strerror(error.errno)) if error.errno else "it does not take a connection"
        raise _Failed(wrong(name, f"{host} port {port} ({address}) cannot be reached: {words}", remedy)) from None
    return reader, writer, time.monotonic() - began


async def _secured(provider: AnyProvider, writer: asyncio.StreamWriter, host: str, within_s: float) -> float:
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s):
            await writer.start_tls(trusted(provider) or ssl.create_default_context(), server_hostname=host)
    except TimeoutError:
        raise _Failed(
            wrong(
                provider.name,
                f"{host} takes the connection and then does not answer in TLS within {time_text(within_s)}",
                "Check that its `url` leads to a port that speaks TLS, and with its operator.",
            )
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise _Failed(
            wrong(
                provider.name,
                f"the certificate of {host} is not accepted: {error.verify_message}",
                "Ask its operator for a good one; where an authority of your own signs it, name that in `ca_file`.",
            )
        ) from None
    except (OSError, ssl.SSLError) as error:
        words = getattr(error, "reason", None) or error.strerror or "it ended the connection"
        raise _Failed(
            wrong(
                provider.name,
                f"TLS with {host} fails: {str(words).replace('_', ' ').lower()}",
                "Check that its `url` leads to a port that speaks TLS, and with its operator.",
            )
        ) from None
    return time.monotonic() - began


def _certificate(name: str, writer: asyncio.StreamWriter) -> Finding:
    held = writer.get_extra_info("peercert") or {}
    end = dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(held["notAfter"]), dt.UTC)
    days = (end - dt.datetime.now(dt.UTC)).days
    version = writer.get_extra_info("ssl_object").version()
    look_at, wrong_at = CERTIFICATE_DAYS
    return judged(
        f"{name} certificate",
        "wrong" if days < wrong_at else "look" if days < look_at else "ok",
        f"accepted, {version}, until {end:%Y-%m-%d} ({days} days)",
        "Remind its operator: a certificate that is over ends every call.",
        days=days,
    )


async def _first_byte(
    name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, within_s: float
) -> tuple[str, float]:
    """The status of the answer, any being as good as another, and how long its first byte took."""
    began = time.monotonic()
    head = f"HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    remedy = (
        "Ask its operator; meanwhile its facts are missing, and nothing else waits for it once its breaker is open."
    )
    line = b""
    try:
        async with asyncio.timeout(within_s):
            writer.write(head.encode("ascii"))
            line = await reader.read(1)
            first_s = time.monotonic() - began
            while line and not line.endswith(b"\n") and len(line) < 1024:
                line += await reader.read(1)
    except TimeoutError:
        problem = f"{host} takes the connection and then does not answer within {time_text(within_s)}"
        raise _Failed(wrong(name, problem, remedy)) from None
    except OSError:
        line = b""
    if not line:
        raise _Failed(wrong(name, f"{host} ends the connection without an answer", remedy))
    words = line.decode("ascii", "replace").split()
    if not words[:1] or not words[0].startswith("HTTP/") or len(words) < 2 or not words[1].isdigit():
        raise _Failed(wrong(name, f"{host} answers with something that is not HTTP", "Check its `url`."))
    with suppress(OSError):
        writer.close()
    return f"status {words[1]}", first_s
