"""URLs of databases and caches. They may hold a password, so no message repeats more of one than its scheme."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from app.settings.kinds import Kind, Malformed, mask_url, quoted

_POSTGRES_SCHEMES = ("postgresql", "postgres")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PLACE = re.compile(r"/.*|(?:\[[^\s/\[\]]+\]|[^\s:/\[\]]+)(?::([0-9]{1,5}))?")
REDIS_PORT = 6379
TRACES_PATH = "/v1/traces"
"""Where a collector takes traces over HTTP (OTLP specification), unless its URL names another path."""
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def is_postgres(url: str | None) -> bool:
    """Whether a database URL, None = the embedded one, names PostgreSQL."""
    return url is not None and url.partition("://")[0] in _POSTGRES_SCHEMES


def _database_url(text: str) -> str:
    if is_postgres(text):
        return _postgres_url(text)
    place = _place(text, "sqlite")
    if not place.startswith("/") or place.endswith("/") or not place.isprintable() or set(place) & set("?#"):
        raise Malformed("the URL does not name one database file")
    if place.endswith(":memory:"):
        raise Malformed("a database in memory would lose every record")
    return text


def _postgres_url(text: str) -> str:
    _place(text, *_POSTGRES_SCHEMES)
    url = _split(text)
    parameters = _parameters(url.query)
    # What an unencoded password may hold moves its rest into another part of the URL, where it would be shown.
    if not text.isprintable() or "#" in text or url.netloc.count("@") > 1 or set(url.path[1:]) & set("/@"):
        raise Malformed("the URL holds a character that must be percent-encoded")
    places = url.netloc.rpartition("@")[2] or parameters.get("host", "")
    if not places:
        raise Malformed("the URL names no host")
    for place in places.split(","):
        match = _PLACE.fullmatch(place)
        if not match or (match[1] and not 1 <= int(match[1]) <= 65535):
            raise Malformed("the URL does not name its hosts as host:port, separated by commas")
    if not url.path.strip("/"):
        raise Malformed("the URL names no database")
    return text


def place_of(address: tuple[str, int]) -> str:
    """Host and port as they stand in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redis_hosts(url: str) -> list[tuple[str, int]]:
    """Host and port of each server that a URL of Redis names, none for a socket. Raises ValueError for no port."""
    places = urlsplit(url).netloc.rpartition("@")[2]
    each = [urlsplit(f"//{place}") for place in places.split(",")] if places else []
    return [(one.hostname or "", REDIS_PORT if one.port is None else one.port) for one in each]


def redis_url_at(url: str, address: tuple[str, int]) -> str:
    """The same URL with one server in it: this one."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}{place_of(address)}"))


def redis_database(url: str) -> int:
    """The number of the database that a URL of Redis names."""
    parts = urlsplit(url)
    number = parse_qs(parts.query).get("db", ["0"])[-1] if parts.scheme == "unix" else parts.path.strip("/")
    return int(number or 0)


def _redis_url(text: str) -> str:
    url = _split(text)
    try:
        hosts = redis_hosts(text)
    except ValueError:
        raise Malformed("the value is not a URL") from None
    if url.scheme not in ("redis", "rediss", "unix"):
        raise Malformed(f"{quoted(url.scheme)} is not a scheme of Redis" if url.scheme else "the value is not a URL")
    if not text.isprintable() or url.fragment or any(port == 0 for _, port in hosts):
        raise Malformed("the value is not a URL of Redis")
    if url.scheme == "unix":
        if not url.path.strip("/"):
            raise Malformed("the URL names no socket file")
    elif not hosts or not all(host for host, _ in hosts):
        raise Malformed("the URL names no host")
    elif not re.fullmatch(r"/?|/[0-9]{1,5}", url.path):
        raise Malformed("the path of the URL is not a database number")
    return text


def _place(text: str, *schemes: str) -> str:
    """What follows the scheme of a URL that must have one of `schemes`."""
    scheme, separator, place = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise Malformed("the value is not a URL")
    if scheme not in schemes:
        raise Malformed(f"a database of scheme {quoted(scheme)} is not supported here")
    return place


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise Malformed("the value is not a URL") from None


def _parameters(query: str) -> dict[str, str]:
    """The last value of each parameter, as the driver takes them."""
    try:
        found = parse_qs(query, strict_parsing=True) if query else {}
    except ValueError:
        raise Malformed("what follows ? in the URL is not name=value&name=value") from None
    # An encoded name of a password would pass by what masks it.
    if not all(_PARAMETER.fullmatch(name) for name in re.findall(r"(?:^|&)([^=&]*)=", query)):
        raise Malformed("a parameter of the URL has a name that is not plain")
    return {name: values[-1] for name, values in found.items()}


def _collector_url(text: str) -> str:
    url = _split(text)
    try:
        port = url.port
    except ValueError:
        raise Malformed("the value is not a URL") from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or not text.isprintable():
        raise Malformed("the value is not a URL of HTTP")
    # It is shown, so it must hold no password; the exporter takes headers from OTEL_EXPORTER_OTLP_HEADERS.
    if "@" in url.netloc or "?" in text or "#" in text:
        raise Malformed("the URL holds more than a host, a port and a path")
    return text.rstrip("/") + ("" if url.path.strip("/") else TRACES_PATH)


_POSTGRES = "postgresql://user:password@host:5432/name (what is special in a password percent-encoded)"

DATABASE_URL = Kind(
    _database_url,
    mask_url,
    "nothing for the embedded database in database.data_dir, or sqlite:///relative/file.db, "
    f"sqlite:////absolute/file.db or {_POSTGRES}",
)
POSTGRES_URL = Kind(_postgres_url, mask_url, f"{_POSTGRES}, or nothing")
REDIS_URL = Kind(_redis_url, mask_url, "redis://host:port/0, rediss://host:port/0, unix:///path/of/socket, or nothing")
COLLECTOR_URL = Kind(_collector_url, str, "http://host:4318 or https://host/path, or nothing")
