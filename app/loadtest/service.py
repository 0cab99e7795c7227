"""The service under test, before anything is asked of it in earnest: is it there, does it take the key, what is it."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

WITHIN_S = 10.0
PROBE = b'{"business": {"name": "Load test", "jurisdiction": "DE"}}'


class NotUsable(Exception):
    """The service cannot be tested like this; the text says why and what to do."""


class Address(Struct, frozen=True):
    """Where the service is. address: numeric.  key: "" for none."""

    url: str
    address: str
    port: int
    host_header: str
    key: str

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, as far as the address tells."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def headers(self) -> dict[str, str]:
        """Of each request."""
        return {"Host": self.host_header, **({"X-API-Key": self.key} if self.key else {})}

    def connection(self, within_s: float) -> http.client.HTTPConnection:
        """A new connection, not made yet."""
        return http.client.HTTPConnection(self.address, self.port, timeout=within_s)


def found(url: str, key: str) -> Address:
    """The address of a URL. Raises NotUsable."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise NotUsable(f"{url} is no URL: {error}") from None
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise NotUsable(
            f"{url} cannot be tested: give it as http://HOST:PORT. The generator speaks plain HTTP, so that it "
            "measures the service; of one behind TLS give the address behind what ends it"
        )
    if not key.isascii() or not (key + " ").isprintable():
        raise NotUsable("the key has characters that no key has")
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise NotUsable(f"{host} is not found: {error.strerror or error}") from None
    return Address(url.rstrip("/"), str(address), port, parts.netloc, key)


def check(address: Address, kinds: Collection[str]) -> None:
    """Make sure that what will be asked is answered. Raises NotUsable."""
    status, _ = _ask(address, "GET", "/health")
    if status not in (200, 503):
        raise NotUsable(f"{address.url}/health is answered with {status}; is that the service?")
    asks: list[tuple[str, str, bytes | None]] = [("POST", "/v1/assessments?dry_run=true", PROBE)]
    if "read" in kinds:
        asks.append(("GET", "/v1/assessments?limit=1", None))
    for method, path, body in asks if set(kinds) - {"health"} else []:
        status, told = _ask(address, method, path, body)
        if status == 401:
            given = "the key is not accepted" if address.key else "it asks for a key, and none was given"
            raise NotUsable(
                f"{address.url}: {given}. Give one with --key, KYB_KEY or KYB_KEY_FILE; "
                "`kyb keys create --role assessor --tier unlimited --tenant loadtest --name loadtest` makes one"
            )
        if status == 403:
            raise NotUsable(f"{address.url}: the key may not do what this mix asks for; give one of the role assessor")
        if status >= 400:
            raise NotUsable(f"{address.url}: {method} {path} is answered with {status}: {told.get('detail', '')}")


def limited_to(address: Address) -> float | None:
    """Requests a second that the key may make, as the service tells it; None for no limit."""
    with_connection = address.connection(WITHIN_S)
    try:
        with_connection.request("GET", "/v1/assessments?limit=1", headers=address.headers)
        policy = with_connection.getresponse().getheader("RateLimit-Policy") or ""
    except (OSError, http.client.HTTPException):
        return None
    finally:
        with_connection.close()
    rates = []
    for one in policy.split(","):
        terms = dict(term.strip().split("=", 1) for term in one.split(";")[1:] if "=" in term)
        if terms.get("q", "").isdigit() and terms.get("w", "").isdigit() and int(terms["w"]):
            rates.append(int(terms["q"]) / int(terms["w"]))
    return min(rates, default=None)


def described(address: Address) -> dict[str, str]:
    """What it tells of itself in /health/detailed; nothing where that is not to be read."""
    try:
        status, told = _ask(address, "GET", "/health/detailed")
    except NotUsable:
        return {}
    if status not in (200, 503):
        return {}
    names = ("version", "schema", "workers", "status", "process_id", "uptime_s")
    shown = {name: str(told[name]) for name in names if name in told}
    model = told.get("model") or {}
    return {**shown, "model": f"{model.get('id')}@{model.get('version')}"}


def _ask(address: Address, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    connection = address.connection(WITHIN_S)
    try:
        connection.request(method, path, body, {**address.headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except TimeoutError:
        raise NotUsable(f"{address.url} does not answer within {WITHIN_S:.0f} s") from None
    except OSError as error:
        raise NotUsable(
            f"{address.url} cannot be reached: {error.strerror or error}. Is the service started?"
        ) from None
    except http.client.HTTPException as error:
        raise NotUsable(f"{address.url} does not answer in HTTP: {error!r}") from None
    finally:
        connection.close()
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return response.status, told if isinstance(told, dict) else {}
