"""A provider that answers one request about a business with JSON, as the settings describe it."""

from __future__ import annotations

import datetime as dt
import ssl
from hashlib import sha256
from typing import Any

import msgspec

from app import wire
from app.evidence.providers.answers import NOTHING, at_pointer, read_json
from app.evidence.providers.base import Absurd, Provided
from app.evidence.providers.client import Client, Request
from app.evidence.providers.filling import Lacking, fill_body, fill_path, fill_query, needs, templates_in
from app.facts import ExternalFacts
from app.ids import instant, now_ms
from app.settings.kinds import Malformed
from app.settings.provider_section import fact_value
from app.settings.providers import Fact, HttpJson, Provider

VERSION_CHARS = 128

_decoder = msgspec.json.Decoder()


class HttpJsonProvider:
    """Asks as its settings say, and makes facts of what stands at their pointers."""

    def __init__(self, settings: HttpJson, client: Client) -> None:
        self.name = settings.name
        self.needs = needs(settings.path, *(value for _, value in settings.query), *templates_in(settings.body))
        self._settings = settings
        self._client = client
        self._tls = trusted(settings)
        self._headers = sent_headers(settings, settings.body is not None)
        self._described = described(settings)

    def key(self, profile: wire.Profile) -> bytes | None:
        try:
            request = self._request(profile)
        except Lacking:
            return None
        return digest(self._described, request)

    async def gather(self, profile: wire.Profile, deadline: float) -> Provided:
        settings = self._settings
        body = await self._client.ask(self._request(profile), settings.absent_status)
        fetched_at = instant(now_ms())
        if body is None:
            return Provided("ok", fetched_at=fetched_at)
        document = read_json(body, _decoder)
        found = [(fact, at_pointer(document, fact.pointer)) for fact in settings.facts]
        if all(value is NOTHING for _, value in found):
            raise Absurd("the answer holds none of the facts")
        facts = {fact.name: _told(value, fact) for fact, value in found}
        version = None if settings.version is None else _version(at_pointer(document, settings.version))
        return Provided("ok", ExternalFacts(**facts), version, fetched_at)

    def _request(self, profile: wire.Profile) -> Request:
        """Raises Lacking."""
        settings = self._settings
        query = fill_query(settings.query, profile)
        url = settings.url + fill_path(settings.path, profile) + (f"?{query}" if query else "")
        body = None if settings.body is None else fill_body(settings.body, profile)
        return Request(settings.method, url, self._headers, body, settings.max_bytes, self._tls)


def sent_headers(settings: Provider, with_body: bool) -> tuple[tuple[str, str], ...]:
    """What every request carries."""
    headers = [*settings.headers]
    if settings.auth is not None:
        headers.append((settings.auth.header, settings.auth.value))
    if with_body:
        headers.append(("Content-Type", "application/json"))
    return tuple(headers)


def trusted(settings: Provider) -> ssl.SSLContext | None:
    """Whose certificates are trusted; None for the platform's authorities."""
    return None if settings.ca_file is None else ssl.create_default_context(cafile=settings.ca_file)


def described(settings: Provider) -> bytes:
    """The settings that an answer depends on, without their secret."""
    return msgspec.json.encode([type(settings).__name__, msgspec.structs.replace(settings, auth=None)], order="sorted")


def digest(settings: bytes, *requests: Request) -> bytes:
    """SHA-256 over the settings and all that is asked. Length before content, so that nothing can be read two ways."""
    found = sha256(settings)
    for request in requests:
        for part in (request.url.encode(), request.body or b""):
            found.update(len(part).to_bytes(8, "big"))
            found.update(part)
    return found.digest()


def _told(found: Any, fact: Fact) -> Any:
    """What was found as the fact that it is; None where nothing was. Raises Absurd for a value that cannot be."""
    if found is NOTHING or found is None:
        return None
    if fact.form == "count":
        if not isinstance(found, list):
            raise Absurd(f"{fact.name}: what is to be counted is no list")
        found = len(found)
    elif fact.values is not None:
        text = _word(found)
        if text is None or text not in fact.values:
            raise Absurd(f"{fact.name}: the settings do not say what the value means")
        return fact.values[text]
    try:
        value = fact_value(fact.name, found)
    except Malformed:
        raise Absurd(f"{fact.name}: the value is of a wrong type or out of range") from None
    if isinstance(value, dt.date) and value > dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1):
        raise Absurd(f"{fact.name}: the date lies in the future")
    return value


def _word(found: Any) -> str | None:
    """A scalar as the settings write it."""
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int):
        return str(found) if abs(found) < 1 << 63 else None
    return msgspec.json.encode(found).decode() if isinstance(found, float) else None


def _version(found: Any) -> str | None:
    if found is NOTHING or found is None:
        return None
    text = _word(found)
    if text is None or not 1 <= len(text) <= VERSION_CHARS or not text.isprintable():
        raise Absurd(f"the version is no text of 1 to {VERSION_CHARS} characters")
    return text
